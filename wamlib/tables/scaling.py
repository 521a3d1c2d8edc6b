"""What a scale factor does to a member, to the soup and to the logit ensemble."""

import itertools
from dataclasses import replace

import pandas as pd
import torch

from .. import ensemble, evaluate, probe
from ..merge import uniform_soup
from .evaluator import Evaluator

__all__ = ["scales"]


def scales(pool, dataset, factors, scopes, n_images=None):
    """Measure what a scale factor does to a member, to the soup and to the logit ensemble.

    Parameters
    ----------
    pool : list of Run
        Members of one pool; the member of the table is the first.
    dataset : wamlib.data.Dataset
    factors : sequence of float
        Scale factors c.
    scopes : sequence of str
        Scopes of `wamlib.probe.scale` that are defined for this architecture.
    n_images : int or None
        Use only the first so many test images, and half as many selection images.

    Returns
    -------
    DataFrame
        Columns combination (member, uniform soup, logit ensemble), scope, c, accuracy
        (percent), agreement with c = 1 (percent), calibration_error (points),
        refitted_calibration_error (after a temperature fitted on the selection split)
        and finite (share of finite logits, percent). Where logits overflow, the
        calibration columns are NaN.
    """
    if n_images is not None:
        sizes = {"test": n_images, "selection": n_images // 2}
        parts = {name: getattr(dataset, name).take(slice(0, size)) for name, size in sizes.items()}
        dataset = replace(dataset, **parts)
    evaluator = Evaluator(pool[0].config.model, dataset)
    members = [run.state for run in pool]
    # BatchNorm of the soup is recalibrated once, before scaling, so that c = 1 is a working model.
    soup = evaluator.load(uniform_soup(members), recalibrate=True).state_dict()
    soup = {key: value.detach().clone() for key, value in soup.items()}
    reference = _scaled_logits(evaluator, members, soup, 1.0, scopes[0])
    rows = []
    for scope, factor in itertools.product(scopes, factors):
        if scope == "learnable" and not evaluator.has_batchnorm and "everything" in scopes:
            continue  # without statistics this is "everything"; copied below
        logits = reference if factor == 1.0 else _scaled_logits(evaluator, members, soup, factor, scope)
        for combination, (test, selection) in logits.items():
            row = {"combination": combination, "scope": scope, "c": factor}
            rows.append(row | _scale_row(test, selection, reference[combination][0], dataset))
    table = pd.DataFrame(rows)
    if "learnable" in scopes and not (table.scope == "learnable").any():
        table = pd.concat([table, table[table.scope == "everything"].assign(scope="learnable")])
    order = {scope: index for index, scope in enumerate(scopes)}
    return table.sort_values("scope", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _scaled_logits(evaluator, members, soup, factor, scope):
    """Return (test, selection) logits of the first member, the soup and the logit ensemble, all scaled."""
    states = [probe.scale(state, factor, scope) for state in (*members, soup)]
    test, selection = ([evaluator.logits(state, split) for state in states] for split in ("test", "selection"))
    return {
        "member": (test[0], selection[0]),
        "uniform soup": (test[-1], selection[-1]),
        "logit ensemble": tuple(ensemble.logit_ensemble(part[:-1]) for part in (test, selection)),
    }


def _scale_row(logits, held_out, reference, dataset):
    finite = torch.isfinite(logits)
    row = {
        "accuracy": evaluate.accuracy(logits, dataset.test.labels),
        "agreement": evaluate.agreement(logits, reference),
        "finite": 100 * finite.double().mean().item(),
    }
    if not (finite.all() and torch.isfinite(held_out).all()):
        return row | {"calibration_error": float("nan"), "refitted_calibration_error": float("nan")}
    temperature = evaluate.fit_temperature(held_out, dataset.selection.labels)
    return row | {
        "calibration_error": evaluate.calibration_error(logits, dataset.test.labels),
        "refitted_calibration_error": evaluate.calibration_error(logits / temperature, dataset.test.labels),
    }
