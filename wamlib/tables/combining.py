"""Members against soups and ensembles."""

import pandas as pd

from .. import ensemble, evaluate
from ..errors import ProbeError
from ..merge import greedy_soup, uniform_soup
from .evaluator import Evaluator

__all__ = ["combinations"]


def combinations(pool, dataset, sizes=(2, 3, 5)):
    """Compare members, soups and ensembles of the first N members of a pool.

    Parameters
    ----------
    pool : list of Run
        Members of one pool.
    dataset : wamlib.data.Dataset
        The one they were trained on.
    sizes : sequence of int
        Numbers N of members, each at most ``len(pool)``.

    Returns
    -------
    DataFrame
        Columns n_members, combination, accepted (members in a greedy soup) and the
        test metrics of `wamlib.evaluate.metrics`. A "member" row is the mean over
        the N members of each metric. BatchNorm is recalibrated in the greedy soup and
        in its selection; the uniform soup is in the table with and without.

    Raises
    ------
    ProbeError
        If a size is larger than the pool: never a smaller soup in silence.
    """
    if not 1 <= min(sizes) <= max(sizes) <= len(pool):
        raise ProbeError(
            "cannot combine members",
            item="sizes",
            got=f"{list(sizes)}",
            wanted=f"numbers from 1 to {len(pool)}, the members of the pool",
            fix="Train more members, or ask for smaller combinations.",
        )
    evaluator = Evaluator(pool[0].config.model, dataset)
    labels, device = dataset.test.labels, dataset.test.images.device
    recalibrate = evaluator.has_batchnorm
    pool = pool[: max(sizes)]
    logits = [run.logits["test"].to(device) for run in pool]
    member_metrics = pd.DataFrame([evaluate.metrics(one, labels) for one in logits])
    features, heads = zip(*((evaluator.features(run.state), evaluator.head(run.state)) for run in pool), strict=True)
    score = _remembered(lambda state: evaluator.selection_accuracy(state, recalibrate=recalibrate))
    rows = []
    for n in sizes:
        states = [run.state for run in pool[:n]]
        soup, greedy = uniform_soup(states), greedy_soup(states, score)
        combined = {"uniform soup": evaluator.logits(soup)}
        if recalibrate:
            combined["uniform soup, recalibrated"] = evaluator.logits(soup, recalibrate=True)
        # Where the greedy soup keeps every member it is the uniform one.
        everyone = list(combined.values())[-1] if len(greedy.accepted) == n else None
        combined |= {
            "greedy soup": evaluator.logits(greedy.state, recalibrate=recalibrate) if everyone is None else everyone,
            "logit ensemble": ensemble.logit_ensemble(logits[:n]),
            "probability ensemble": ensemble.probability_ensemble(logits[:n]).clamp_min(1e-30).log(),
        }
        for head in ("first", "averaged"):
            combined[f"feature ensemble, {head} head"] = ensemble.feature_ensemble(features[:n], heads[:n], head=head)
        rows.append({"n_members": n, "combination": "member", **member_metrics[:n].mean()})
        for name, one in combined.items():
            accepted = len(greedy.accepted) if name == "greedy soup" else None
            rows.append({"n_members": n, "combination": name, "accepted": accepted, **evaluate.metrics(one, labels)})
    return pd.DataFrame(rows)


def _remembered(score):
    """Return the score function, asked only once about each state dict: members come again at every N."""
    known = {}

    def ask(state):
        # The state is kept beside its score, so that its id is not given to another one.
        if id(state) not in known:
            known[id(state)] = state, score(state)
        return known[id(state)][1]

    return ask
