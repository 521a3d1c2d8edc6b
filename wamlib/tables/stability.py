"""How stable networks are under noise, and what a scale factor changes about it."""

import copy
from dataclasses import dataclass, replace

import pandas as pd
import torch

from .. import data, ensemble, evaluate, probe
from ..errors import ProbeError
from ..merge import uniform_soup
from ..predictions import fingerprint
from .evaluator import Evaluator
from .kept import kept

__all__ = ["stability"]

N_SELECTION = 200  # selection images that temperatures are fitted on


@kept
def stability(pool, dataset, factors, *, n_images=200, n_draws=2, severity=5, n_jacobians=24, n_iterations=5,
              predictions=None):  # fmt: skip
    """Measure how stable networks are under noise, and what a scale factor changes about it.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    factors : dict of str to sequence of float
        Scopes of `wamlib.probe.scale` to scale factors c. At c = 1 all members, the soup and the ensemble are
        measured; at others the first member and the soup, BatchNorm recalibrated before it is scaled. A scope that is
        not defined for the architecture is left out.
    n_images : int
        Use only the first so many test images.
    n_draws : int
        Draws of the noise for each image, at least two.
    severity : int
        Of the Gaussian noise, from 1 to 5 (`wamlib.data.corrupt`).
    n_jacobians : int
        Local Lipschitz constants are estimated for the first so many images.
    n_iterations : int
        Of power iteration, see `wamlib.probe.local_lipschitz`.
    predictions : wamlib.predictions.Predictions or None
        Where the table is kept.

    Returns
    -------
    DataFrame
        One row per scope, factor and network: scope, c, network ("member 0", "member 1", ..., "uniform soup",
        "logit ensemble"), combination (the same without the number), temperature (fitted on selection images),
        accuracy (percent, without noise), flip_rate (percent), lipschitz (mean over images) and spread (see
        `wamlib.probe.logit_spread`) of the logits divided by that temperature, plain_lipschitz and plain_spread of the
        logits as they are, and finite (share of images with only finite logits, noisy or not, percent). Where a logit
        is not finite, temperature, lipschitz and spread are NaN, and the image counts as wrong and as changed.

    Raises
    ------
    ProbeError
        If a scope is unknown, or there are fewer than two draws.
    """
    if unknown := [scope for scope in factors if scope not in probe.SCOPES]:
        raise ProbeError("cannot measure stability", item="scope", got=repr(unknown[0]),
                         wanted=f"one of {', '.join(probe.SCOPES)}", fix="Correct the name.")  # fmt: skip
    evaluator = Evaluator.of_first(pool, dataset, n_images, N_SELECTION)
    bench = _Bench(evaluator, n_draws, severity, n_jacobians, n_iterations)
    everybody = members_and_soup(pool, evaluator)
    rows, known = [], {}
    for scope, factor in [(scope, factor) for scope, several in factors.items() for factor in several]:
        shown = everybody if factor == 1 else {name: everybody[name] for name in ("member 0", "uniform soup")}
        try:
            scaled = {name: probe.scale(state, factor, scope) for name, state in shown.items()}
        except ProbeError:
            continue  # as of the ViT, whose LayerNorm does not pass scale on
        key = fingerprint(scaled["member 0"])  # scopes may multiply the same tensors, and at c = 1 all do
        if key not in known:
            known[key] = bench.measure(scaled, with_ensemble=factor == 1)
        rows += [{"scope": scope, "c": factor, **row} for row in known[key]]
    return pd.DataFrame(rows)


@dataclass
class _Bench:
    """What the networks of one pool are shown, and what is measured of them."""

    evaluator: Evaluator
    n_draws: int
    severity: int
    n_jacobians: int
    n_iterations: int

    def __post_init__(self):
        split = self.evaluator.dataset.test
        draws = [data.corrupt(split.images, "gaussian noise", self.severity, seed) for seed in range(self.n_draws)]
        labels = split.labels.repeat(1 + self.n_draws)
        self.shown = replace(split, images=torch.cat([split.images, *draws]), labels=labels)
        self.jacobians_at = split.normalize(split.images[: self.n_jacobians])

    def measure(self, states, with_ensemble):
        """Return one row per network."""
        modules = {name: copy.deepcopy(self.evaluator.load(state)) for name, state in states.items()}
        logits = {name: self.look(module) for name, module in modules.items()}
        if with_ensemble:
            members = [name for name in modules if name.startswith("member")]
            modules["logit ensemble"] = ensemble.LogitEnsemble([modules[name] for name in members])
            pairs = zip(*(logits[name] for name in members), strict=True)
            logits["logit ensemble"] = tuple(torch.stack(pair).mean(0) for pair in pairs)
        return [{"network": name, "combination": name.rstrip("0123456789 "), **self.row(module, *logits[name])}
                for name, module in modules.items()]  # fmt: skip

    def look(self, module):
        """Return logits on the selection images, and on the test images without noise and with each draw of it."""
        held_out = evaluate.predict_logits(module, self.evaluator.dataset.selection)
        return held_out, evaluate.predict_logits(module, self.shown).unflatten(0, (1 + self.n_draws, -1))

    def row(self, module, held_out, logits):
        clean, noisy = logits[0], logits[1:]
        finite = torch.isfinite(logits).all(-1)
        right = finite[0] & (clean.argmax(1) == self.evaluator.dataset.test.labels)
        row = {"accuracy": 100 * right.double().mean().item(), "flip_rate": probe.flip_rate(clean, noisy),
               "finite": 100 * finite.double().mean().item()}  # fmt: skip
        nothing = float("nan")
        if not (finite.all() and torch.isfinite(held_out).all()):
            names = ("temperature", "lipschitz", "spread", "plain_lipschitz", "plain_spread")
            return row | dict.fromkeys(names, nothing)
        fitted = temperature(held_out, self.evaluator)
        steepest = probe.local_lipschitz(module, self.jacobians_at, n_iterations=self.n_iterations).mean().item()
        return row | {
            "temperature": fitted,
            "lipschitz": steepest / fitted,
            "spread": probe.logit_spread(noisy, fitted),
            "plain_lipschitz": steepest,
            "plain_spread": probe.logit_spread(noisy),
        }


def members_and_soup(pool, evaluator):
    """Return members and uniform soup by name, BatchNorm of the soup recalibrated."""
    networks = {f"member {index}": run.state for index, run in enumerate(pool)}
    return networks | {"uniform soup": evaluator.recalibrated(uniform_soup(list(networks.values())))}


def temperature(held_out, evaluator):
    """Return the temperature that suits logits on the selection images."""
    return evaluate.fit_temperature(held_out, evaluator.dataset.selection.labels)
