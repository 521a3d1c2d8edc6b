"""Merges of task vectors: what each member added to a common base.

A task vector ``delta_i = theta_i - theta_0`` is formed in float32 (float64 for
float64 members), as in the papers' own code, summed in float64 and rounded once.
Only learnable tensors have one. BatchNorm's running statistics are averaged over
the members, so that a variance can never become negative, and integer tensors are
those of the first member.
"""

import hashlib
from numbers import Integral

import torch
import torch.nn.functional as F

from .members import refuse
from .method import OfDeltas, in_memory
from .sources import wide
from .sums import weighted_sum
from .thresholds import thresholds

__all__ = ["dare", "task_arithmetic", "ties"]


def task_arithmetic(base, members, scale=1.0):
    """Add the scaled sum of the members' task vectors to the base.

    .. math:: \\theta = \\theta_0 + \\lambda \\sum_i (\\theta_i - \\theta_0)

    Parameters
    ----------
    base : dict of str to Tensor
        State dict that the members started from.
    members : sequence of dict of str to Tensor
        State dicts that match it and each other as for `uniform_soup`.
    scale : float
        The factor :math:`\\lambda`: ``1 / len(members)`` gives the uniform soup; a
        negative one forgets what the members learned.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, of the base too, and if ``scale`` is not finite.

    References
    ----------
    Ilharco et al. (2023), Editing Models with Task Arithmetic, Section 2. https://arxiv.org/abs/2212.04089
    """
    return in_memory(TaskArithmetic, members, base, scale=scale)


class TaskArithmetic(OfDeltas):
    """See `task_arithmetic`."""

    def __init__(self, n_members, scale=1.0):
        check_scale(scale)
        self.shares = [scale] * n_members

    def change(self, piece):
        """Return the scaled sum of the task vectors."""
        return weighted_sum(self.source.deltas(piece), self.shares)


def ties(base, members, density, scale=1.0, scope="global"):
    """Trim the members' task vectors, elect a sign per weight, and average those that agree with it.

    .. math:: \\theta = \\theta_0 + \\lambda\\, \\mathrm{mean}\\{\\hat\\delta_i :
        \\mathrm{sign}\\,\\hat\\delta_i = \\mathrm{sign} \\textstyle\\sum_j \\hat\\delta_j\\}

    where :math:`\\hat\\delta_i` is the task vector with all but its largest entries
    set to zero. An entry with the magnitude of the smallest one kept is kept too, so
    that the result does not depend on the order of the entries.

    Parameters
    ----------
    base : dict of str to Tensor
        State dict that the members started from.
    members : sequence of dict of str to Tensor
        State dicts that match it and each other as for `uniform_soup`.
    density : float
        Share of the entries of each task vector that are kept, in [0, 1]:
        ``int(density * n)`` of n. 0 gives the base.
    scale : float
        The factor :math:`\\lambda`.
    scope : {"global", "tensor"}
        What the share is taken of: all learnable entries of a member together, as in
        the paper and its code, or each tensor on its own, as mergekit and peft do.
        It also decides the sign where the sum is exactly 0 although entries are
        not: the most frequent sign of all elected ones, or minus if none is ("global"),
        or plus ("tensor").

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, of the base too, and if density, scale or scope is unusable.

    References
    ----------
    Yadav et al. (2023), TIES-Merging, Section 4 and Algorithm 1. https://arxiv.org/abs/2306.01708
    Their code keeps one entry more than ``int(density * n)``.
    """
    return in_memory(Ties, members, base, density=density, scale=scale, scope=scope)


class Ties(OfDeltas):
    """See `ties`."""

    def __init__(self, n_members, density, scale=1.0, scope="global"):
        check_scale(scale)
        check_density(density, lowest=0)
        check_scope(scope)
        self.density, self.factor, self.scope = density, scale, scope
        self._tie_sign, self._undecided, self._balance = 1, [], []

    def start(self, source):
        """Find what is trimmed."""
        super().start(source)
        self._limits = {}
        keys = source.delta_keys()
        for group in [keys] if self.scope == "global" else [[key] for key in keys]:
            found = thresholds(source, group, self.density)
            for key in group:
                self._limits[key] = [lowest(threshold, wide(source.entries[key].dtype)) for threshold in found]

    def change(self, piece):
        """Return the mean of the entries of the elected sign."""
        votes = Votes(len(self.source.members))
        for entries, limit in zip(self.source.deltas(piece), self._limits[piece.key], strict=True):
            votes.add(trimmed(entries, limit))
        self.source.check_finite(piece, votes.total())
        if votes.undecided():
            self._undecided.append(piece)
        self._balance.append(votes.balance())
        return votes.mean(self._tie_sign)

    def again(self):
        """Return the pieces in which a sum is exactly 0: the sign there depends on all the others."""
        if self.scope == "tensor" or sum(self._balance) > 0:
            return []
        self._tie_sign = -1
        return list(self._undecided)


def dare(base, members, density, seed, scale=1.0):
    """Drop entries of the members' task vectors at random, rescale the rest, and average.

    .. math:: \\theta = \\theta_0 + \\lambda\\, \\frac1N \\sum_i \\frac{m_i \\odot \\delta_i}{p},
        \\qquad m_i \\sim \\mathrm{Bernoulli}(p)

    Its expectation over seeds is the task arithmetic of the whole task vectors; at
    density 1 and scale 1 it is the uniform soup.

    Parameters
    ----------
    base : dict of str to Tensor
        State dict that the members started from.
    members : sequence of dict of str to Tensor
        State dicts that match it and each other as for `uniform_soup`.
    density : float
        Probability p of keeping an entry, in (0, 1].
    seed : int
        Fixes the masks. Each tensor of each member has a generator of its own, seeded
        through SHA-256 with the seed, the key and the member's position: the same
        masks in every process, on every device, and whatever else is merged.
    scale : float
        The factor :math:`\\lambda`; ``len(members)`` gives the sum instead of the mean.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, of the base too, and if density or scale is unusable.

    References
    ----------
    Yu et al. (2024), Language Models are Super Mario, Section 3. https://arxiv.org/abs/2311.03099
    """
    return in_memory(Dare, members, base, density=density, seed=seed, scale=scale)


class Dare(OfDeltas):
    """See `dare`."""

    in_order = True

    def __init__(self, n_members, density, seed, scale=1.0):
        check_scale(scale)
        check_density(density, lowest=None)
        check_seed(seed)
        self.density, self.seed = density, seed
        self.shares = [scale / density / n_members] * n_members
        self._masks = {}

    def change(self, piece):
        """Return the rescaled sum of what the masks keep."""
        if piece.start == 0:
            members = range(len(self.shares))
            self._masks[piece.key] = [Mask(self.density, self.seed, piece.key, index) for index in members]
        masks = self._masks[piece.key]
        deltas = zip(self.source.deltas(piece), masks, strict=True)
        total = weighted_sum((x.mul_(mask.take(piece.size).to(x.device)) for x, mask in deltas), self.shares)
        if piece.stop == self.source.size(piece.key):
            del self._masks[piece.key]
        return total


class Mask:
    """Which entries of one tensor of one member DARE keeps; taken in pieces it is the same as in one."""

    def __init__(self, density, seed, key, index):
        digest = hashlib.sha256(f"{seed}/{index}/{key}".encode()).digest()
        self.density = density
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def take(self, n):
        """Return the next n entries as booleans, on the CPU."""
        # float64: so that pieces of any length draw the same numbers.
        return torch.rand(n, generator=self.generator, dtype=torch.float64) < self.density


class Votes:
    """The trimmed task vectors' positive and negative entries at each weight: their sums and their number."""

    def __init__(self, n_members):
        # A byte holds the number of up to 255 members, and adding bytes is several times as fast.
        self._count = torch.uint8 if n_members <= 255 else torch.int32
        self.sums = None

    def add(self, entries):
        """Count one member's trimmed task vector."""
        if self.sums is None:
            self.sums = [torch.zeros_like(entries, dtype=torch.float64) for _ in range(2)]
            self.counts = [torch.zeros_like(entries, dtype=self._count) for _ in range(2)]
            # Room for what is in between: files are merged in pieces, and each call here is made very often.
            self._part = torch.empty_like(entries)
            self._flags = torch.empty_like(entries, dtype=torch.bool)
            self._ones = self._flags.view(torch.uint8)
        sides = ((torch.clamp_min, torch.gt), (torch.clamp_max, torch.lt))
        for total, count, (side, beyond) in zip(self.sums, self.counts, sides, strict=True):
            total.add_(side(entries, 0, out=self._part))
            beyond(entries, 0, out=self._flags)
            count.add_(self._ones)

    def total(self):
        """Return the sum at each weight, whose sign is elected."""
        return self.sums[0] + self.sums[1]

    def mean(self, tie_sign=1):
        """Return the mean of the entries of the elected sign, float64; 0 where there is no entry."""
        total = self.total()
        positive = total > 0 if tie_sign < 0 else total >= 0
        chosen = torch.where(positive, self.sums[0], self.sums[1])
        return chosen / torch.where(positive, self.counts[0], self.counts[1]).clamp_min(1)

    def undecided(self):
        """Return how many weights have entries whose sum is exactly 0."""
        return int(((self.total() == 0) & (self.sums[0] > 0)).sum())

    def balance(self):
        """Return the sum of the elected signs."""
        return int(self.total().sign().sum())


def lowest(threshold, dtype):
    """Return the largest number of a dtype that is below a threshold: what is above it is not trimmed."""
    limit = torch.tensor(threshold, dtype=dtype)
    if limit.item() >= threshold:
        limit = torch.nextafter(limit, torch.tensor(-float("inf"), dtype=dtype))
    return limit.item()


def trimmed(entries, limit):
    """Return the entries with those of a magnitude of at most the limit set to 0."""
    # Hardshrink does so in one pass, where comparing and choosing are three.
    return F.hardshrink(entries, limit) if limit > 0 else entries


def check_scale(scale):
    """Refuse a scale that is no finite number."""
    if not (isinstance(scale, (int, float)) and abs(scale) < float("inf")):
        refuse("scale", repr(scale), "a finite number")


def check_density(density, *, lowest):
    """Refuse a density outside [lowest, 1], or outside (0, 1] if lowest is None."""
    if not (isinstance(density, (int, float)) and (0 < density <= 1 or density == lowest)):
        refuse("density", repr(density), "a number in (0, 1]" if lowest is None else "a number in [0, 1]")


def check_seed(seed):
    """Refuse a seed that is no whole number."""
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        refuse("seed", repr(seed), "a whole number")


def check_scope(scope):
    """Refuse a scope that is not known."""
    if scope not in ("global", "tensor"):
        refuse("scope", repr(scope), "'global' or 'tensor'")
