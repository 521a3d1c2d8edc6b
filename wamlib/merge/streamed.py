"""The merges of files, piece by piece: what the functions on state dicts return, to the last bit or the one before.

Each method here takes what its namesake takes, checked by `check_settings`, with a pool of open files in the place of
the state dicts, measures what it needs of whole tensors in one pass, and returns a `Recipe`.
Sums over members are the same operations in the same order; only dot products over a
tensor (SLERP, Model Stock) are summed in another one.
"""

import itertools
import math
from dataclasses import dataclass

import torch

from ..errors import MergeError
from .deltas import Mask, Votes, add_to_base, check_density, check_scale, check_scope, check_seed, lowest, trimmed, wide
from .largest import thresholds
from .pool import PIECE
from .soups import check_alpha, check_range, check_weights
from .sphere import arc_shares, check_stock, products, stock_shares

__all__ = ["METHODS", "OF_A_BASE", "Recipe", "check_settings"]


@dataclass
class Recipe:
    """How to merge one piece after the other.

    Parameters
    ----------
    merge : callable
        Takes a `Piece` and returns its merged values.
    again : callable
        Called when all pieces are merged; returns the pieces that the result of the others
        changes, which are to be merged once more.
    in_order : bool
        Whether the pieces of one tensor have to be merged one after the other.
    """

    merge: object
    again: object = list
    in_order: bool = False


def uniform(pool, weights=None):
    """See `uniform_soup`."""
    shares = check_weights(weights, len(pool.members))
    total = math.fsum(shares)
    return Recipe(_averaged(pool, lambda piece: pool.mean(piece, shares).div_(total)))


def interpolate(pool, alpha):
    """See `wamlib.merge.interpolate`."""
    return uniform(pool, [1 - alpha, alpha])


def slerp(pool, alpha, scope="global"):
    """See `wamlib.merge.slerp`."""
    a, b = pool.members

    def measure(piece):
        numbers = products(a.read(*piece), b.read(*piece))
        pool.check_finite(piece, torch.tensor(numbers, dtype=torch.float64))
        return numbers

    found = _summed(pool, measure, PIECE)
    whole = arc_shares(*(math.fsum(column) for column in zip((0.0, 0.0, 0.0), *found.values(), strict=True)), alpha)

    def mean(piece):
        shares = [1 - alpha, alpha]
        if piece.key in found:
            shares = whole if scope == "global" else arc_shares(*found[piece.key], alpha)
        return pool.mean(piece, shares)

    return Recipe(_averaged(pool, mean))


def task_arithmetic(pool, scale=1.0):
    """See `wamlib.merge.task_arithmetic`."""

    def change(piece):
        total = torch.zeros(piece.size, dtype=torch.float64)
        for entries in pool.deltas(piece):
            total.add_(entries, alpha=scale)
        return total

    return Recipe(_of_deltas(pool, change))


def ties(pool, density, scale=1.0, scope="global"):
    """See `wamlib.merge.ties`."""
    keys = pool.delta_keys()
    groups = [keys] if scope == "global" else [[key] for key in keys]
    limits = {}
    for group in groups:
        found = thresholds(pool, group, density)
        for key in group:
            limits[key] = [lowest(threshold, wide(pool.entries[key].dtype)) for threshold in found]
    undecided, balance = [], []
    tie_sign = 1

    def change(piece):
        votes = Votes((piece.size,), len(pool.members), wide(pool.entries[piece.key].dtype))
        for entries, limit in zip(pool.deltas(piece), limits[piece.key], strict=True):
            votes.add(trimmed(entries, limit))
        pool.check_finite(piece, votes.total())
        if votes.undecided():
            undecided.append(piece)
        balance.append(votes.balance())
        return votes.mean(tie_sign)

    def again():
        # The sign where a sum is exactly 0 depends on all the others, so it is known only now.
        nonlocal tie_sign
        if scope == "tensor" or sum(balance) > 0:
            return []
        tie_sign = -1
        return list(undecided)

    return Recipe(_of_deltas(pool, change, scale), again)


def dare(pool, density, seed, scale=1.0):
    """See `wamlib.merge.dare`."""
    share = scale / density / len(pool.members)
    masks = {}

    def change(piece):
        if piece.start == 0:
            masks[piece.key] = [Mask(density, seed, piece.key, index) for index in range(len(pool.members))]
        total = torch.zeros(piece.size, dtype=torch.float64)
        for entries, mask in zip(pool.deltas(piece), masks[piece.key], strict=True):
            total.add_(entries.mul_(mask.take(piece.size)), alpha=share)
        if piece.stop == pool.entries[piece.key].size:
            del masks[piece.key]
        return total

    return Recipe(_of_deltas(pool, change), in_order=True)


def model_stock(pool):
    """See `wamlib.merge.model_stock`."""
    n = len(pool.members)

    def gram(piece):
        rows = torch.stack([entries.to(torch.float64, copy=True) for entries in pool.deltas(piece)])
        return (rows @ rows.T).flatten().tolist()

    # All task vectors of a piece are in memory together: the more members, the shorter the pieces.
    found = _summed(pool, gram, max(1, PIECE // n))
    shares = {}
    for key, values in found.items():
        pairs = [
            (values[i * n + i], values[i * n + j], values[j * n + j]) for i, j in itertools.combinations(range(n), 2)
        ]
        shares[key] = stock_shares(pairs, n)

    def merge(piece):
        if piece.key not in shares:
            return pool.average(piece)
        mean = pool.mean(piece, shares[piece.key], [pool.base, *pool.members])
        return mean.to(pool.entries[piece.key].dtype)

    return Recipe(merge)


METHODS = {
    "uniform": uniform,
    "interpolate": interpolate,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "model_stock": model_stock,
}
OF_A_BASE = ("task_arithmetic", "ties", "dare", "model_stock")


def check_settings(method, n_members, settings):
    """Refuse settings that a method cannot work with, before a value is read; errors as its namesake.

    Parameters
    ----------
    method : str
    n_members : int
    settings : dict
        Arguments that the method knows.
    """
    checks = {
        "weights": lambda weights: check_weights(weights, n_members),
        "alpha": check_alpha,
        "scale": check_scale,
        "scope": check_scope,
        "seed": check_seed,
        "density": lambda density: check_density(density, lowest=None if method == "dare" else 0),
    }
    for name in checks.keys() & settings.keys():
        checks[name](settings[name])
    if method == "model_stock":
        check_stock(n_members)
    if method in ("interpolate", "slerp") and n_members != 2:
        raise MergeError(
            "cannot merge", item="the members", got=f"{n_members}", wanted="two: a line has two ends",
            fix="Pass two files, or choose another method.",
        )  # fmt: skip


def _averaged(pool, mean):
    """Return what merges a piece by a mean in float64, and copies integers and booleans from the first member."""

    def merge(piece):
        if not pool.is_averaged(piece.key):
            return pool.members[0].read(*piece)
        merged = mean(piece).to(pool.entries[piece.key].dtype)
        check_range(merged)
        return merged

    return merge


def _of_deltas(pool, change, scale=1.0):
    """Return what adds a change to the base where there are task vectors, and averages or copies the rest."""
    keys = set(pool.delta_keys())

    def merge(piece):
        if piece.key not in keys:
            return pool.average(piece)
        found = change(piece)
        pool.check_finite(piece, found)
        return add_to_base(pool.base.read(*piece), found, scale)

    return merge


def _summed(pool, measure, size):
    """Return per key of a task vector the sum over its pieces of a list of numbers."""
    pieces, found = pool.pieces(pool.delta_keys(), size), {}
    for piece, numbers in zip(pieces, pool.run("measuring", measure, pieces, lambda piece: piece.size), strict=True):
        old = found.get(piece.key)
        found[piece.key] = list(numbers) if old is None else [x + y for x, y in zip(old, numbers, strict=True)]
    return found
