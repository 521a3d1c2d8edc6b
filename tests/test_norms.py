"""Norms of tensors, and models brought to other norms."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import linear_state, random_dataset, untrained

from wamlib import probe
from wamlib.errors import ProbeError


@pytest.fixture(scope="module")
def pool():
    return untrained("resnet8", random_dataset(), n=4, spread=0.5)


def test_norms_are_those_of_numpy_and_their_squares_sum_to_that_of_all(pool):
    state = pool[0].state
    norms = probe.layer_norms(state)
    assert list(norms) == [key for key in state if "running_" not in key and "num_batches" not in key]
    for key, norm in norms.items():
        assert norm == pytest.approx(np.linalg.norm(state[key].double().numpy().ravel()))
    assert math.hypot(*norms.values()) == pytest.approx(probe.weight_norm(state))


def test_a_model_brought_to_its_own_norms_is_itself(pool):
    state = pool[0].state
    torch.testing.assert_close(probe.rescale_to(state, probe.layer_norms(state)), state, rtol=1e-6, atol=0)


def test_a_rescaled_model_has_the_wanted_norms_and_its_own_directions_and_statistics(pool):
    a, b = pool[0].state, pool[1].state
    before = copy.deepcopy(a)
    found = probe.rescale_to(a, probe.layer_norms(b))
    for key, tensor in found.items():
        assert tensor.dtype == a[key].dtype
        if key not in probe.layer_norms(a):
            assert torch.equal(tensor, a[key])
            continue
        assert tensor.double().norm().item() == pytest.approx(b[key].double().norm().item(), rel=1e-6)
        cosine = torch.nn.functional.cosine_similarity(tensor.double().flatten(), a[key].double().flatten(), dim=0)
        assert cosine.item() == pytest.approx(1 if a[key].any() else 0)
    torch.testing.assert_close(a, before, rtol=0, atol=0)
    found["bn1.running_mean"] += 1
    torch.testing.assert_close(a, before, rtol=0, atol=0)  # copies, not views


def test_zeros_stay_zeros_and_can_be_asked_for():
    state = linear_state(0) | {"bias": torch.zeros(3)}
    found = probe.rescale_to(state, {"weight": 0.0, "bias": 0.0})
    assert all((tensor == 0).all() for tensor in found.values())


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"weight": 1.0}, "norm of 'bias'.*one of the two only"),
        ({"weight": 1.0, "bias": 0.0, "other": 1.0}, "norm of 'other'"),
        ({"weight": -1.0, "bias": 0.0}, "norm of 'weight'.*-1"),
        ({"weight": math.nan, "bias": 0.0}, "norm of 'weight'.*nan"),
        ({"weight": math.inf, "bias": 0.0}, "norm of 'weight'.*inf"),
        ({"weight": 1.0, "bias": 1.0}, "tensor 'bias'.*nothing but zeros"),
    ],
)
def test_norms_that_cannot_be_reached_are_refused(norms, message):
    with pytest.raises(ProbeError, match=message):
        probe.rescale_to(linear_state(0) | {"bias": torch.zeros(3)}, norms)
