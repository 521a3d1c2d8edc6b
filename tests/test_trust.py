"""Reliability, selective prediction and detection, against loops in numpy and scikit-learn."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from wamlib import evaluate, probe
from wamlib.errors import ProbeError


def answers(seed=0, n=400, classes=5, size=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(n, classes, generator=generator)
    return logits, torch.where(torch.rand(n, generator=generator) < 0.6, logits.argmax(1), seed % classes)


def probabilities(logits):
    wide = np.exp(np.asarray(logits, dtype=np.float64))
    return wide / wide.sum(1, keepdims=True)


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_the_calibration_error_is_what_the_diagram_shows(n_bins):
    for seed, size in itertools.product(range(5), (0.1, 2.0, 200.0)):
        logits, labels = answers(seed, size=size)
        found = probe.reliability(logits, labels, n_bins)
        gap = (found.share / 100 * (found.accuracy - found.confidence).abs()).nansum().item()
        assert gap == pytest.approx(evaluate.calibration_error(logits, labels, n_bins), abs=1e-10)
        assert found.share.sum().item() == pytest.approx(100)


def test_bins_are_those_that_a_loop_over_images_fills():
    logits, labels = answers(n=200)
    p = probabilities(logits)
    bins = [[] for _ in range(15)]
    for row, label in zip(p, labels.tolist(), strict=True):
        number = next(b for b in range(15) if row.max() <= (b + 1) / 15 or b == 14)
        bins[number].append((row.max(), row.argmax() == label))
    found = probe.reliability(logits, labels)
    for number, images in enumerate(bins):
        assert found.share[number].item() == pytest.approx(100 * len(images) / 200)
        for column, part in enumerate((found.confidence, found.accuracy)):
            expected = 100 * np.mean([image[column] for image in images]) if images else np.nan
            assert part[number].item() == pytest.approx(expected, nan_ok=True)
    assert found.confidence.isnan().any()  # five classes are never less sure than 20 %


def test_one_bin_can_hide_what_fifteen_show():
    """The twin: a network that is too sure of some images and too little of others."""
    logits = torch.tensor([[3.0, 0.0]] * 50 + [[0.5, 0.0]] * 50)
    labels = torch.tensor([0] * 30 + [1] * 20 + [0] * 50)
    gaps = [probe.reliability(logits, labels, n) for n in (1, 15)]
    one, many = ((g.share / 100 * (g.accuracy - g.confidence).abs()).nansum().item() for g in gaps)
    assert many > one + 10


def curve_by_loop(confidence, wrong, orders):
    """Selective error at every coverage, mean over the given orders of images that tie."""
    lines = []
    for order in orders:
        ranked = sorted(order, key=lambda i: -confidence[i])  # sorted() is stable
        lines.append([100 * np.mean([wrong[i] for i in ranked[: k + 1]]) for k in range(len(ranked))])
    return np.mean(lines, axis=0)


def test_error_against_coverage_is_that_of_a_loop():
    logits, labels = answers(n=120)
    p = probabilities(logits)
    wrong = p.argmax(1) != labels.numpy()
    expected = curve_by_loop(p.max(1), wrong, [range(120)])
    found = probe.risk_coverage(logits, labels)
    np.testing.assert_allclose(found.error, expected)
    np.testing.assert_allclose(found.coverage, 100 * np.arange(1, 121) / 120)
    assert found.area == pytest.approx(expected.mean())
    assert found.error[-1].item() == pytest.approx(100 - evaluate.accuracy(logits, labels))
    best = curve_by_loop(-wrong.astype(float), wrong, [range(120)])
    assert found.excess_area == pytest.approx(expected.mean() - best.mean())


def test_ties_count_with_the_mean_over_all_their_orders():
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.0]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    p = probabilities(logits)
    expected = curve_by_loop(p.max(1).round(12), p.argmax(1) != labels.numpy(), list(itertools.permutations(range(5))))
    found = probe.risk_coverage(logits, labels)
    np.testing.assert_allclose(found.error, expected)
    for order in itertools.permutations(range(5)):
        shuffled = probe.risk_coverage(logits[list(order)], labels[list(order)])
        torch.testing.assert_close(shuffled.error, found.error)


def test_a_confidence_that_says_nothing_has_the_same_error_at_every_coverage():
    logits = torch.tensor([[1.0, 0.0]] * 10)
    found = probe.risk_coverage(logits, torch.tensor([1, 1, 1] + [0] * 7))
    torch.testing.assert_close(found.error, torch.full((10,), 30.0, dtype=torch.float64))
    assert found.excess_area > 20


def test_the_best_order_has_no_excess_and_the_worst_has_most():
    right = torch.tensor([[4.0, 0.0]] * 6 + [[1.0, 0.0]] * 4)
    labels = torch.tensor([0] * 6 + [1] * 4)
    best, worst = probe.risk_coverage(right, labels), probe.risk_coverage(right.flip(0), labels)
    assert best.excess_area == pytest.approx(0, abs=1e-9)
    middle = probe.risk_coverage(torch.ones(10, 2) * torch.tensor([1.0, 0.0]), labels).excess_area
    assert worst.excess_area > middle > best.excess_area
    # Geifman et al.'s approximation of the best area, for many images: r + (1 - r) log(1 - r).
    many = probe.risk_coverage(right.repeat_interleave(1000, 0), labels.repeat_interleave(1000))
    assert many.area == pytest.approx(100 * (0.4 + 0.6 * np.log(0.6)), abs=0.05)


def test_nobody_errs_and_everybody_errs():
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    for labels, error in ((logits.argmax(1), 0), (logits.argmin(1), 100)):
        found = probe.risk_coverage(logits, labels)
        assert found.area == pytest.approx(error)
        assert found.excess_area == pytest.approx(0, abs=1e-9)


def test_confidences_that_round_to_one_keep_their_order():
    logits = torch.tensor([[100.0, 0.0], [60.0, 0.0], [80.0, 0.0]])
    assert (logits.double().softmax(1)[:, 0] == 1).all()
    found = probe.risk_coverage(logits, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found.error, torch.tensor([0, 0, 100 / 3], dtype=torch.float64))


def test_temperature_changes_the_order_of_three_classes_and_not_of_two():
    generator = torch.Generator().manual_seed(0)
    for classes, same in ((2, True), (5, False)):
        logits = 3 * torch.randn(300, classes, generator=generator).double()
        orders = [probe.detection_scores(logits / t).argsort() for t in (1.0, 4.0)]
        assert torch.equal(*orders) == same
    for score, same in (("maximum logit", True), ("energy", False)):
        assert torch.equal(*(probe.detection_scores(logits / t, score).argsort() for t in (1.0, 4.0))) == same


def test_scores_are_those_of_their_formulas():
    logits, _ = answers()
    p = probabilities(logits)
    np.testing.assert_allclose(probe.detection_scores(logits).sigmoid(), p.max(1))
    np.testing.assert_allclose(probe.detection_scores(logits, "maximum logit"), logits.double().numpy().max(1))
    np.testing.assert_allclose(
        probe.detection_scores(logits, "energy"), np.log(np.exp(logits.double().numpy()).sum(1)), rtol=1e-10
    )
    with pytest.raises(ProbeError, match="score: got 'entropy', wanted one of maximum probability, maximum logit"):
        probe.detection_scores(logits, "entropy")


@pytest.mark.parametrize("decimals", [0, 1, 8])  # few decimals: many ties
def test_detection_is_that_of_scikit_learn_and_of_mann_and_whitney(decimals):
    generator = torch.Generator().manual_seed(decimals)
    own = (torch.randn(137, generator=generator).double() + 0.8).round(decimals=decimals)
    foreign = torch.randn(90, generator=generator).double().round(decimals=decimals)
    found = probe.detection(own, foreign)
    truth, scores = np.r_[np.ones(137), np.zeros(90)], np.r_[own, foreign]
    assert found.auroc == pytest.approx(100 * roc_auc_score(truth, scores))
    assert found.auroc == pytest.approx(100 * stats.mannwhitneyu(own, foreign).statistic / (137 * 90))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found.false_positives == pytest.approx(100 * false[true >= 0.95 - 1e-12].min())
    assert probe.detection(foreign, own).auroc == pytest.approx(100 - found.auroc)


def test_detection_by_a_score_that_says_nothing_or_everything():
    same, far = torch.zeros(20), torch.ones(40)
    assert probe.detection(same, same) == (50, 100)
    assert probe.detection(far, same) == (100, 0)
    assert probe.detection(same, far) == (0, 100)
    # Of 20 own images 19 are 95 %: one may be lost, and no more.
    own = torch.arange(20.0)
    assert probe.detection(own, torch.full((4,), 0.5)).false_positives == 0
    assert probe.detection(own, torch.full((4,), 1.0)).false_positives == 100


@pytest.mark.parametrize("bad", [[], [float("nan"), 1.0], [float("inf")]])
def test_scores_that_are_none_are_refused(bad):
    bad, good = torch.tensor(bad), torch.ones(3)
    with pytest.raises(ProbeError, match="scores of the own images"):
        probe.detection(bad, good)
    with pytest.raises(ProbeError, match="scores of the foreign images"):
        probe.detection(good, bad)


@pytest.mark.parametrize("measure", [probe.reliability, probe.risk_coverage])
def test_labels_that_are_not_one_for_each_image_are_refused(measure):
    with pytest.raises(ProbeError, match="got 0 for 0 images"):
        measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ProbeError, match="got 2 for 4 images"):
        measure(torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64))
