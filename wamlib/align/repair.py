"""REPAIR: give the units of a merged network the mean and the spread that they have in the members."""

import copy
from contextlib import ExitStack

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import AlignmentError
from ..merge import check_members
from ..merge.batchnorm import Moments, mean_and_variance
from ..merge.soups import check_weights
from .graph import FIXED, trace

__all__ = ["repair", "unit_statistics"]

SMALLEST = 1e-8  # a unit whose spread is below this is constant


def repair(model, members, batches, weights=None, statistics=None):
    """Rescale the hidden units of a merged network to the members' means and spreads, in place.

    With :math:`m, s` the mean and the standard deviation of a unit in the merged
    network, and :math:`m^* = \\sum_i w_i m_i`, :math:`s^* = \\sum_i w_i s_i` those that it
    should have, the unit's value :math:`x` becomes

    .. math:: \\frac{s^*}{s}\\,(x - m) + m^* .

    A unit is rescaled where a BatchNorm layer reads it, which is folded into the
    running statistics, :math:`\\mu \\leftarrow m - (m^* - \\mu)\\, s / s^*` and
    :math:`\\sigma^2 + \\varepsilon \\leftarrow (\\sigma^2 + \\varepsilon)\\, (s / s^*)^2`; and
    at every hidden convolution or linear layer with a bias that no BatchNorm follows,
    where it is folded into weight and bias. Each layer is measured with those before
    it already corrected.

    Parameters
    ----------
    model : torch.nn.Module
        Holds the merged weights, running statistics merged in the same way; traceable.
    members : sequence of dict of str to Tensor
        The weights that were merged, after alignment.
    batches : iterable of Tensor, shape (batch, channel, ...)
        Normalised training images on the model's device, some hundred in a batch: units
        are corrected batch by batch while later layers are measured. No labels.
    weights : sequence of float, or None
        The shares that they were merged with; None means equal ones.
    statistics : list of dict, or None
        What `unit_statistics` says of these members and batches, where several mixtures of them are
        repaired; None measures it.

    Returns
    -------
    torch.nn.Module
        The same model, in the mode it was in.

    Raises
    ------
    AlignmentError
        If there is no batch, or the model cannot be traced. The model is then unchanged.
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `wamlib.merge.uniform_soup`.

    References
    ----------
    Jordan et al. (2023), REPAIR, Section 3 and Equation 3. https://arxiv.org/abs/2211.08403
    """
    members, batches = list(members), list(batches)
    check_members(members)
    shares = check_weights(weights, len(members))
    shares = [share / sum(shares) for share in shares]
    if not batches:
        fix = "Pass training images; labels are not needed."
        raise AlignmentError("cannot repair a merged network", "batches", "none", "batches of images", fix)
    found = unit_statistics(model, members, batches) if statistics is None else statistics
    sites = list(found[0])
    targets = {
        site: [sum(w * one[site][part] for w, one in zip(shares, found, strict=True)) for part in (0, 1)]
        for site in sites
    }
    network = copy.deepcopy(model).eval()
    measured = _measure(network, sites, batches, targets)
    with torch.no_grad():
        for site in sites:
            _fold(model.get_submodule(site), *measured[site], *targets[site])
    return model


def unit_statistics(model, members, batches):
    """Return of each member, by the layers of `repair`, mean and standard deviation of every unit."""
    sites, network = _sites(model), copy.deepcopy(model).eval()
    found = []
    for member in members:
        network.load_state_dict(member)
        found.append(_measure(network, sites, batches))
    return found


def _sites(model):
    """Return the names of the layers at which units are rescaled."""
    specification = trace(model)
    modules, names = dict(model.named_modules()), []
    for node in specification.graph.graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            names.append(node.target)
        elif getattr(module, "bias", None) is not None and f"{node.target}.weight" in specification.axes:
            logits = all(group == FIXED for group, _, _ in specification.axes[f"{node.target}.weight"][0])
            normed = any(isinstance(modules.get(user.target), _BatchNorm) for user in node.users)
            if module.weight.dim() > 1 and not logits and not normed:
                names.append(node.target)
    return list(dict.fromkeys(names))


def _measure(network, sites, batches, targets=None):
    """Return ``{site: (mean, standard deviation)}``, units corrected on the way if targets are given."""
    moments = {site: Moments() for site in sites}

    def look(site, x):
        moments[site].add(x)
        if targets is None:
            return None
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        mean, var = mean_and_variance(x)
        factor = _factor(var.sqrt(), targets[site][1].to(x.dtype))
        shift = targets[site][0].to(x.dtype) - mean * factor
        return x * factor.view(shape) + shift.view(shape)

    with ExitStack() as hooks, torch.no_grad():
        for site in sites:
            module = network.get_submodule(site)
            if isinstance(module, _BatchNorm):
                hook = module.register_forward_pre_hook(lambda module, inputs, site=site: look(site, inputs[0]))
            else:
                hook = module.register_forward_hook(lambda module, inputs, output, site=site: look(site, output))
            hooks.enter_context(hook)
        for batch in batches:
            network(batch)
    return {site: (m.mean, (m.squares / m.count).sqrt()) for site, m in moments.items()}


def _factor(found, wanted):
    """Return wanted / found; 1 for a unit that is constant, whose spread no factor can change."""
    return torch.where(found > SMALLEST, wanted / found.clamp_min(SMALLEST), 1.0)


def _fold(module, mean, spread, wanted_mean, wanted_spread):
    """Write the correction of one layer's units into its own tensors."""
    factor = _factor(spread, wanted_spread)
    if isinstance(module, _BatchNorm):
        factor = factor.clamp_min(SMALLEST)
        var = (module.running_var.double() + module.eps) / factor**2 - module.eps
        module.running_mean.copy_(mean - (wanted_mean - module.running_mean.double()) / factor)
        module.running_var.copy_(var.clamp_min(0))
        return
    shape = [-1] + [1] * (module.weight.dim() - 1)
    module.bias.copy_((module.bias.double() - mean) * factor + wanted_mean)
    module.weight.copy_(module.weight.double() * factor.view(shape))
