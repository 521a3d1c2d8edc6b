"""Stability of single networks: Jacobians, attacks and counts, against exact values of small networks."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import random_dataset, untrained
from torch import nn

from wamlib import evaluate, models, probe
from wamlib.ensemble import LogitEnsemble, logit_ensemble
from wamlib.errors import MergeError, ProbeError

MODELS = ["linear", "deep_linear", "mlp", "cnn", "vgg", "vgg_bn", "resnet8", "densenet", "vit"]


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


def network(name, dataset, seed=0, dtype=torch.float64, spread=0.1):
    state = untrained(name, dataset, seed + 1, spread)[seed].state
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    return module.to(dtype).eval()


def pixels(dataset, n=4):
    return dataset.test.normalize(dataset.test.images[:n]).double()


def steepest(module, images, centred=True):
    """The largest singular value of the Jacobian, from the whole Jacobian, one image at a time."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        rows = [torch.autograd.functional.jacobian(lambda x: module(x[None])[0], image) for image in images]
    jacobian = np.stack([np.asarray(row.flatten(1)) for row in rows])
    if centred:
        jacobian = jacobian - jacobian.mean(1, keepdims=True)
    return np.linalg.svd(jacobian, compute_uv=False)[:, 0]


# Local Lipschitz constants


@pytest.mark.parametrize("name", MODELS)
def test_power_iteration_finds_the_largest_singular_value(name, dataset):
    module, images = network(name, dataset), pixels(dataset)
    exact = steepest(module, images)
    found = probe.local_lipschitz(module, images, n_iterations=100).numpy()
    np.testing.assert_allclose(found, exact, rtol=2e-3)
    assert not np.allclose(found, steepest(module, images, centred=False), rtol=4e-3)  # the twin
    few = probe.local_lipschitz(module, images, n_iterations=2).numpy()
    assert (few <= exact * (1 + 1e-9)).all()  # always from below
    assert (few <= found * (1 + 1e-9)).all()


def test_a_linear_network_has_one_constant_everywhere(dataset):
    module = network("linear", dataset)
    weight = module.head.weight.detach().numpy()
    expected = np.linalg.norm(weight - weight.mean(0), 2)
    np.testing.assert_allclose(probe.local_lipschitz(module, pixels(dataset), n_iterations=200), expected, rtol=1e-6)


def test_a_factor_on_the_head_is_undone_by_the_temperature(dataset):
    module, images = network("cnn", dataset), pixels(dataset)
    before = probe.local_lipschitz(module, images)
    larger = copy.deepcopy(module)
    larger.load_state_dict(probe.scale(module.state_dict(), 7.0, "head"))
    torch.testing.assert_close(probe.local_lipschitz(larger, images), 7 * before)
    torch.testing.assert_close(probe.local_lipschitz(larger, images, temperature=7.0), before)


def test_images_do_not_see_each_other_and_the_model_is_left_as_it_was(dataset):
    module, images = network("resnet8", dataset).train(), pixels(dataset)
    before = copy.deepcopy(module.state_dict())
    together = probe.local_lipschitz(module, images)
    alone = torch.cat([probe.local_lipschitz(module, image[None]) for image in images])
    torch.testing.assert_close(together, alone)
    assert module.training
    torch.testing.assert_close(dict(module.state_dict()), dict(before), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_seed_begins_elsewhere_and_ends_in_the_same_place(dataset):
    module, images = network("vgg_bn", dataset), pixels(dataset)
    short = [probe.local_lipschitz(module, images, n_iterations=1, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(short[0], short[1])
    assert not torch.equal(short[0], short[2])
    long = [probe.local_lipschitz(module, images, n_iterations=100, seed=seed) for seed in (0, 1)]
    torch.testing.assert_close(*long, rtol=2e-3, atol=0)


def test_a_network_that_nothing_moves_has_the_constant_0(dataset):
    module = network("linear", dataset)
    nn.init.zeros_(module.head.weight)
    assert probe.local_lipschitz(module, pixels(dataset)).tolist() == [0, 0, 0, 0]
    nn.init.constant_(module.head.weight, float("inf"))
    assert probe.local_lipschitz(module, pixels(dataset)).isnan().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature: got 0.0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"n_iterations": 0}, "n_iterations: got 0, wanted at least 1"),
    ],
)
def test_no_iteration_and_no_temperature_are_refused(settings, said, dataset):
    with pytest.raises(ProbeError, match=said):
        probe.local_lipschitz(network("linear", dataset), pixels(dataset), **settings)


# The ensemble as one network


def test_an_ensemble_as_one_network_is_the_mean_of_the_logits(dataset):
    members = [network("resnet8", dataset, seed) for seed in range(3)]
    images = pixels(dataset)
    together = LogitEnsemble(members)
    torch.testing.assert_close(together(images), logit_ensemble([member(images) for member in members]))
    assert steepest(together, images[:1]) == pytest.approx(
        probe.local_lipschitz(together, images[:1], n_iterations=100).numpy(), rel=2e-3
    )
    with pytest.raises(MergeError, match="no member"):
        LogitEnsemble([])


# Attacks


def losses(module, split, images):
    with torch.no_grad():
        return F.cross_entropy(module(split.normalize(images)), split.labels, reduction="none")


@pytest.mark.parametrize("kind", probe.ATTACKS)
@pytest.mark.parametrize("name", ["mlp", "resnet8", "vit"])
def test_an_attack_stays_in_its_budget_and_raises_the_loss(kind, name, dataset):
    module, split = network(name, dataset, dtype=torch.float32), dataset.test
    moved = probe.attack(module, split, budget=6, kind=kind)
    before = split.images.float()
    assert (moved - before).abs().max().item() == pytest.approx(6, abs=1e-4)
    assert moved.min() >= 0
    assert moved.max() <= 255
    change = losses(module, split, moved) - losses(module, split, before)
    assert change.mean() > 0
    noise = (before + 6 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0)).sign()).clamp(0, 255)
    assert change.mean() > 2 * (losses(module, split, noise) - losses(module, split, before)).mean()


@pytest.mark.parametrize("channels", [1, 3])
def test_fgsm_on_a_linear_network_is_the_sign_of_its_gradient(channels):
    """In closed form: the gradient of the cross-entropy is W^T (p - one-hot), per channel over the deviation."""
    dataset = random_dataset(channels=channels)
    split = replace(dataset.test, std=torch.tensor([70.0, 30.0, 120.0])[:channels])
    module = models.build("linear", 3, channels, (8, 8), seed=3).eval()
    weight = module.head.weight.detach().double()
    x = split.normalize(split.images).flatten(1).double()
    slope = ((x @ weight.T + module.head.bias.detach().double()) / 2.5).softmax(1) - F.one_hot(split.labels, 3)
    expected = (split.images + 9 * (slope @ weight).sign().view(split.images.shape)).clamp(0, 255)
    found = probe.attack(module, split, budget=9, temperature=2.5)
    assert ((found - expected).abs() > 1e-3).double().mean() < 1e-3
    assert (found != split.images).any(1).all(0).any()


def test_on_average_several_steps_are_as_strong_as_one(dataset):
    for name in ("mlp", "resnet8", "vit"):
        module, split = network(name, dataset, dtype=torch.float32), dataset.test
        once, often = (
            losses(module, split, probe.attack(module, split, budget=12, kind=kind)) for kind in probe.ATTACKS
        )
        assert often.mean() > once.mean() - 1e-3 * once.mean().abs()


def test_a_sure_network_is_attacked_all_the_same(dataset):
    """Captum by itself leaves pixels with a gradient below 1e-6 where they are."""
    module, split = network("linear", dataset, dtype=torch.float32), dataset.test
    split = replace(split, labels=evaluate.predict_logits(module, split).argmax(1))
    large = copy.deepcopy(module)
    large.load_state_dict(probe.scale(module.state_dict(), 30.0, "head"))
    moved = probe.attack(large, split, budget=4) != split.images
    assert moved.flatten(1).any(1).double().mean() > 0.9
    matched = probe.attack(large, split, budget=4, temperature=30.0)
    torch.testing.assert_close(matched, probe.attack(module, split, budget=4))


def test_an_ensemble_is_attacked_as_a_whole(dataset):
    members = [network("mlp", dataset, seed, torch.float32, spread=1.0) for seed in range(3)]
    split, together = dataset.test, LogitEnsemble(members)
    own = losses(together, split, probe.attack(together, split, budget=8))
    through_one = losses(together, split, probe.attack(members[0], split, budget=8))
    assert own.mean() > through_one.mean()


def test_attacks_follow_their_seed_and_leave_all_else_as_it_was(dataset):
    module, split = network("resnet8", dataset, dtype=torch.float32).train(), dataset.test.take(slice(0, 20))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (probe.attack(module, split, budget=5, kind="pgd", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)  # nobody else's random numbers were used
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    fgsm = probe.attack(module, split, budget=5)
    torch.testing.assert_close(probe.attack(module, split, budget=5, batch_size=7), fgsm)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "deepfool"}, "kind: got 'deepfool', wanted one of fgsm, pgd"),
        ({"budget": 0}, "budget: got 0"),
        ({"budget": float("inf")}, "budget: got inf"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"n_steps": 0}, "n_steps: got 0, wanted at least 1"),
    ],
)
def test_what_is_no_attack_is_refused(settings, said, dataset):
    with pytest.raises(ProbeError, match=said):
        probe.attack(network("linear", dataset), dataset.test, **{"budget": 4, **settings})


# Counts


def test_flips_are_counted_over_draws_and_images():
    logits = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [0, 0, 2.0]])
    noisy = torch.stack([logits, logits, logits]).clone()
    noisy[1, 0] = torch.tensor([0.0, 1, 0])
    assert probe.flip_rate(logits, noisy) == pytest.approx(100 / 12)
    noisy[2, 3, 0] = float("-inf")  # the same class, and yet broken
    assert probe.flip_rate(logits, noisy) == pytest.approx(200 / 12)
    noisy[2, 3, 0] = 0
    assert probe.flip_rate(1e6 * logits, noisy) == pytest.approx(100 / 12)
    assert probe.flip_rate(torch.full((4, 3), float("nan")), noisy) == 100
    with pytest.raises(ProbeError, match=r"shape \(4, 3\).*wanted \(draw, \*\(4, 3\)\)"):
        probe.flip_rate(logits, logits)
    with pytest.raises(ProbeError, match=r"shape \(3, 3, 3\)"):
        probe.flip_rate(logits, noisy[:, :3])


def test_spread_is_that_of_centred_logits_over_draws(generator):
    noisy = torch.randn(5, 40, 3, generator=generator)
    centred = np.asarray(noisy.double()) - np.asarray(noisy.double()).mean(2, keepdims=True)
    expected = np.sqrt(centred.var(0, ddof=1).mean())
    assert probe.logit_spread(noisy) == pytest.approx(expected)
    assert probe.logit_spread(6 * noisy) == pytest.approx(6 * expected)
    assert probe.logit_spread(6 * noisy, 6.0) == pytest.approx(expected)
    common = noisy + 100 * torch.randn(5, 40, 1, generator=generator).double()  # what no probability sees
    assert probe.logit_spread(common) == pytest.approx(expected)
    assert probe.logit_spread(noisy[:1].expand(3, -1, -1)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ProbeError, match="at least two draws"):
        probe.logit_spread(noisy[:1])
    with pytest.raises(ProbeError, match="temperature: got 0"):
        probe.logit_spread(noisy, 0)
