"""Matching by weights: the order of units that brings two networks nearest to each other."""

import torch

from ..config import derive_seed
from ..merge import is_learnable
from .assignment import assignment
from .graph import FIXED
from .permuting import permuted

__all__ = ["match_by_weights"]

# A gain below this share of the largest inner product is rounding: two equal orders could alternate for ever.
ROUNDING = 1e-6


def match_by_weights(a, b, specification, seed, max_sweeps, tolerance):
    """Return the order of each group; see `wamlib.align.permutation`."""
    search = _Search(a, b, specification)
    search.propagate()
    total, stale = search.product(), set(search.orders)
    generator = torch.Generator().manual_seed(derive_seed("matching", seed))
    groups = list(search.orders)
    for _ in range(max_sweeps):
        gained = 0.0
        for index in torch.randperm(len(groups), generator=generator).tolist():
            # Matching a group again is idle until a group that shares a tensor with it has moved.
            if groups[index] in stale:
                stale.discard(groups[index])
                more = search.match(groups[index], search.places[groups[index]])
                if more:
                    gained += more
                    stale |= search.shaken(groups[index])
        total += gained
        if not stale or gained <= tolerance * abs(total):
            break
    return search.orders


class _Search:
    """The units of b on their way into the order of a, one group at a time."""

    def __init__(self, a, b, specification):
        self.axes = specification.axes
        self.places = _places_by_group(specification)
        self.a, self.b = ({key: state[key].detach().float().cpu() for key in self.axes} for state in (a, b))
        self.orders = {group: torch.arange(size) for group, size in specification.sizes.items()}

    def product(self):
        """Return the inner product of the two over learnable tensors, which matching raises."""
        keys = filter(is_learnable, self.a)
        return sum(torch.dot(self.a[key].flatten(), self.b[key].flatten()).item() for key in keys)

    def propagate(self):
        """Match from the image on: each group by those tensors alone whose other units are matched already.

        The rest would speak of units that are still in another order. A network that is a
        in a hidden order is found at once, where descent from a random group may end elsewhere.
        """
        settled, pending = {FIXED}, list(self.orders)
        while pending:
            known = {
                group: [place for place in self.places[group] if self.others(place) <= settled] for group in pending
            }
            # A bias alone says little about a unit, so a group waits for a layer that reads matched units.
            ready = (g for g in pending if any(self.a[key].dim() > 1 for key, *_ in known[g]))
            group = next(ready, pending[0])
            self.match(group, known[group] or self.places[group])
            settled.add(group)
            pending.remove(group)

    def others(self, place):
        """Return the groups on the other axes of a tensor."""
        return {group for axis, segments in self.axes[place[0]].items() if axis != place[1] for group, _, _ in segments}

    def match(self, group, places):
        """Put the units of a group where they fit best by these places in tensors; return what was gained."""
        # b is kept in its present order, so that the assignment says what is still to be moved.
        gain = sum(_units(self.a[key], *place) @ _units(self.b[key], *place).T for key, *place in places)
        move = assignment(gain)
        more = (gain.gather(1, move[:, None])[:, 0].double() - gain.diagonal().double()).sum().item()
        if more <= ROUNDING * gain.abs().max().item():
            return 0.0
        self.orders[group] = self.orders[group][move]
        for key in dict.fromkeys(key for key, *_ in self.places[group]):
            self.b[key] = permuted(self.b[key], self.axes[key], {group: move})
        return more

    def shaken(self, moved):
        """Return the groups that share a tensor with one that moved: itself where a tensor has it on both sides."""
        groups = set()
        for key, axis, *_ in self.places[moved]:
            groups |= self.others((key, axis))
        return groups & self.orders.keys()


def _places_by_group(specification):
    """Return ``{group: [(key, axis, offset, width, block)]}`` over learnable tensors."""
    places = {group: [] for group in specification.sizes}
    for key, by_axis in specification.axes.items():
        for axis, segments in by_axis.items():
            offset = 0
            for group, width, block in segments:
                if group != FIXED and is_learnable(key):
                    places[group].append((key, axis, offset, width, block))
                offset += width * block
    return places


def _units(tensor, axis, offset, width, block):
    """Return what belongs to each unit of one tensor as a row, shape (unit, ...)."""
    return tensor.narrow(axis, offset, width * block).movedim(axis, 0).reshape(width, -1)
