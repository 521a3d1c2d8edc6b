"""The corrected protocol turned into the released one, step by step."""

from dataclasses import replace

import pandas as pd
import torch.nn.functional as F

from .. import ensemble, evaluate, released
from ..merge import greedy_soup, uniform_soup
from ..predictions import fingerprint
from .evaluator import Evaluator
from .kept import kept

__all__ = ["RELEASED_STEPS", "protocol_steps", "train_mode_gaps"]

# What each step adds to the one before; the first is the corrected protocol.
RELEASED_STEPS = {
    "corrected": "flips and crops, shared start, eval mode",
    "D5": "no augmentation",
    "D2, D9": "parts of the start drawn anew",
    "D6": "twice the learning rate",
    "D4": "other normalisation",
    "D1": "train mode",
    "D3": "features before the last norm",
    "D7": "leaked selection",
    "D8": "greedy soup by halves",
}
ARMS = {"corrected": "augmented", "D5": "this book's recipe", "D2, D9": "released start", "D6": "released training"}


@kept
def protocol_steps(arms, dataset, *, n_selection=500, predictions=None):
    """Score members, soups and ensembles of one architecture as the released protocol is built up.

    Parameters
    ----------
    arms : dict of str to list of Run
        The pools of one architecture and replica, as `wamlib.sweeps.protocol_pools` names its arms.
    dataset : wamlib.data.Dataset
    n_selection : int
        Use only the first so many selection images.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per step and combination: step (of `RELEASED_STEPS`, each with all that came before), combination
        and accuracy (percent). A step that changes nothing about a combination repeats its score. BatchNorm is
        recalibrated in soups until training mode (D1) does away with running statistics.
    """
    dataset = replace(dataset, selection=dataset.selection.take(slice(0, n_selection)))
    found = {}
    for step, arm in ARMS.items():
        scores = Scores(arms[arm], dataset, predictions)
        found[step] = scores.in_eval_mode() | scores.greedy()
    last = Scores(arms[ARMS["D6"]], replace(dataset, test=released.with_other_normalisation(dataset.test)), predictions)
    found["D4"] = last.in_eval_mode() | last.greedy()
    found["D1"] = last.in_train_mode() | last.greedy(in_train_mode=True)
    found["D3"] = found["D1"] | last.before_norm()
    found["D7"] = found["D3"] | last.greedy(in_train_mode=True, leaked=True)
    found["D8"] = found["D7"] | last.greedy(in_train_mode=True, leaked=True, by_halves=True)
    rows = [
        {"step": step, "combination": combination, "accuracy": accuracy}
        for step, scores in found.items()
        for combination, accuracy in scores.items()
    ]
    return pd.DataFrame(rows)


@kept
def train_mode_gaps(pool, dataset, sizes, predictions=None):
    """Score soup and logit ensemble of the first N members in eval mode and in training mode.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
    sizes : sequence of int
        Numbers N of members.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row per size and mode: n_members, mode ("eval", BatchNorm recalibrated in the soup, or "train") and
        gap (logit ensemble minus soup, points).
    """
    rows = []
    for n in sizes:
        scores = Scores(pool[:n], dataset, predictions)
        for mode, found in (("eval", scores.as_recorded()), ("train", scores.in_train_mode())):
            rows.append({"n_members": n, "mode": mode, "gap": found["logit ensemble"] - found["uniform soup"]})
    return pd.DataFrame(rows)


class Scores:
    """Test accuracies of the combinations of one pool, under one way to evaluate or another."""

    def __init__(self, pool, dataset, predictions):
        self.dataset, self.predictions = dataset, predictions
        self.evaluator = Evaluator(pool[0].config.model, dataset, predictions)
        self.pool, self.states = pool, [run.state for run in pool]
        self.heads = [self.evaluator.head(state) for state in self.states]
        self.soup = uniform_soup(self.states)

    def as_recorded(self):
        """Return the scores of members, soup and logit ensemble in eval mode, of the logits that the runs keep."""
        device = self.dataset.test.images.device
        logits = [run.logits["test"].to(device) for run in self.pool]
        return self._scores(logits, self.evaluator.logits(self.soup, recalibrate=True))

    def in_eval_mode(self):
        """Return the scores of members, soup and ensembles; BatchNorm recalibrated in the soup."""
        features = [self.evaluator.features(state) for state in self.states]
        logits = [F.linear(read, *head) for read, head in zip(features, self.heads, strict=True)]
        soup = self.evaluator.logits(self.soup, recalibrate=True)
        return self._scores(logits, soup) | self._feature_scores(features)

    def in_train_mode(self):
        """Return the same scores with every network left in training mode (D1)."""
        logits, features = zip(*(self._train_mode(state, seed) for seed, state in enumerate(self.states)), strict=True)
        soup = self._train_mode(self.soup, len(self.states))[0]
        return self._scores(logits, soup) | self._feature_scores(features)

    def before_norm(self):
        """Return the scores of feature ensembles without the last norm (D3), of architectures that have one."""
        if not self.evaluator.model.startswith("vit"):
            return {}
        split = self.dataset.test
        features = [released.features_before_norm(self.evaluator.load(state), split) for state in self.states]
        return self._feature_scores(features)

    def greedy(self, *, in_train_mode=False, leaked=False, by_halves=False):
        """Return the score of a greedy soup; the released code selects in eval mode and does not recalibrate."""
        recalibrate = not in_train_mode
        selection = released.leaked_selection(self.dataset, 0) if leaked else self.dataset.selection
        chooser = Evaluator(self.evaluator.model, replace(self.dataset, selection=selection), self.predictions)
        choose = released.greedy_soup_by_halves if by_halves else greedy_soup
        soup = choose(self.states, lambda state: chooser.selection_accuracy(state, recalibrate=recalibrate)).state
        read = (
            self._train_mode(soup, len(self.states))[0]
            if in_train_mode
            else self.evaluator.logits(soup, recalibrate=True)
        )
        return {"greedy soup": self._accuracy(read)}

    def _scores(self, logits, soup):
        return {
            "member": sum(self._accuracy(one) for one in logits) / len(logits),
            "uniform soup": self._accuracy(soup),
            "logit ensemble": self._accuracy(ensemble.logit_ensemble(logits)),
        }

    def _feature_scores(self, features):
        return {
            f"feature ensemble, {head} head": self._accuracy(ensemble.feature_ensemble(features, self.heads, head=head))
            for head in ("first", "averaged")
        }

    def _train_mode(self, state, seed):
        """Return (logits, features) of a network left in training mode; networks draw different dropout masks."""
        split, kept = self.dataset.test, {}

        def compute(part):
            if not kept:
                kept["logits"], kept["features"] = released.train_mode_outputs(
                    self.evaluator.load(state), split, seed=seed
                )
            return kept[part]

        if self.predictions is None:
            return compute("logits"), compute("features")
        images = fingerprint({"images": split.images, "mean": split.mean, "std": split.std})
        key = ["train mode", self.evaluator.model, fingerprint(state), images, seed, split.images.device.type]
        read = [self.predictions.get([*key, part], lambda part=part: compute(part)) for part in ("logits", "features")]
        return tuple(tensor.to(split.images.device) for tensor in read)

    def _accuracy(self, logits):
        return evaluate.accuracy(logits, self.dataset.test.labels)
