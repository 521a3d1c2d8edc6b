"""Matching by activations: units that fire on the same images are brought together."""

import copy

import torch
from torch import fx

from .assignment import assignment

__all__ = ["match_by_activations"]


def match_by_activations(a, b, specification, batches):
    """Return the order of each group; see `wamlib.align.permutation`."""
    watchers = [_Watcher(specification, state) for state in (a, b)]
    sums = {}
    for batch in batches:
        caught, others = (watcher.catch(batch) for watcher in watchers)
        for place, x in caught.items():
            y = others[place]
            new = [len(x), x.sum(0), y.sum(0), x.T @ y, x.square().sum(0), y.square().sum(0)]
            sums[place] = [old + part for old, part in zip(sums[place], new, strict=True)] if place in sums else new
    gains = {group: torch.zeros(size, size, dtype=torch.float64) for group, size in specification.sizes.items()}
    for (_, group), parts in sums.items():
        gains[group] += _correlation(*parts).cpu()
    return {group: assignment(gain) for group, gain in gains.items()}


def _correlation(n, x, y, xy, xx, yy):
    """Return the Pearson correlations from sums; a unit that never varies correlates with nothing."""
    covariance = xy / n - torch.outer(x / n, y / n)
    deviations = [(squares / n - (values / n) ** 2).clamp_min(0).sqrt() for squares, values in ((xx, x), (yy, y))]
    product = torch.outer(*deviations)
    return torch.where(product > 1e-12, covariance / product.clamp_min(1e-12), 0)


class _Watcher(fx.Interpreter):
    """Runs a copy of the traced network in eval mode and catches what its layers read, unit by unit."""

    def __init__(self, specification, state):
        network = copy.deepcopy(specification.graph)
        network.load_state_dict({key: state[key] for key in network.state_dict()})
        super().__init__(network.eval())
        self.wanted = {}
        for group, places in specification.readers.items():
            for node, segments in places:
                self.wanted.setdefault(node.name, (segments, set()))[1].add(group)

    def catch(self, batch):
        """Return ``{(node name, group): activations of shape (image and position, unit)}`` in float64."""
        self.caught = {}
        with torch.no_grad():
            self.run(batch)
        return self.caught

    def run_node(self, node):
        value = super().run_node(node)
        segments, groups = self.wanted.get(node.name, ((), ()))
        offset = 0
        for group, width, block in segments:
            if group in groups:
                part = value.narrow(1, offset, width * block).reshape(len(value), width, -1)
                flat, place = part.transpose(1, 2).flatten(0, 1).double(), (node.name, group)
                self.caught[place] = torch.cat([self.caught[place], flat]) if place in self.caught else flat
            offset += width * block
        return value
