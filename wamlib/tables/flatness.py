"""How flat the training loss is around a member and around a soup."""

import numpy as np
import pandas as pd

from .. import probe
from ..merge import uniform_soup
from .evaluator import Evaluator
from .kept import kept

__all__ = ["flatness", "sharpness"]


@kept
def flatness(pool, dataset, *, n_directions=3, n_steps=7, n_images=200, predictions=None):
    """Measure the training loss along random directions from the first member and from the soup.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    n_directions : int
        Directions, each filter-normalised; the same draw for member and soup.
    n_steps : int
        Equal steps from -1, over 0, to 1; odd.
    n_images : int
        Use only the first so many training images.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        Columns network ("member", "uniform soup"), direction, step and loss (nats). BatchNorm is
        recalibrated in both, at step 0, and stays so.
    """
    steps, rows = np.linspace(-1, 1, n_steps).round(6).tolist(), []
    for network, module, images, labels in _networks(pool, dataset, n_images):
        state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        for number in range(n_directions):
            direction = probe.filter_normalised_direction(state, number)
            losses = probe.loss_along(module, state, direction, steps, images, labels)
            rows += [
                {"network": network, "direction": number, "step": step, "loss": loss}
                for step, loss in zip(steps, losses, strict=True)
            ]
    return pd.DataFrame(rows)


@kept
def sharpness(pool, dataset, *, n_images=100, tolerance=0.01, predictions=None):
    """Measure the top eigenvalue of the Hessian of the training loss, at each member and at the soup.

    Parameters
    ----------
    pool, dataset, predictions
        As for `flatness`.
    n_images : int
        Use only the first so many training images.
    tolerance : float
        Relative accuracy.

    Returns
    -------
    DataFrame
        Columns network ("member", one row for each; "uniform soup") and eigenvalue. BatchNorm is recalibrated in
        all.
    """
    rows = [
        {"network": network, "eigenvalue": probe.top_hessian_eigenvalue(module, images, labels, tolerance=tolerance)}
        for network, module, images, labels in _networks(pool, dataset, n_images, n_members=len(pool))
    ]
    return pd.DataFrame(rows)


def _networks(pool, dataset, n_images, n_members=1):
    """Yield the first members and the soup of all, with training images as the networks read them, and labels."""
    evaluator = Evaluator(pool[0].config.model, dataset)
    split = dataset.train.take(slice(0, n_images))
    states = [run.state for run in pool]
    shown = [*(("member", state) for state in states[:n_members]), ("uniform soup", uniform_soup(states))]
    for network, state in shown:
        yield network, evaluator.load(state, recalibrate=True), split.normalize(split.images), split.labels
