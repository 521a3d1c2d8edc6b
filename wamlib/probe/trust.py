"""Does a classifier know when it is wrong? Reliability, and selective prediction."""

from typing import NamedTuple

import torch

from ..errors import ProbeError
from ..evaluate import confidence_bins

__all__ = ["Reliability", "RiskCoverage", "reliability", "risk_coverage"]


class Reliability(NamedTuple):
    """What a reliability diagram shows, for each bin of the confidence.

    Parameters
    ----------
    confidence, accuracy : Tensor, float64, shape (bin,)
        Means over the images in the bin, in percent; NaN in a bin that holds none.
    share : Tensor, float64, shape (bin,)
        Of all images, in percent.
    """

    confidence: torch.Tensor
    accuracy: torch.Tensor
    share: torch.Tensor


class RiskCoverage(NamedTuple):
    """The error of a classifier that answers only where it is surest.

    Parameters
    ----------
    coverage : Tensor, float64, shape (sample,)
        Share of the images that are answered, in percent, ascending; the last is 100.
    error : Tensor, float64, shape (sample,)
        Of the answers given, in percent.
    area : float
        Mean of ``error`` over all coverages (AURC), in percent.
    excess_area : float
        What ``area`` is more than if all right answers came before all wrong ones (E-AURC), in
        points: what better confidences could gain, the answers staying as they are.
    """

    coverage: torch.Tensor
    error: torch.Tensor
    area: float
    excess_area: float


def reliability(logits, labels, n_bins=15):
    """Compare confidence with accuracy, bin by bin.

    Bins are those of `wamlib.evaluate.calibration_error`, which is
    ``(share / 100 * abs(accuracy - confidence)).nansum()``.

    Parameters
    ----------
    logits : Tensor, shape (sample, class)
    labels : Tensor, int64, shape (sample,)
    n_bins : int
        Number of bins of equal width, closed on the right.

    Returns
    -------
    Reliability

    Raises
    ------
    ProbeError
        If there is no image, or not one label for each, or no bin.

    References
    ----------
    Guo et al. (2017), On Calibration of Modern Neural Networks, eqs. (1) to (3). https://arxiv.org/abs/1706.04599
    """
    _check(logits, labels)
    if not (isinstance(n_bins, int) and n_bins >= 1):
        doing = "cannot compare confidence with accuracy"
        raise ProbeError(doing, "n_bins", repr(n_bins), "a whole number of at least 1", "Fifteen are usual.")
    count, confidence, right = confidence_bins(logits, labels, n_bins)
    return Reliability(100 * confidence / count, 100 * right / count, 100 * count / len(labels))


def risk_coverage(logits, labels):
    """Let a classifier answer the images one after the other, surest first, and follow its error.

    Images with the same confidence have no order among them. Each counts with the mean error of all of them, which is
    what is expected if they are put into an order at random: the result does not depend on the order of the images.

    Parameters
    ----------
    logits : Tensor, shape (sample, class)
    labels : Tensor, int64, shape (sample,)

    Returns
    -------
    RiskCoverage

    Raises
    ------
    ProbeError
        If there is no image, or not one label for each.

    References
    ----------
    Geifman and El-Yaniv (2017), Selective Classification for Deep Neural Networks, Section 2.
    https://arxiv.org/abs/1705.08500
    Geifman et al. (2019), Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, Section 3, which
    approximates the area of the best order; here it is the exact sum. https://arxiv.org/abs/1805.08206
    """
    _check(logits, labels)
    wrong = (logits.argmax(1) != labels).double()
    # Ranks of the tied groups, surest first.
    _, group, size = (-log_odds(logits)).unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(size), dtype=torch.float64, device=logits.device).index_add_(0, group, wrong) / size
    answered = torch.arange(1, len(labels) + 1, dtype=torch.float64, device=logits.device)
    error = 100 * mean.repeat_interleave(size).cumsum(0) / answered
    best = 100 * wrong.sort().values.cumsum(0) / answered
    area = error.mean().item()
    return RiskCoverage(100 * answered / len(labels), error, area, area - best.mean().item())


def log_odds(logits):
    """Return the log odds of the predicted class: the order of the maximum probability, where that rounds to 1 too."""
    wide = logits.double()
    first, predicted = wide.max(1)
    others = wide.scatter(1, predicted[:, None], float("-inf"))
    return first - others.logsumexp(1)


def _check(logits, labels):
    if len(labels) == 0 or len(logits) != len(labels):
        got, wanted = f"{len(labels)} for {len(logits)} images", "one for each of at least one image"
        fix = "Pass logits and labels of the same split."
        raise ProbeError("cannot compare confidence with accuracy", "labels", got, wanted, fix)
