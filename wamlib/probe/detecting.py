"""Does a classifier know what it has never seen? Scores that tell foreign images from own ones."""

from typing import NamedTuple

import torch

from ..errors import ProbeError
from .trust import log_odds

__all__ = ["SCORES", "Detection", "detection", "detection_scores"]

SCORES = ("maximum probability", "maximum logit", "energy")


class Detection(NamedTuple):
    """How well a score tells images of one's own kind from foreign ones.

    Parameters
    ----------
    auroc : float
        Chance that an own image scores above a foreign one, ties counted half, in percent; 50 is guessing.
    false_positives : float
        Share of the foreign images that are let in, in percent, by the highest threshold that lets
        in at least 95 % of the own ones.
    """

    auroc: float
    false_positives: float


def detection_scores(logits, score="maximum probability"):
    """Return one number per image that is larger, the surer the network seems.

    Parameters
    ----------
    logits : Tensor, shape (sample, class)
        Divide by a temperature first, if there is one. It leaves the order by maximum logit as it is, and with
        more than two classes changes that by maximum probability; that by energy it changes always.
    score : {"maximum probability", "maximum logit", "energy"}
        The first is given as log odds, which have the same order and do not round to 1. The energy is that
        of the reference with its sign turned: the logarithm of the sum of the exponentials. It says nothing
        about logarithms of probabilities, whose sum is 1.

    Returns
    -------
    Tensor, float64, shape (sample,)

    Raises
    ------
    ProbeError
        If the score is unknown.

    References
    ----------
    Hendrycks and Gimpel (2017), Section 2, for the maximum probability. https://arxiv.org/abs/1610.02136
    Hendrycks et al. (2022), Section 3, for the maximum logit. https://arxiv.org/abs/1911.11132
    Liu et al. (2020), Section 3, for the energy. https://arxiv.org/abs/2010.03759
    """
    if score not in SCORES:
        fix = "Correct the argument."
        raise ProbeError("cannot score images", "score", repr(score), f"one of {', '.join(SCORES)}", fix)
    if score == "maximum probability":
        return log_odds(logits)
    wide = logits.double()
    return wide.amax(1) if score == "maximum logit" else wide.logsumexp(1)


def detection(own, foreign):
    """Measure how well a score tells own images from foreign ones.

    Parameters
    ----------
    own, foreign : Tensor, shape (sample,)
        Scores of the two kinds of images; own ones should be larger.

    Returns
    -------
    Detection

    Raises
    ------
    ProbeError
        If there is none of a kind, or a score is no number.

    References
    ----------
    Hendrycks and Gimpel (2017), A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks, Section 2, for the area, which is computed as the Mann-Whitney statistic.
    https://arxiv.org/abs/1610.02136
    """
    own, foreign = own.double().cpu(), foreign.double().cpu()
    for name, scores in (("own", own), ("foreign", foreign)):
        if len(scores) == 0 or not scores.isfinite().all():
            got = "none" if len(scores) == 0 else f"{int((~scores.isfinite()).sum())} that are no finite number"
            wanted, fix = "at least one, and all of them finite", "Look at the logits that they come from."
            raise ProbeError("cannot measure a detection", f"scores of the {name} images", got, wanted, fix)
    ascending = foreign.sort().values
    below, not_above = (torch.searchsorted(ascending, own, right=right) for right in (False, True))
    auroc = 50 * (below + not_above).double().mean().item() / len(foreign)
    n_own = -(-95 * len(own) // 100)
    threshold = own.sort(descending=True).values[n_own - 1]
    return Detection(auroc, 100 * (foreign >= threshold).double().mean().item())
