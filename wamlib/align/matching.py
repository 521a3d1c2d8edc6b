"""Permutations of units: applied, composed, and found by weights or by activations."""

import copy
from dataclasses import dataclass

import torch
from torch import fx

from ..config import derive_seed
from ..errors import AlignmentError
from ..merge import check_members, is_learnable, uniform_soup
from .graph import FIXED, Specification, trace

__all__ = ["Permutation", "apply", "merge_many", "permutation", "random_permutation"]


# A gain below this share of the largest inner product is rounding: two equal orders could alternate for ever.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Permutation:
    """An order of the units of a network.

    Parameters
    ----------
    specification : Specification
        Which weights move together.
    orders : dict of int to Tensor
        Group of units to the order: unit ``i`` of the permuted network is unit
        ``orders[group][i]`` of the one before.
    """

    specification: Specification
    orders: dict

    @property
    def moved(self):
        """Number of units that are not in their old place."""
        return sum(int((order != torch.arange(len(order))).sum()) for order in self.orders.values())


def apply(permutation, state):
    """Put the units of a network into another order; it computes the same function.

    Parameters
    ----------
    permutation : Permutation
    state : dict of str to Tensor
        Weights of the architecture that the permutation was made for.

    Returns
    -------
    dict of str to Tensor
        Weights, biases and BatchNorm's weights, biases and running statistics, all in
        the new order; tensors without units are copied.
    """
    axes = permutation.specification.axes
    missing = sorted(axes.keys() - state.keys())
    if missing:
        _refuse("the weights", f"no key {missing[0]!r}", "those of the model that was traced", "Pass its state dict.")
    return {key: _permuted(tensor, axes.get(key, {}), permutation.orders) for key, tensor in state.items()}


def _permuted(tensor, by_axis, orders):
    """Return a copy of a tensor with the units of every axis in the new order."""
    for axis, segments in by_axis.items():
        if any(group in orders for group, _, _ in segments):
            tensor = tensor.index_select(axis, _places(segments, orders).to(tensor.device))
    return tensor.clone()


def _places(segments, orders):
    """Return the index into an axis made of segments."""
    places, offset = [], 0
    for group, width, block in segments:
        order = orders.get(group, torch.arange(width))
        places.append((offset + order[:, None] * block + torch.arange(block)).flatten())
        offset += width * block
    return torch.cat(places)


def random_permutation(model, seed):
    """Return a random order of every group of units: a control that changes no prediction.

    Parameters
    ----------
    model : torch.nn.Module
    seed : int

    Returns
    -------
    Permutation
    """
    specification = trace(model)
    generator = torch.Generator().manual_seed(derive_seed("permutation", seed))
    sizes = specification.sizes
    return Permutation(specification, {g: torch.randperm(n, generator=generator) for g, n in sizes.items()})


def permutation(a, b, model, by="weights", *, batches=None, seed=0, max_sweeps=100, tolerance=1e-3):
    """Find the order of the units of b that matches those of a.

    By weights: minimise :math:`\\lVert A - \\pi(B) \\rVert^2` over the learnable
    tensors, one group of units at a time with all others held fixed, each a linear
    assignment solved exactly, in random order until nothing is gained. A local optimum.
    By activations: maximise the sum of Pearson correlations between units over images.

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts that match as for `wamlib.merge.uniform_soup`.
    model : torch.nn.Module
        Of their architecture; traced, and left as it was.
    by : {"weights", "activations"}
    batches : iterable of Tensor, or None
        Normalised images for ``by="activations"``; no labels.
    seed : int
        Fixes the order in which groups are visited.
    max_sweeps : int
        Passes over all groups at most.
    tolerance : float
        Stop after a pass that raises the sum of inner products between a and b by no
        more than this share; 0 goes on until no group moves, which takes many times as
        long for a gain in the fourth digit.

    Returns
    -------
    Permutation

    Raises
    ------
    AlignmentError
        If the model cannot be traced, or ``by`` or ``batches`` is unusable.
    MemberMismatchError, NonFiniteMemberError
        As `wamlib.merge.uniform_soup`.

    References
    ----------
    Ainsworth et al. (2023), Git Re-Basin, Section 3.2 and Algorithm 1 (weights), Section 3.1
    (activations). https://arxiv.org/abs/2209.04836
    Li et al. (2016), Convergent Learning, Section 3. https://arxiv.org/abs/1511.07543
    """
    check_members([a, b])
    specification = trace(model)
    if by == "weights":
        return Permutation(specification, _by_weights(a, b, specification, seed, max_sweeps, tolerance))
    if by != "activations":
        _refuse("by", repr(by), "'weights' or 'activations'", "Correct the argument.")
    batches = list(batches or ())
    if not batches:
        _refuse("batches", "none", "batches of images", "Pass training images; labels are not needed.")
    return Permutation(specification, _by_activations(a, b, specification, batches))


def _by_weights(a, b, specification, seed, max_sweeps, tolerance):
    places = _places_by_group(specification)
    # Matching a group again is idle until a group that shares a tensor with it has moved.
    neighbours = {
        group: {other for key, *_ in of for segments in specification.axes[key].values() for other, _, _ in segments}
        for group, of in places.items()
    }
    a, b = ({key: state[key].detach().float().cpu() for key in specification.axes} for state in (a, b))
    orders = {group: torch.arange(size) for group, size in specification.sizes.items()}
    generator = torch.Generator().manual_seed(derive_seed("matching", seed))
    total = sum(torch.dot(a[key].flatten(), b[key].flatten()).item() for key in a if is_learnable(key))
    stale = set(orders)
    for _ in range(max_sweeps):
        gained = 0.0
        for index in torch.randperm(len(orders), generator=generator).tolist():
            group = list(orders)[index]
            if group not in stale:
                continue
            stale.discard(group)
            # b is kept in its present order, so that the assignment says what is still to be moved.
            gain = sum(_units(a[key], *place) @ _units(b[key], *place).T for key, *place in places[group])
            move = _assignment(gain)
            more = (gain.gather(1, move[:, None])[:, 0].double() - gain.diagonal().double()).sum().item()
            if more <= ROUNDING * gain.abs().max().item():
                continue
            gained += more
            orders[group] = orders[group][move]
            for key in dict.fromkeys(key for key, *_ in places[group]):
                b[key] = _permuted(b[key], specification.axes[key], {group: move})
            # The group itself is stale again where a tensor has it on both sides.
            stale |= {other for other in neighbours[group] if other in orders and other != group}
            if any(_stands_twice(specification.axes[key], group) for key, *_ in places[group]):
                stale.add(group)
        total += gained
        if not stale or gained <= tolerance * abs(total):
            break
    return orders


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


def _stands_twice(by_axis, group):
    return sum(other == group for segments in by_axis.values() for other, _, _ in segments) > 1


def _units(tensor, axis, offset, width, block):
    """Return what belongs to each unit of one tensor as a row, shape (unit, ...)."""
    return tensor.narrow(axis, offset, width * block).movedim(axis, 0).reshape(width, -1)


def _assignment(gain):
    """Return the order with the largest sum of gains."""
    from scipy.optimize import linear_sum_assignment

    # Taking the best of each row and column out first changes no optimum, and the solver starts nearer to it.
    cost = -gain.cpu().double().numpy()
    cost -= cost.min(1, keepdims=True)
    cost -= cost.min(0, keepdims=True)
    return torch.from_numpy(linear_sum_assignment(cost)[1])


def _by_activations(a, b, specification, batches):
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
    return {group: _assignment(gain) for group, gain in gains.items()}


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


def merge_many(members, model, by="weights", *, batches=None, seed=0, max_rounds=20):
    """Match every member to the mean of the others, in turn, until none moves.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
    model, by, batches, seed
        As for `permutation`.
    max_rounds : int
        Passes over all members at most.

    Returns
    -------
    list of dict of str to Tensor
        The members, each with its units in an order that fits the others; their mean
        is a soup worth trying.

    References
    ----------
    Ainsworth et al. (2023), Git Re-Basin, Algorithm 3. https://arxiv.org/abs/2209.04836
    """
    members = list(members)
    check_members(members)
    batches = None if batches is None else list(batches)
    generator = torch.Generator().manual_seed(derive_seed("merge_many", seed))
    for _ in range(max_rounds if len(members) > 1 else 0):
        moved = 0
        for index in torch.randperm(len(members), generator=generator).tolist():
            mean = uniform_soup(members[:index] + members[index + 1 :])
            found = permutation(mean, members[index], model, by, batches=batches, seed=seed)
            members[index] = apply(found, members[index])
            moved += found.moved
        if not moved:
            break
    return members


def _refuse(item, got, wanted, fix):
    raise AlignmentError("cannot match the units of two members", item=item, got=got, wanted=wanted, fix=fix)
