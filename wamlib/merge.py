"""Merges: maps from the weights of several members to one set of weights.

Everything here works on state dicts, ``dict[str, Tensor]``. What a merge needs
from a data set, a score or a few batches, comes in as an argument.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import MemberMismatchError, MergeError, NonFiniteMemberError

__all__ = ["Soup", "check_members", "greedy_soup", "interpolate", "recalibrate_batchnorm", "uniform_soup"]


def uniform_soup(members, weights=None):
    """Average the weights of several members.

    .. math:: \\theta = \\sum_i w_i \\theta_i \\big/ \\sum_i w_i

    Sums in float64 and rounds once, so that the order of the members does not
    matter beyond rounding, copies of one model average to that model exactly, and
    a weight of 1 beside zeros gives that member exactly.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts with the same keys and, per key, the same shape and dtype. At least one.
    weights : sequence of float, or None
        One finite number per member, of any sign, with a sum that is not zero;
        None means equal shares.

    Returns
    -------
    dict of str to Tensor
        The soup, each tensor in the dtype and on the device of the first member's.
        Integer and boolean tensors (step counters) are copied from the first member.
        BatchNorm statistics are averaged like weights; they are *not* those of the
        soup's own activations, see `recalibrate_batchnorm`.

    Raises
    ------
    MergeError
        If there is no member, or the weights are unusable.
    MemberMismatchError
        If keys, shapes or dtypes differ; the message names the member and the key.
    NonFiniteMemberError
        If a member holds NaN or infinity; the message names the member and the key.

    References
    ----------
    Wortsman et al. (2022), Model soups, Section 2. https://arxiv.org/abs/2203.05482
    """
    members = list(members)
    check_members(members)
    shares = _check_weights(weights, len(members))
    total = math.fsum(shares)
    soup = {}
    for key, first in members[0].items():
        if first.is_floating_point() or first.is_complex():
            wide = torch.complex128 if first.is_complex() else torch.float64
            # MPS has no float64, so its sums are done on the CPU.
            where = torch.device("cpu") if first.device.type == "mps" else first.device
            acc = torch.zeros(first.shape, dtype=wide, device=where)
            for member, share in zip(members, shares, strict=True):
                acc.add_(member[key].detach().to(where, wide), alpha=share)
            soup[key] = acc.div_(total).to(first.device, first.dtype)
        else:
            soup[key] = first.clone()
    return soup


def interpolate(a, b, alpha):
    """Return the point ``(1 - alpha) a + alpha b`` on the line between two members.

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    alpha : float
        0 gives ``a`` and 1 gives ``b``, both exactly; outside [0, 1] extrapolates.

    Returns
    -------
    dict of str to Tensor

    References
    ----------
    Frankle et al. (2020), Linear Mode Connectivity, Section 2. https://arxiv.org/abs/1912.05671
    """
    return uniform_soup([a, b], weights=[1 - alpha, alpha])


@dataclass(frozen=True)
class Soup:
    """A greedy soup and how it came about.

    Parameters
    ----------
    state : dict of str to Tensor
        The soup's weights.
    accepted : list of int
        Indices of the members in it, in the order in which they were accepted.
    scores : list of float
        Held-out score of each member on its own, in the order of the members.
    score : float
        Held-out score of the soup.
    """

    state: dict
    accepted: list[int]
    scores: list[float]
    score: float


def greedy_soup(members, score):
    """Add members to a soup, best first, as long as the held-out score does not fall.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    score : callable
        Takes a state dict and returns a number, higher is better, measured on the
        *selection* split: neither training nor test images.

    Returns
    -------
    Soup
        Its weights are the uniform soup of the accepted members.

    Raises
    ------
    MergeError
        If a score is NaN; and as `uniform_soup`.

    References
    ----------
    Wortsman et al. (2022), Model soups, Recipe 1. https://arxiv.org/abs/2203.05482
    """
    members = list(members)
    check_members(members)
    scores = [_checked_score(score(member), index) for index, member in enumerate(members)]
    # sorted() is stable: of two equal members the earlier one goes first.
    first, *rest = sorted(range(len(members)), key=lambda index: -scores[index])
    accepted, state, best = [first], uniform_soup([members[first]]), scores[first]
    for index in rest:
        candidate = uniform_soup([members[i] for i in [*accepted, index]])
        reached = _checked_score(score(candidate), index)
        if reached >= best:
            accepted, state, best = [*accepted, index], candidate, reached
    return Soup(state, accepted, scores, best)


def recalibrate_batchnorm(model, batches):
    """Recompute the running statistics of every BatchNorm layer, in place.

    Only BatchNorm layers are put into training mode: each normalises a batch by the
    batch's own statistics, as in training, while dropout stays off. Batches are
    weighted by their number of values and combined by the law of total variance,

    .. math:: \\mathrm{Var}[x] = E[\\mathrm{Var}[x \\mid b]] + \\mathrm{Var}[E[x \\mid b]],

    so that neither a short last batch nor the order of the images counts for more
    than it should. `torch.optim.swa_utils.update_bn` does neither.

    Parameters
    ----------
    model : torch.nn.Module
        Left in the mode it was in. Without BatchNorm it is returned as it is.
    batches : iterable of Tensor, shape (batch, channel, ...)
        Normalised training images, not augmented, shuffled, on the model's device; no labels.
        A few thousand images are enough.

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    MergeError
        If there is no batch, or one holds a single image. The model is then unchanged.

    References
    ----------
    Izmailov et al. (2018), Averaging Weights Leads to Wider Optima, Section 3.2.
    Jordan et al. (2022), REPAIR, Section 3.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        return model
    modes = [(module, module.training) for module in model.modules()]
    before = [[buffer.clone() for buffer in layer.buffers()] for layer in layers]
    moments = {layer: _Moments() for layer in layers}
    hooks = [layer.register_forward_pre_hook(lambda m, inputs: moments[m].add(inputs[0])) for layer in layers]
    n_batches = 0
    try:
        model.eval()
        for layer in layers:
            layer.train()
        with torch.no_grad():
            for batch in batches:
                _check_batch(batch, n_batches)
                model(batch)
                n_batches += 1
        if n_batches == 0:
            _refuse_batches("no batch", 0)
    except BaseException:
        for layer, buffers in zip(layers, before, strict=True):
            for buffer, old in zip(layer.buffers(), buffers, strict=True):
                buffer.copy_(old)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    for layer, moment in moments.items():
        if moment.count:  # a layer that the forward pass does not reach keeps its statistics
            layer.running_mean.copy_(moment.mean)
            layer.running_var.copy_(moment.squares / max(1, moment.count - 1))
        layer.num_batches_tracked.fill_(n_batches)
    return model


class _Moments:
    """Mean and sum of squared deviations per channel, merged batch by batch in float64 (Chan et al. 1983)."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, x):
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(x.float(), axes, correction=0)
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        var, mean, n = var.to(wide), mean.to(wide), x.numel() // x.shape[1]
        total = self.count + n
        delta = mean - self.mean
        self.squares = self.squares + var * n + delta.square() * (self.count * n / total)
        self.mean = self.mean + delta * (n / total)
        self.count = total


def check_members(members):
    """Refuse members that cannot be averaged with each other.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`.
    """
    if not members:
        raise MergeError(
            "cannot merge", item="the list of members", got="no member", wanted="at least one",
            fix="Pass the state dicts of the members.",
        )  # fmt: skip
    first = members[0]
    for index, member in enumerate(members):
        differ = sorted(first.keys() ^ member.keys())
        if differ:
            which = "lacks" if differ[0] in first else "has, and member 0 lacks,"
            raise MemberMismatchError(
                "cannot merge",
                item=f"member {index}",
                got=f"{len(differ)} key(s) that differ from member 0's: it {which} {differ[0]!r}",
                wanted="the same keys in every member",
                fix="Were they built from the same model and number of classes?",
            )
        for key, tensor in member.items():
            for what in ("shape", "dtype"):
                got, wanted = getattr(tensor, what), getattr(first[key], what)
                if got != wanted:
                    got, wanted = (tuple(x) if what == "shape" else x for x in (got, wanted))
                    raise MemberMismatchError(
                        f"cannot merge {key!r}",
                        item=f"member {index}",
                        got=f"{what} {got}",
                        wanted=f"{wanted}, as in member 0",
                        fix="Members must share the architecture, its width and the dtype.",
                    )
            if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
                raise NonFiniteMemberError(
                    f"cannot merge {key!r}",
                    item=f"member {index}",
                    got=f"{int((~torch.isfinite(tensor)).sum())} value(s) that are NaN or infinite",
                    wanted="finite weights",
                    fix="Leave this member out, or train it again with a lower learning rate.",
                )


def _check_weights(weights, n_members):
    if weights is None:
        return [1.0] * n_members
    weights = [float(weight) for weight in weights]
    problem = None
    if len(weights) != n_members:
        problem = (f"{len(weights)} weights", f"{n_members}, one per member")
    elif not all(math.isfinite(weight) for weight in weights):
        problem = (f"{weights}", "finite numbers")
    elif abs(math.fsum(weights)) < 1e-12 * math.fsum(abs(weight) for weight in weights) or not any(weights):
        problem = (f"{weights}, whose sum is 0", "a sum that is not 0")
    if problem:
        raise MergeError("cannot merge", item="weights", got=problem[0], wanted=problem[1], fix="Correct the weights.")
    return weights


def _checked_score(value, index):
    value = float(value)
    if math.isnan(value):
        raise MergeError(
            "cannot make a greedy soup",
            item=f"the score when member {index} was tried",
            got="NaN",
            wanted="a number, higher is better",
            fix="Check the score function; an empty selection split gives NaN.",
        )
    return value


def _check_batch(batch, index):
    if not isinstance(batch, torch.Tensor):
        _refuse_batches(f"a {type(batch).__name__}", index)
    if len(batch) < 2:
        _refuse_batches(f"a batch of {len(batch)} image(s)", index)


def _refuse_batches(got, index):
    raise MergeError(
        "cannot recalibrate BatchNorm",
        item=f"batch {index}",
        got=got,
        wanted="tensors of at least 2 images",
        fix="Pass an iterable of image batches without labels, and drop a last batch of one image.",
    )
