"""Structure of deep members, how alike they are, and what their soup is worth."""

import pandas as pd

from .. import align, evaluate, probe
from ..merge import uniform_soup
from .evaluator import Evaluator

__all__ = ["layer_similarity", "structure"]


def structure(pair, dataset, *, n_images=300, permuted=False):
    """Measure the structure of two members, their likeness, and the gain of their soup.

    Parameters
    ----------
    pair : list of Run
        Two members of one architecture.
    dataset : wamlib.data.Dataset
    n_images : int
        Test images that the effective templates are averaged over; accuracies are on all.
    permuted : bool
        Put the units of the second member into a random order first: it computes the same
        function, so its structure is the same.

    Returns
    -------
    DataFrame
        One row: own (correlation of a member's effective templates with the centred class
        means, mean over classes and the two members), null (with other classes' means),
        retrieval (percent), linear_share (see `wamlib.probe.effective_templates`), likeness
        (correlation between the two members' templates of a class), cosine (between their
        weights, mean over layers), first_cosine (of the first layer), member_accuracy and
        soup_accuracy (percent; BatchNorm recalibrated in both), gain (soup minus member,
        points), soup_own, and agreement (predictions that the second member keeps, percent).
    """
    evaluator = Evaluator(pair[0].config.model, dataset)
    few = dataset.test.take(slice(0, n_images))
    means = probe.class_means(dataset.train, len(dataset.classes)).to(dataset.test.images.device)
    a, b = (run.state for run in pair)
    before = evaluator.logits(b)
    if permuted:
        b = align.apply(align.random_permutation(evaluator.module, seed=pair[1].config.seed), b)
    soup = uniform_soup([a, b])
    recalibrate = evaluator.has_batchnorm
    errors = [evaluator.error(state, recalibrate=recalibrate) for state in (a, b, soup)]
    effective = [probe.effective_templates(evaluator.load(state), few) for state in (a, b)]
    matches = [probe.template_match(one.pictures, means) for one in effective]
    likeness = probe.template_match(effective[0].pictures, effective[1].pictures.double())
    of_soup = probe.effective_templates(evaluator.load(soup, recalibrate=recalibrate), few)
    cosines = list(probe.layer_cosines(a, b).values())
    off_diagonal = [(m.correlation.sum() - m.own.sum()).item() / (len(m.own) * (len(m.own) - 1)) for m in matches]
    return pd.DataFrame(
        [
            {
                "own": sum(m.own.mean().item() for m in matches) / 2,
                "null": sum(off_diagonal) / 2,
                "retrieval": sum(m.retrieval for m in matches) / 2,
                "linear_share": sum(one.linear_share for one in effective) / 2,
                "likeness": likeness.own.mean().item(),
                "cosine": sum(cosines) / len(cosines),
                "first_cosine": cosines[0],
                "member_accuracy": 100 - sum(errors[:2]) / 2,
                "soup_accuracy": 100 - errors[2],
                "gain": sum(errors[:2]) / 2 - errors[2],
                "soup_own": probe.template_match(of_soup.pictures, means).own.mean().item(),
                "agreement": evaluate.agreement(before, evaluator.logits(b)),
            }
        ]
    )


def layer_similarity(pair, *, permuted_by=None):
    """Return the cosine between two members' weights in each layer.

    Parameters
    ----------
    pair : list of Run
        Two members of one architecture.
    permuted_by : wamlib.align.Permutation or None
        Applied to the second member first.

    Returns
    -------
    DataFrame
        Columns layer (weight key), depth (from 1) and cosine.
    """
    a, b = (run.state for run in pair)
    cosines = probe.layer_cosines(a, b if permuted_by is None else align.apply(permuted_by, b))
    rows = [{"layer": key, "depth": depth, "cosine": c} for depth, (key, c) in enumerate(cosines.items(), start=1)]
    return pd.DataFrame(rows)
