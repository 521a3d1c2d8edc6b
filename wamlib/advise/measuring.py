"""What is measured about members before anything is merged: sizes, distances, midpoints, the ensemble."""

import copy
import itertools
from dataclasses import dataclass

import torch

from .. import align, evaluate, probe
from ..ensemble import logit_ensemble
from ..errors import AlignmentError
from ..merge import interpolate, recalibrate_batchnorm

__all__ = ["ALPHAS", "Measured", "Pair", "difference", "gain_factor", "measure", "with_alignment"]

ALPHAS = (0.25, 0.5, 0.75)  # inner points of the path; the ends are the members themselves
ALL_PAIRS_UP_TO = 5  # members; of more, each with its neighbour on a ring, so that the work grows with their number


@dataclass(frozen=True)
class Pair:
    """Two members and the line between them.

    Parameters
    ----------
    a, b : int
        Which members.
    distance : float
        Of their learnable tensors, relative to the mean of the two norms.
    cosine : float
        Of the angle between the two, seen from the origin.
    alphas, errors : tuple of float
        Points of the line, 0 (member a) and 1 (member b) included, and the error there in percent.
    barrier : float
        Points, see `wamlib.probe.barrier`.
    midpoint_gain : float
        Accuracy of the midpoint minus mean accuracy of its ends, points.
    batchnorm_shift : float or None
        What recalibration adds to the accuracy of the midpoint, points; None where nothing was recalibrated.
    """

    a: int
    b: int
    distance: float
    cosine: float
    alphas: tuple
    errors: tuple
    barrier: float
    midpoint_gain: float
    batchnorm_shift: float | None


@dataclass(frozen=True)
class Measured:
    """All that is known of a pool before it is merged.

    Parameters
    ----------
    norms : tuple of float
        Of the learnable tensors of each member.
    pairs : tuple of Pair
    has_batchnorm, recalibrated : bool
        Whether the model has BatchNorm, and whether merged networks were recalibrated.
    n_classes : int
    members : Tensor, float64, shape (member, image)
        1 where a member is right, 0 where it is wrong.
    options : dict of str to Tensor, float64, shape (image,)
        The same of "logit ensemble", measured; of "uniform soup", predicted; and of "aligned soup",
        predicted, if members were aligned. A prediction is a sum of rights, so it may lie outside [0, 1].
    aligned : str
        Empty if members were not aligned, or why that was impossible.
    """

    norms: tuple
    pairs: tuple
    has_batchnorm: bool
    recalibrated: bool
    n_classes: int
    members: torch.Tensor
    options: dict
    aligned: str = ""

    @property
    def accuracies(self):
        """Accuracy of each member, percent."""
        return tuple((100 * self.members.mean(1)).tolist())

    def accuracy(self, option):
        """Return the accuracy of an option in percent; a prediction is cut where no network would be."""
        found = 100 * self.options[option].mean().item()
        if option == "logit ensemble":
            return found
        worst = min(100.0 / self.n_classes, 100 * self.members.mean().item())  # guessing, or what members have
        return min(100.0, max(worst, found))

    def gain(self, option):
        """Return what an option gains over the mean of the members, and its standard error, in points."""
        _, noise = difference(self.options[option], self.members.mean(0))
        return self.accuracy(option) - 100 * self.members.mean().item(), noise


def gain_factor(n_members):
    """Return the gain of a soup of n members in units of the mean gain of the midpoints of its pairs.

    Where the error is a quadratic form of the weights, with matrix H, the mean error of members at
    :math:`\\bar\\theta + \\delta_i` exceeds that of their soup by
    :math:`\\frac{1}{2n} \\sum_i \\delta_i^T H \\delta_i`, and the mean error of two ends that of their midpoint by
    :math:`\\frac18 (\\delta_i - \\delta_j)^T H (\\delta_i - \\delta_j)`. Over all pairs the squared differences sum
    to n times the sum of the squared deviations, so the ratio of the first to the mean
    of the second is

    .. math:: 2 \\left(1 - \\frac1n\\right),

    for any n members, whatever H: 1 for two, 2 for very many. In other words, the soup of n stands at
    :math:`1 - \\frac1n` of the mean squared distance between strangers and the centre, the midpoint at one half of it.
    """
    return 2 * (1 - 1 / n_members)


def difference(a, b):
    """Return the difference of two accuracies on the same images and its standard error, in points.

    Parameters
    ----------
    a, b : Tensor, shape (image,)
        Whether each is right about each image; means and predictions of it may be fractions.
    """
    apart = 100 * (a - b)
    return apart.mean().item(), (apart.var() / len(apart)).sqrt().item()


def measure(members, model, selection, *, training_batches=None, alphas=ALPHAS, predict=None):
    """Measure members; see `wamlib.advise.advise` for the arguments.

    Returns
    -------
    Measured
        Without alignment, see `with_alignment`.
    """
    predict = predict or _predictor(model, selection, training_batches)
    has_batchnorm = any(key.endswith("running_mean") for key in model.state_dict())
    recalibrated = has_batchnorm and training_batches is not None
    logits = [predict(member, False) for member in members]
    right = torch.stack([_right(part, selection) for part in logits])
    norms = tuple(probe.weight_norm(member) for member in members)
    pairs, midpoints = [], []
    for i, j in _pairs(len(members)):
        line = {0.0: right[i], 1.0: right[j]}
        for alpha in sorted({*alphas, 0.5}):
            line[alpha] = _right(predict(interpolate(members[i], members[j], alpha), recalibrated), selection)
        midpoints.append(line[0.5])
        shift = None
        if recalibrated:
            plain = _right(predict(interpolate(members[i], members[j], 0.5), False), selection)
            shift = difference(line[0.5], plain)[0]
        errors = {alpha: 100 - 100 * line[alpha].mean().item() for alpha in sorted(line)}
        apart, product = probe.distance(members[i], members[j]), norms[i] * norms[j]
        distance = apart / ((norms[i] + norms[j]) / 2)
        cosine = (norms[i] ** 2 + norms[j] ** 2 - apart**2) / (2 * product)
        alphas_of_pair, heights = tuple(errors), tuple(errors.values())
        gain = (errors[0.0] + errors[1.0]) / 2 - errors[0.5]
        barrier = probe.barrier_height(alphas_of_pair, heights)
        pairs.append(Pair(i, j, distance, cosine, alphas_of_pair, heights, barrier, gain, shift))
    options = {
        "uniform soup": _predicted(right, pairs, midpoints),
        "logit ensemble": _right(logit_ensemble(logits), selection),
    }
    return Measured(norms, tuple(pairs), has_batchnorm, recalibrated, logits[0].shape[1], right, options)


def with_alignment(measured, members, model, selection, *, training_batches=None, predict=None):
    """Bring the units of all members into the order of the first, and predict the soup of the result.

    Returns
    -------
    Measured
        With the option "aligned soup"; or without it, and with the reason, where the model cannot be traced.
    """
    predict = predict or _predictor(model, selection, training_batches)
    try:
        members = aligned(members, model)
    except AlignmentError as error:
        return Measured(**{**vars(measured), "aligned": f"{error.doing} ({error.got})"})
    midpoints = [
        _right(predict(interpolate(members[pair.a], members[pair.b], 0.5), measured.recalibrated), selection)
        for pair in measured.pairs
    ]
    soup = _predicted(measured.members, measured.pairs, midpoints)
    return Measured(**{**vars(measured), "options": measured.options | {"aligned soup": soup}})


def aligned(members, model):
    """Return the members with their units in the order of the first one's, matched by weights."""
    first, *rest = members
    return [first, *(align.apply(align.permutation(first, other, model), other) for other in rest)]


def _pairs(n):
    if n <= ALL_PAIRS_UP_TO:
        return list(itertools.combinations(range(n), 2))
    return [(i, (i + 1) % n) for i in range(n)]


def _predicted(right, pairs, midpoints):
    """Return the rights that the soup of all members is predicted to have, image by image."""
    ends = torch.stack([(right[pair.a] + right[pair.b]) / 2 for pair in pairs]).mean(0)
    return right.mean(0) + gain_factor(len(right)) * (torch.stack(midpoints).mean(0) - ends)


def _right(logits, split):
    return (logits.argmax(1) == split.labels).double().cpu()


def _predictor(model, selection, training_batches):
    model = copy.deepcopy(model)  # the caller's keeps its weights
    batches = None if training_batches is None else list(training_batches)

    def predict(state, recalibrate):
        model.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(model, batches)
        return evaluate.predict_logits(model, selection)

    return predict
