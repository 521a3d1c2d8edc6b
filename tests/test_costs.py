"""What networks cost: operations as counted by hand."""

import pytest
import torch
from helpers import random_dataset

from wamlib import costs

MLP = [(64, 512), (512, 256), (256, 128), (128, 3)]  # of 8 x 8 grey images and three classes


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


def test_operations_are_those_of_a_hand_count(dataset):
    """A multiplication and its addition are two operations."""
    mlp = 2 * sum(a * b for a, b in MLP)
    cnn = 2 * (64 * 16 * 9 + 16 * 32 * 16 * 9 + 4 * 64 * 32 * 9 + 64 * 128 + 128 * 3)
    units, tokens = 64, 1 + 16
    attention = 4 * units**2 * tokens + 2 * units * tokens**2  # in and out, then scores and values
    vit = 2 * (16 * units * 4 + 2 * (attention + 2 * units * 2 * units * tokens) + units * 3)
    expected = {"linear": 2 * 64 * 3, "mlp": mlp, "cnn": cnn, "vit": vit}
    assert {name: 1e6 * costs.prediction_operations(name, dataset) for name in expected} == pytest.approx(expected)
    assert torch.backends.mha.get_fastpath_enabled()  # put back


def test_time_and_memory_are_positive_and_memory_is_that_of_the_tensors(dataset):
    table = costs.inference_costs(["mlp", "mlp-x2", "resnet8"], dataset, n_images=10, repeats=1).set_index("model")
    assert (table.ms > 0).all()
    assert table.mflops["resnet8"] == costs.prediction_operations("resnet8", dataset)
    assert table.mb["mlp"] == pytest.approx(4 * sum(a * b + b for a, b in MLP) / 1e6)
    for column in ("mb", "mflops"):
        assert 3 < table[column]["mlp-x2"] / table[column]["mlp"] < 4


def test_a_training_step_is_forward_and_the_gradient_of_the_weights(dataset):
    """The gradient of the images is asked for by nobody."""
    assert costs.training_operations("linear", dataset) == 2 * 2 * 64 * 3
    (first, *inner), state = [a * b for a, b in MLP], torch.random.get_rng_state()
    assert costs.training_operations("mlp", dataset) == 2 * (2 * first + 3 * sum(inner))
    assert costs.training_operations("cnn", dataset) > 2.5 * 1e6 * costs.prediction_operations("cnn", dataset)
    assert not torch.equal(state, torch.random.get_rng_state())  # untrained weights are drawn
