"""Soups: averages of the weights of several members."""

import math
import reprlib
from dataclasses import dataclass

from .members import prepared, refuse
from .method import Method, check_pair, in_memory

__all__ = ["Soup", "greedy_soup", "interpolate", "uniform_soup"]

LARGEST = 1e100  # weight: sums of larger ones could be infinite


def uniform_soup(members, weights=None):
    """Average the weights of several members.

    .. math:: \\theta = \\sum_i w_i \\theta_i \\big/ \\sum_i w_i

    Sums in float64 and rounds once, so that the order of the members does not
    matter beyond rounding, copies of one model average to that model exactly (float64
    ones to rounding), and a weight of 1 beside zeros gives that member exactly.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts with the same keys and, per key, the same shape and dtype. At least one.
    weights : sequence of float, or None
        One finite number per member, of any sign, with a sum that is not zero;
        None means equal shares.

    Returns
    -------
    dict of str to Tensor
        The soup, each tensor in the dtype and on the device of the first member's.
        Integer and boolean tensors (step counters) are copied from the first member;
        tensors that share memory are merged once and share it again; a ``module.`` or
        ``_orig_mod.`` before every key is stripped, with a notice.
        BatchNorm statistics are averaged like weights; they are *not* those of the
        soup's own activations, see `recalibrate_batchnorm`.

    Raises
    ------
    MergeError
        If there is no member, or the weights are unusable.
    MemberMismatchError
        If keys, shapes, dtypes or tied tensors differ; the message names the member and the key.
    NonFiniteMemberError
        If a member holds NaN or infinity; the message names the member and the key.

    References
    ----------
    Wortsman et al. (2022), Model soups, Section 2. https://arxiv.org/abs/2203.05482
    """
    return in_memory(Uniform, members, weights=weights)


class Uniform(Method):
    """See `uniform_soup`."""

    others = None

    def __init__(self, n_members, weights=None):
        self.shares = check_weights(weights, n_members)

    def weights(self, piece):
        """Return the weighted mean of a piece."""
        return self.source.mean(piece, self.shares).div_(math.fsum(self.shares))

    statistics = weights


def interpolate(a, b, alpha):
    """Return the point ``(1 - alpha) a + alpha b`` on the line between two members.

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    alpha : float
        0 gives ``a`` and 1 gives ``b``, both exactly; outside [0, 1] extrapolates.

    Returns
    -------
    dict of str to Tensor

    References
    ----------
    Frankle et al. (2020), Linear Mode Connectivity, Section 2. https://arxiv.org/abs/1912.05671
    """
    check_alpha(alpha)
    return uniform_soup([a, b], weights=[1 - alpha, alpha])


class Interpolate(Uniform):
    """See `interpolate`."""

    def __init__(self, n_members, alpha):
        check_alpha(alpha)
        check_pair(n_members)
        super().__init__(n_members, [1 - alpha, alpha])


@dataclass(frozen=True)
class Soup:
    """A greedy soup and how it came about.

    Parameters
    ----------
    state : dict of str to Tensor
        The soup's weights.
    accepted : list of int
        Indices of the members in it, in the order in which they were accepted.
    scores : list of float
        Held-out score of each member on its own, in the order of the members.
    score : float
        Held-out score of the soup.
    """

    state: dict
    accepted: list[int]
    scores: list[float]
    score: float


def greedy_soup(members, score):
    """Add members to a soup, best first, as long as the held-out score does not fall.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    score : callable
        Takes a state dict and returns a number, higher is better, measured on the
        *selection* split: neither training nor test images.

    Returns
    -------
    Soup
        Its weights are the uniform soup of the accepted members.

    Raises
    ------
    MergeError
        If a score is NaN; and as `uniform_soup`.

    References
    ----------
    Wortsman et al. (2022), Model soups, Recipe 1. https://arxiv.org/abs/2203.05482
    """
    members = prepared(members)
    scores = [_checked_score(score(member), index) for index, member in enumerate(members)]
    # sorted() is stable: of two equal members the earlier one goes first.
    first, *rest = sorted(range(len(members)), key=lambda index: -scores[index])
    accepted, state, best = [first], uniform_soup([members[first]]), scores[first]
    for index in rest:
        candidate = uniform_soup([members[i] for i in [*accepted, index]])
        reached = _checked_score(score(candidate), index)
        if reached >= best:
            accepted, state, best = [*accepted, index], candidate, reached
    return Soup(state, accepted, scores, best)


def check_alpha(alpha):
    """Refuse a place between two members that is no finite number."""
    try:
        finite = math.isfinite(alpha)
    except (OverflowError, TypeError):
        finite = False
    if not finite:
        refuse("alpha", reprlib.repr(alpha), "a finite number")


def check_weights(weights, n_members):
    """Return the weights as a list of numbers; refuse those that no mean can be taken with."""
    if weights is None:
        return [1.0] * n_members
    try:
        weights = [float(weight) for weight in weights]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        refuse("weights", reprlib.repr(weights), "a number per member", "Correct the weights.")
    problem = None
    if len(weights) != n_members:
        problem = (f"{len(weights)} weights", f"{n_members}, one per member")
    elif not all(math.isfinite(weight) for weight in weights):
        problem = (f"{weights}", "finite numbers")
    elif any(abs(weight) > LARGEST for weight in weights):
        problem = (f"{weights}", f"numbers up to {LARGEST:g}")
    elif abs(math.fsum(weights)) < 1e-12 * math.fsum(abs(weight) for weight in weights) or not any(weights):
        problem = (f"{weights}, whose sum is 0", "a sum that is not 0")
    if problem:
        refuse("weights", *problem, "Correct the weights.")
    return weights


def _checked_score(value, index):
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        item = f"the score when member {index} was tried"
        got = "NaN" if isinstance(value, float) else reprlib.repr(value)
        fix = "Check the score function; an empty selection split gives NaN."
        refuse(item, got, "a number, higher is better", fix, "cannot make a greedy soup")
    return number
