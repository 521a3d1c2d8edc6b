"""How far a small change of an image can move the logits: the local Lipschitz constant."""

import torch
from torch.func import vjp

from ..config import derive_seed
from ..errors import ProbeError
from ..modes import eval_mode
from .second_order import plain_attention

__all__ = ["local_lipschitz"]


def local_lipschitz(model, images, *, temperature=1.0, n_iterations=20, seed=0):
    """Estimate the largest singular value of the Jacobian of the logits, image by image.

    .. math:: \\sigma(x) = \\max_{\\lVert v \\rVert = 1} \\lVert J(x)\\, v \\rVert_2 ,
              \\qquad J(x) = \\frac{1}{T} \\frac{\\partial}{\\partial x}
              \\Big( f(x) - \\tfrac1K \\textstyle\\sum_k f_k(x) \\Big)

    by power iteration. Each image's mean over classes is taken off the logits, because no probability follows
    from it. Every iteration brings the estimate nearer, and always from below.

    Parameters
    ----------
    model : torch.nn.Module
        Evaluated in eval mode, so that no image sees another; left as it was.
    images : Tensor, shape (sample, channel, height, width)
        Normalised, all at once. Their dtype is the one that all is computed in.
    temperature : float
        The T that logits are divided by: networks of different confidence are comparable only after it.
    n_iterations : int
        Products with the Jacobian and with its transpose, each.
    seed : int
        Fixes the direction that the iteration begins with.

    Returns
    -------
    Tensor, shape (sample,)
        In logits per standard deviation of a pixel (Euclidean norm over classes and over pixels). NaN where the
        logits are not finite.

    Raises
    ------
    ProbeError
        If the temperature is not positive or there is no iteration.

    References
    ----------
    Szegedy et al. (2014), Intriguing properties of neural networks, Section 4.3, for instability by spectral norms. https://arxiv.org/abs/1312.6199
    Golub and Van Loan (2013), Matrix Computations, Section 8.2, for power iteration.
    """
    doing = "cannot estimate a local Lipschitz constant"
    if not temperature > 0:
        fix = "Fit one with wamlib.evaluate.fit_temperature."
        raise ProbeError(doing, "temperature", repr(temperature), "a positive number", fix)
    if n_iterations < 1:
        raise ProbeError(doing, "n_iterations", repr(n_iterations), "at least 1", "Twenty are enough for ten classes.")

    def centred(pixels):
        logits = model(pixels) / temperature
        return logits - logits.mean(1, keepdim=True)

    with eval_mode(model), torch.no_grad(), plain_attention():
        logits, transposed = vjp(centred, images)
        generator = torch.Generator().manual_seed(derive_seed("local lipschitz", seed))
        # One direction for all images, and none of them computed from the others.
        direction = torch.randn(logits.shape[1], generator=generator, dtype=torch.float64).to(logits).expand_as(logits)
        # The product with the transpose is linear, and its transpose is the product with the Jacobian: a third of the
        # cost of a forward derivative, which would run through the network again.
        _, forward = vjp(lambda classes: transposed(classes)[0], torch.zeros_like(logits))
        for _ in range(n_iterations):
            pixels = _unit(transposed(_unit(direction))[0])
            (direction,) = forward(pixels)
    return direction.norm(dim=1)


def _unit(vectors):
    """Return the vectors with norm 1, those of norm 0 (of a logit that nothing moves) as they are."""
    norms = vectors.flatten(1).norm(dim=1).view(-1, *[1] * (vectors.dim() - 1))
    return vectors / torch.where(norms > 0, norms, 1)
