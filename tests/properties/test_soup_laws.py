"""Laws of averaging that hold for any members."""

import torch
from helpers import reference_mean
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wamlib.merge import interpolate, uniform_soup
from wamlib.probe import barrier

floats = st.floats(-1e3, 1e3, width=32)


@st.composite
def pools(draw, min_size=1, max_size=6):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
    n = draw(st.integers(min_size, max_size))
    arrays = [draw(hnp.arrays("float32", shape, elements=floats)) for _ in range(n)]
    return [{"w": torch.from_numpy(array.copy()), "n": torch.tensor(index)} for index, array in enumerate(arrays)]


@given(pools())
def test_equals_the_float64_mean_to_one_rounding(pool):
    expected = torch.from_numpy(reference_mean(pool)["w"]).float()
    torch.testing.assert_close(uniform_soup(pool)["w"], expected, rtol=2**-23, atol=1e-30)


@given(pools(), st.randoms(use_true_random=False))
def test_order_does_not_matter_beyond_rounding(pool, random):
    shuffled = pool.copy()
    random.shuffle(shuffled)
    torch.testing.assert_close(uniform_soup(shuffled)["w"], uniform_soup(pool)["w"], rtol=2**-22, atol=1e-9)


@given(pools(), st.data())
def test_one_hot_is_exact(pool, data):
    chosen = data.draw(st.integers(0, len(pool) - 1))
    weights = [float(index == chosen) for index in range(len(pool))]
    assert torch.equal(uniform_soup(pool, weights)["w"], pool[chosen]["w"])


@given(pools(), st.floats(0.01, 100))
def test_a_common_factor_of_the_weights_cancels(pool, factor):
    a = uniform_soup(pool, [1.0] * len(pool))
    b = uniform_soup(pool, [factor] * len(pool))
    torch.testing.assert_close(a["w"], b["w"], rtol=1e-6, atol=1e-9)


@given(pools())
def test_a_soup_lies_between_its_members(pool):
    stacked = torch.stack([member["w"] for member in pool])
    soup = uniform_soup(pool)["w"]
    assert (soup >= stacked.amin(0)).all()
    assert (soup <= stacked.amax(0)).all()


@given(pools(2, 2), st.floats(0, 1))
def test_the_line_is_the_same_from_both_ends(pool, alpha):
    forth = interpolate(pool[0], pool[1], alpha)["w"]
    back = interpolate(pool[1], pool[0], 1 - alpha)["w"]
    torch.testing.assert_close(forth, back, rtol=1e-5, atol=1e-4)


@given(pools(2, 2), st.lists(st.floats(0, 1), max_size=5))
def test_a_barrier_is_never_negative(pool, inner):
    line = barrier(pool[0], pool[1], lambda state: state["w"].double().square().sum().item(), [0, *inner, 1])
    assert line.height >= 0
    # The error here is convex, so its line never rises above the chord.
    scale = 1 + max(line.errors)
    assert line.height <= 1e-5 * scale
