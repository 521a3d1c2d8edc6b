"""How flat the loss is around a network: along random directions, and in the direction of most curvature."""

import numpy as np
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ..config import derive_seed
from ..errors import ProbeError
from ..merge import is_learnable
from ..modes import eval_mode
from .second_order import plain_attention

__all__ = ["filter_normalised_direction", "loss_along", "top_hessian_eigenvalue"]

DOING = "cannot measure flatness"


def filter_normalised_direction(state, seed):
    """Draw a random direction whose filters are as long as those of the weights.

    Parameters
    ----------
    state : dict of str to Tensor
    seed : int

    Returns
    -------
    dict of str to Tensor
        Of the learnable tensors. Gaussian; what reaches one unit (a filter, or a row of a
        matrix) has the norm that it has in the weights. Tensors of one axis, biases and those of
        norms, are zero.

    References
    ----------
    Li et al. (2018), Visualizing the loss landscape of neural nets, Section 4.
    https://arxiv.org/abs/1712.09913
    """
    draw = torch.Generator().manual_seed(derive_seed("filter-normalised direction", seed))
    direction = {}
    for key, tensor in state.items():
        if not is_learnable(key):
            continue
        if tensor.dim() < 2:
            direction[key] = torch.zeros_like(tensor)
            continue
        rows = torch.randn(tensor.shape, generator=draw, dtype=torch.float64).flatten(1)
        lengths = tensor.detach().cpu().double().flatten(1).norm(dim=1, keepdim=True)
        direction[key] = (rows / rows.norm(dim=1, keepdim=True) * lengths).view(tensor.shape).to(tensor)
    return direction


def loss_along(model, state, direction, steps, images, labels):
    """Return the loss on the way from a network in a direction.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode; left as it was.
    state : dict of str to Tensor
        Where the way begins. Running statistics stay what they are here.
    direction : dict of str to Tensor
        As `filter_normalised_direction` returns it.
    steps : sequence of float
        In units of the direction; 0 is the network itself.
    images : Tensor, shape (sample, channel, height, width)
        Normalised.
    labels : Tensor, shape (sample,)

    Returns
    -------
    list of float
        Mean cross-entropy in nats, one per step.

    Raises
    ------
    ProbeError
        If there is no image, or the direction names a tensor that the state has not.
    """
    _check_images(images)
    if unknown := sorted(set(direction) - set(state)):
        fix = "Draw the direction for this network."
        raise ProbeError(DOING, f"tensor {unknown[0]!r}", "a direction without weights", "a tensor of the state", fix)
    losses = []
    with eval_mode(model), torch.no_grad():
        for step in steps:
            moved = state | {key: state[key] + step * way for key, way in direction.items()}
            losses.append(cross_entropy(functional_call(model, moved, (images,)), labels).item())
    return losses


def top_hessian_eigenvalue(model, images, labels, seed=0, tolerance=1e-3, most=300):
    """Return the largest eigenvalue of the Hessian of the mean cross-entropy in the parameters.

    The Hessian is never written down: Lanczos iterations ask for its products with vectors
    only, which two backward passes give.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode, so that BatchNorm's statistics are constants; left as it was.
    images : Tensor, shape (sample, channel, height, width)
        Normalised. Their dtype must be that of the model.
    labels : Tensor, shape (sample,)
    seed : int
        Fixes the vector that the iterations begin with.
    tolerance : float
        Relative accuracy.
    most : int
        Restarts of the iterations before they are given up.

    Returns
    -------
    float
        In nats per squared unit of weight.

    Raises
    ------
    ProbeError
        If there is no image, the loss is not finite, the Hessian is zero, or the iterations do not converge.

    References
    ----------
    Pearlmutter (1994), Fast exact multiplication by the Hessian, Section 3, for the product.
    https://doi.org/10.1162/neco.1994.6.1.147
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    _check_images(images)
    tensors = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    leaves = list(tensors.values())
    sizes, n = [leaf.numel() for leaf in leaves], sum(leaf.numel() for leaf in leaves)
    with eval_mode(model), plain_attention(), torch.enable_grad():
        loss = cross_entropy(functional_call(model, tensors, (images,)), labels)
        if not torch.isfinite(loss):
            raise ProbeError(DOING, "loss", f"{loss.item()}", "a finite number", "Look at the weights and the images.")
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)

        def product(vector):
            parts = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).reshape(-1).to(loss).split(sizes)
            parts = [part.view_as(leaf) for part, leaf in zip(parts, leaves, strict=True)]
            bends = torch.autograd.grad(slopes, leaves, parts, retain_graph=True, allow_unused=True)
            bends = [torch.zeros_like(a) if b is None else b for a, b in zip(leaves, bends, strict=True)]
            return torch.cat([bend.reshape(-1) for bend in bends]).double().cpu().numpy()

        draw = torch.Generator().manual_seed(derive_seed("top eigenvalue", seed))
        first = torch.randn(n, generator=draw, dtype=torch.float64).numpy()
        hessian = LinearOperator((n, n), matvec=product, dtype=np.float64)
        try:
            # One pair that stands out needs few vectors; scipy's own choice of 20 costs 20 products at least.
            settings = {"k": 1, "which": "LA", "ncv": min(n, 8), "v0": first, "tol": tolerance, "maxiter": most}
            found = eigsh(hessian, **settings, return_eigenvectors=False)
        except ArpackNoConvergence:
            wanted, fix = f"a relative accuracy of {tolerance:g}", "Raise `most`, or accept a larger tolerance."
            raise ProbeError(DOING, "top eigenvalue", f"no convergence in {most} restarts", wanted, fix) from None
        except ArpackError as error:  # such as a Hessian of zeros, where every probability has become 0 or 1
            wanted, fix = "a Hessian that is not zero", "Look at the logits: the network is sure of everything."
            raise ProbeError(DOING, "top eigenvalue", f"{error}".rstrip("."), wanted, fix) from error
    return float(found[0])


def _check_images(images):
    if len(images) == 0:
        raise ProbeError(DOING, "images", "none", "at least one", "Pass some images of the training split.")
