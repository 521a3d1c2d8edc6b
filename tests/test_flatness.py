"""Directions, losses along them and the top eigenvalue of the Hessian, against full Hessians in float64."""

import copy

import numpy as np
import pytest
import torch
from helpers import bn_model, random_split
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from wamlib import models, probe
from wamlib.errors import ProbeError

SPLIT = random_split(12)
IMAGES, LABELS = SPLIT.normalize(SPLIT.images).double(), SPLIT.labels


def tiny_mlp():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 3), nn.ReLU(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).double()


def tiny_vit():
    torch.manual_seed(1)
    block = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=True, norm_first=True)
    return nn.Sequential(nn.Unflatten(3, (1, 8)), nn.Flatten(1, 3), block, nn.Flatten(), nn.Linear(64, 3)).double()


NETWORKS = {"mlp": tiny_mlp, "BatchNorm": lambda: bn_model(dropout=0.3).double(), "attention": tiny_vit}


def full_hessian(model, images, labels):
    """The matrix itself, by another way of differentiation."""
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]
    sizes = [parameter.numel() for parameter in model.parameters()]
    model = copy.deepcopy(model).eval()

    def loss(vector):
        parts = dict(zip(names, [p.view(s) for p, s in zip(vector.split(sizes), shapes)]))
        return cross_entropy(functional_call(model, parts, (images,)), labels)

    vector = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, vector)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_eigenvalue_is_that_of_the_full_hessian(name):
    model = NETWORKS[name]()
    values = np.linalg.eigvalsh(full_hessian(model, IMAGES, LABELS).numpy())
    found = probe.top_hessian_eigenvalue(model, IMAGES, LABELS, tolerance=1e-8)
    assert found == pytest.approx(values[-1], rel=1e-6)
    assert values[-1] > 1.05 * values[-2]
    assert found == pytest.approx(probe.top_hessian_eigenvalue(model, IMAGES, LABELS, seed=3, tolerance=1e-8))


def test_of_the_signs_the_positive_end_is_meant():
    """Of a network whose largest curvature in size is negative, the largest eigenvalue still is the top one."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Linear(2, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.01)
    values = np.linalg.eigvalsh(full_hessian(model, IMAGES, LABELS).numpy())
    assert values[0] < -0.5 * values[-1]
    found = probe.top_hessian_eigenvalue(model, IMAGES, LABELS, tolerance=1e-8)
    assert found == pytest.approx(values[-1], rel=1e-6)


def test_of_a_linear_network_with_two_classes_the_hessian_is_known():
    """The mean of p (1 - p) x x^T, times the matrix [[1, -1], [-1, 1]], whose eigenvalue is 2."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).double()
    x = IMAGES.flatten(1).numpy()
    p = model(IMAGES).softmax(1)[:, 0].detach().numpy()
    expected = 2 * np.linalg.eigvalsh((x * (p * (1 - p))[:, None]).T @ x / len(x))[-1]
    found = probe.top_hessian_eigenvalue(model, IMAGES, LABELS % 2, tolerance=1e-8)
    assert found == pytest.approx(expected, rel=1e-6)


def test_single_precision_agrees_with_double():
    model = models.build("vit", 3, 1, (8, 8))
    single = probe.top_hessian_eigenvalue(model, IMAGES.float(), LABELS, tolerance=1e-3)
    double = probe.top_hessian_eigenvalue(model.double(), IMAGES, LABELS, tolerance=1e-6)
    assert single == pytest.approx(double, rel=1e-2)
    assert double > 0


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = bn_model(dropout=0.5).double().train(training)
    before = copy.deepcopy(model.state_dict())
    direction = probe.filter_normalised_direction(before, 0)
    probe.top_hessian_eigenvalue(model, IMAGES, LABELS)
    probe.loss_along(model, before, direction, [0.0, 1.0], IMAGES, LABELS)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_directions_have_the_norms_of_the_filters_and_leave_biases_and_statistics():
    state = bn_model().state_dict()
    direction = probe.filter_normalised_direction(state, 0)
    assert set(direction) == {key for key in state if "running" not in key and "num" not in key}
    for key, way in direction.items():
        assert way.shape == state[key].shape
        assert way.dtype == state[key].dtype
        if state[key].dim() < 2:
            assert (way == 0).all()
        else:
            torch.testing.assert_close(way.flatten(1).norm(dim=1), state[key].flatten(1).norm(dim=1))
    assert torch.equal(direction["4.weight"], probe.filter_normalised_direction(state, 0)["4.weight"])
    assert not torch.equal(direction["4.weight"], probe.filter_normalised_direction(state, 1)["4.weight"])
    wide = probe.filter_normalised_direction({"weight": torch.ones(100, 100)}, 0)["weight"]
    assert wide.mean().item() == pytest.approx(0, abs=0.03)  # random, not along the weights


def test_a_row_of_zeros_has_no_direction():
    direction = probe.filter_normalised_direction({"weight": torch.eye(3)[:, :2]}, 0)["weight"]
    assert (direction[2] == 0).all()
    assert direction.isfinite().all()


def test_losses_are_those_of_the_moved_networks():
    model = bn_model(dropout=0.3).double()
    state = model.state_dict()
    direction = probe.filter_normalised_direction(state, 0)
    found = probe.loss_along(model.train(), state, direction, [-0.5, 0.0, 2.0], IMAGES, LABELS)
    for step, loss in zip((-0.5, 0.0, 2.0), found, strict=True):
        moved = copy.deepcopy(model).eval()
        moved.load_state_dict(state | {key: state[key] + step * direction[key] for key in direction})
        assert loss == pytest.approx(cross_entropy(moved(IMAGES), LABELS).item())
    assert len({round(loss, 6) for loss in found}) == 3


def test_filter_normalisation_does_not_see_a_scale_that_batchnorm_undoes_and_the_eigenvalue_does():
    """The reason for it, and the objection to eigenvalues: the two networks compute the same."""
    model = bn_model().double()
    model[1].eps = model[5].eps = 1e-12  # the one thing that scale does not pass by
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scaled = {key: tensor.clone() for key, tensor in state.items()}
    for key, power in {"0.weight": 1, "0.bias": 1, "1.running_mean": 1, "1.running_var": 2}.items():
        scaled[key] *= 0.1**power
    curves, values = [], []
    for one in (state, scaled):
        model.load_state_dict(one)
        direction = probe.filter_normalised_direction(one, 0)
        curves.append(probe.loss_along(model, one, direction, [-1.0, 0.0, 0.5], IMAGES, LABELS))
        values.append(probe.top_hessian_eigenvalue(model, IMAGES, LABELS, tolerance=1e-6))
    np.testing.assert_allclose(*curves)
    assert values[1] > 2 * values[0]


def test_what_cannot_be_measured_is_refused():
    model = tiny_mlp()
    state = model.state_dict()
    direction = probe.filter_normalised_direction(state, 0)
    with pytest.raises(ProbeError, match=r"images.*none"):
        probe.loss_along(model, state, direction, [0.0], IMAGES[:0], LABELS[:0])
    with pytest.raises(ProbeError, match=r"images.*none"):
        probe.top_hessian_eigenvalue(model, IMAGES[:0], LABELS[:0])
    with pytest.raises(ProbeError, match="tensor 'other'"):
        probe.loss_along(model, state, direction | {"other": torch.zeros(1)}, [0.0], IMAGES, LABELS)
    with pytest.raises(ProbeError, match="no convergence in 1 restarts"):
        probe.top_hessian_eigenvalue(model, IMAGES, LABELS, tolerance=1e-14, most=1)
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(ProbeError, match=r"loss.*nan"):
        probe.top_hessian_eigenvalue(model, IMAGES, LABELS)


def test_a_network_that_is_sure_of_everything_has_no_curvature_to_find():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        model[1].weight.mul_(1e8)
    with pytest.raises(ProbeError, match=r"top eigenvalue.*a Hessian that is not zero"):
        probe.top_hessian_eigenvalue(model, IMAGES, model(IMAGES).argmax(1))
