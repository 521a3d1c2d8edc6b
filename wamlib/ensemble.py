"""Ensembles: averages of the outputs of several members."""

import torch
import torch.nn.functional as F
from torch import nn

from .errors import MemberMismatchError, MergeError

__all__ = ["LogitEnsemble", "feature_ensemble", "logit_ensemble", "probability_ensemble"]

DOING = "cannot make an ensemble"


class LogitEnsemble(nn.Module):
    """The logit ensemble as one network, where something must be differentiated: images in, mean of the logits out.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        The members, at least one; held, not copied.

    Raises
    ------
    MergeError
        If there is no member.
    """

    def __init__(self, models):
        super().__init__()
        if len(models) == 0:
            raise MergeError(DOING, "models", "no member", "at least one", "Pass one entry per member.")
        self.members = nn.ModuleList(models)

    def forward(self, images):
        """Return the mean of the members' logits, in their dtype, shape (sample, class)."""
        return sum(member(images) for member in self.members) / len(self.members)


def logit_ensemble(logits):
    """Return the mean of the members' logits.

    For members that are linear in their input this equals the logits of their
    uniform soup; for anything with a ReLU in it, it does not.

    Parameters
    ----------
    logits : sequence of Tensor, or Tensor, shape (member, sample, class)

    Returns
    -------
    Tensor, shape (sample, class)

    Raises
    ------
    MergeError, MemberMismatchError
        If there is no member, or shapes differ.
    """
    return _stack(logits, "logits").mean(0).to(logits[0].dtype)


def probability_ensemble(logits):
    """Return the mean of the members' probabilities. Not the softmax of `logit_ensemble`.

    Parameters
    ----------
    logits : sequence of Tensor, or Tensor, shape (member, sample, class)

    Returns
    -------
    Tensor, shape (sample, class)
        Probabilities. Where logits are wanted, their logarithm is one choice of them.

    References
    ----------
    Lakshminarayanan et al. (2017), Deep Ensembles, Section 2.4. https://arxiv.org/abs/1612.01474
    """
    return _stack(logits, "logits").softmax(2).mean(0).to(logits[0].dtype)


def feature_ensemble(features, heads, head="averaged"):
    """Return the logits of one classifier on the mean of the members' features.

    Parameters
    ----------
    features : sequence of Tensor, or Tensor, shape (member, sample, feature)
        Inputs of each member's last linear layer.
    heads : sequence of (weight, bias)
        Of each member's last linear layer: shapes (class, feature) and (class,).
    head : {"first", "averaged", "own"}
        The first member's classifier on the mean feature; the mean classifier on
        the mean feature; or each member's own classifier on its own feature, which
        is the logit ensemble.

    Returns
    -------
    Tensor, shape (sample, class)

    Raises
    ------
    MergeError, MemberMismatchError
        If there is no member, shapes differ, or ``head`` is unknown.
    """
    stacked = _stack(features, "features")
    if len(heads) != len(stacked):
        wanted, fix = f"{len(stacked)}, one per member", "Pass the head of every member."
        raise MemberMismatchError("cannot make a feature ensemble", "heads", f"{len(heads)} heads", wanted, fix)
    weight = _stack([w for w, _ in heads], "head weights")
    bias = _stack([b for _, b in heads], "head biases")
    if weight.dim() != 3 or weight.shape[2] != stacked.shape[-1] or bias.shape != weight.shape[:2]:
        got = f"weights of shape {tuple(weight.shape[1:])} and biases of {tuple(bias.shape[1:])}"
        wanted, fix = f"(class, {stacked.shape[-1]}) and (class,)", "Pass the layer that reads these features."
        raise MemberMismatchError("cannot make a feature ensemble", "heads", got, wanted, fix)
    if head == "first":
        logits = F.linear(stacked.mean(0), weight[0], bias[0])
    elif head == "averaged":
        logits = F.linear(stacked.mean(0), weight.mean(0), bias.mean(0))
    elif head == "own":
        logits = (stacked @ weight.transpose(1, 2) + bias[:, None]).mean(0)
    else:
        fix = "Correct the argument."
        raise MergeError("cannot make a feature ensemble", "head", repr(head), "'first', 'averaged' or 'own'", fix)
    return logits.to(features[0].dtype)


def _stack(tensors, what):
    """Return the members' tensors as one in float64 (float32 on MPS); refuse none, or different shapes."""
    if len(tensors) == 0:
        raise MergeError(DOING, what, "no member", "at least one", "Pass one entry per member.")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor):
            fix = "Pass one tensor per member."
            raise MergeError(DOING, f"{what} of member {index}", f"a {type(tensor).__name__}", "a tensor", fix)
        if tensor.shape != tensors[0].shape:
            wanted, fix = f"{tuple(tensors[0].shape)}, as for member 0", "Evaluate every member on the same images."
            raise MemberMismatchError(DOING, f"{what} of member {index}", f"shape {tuple(tensor.shape)}", wanted, fix)
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    return torch.stack([tensor.to(wide) for tensor in tensors])
