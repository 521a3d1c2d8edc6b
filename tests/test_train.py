"""Training: the same bits from the same config (M18), resumption, schedules, and nothing left behind."""

import math

import pytest
import torch
from conftest import tiny

from wamlib import models
from wamlib.errors import ConfigError
from wamlib.merge import RunningAverage, uniform_soup
from wamlib.train import learning_rate, pick_device, train


def assert_same(a, b):
    assert list(a) == list(b)
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", models.NAMES[:4])
def test_same_config_gives_the_same_weights(name, digits):
    config = tiny(model=name, augment="flip-crop")
    a, _ = train(config, digits, device="cpu")
    b, _ = train(config, digits, device="cpu")
    assert_same(a, b)


@pytest.mark.parametrize("change", [{"seed": 1}, {"init_seed": 1}, {"peak_lr": 0.01}, {"label_smoothing": 0.1}])
def test_other_configs_give_other_weights(change, digits):
    a, _ = train(tiny(), digits, device="cpu")
    b, _ = train(tiny(**change), digits, device="cpu")
    assert not torch.equal(a["fc1.weight"], b["fc1.weight"])


@pytest.mark.slow
def test_a_compiled_network_trains_to_the_same_weights_but_for_rounding(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    config, asked = tiny(model="deep_linear", epochs=1), []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **settings: asked.append(args) or compile_(*args, **settings))
    plain, _ = train(config, digits, device="cpu")
    assert not asked
    found, _ = train(config, digits, device="cpu", compiled=True)
    assert len(asked) == 1
    assert list(found) == list(plain)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)


def test_the_global_generator_is_left_alone(digits):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    a, _ = train(tiny(model="cnn"), digits, device="cpu")  # with dropout
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    b, _ = train(tiny(model="cnn"), digits, device="cpu")
    assert_same(a, b)  # nor does it have any say


def test_the_thread_count_is_put_back(digits):
    before = torch.get_num_threads()
    train(tiny(epochs=1, threads=2), digits, device="cpu")
    assert torch.get_num_threads() == before


class Interrupted(Exception):
    pass


def interrupt_after(epoch):
    def progress(row):
        if row["epoch"] == epoch:
            raise Interrupted

    return progress


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_an_interrupted_training_ends_with_the_same_bits(name, epoch, digits, tmp_path):
    config = tiny(model=name, epochs=4, augment="crop")
    whole, history = train(config, digits, device="cpu")
    with pytest.raises(Interrupted):
        train(config, digits, device="cpu", resume=tmp_path / "state", progress=interrupt_after(epoch))
    seen = []
    resumed, rest = train(config, digits, device="cpu", resume=tmp_path / "state", progress=seen.append)
    assert [row["epoch"] for row in seen] == list(range(epoch + 1, 5))  # the finished epochs were not repeated
    assert_same(resumed, whole)
    assert [row["loss"] for row in rest] == [row["loss"] for row in history]


def test_without_its_momentum_a_resumed_training_would_differ(digits, tmp_path):
    # The twin: the equality above is not for want of anything to lose.
    import hashlib

    from wamlib.storage import pack, unpack

    config, path = tiny(epochs=3), tmp_path / "state"
    whole, _ = train(config, digits, device="cpu")
    with pytest.raises(Interrupted):
        train(config, digits, device="cpu", resume=path, progress=interrupt_after(1))
    tensors, notes = unpack(path.read_bytes()[:-32])
    content = pack({key: tensor for key, tensor in tensors.items() if key.startswith("model/")}, notes)
    path.write_bytes(content + hashlib.sha256(content).digest())
    resumed, _ = train(config, digits, device="cpu", resume=path)
    assert not torch.equal(resumed["fc1.weight"], whole["fc1.weight"])


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\xff" * 8])
def test_a_damaged_resume_file_is_not_believed(content, digits, tmp_path):
    (tmp_path / "state").write_bytes(content)
    config = tiny(epochs=1)
    resumed, _ = train(config, digits, device="cpu", resume=tmp_path / "state")
    assert_same(resumed, train(config, digits, device="cpu")[0])


def test_another_runs_resume_file_is_not_believed(digits, tmp_path):
    with pytest.raises(Interrupted):
        train(tiny(seed=9), digits, device="cpu", resume=tmp_path / "state", progress=interrupt_after(1))
    resumed, _ = train(tiny(), digits, device="cpu", resume=tmp_path / "state")
    assert_same(resumed, train(tiny(), digits, device="cpu")[0])


def test_a_member_continues_from_its_start(digits):
    trunk, _ = train(tiny(), digits, device="cpu")
    config = tiny(start=tiny(), init_seed=None, seed=1, epochs=1, peak_lr=1e-30)
    member, _ = train(config, digits, start=trunk, device="cpu")
    torch.testing.assert_close(member["fc1.weight"], trunk["fc1.weight"], rtol=0, atol=1e-6)


def test_start_weights_are_required_exactly_when_set(digits):
    with pytest.raises(ConfigError, match="no start"):
        train(tiny(start=tiny(), init_seed=None), digits)
    with pytest.raises(ConfigError, match="start weights"):
        train(tiny(), digits, start={})


def test_history_is_what_happened(digits):
    _, history = train(tiny(epochs=5), digits, device="cpu")
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["accuracy"] > 50
    assert all(row["seconds"] > 0 for row in history)


def test_divergence_is_an_error_that_says_so(digits):
    with pytest.raises(ConfigError, match=r"diverged.*peak_lr"):
        train(tiny(peak_lr=1e20, warmup_epochs=0, epochs=3), digits, device="cpu")


def test_bfloat16_trains_with_float32_weights(digits):
    state, history = train(tiny(precision="bfloat16"), digits, device="cpu")
    assert state["fc1.weight"].dtype == torch.float32
    assert math.isfinite(history[-1]["loss"])
    assert not torch.equal(state["fc1.weight"], train(tiny(), digits, device="cpu")[0]["fc1.weight"])


@pytest.mark.parametrize("name", models.NAMES[:4])
def test_the_fused_optimizer_takes_the_steps_of_the_plain_one(name, digits, monkeypatch):
    # Both walk over weights in channels_last layout; a mix-up of layouts would scramble them.
    config = tiny(model=name, epochs=1)
    fused, _ = train(config, digits, device="cpu")
    plain_sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, fused, **kwargs: plain_sgd(*args, foreach=False, **kwargs))
    plain, _ = train(config, digits, device="cpu")
    torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4)


def trace(config, n_steps=100, steps_per_epoch=10):
    return [learning_rate(config, step, n_steps, steps_per_epoch) for step in range(n_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "fifths", "constant"])
def test_warm_up_climbs_to_the_peak_and_no_further(schedule):
    # The released code's warm-up overshoots: its schedule peaks at twice the rate that was asked for.
    rates = trace(tiny(schedule=schedule, warmup_epochs=1, peak_lr=0.1))
    assert rates[0] == pytest.approx(0.1 / 11)
    assert rates[:10] == sorted(set(rates[:10]))
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert max(rates) <= 0.1 + 1e-12


def test_schedules_end_where_they_should():
    settings = {"warmup_epochs": 0, "peak_lr": 1.0}
    assert trace(tiny(schedule="cosine", **settings))[50] == pytest.approx(0.5)
    assert trace(tiny(schedule="linear", **settings))[25] == pytest.approx(0.75)
    assert trace(tiny(schedule="constant", **settings))[99] == 1.0
    fifths = trace(tiny(schedule="fifths", **settings))
    assert [fifths[step] for step in (0, 19, 20, 40, 60, 80, 99)] == pytest.approx([1, 1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-4])
    step = trace(tiny(schedule="step", **settings))
    assert [step[i] for i in (0, 39, 40, 79, 80, 99)] == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])


def test_auto_device_is_one_that_is_there():
    device = pick_device("auto")
    assert torch.zeros(1, device=device).device.type == device.type
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_an_average_along_training_survives_an_interruption_and_changes_nothing(decay, every, digits, tmp_path):
    config = tiny(epochs=4)
    whole, resumed = RunningAverage(decay, every), RunningAverage(decay, every)
    settings = {"device": "cpu", "resume": tmp_path / "state"}
    member, _ = train(config, digits, device="cpu", average=whole)
    assert_same(member, train(config, digits, device="cpu")[0])
    assert whole.count == (4 if every == "epoch" else 4 * math.ceil(200 / 32))
    with pytest.raises(Interrupted):
        train(config, digits, **settings, progress=interrupt_after(2), average=RunningAverage(decay, every))
    train(config, digits, **settings, average=resumed)
    assert resumed.count == whole.count
    assert_same(resumed.state(), whole.state())
    assert not torch.equal(whole.state()["fc1.weight"], member["fc1.weight"])


def test_the_average_of_the_epochs_is_the_soup_of_their_checkpoints(digits):
    # Epochs of a constant learning rate do not depend on how many follow.
    checkpoints = [train(tiny(epochs=epochs, schedule="constant"), digits, device="cpu")[0] for epochs in (1, 2, 3)]
    average = RunningAverage()
    train(tiny(epochs=3, schedule="constant"), digits, device="cpu", average=average)
    assert_same(average.state(), uniform_soup(checkpoints))
    with pytest.raises(AssertionError):  # the twin: not of two of them
        assert_same(average.state(), uniform_soup(checkpoints[1:]))


@pytest.mark.parametrize("before", [None, RunningAverage(0.5), RunningAverage(0.9, "step")])
def test_an_average_that_missed_epochs_begins_anew(before, digits, tmp_path):
    whole, late = RunningAverage(0.9), RunningAverage(0.9)
    train(tiny(epochs=3), digits, device="cpu", average=whole)
    with pytest.raises(Interrupted):
        train(
            tiny(epochs=3), digits, device="cpu", resume=tmp_path / "state", progress=interrupt_after(2), average=before
        )
    train(tiny(epochs=3), digits, device="cpu", resume=tmp_path / "state", average=late)
    assert late.count == 3
    assert_same(late.state(), whole.state())
