"""What accuracy costs in training."""

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ..probe.second_order import plain_attention
from .evaluator import Evaluator

__all__ = ["training_costs"]


def training_costs(groups, dataset):
    """Compare accuracy with the floating-point operations of training.

    Parameters
    ----------
    groups : dict of tuple of (str, str, int) to list of Run
        Members by architecture, recipe and epochs, see `wamlib.sweeps.recipe_members`.
    dataset : wamlib.data.Dataset
        That they were trained on.

    Returns
    -------
    DataFrame
        One row per member: model, recipe, epochs, replica, accuracy (percent, test images), nll (nats), gflops
        (billion operations of all forward and backward passes, a multiplication with its addition counted as two;
        the optimizer's own are left out) and seconds (of training, on the machine that trained it).
    """
    rows, per_image = [], {}
    for (model, recipe, epochs), runs in groups.items():
        if model not in per_image:
            per_image[model] = _operations(model, dataset)
        for replica, run in enumerate(runs):
            metrics = run.record["metrics"]["test"]
            rows.append({
                "model": model, "recipe": recipe, "epochs": epochs, "replica": replica,
                "accuracy": metrics["accuracy"], "nll": metrics["nll"],
                "gflops": per_image[model] * epochs * len(dataset.train) / 1e9, "seconds": run.record["seconds"],
            })  # fmt: skip
    return pd.DataFrame(rows)


def _operations(model, dataset):
    """Return the operations of one forward and backward pass, per image."""
    module = Evaluator(model, dataset).module.train()
    images, labels = next(iter(dataset.train.take(slice(0, 4)).batches()))
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter, plain_attention():
        F.cross_entropy(module(images), labels).backward()
    return counter.get_total_flops() / len(labels)
