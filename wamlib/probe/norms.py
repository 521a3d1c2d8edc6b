"""The norm of every learnable tensor, measured and set."""

import math
from statistics import fmean

from ..errors import ProbeError
from ..merge import is_learnable, uniform_soup
from .magnitude import distance, weight_norm

__all__ = ["layer_norms", "relative_distance", "rescale_to"]

DOING = "cannot rescale a model"


def layer_norms(state):
    """Return the Euclidean norm of each learnable tensor.

    Parameters
    ----------
    state : dict of str to Tensor

    Returns
    -------
    dict of str to float
        In the order of the state; running statistics of BatchNorm are left out.
    """
    return {key: tensor.double().norm().item() for key, tensor in state.items() if is_learnable(key)}


def relative_distance(members):
    """Return how far members are from their soup: mean distance of the weights over the norm of the soup.

    Parameters
    ----------
    members : sequence of dict of str to Tensor

    Returns
    -------
    float
    """
    soup = uniform_soup(members)
    return fmean(distance(member, soup) for member in members) / weight_norm(soup)


def rescale_to(state, norms):
    """Multiply each learnable tensor by the positive number that gives it a wanted norm.

    Parameters
    ----------
    state : dict of str to Tensor
    norms : dict of str to float
        The wanted norm of every learnable tensor, as `layer_norms` returns them.

    Returns
    -------
    dict of str to Tensor
        Each tensor in its own dtype; running statistics are copied as they are.

    Raises
    ------
    ProbeError
        If the names differ, a norm is negative or no finite number, or a tensor of zeros has
        no direction in which it could reach the norm wanted.
    """
    own = layer_norms(state)
    if differing := sorted(set(own) ^ set(norms)):
        got, fix = "a tensor of one of the two only", "Take the norms from a model of the same architecture."
        raise ProbeError(DOING, f"norm of {differing[0]!r}", got, "one norm per learnable tensor", fix)
    rescaled = {}
    for key, tensor in state.items():
        wanted = norms.get(key)
        if wanted is None:
            rescaled[key] = tensor.clone()
            continue
        if not (math.isfinite(wanted) and wanted >= 0):
            fix = "Correct the norms."
            raise ProbeError(DOING, f"norm of {key!r}", repr(wanted), "a finite number, at least 0", fix)
        if own[key] == 0 and wanted > 0:
            fix = "Leave it at 0: zeros have no direction."
            raise ProbeError(DOING, f"tensor {key!r}", "nothing but zeros", f"a norm of {wanted:.3g}", fix)
        factor = wanted / own[key] if wanted else 0.0
        rescaled[key] = (tensor.double() * factor).to(tensor.dtype)
    return rescaled
