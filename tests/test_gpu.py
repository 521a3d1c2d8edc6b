"""What needs a CUDA device: the same numbers as on the CPU, no waiting inside an epoch, no memory left behind."""

import warnings

import pytest
import torch
from conftest import tiny

from wamlib import data, evaluate, merge, models
from wamlib.stacked import train_stacked
from wamlib.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch):
    """TF32 rounds to ten bits, which is no difference between devices but between formats."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8", "densenet", "vit"])
def test_logits_are_those_of_the_cpu(name, digits):
    model = models.build(name, 10, 1, (8, 8), seed=0)
    expected = evaluate.predict_logits(model, digits.test)
    found = evaluate.predict_logits(model.to("cuda"), digits.to("cuda").test)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_a_member_is_that_of_the_cpu_after_a_step(name):
    images = data.load("digits", n_train=64)
    config = tiny(model=name, n_train=64, batch_size=64, epochs=1, augment="flip-crop")
    (state, _), (other, _) = (train(config, images, device=device) for device in ("cpu", "cuda"))
    torch.testing.assert_close(other, state, rtol=1e-3, atol=1e-4)


def test_training_reaches_the_same_accuracy(digits):
    accuracies = [train(tiny(epochs=5), digits, device=device)[1][-1]["accuracy"] for device in ("cpu", "cuda")]
    assert abs(accuracies[0] - accuracies[1]) < 5


def test_stacked_members_are_those_trained_alone(digits):
    configs = [tiny(seed=seed, init_seed=seed) for seed in range(3)]
    for config, (state, _) in zip(configs, train_stacked(configs, digits, device="cuda"), strict=True):
        torch.testing.assert_close(state, train(config, digits, device="cuda")[0], rtol=0, atol=1e-4)


def test_recalibration_is_that_of_the_cpu(digits):
    model = models.build("resnet8", 10, 1, (8, 8), seed=0)
    expected, found = ({}, {})
    for device, into in (("cpu", expected), ("cuda", found)):
        split = digits.to(device).train
        merge.recalibrate_batchnorm(model.to(device), [split.normalize(split.images)])
        into |= {key: value.cpu().clone() for key, value in model.state_dict().items()}
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_soup_is_that_of_the_cpu_to_the_bit(generator):
    members = [{"weight": torch.randn(7, 5, generator=generator), "count": torch.tensor(3)} for _ in range(3)]
    expected = merge.uniform_soup(members)
    found = merge.uniform_soup([{key: value.to("cuda") for key, value in member.items()} for member in members])
    torch.testing.assert_close({key: value.cpu() for key, value in found.items()}, expected, rtol=0, atol=0)


def waits(n_train):
    """Return how often the host waited for the device while a member was trained for two epochs."""
    images = data.load("digits", n_train=n_train).to("cuda")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(tiny(model="resnet8", n_train=n_train, augment="flip-crop"), images, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def test_more_steps_do_not_make_the_host_wait_more_often():
    assert waits(960) == waits(320)


def test_training_leaves_no_memory_behind(digits):
    images = digits.to("cuda")
    train(tiny(model="resnet8"), images, device="cuda")
    before = torch.cuda.memory_allocated()
    train(tiny(model="resnet8", seed=1), images, device="cuda")
    assert torch.cuda.memory_allocated() == before
