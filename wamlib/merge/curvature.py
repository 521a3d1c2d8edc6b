"""Means weighted by what each member's predictions depend on: Fisher merging and RegMean."""

import math
import warnings

import torch
import torch.nn.functional as F
from torch.func import functional_call, jacrev, vmap

from ..errors import MemberMismatchError
from ..modes import eval_mode
from .members import merge_by_key, prepared, refuse
from .soups import check_weights
from .sums import cast, weighted_sum

__all__ = ["fisher", "fisher_diagonal", "gram_matrices", "regmean"]

VALUES = 2**22  # of the per-image Jacobians that are held at one time; more would leave the processor's cache
RIDGE = 1e-10  # of each entry of the diagonal of the summed Gram matrices


def fisher(members, diagonals, weights=None, floor=1e-6):
    """Average the weights of several members, each entry weighted by its Fisher information.

    .. math:: \\theta_j = \\frac{\\sum_i w_i F_{ij} \\theta_{ij}}{\\sum_i w_i F_{ij}}

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    diagonals : sequence of dict of str to Tensor
        One per member, from `fisher_diagonal`: nonnegative, of the shapes of the weights.
        Tensors that have none (running statistics) are averaged.
    weights : sequence of float, or None
        One nonnegative number per member; None means equal shares.
    floor : float
        Entries below it count as it. Where no member's predictions depend on a weight,
        the result is then the weighted mean. Positive.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    MergeError
        If a weight is negative or all are 0, or floor is not positive; and as `uniform_soup`.
    MemberMismatchError
        If the diagonals do not fit the members.

    References
    ----------
    Matena & Raffel (2022), Merging Models with Fisher-Weighted Averaging, Section 2.2, Equation 4.
    https://arxiv.org/abs/2111.09832 The floor is that of their code.
    """
    members = prepared(members)
    shares = check_weights(weights, len(members))
    if min(shares) < 0:
        refuse("weights", f"{shares}", "nonnegative numbers")
    if not (isinstance(floor, (int, float)) and 0 < floor < math.inf):
        refuse("floor", repr(floor), "a positive number")
    _check_companions("Fisher diagonal", diagonals, members, lambda tensor: tensor.shape)

    def merge(key):
        tensors = [member[key] for member in members]
        if key not in diagonals[0]:
            return cast(weighted_sum(tensors, shares).div_(math.fsum(shares)), tensors[0])
        wide = [weighted_sum([diagonal[key]], [1.0]).clamp_min_(floor) for diagonal in diagonals]
        total = weighted_sum(wide, shares)
        parts = [weighted_sum([tensor], [1.0]).mul_(info) for tensor, info in zip(tensors, wide, strict=True)]
        return cast(weighted_sum(parts, shares).div_(total), tensors[0])

    return merge_by_key(members, _unless_integer(members[0], merge))


def fisher_diagonal(model, batches):
    """Measure how much a classifier's predictions depend on each weight.

    .. math:: F_j = E_x\\, E_{y \\sim p(y|x)}
        \\left[\\left(\\frac{\\partial \\log p(y|x)}{\\partial \\theta_j}\\right)^2\\right]

    The expectation over the classes is exact; over the images it is a mean.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits of shape (batch, class). Evaluated in eval mode and left in the mode it was in.
    batches : iterable of Tensor, shape (batch, channel, ...)
        Normalised training images on the model's device. A few hundred images are enough
        (Matena & Raffel 2022, Section 4.1); labels are not needed.

    Returns
    -------
    dict of str to Tensor
        Per parameter the diagonal, of its shape, in float32.

    Raises
    ------
    MergeError
        If there is no image.

    References
    ----------
    Matena & Raffel (2022), Section 2.2, Equation 3. https://arxiv.org/abs/2111.09832
    """
    parameters = {key: tensor.detach() for key, tensor in model.named_parameters()}
    n_parameters = max(1, sum(tensor.numel() for tensor in parameters.values()))
    totals = {key: torch.zeros_like(tensor, dtype=torch.float32) for key, tensor in parameters.items()}

    def log_probabilities(parameters, image):
        found = F.log_softmax(functional_call(model, parameters, (image[None],)).float(), dim=1)[0]
        return found, found

    def squares(image):
        slopes, logs = jacrev(log_probabilities, has_aux=True)(parameters, image)
        shares = logs.exp()
        return {key: torch.tensordot(shares, slope.float().square_(), 1) for key, slope in slopes.items()}

    n_images = 0
    with eval_mode(model), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # torch's, of adaptive pooling under vmap
        for batch in batches:
            n_classes = model(batch[:1]).shape[1]
            for part in batch.split(max(1, VALUES // (n_parameters * n_classes))):
                for key, square in vmap(squares)(part).items():
                    totals[key] += square.sum(0)
            n_images += len(batch)
    if n_images == 0:
        refuse("the batches", "no image", "at least one")
    return {key: total.div_(n_images) for key, total in totals.items()}


def regmean(members, grams, shrink=0.9):
    """Choose, layer by layer, the weights whose outputs are nearest to all members' own outputs.

    .. math:: W = \\Big(\\sum_i W_i \\tilde G_i\\Big) \\Big(\\sum_i \\tilde G_i\\Big)^{-1},
        \\qquad \\tilde G_i = \\alpha G_i + (1 - \\alpha) \\operatorname{diag}(G_i)

    with W of shape (output, input) as PyTorch has it, and G the Gram matrix of the
    layer's inputs. A convolution is the linear map of its patches.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts that match as for `uniform_soup`.
    grams : sequence of dict of str to Tensor
        One per member, from `gram_matrices`. Tensors without one (biases, normalisation,
        running statistics) are averaged.
    shrink : float
        The factor :math:`\\alpha` on the entries off the diagonal, in [0, 1].

    Returns
    -------
    dict of str to Tensor
        An input that is 0 in every member leaves its weights undetermined: they are averaged.

    Raises
    ------
    MergeError, MemberMismatchError, NonFiniteMemberError
        As `uniform_soup`, if shrink is outside [0, 1], or if the Gram matrices do not fit the members.

    References
    ----------
    Jin et al. (2023), Dataless Knowledge Fusion by Merging Weights of Language Models, Section 3 and
    Algorithm 1. https://arxiv.org/abs/2212.09849
    """
    members = prepared(members)
    if not (isinstance(shrink, (int, float)) and 0 <= shrink <= 1):
        refuse("shrink", repr(shrink), "a number in [0, 1]")
    _check_companions("Gram matrices", grams, members, None)

    def merge(key):
        tensors = [member[key] for member in members]
        mean = weighted_sum(tensors, [1.0] * len(tensors)).div_(len(tensors))
        if key not in grams[0]:
            return cast(mean, tensors[0])
        shrunk = [_shrunk(weighted_sum([gram[key]], [1.0]), shrink) for gram in grams]  # (group, input, input)
        groups, n_inputs, _ = shrunk[0].shape
        total = sum(shrunk)
        # The distance from the mean is what is solved for: a direction without inputs then keeps the mean.
        right = sum(
            (weighted_sum([tensor], [1.0]) - mean).reshape(groups, -1, n_inputs) @ gram
            for tensor, gram in zip(tensors, shrunk, strict=True)
        )
        diagonal = total.diagonal(dim1=1, dim2=2)
        # A share of each input's own scale, so that inputs that are nearly always 0 keep their say; 1 where it is 0.
        total = total + torch.diag_embed(torch.where(diagonal > 0, RIDGE * diagonal, 1.0))
        change = torch.linalg.solve(total, right, left=False)
        return cast(mean + change.reshape(mean.shape), tensors[0])

    return merge_by_key(members, _unless_integer(members[0], merge))


def gram_matrices(model, batches):
    """Measure the Gram matrix of the inputs of every linear and convolutional layer.

    .. math:: G = E[x x^\\top]

    over images, and for a convolution over the positions of its patches too.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode and left in the mode it was in.
    batches : iterable of Tensor, shape (batch, channel, ...)
        Normalised training images on the model's device.

    Returns
    -------
    dict of str to Tensor
        Per weight, under its key in the state dict, shape (group, input, input), float64
        (float32 on MPS); ``input`` is the number of inputs of one output, channels of
        the group times the kernel's size.

    Raises
    ------
    MergeError
        If there is no image.

    References
    ----------
    Jin et al. (2023), Section 3. https://arxiv.org/abs/2212.09849
    """
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    sums, counts = {}, dict.fromkeys(layers, 0)

    def hook(name):
        def add(module, inputs):
            rows = _rows(module, inputs[0].detach())  # (group, row, input)
            gram = rows.mT @ rows
            gram = gram if gram.device.type == "mps" else gram.double()
            sums[name] = sums[name] + gram if name in sums else gram
            counts[name] += rows.shape[1]

        return add

    hooks = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
    n_images = 0
    try:
        with eval_mode(model), torch.no_grad():
            for batch in batches:
                model(batch)
                n_images += len(batch)
    finally:
        for handle in hooks:
            handle.remove()
    if n_images == 0:
        refuse("the batches", "no image", "at least one")
    return {f"{name}.weight": total / counts[name] for name, total in sums.items()}


def _rows(module, inputs):
    """Return the inputs of a layer's outputs as rows, shape (group, row, input)."""
    if isinstance(module, torch.nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    padding = module.padding
    if padding == "same":
        # As the convolution itself does it: the odd pixel goes to the end.
        spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        sides = [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
        inputs, padding = F.pad(inputs, sides), 0
    elif module.padding_mode != "zeros":
        inputs, padding = F.pad(inputs, module._reversed_padding_repeated_twice, mode=module.padding_mode), 0
    patches = F.unfold(inputs, module.kernel_size, module.dilation, 0 if padding == "valid" else padding, module.stride)
    n, width, positions = patches.shape
    rows = patches.reshape(n, module.groups, width // module.groups, positions)
    return rows.permute(1, 0, 3, 2).reshape(module.groups, n * positions, width // module.groups)


def _shrunk(gram, shrink):
    return shrink * gram + (1 - shrink) * torch.diag_embed(gram.diagonal(dim1=1, dim2=2))


def _unless_integer(first, merge):
    """Copy integer and boolean tensors from the first member, merge the others."""

    def by_kind(key):
        wide = first[key].is_floating_point() or first[key].is_complex()
        return merge(key) if wide else first[key].clone()

    return by_kind


def _check_companions(what, companions, members, shape):
    """Refuse what was measured on the members if it does not fit them.

    ``shape`` maps a weight to the shape wanted; None asks for Gram matrices that fit the weight.
    """
    if len(companions) != len(members):
        refuse(f"the list of {what}", f"{len(companions)}", f"{len(members)}, one per member")
    for index, companion in enumerate(companions):
        item = f"{what} of member {index}"
        differ = sorted(companion.keys() ^ companions[0].keys()) or sorted(companion.keys() - members[0].keys())
        if differ or not companion:
            got = f"other keys, such as {differ[0]!r}" if differ else "no tensor"
            _mismatch(item, got, "keys of the members, the same ones for each")
        for key, tensor in companion.items():
            weight = members[0][key]
            if shape is None:
                n_inputs = math.prod(weight.shape[1:])
                fits = tensor.dim() == 3 and tensor.shape[1:] == (n_inputs, n_inputs)
                fits, wanted = fits and weight.shape[0] % tensor.shape[0] == 0, f"(group, {n_inputs}, {n_inputs})"
            else:
                fits, wanted = tensor.shape == shape(weight), f"{tuple(weight.shape)}"
            if not fits:
                _mismatch(f"{item}, {key!r}", f"shape {tuple(tensor.shape)}", wanted)
            if not torch.isfinite(tensor).all() or (shape is not None and (tensor < 0).any()):
                _mismatch(f"{item}, {key!r}", "NaN, infinite or negative values", "finite ones")


def _mismatch(item, got, wanted):
    raise MemberMismatchError(
        "cannot merge", item=item, got=got, wanted=wanted, fix="Measure each member with its own weights loaded."
    )
