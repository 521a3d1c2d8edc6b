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

from ..errors import MergeError
from .members import check_finite, check_layout, checked_state, is_learnable, merge_by_key, prepared, strip_prefixes
from .soups import cast, weighted_sum

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
    base, members = prepared_with_base(base, members)
    check_scale(scale)

    def merge(key):
        deltas = [delta(member[key], base[key]) for member in members]
        return add_to_base(base[key], weighted_sum(deltas, [scale] * len(deltas)))

    return merge_deltas(base, members, merge)


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
    base, members = prepared_with_base(base, members)
    check_scale(scale)
    check_density(density, lowest=0)
    check_scope(scope)
    keys = delta_keys([*members, base])
    if scope == "global" and keys:
        whole = [_threshold(torch.cat([delta(m[key], base[key]).flatten() for key in keys]), density) for m in members]
        thresholds = dict.fromkeys(keys, whole)
    else:
        thresholds = {key: [_threshold(delta(m[key], base[key]), density) for m in members] for key in keys}

    def merge(key, tie_sign=1):
        dtype = wide(base[key].dtype)
        votes = Votes(base[key].shape, len(members), dtype, base[key].device)
        for member, threshold in zip(members, thresholds[key], strict=True):
            votes.add(trimmed(delta(member[key], base[key]), lowest(threshold, dtype)))
        undecided[key] = votes.undecided()
        elected[key] = votes.balance()
        return add_to_base(base[key], votes.mean(tie_sign), scale)

    undecided, elected = {}, {}
    merged = merge_deltas(base, members, merge)
    if scope == "global" and sum(elected.values()) <= 0:
        for key in [key for key, count in undecided.items() if count]:
            merged[key].copy_(merge(key, tie_sign=-1))  # in place: what is tied to it changes with it
    return merged


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
    base, members = prepared_with_base(base, members)
    check_scale(scale)
    check_density(density, lowest=None)
    check_seed(seed)

    def merge(key):
        kept = []
        for index, member in enumerate(members):
            mask = Mask(density, seed, key, index).take(base[key].numel())
            kept.append(delta(member[key], base[key]) * mask.view(base[key].shape).to(base[key].device))
        return add_to_base(base[key], weighted_sum(kept, [scale / density / len(kept)] * len(kept)))

    return merge_deltas(base, members, merge)


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

    def __init__(self, shape, n_members, dtype, device=None):
        device = "cpu" if device is not None and device.type == "mps" else device
        # A byte holds the number of up to 255 members, and adding bytes is several times as fast.
        count = torch.uint8 if n_members <= 255 else torch.int32
        self.sums = [torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2)]
        self.counts = [torch.zeros(shape, dtype=count, device=device) for _ in range(2)]
        # Room for what is in between: files are merged in pieces, and each call here is made very often.
        self._part = torch.empty(shape, dtype=dtype, device=device)
        self._flags = torch.empty(shape, dtype=torch.bool, device=device)
        self._ones = self._flags.view(torch.uint8)

    def add(self, entries):
        """Count one member's trimmed task vector."""
        if entries.device != self._part.device:
            entries = entries.to(self._part.device)
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


def wide(dtype):
    """Return the dtype of a task vector: float32, or float64 where the members are."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def delta(tensor, base):
    """Return a task vector."""
    dtype = wide(base.dtype)
    return tensor.detach().to(dtype) - base.detach().to(dtype)


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


def add_to_base(base, change, scale=1.0):
    """Return base + scale * change, summed in float64 and rounded once."""
    return cast(weighted_sum([base, change.to(base.device)], [1.0, scale]), base)


def _threshold(entries, density):
    """Return the magnitude of the int(density * n)-th largest entry; infinity if that is none."""
    n = entries.numel()
    kept = int(density * n)
    return entries.abs().flatten().kthvalue(n - kept + 1).values.item() if kept else float("inf")


def delta_keys(members):
    """Return the keys that have a task vector: learnable, not integer, each tied tensor once."""
    keys = []
    merge_by_key(members, keys.append)
    return [key for key in keys if has_delta(key, members[0][key])]


def has_delta(key, tensor):
    """Return whether a tensor has a task vector."""
    return is_learnable(key) and tensor.is_floating_point()


def merge_deltas(base, members, merge):
    """Apply a merge to what has a task vector; average the statistics, copy the rest from the first member."""

    def by_kind(key):
        first = members[0][key]
        if has_delta(key, first):
            return merge(key)
        if first.is_floating_point() or first.is_complex():
            return cast(weighted_sum([m[key] for m in members], [1.0] * len(members)).div_(len(members)), first)
        return first.clone()

    return merge_by_key([*members, base], by_kind)


def prepared_with_base(base, members):
    """Return base and members, prefixes stripped and checked against each other."""
    members, base = prepared(members), strip_prefixes(checked_state(base, "the base"))
    check_layout(base, members[0], "the base", "member 0")
    check_finite(base, "the base")
    return base, members


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


def refuse(item, got, wanted):
    """Raise the error for an argument that has no meaning."""
    raise MergeError("cannot merge", item=item, got=got, wanted=wanted, fix="Correct the argument.")
