"""How alike two members are, layer by layer."""

import torch

from ..errors import ProbeError

__all__ = ["first_layer", "layer_cosines"]


def first_layer(state, shape):
    """Return the filters of the first layer as pictures.

    Parameters
    ----------
    state : dict of str to Tensor
        Its keys in the order of the forward pass.
    shape : tuple of int
        (channel, height, width) of an image.

    Returns
    -------
    Tensor, shape (unit, channel, height, width)
        A whole image for a linear layer, the kernel for a convolution.

    Raises
    ------
    ProbeError
        If the first layer with a weight matrix does not read images of that shape.
    """
    weight = next((tensor for tensor in state.values() if tensor.dim() in (2, 4)), None)
    if weight is not None and weight.dim() == 4 and weight.shape[1] == shape[0]:
        return weight
    if weight is not None and weight.dim() == 2 and weight.shape[1] == shape[0] * shape[1] * shape[2]:
        return weight.reshape(-1, *shape)
    item, got = "the first weight of the state dict", "none" if weight is None else f"shape {tuple(weight.shape)}"
    fix = "Pass the shape of the images that the model was built for, and a state dict in the order of its layers."
    raise ProbeError("cannot show the first layer", item, got, f"filters for images of shape {tuple(shape)}", fix)


def layer_cosines(a, b):
    """Return the cosine between two members' weights, layer by layer.

    Unit by unit: two members whose units stand in another order are far apart here,
    even when they compute the same function.

    Parameters
    ----------
    a, b : dict of str to Tensor
        State dicts of one architecture.

    Returns
    -------
    dict of str to float
        Weight key, in the order of the state dict, to the cosine in [-1, 1]; convolutions
        and linear layers only, since a norm's gains are near 1 whatever was learnt.

    Raises
    ------
    ProbeError
        If the two have different weights.
    """
    shapes = [{k: tuple(t.shape) for k, t in state.items() if t.dim() >= 2} for state in (a, b)]
    if shapes[0] != shapes[1]:
        key = next(k for k in {**shapes[0], **shapes[1]} if shapes[0].get(k) != shapes[1].get(k))
        got = f"shapes {shapes[0].get(key)} and {shapes[1].get(key)}"
        fix = "Compare members of the same model on images of the same size."
        raise ProbeError("cannot compare members", f"weight {key!r}", got, "one architecture", fix)
    flat = {key: (a[key].double().flatten(), b[key].double().flatten()) for key in shapes[0]}
    return {key: torch.nn.functional.cosine_similarity(x, y, dim=0).item() for key, (x, y) in flat.items()}
