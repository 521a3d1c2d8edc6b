"""Metrics against independent references (M14), and evaluation that is never in training mode (M17)."""

import math

import numpy as np
import pytest
import torch
from helpers import bn_model
from sklearn.metrics import log_loss

from wamlib import evaluate
from wamlib.data import Split


def make_split(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(0, 3, (n,), generator=generator), torch.tensor([128.0]), torch.tensor([60.0]))


def reference_ece(probabilities, labels, n_bins):
    """Naeini et al.'s definition, image by image in plain Python."""
    total = 0.0
    for b in range(n_bins):
        inside = []
        for row, label in zip(probabilities, labels, strict=True):
            confidence = max(row)
            last = b == n_bins - 1
            if b / n_bins < confidence <= (b + 1) / n_bins or (last and confidence > 1) or (b == 0 and confidence == 0):
                inside.append((confidence, float(np.argmax(row) == label)))
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(right - confidence)
    return 100 * total


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_calibration_error_agrees_with_the_definition(n_bins):
    logits = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).double() * 3
    labels = torch.randint(0, 4, (300,), generator=torch.Generator().manual_seed(1))
    expected = reference_ece(logits.softmax(1).tolist(), labels.tolist(), n_bins)
    assert evaluate.calibration_error(logits, labels, n_bins) == pytest.approx(expected, abs=1e-9)


def test_confidence_of_exactly_one_is_in_the_last_bin():
    # Half right at confidence 1: an error of 50 points. A phantom bin would give another number.
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    assert evaluate.calibration_error(logits, torch.tensor([0, 1])) == pytest.approx(50)


def test_nll_and_brier_agree_with_references():
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.randint(0, 3, (100,), generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(1).numpy()
    assert evaluate.nll(logits, labels) == pytest.approx(log_loss(labels, probabilities, labels=[0, 1, 2]))
    one_hot = np.eye(3)[labels]
    assert evaluate.brier(logits, labels) == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())


def test_accuracy_and_agreement_are_percent():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    assert evaluate.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 75
    assert evaluate.agreement(logits, -logits) == 0


def test_fitted_temperature_undoes_a_scale():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator).double() * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]  # calibrated by construction
    assert evaluate.fit_temperature(logits, labels) == pytest.approx(1, abs=0.05)
    for factor in (1e-9, 100, 1e12):
        assert evaluate.fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.05)


def test_training_mode_does_not_leak_into_logits():
    model, split = bn_model(dropout=0.5), make_split()
    expected = evaluate.predict_logits(model.eval(), split)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.testing.assert_close(evaluate.predict_logits(model.train(), split), expected, rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)  # no statistic moved
    assert all(module.training for module in model.modules())  # and the mode is as it was


def test_training_mode_would_have_changed_the_logits():
    # The twin of the test above: on this model the leak it guards against is visible.
    model, split = bn_model(dropout=0.5), make_split()
    images, _ = next(iter(split.batches(40)))
    with torch.no_grad():
        assert not torch.allclose(model.train()(images), model.eval()(images), atol=0.1)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_batch_size_does_not_matter(batch_size):
    model, split = bn_model(), make_split()
    expected = evaluate.predict_logits(model, split)
    torch.testing.assert_close(evaluate.predict_logits(model, split, batch_size), expected, rtol=1e-5, atol=1e-5)


def test_features_with_the_head_give_the_logits():
    model, split = bn_model(), make_split()
    features = evaluate.predict_features(model, split)
    torch.testing.assert_close(model[-1](features), evaluate.predict_logits(model, split))
    assert not model[-1]._forward_pre_hooks  # the hook is gone


def test_entropy_and_margin_of_known_logits():
    even, sure = torch.zeros(4, 3), torch.tensor([[1000.0, 0.0, -1000.0]])
    assert evaluate.entropy(even) == pytest.approx(math.log(3))
    assert evaluate.entropy(sure) == 0
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    wide = logits.double().numpy()
    p = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    assert evaluate.entropy(logits) == pytest.approx(-(p * np.log(p)).sum(1).mean())
    ordered = np.sort(wide, axis=1)
    spread = np.sqrt(np.mean((wide - wide.mean(1, keepdims=True)) ** 2))
    assert evaluate.margin(logits) == pytest.approx(((ordered[:, -1] - ordered[:, -2]) / spread).mean())
    shifted = 7 * logits + torch.arange(50.0)[:, None]
    assert evaluate.margin(shifted) == pytest.approx(evaluate.margin(logits), rel=1e-5)  # no scale, no offset
    assert evaluate.margin(even) == 0
