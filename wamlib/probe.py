"""Probes: what the weights look like, what lies between two members, and what scale does."""

import math
from typing import NamedTuple

import torch

from .errors import ProbeError
from .merge import interpolate, is_learnable

__all__ = [
    "SCOPES",
    "Barrier",
    "TemplateMatch",
    "barrier",
    "barrier_height",
    "class_means",
    "distance",
    "scale",
    "template_match",
    "templates",
    "weight_norm",
]

SCOPES = ("everything", "learnable", "homogeneous", "batchnorm")


def templates(state, shape):
    """Return the weight rows that read the pixels, as pictures.

    Parameters
    ----------
    state : dict of str to Tensor
        Of a model whose first linear layer takes flattened images.
    shape : tuple of int
        (channel, height, width) of an image.

    Returns
    -------
    Tensor, shape (row, channel, height, width)
        One template per row; for the linear model a row is a class.

    Raises
    ------
    ProbeError
        If no layer reads flattened images of that shape.
    """
    size = math.prod(shape)
    for tensor in state.values():
        if tensor.dim() == 2 and tensor.shape[1] == size:
            return tensor.reshape(-1, *shape)
    found = [tuple(tensor.shape) for tensor in state.values() if tensor.dim() == 2]
    raise ProbeError(
        "cannot find templates",
        item="the linear layers",
        got=f"weights of shapes {found}",
        wanted=f"one with {size} columns, for images of shape {tuple(shape)}",
        fix="Use a model that reads flattened images, or the shape it was built for.",
    )


def class_means(split, n_classes, *, centred=True):
    """Return the mean image of each class, in units of 0 to 255.

    Parameters
    ----------
    split : wamlib.data.Split
    n_classes : int
    centred : bool
        Subtract the mean of the class means: what tells a class apart, and what a
        linear classifier's row tends to under strong weight decay.

    Returns
    -------
    Tensor, float64, shape (class, channel, height, width)
    """
    means = torch.stack([split.images[split.labels == label].double().mean(0) for label in range(n_classes)])
    return means - means.mean(0) if centred else means


class TemplateMatch(NamedTuple):
    """How well templates match reference pictures.

    Parameters
    ----------
    correlation : Tensor, float64, shape (template, class)
        Pearson correlation over pixels of each template with each picture.
    own : Tensor, float64, shape (class,)
        Its diagonal: each template with the picture of its own class.
    retrieval : float
        Templates whose best picture is that of their own class, in percent.
    """

    correlation: torch.Tensor
    own: torch.Tensor
    retrieval: float


def template_match(templates, class_means):
    """Correlate each template with each class mean.

    Parameters
    ----------
    templates, class_means : Tensor, shape (class, ...)
        Pictures of the same shape, in the same order of classes.

    Returns
    -------
    TemplateMatch

    Raises
    ------
    ProbeError
        If the shapes differ.
    """
    if templates.shape != class_means.shape:
        raise ProbeError(
            "cannot match templates",
            item="templates",
            got=f"shape {tuple(templates.shape)}",
            wanted=f"{tuple(class_means.shape)}, that of the class means",
            fix="Compare pictures of one size, one per class.",
        )
    rows, pictures = (_standardize(x) for x in (templates, class_means))
    correlation = rows @ pictures.T
    hits = correlation.argmax(1) == torch.arange(len(rows), device=correlation.device)
    return TemplateMatch(correlation, correlation.diagonal().clone(), 100 * hits.double().mean().item())


def _standardize(pictures):
    flat = pictures.double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)


def weight_norm(state):
    """Return the Euclidean norm of all learnable tensors taken together."""
    return math.sqrt(sum(state[key].double().square().sum().item() for key in _learnable(state)))


def distance(a, b):
    """Return the Euclidean distance between the learnable tensors of two members."""
    return math.sqrt(sum((a[key].double() - b[key].double()).square().sum().item() for key in _learnable(a)))


class Barrier(NamedTuple):
    """The error along the line between two members.

    Parameters
    ----------
    height : float
        Largest excess of the error over the chord that joins the two ends, in
        percentage points; never negative, because the ends lie on the chord.
    alphas : list of float
        Mixing weights.
    errors : list of float
        Error at each of them, in percent.
    """

    height: float
    alphas: list[float]
    errors: list[float]


def barrier(a, b, error, alphas=(0.0, 0.25, 0.5, 0.75, 1.0)):
    """Measure the barrier on the straight line between two members.

    .. math:: \\max_\\alpha \\; e(\\alpha) - [(1 - \\alpha)\\, e(0) + \\alpha\\, e(1)]

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts of the members.
    error : callable
        Takes a state dict and returns an error in percent. To recalibrate
        BatchNorm, let it do so at every point, the ends included.
    alphas : sequence of float
        Mixing weights in [0, 1], which must contain 0 (member a) and 1 (member b).

    Returns
    -------
    Barrier

    Raises
    ------
    ProbeError
        If an end is missing: the chord is then undefined.

    References
    ----------
    Frankle et al. (2020), Linear Mode Connectivity, Section 2. Their chord is the mean
    of the two ends; ours is the line between them, which is the same at alpha = 1/2.
    https://arxiv.org/abs/1912.05671
    """
    alphas = _checked_alphas(alphas)
    errors = [float(error(interpolate(a, b, alpha))) for alpha in alphas]
    return Barrier(barrier_height(alphas, errors), alphas, errors)


def barrier_height(alphas, errors):
    """Return the largest excess of the errors on a line over the chord that joins its ends.

    Parameters
    ----------
    alphas : sequence of float
        Mixing weights in [0, 1], with both ends.
    errors : sequence of float
        Error at each of them, in percent.

    Returns
    -------
    float
        Percentage points, never negative.

    Raises
    ------
    ProbeError
        As `barrier`.
    """
    alphas = _checked_alphas(alphas)
    ends = errors[alphas.index(0.0)], errors[alphas.index(1.0)]
    return max(0.0, *(e - ((1 - x) * ends[0] + x * ends[1]) for x, e in zip(alphas, errors, strict=True)))


def _checked_alphas(alphas):
    alphas = [float(alpha) for alpha in alphas]
    if 0.0 not in alphas or 1.0 not in alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise ProbeError(
            "cannot measure a barrier",
            item="alphas",
            got=f"{alphas}",
            wanted="numbers in [0, 1] with both ends, 0 (member a) and 1 (member b)",
            fix="Add the missing end: without it the chord is undefined.",
        )
    return alphas


def scale(state, factor, scope="learnable"):
    """Multiply the weights of a model by a factor.

    Parameters
    ----------
    state : dict of str to Tensor
        Its keys must be in the order of the forward pass, as ``Module.state_dict()`` gives
        them; the safetensors format does not keep that order.
    factor : float
        The scale c, positive and finite.
    scope : {"everything", "learnable", "homogeneous", "batchnorm"}
        "everything" multiplies every entry, running statistics and step counters
        too, as the paper's released code does. "learnable" multiplies weights and
        biases, and leaves BatchNorm's statistics alone. "homogeneous" multiplies
        the weights by c and the bias of the l-th layer by c**l, so that the logits
        of a ReLU network are multiplied by c**depth and no prediction changes.
        "batchnorm" does the same where BatchNorm stands: it multiplies the running
        mean by the scale of its input and the running variance by the square, and
        the scale starts anew behind it, so again no prediction changes.

    Returns
    -------
    dict of str to Tensor
        Each tensor in its own dtype; what overflows becomes infinite.

    Raises
    ------
    ProbeError
        If the scope is unknown or is not defined for this model, the factor is not
        positive, or the keys are evidently not in the order of the forward pass.

    References
    ----------
    Neyshabur et al. (2015), Path-SGD, Section 2, for the homogeneity of ReLU networks.
    https://arxiv.org/abs/1506.02617
    """
    if scope not in SCOPES:
        _refuse("scope", repr(scope), f"one of {', '.join(SCOPES)}", "Correct the argument.")
    if not (math.isfinite(factor) and factor > 0):
        _refuse("factor", repr(factor), "a positive, finite number", "Correct the argument.")
    if scope == "everything":
        return {key: (tensor * factor).to(tensor.dtype) for key, tensor in state.items()}
    learnable = set(_learnable(state))
    if scope == "learnable":
        return {key: tensor * factor if key in learnable else tensor.clone() for key, tensor in state.items()}
    if scope == "homogeneous" and len(learnable) < len(state):
        _refuse("scope 'homogeneous'", "a model with BatchNorm statistics", "one without", "Use scope='batchnorm'.")
    return _scale_by_depth(state, factor)


def _scale_by_depth(state, factor):
    scaled, activation = {}, 1.0  # `activation` is the scale of the input of the layer at hand
    for layer in dict.fromkeys(key.rpartition(".")[0] for key in state):
        names = [key.rpartition(".")[2] for key in state if key.rpartition(".")[0] == layer]
        if "bias" in names and names.index("bias") < names.index("weight"):
            # Every torch layer has its weight before its bias: here somebody sorted the keys by name.
            _refuse(f"layer {layer!r}", "its bias before its weight", "keys in the order of the forward pass",
                    "Load the weights into the model and pass model.state_dict().")  # fmt: skip
        tensors = {name: state[f"{layer}.{name}"] for name in names}
        if "running_var" in tensors:
            by = {"running_mean": activation, "running_var": activation**2}
            activation = 1.0
        elif tensors["weight"].dim() < 2:
            _refuse(f"layer {layer!r}", "a norm without running statistics", "convolution, linear or BatchNorm",
                    "Use scope='learnable'; a LayerNorm does not pass scale on.")  # fmt: skip
        else:
            activation *= factor
            by = {"weight": factor, "bias": activation}
        scaled |= {f"{layer}.{name}": (t * by.get(name, 1)).to(t.dtype) for name, t in tensors.items()}
    return {key: scaled[key] for key in state}


def _learnable(state):
    return [key for key in state if is_learnable(key)]


def _refuse(item, got, wanted, fix):
    raise ProbeError("cannot scale a model", item=item, got=got, wanted=wanted, fix=fix)
