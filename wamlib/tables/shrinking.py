"""Does a soup gain because its weights are shorter? A member is shrunk, and a soup restored."""

from dataclasses import replace
from statistics import fmean

import pandas as pd

from .. import evaluate, probe
from ..merge import uniform_soup
from .evaluator import Evaluator
from .kept import kept

__all__ = ["shrinking"]


N_SELECTION = 500  # selection images that one temperature is fitted on


@kept
def shrinking(pool, dataset, predictions=None):
    """Give members the norms of their soup, and the soup the norms of its members.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per network: "member", "uniform soup", "member shrunk" (each learnable tensor brought to
        the norm that it has in the soup) and "soup restored" (each brought to the mean of its norms in the
        members). Columns accuracy (percent), nll and refitted_nll (nats; after a temperature fitted on the
        selection split), and norm_ratio (norm over the members' mean). Of members the mean over all is
        taken. BatchNorm is recalibrated in all of them alike.
    """
    selection = dataset.selection.take(slice(0, N_SELECTION))
    evaluator = Evaluator(pool[0].config.model, replace(dataset, selection=selection), predictions)
    members = [run.state for run in pool]
    soup = uniform_soup(members)
    norms = [probe.layer_norms(member) for member in members]
    mean_norms = {key: fmean(one[key] for one in norms) for key in norms[0]}
    shrunk = [probe.rescale_to(member, probe.layer_norms(soup)) for member in members]
    networks = {
        "member": members,
        "uniform soup": [soup],
        "member shrunk": shrunk,
        "soup restored": [probe.rescale_to(soup, mean_norms)],
    }
    # Without BatchNorm there is nothing to recalibrate, and what a member predicts is known from its training.
    known = {} if evaluator.has_batchnorm else {id(run.state): run.logits for run in pool}
    usual = fmean(probe.weight_norm(member) for member in members)
    rows = []
    for name, states in networks.items():
        measured = pd.DataFrame([_measure(evaluator, state, known.get(id(state))) for state in states]).mean()
        norm = fmean(probe.weight_norm(state) for state in states)
        rows.append({"network": name, **measured, "norm_ratio": norm / usual})
    return pd.DataFrame(rows)


def _measure(evaluator, state, known):
    labels, device = evaluator.dataset.test.labels, evaluator.dataset.test.images.device
    if known is None:
        test, held_out = evaluator.logits(state, ("test", "selection"), recalibrate=True)
    else:
        test, held_out = (known[split].to(device) for split in ("test", "selection"))
        held_out = held_out[: len(evaluator.dataset.selection.labels)]
    temperature = evaluate.fit_temperature(held_out, evaluator.dataset.selection.labels)
    return {
        "accuracy": evaluate.accuracy(test, labels),
        "nll": evaluate.nll(test, labels),
        "refitted_nll": evaluate.nll(test / temperature, labels),
    }
