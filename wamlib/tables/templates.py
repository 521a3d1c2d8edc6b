"""Weight rows of linear members against the class means, and against where training would end."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from .. import evaluate, probe
from ..errors import ProbeError
from ..merge import uniform_soup
from ..stats import permutation_p
from .evaluator import as_read_by

__all__ = ["optima", "stationarity", "template_matches"]


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
        One row per member: group, weight_decay, seed, own and raw (mean correlation with the
        centred and the plain mean of the own class), null (mean correlation with the
        other classes' centred means), p (one-sided, of ``own`` under permuted
        classes), retrieval, null_retrieval and p_retrieval (percent; mean and p-value under
        the same permutations), accuracy and selection_accuracy (percent).
    """
    n_classes, shape = len(dataset.classes), dataset.test.images.shape[1:]
    centred, raw = (probe.class_means(dataset.train, n_classes, centred=flag).cpu() for flag in (True, False))
    generator = torch.Generator().manual_seed(0)
    rows = []
    for group, run in ((group, run) for group, runs in groups.items() for run in runs):
        pictures = probe.templates(run.state, shape)
        match = probe.template_match(pictures, centred)
        orders = torch.stack([torch.randperm(n_classes, generator=generator) for _ in range(n_permutations)])
        null = match.correlation[torch.arange(n_classes), orders].mean(1)
        # Retrieval under the same permutations: how many rows have their best match in the permuted class.
        null_retrieval = 100 * (match.correlation.argmax(1) == orders).double().mean(1)
        own = match.own.mean().item()
        others = (match.correlation.sum() - match.own.sum()).item() / (n_classes * (n_classes - 1))
        rows.append(
            {
                "group": group,
                "weight_decay": run.config.weight_decay,
                "seed": run.config.seed,
                "own": own,
                "raw": probe.template_match(pictures, raw).own.mean().item(),
                "null": others,
                "p": permutation_p(own, null.numpy()),
                "retrieval": match.retrieval,
                "null_retrieval": null_retrieval.mean().item(),
                "p_retrieval": permutation_p(match.retrieval, null_retrieval.numpy()),
                "accuracy": run.record["metrics"]["test"]["accuracy"],
                "selection_accuracy": run.record["metrics"]["selection"]["accuracy"],
            }
        )
    return pd.DataFrame(rows)


def stationarity(groups, dataset):
    """Compare the rows of linear members with what holds at a stationary point of their training.

    There, with :math:`w_k` row and bias of class k and x the image with a 1 appended,
    :math:`\\lambda w_k = E[(1[y=k] - p_k(x))\\,x]`; and where the decay is so strong that
    every probability is near 1/K, :math:`\\lambda w_k = E[(1[y=k] - 1/K)\\,x]`, which is the
    centred class mean divided by K if the classes are of one size.

    Parameters
    ----------
    groups : dict of list of Run
        As `wamlib.sweeps.linear_members` names them; members without decay are left out, for
        they have no stationary point to be near to.
    dataset : wamlib.data.Dataset

    Returns
    -------
    DataFrame
        One row per member and one for the uniform soup of each group: group, weight_decay,
        combination ("member" or "uniform soup"), residual (distance of the rows from the first
        right-hand side, percent of their norm), limit_correlation (of each row with the second,
        over pixels, mean over classes) and confidence (mean largest probability on the
        training images, percent).
    """
    one_hot = F.one_hot(dataset.train.labels, len(dataset.classes)).float()
    rows = []
    for group, runs in groups.items():
        config = runs[0].config
        if config.weight_decay == 0 or config.shuffle_labels:
            continue
        train = as_read_by(runs[0], dataset).train
        images = F.pad(train.normalize(train.images).flatten(1), (0, 1), value=1.0)
        limit = (one_hot - 1 / len(dataset.classes)).T @ images / len(images)
        states = [run.state for run in runs]
        states.append(uniform_soup(states))
        # All of them below each other: one product with the images instead of many thin ones.
        weights = torch.cat([torch.cat([s["head.weight"], s["head.bias"][:, None]], 1) for s in states])
        probabilities = (images @ weights.T).unflatten(1, (len(states), -1)).softmax(2)
        right = (one_hot[:, None] - probabilities).flatten(1).T @ images / len(images) / config.weight_decay
        for number, (row, wanted) in enumerate(zip(weights.chunk(len(states)), right.chunk(len(states)), strict=True)):
            rows.append(
                {
                    "group": group,
                    "weight_decay": config.weight_decay,
                    "combination": "member" if number < len(runs) else "uniform soup",
                    "residual": 100 * ((row - wanted).norm() / row.norm()).item(),
                    "limit_correlation": probe.template_match(row[:, :-1], limit[:, :-1]).own.mean().item(),
                    "confidence": 100 * probabilities[:, number].max(1).values.mean().item(),
                }
            )
    return pd.DataFrame(rows)


def optima(dataset, weight_decays):
    """Solve the linear classifier to its optimum, and compare its rows with the class means.

    The solver is scikit-learn's L-BFGS: it shares no code with training, and no number of
    epochs decides where it stops.

    Parameters
    ----------
    dataset : wamlib.data.Dataset
    weight_decays : sequence of float
        Positive; below about 1e-3 the optimum is so far away that the solver takes minutes.

    Returns
    -------
    DataFrame
        Columns weight_decay, own (mean correlation with the centred mean of the own class)
        and accuracy (percent).

    Raises
    ------
    ProbeError
        If there are two classes only: the solver then has one row for both.
    """
    from sklearn.linear_model import LogisticRegression

    n_classes = len(dataset.classes)
    if n_classes < 3:
        raise ProbeError(
            "cannot solve the linear classifier",
            item=dataset.name,
            got=f"{n_classes} classes",
            wanted="at least 3",
            fix="Use a data set with more classes.",
        )
    means = probe.class_means(dataset.train, n_classes).cpu()
    train, test = (F.pad(s.normalize(s.images).flatten(1), (0, 1), value=1.0) for s in (dataset.train, dataset.test))
    rows = []
    for decay in weight_decays:
        # The bias is a weight of the constant 1, because training decays it too. scikit-learn's
        # sum of losses plus |w|^2 / (2 C) is ours for C = 1 / (n decay).
        model = LogisticRegression(C=1 / (len(train) * decay), fit_intercept=False, tol=1e-4, max_iter=1000)
        model.fit(train.cpu().numpy(), dataset.train.labels.cpu().numpy())
        weights = torch.from_numpy(np.asarray(model.coef_, dtype=np.float64))
        logits = test.cpu().double() @ weights.T
        match = probe.template_match(weights[:, :-1].reshape(means.shape), means)
        accuracy = evaluate.accuracy(logits, dataset.test.labels.cpu())
        rows.append({"weight_decay": decay, "own": match.own.mean().item(), "accuracy": accuracy})
    return pd.DataFrame(rows)
