"""Merges of task vectors: M3, M4, M7, M8 of the merging contract, D6, D8, D11, D12, each with a twin that fails."""

import os
import subprocess
import sys

import numpy as np
import pytest
import references
import torch
from references import assert_equals, eighths, fine_tuned

from wamlib.errors import MergeError
from wamlib.merge import dare, slerp, task_arithmetic, ties, uniform_soup
from wamlib.merge.deltas import Mask, lowest, trimmed
from wamlib.merge.sources import Loaded, Piece

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SCOPES = ["global", "tensor"]
EVERY = {
    "task_arithmetic": lambda base, members: task_arithmetic(base, members, 0.5),
    "ties global": lambda base, members: ties(base, members, 0.5),
    "ties tensor": lambda base, members: ties(base, members, 0.5, scope="tensor"),
    "dare": lambda base, members: dare(base, members, 0.5, seed=0),
}
every = pytest.mark.parametrize("merge", EVERY.values(), ids=EVERY)


def pool(n=3, dtype=torch.float32):
    base = eighths(0, dtype)
    return base, [fine_tuned(base, seed) for seed in range(1, n + 1)]


def plain(*values):
    """Base of zeros and one member per row of values."""
    members = [{"w": torch.tensor(row, dtype=torch.float32)} for row in values]
    return {"w": torch.zeros_like(members[0]["w"])}, members


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# Task arithmetic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "scale"), [(1, 1.0), (1, -1), (3, 0.3), (3, 0), (4, -0.25)])
def test_task_arithmetic_is_the_scaled_sum(n, scale, dtype):
    base, members = pool(n, dtype)
    assert_equals(task_arithmetic(base, members, scale), references.task_arithmetic(base, members, scale))


def test_the_scale_of_task_arithmetic_is_1_and_of_the_sum_not_of_the_mean():
    base, members = plain([1.0, 2.0], [3.0, -1.0])
    assert task_arithmetic(base, members)["w"].tolist() == [4.0, 1.0]
    assert task_arithmetic(base, members, 0.5)["w"].tolist() == uniform_soup(members)["w"].tolist() == [2.0, 0.5]


def test_task_arithmetic_sums_in_float64():
    base, members = plain([1e8], [1.0], [-1e8])
    assert task_arithmetic(base, members)["w"].item() == 1.0
    assert (torch.tensor(1e8) + 1.0 - 1e8).item() != 1.0  # the twin: float32 loses the 1


# TIES


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0, 0.0, 0.01, 0.2, 0.5, 0.99, 1, 1.0])
def test_ties_is_the_published_algorithm(density, dtype, scope):
    base, members = pool(4, dtype)
    assert_equals(ties(base, members, density, 0.7, scope), references.ties(base, members, density, 0.7, scope))


def test_the_two_scopes_differ_and_global_is_what_one_gets():
    base, members = pool()
    whole, each = (references.ties(base, members, 0.3, scope=scope) for scope in SCOPES)
    assert_equals(ties(base, members, 0.3), whole)
    with pytest.raises(AssertionError):
        assert_equals(ties(base, members, 0.3), each)


def test_density_0_is_the_base_and_density_1_of_one_member_is_the_member():
    base, members = pool(1)
    weights = [key for key in base if "running" not in key and base[key].is_floating_point()]
    for scope in SCOPES:
        nothing, everything = (ties(base, members, density, scope=scope) for density in (0, 1))
        assert_same({key: nothing[key] for key in weights}, {key: base[key] for key in weights})
        assert_same(everything, members[0])


@pytest.mark.parametrize(("density", "n_kept"), [(0.05, 0), (0.1, 1), (0.19, 1), (0.29, 2), (0.7, 7), (1, 10)])
def test_int_of_density_times_n_entries_are_kept(density, n_kept):
    base, members = plain([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0])
    for scope in SCOPES:
        assert ties(base, members, density, scope=scope)["w"].count_nonzero() == n_kept


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_the_authors_code_keeps_one_entry_more(kept):
    base, members = plain([0.1, 0.2, -0.3, 0.4, 0.5, 0.6, 0.7], [0.7, -0.6, 0.5, 0.4, 0.3, 0.2, -0.1])
    authors = references.ties(base, members, kept / 7 + 1e-9, one_more=1)
    assert_equals(ties(base, members, (kept + 1) / 7 + (1e-9 if kept < 6 else 0)), authors)
    with pytest.raises(AssertionError):
        assert_equals(ties(base, members, kept / 7 + 1e-9), authors)


def test_entries_as_large_as_the_smallest_one_kept_are_kept_too():
    entries = [1.0, -1.0, 3.0, 1.0, 0.5, 0.25]
    base, members = plain(entries)
    assert ties(base, members, 0.34)["w"].tolist() == [1.0, -1.0, 3.0, 1.0, 0.0, 0.0]
    # So the order of the entries does not matter, ...
    base, backwards = plain(entries[::-1])
    assert ties(base, backwards, 0.34)["w"].flip(0).tolist() == [1.0, -1.0, 3.0, 1.0, 0.0, 0.0]
    # ... as it does to the twin, top-k, which keeps two.
    assert torch.tensor(entries).abs().topk(2).indices.numel() == 2


def test_a_zero_sum_takes_plus_per_tensor():
    base, members = plain([1.0, -2.0, -3.0], [-1.0, -2.0, -1.0])
    assert ties(base, members, 1, scope="tensor")["w"].tolist() == [1.0, -2.0, -2.0]


@pytest.mark.parametrize(
    ("others", "elected"),
    [([2.0, 3.0], 1.0), ([-2.0, -3.0], -1.0), ([-2.0, -3.0, 9.0], -1.0), ([-2.0, 9.0], -1.0), ([], -1.0)],
    ids=["plus", "minus", "minus by number, not by sum", "a draw", "nothing else"],
)
def test_a_zero_sum_takes_the_most_frequent_sign(others, elected):
    # A draw counts as minus, as in the authors' code, where what is not above 0 is below.
    base, members = plain([1.0, *others], [-1.0, *others])
    assert ties(base, members, 1)["w"].tolist() == [elected, *others]
    assert_equals(ties(base, members, 1), references.ties(base, members, 1))


def test_the_most_frequent_sign_is_taken_over_all_tensors():
    base, members = plain([1.0, 5.0], [-1.0, 5.0])
    for index, state in enumerate([base, *members]):
        state["other"] = torch.full((3,), -float(index > 0))
    assert ties(base, members, 1)["w"].tolist() == [-1.0, 5.0]
    assert ties({"w": base["w"]}, [{"w": m["w"]} for m in members], 1)["w"].tolist() == [1.0, 5.0]  # the twin


def test_a_small_sum_beside_a_zero_sum_keeps_its_sign():
    base, members = plain([0.25, 1.0, -1.0, -1.0], [0.25, -1.0, -1.0, -1.0])
    assert ties(base, members, 1)["w"].tolist() == [0.25, -1.0, -1.0, -1.0]


def test_entries_that_are_zero_have_no_vote_and_no_count():
    base, members = plain([4.0, 0.0, 0.0], [0.0, 0.0, -2.0], [2.0, 0.0, 0.0])
    for scope in SCOPES:
        assert ties(base, members, 1, scope=scope)["w"].tolist() == [3.0, 0.0, -2.0]


def test_the_sign_of_the_sum_is_elected_not_the_sign_of_the_most():
    base, members = plain([5.0], [-1.0], [-1.0])
    assert ties(base, members, 1)["w"].item() == 5.0


# Members equal to the base, and one member


@every
def test_members_equal_to_the_base_merge_to_the_base(merge):
    base = eighths(0)
    assert_same(merge(base, [base, base]), base)


def test_one_member_with_nothing_dropped_is_that_member():
    base, members = pool(1)
    for merged in (task_arithmetic(base, members), ties(base, members, 1), dare(base, members, 1, seed=3)):
        assert_same(merged, members[0])


@every
def test_base_and_members_are_left_alone(merge):
    base, members = pool()
    before = [{key: tensor.clone() for key, tensor in state.items()} for state in [base, *members]]
    for tensor in merge(base, members).values():
        tensor.zero_()
    assert_same([base, *members], before)


@every
def test_nothing_learnable_is_no_error(merge):
    base, members = ({"steps": torch.tensor(5)}, [{"steps": torch.tensor(i)} for i in (7, 8)])
    assert merge(base, members) == {"steps": torch.tensor(7)}


# M3: what has no task vector


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_counters_and_masks_are_the_first_members(merge, dtype):
    base, members = pool(3, dtype)
    merged = merge(base, members)
    for key in ("norm.num_batches_tracked", "mask"):
        assert_same(merged[key], members[0][key])
        assert merged[key] is not members[0][key]
        assert not torch.equal(merged[key], base[key])
    assert {key: tensor.dtype for key, tensor in merged.items()} == {key: base[key].dtype for key in base}


@every
def test_running_statistics_are_averaged_and_variances_stay_positive(merge):
    base, members = pool()
    for index, state in enumerate([base, *members]):
        state["norm.running_var"] = torch.full((4,), [4.0, 0.5, 0.25, 0.75][index])
    merged = merge(base, members)
    mean = uniform_soup(members)
    for key in ("norm.running_mean", "norm.running_var"):
        assert_same(merged[key], mean[key])
    assert (merged["norm.running_var"] > 0).all()
    # The twin: the same numbers under a name that has a task vector do fall below 0.
    renamed = [{"w": state["norm.running_var"]} for state in [base, *members]]
    assert (task_arithmetic(renamed[0], renamed[1:])["w"] < 0).all()


# M4: tied tensors


def tied(state):
    return {**state, "twin": state["head.weight"]}


@every
def test_tied_tensors_stay_tied(merge):
    base, members = pool()
    merged = merge(tied(base), [tied(member) for member in members])
    assert merged["twin"].data_ptr() == merged["head.weight"].data_ptr()
    assert_same(merged["head.weight"], merge(base, members)["head.weight"])  # and count once


def test_untied_tensors_get_masks_of_their_own():
    # The twin: two names with equal values that share no memory do come apart.
    base, members = pool()
    apart = [{**state, "twin": state["head.weight"].clone()} for state in [base, *members]]
    merged = dare(apart[0], apart[1:], 0.5, seed=0)
    assert not torch.equal(merged["twin"], merged["head.weight"])


def test_tied_tensors_stay_tied_where_a_zero_sum_takes_minus():
    base, members = plain([1.0, -2.0], [-1.0, -2.0])
    base, *members = (
        {"w": s["w"], "twin": s["w"], "bias": torch.full((3,), -float(i > 0))} for i, s in enumerate([base, *members])
    )
    merged = ties(base, members, 1)
    assert merged["w"].tolist() == merged["twin"].tolist() == [-1.0, -2.0]


def test_a_tie_of_the_base_alone_counts_once_too():
    # Read from files, the members have lost their ties.
    base = {"w": torch.zeros(4), "head.weight": torch.zeros(2)}
    member = {"w": torch.tensor([1.0, 2.0, 3.0, 4.0]), "head.weight": torch.tensor([9.0, 8.0])}
    apart = {**member, "twin": member["head.weight"].clone()}
    for members in ([tied(member)], [apart]):
        assert ties(tied(base), members, 0.5)["w"].tolist() == [0.0, 0.0, 0.0, 4.0]
    untied = {**base, "twin": torch.zeros(2)}  # the twin: counted twice, they leave nothing to the others
    assert ties(untied, [apart], 0.5)["w"].tolist() == [0.0, 0.0, 0.0, 0.0]


# M8: DARE


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("density", "scale"), [(1, 1.0), (0.5, 1.0), (0.125, 3), (0.9, -0.5)])
def test_dare_drops_rescales_and_averages(density, scale, dtype):
    base, members = pool(3, dtype)
    assert_equals(dare(base, members, density, 7, scale), references.dare(base, members, density, 7, scale))


def test_dare_at_density_1_is_the_soup():
    base, members = pool(4)
    assert_same(dare(base, members, 1, seed=0), uniform_soup(members))


def test_dare_expects_the_mean_of_the_task_vectors():
    base, members = plain([1.0, -2.0, 0.5, 4.0], [3.0, -1.0, 0.0, -4.0])
    density, seeds = 0.3, 400
    drawn = np.array([dare(base, members, density, seed)["w"].tolist() for seed in range(seeds)])
    rows = np.array([member["w"].tolist() for member in members])
    # A kept entry is d/p with probability p: its variance is d^2 (1 - p) / p.
    error = np.sqrt((rows**2).sum(0) * (1 - density) / density / len(rows) ** 2 / seeds)
    assert (np.abs(drawn.mean(0) - rows.mean(0)) < 4 * error).all()
    assert (np.abs(drawn.mean(0) * density - rows.mean(0)) > 4 * error)[:3].all()  # the twin: without the rescaling


def test_dare_draws_anew_for_every_seed_member_and_key():
    key, n = "w", 200
    masks = [Mask(0.5, *where).take(n) for where in [(0, key, 0), (1, key, 0), (0, key, 1), (0, "v", 0), (1, key, 1)]]
    for i, mask in enumerate(masks):
        assert 60 < mask.sum() < 140
        assert all(60 < (mask == other).sum() < 140 for other in masks[:i])
    assert torch.equal(Mask(0.5, 0, key, 0).take(n), masks[0])


def test_masks_taken_in_pieces_are_the_whole():
    whole = Mask(0.4, 5, "w", 1).take(1000)
    pieces = Mask(0.4, 5, "w", 1)
    assert torch.equal(torch.cat([pieces.take(n) for n in (1, 2, 13, 0, 17, 467, 500)]), whole)
    assert whole.dtype == torch.bool
    # The twin: a generator made anew for every piece would repeat itself.
    assert not torch.equal(Mask(0.4, 5, "w", 1).take(500), whole[500:])


def test_dare_does_not_depend_on_what_else_is_merged():
    base, members = pool()
    alone = dare({"scale": base["scale"]}, [{"scale": m["scale"]} for m in members], 0.5, seed=1)
    assert_same(alone["scale"], dare(base, members, 0.5, seed=1)["scale"])


def test_dare_leaves_the_shared_generator_alone_and_does_not_read_it():
    base, members = pool()
    state = torch.get_rng_state()
    first = dare(base, members, 0.5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert_same(dare(base, members, 0.5, seed=1), first)


IN_ANOTHER_PROCESS = """
import torch
from wamlib.merge import dare
base, member = {"w": torch.zeros(40)}, {"w": torch.ones(40)}
print(dare(base, [member, member], 0.5, seed=3)["w"].tolist(), "salted:", hash("w"))
"""


def test_dare_is_the_same_in_every_process():
    printed = []
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", IN_ANOTHER_PROCESS],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(done.stdout.split("salted:"))
    assert printed[0][0] == printed[1][0]
    assert printed[0][1] != printed[1][1]  # the twin: Python's own hash is another in every process


# Arguments


@pytest.mark.parametrize("density", [-0.1, 1.0001, float("nan"), float("inf"), "0.5", None])
def test_a_density_outside_its_range_is_refused(density):
    base, members = pool()
    with pytest.raises(MergeError, match=r"density.*\[0, 1\]"):
        ties(base, members, density)
    with pytest.raises(MergeError, match=r"density.*\(0, 1\]"):
        dare(base, members, density, seed=0)


def test_density_0_is_refused_by_dare_alone():
    base, members = pool()
    with pytest.raises(MergeError, match=r"density.*got 0, wanted a number in \(0, 1\]"):
        dare(base, members, 0, seed=0)
    ties(base, members, 0)  # the twins
    dare(base, members, 1e-9, seed=0)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf"), "1", None])
def test_a_scale_that_is_no_finite_number_is_refused(scale):
    base, members = pool()
    for merge in (
        lambda: task_arithmetic(base, members, scale),
        lambda: ties(base, members, 0.5, scale),
        lambda: dare(base, members, 0.5, 0, scale),
    ):
        with pytest.raises(MergeError, match=r"scale.*finite"):
            merge()


@pytest.mark.parametrize("scope", ["layer", "", None, "GLOBAL"])
def test_an_unknown_scope_is_refused(scope):
    with pytest.raises(MergeError, match=r"scope.*'global' or 'tensor'"):
        ties(*pool(), 0.5, scope=scope)


# What a run of mutmut found no test for


@pytest.mark.parametrize("n", [254, 255, 256, 257])
def test_members_are_counted_beyond_what_a_byte_holds(n):
    base, members = plain(*[[2.0, -1.0]] * (n - 1), [4.0, -3.0])
    merged = ties(base, members, 1, scope="tensor")["w"].double()
    wanted = torch.tensor([2 + 2 / n, -1 - 2 / n], dtype=torch.float64)
    torch.testing.assert_close(merged, wanted, rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_task_vectors_are_float32_and_float64_where_the_members_are(dtype):
    def delta(*member_and_base):
        member, base = ({"w": torch.tensor(values, dtype=dtype)} for values in member_and_base)
        (found,) = Loaded([member], base).deltas(Piece("w", 0, len(member["w"])))
        return found

    found = delta([1.0, 3.0], [0.25, 0.5])
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.tolist() == [0.75, 2.5]
    # In float32 as in the papers' code: the difference below is 1 there, and 1 - 2**-30 in float64.
    if dtype == torch.float32:
        assert delta([1.0], [2.0**-30]).item() == 1.0


@pytest.mark.parametrize("threshold", [1.0, 1 + 2**-30, 0.1, 2.0**-149, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_below_the_threshold_stays(threshold, dtype):
    near = torch.tensor(threshold, dtype=dtype)
    steps = [near, torch.nextafter(near, near + 1), torch.nextafter(near, near - 1), near * 2, near / 2]
    entries = torch.stack([sign * step for step in steps for sign in (1, -1)])
    kept = trimmed(entries, lowest(threshold, dtype))
    assert kept.tolist() == [x if abs(x) >= threshold else 0.0 for x in entries.tolist()]


def test_a_refusal_shows_the_value_that_was_refused():
    base, members = pool()
    for call, value in [
        (lambda: ties(base, members, 7.25), "7.25"),
        (lambda: dare(base, members, -3, seed=0), "-3"),
        (lambda: ties(base, members, 0.5, scale="big"), "'big'"),
        (lambda: ties(base, members, 0.5, scope="layer"), "'layer'"),
        (lambda: slerp(*members[:2], float("inf")), "inf"),
    ]:
        with pytest.raises(MergeError) as caught:
            call()
        assert caught.value.got == value
        assert caught.value.fix == "Correct the argument."
        assert caught.value.doing == "cannot merge"


def test_a_base_that_does_not_fit_is_compared_with_member_0():
    base, members = pool()
    with pytest.raises(MergeError, match="as in member 0"):
        task_arithmetic({**base, "scale": torch.zeros(2)}, members)
