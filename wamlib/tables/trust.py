"""Whether members, soups and ensembles know when they are wrong: calibration, selective prediction, detection."""

import math
from statistics import fmean

import pandas as pd
import torch

from .. import evaluate, probe
from ..config import derive_seed
from .answers import KINDS, answers_of
from .kept import kept

__all__ = ["image_statistics", "trust"]

COVERAGES = tuple(range(5, 101, 5))  # percent
N_DRAWS = 2  # of labels, for what a calibrated network's calibration error would be
OWN = {"at": 0, "images": "", "score": ""}  # of a row about own images
# Logarithms of mean probabilities are no logits: their exponentials sum to 1 for every image.
SCORES = {"probability ensemble": ("maximum probability",)}


@kept
def trust(pool, dataset, foreign, kinds=KINDS, *, coverages=COVERAGES, n_bins=15, predictions=None):
    """Measure how far members, soups and ensembles of a pool can be trusted.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    dataset : wamlib.data.Dataset
        The one they were trained on.
    foreign : dict of str to wamlib.data.Split
        Title to images of another kind, see `wamlib.data.foreign`; may be empty.
    kinds : sequence of str
        Which combinations, of `KINDS`; BatchNorm is recalibrated in soups. In a greedy soup, members are ranked and
        judged as they stand, by their logits on the selection split.
    coverages : sequence of float
        Shares of the test images that are answered, in percent.
    n_bins : int
        Of the confidence.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per number: combination, temperature ("raw", or "refitted": fitted on the selection split, to each
        member for itself and to ensembles behind the pooling), measure, value, and what it belongs to: ``at`` (number
        of the bin, or coverage in percent; else 0), ``images`` (title of the foreign ones, else "") and ``score``
        (of `wamlib.probe.SCORES`, else "").

        Measures: accuracy (percent), nll (nats), calibration error (points), calibration error by luck (points: the
        same if the labels were drawn from the network's own probabilities; refitted only), error area and excess
        error area (of `wamlib.probe.risk_coverage`), selective error (percent, one row per coverage), confidence, bin
        accuracy and share (percent, one row per bin that holds images), AUROC and false positives (percent, of
        `wamlib.probe.detection`). Of "member" each is the mean over the members, but bins hold the answers of all.
    """
    rows = []
    for name, answers in answers_of(pool, dataset, list(foreign.values()), kinds, predictions).items():
        fitted = [evaluate.fit_temperature(answer.selection, dataset.selection.labels) for answer in answers]
        for label, temperatures in (("raw", [1.0] * len(answers)), ("refitted", fitted)):
            divided = [answer.divided(t) for answer, t in zip(answers, temperatures, strict=True)]
            common = {"combination": name, "temperature": label}
            scores = SCORES.get(name, probe.SCORES)
            found = [_measure(answer, dataset, coverages) + _detect(answer, foreign, scores) for answer in divided]
            # Of every member the same rows, in the same order.
            means = [same[0] | {"value": fmean(row["value"] for row in same)} for same in zip(*found, strict=True)]
            # What a calibrated network would show is of use where calibration was tried.
            luck = [_luck(answer.test) for answer in divided] if label == "refitted" else []
            if luck:
                means.append(OWN | {"measure": "calibration error by luck", "value": fmean(luck)})
            bins = _bins(divided, dataset.test.labels, n_bins)
            rows += [common | row for row in [*means, *bins]]
    return pd.DataFrame(rows)


def image_statistics(dataset, foreign):
    """Detect foreign images without a network, by how far one number of an image is from its mean in training images.

    What such a number tells apart, a network need not understand anything to tell apart too.

    Parameters
    ----------
    dataset : wamlib.data.Dataset
    foreign : dict of str to wamlib.data.Split
        As for `trust`.

    Returns
    -------
    DataFrame
        One row per title and statistic: images, statistic ("mean pixel", or "roughness": mean absolute difference of
        pixels side by side), AUROC and false_positives of the test images against the foreign ones, in percent.
        The score is minus the distance from the mean over the training images.
    """
    rows = []
    for title, split in foreign.items():
        for name, of in (("mean pixel", _brightness), ("roughness", _roughness)):
            typical = of(dataset.train.images).mean()
            own, other = (-(of(images) - typical).abs() for images in (dataset.test.images, split.images))
            found = probe.detection(own, other)
            rows.append({"images": title, "statistic": name, "AUROC": found.auroc,
                         "false_positives": found.false_positives})  # fmt: skip
    return pd.DataFrame(rows)


def _brightness(images):
    return images.double().mean((1, 2, 3))


def _roughness(images):
    return images.double().diff(dim=3).abs().mean((1, 2, 3))


def _measure(answer, dataset, coverages):
    """Return the rows about the test images."""
    logits, labels = answer.test, dataset.test.labels
    curve = probe.risk_coverage(logits, labels)
    values = {
        "accuracy": evaluate.accuracy(logits, labels),
        "nll": evaluate.nll(logits, labels),
        "calibration error": evaluate.calibration_error(logits, labels),
        "error area": curve.area,
        "excess error area": curve.excess_area,
    }
    rows = [{"measure": name, "value": value} for name, value in values.items()]
    for coverage in coverages:
        position = math.ceil(coverage / 100 * len(labels) - 1e-9) - 1
        rows.append({"measure": "selective error", "at": coverage, "value": curve.error[position].item()})
    return [OWN | row for row in rows]


def _luck(logits):
    draw = torch.Generator().manual_seed(derive_seed("labels from probabilities", 0))
    probabilities = logits.double().softmax(1).cpu()
    drawn = [torch.multinomial(probabilities, 1, generator=draw).squeeze(1) for _ in range(N_DRAWS)]
    return sum(evaluate.calibration_error(logits.cpu(), labels) for labels in drawn) / N_DRAWS


def _detect(answer, foreign, scores):
    """Return the rows about foreign images."""
    rows, own = [], {score: probe.detection_scores(answer.test, score) for score in scores}
    for (title, score), logits in [((t, s), z) for t, z in zip(foreign, answer.foreign, strict=True) for s in scores]:
        found = probe.detection(own[score], probe.detection_scores(logits, score))
        for name, value in (("AUROC", found.auroc), ("false positives", found.false_positives)):
            rows.append({"measure": name, "at": 0, "images": title, "score": score, "value": value})
    return rows


def _bins(answers, labels, n_bins):
    """Return the rows of a reliability diagram of all answers together."""
    found = probe.reliability(torch.cat([answer.test for answer in answers]), labels.repeat(len(answers)), n_bins)
    names = ("confidence", "bin accuracy", "share")
    return [
        OWN | {"measure": name, "at": number, "value": part[number].item()}
        for number in range(n_bins) if found.share[number] > 0 for name, part in zip(names, found, strict=True)
    ]  # fmt: skip
