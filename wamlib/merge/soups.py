"""Soups: averages of the weights of several members."""

import math
import reprlib
from dataclasses import dataclass

import torch

from ..errors import MergeError
from .members import merge_by_key, prepared

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
    members = prepared(members)
    shares = check_weights(weights, len(members))
    total = math.fsum(shares)

    def mean(key):
        first = members[0][key]
        if not (first.is_floating_point() or first.is_complex()):
            return first.clone()
        return cast(weighted_sum([member[key] for member in members], shares).div_(total), first)

    return merge_by_key(members, mean)


def weighted_sum(tensors, shares):
    """Return ``sum(share * tensor)`` in float64; on MPS, which has no float64, on the CPU."""
    first = tensors[0]
    wide = torch.complex128 if first.is_complex() else torch.float64
    where = torch.device("cpu") if first.device.type == "mps" else first.device
    total = torch.zeros(first.shape, dtype=wide, device=where)
    for tensor, share in zip(tensors, shares, strict=True):
        total.add_(tensor.detach().to(where, wide), alpha=share)
    return total


def cast(wide, like):
    """Round once, to the dtype and device of a member's tensor; refuse a result that this dtype cannot hold."""
    narrow = wide.to(like.device, like.dtype)
    check_range(narrow)
    return narrow


def check_range(merged):
    """Refuse a merged tensor with values beyond the range of its dtype, which are infinite, or NaN for float8."""
    values = merged.float() if merged.dtype.itemsize == 1 else merged  # torch sums no float8
    # Neither vanishes from a sum, which is many times faster than isfinite(); but the sum itself may overflow.
    if math.isfinite(abs(values.sum().item())):
        return
    n_values = int((~torch.isfinite(values)).sum())
    if n_values:
        raise MergeError(
            "cannot merge", item="the result", got=f"{n_values} value(s) beyond the range of {merged.dtype}",
            wanted="finite weights", fix="Choose a scale, alpha or weights of usual size, or members of a wider dtype.",
        )  # fmt: skip


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
        raise MergeError("cannot merge", item="alpha", got=reprlib.repr(alpha), wanted="a finite number",
                         fix="Correct the argument.")  # fmt: skip


def check_weights(weights, n_members):
    if weights is None:
        return [1.0] * n_members
    try:
        weights = [float(weight) for weight in weights]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        _refuse_weights(reprlib.repr(weights), "a number per member")
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
        _refuse_weights(*problem)
    return weights


def _refuse_weights(got, wanted):
    raise MergeError("cannot merge", item="weights", got=got, wanted=wanted, fix="Correct the weights.") from None


def _checked_score(value, index):
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        raise MergeError(
            "cannot make a greedy soup",
            item=f"the score when member {index} was tried",
            got="NaN" if isinstance(value, float) else reprlib.repr(value),
            wanted="a number, higher is better",
            fix="Check the score function; an empty selection split gives NaN.",
        )
    return number
