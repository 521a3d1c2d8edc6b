"""The learned soup: shares found by gradient on held-out images."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import MemberMismatchError
from ..modes import eval_mode
from .members import is_learnable, merge_by_key, prepared, refuse
from .sums import cast, weighted_sum

__all__ = ["LearnedSoup", "learned_soup"]


@dataclass(frozen=True)
class LearnedSoup:
    """A learned soup and how it came about.

    Parameters
    ----------
    state : dict of str to Tensor
        The soup's weights.
    shares : dict of str to list of float
        Per tensor the share of each member, nonnegative, with a sum of 1. Per model they
        are the same for all tensors.
    losses : list of float
        Cross-entropy (nats) on all batches: of the uniform soup, then after each epoch.
        The soup is that of the smallest.
    temperature : float
        Learned with the shares; the soup's logits divided by it have that cross-entropy.
    """

    state: dict
    shares: dict
    losses: list[float]
    temperature: float


def learned_soup(members, model, batches, *, per="model", epochs=5, lr=0.1, batch_statistics=False):
    """Learn the members' shares in a soup by gradient on held-out images.

    .. math:: \\min_{\\alpha, T}\\; E_{x, y}\\; \\ell\\big(f(x; \\textstyle\\sum_i \\alpha_i \\theta_i) / T,\\; y\\big),
        \\qquad \\alpha_i \\ge 0,\\; \\textstyle\\sum_i \\alpha_i = 1

    with the cross-entropy :math:`\\ell`; the shares are a softmax, so that the soup never leaves the
    members' convex hull and no running variance becomes negative. Running statistics carry no
    gradient: they follow the shares of the model, or keep equal shares if each tensor has its own.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts that match as for `uniform_soup`, and fit the model.
    model : torch.nn.Module
        Returns logits of shape (batch, class). Used for its forward pass, in eval mode:
        its own weights and mode are left as they are.
    batches : sequence of (Tensor, Tensor)
        Normalised images of the *selection* split and their labels, on the model's device.
    per : {"model", "tensor"}
        One share per member, or one per member and tensor of the state dict.
    epochs : int
        Passes over the batches, one step of Adam per batch. At least 1.
    lr : float
        Learning rate, of the logarithms of the shares.
    batch_statistics : bool
        Whether BatchNorm normalises each batch by its own statistics while the shares are
        learned. Choose it if the soup is to be recalibrated afterwards: the mean of the members'
        running statistics says little about a soup of members that lie far apart.

    Returns
    -------
    LearnedSoup
        On these batches no worse than the uniform soup.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`; and if the members do not fit the model, or an argument is unusable.

    References
    ----------
    Wortsman et al. (2022), Model soups, Recipe "learned soup" in Section 2 and Appendix I.
    https://arxiv.org/abs/2203.05482
    """
    members, batches = prepared(members), list(batches)
    _check_arguments(per, epochs, lr, batches)
    keys = _mixed_keys(members, model)
    where = next(model.parameters()).device
    stacks = {key: torch.stack([member[key].detach() for member in members]).to(where) for key in keys}
    row = {key: number if per == "tensor" else 0 for number, key in enumerate(keys)}
    logs = torch.zeros((max(row.values()) + 1, len(members)), device=where, requires_grad=True)
    log_temperature = torch.zeros((), device=where, requires_grad=True)
    optimizer = torch.optim.Adam([logs, log_temperature], lr=lr)

    def loss(images, labels):
        shares = logs.softmax(1)

        def mix(key):
            if key not in stacks:
                return members[0][key].to(where, copy=True)  # the pass counts batches in place
            mixed = torch.tensordot(shares[row[key]].to(stacks[key].dtype), stacks[key], 1)
            # torch has no gradient for running statistics, and the pass may overwrite them.
            return mixed if is_learnable(key) else mixed.detach().clone()

        logits = functional_call(model, merge_by_key(members, mix), (images,))
        return F.cross_entropy(logits.float() / log_temperature.exp(), labels)

    def total():
        with torch.no_grad():
            return math.fsum(loss(*batch).item() * len(batch[1]) for batch in batches) / sum(len(y) for _, y in batches)

    with eval_mode(model):
        for module in model.modules():
            if batch_statistics and isinstance(module, _BatchNorm):
                module.train()
        losses, best = [total()], (logs.detach().clone(), 1.0)
        for _ in range(epochs):
            for batch in batches:
                optimizer.zero_grad()
                loss(*batch).backward(inputs=[logs, log_temperature])
                optimizer.step()
            losses.append(total())
            if losses[-1] < min(losses[:-1]):
                best = logs.detach().clone(), log_temperature.exp().item()
    table = best[0].cpu().double().softmax(1)
    shares = {key: table[row[key]].tolist() for key in keys}
    return LearnedSoup(_soup(members, shares), shares, losses, best[1])


def _soup(members, shares):
    """Return the weighted mean whose shares differ by tensor."""

    def merge(key):
        first = members[0][key]
        if key not in shares:
            return first.clone()
        return cast(weighted_sum([member[key] for member in members], shares[key]), first)

    return merge_by_key(members, merge)


def _mixed_keys(members, model):
    """Return the keys whose tensors are mixed, each tied tensor once; refuse members that do not fit the model."""
    wanted = {key: tensor.shape for key, tensor in model.state_dict().items()}
    for key in [*wanted, *members[0]]:
        got = members[0][key].shape if key in members[0] else None
        if got != wanted.get(key):
            got = "nothing" if got is None else f"shape {tuple(got)}"
            wanted = f"shape {tuple(wanted[key])}, as in the model" if key in wanted else "only keys of the model"
            item, fix = f"{key!r} of the members", "Pass the model that the members were trained as."
            raise MemberMismatchError("cannot learn a soup", item=item, got=got, wanted=wanted, fix=fix)
    keys = []
    merge_by_key(members, keys.append)
    return [key for key in keys if members[0][key].is_floating_point()]


def _check_arguments(per, epochs, lr, batches):
    problem = None
    if per not in ("model", "tensor"):
        problem = ("per", repr(per), "'model' or 'tensor'")
    elif not (isinstance(epochs, int) and epochs >= 1):
        problem = ("epochs", repr(epochs), "a whole number of at least 1")
    elif not (isinstance(lr, (int, float)) and 0 < lr < math.inf):
        problem = ("lr", repr(lr), "a positive number")
    elif not batches:
        problem = ("the batches", "none", "at least one")
    elif not all(isinstance(batch, (tuple, list)) and len(batch) == 2 for batch in batches):
        problem = ("the batches", "something else", "pairs of images and labels")
    if problem:
        refuse(*problem, doing="cannot learn a soup")
