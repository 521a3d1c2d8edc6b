"""Members of a reader's own: the lines between them, and what each option was expected to give and gives."""

import copy

import pandas as pd
import torch

from .. import advise as advising
from .. import evaluate
from ..advise.measuring import difference
from ..ensemble import logit_ensemble
from ..merge import greedy_soup, recalibrate_batchnorm, strip_prefixes, uniform_soup

__all__ = ["lines", "outcomes"]


def lines(measured, names, at_most=3):
    """Return the lines between pairs of members as a table that `wamlib.plot.error_along_path` draws.

    Parameters
    ----------
    measured : wamlib.advise.Measured
    names : sequence of str
        What to call the members.
    at_most : int
        Take so many pairs, the first.

    Returns
    -------
    DataFrame
        Columns model (empty), start (the pair), replica, alpha, error (percent, on the selection images), recalibrated.
    """
    rows = [
        {"model": "", "start": f"{names[pair.a]} to {names[pair.b]}", "replica": 0, "alpha": alpha, "error": error,
         "recalibrated": measured.recalibrated}
        for pair in measured.pairs[:at_most] for alpha, error in zip(pair.alphas, pair.errors, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def outcomes(advice, members, model, dataset, training_batches):
    """Make what the advice speaks of, and measure it on images that had no part in the advice.

    Parameters
    ----------
    advice : wamlib.advise.Advice
    members : sequence of dict of str to Tensor
        Those that were asked about.
    model : torch.nn.Module
        Of their architecture. Left as it is.
    dataset : wamlib.data.Dataset
        Its selection images were asked on, and choose the best member and the greedy soup; its test images measure.
    training_batches : sequence of Tensor
        To recalibrate the BatchNorm of merged networks.

    Returns
    -------
    DataFrame
        A row per option: option ("best member", "uniform soup", "greedy soup", "aligned soup" if the advice tried it,
        "logit ensemble"), passes (forward passes of a prediction), expected (gain over the mean of the members on the
        selection images, points; predicted for soups but the greedy one), accuracy (percent, test images), gain (over
        the mean of the members there, points) and noise (standard error of the gain).
    """
    measured, model, members = advice.measured, copy.deepcopy(model), [strip_prefixes(member) for member in members]

    def right(state, split, recalibrate):
        model.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(model, training_batches)
        return (evaluate.predict_logits(model, split).argmax(1) == split.labels).double().cpu()

    logits = []
    for state in members:
        model.load_state_dict(state)
        logits.append(evaluate.predict_logits(model, dataset.test))
    labels = dataset.test.labels
    each = torch.stack([(part.argmax(1) == labels).double().cpu() for part in logits])
    best = measured.accuracies.index(max(measured.accuracies))

    def score(state):
        return 100 * right(state, dataset.selection, True).mean().item()

    greedy = greedy_soup(members, score)
    alone = greedy.accepted[0] if len(greedy.accepted) == 1 else None  # that member, which nobody recalibrates
    chosen = {
        "best member": each[best],
        "uniform soup": right(uniform_soup(members), dataset.test, True),
        "greedy soup": right(greedy.state, dataset.test, True) if alone is None else each[alone],
    }
    if "aligned soup" in measured.options:
        chosen["aligned soup"] = right(uniform_soup(advising.aligned(members, model)), dataset.test, True)
    chosen["logit ensemble"] = (logit_ensemble(logits).argmax(1) == labels).double().cpu()
    mean = sum(measured.accuracies) / len(members)
    expected = {name: measured.gain(name)[0] for name in measured.options}
    expected["best member"] = measured.accuracies[best] - mean
    expected["greedy soup"] = (score(greedy.state) if alone is None else measured.accuracies[alone]) - mean
    rows = []
    for option, found in chosen.items():
        gain, noise = difference(found, each.mean(0))
        rows.append({"option": option, "passes": len(members) if option == "logit ensemble" else 1,
                     "expected": expected[option], "accuracy": 100 * found.mean().item(), "gain": gain,
                     "noise": noise})  # fmt: skip
    return pd.DataFrame(rows)
