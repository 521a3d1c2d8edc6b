"""Permutations of units: what they are, and how they are applied."""

from dataclasses import dataclass

import torch

from ..config import derive_seed
from ..errors import AlignmentError
from .graph import Specification, trace

__all__ = ["Permutation", "apply", "random_permutation"]


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
        doing, fix = "cannot permute the units of a network", "Pass its state dict."
        raise AlignmentError(doing, "the weights", f"no key {missing[0]!r}", "those of the model that was traced", fix)
    return {key: permuted(tensor, axes.get(key, {}), permutation.orders) for key, tensor in state.items()}


def permuted(tensor, by_axis, orders):
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
