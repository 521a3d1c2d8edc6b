"""Merges by angle: SLERP between two members, Model Stock between members and their base."""

import itertools
import math

import torch

from .deltas import check_scope
from .members import refuse
from .method import Method, check_pair, in_memory
from .soups import check_alpha
from .sources import PIECE
from .sums import dots

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
    return in_memory(Slerp, [a, b], alpha=alpha, scope=scope)


class Slerp(Method):
    """See `slerp`."""

    others = "on the line"

    def __init__(self, n_members, alpha, scope="global"):
        check_scope(scope)
        check_alpha(alpha)
        check_pair(n_members)
        self.alpha, self.scope = alpha, scope

    def start(self, source):
        """Measure the angles."""
        super().start(source)

        def measure(piece):
            numbers = dots([member.read(*piece).double() for member in source.members])
            source.check_finite(piece, torch.tensor(numbers, dtype=torch.float64))
            return numbers

        found = source.summed(measure)
        if self.scope == "global":
            whole = [source.total(column) for column in zip((0.0, 0.0, 0.0), *found.values(), strict=True)]
            found = dict.fromkeys(found, whole)
        self._shares = {key: arc_shares(*numbers, self.alpha) for key, numbers in found.items()}

    def weights(self, piece):
        """Return the point on the arc."""
        return self.source.mean(piece, self._shares[piece.key])

    def statistics(self, piece):
        """Return the point on the line."""
        return self.source.mean(piece, [1 - self.alpha, self.alpha])


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
    return in_memory(ModelStock, members, base)


class ModelStock(Method):
    """See `model_stock`."""

    needs_base = True

    def __init__(self, n_members):
        if n_members < 2:
            fix = "Add a member: one task vector has no angle with another."
            refuse("the list of members", "one member", "at least two", fix, "cannot make a model stock")

    def start(self, source):
        """Measure the angles."""
        super().start(source)
        n = len(source.members)

        def measure(piece):
            return source.gram([entries.to(torch.float64, copy=True) for entries in source.deltas(piece)])

        # All task vectors of a piece are in memory together: the more members, the shorter the pieces.
        found = source.summed(measure, max(1, PIECE // n))
        self._shares = {key: stock_shares(numbers, n) for key, numbers in found.items()}

    def weights(self, piece):
        """Return the point between the mean and the base."""
        return self.source.mean(piece, self._shares[piece.key], [self.source.base, *self.source.members])


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


def stock_shares(numbers, n_members):
    """Return the shares of the base and of each member, from the dot products of all pairs of task vectors."""
    dot = dict(zip(itertools.combinations_with_replacement(range(n_members), 2), numbers, strict=True))
    cosines = []
    for i, j in itertools.combinations(range(n_members), 2):
        norms = dot[i, i] * dot[j, j]
        cosines.append(dot[i, j] / math.sqrt(norms) if norms else 0.0)
    cosine = max(0.0, sum(cosines) / len(cosines))
    t = n_members * cosine / (1 + (n_members - 1) * cosine)
    return [1 - t, *[t / n_members] * n_members]
