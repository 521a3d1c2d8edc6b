"""The straight line between two members."""

from contextlib import suppress
from typing import NamedTuple

from ..errors import ProbeError
from ..merge import interpolate

__all__ = ["Barrier", "barrier", "barrier_height"]


class Barrier(NamedTuple):
    """The error along the line between two members.

    Parameters
    ----------
    height : float
        Largest excess of the error over the chord that joins the two ends, in
        percentage points; never negative, because the ends lie on the chord.
    alphas : list of float
        Mixing weights.
    errors : list of float
        Error at each of them, in percent.
    """

    height: float
    alphas: list[float]
    errors: list[float]


def barrier(a, b, error, alphas=(0.0, 0.25, 0.5, 0.75, 1.0)):
    """Measure the barrier on the straight line between two members.

    .. math:: \\max_\\alpha \\; e(\\alpha) - [(1 - \\alpha)\\, e(0) + \\alpha\\, e(1)]

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts of the members.
    error : callable
        Takes a state dict and returns an error in percent. To recalibrate
        BatchNorm, let it do so at every point, the ends included.
    alphas : sequence of float
        Mixing weights in [0, 1], which must contain 0 (member a) and 1 (member b).

    Returns
    -------
    Barrier

    Raises
    ------
    ProbeError
        If an end is missing: the chord is then undefined.

    References
    ----------
    Frankle et al. (2020), Linear Mode Connectivity, Section 2. Their chord is the mean
    of the two ends; ours is the line between them, which is the same at alpha = 1/2.
    https://arxiv.org/abs/1912.05671
    """
    alphas = _checked_alphas(alphas)
    errors = [float(error(interpolate(a, b, alpha))) for alpha in alphas]
    return Barrier(barrier_height(alphas, errors), alphas, errors)


def barrier_height(alphas, errors):
    """Return the largest excess of the errors on a line over the chord that joins its ends.

    Parameters
    ----------
    alphas : sequence of float
        Mixing weights in [0, 1], with both ends.
    errors : sequence of float
        Error at each of them, in percent.

    Returns
    -------
    float
        Percentage points, never negative.

    Raises
    ------
    ProbeError
        As `barrier`.
    """
    alphas = _checked_alphas(alphas)
    if len(errors) != len(alphas) or any(error != error for error in errors):
        wanted, fix = f"{len(alphas)} numbers, one per alpha, none of them NaN", "Look at the logits they come from."
        raise ProbeError("cannot measure a barrier", "errors", f"{list(errors)}", wanted, fix)
    ends = errors[alphas.index(0.0)], errors[alphas.index(1.0)]
    return max(0.0, *(e - ((1 - x) * ends[0] + x * ends[1]) for x, e in zip(alphas, errors, strict=True)))


def _checked_alphas(alphas):
    with suppress(TypeError, ValueError):  # of what is no number; it is refused below
        alphas = [float(alpha) for alpha in alphas]
    numbers = all(isinstance(alpha, float) for alpha in alphas)
    if not numbers or 0.0 not in alphas or 1.0 not in alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        wanted = "numbers in [0, 1] with both ends, 0 (member a) and 1 (member b)"
        fix = "Add the missing end: without it the chord is undefined."
        raise ProbeError("cannot measure a barrier", "alphas", f"{alphas}", wanted, fix)
    return alphas
