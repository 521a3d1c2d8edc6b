"""SLERP and Model Stock: D13 and the formulas of their papers, each with a twin that fails."""

import math

import pytest
import references
import torch
from references import assert_equals, eighths, fine_tuned

from wamlib.errors import MergeError
from wamlib.merge import interpolate, model_stock, slerp, uniform_soup

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SCOPES = ["global", "tensor"]


def pool(n=3, dtype=torch.float32):
    base = eighths(0, dtype)
    return base, [fine_tuned(base, seed) for seed in range(1, n + 1)]


def vector(*values):
    return {"w": torch.tensor(values, dtype=torch.float64)}


def at_angle(angle, length=1.0):
    return vector(length * math.cos(angle), length * math.sin(angle))


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# SLERP


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.9, 1.0, 1.5, -1])
def test_slerp_is_the_published_formula(alpha, dtype, scope):
    _, (a, b) = pool(2, dtype)
    assert_equals(slerp(a, b, alpha, scope), references.slerp(a, b, alpha, scope))


def test_the_two_scopes_differ_and_global_is_what_one_gets():
    _, (a, b) = pool(2)
    whole, each = (references.slerp(a, b, 0.3, scope) for scope in SCOPES)
    assert_equals(slerp(a, b, 0.3), whole)
    with pytest.raises(AssertionError):
        assert_equals(slerp(a, b, 0.3), each)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_are_the_members(dtype, scope):
    _, (a, b) = pool(2, dtype)
    b_with_as_counters = {k: t if t.is_floating_point() else a[k] for k, t in b.items()}
    for alpha in (0, 0.0, 1, 1.0):
        assert_same(slerp(a, b, alpha, scope), b_with_as_counters if alpha else a)


@pytest.mark.parametrize("angle", [1e-9, 1e-5, 0.1, 1.0, math.pi / 2, 3.0, math.pi - 1e-3])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8])
def test_the_arc_is_walked_at_constant_speed_and_length(angle, alpha):
    a, b = at_angle(0.2, 3.0), at_angle(0.2 + angle, 3.0)
    torch.testing.assert_close(slerp(a, b, alpha), at_angle(0.2 + alpha * angle, 3.0), rtol=1e-9, atol=1e-9)
    assert slerp(a, b, alpha)["w"].norm().item() == pytest.approx(3.0, rel=1e-9)


def test_the_line_would_be_shorter():
    # The twin of the one above.
    assert interpolate(at_angle(0), at_angle(2.0), 0.5)["w"].norm() < 0.6


def test_half_way_to_a_right_angle():
    assert slerp(vector(1, 0), vector(0, 1), 0.5)["w"].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])
    # Lengths are blended, not made equal.
    assert slerp(vector(2, 0), vector(0, 1), 0.5)["w"].tolist() == pytest.approx([2 * 0.5**0.5, 0.5**0.5])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (vector(1, 2, 3), vector(1, 2, 3)),
        (vector(1, 2, 3), vector(2, 4, 6)),
        (vector(1, 2, 3), vector(-1, -2, -3)),
        (vector(1, 2, 3), vector(-0.5, -1, -1.5)),
        (vector(1, 2, 3), vector(0, 0, 0)),
        (vector(0, 0, 0), vector(1, 2, 3)),
        (vector(0, 0, 0), vector(0, 0, 0)),
        (vector(1, 0), at_angle(1e-7)),
        (vector(1, 0), at_angle(math.pi - 1e-7)),
        (vector(2.0), vector(3.0)),
        (vector(2.0), vector(-3.0)),
    ],
)
@pytest.mark.parametrize("scope", SCOPES)
def test_parallel_opposite_and_zero_vectors_take_the_line(a, b, scope):
    merged = slerp(a, b, 0.25, scope)
    torch.testing.assert_close(merged, interpolate(a, b, 0.25), rtol=1e-12, atol=1e-12)
    assert torch.isfinite(merged["w"]).all()


def test_the_line_is_left_as_soon_as_there_is_an_angle():
    # The twin: at 1e-3 from opposite, the arc goes round and the line goes through.
    a, b = at_angle(0), at_angle(math.pi - 1e-3)
    assert slerp(a, b, 0.5)["w"].norm() > 0.99
    assert interpolate(a, b, 0.5)["w"].norm() < 1e-3


def test_running_statistics_are_on_the_line():
    a = {**vector(1, 0), "n.running_var": torch.tensor([1.0, 0.0])}
    b = {**vector(0, 1), "n.running_var": torch.tensor([0.0, 1.0])}
    for scope in SCOPES:
        merged = slerp(a, b, 0.5, scope)
        assert merged["n.running_var"].tolist() == [0.5, 0.5]
        assert merged["w"].tolist() == pytest.approx([0.5**0.5] * 2)  # the twin: as a weight it is on the arc
        assert (slerp(a, b, 1.0, scope)["n.running_var"] >= 0).all()
    # Statistics have no say in the angle.
    b["n.running_var"] *= 100
    assert_same(slerp(a, b, 0.5)["w"], merged["w"])


def test_counters_masks_and_complex_tensors():
    a = {**vector(1, 0), "steps": torch.tensor(3), "mask": torch.tensor([True]), "c": torch.tensor([1j])}
    b = {**vector(0, 1), "steps": torch.tensor(4), "mask": torch.tensor([False]), "c": torch.tensor([1.0 + 0j])}
    merged = slerp(a, b, 0.75)
    assert (merged["steps"].item(), merged["mask"].item(), merged["c"].item()) == (3, True, 0.75 + 0.25j)
    assert merged["steps"] is not a["steps"]
    assert slerp({"steps": a["steps"]}, {"steps": b["steps"]}, 0.5) == {"steps": torch.tensor(3)}


def test_tied_tensors_stay_tied_and_count_once_in_the_angle():
    pair = [{"v": torch.tensor([1.0, 0.0]), "w": torch.tensor([3.0, 0.0])}, {"v": torch.ones(2), "w": torch.ones(2)}]
    merged = slerp(*({**state, "twin": state["w"]} for state in pair), 0.5)
    assert merged["twin"].data_ptr() == merged["w"].data_ptr()
    assert_same({k: merged[k] for k in ("v", "w")}, slerp(*pair, 0.5))
    apart = slerp(*({**state, "twin": state["w"].clone()} for state in pair), 0.5)  # the twin
    assert not torch.equal(apart["v"], merged["v"])


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), "0.5", None])
def test_an_alpha_that_is_no_finite_number_is_refused(alpha):
    with pytest.raises(MergeError, match=r"alpha.*finite"):
        slerp(vector(1, 0), vector(0, 1), alpha)


def test_an_unknown_scope_is_refused():
    with pytest.raises(MergeError, match=r"scope.*'global' or 'tensor'"):
        slerp(vector(1, 0), vector(0, 1), 0.5, scope="layer")


# Model Stock


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_model_stock_is_the_published_formula(n, dtype):
    base, members = pool(n, dtype)
    assert_equals(model_stock(base, members), references.model_stock(base, members))


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, 1.5])
def test_two_members_at_an_angle(angle):
    # Equation 2: t = 2 cos / (1 + cos).
    base = vector(5.0, -7.0)
    members = [{"w": base["w"] + at_angle(0, 2.0)["w"]}, {"w": base["w"] + at_angle(angle, 2.0)["w"]}]
    t = 2 * math.cos(angle) / (1 + math.cos(angle))
    expected = t * uniform_soup(members)["w"] + (1 - t) * base["w"]
    torch.testing.assert_close(model_stock(base, members)["w"], expected, rtol=1e-9, atol=1e-9)


def test_members_that_agree_give_their_mean_and_others_the_base():
    base = vector(1.0, 1.0)
    assert model_stock(base, [vector(2.0, 1.0), vector(4.0, 1.0)])["w"].tolist() == pytest.approx([3.0, 1.0])
    assert model_stock(base, [vector(2.0, 1.0), vector(1.0, 9.0)])["w"].tolist() == pytest.approx([1.0, 1.0])


def test_a_negative_cosine_gives_the_base():
    base, members = vector(1.0, 1.0), [vector(2.0, 1.0), vector(0.5, 1.1)]
    assert_same(model_stock(base, members), base)
    # The twin: the formula itself would go beyond the base, away from both members' mean.
    cosine = -0.5 / math.hypot(0.5, 0.1)
    assert 2 * cosine / (1 + cosine) < -10


def test_the_cosines_of_all_pairs_are_averaged():
    # cos 0 between the first and the others, 1 between the others: mean 1/3, t = 3/3 / (1 + 2/3) = 0.6.
    base, members = vector(0.0, 0.0), [vector(3.0, 0.0), vector(0.0, 3.0), vector(0.0, 6.0)]
    assert model_stock(base, members)["w"].tolist() == pytest.approx([0.6, 1.8])


def test_each_tensor_has_its_own_angle():
    base = {"v": torch.zeros(2), "w": torch.zeros(2)}
    members = [
        {"v": torch.tensor([1.0, 0.0]), "w": torch.ones(2)},
        {"v": torch.tensor([0.0, 1.0]), "w": torch.ones(2)},
    ]
    merged = model_stock(base, members)
    assert merged["v"].tolist() == [0.0, 0.0]
    assert merged["w"].tolist() == pytest.approx([1.0, 1.0])


def test_members_equal_to_the_base_give_the_base():
    base, (member,) = pool(1)
    assert_same(model_stock(base, [base, base]), base)
    merged = model_stock(base, [base, member])  # a task vector of zero has no angle: counted as 0
    assert_same(merged["head.weight"], base["head.weight"])


def test_what_has_no_task_vector():
    base, members = pool()
    merged, mean = model_stock(base, members), uniform_soup(members)
    for key in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "mask"):
        assert_same(merged[key], mean[key])
    assert not torch.equal(merged["head.weight"], mean["head.weight"])  # the twin


def test_tied_tensors_of_a_model_stock_stay_tied():
    base, members = pool()
    base, *members = ({**state, "twin": state["head.weight"]} for state in [base, *members])
    merged = model_stock(base, members)
    assert merged["twin"].data_ptr() == merged["head.weight"].data_ptr()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_members_are_refused(n):
    base, members = pool(2)
    with pytest.raises(MergeError, match="no member" if n == 0 else r"one member.*at least two"):
        model_stock(base, members[:n])
    model_stock(base, members)  # the twin
