"""Merges by angle: SLERP between two members, Model Stock between members and their base."""

import itertools
import math

import torch

from ..errors import MergeError
from .deltas import check_scope, delta, has_delta, merge_deltas, prepared_with_base
from .members import merge_by_key, prepared
from .soups import cast, check_alpha, weighted_sum

__all__ = ["model_stock", "slerp"]

PARALLEL = 1e-6  # sine of the angle below which an arc is a straight line, in float64


def slerp(a, b, alpha, scope="global"):
    """Go along the arc between two members instead of along the line.

    .. math:: \\theta = \\frac{\\sin((1 - \\alpha)\\Omega)}{\\sin\\Omega}\\, a
        + \\frac{\\sin(\\alpha\\Omega)}{\\sin\\Omega}\\, b,
        \\qquad \\cos\\Omega = \\frac{a \\cdot b}{|a|\\,|b|}

    Where the two are parallel, opposite or zero there is no one arc, and the line is taken.

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    alpha : float
        0 gives ``a`` and 1 gives ``b``, both exactly.
    scope : {"global", "tensor"}
        One angle between all learnable tensors taken together, or one per tensor, as
        mergekit has it.

    Returns
    -------
    dict of str to Tensor
        Running statistics are interpolated on the line, so that a variance stays positive.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, and if alpha is not finite or the scope is unknown.

    References
    ----------
    Shoemake (1985), Animating Rotation with Quaternion Curves, Section 3.3. https://doi.org/10.1145/325165.325242
    """
    members = a, b = prepared([a, b])
    check_scope(scope)
    check_alpha(alpha)
    found = {}
    merge_by_key(members, lambda key: found.setdefault(key, products(a[key], b[key])))
    arcs = [key for key in found if has_delta(key, a[key])]
    whole = arc_shares(*(sum(found[key][column] for key in arcs) for column in range(3)), alpha)

    def merge(key):
        if not (a[key].is_floating_point() or a[key].is_complex()):
            return a[key].clone()
        shares = [1 - alpha, alpha]
        if key in arcs:
            shares = whole if scope == "global" else arc_shares(*found[key], alpha)
        return cast(weighted_sum([a[key], b[key]], shares), a[key])

    return merge_by_key(members, merge)


def model_stock(base, members):
    """Go from the members' mean towards the base, as far as the angle between the members asks for.

    .. math:: \\theta = t\\, \\bar\\theta + (1 - t)\\, \\theta_0,
        \\qquad t = \\frac{N \\cos\\varphi}{1 + (N - 1) \\cos\\varphi}

    per tensor, where :math:`\\cos\\varphi` is the mean cosine of the angles between two
    task vectors. The less the members agree, the nearer to the base.

    Parameters
    ----------
    base : dict of str to Tensor
        State dict that the members started from.
    members : sequence of dict of str to Tensor
        At least two, that match it and each other as for `uniform_soup`.

    Returns
    -------
    dict of str to Tensor
        Running statistics are averaged over the members. A negative mean cosine,
        which the paper does not treat, counts as 0: the base.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, of the base too, and if there is only one member.

    References
    ----------
    Jang et al. (2024), Model Stock, Section 4.2, Equation 2, and Appendix for N members.
    https://arxiv.org/abs/2403.19522
    """
    base, members = prepared_with_base(base, members)
    check_stock(len(members))

    def merge(key):
        deltas = [delta(member[key], base[key]) for member in members]
        shares = stock_shares([products(x, y) for x, y in itertools.combinations(deltas, 2)], len(members))
        return cast(weighted_sum([base[key], *(member[key] for member in members)], shares), base[key])

    return merge_deltas(base, members, merge)


def check_stock(n_members):
    """Refuse a Model Stock of one member."""
    if n_members < 2:
        raise MergeError(
            "cannot make a model stock", item="the list of members", got="one member", wanted="at least two",
            fix="Add a member: one task vector has no angle with another.",
        )  # fmt: skip


def arc_shares(aa, ab, bb, alpha):
    """Return the shares of a and b on their arc, from the dot products of the two."""
    norm = math.sqrt(aa * bb)
    # The difference loses half of the sine's digits near 0 and a half turn: harmless near 0, where the shares
    # depend on the angle's square; 5e-5 of the norm at worst near a half turn, where the arc is arbitrary.
    sine = math.sqrt(max(0.0, norm**2 - ab**2)) / norm if norm else 0.0
    if sine < PARALLEL:
        return [1 - alpha, alpha]
    angle = math.atan2(sine, ab / norm)
    return [math.sin((1 - alpha) * angle) / math.sin(angle), math.sin(alpha * angle) / math.sin(angle)]


def stock_shares(pairs, n_members):
    """Return the shares of the base and of each member, from the dot products of every pair of task vectors."""
    cosines = [xy / math.sqrt(xx * yy) if xx * yy else 0.0 for xx, xy, yy in pairs]
    cosine = max(0.0, sum(cosines) / len(cosines))
    t = n_members * cosine / (1 + (n_members - 1) * cosine)
    return [1 - t, *[t / n_members] * n_members]


def products(x, y):
    """Return (x.x, x.y, y.y) in float64; zeros for tensors that are not floating point."""
    if not x.is_floating_point():
        return 0.0, 0.0, 0.0
    x, y = (tensor.detach().to("cpu" if tensor.device.type == "mps" else tensor.device) for tensor in (x, y))
    x, y = x.flatten().double(), y.flatten().double()
    return torch.dot(x, x).item(), torch.dot(x, y).item(), torch.dot(y, y).item()
