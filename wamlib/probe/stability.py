"""How much predictions and logits change when the image does."""

import torch

from ..errors import ProbeError

__all__ = ["flip_rate", "logit_spread"]

DOING = "cannot measure stability"


def flip_rate(logits, noisy_logits):
    """Return the share of predictions that change as the image is spoilt, in percent.

    No factor on the logits changes it.

    Parameters
    ----------
    logits : Tensor, shape (sample, class)
        Of the images as they are.
    noisy_logits : Tensor, shape (draw, sample, class)
        Of the same images, spoilt anew in each draw.

    Returns
    -------
    float
        Mean over draws and images. An image with a logit that is not finite, before or after, counts as changed. A
        network that always names the same class has the rate 0: look at its accuracy.

    Raises
    ------
    ProbeError
        If the shapes do not belong together.
    """
    _check(logits, noisy_logits)
    finite = torch.isfinite(logits).all(-1) & torch.isfinite(noisy_logits).all(-1)
    same = finite & (noisy_logits.argmax(-1) == logits.argmax(-1))
    return 100 - 100 * same.double().mean().item()


def logit_spread(noisy_logits, temperature=1.0):
    """Return how far a logit strays from draw to draw of the noise.

    Parameters
    ----------
    noisy_logits : Tensor, shape (draw, sample, class)
        Of the same images, spoilt anew in each of at least two draws.
    temperature : float
        Logits are divided by it first, so that their scale is not taken for a lack of stability.

    Returns
    -------
    float
        Root mean square over images and classes of the standard deviation over draws (with one less than there are
        draws in the denominator), of logits whose mean over classes was taken off; it decides no probability. NaN
        where a logit is not finite.

    Raises
    ------
    ProbeError
        If there are fewer than two draws, or the temperature is not positive.
    """
    if noisy_logits.dim() != 3 or len(noisy_logits) < 2:
        wanted, fix = "(draw, sample, class) with at least two draws", "Stack the logits of two draws."
        raise ProbeError(DOING, "noisy_logits", f"shape {tuple(noisy_logits.shape)}", wanted, fix)
    if not temperature > 0:
        fix = "Fit one with wamlib.evaluate.fit_temperature."
        raise ProbeError(DOING, "temperature", repr(temperature), "a positive number", fix)
    wide = noisy_logits.double() / temperature
    return (wide - wide.mean(2, keepdim=True)).var(0).mean().sqrt().item()


def _check(logits, noisy_logits):
    if noisy_logits.dim() != 3 or noisy_logits.shape[1:] != logits.shape:
        item, fix = "noisy_logits", "Stack the logits of the draws, of the same images in the same order."
        raise ProbeError(DOING, item, f"shape {tuple(noisy_logits.shape)}", f"(draw, *{tuple(logits.shape)})", fix)
