"""Permutations that bring the units of one member into the order of another, or of all others."""

import torch

from ..config import derive_seed
from ..errors import AlignmentError
from ..merge import check_members, uniform_soup
from .by_activations import match_by_activations
from .by_weights import match_by_weights
from .graph import trace
from .permuting import Permutation, apply

__all__ = ["merge_many", "permutation"]


def permutation(a, b, model, by="weights", *, batches=None, seed=0, max_sweeps=100, tolerance=1e-3):
    """Find the order of the units of b that matches those of a.

    By weights: minimise :math:`\\lVert A - \\pi(B) \\rVert^2` over the learnable
    tensors, one group of units at a time with all others held fixed, each a linear
    assignment solved exactly: first from the image on, each group by the tensors whose
    other units are matched already, then in random order until nothing is gained. A local optimum.
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
    (activations). https://arxiv.org/abs/2209.04836 The first pass, from the image on, is ours.
    Li et al. (2016), Convergent Learning, Section 3. https://arxiv.org/abs/1511.07543
    """
    check_members([a, b])
    specification = trace(model)
    if by == "weights":
        return Permutation(specification, match_by_weights(a, b, specification, seed, max_sweeps, tolerance))
    if by != "activations":
        fix = "Correct the argument."
        raise AlignmentError("cannot match the units of two members", "by", repr(by), "'weights' or 'activations'", fix)
    batches = list(batches or ())
    if not batches:
        fix = "Pass training images; labels are not needed."
        raise AlignmentError("cannot match the units of two members", "batches", "none", "batches of images", fix)
    return Permutation(specification, match_by_activations(a, b, specification, batches))


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
