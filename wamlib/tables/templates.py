"""Weight rows of linear members against the class means."""

import pandas as pd
import torch

from .. import probe
from ..stats import permutation_p

__all__ = ["template_matches"]


def template_matches(groups, dataset, *, n_permutations=999):
    """Compare the rows of linear members with the class means of the images.

    Parameters
    ----------
    groups : dict of list of Run
        As `wamlib.sweeps.linear_members` names them.
    dataset : wamlib.data.Dataset
    n_permutations : int
        Permutations of the classes for the null distribution.

    Returns
    -------
    DataFrame
        One row per member: group, weight_decay, own and raw (mean correlation with the
        centred and the plain mean of the own class), null (mean correlation with the
        other classes' centred means), p (one-sided, of ``own`` under permuted
        classes), retrieval (percent), accuracy (percent).
    """
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    centred, raw = (probe.class_means(dataset.train, n_classes, centred=flag).cpu() for flag in (True, False))
    generator = torch.Generator().manual_seed(0)
    rows = []
    for group, run in ((group, run) for group, runs in groups.items() for run in runs):
        pictures = probe.templates(run.state, shape)
        match = probe.template_match(pictures, centred)
        orders = [torch.randperm(n_classes, generator=generator) for _ in range(n_permutations)]
        null = [match.correlation[torch.arange(n_classes), order].mean().item() for order in orders]
        own = match.own.mean().item()
        others = (match.correlation.sum() - match.own.sum()).item() / (n_classes * (n_classes - 1))
        rows.append(
            {
                "group": group,
                "weight_decay": run.config.weight_decay,
                "own": own,
                "raw": probe.template_match(pictures, raw).own.mean().item(),
                "null": others,
                "p": permutation_p(own, null),
                "retrieval": match.retrieval,
                "accuracy": run.record["metrics"]["test"]["accuracy"],
            }
        )
    return pd.DataFrame(rows)
