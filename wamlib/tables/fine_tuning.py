"""Members fine-tuned from one start, compared with what they combine to."""

from .. import evaluate
from ..merge import uniform_soup
from .combining import combinations
from .distances import relative_distance
from .evaluator import Evaluator
from .kept import kept

__all__ = ["FINE_TUNING", "fine_tuning"]

COMBINED = ("uniform soup", "logit ensemble", "feature ensemble, first head", "feature ensemble, averaged head")
AVERAGED = "uniform soup, averaged statistics"
FINE_TUNING = (*COMBINED, AVERAGED)


@kept
def fine_tuning(pool, dataset, predictions=None):
    """Compare the members of a pool with the combinations of all of them.

    Parameters
    ----------
    pool : list of Run
    dataset : wamlib.data.Dataset
        The one they were trained on.
    predictions : wamlib.predictions.Predictions or None
        Where predictions are kept.

    Returns
    -------
    DataFrame
        One row for the members and one for each combination of `FINE_TUNING`, with the columns of
        `combinations`, gain (accuracy over the mean of the members, points) and distance (of the
        members from the soup, see `relative_distance`, the same on every row). "uniform soup, averaged
        statistics" is the soup before its BatchNorm is recalibrated: its running statistics
        are the means of the members'.
    """
    table = combinations(pool, dataset, [len(pool)], kinds=COMBINED, predictions=predictions)
    states = [run.state for run in pool]
    averaged = Evaluator(pool[0].config.model, dataset, predictions).logits(uniform_soup(states))
    row = {"n_members": len(pool), "subset": 0, "combination": AVERAGED}
    table.loc[len(table)] = row | evaluate.metrics(averaged, dataset.test.labels)
    member = table.accuracy[table.combination == "member"].item()
    return table.assign(gain=table.accuracy - member, distance=relative_distance(states))
