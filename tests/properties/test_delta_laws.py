"""Laws of the merges of task vectors and of the merges by angle, that hold for any base and members."""

import references
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from references import assert_equals

from wamlib.merge import dare, model_stock, slerp, task_arithmetic, ties, uniform_soup

densities = st.sampled_from([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]) | st.floats(0, 1)
scopes = st.sampled_from(["global", "tensor"])
scales = st.integers(-16, 16).map(lambda n: n / 8)


@st.composite
def pools(draw, min_size=1, max_size=4):
    """Base and members of two tensors; eighths, so that task vectors are exact and equal magnitudes are frequent."""
    shapes = [draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)) for _ in range(2)]
    states = [
        {
            key: torch.from_numpy(draw(hnp.arrays("int8", shape, elements=st.integers(-9, 9)))).float() / 8
            for key, shape in zip(("v", "w"), shapes, strict=True)
        }
        for _ in range(1 + draw(st.integers(min_size, max_size)))
    ]
    return states[0], states[1:]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def negated(state):
    return {key: -tensor for key, tensor in state.items()}


@given(pools(), densities, scales, scopes)
def test_ties_is_the_published_algorithm(pool, density, scale, scope):
    assert_equals(ties(*pool, density, scale, scope), references.ties(*pool, density, scale, scope))


@given(pools(), st.floats(0.05, 1), st.integers(0, 2**63), scales)
def test_dare_is_what_its_masks_say(pool, density, seed, scale):
    assert_equals(dare(*pool, density, seed, scale), references.dare(*pool, density, seed, scale))


@given(pools(2, 2), st.floats(-1, 2), scopes)
def test_slerp_is_the_published_formula(pool, alpha, scope):
    _, (a, b) = pool
    assert_equals(slerp(a, b, alpha, scope), references.slerp(a, b, alpha, scope))


@given(pools(2, 4))
def test_model_stock_is_the_published_formula(pool):
    assert_equals(model_stock(*pool), references.model_stock(*pool))


@given(pools())
def test_task_arithmetic_of_equal_shares_is_the_soup(pool):
    base, members = pool
    close(task_arithmetic(base, members, 1 / len(members)), uniform_soup(members))
    same(task_arithmetic(base, members, 0), base)


@given(pools(), scales)
def test_a_task_vector_and_its_opposite_sum_to_nothing(pool, scale):
    base, members = pool
    opposite = {key: 2 * base[key] - members[0][key] for key in base}
    same(task_arithmetic(base, [members[0], opposite], scale), base)


@given(pools(), densities, scopes, st.randoms(use_true_random=False))
def test_the_order_of_the_members_does_not_matter(pool, density, scope, random):
    base, members = pool
    shuffled = random.sample(members, len(members))
    same(ties(base, shuffled, density, scope=scope), ties(base, members, density, scope=scope))
    same(task_arithmetic(base, shuffled, 0.5), task_arithmetic(base, members, 0.5))
    if len(members) > 1:
        close(model_stock(base, shuffled), model_stock(base, members))


@given(pools(), densities, scopes, st.integers(1, 3))
def test_copies_of_one_member_have_one_vote(pool, density, scope, n):
    base, members = pool
    same(ties(base, members[:1] * n, density, scope=scope), ties(base, members[:1], density, scope=scope))


@given(pools(), densities, scopes)
def test_ties_moves_no_weight_further_than_a_member(pool, density, scope):
    base, members = pool
    merged = ties(base, members, density, scope=scope)
    for key in base:
        moves = torch.stack([member[key] - base[key] for member in members])
        assert ((merged[key] - base[key]).abs() <= moves.abs().amax(0) + 1e-6).all()


@given(pools(), st.floats(0.05, 1), st.integers(0, 9))
def test_dare_of_one_member_keeps_an_entry_rescaled_or_drops_it(pool, density, seed):
    base, (member, *_) = pool
    merged = dare(base, [member], density, seed)
    for key in base:
        move, whole = merged[key] - base[key], (member[key] - base[key]) / density
        assert (torch.isclose(move, whole, rtol=1e-5, atol=1e-5) | (move == 0)).all()


@given(pools(2, 2), st.floats(0, 1), scopes)
def test_the_arc_is_the_same_from_both_ends(pool, alpha, scope):
    _, (a, b) = pool
    close(slerp(a, b, alpha, scope), slerp(b, a, 1 - alpha, scope))
    close(slerp(negated(a), negated(b), alpha, scope), negated(slerp(a, b, alpha, scope)))


@given(pools(2, 4))
def test_model_stock_lies_between_the_base_and_the_mean(pool):
    base, members = pool
    stock, mean = model_stock(base, members), uniform_soup(members)
    for key in base:
        low, high = torch.minimum(base[key], mean[key]), torch.maximum(base[key], mean[key])
        assert ((stock[key] >= low - 1e-6) & (stock[key] <= high + 1e-6)).all()


@given(pools(2, 3), densities)
def test_a_transposed_tensor_merges_to_the_transposed_merge(pool, density):
    base, members = pool

    def turned(state):
        return {key: tensor.mT if tensor.dim() == 2 else tensor for key, tensor in state.items()}

    merges = [
        lambda base, members: ties(base, members, density),
        lambda base, members: slerp(*members[:2], 0.3),
        model_stock,
    ]
    for merge in merges:
        close(merge(turned(base), [turned(member) for member in members]), turned(merge(base, members)))
