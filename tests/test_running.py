"""Running averages: D10 and their formulas, in every dtype, over interruptions, each with a twin that fails."""

import pytest
import references
import torch
from helpers import bn_model, linear_state
from references import assert_equals, eighths, fine_tuned
from safetensors.torch import load_file, save_file
from torch import nn

from wamlib.errors import CheckpointError, MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import RunningAverage, uniform_soup

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
DECAYS = [None, 0.0, 0.9]


def moments(n=4, dtype=torch.float32):
    base = eighths(0, dtype)
    return [fine_tuned(base, seed) for seed in range(1, n + 1)]


def averaged(states, decay=None):
    average = RunningAverage(decay)
    for state in states:
        average.update(state)
    return average


def with_last_counters(reference, states):
    return {k: v if states[0][k].is_floating_point() else states[-1][k] for k, v in reference.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_decay_it_is_the_uniform_soup_to_the_bit(dtype):
    states = moments(dtype=dtype)
    got = averaged(states).state()
    assert_equals(got, with_last_counters(references.uniform(states), states))
    soup = uniform_soup(states)
    for key, tensor in got.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, soup[key], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0, 0.0, 0.5, 0.9, 0.999])
def test_with_decay_it_is_the_exponential_mean(decay, dtype):
    states = moments(dtype=dtype)
    assert_equals(averaged(states, decay).state(), with_last_counters(references.ema(states, decay), states))
    with pytest.raises(AssertionError):  # the twin: a decay is not the equal mean
        assert_equals(averaged(states).state(), references.ema(states, decay))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_do_not_vanish_in_half_precision(dtype):
    one, two = ({"w": torch.full((1,), value, dtype=dtype)} for value in (1.0, 1.25))
    average, naive = averaged([one], 0.999), one["w"].clone()
    for _ in range(2000):
        average.update(two)
        naive.lerp_(two["w"], 1 - 0.999)
    assert naive.item() == 1  # what an average in the dtype of the weights does
    assert average.state()["w"].item() == pytest.approx(1.25 - 0.25 * 0.999**2000, rel=torch.finfo(dtype).eps)


def test_one_update_is_the_weights_themselves_and_a_copy():
    for decay in DECAYS:
        state = linear_state(0)
        average = averaged([state], decay)
        wanted = linear_state(0)
        for tensor in [*state.values(), *average.state().values()]:
            tensor.zero_()
        torch.testing.assert_close(average.state(), wanted, rtol=0, atol=0)


def test_it_takes_a_model_and_forgets_how_it_was_wrapped():
    model = bn_model()
    average = RunningAverage().update(model)
    with pytest.warns(UserWarning, match="module"):
        average.update({f"module.{key}": tensor for key, tensor in model.state_dict().items()})
    assert average.count == 2
    torch.testing.assert_close(average.state(), dict(model.state_dict()), rtol=0, atol=0)


class Tied(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight


def test_tied_tensors_stay_tied():
    average = RunningAverage().update(Tied(0)).update(Tied(1))
    for state in (average.state(), RunningAverage.restore(average.dump()).state()):
        assert state["a.weight"].data_ptr() == state["b.weight"].data_ptr()
        assert state["a.bias"].data_ptr() != state["b.bias"].data_ptr()
    untied = {key: tensor.clone() for key, tensor in Tied(2).state_dict().items()}
    untied["b.weight"] += 1
    with pytest.raises(MemberMismatchError, match=r"b\.weight"):
        average.update(untied)
    assert average.count == 2


def spoiled(how):
    state = linear_state(5)
    if how == "key":
        state["other"] = state.pop("bias")
    elif how == "shape":
        state["bias"] = state["bias"][:2]
    elif how == "dtype":
        state["bias"] = state["bias"].double()
    else:
        state["bias"][1] = float("nan")
    return state


@pytest.mark.parametrize("how", ["key", "shape", "dtype", "NaN"])
@pytest.mark.parametrize("decay", DECAYS)
def test_a_refused_update_changes_nothing(how, decay):
    average = averaged([linear_state(0), linear_state(1)], decay)
    before = average.state()
    with pytest.raises((MemberMismatchError, NonFiniteMemberError), match="update 2"):
        average.update(spoiled(how))
    torch.testing.assert_close(average.state(), before, rtol=0, atol=0)
    assert average.count == 2
    assert average.update(linear_state(2)).count == 3


def test_no_update_has_no_average():
    with pytest.raises(MergeError, match="no update"):
        RunningAverage().state()
    with pytest.raises(NonFiniteMemberError):
        RunningAverage().update(spoiled("NaN"))


@pytest.mark.parametrize("decay", [1, 1.0, -0.1, float("nan"), "0.9", True])
def test_an_unusable_decay_is_refused(decay):
    with pytest.raises(MergeError, match="decay"):
        RunningAverage(decay)


def test_an_unusable_rhythm_is_refused():
    with pytest.raises(MergeError, match="every"):
        RunningAverage(every="batch")


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_interrupted_average_ends_with_the_same_bits(decay, dtype, tmp_path):
    states = moments(dtype=dtype)
    half = averaged(states[:2], decay)
    save_file(half.dump(), tmp_path / "average.safetensors")
    half.update(states[2])  # what is dumped is a copy
    taken_up = RunningAverage.restore(load_file(tmp_path / "average.safetensors"))
    for state in states[2:]:
        taken_up.update(state)
    whole = averaged(states, decay).state()
    assert list(taken_up.state()) == list(whole)
    torch.testing.assert_close(taken_up.state(), whole, rtol=0, atol=0)
    assert repr(taken_up) == f"RunningAverage(decay={decay}, every='epoch'): 4 update(s)"


def test_an_average_that_has_seen_nothing_can_be_dumped():
    average = RunningAverage.restore(RunningAverage(0.5, every="step").dump())
    assert (average.decay, average.every, average.count) == (0.5, "step", 0)


def broken_dumps():
    whole = averaged([linear_state(0)]).dump()
    notes = torch.frombuffer(bytearray(b'{"decay": null}'), dtype=torch.uint8)
    return [
        {},
        {"notes": torch.frombuffer(bytearray(b"{"), dtype=torch.uint8)},
        {**whole, "notes": notes},
        {key: tensor for key, tensor in whole.items() if key != "kept/bias"},
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_dump_is_refused_and_changes_nothing(number):
    average = averaged([linear_state(1)], 0.5)
    before = average.state()
    with pytest.raises(CheckpointError, match="running average"):
        average.load(broken_dumps()[number])
    torch.testing.assert_close(average.state(), before, rtol=0, atol=0)
    assert average.decay == 0.5
