"""The size of weights, and what a scale factor does."""

import math
from numbers import Real

import torch

from ..errors import ProbeError
from ..merge import is_learnable

__all__ = ["SCOPES", "distance", "layers", "scale", "weight_norm"]

DOING = "cannot scale a model"

SCOPES = ("everything", "learnable", "weights and biases", "weights", "head", "homogeneous", "batchnorm")


def weight_norm(state):
    """Return the Euclidean norm of all learnable tensors taken together."""
    return math.sqrt(sum(state[key].double().square().sum().item() for key in _learnable(state)))


def distance(a, b):
    """Return the Euclidean distance between the learnable tensors of two members."""
    return math.sqrt(sum((a[key].double() - b[key].double()).square().sum().item() for key in _learnable(a)))


def layers(state):
    """Return the names of the layers that have a weight matrix or kernel, in the order of the keys.

    Norms are no layers of their own here, nor are tokens and embeddings.
    """
    found = dict.fromkeys(_layer(key) for key in _learnable(state) if state[key].dim() >= 2)
    return [name for name in found if name not in state]


def scale(state, factor, scope="learnable", layer=None):
    """Multiply the weights of a model by a factor.

    Parameters
    ----------
    state : dict of str to Tensor
        Its keys must be in the order of the forward pass, as ``Module.state_dict()`` gives
        them; the safetensors format does not keep that order.
    factor : float
        The scale c, positive and finite.
    scope : str
        One of `SCOPES`:

        - "everything" multiplies every entry, running statistics and step counters
          too, as the paper's released code does.
        - "learnable" multiplies weights and biases, those of norms included, and leaves
          BatchNorm's statistics alone; "weights and biases" leaves the norms alone as well;
          "weights" leaves the biases alone, too: it multiplies tensors of at least two axes.
        - "head" multiplies weight and bias of the last linear layer.
        - "homogeneous" multiplies the weights by c and the bias of the l-th layer by c**l, so
          that the logits of a ReLU network are multiplied by c**depth and no prediction changes.
        - "batchnorm" does the same where BatchNorm stands: it multiplies the running mean by
          the scale of its input and the running variance by the square, and the scale starts
          anew behind it, so again no prediction changes. A BatchNorm that reads more channels
          than the layer before it has units reads them behind those that an earlier one read,
          as in a DenseNet.
    layer : str or None
        Multiply weight and bias of this layer only, one of `layers`; the scope is then not used.

    Returns
    -------
    dict of str to Tensor
        Each tensor in its own dtype; what overflows becomes infinite.

    Raises
    ------
    ProbeError
        If the scope or the layer is unknown or the scope is not defined for this model, the factor
        is not positive, or the keys are evidently not in the order of the forward pass.

    References
    ----------
    Neyshabur et al. (2015), Path-SGD, Section 2, for the homogeneity of ReLU networks.
    https://arxiv.org/abs/1506.02617
    """
    if scope not in SCOPES:
        raise ProbeError(DOING, "scope", repr(scope), f"one of {', '.join(SCOPES)}", "Correct the argument.")
    if not (isinstance(factor, Real) and 0 < factor < math.inf):
        raise ProbeError(DOING, "factor", repr(factor), "a positive, finite number", "Correct the argument.")
    if layer is not None:
        if layer not in layers(state):
            raise ProbeError(DOING, "layer", repr(layer), f"one of {', '.join(layers(state))}", "Correct the argument.")
        return _multiply(state, factor, {key for key in _learnable(state) if _layer(key) == layer})
    if scope in ("homogeneous", "batchnorm"):
        if scope == "homogeneous" and len(_learnable(state)) < len(state):
            fix = "Use scope='batchnorm'."
            raise ProbeError(DOING, "scope 'homogeneous'", "a model with BatchNorm statistics", "one without", fix)
        return _scale_by_depth(state, factor)
    return _multiply(state, factor, _chosen(state, scope))


def _chosen(state, scope):
    """Return the keys that a scope multiplies by the factor itself."""
    learnable = _learnable(state)
    if scope == "everything":
        return set(state)
    if scope == "learnable":
        return set(learnable)
    if scope == "head":
        last = layers(state)[-1]
        return {key for key in learnable if _layer(key) == last}
    norms = {_layer(key) for key in learnable if key.endswith(".weight") and state[key].dim() < 2}
    fewest = 2 if scope == "weights" else 1
    return {key for key in learnable if _layer(key) not in norms and state[key].dim() >= fewest}


def _multiply(state, factor, keys):
    return {key: (t * factor).to(t.dtype) if key in keys else t.clone() for key, t in state.items()}


def _layer(key):
    """Return the module that a tensor belongs to; a tensor that is no weight or bias stands for itself."""
    module, _, name = key.rpartition(".")
    return module if name.endswith(("weight", "bias")) else key


def _scale_by_depth(state, factor):
    scaled, activation = {}, 1.0  # `activation` is the scale of the input of the layer at hand
    units, read = None, []  # units of the last layer with weights; scale of each channel that each BatchNorm read
    for layer in dict.fromkeys(key.rpartition(".")[0] for key in state):
        names = [key.rpartition(".")[2] for key in state if key.rpartition(".")[0] == layer]
        if "bias" in names and names.index("bias") < names.index("weight"):
            # Every torch layer has its weight before its bias: here somebody sorted the keys by name.
            got, fix = "its bias before its weight", "Load the weights into the model and pass model.state_dict()."
            raise ProbeError(DOING, f"layer {layer!r}", got, "keys in the order of the forward pass", fix)
        tensors = {name: state[f"{layer}.{name}" if layer else name] for name in names}
        if "running_var" in tensors:
            channels = _channels(layer, tensors["running_var"], activation, units, read)
            read.append(channels)
            by = {"running_mean": channels, "running_var": channels**2}
            activation = 1.0
        elif "weight" not in tensors or tensors["weight"].dim() < 2:
            wanted = "convolution, linear or BatchNorm"
            fix = "Use scope='learnable'; a LayerNorm does not pass scale on."
            raise ProbeError(DOING, f"layer {layer!r}", "a norm without running statistics, or tokens", wanted, fix)
        else:
            activation *= factor
            units = len(tensors["weight"])
            by = {"weight": factor, "bias": activation}
        scaled |= {f"{layer}.{name}": (t * by.get(name, 1)).to(t.dtype) for name, t in tensors.items()}
    return {key: scaled[key] for key in state}


def _channels(layer, variance, activation, units, read):
    """Return the scale of every channel that a BatchNorm reads."""
    n = len(variance)
    if units is None or n == units:
        return torch.full_like(variance, activation)
    # A dense block: the new channels stand behind those that the dense layer before read. Between the two is its
    # bottleneck's BatchNorm or none; where both have as many channels there is one, for a block grows at each layer.
    for earlier in read[-2:]:
        if len(earlier) + units == n:
            return torch.cat([earlier, torch.full_like(variance[:units], activation)])
    got = f"BatchNorm of {n} channels behind a layer of {units} units"
    wanted = f"{units}, or these behind the channels that an earlier BatchNorm read"
    raise ProbeError(DOING, f"layer {layer!r}", got, wanted, "Use scope='learnable' and recalibrate BatchNorm.")


def _learnable(state):
    return [key for key in state if is_learnable(key)]
