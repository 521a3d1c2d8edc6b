"""Images changed on purpose, within a stated budget, so that a network errs."""

import math
import warnings
from numbers import Real

import torch
import torch.nn.functional as F

from ..config import derive_seed
from ..errors import ProbeError
from ..modes import eval_mode

__all__ = ["ATTACKS", "attack"]

DOING = "cannot attack"

ATTACKS = ("fgsm", "pgd")


def attack(model, split, *, budget, kind="fgsm", temperature=1.0, n_steps=10, seed=0, batch_size=250):
    """Change every image within a budget so that the cross-entropy of its label rises.

    Parameters
    ----------
    model : torch.nn.Module
        From normalised images to logits; `wamlib.ensemble.LogitEnsemble` for several networks that answer together.
        Evaluated in eval mode; left as it was.
    split : wamlib.data.Split
        Images with the labels that the attack leads away from, on the device of the model.
    budget : float
        How far a pixel may move, in units of 0 to 255.
    kind : {"fgsm", "pgd"}
        "fgsm" moves every pixel by the budget, once, in the direction of the gradient's sign. "pgd" begins at a
        random point of the budget and takes ``n_steps`` such steps of ``2.5 * budget / n_steps``, each followed by the
        way back into the budget.
    temperature : float
        Logits are divided by it first: of large logits the gradient of the cross-entropy vanishes, and a network
        would seem robust for nothing but its scale.
    n_steps : int
        Of "pgd".
    seed : int
        Fixes where "pgd" begins.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor, float32, shape (sample, channel, height, width)
        Pixels in [0, 255], none farther than the budget from the original. Not rounded, and not normalised.

    Raises
    ------
    ProbeError
        If the kind is unknown, or a number is none to attack with.

    References
    ----------
    Goodfellow et al. (2015), Explaining and Harnessing Adversarial Examples, Section 4, for "fgsm".
    https://arxiv.org/abs/1412.6572
    Madry et al. (2018), Towards Deep Learning Models Resistant to Adversarial Attacks, Sections 2.1 and 5, for "pgd".
    https://arxiv.org/abs/1706.06083
    """
    _check(kind, budget, temperature, n_steps)
    with warnings.catch_warnings():
        # Captum loads a progress bar, which misses the widgets of notebooks, and shows none here.
        warnings.filterwarnings("ignore", "IProgress not found")
        from captum.robust import FGSM, PGD

    def logits(pixels):
        return model(split.normalize(pixels)) / temperature

    def loss(outputs, labels):
        return F.cross_entropy(outputs, labels, reduction="none")

    method = (FGSM if kind == "fgsm" else PGD)(logits, loss, lower_bound=0.0, upper_bound=255.0)
    # Captum leaves a pixel alone whose gradient is below 1e-6, which a sure network's gradient is everywhere.
    getattr(method, "fgsm", method).zero_thresh = 0.0
    parts = []
    # Captum draws the beginning from the generator that all share, and warns at every step that it asks for a gradient.
    with eval_mode(model), torch.random.fork_rng(devices=_devices(split)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients", UserWarning)
        torch.manual_seed(derive_seed("attack", seed))
        for begin in range(0, len(split), batch_size):
            chunk = slice(begin, begin + batch_size)
            pixels, labels = split.images[chunk].float(), split.labels[chunk]
            if kind == "fgsm":
                moved = method.perturb(pixels, budget, labels)
            else:
                step = 2.5 * budget / n_steps
                moved = method.perturb(pixels, budget, step, n_steps, labels, random_start=True)
            parts.append(moved.detach())
    return torch.cat(parts)


def _devices(split):
    return [split.images.device] if split.images.is_cuda else []


def _check(kind, budget, temperature, n_steps):
    if kind not in ATTACKS:
        raise ProbeError(DOING, "kind", repr(kind), f"one of {', '.join(ATTACKS)}", "Correct the argument.")
    for item, number in (("budget", budget), ("temperature", temperature)):
        if not (isinstance(number, Real) and 0 < number < math.inf):
            raise ProbeError(DOING, item, repr(number), "a positive, finite number", "Correct the argument.")
    if n_steps < 1:
        raise ProbeError(DOING, "n_steps", repr(n_steps), "at least 1", "Take ten.")
