"""Structure of deep members, how alike they are, and what their soup is worth."""

from statistics import fmean

import pandas as pd

from .. import align, evaluate, probe
from ..merge import uniform_soup
from .evaluator import Evaluator

__all__ = ["layer_similarity", "structure"]


def structure(pair, dataset, *, n_images=None, n_gradients=300, permute=False):
    """Measure the structure of two members, their likeness, and the gain of their soup.

    Parameters
    ----------
    pair : list of Run
        Two members of one architecture.
    dataset : wamlib.data.Dataset
    n_images : int or None
        Use only the first so many test images for accuracies.
    n_gradients : int
        Test images that the effective templates are averaged over.
    permute : bool
        Add a row in which the units of the second member were put into a random order: it
        computes the same function, so its structure is the same.

    Returns
    -------
    DataFrame
        One row, or two: permuted (bool), own (correlation of a member's effective templates
        with the centred class means, mean over classes and the two members), null (with other
        classes' means), retrieval (percent), linear_share (see
        `wamlib.probe.effective_templates`), likeness (correlation between the two members'
        templates of a class), cosine (between their weights, mean over layers), first_cosine
        (of the first layer), member_accuracy and soup_accuracy (percent; BatchNorm recalibrated
        in both), gain (soup minus member, points), soup_own, and agreement (predictions that the
        second member keeps, percent).
    """
    evaluator = Evaluator(pair[0].config.model, dataset)
    a, b = (run.state for run in pair)
    others = {False: b}
    if permute:
        others[True] = align.apply(align.random_permutation(evaluator.module, seed=pair[1].config.seed), b)
    measure = _Measure(evaluator, n_images, n_gradients)
    of_a, of_b = measure(a), measure(b)
    rows = []
    for permuted, other in others.items():
        members, soup = (of_a, of_b if other is b else measure(other)), measure(uniform_soup([a, other]))
        cosines = list(probe.layer_cosines(a, other).values())
        accuracy = fmean(one["accuracy"] for one in members)
        likeness = probe.template_match(members[0]["pictures"], members[1]["pictures"])
        mean = {name: fmean(one[name] for one in members) for name in ("own", "null", "retrieval", "linear_share")}
        rows.append(
            {
                "permuted": permuted,
                **mean,
                "likeness": likeness.own.mean().item(),
                "cosine": fmean(cosines),
                "first_cosine": cosines[0],
                "member_accuracy": accuracy,
                "soup_accuracy": soup["accuracy"],
                "gain": soup["accuracy"] - accuracy,
                "soup_own": soup["own"],
                "agreement": evaluate.agreement(members[1]["logits"], of_b["logits"]),
            }
        )
    return pd.DataFrame(rows)


class _Measure:
    """Effective templates and accuracy of one set of weights."""

    def __init__(self, evaluator, n_images, n_gradients):
        self.evaluator, dataset = evaluator, evaluator.dataset
        self.images = dataset.test if n_images is None else dataset.test.take(slice(0, n_images))
        self.few = dataset.test.take(slice(0, n_gradients))
        self.means = probe.class_means(dataset.train, len(dataset.classes)).to(dataset.test.images.device)

    def __call__(self, state):
        module = self.evaluator.load(state, recalibrate=self.evaluator.has_batchnorm)
        logits = evaluate.predict_logits(module, self.images)
        effective = probe.effective_templates(module, self.few)
        match = probe.template_match(effective.pictures, self.means)
        k = len(self.means)
        return {
            "logits": logits,
            "accuracy": evaluate.accuracy(logits, self.images.labels),
            "pictures": effective.pictures,
            "linear_share": effective.linear_share,
            "own": match.own.mean().item(),
            "null": (match.correlation.sum() - match.own.sum()).item() / (k * (k - 1)),
            "retrieval": match.retrieval,
        }


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
