"""What every merge asks of its members: ties (M4), prefixes (M15), misfits (M5, D9, D10), each with a twin."""

import pytest
import torch
from helpers import linear_state

from wamlib.errors import MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import (
    check_members,
    dare,
    greedy_soup,
    interpolate,
    is_learnable,
    model_stock,
    slerp,
    strip_prefixes,
    task_arithmetic,
    ties,
    uniform_soup,
)
from wamlib.merge.members import tied_keys

# Each merges a list of two; those with a base use the first one as it.
MERGES = {
    "uniform_soup": uniform_soup,
    "greedy_soup": lambda pool: greedy_soup(pool, lambda state: 0.0).state,
    "interpolate": lambda pool: interpolate(*pool, 0.5),
    "slerp": lambda pool: slerp(*pool, 0.5),
    "task_arithmetic": lambda pool: task_arithmetic(pool[0], pool[1:]),
    "ties": lambda pool: ties(pool[0], pool[1:], 0.5),
    "dare": lambda pool: dare(pool[0], pool[1:], 0.5, seed=0),
    "model_stock": lambda pool: model_stock(pool[0], [pool[1], pool[1]]),
}
every_merge = pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)


def states():
    return [linear_state(0, 4, 4), linear_state(1, 4, 4)]


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# M4: tied tensors


@every_merge
def test_tied_tensors_are_merged_once_and_share_memory_again(merge):
    merged = merge([{**state, "head": state["weight"]} for state in states()])
    assert merged["head"].data_ptr() == merged["weight"].data_ptr()
    assert merged["bias"].data_ptr() != merged["weight"].data_ptr()
    assert_same({k: merged[k] for k in ("weight", "bias")}, merge(states()))


@every_merge
def test_equal_tensors_that_share_no_memory_are_not_tied(merge):
    merged = merge([{**state, "head": state["weight"].clone()} for state in states()])
    assert merged["head"].data_ptr() != merged["weight"].data_ptr()


@every_merge
@pytest.mark.parametrize("tied", [0, 1])
def test_a_tie_in_one_state_ties_the_merge_if_the_other_has_equal_values(merge, tied):
    pool = [{**s, "head": s["weight"] if i == tied else s["weight"].clone()} for i, s in enumerate(states())]
    merged = merge(pool)
    assert merged["head"].data_ptr() == merged["weight"].data_ptr()


@every_merge
@pytest.mark.parametrize("tied", [0, 1])
def test_tied_in_one_state_and_different_in_the_other_is_refused(merge, tied):
    pool = [{**s, "head": s["weight"] if i == tied else s["weight"] + 1} for i, s in enumerate(states())]
    with pytest.raises(MemberMismatchError, match=r"'head'.*'weight'.*ties the two"):
        merge(pool)


def test_the_message_names_the_member_whose_values_differ():
    pool = [*states(), linear_state(2, 4, 4)]
    pool = [{**s, "head": s["weight"] + 1 if i == 2 else s["weight"]} for i, s in enumerate(pool)]
    with pytest.raises(MemberMismatchError, match="member 2"):
        uniform_soup(pool)


def test_only_the_same_memory_read_in_the_same_way_is_a_tie():
    w = torch.arange(4.0).view(2, 2)
    state = {
        "w": w,
        "transposed": w.T,
        "flat": w.view(4),
        "as integers": w.view(torch.int32),
        "second row": w[1],
        "first row": w[0],
        "row again": w[1],
    }
    assert tied_keys([state]) == {"row again": "second row"}
    assert uniform_soup([state])["transposed"].tolist() == w.T.tolist()


def test_empty_tensors_are_never_tied():
    # All of them have the address 0.
    state = {"a": torch.zeros(0), "b": torch.zeros(0), "c": torch.zeros(0)}
    assert state["a"].data_ptr() == state["b"].data_ptr() == 0
    assert tied_keys([state]) == {}


def test_three_keys_of_one_tensor_are_one_group():
    w = torch.ones(3)
    assert tied_keys([{"a": w, "b": w, "c": w}]) == {"b": "a", "c": "a"}
    merged = uniform_soup([{"a": w, "b": w, "c": w}, {"a": w + 1, "b": w + 1, "c": w + 1}])
    assert len({tensor.data_ptr() for tensor in merged.values()}) == 1


def test_ties_of_different_members_must_all_hold():
    # Member 0 ties c to a and member 1 ties c to b; then all three must agree everywhere.
    v, w = torch.zeros(2), torch.ones(2)
    first, second = {"a": v, "b": w, "c": v}, {"a": v.clone(), "b": v, "c": v}
    with pytest.raises(MemberMismatchError, match=r"'c'.*member 0.*'b'"):
        uniform_soup([first, second])
    first["b"] = v.clone()  # the twin
    assert uniform_soup([first, second])["c"].tolist() == [0.0, 0.0]


# M15: prefixes


@every_merge
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
@pytest.mark.parametrize("wrapped", [0, 1])
def test_a_prefix_before_every_key_is_stripped_with_a_notice(merge, prefix, wrapped):
    pool = states()
    expected = merge(pool)
    pool[wrapped] = {prefix + key: tensor for key, tensor in pool[wrapped].items()}
    with pytest.warns(UserWarning, match=f"stripped the prefix {prefix!r}"):
        assert_same(merge(pool), expected)


def test_a_state_without_a_prefix_is_itself_and_there_is_no_notice():
    state = states()[0]
    assert strip_prefixes(state) is state
    empty = {}
    assert strip_prefixes(empty) is empty


def test_a_stripped_state_holds_the_same_tensors_and_leaves_the_old_one_alone():
    w = torch.ones(2)
    wrapped = {"module.w": w, "module.module_list": w}
    with pytest.warns(UserWarning, match="'module.'"):
        assert strip_prefixes(wrapped)["w"] is w
    assert list(wrapped) == ["module.w", "module.module_list"]


@pytest.mark.parametrize("keys", [["module.w", "b"], ["w.module.", "b"], ["modules.w", "modules.b"], ["model.w"]])
def test_what_is_no_prefix_of_every_key_stays(keys):
    state = dict.fromkeys(keys, torch.ones(1))
    assert strip_prefixes(state) is state


def test_a_prefix_before_some_keys_is_a_mismatch():
    plain = states()[0]
    some = {"module.weight": plain["weight"], "bias": plain["bias"]}
    with pytest.raises(MemberMismatchError, match=r"member 1.*'module.weight'"):
        uniform_soup([plain, some])


# M5: misfits

CHANGES = {
    "rows": ("weight", lambda t: torch.zeros(5, 4), MemberMismatchError, r"'weight'.*shape \(.*wanted \("),
    "would broadcast": ("weight", lambda t: torch.zeros(1, 4), MemberMismatchError, r"'weight'.*shape"),
    "a scalar": ("bias", lambda t: torch.tensor(0.0), MemberMismatchError, r"'bias'.*shape.*\(\)"),
    "dtype": ("bias", lambda t: t.double(), MemberMismatchError, r"'bias'.*dtype.*float(32|64).*float(64|32)"),
    "NaN": (
        "bias",
        lambda t: t.clone().index_fill_(0, torch.tensor([1, 2]), float("nan")),
        NonFiniteMemberError,
        r"'bias'.*2 value\(s\) that are NaN",
    ),
    "infinity": ("weight", lambda t: t / 0, NonFiniteMemberError, r"'weight'.*16 value\(s\).*infinite"),
    "one more key": ("extra", lambda t: torch.zeros(1), MemberMismatchError, r"1 key\(s\).*'extra'"),
    "one key less": ("bias", None, MemberMismatchError, r"1 key\(s\).*'bias'"),
}


@every_merge
@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_misfits_are_refused_wherever_they_are(merge, change, where):
    key, broken, error, words = change
    pool = states()
    if broken is None:
        del pool[where][key]
    else:
        pool[where][key] = broken(pool[where].get(key, torch.zeros(1)))
    with pytest.raises(error, match=words):
        merge(pool)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "dare", "model_stock"])
def test_a_base_that_does_not_fit_is_called_the_base(name):
    base, member = states()
    for broken in ({**base, "bias": torch.zeros(9)}, {**base, "bias": torch.full((4,), float("inf"))}):
        with pytest.raises(MergeError, match=r"'bias'.*: the base: "):
            MERGES[name]([broken, member])
    with pytest.raises(MemberMismatchError, match=r"the base: .* it lacks 'bias'"):
        MERGES[name]([{"weight": base["weight"]}, member])
    with pytest.raises(MergeError, match="no member"):
        (MERGES[name] if name != "model_stock" else lambda pool: model_stock(pool[0], []))([base])
    MERGES[name]([base, member])  # the twin


def test_which_way_round_a_key_is_missing():
    whole, part = states()[0], {"weight": states()[1]["weight"]}
    with pytest.raises(MemberMismatchError, match=r"member 1.*it lacks 'bias'"):
        check_members([whole, part])
    with pytest.raises(MemberMismatchError, match=r"member 1.*it has, and member 0 lacks, 'bias'"):
        check_members([part, whole])


def test_the_member_is_named_by_its_place():
    pool = [linear_state(seed) for seed in range(4)]
    pool[3]["weight"][0, 0] = float("nan")
    with pytest.raises(NonFiniteMemberError, match=r"member 3: got 1 value"):
        check_members(pool)
    check_members(pool[:3])  # the twin


def test_members_that_fit_pass_in_any_order_of_keys():
    a, b = states()
    check_members([a, dict(reversed(b.items()))])
    assert list(uniform_soup([a, dict(reversed(b.items()))])) == list(a)


def test_complex_members_are_averaged_and_must_be_finite():
    pool = [{"w": torch.tensor([1 + 1j, 2j])}, {"w": torch.tensor([3 - 1j, 4j])}]
    assert uniform_soup(pool)["w"].tolist() == [2 + 0j, 3j]
    pool[1]["w"][0] = complex(0, float("inf"))
    with pytest.raises(NonFiniteMemberError, match="member 1"):
        uniform_soup(pool)


@pytest.mark.parametrize(
    ("key", "learnable"),
    [
        ("bn.running_mean", False),
        ("bn.running_var", False),
        ("layer1.0.bn.num_batches_tracked", False),
        ("running_var", False),
        ("bn.weight", True),
        ("running_mean.weight", True),
        ("my_running_mean", True),
        ("w", True),
    ],
)
def test_running_statistics_are_not_learnable(key, learnable):
    assert is_learnable(key) is learnable


def test_results_need_no_gradient_and_read_parameters():
    model = torch.nn.Linear(4, 4)
    pool = [dict(model.named_parameters()), states()[0]]
    for merge in MERGES.values():
        assert not any(tensor.requires_grad for tensor in merge(pool).values())
    assert model.weight.grad is None


# What a run of mutmut found no test for


def test_refusals_say_all_four_parts():
    a, b = states()
    cases = [
        (
            {"weight": b["weight"]},
            "cannot merge",
            "1 key(s) that differ from those of member 0: it lacks 'bias'",
            "the same keys in every member",
            "same model and number of classes",
        ),
        (
            {**b, "bias": torch.zeros(9)},
            "cannot merge 'bias'",
            "shape (9,)",
            "(4,), as in member 0",
            "width and the dtype",
        ),
        (
            {**b, "bias": b["bias"] / 0},
            "cannot merge 'bias'",
            "4 value(s) that are NaN or infinite",
            "finite weights",
            "lower learning rate",
        ),
    ]
    for broken, doing, got, wanted, fix in cases:
        with pytest.raises(MergeError) as caught:
            uniform_soup([a, broken])
        assert (caught.value.doing, caught.value.item, caught.value.got) == (doing, "member 1", got)
        assert caught.value.wanted == wanted
        assert fix in caught.value.fix


def test_a_notice_points_at_the_call():
    with pytest.warns(UserWarning, match="stripped") as caught:
        strip_prefixes({"module.w": torch.ones(1)})
    assert caught[0].filename == __file__


def test_a_model_stock_of_one_member_says_why():
    a, b = states()
    with pytest.raises(MergeError) as caught:
        model_stock(a, [b])
    assert (caught.value.doing, caught.value.item) == ("cannot make a model stock", "the list of members")
    assert (caught.value.got, caught.value.wanted) == ("one member", "at least two")
    assert "no angle" in caught.value.fix
