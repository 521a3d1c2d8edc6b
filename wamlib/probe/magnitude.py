"""The size of weights, and what a scale factor does."""

import math

from ..errors import ProbeError
from ..merge import is_learnable

__all__ = ["SCOPES", "distance", "scale", "weight_norm"]

SCOPES = ("everything", "learnable", "homogeneous", "batchnorm")


def weight_norm(state):
    """Return the Euclidean norm of all learnable tensors taken together."""
    return math.sqrt(sum(state[key].double().square().sum().item() for key in _learnable(state)))


def distance(a, b):
    """Return the Euclidean distance between the learnable tensors of two members."""
    return math.sqrt(sum((a[key].double() - b[key].double()).square().sum().item() for key in _learnable(a)))


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
