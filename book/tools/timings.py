"""The page of runs and timings: what was trained, on what machine, for how long, and for which chapter."""

from importlib.metadata import version

import pandas as pd

from wamlib import data

__all__ = ["page"]


def page(chapters, numbers, runs, facts, profile):
    """Return the page as MyST.

    Parameters
    ----------
    chapters : dict of str to NotebookNode
        The executed chapters, by name.
    numbers : dict of str to dict
        What each of them says.
    runs : DataFrame
        One row for each run, as `collect.row_of` returns them.
    facts : dict
        Machines and versions of the runs, each a list.
    profile : str
    """
    seconds = runs.seconds.sum()
    machines = [f"{m['cpu']}, {m['cores']} cores, {m['system']}, device {m['device']}" for m in facts["machine"]]
    versions = [", ".join(f"{name} {v}" for name, v in one.items()) for one in facts["versions"]]
    splits = runs[["dataset", "n_train", "split_hash"]].drop_duplicates().itertuples(index=False)
    images = [f"{data.title(name)}, {f'{size:,d}' if size else 'all'} (`{digest}`)" for name, size, digest in splits]
    executed = sum(book.metadata.papermill.duration for book in chapters.values())
    return f"""(runs)=
# Runs and timings

Behind this edition (profile *{profile}*) stand **{len(runs):,d} trained networks, {duration(seconds)} of one
core**, and {len(chapters)} chapters that took {duration(executed)} to execute. Both tables are made from the records
that each run and each chapter leaves ({{py:mod}}`wamlib.records`); nothing on this page was typed.

Machine
: {"; ".join(machines)}

Versions
: {"; ".join(versions)}, jupyter-book {version("jupyter-book")}

Training images (first digits of the split's SHA-256)
: {"; ".join(images)}

## Chapters

*Runs*: networks that the chapter uses; many are used by several, so the column adds up to more than there are.
*Training*: core-seconds of these runs. *Executed in*: seconds from the first cell to the last, with members and
predictions that were there kept. A dash: not counted; such a chapter mostly uses members of others.

{chapters_table(chapters, numbers)}

## Runs

One row for each kind of run. *From*: what the training began with: random weights, the weights of a trunk, or
pretrained ones. *Accuracy*: on the test images, mean over the runs of the row. *Seconds*: of the training loops
of all its runs together, on one core. Linear networks are trained together, and their seconds are shares of a common
time.

{runs_table(runs)}
"""


def duration(seconds):
    """Return a time as a reader would say it."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def chapters_table(chapters, numbers):
    """Return one row for each chapter, and a last one with what they took together, as a Markdown table."""

    def shown(stem, *names):
        values = [numbers[stem][name] for name in names if name in numbers[stem]]
        return f"{values[0]:,.0f}" if values and values[0] == values[0] else "–"

    rows = [
        {
            "chapter": f"{{doc}}`/notebooks/{stem}`",
            "runs": shown(stem, "n_runs"),
            "training (core-s)": shown(stem, "training", "trained"),
            "executed in (s)": f"{book.metadata.papermill.duration:.1f}",
            "at (UTC)": book.metadata.papermill.end_time[:16].replace("T", " "),
        }
        for stem, book in chapters.items()
    ]
    total = sum(book.metadata.papermill.duration for book in chapters.values())
    rows.append({"chapter": "**all**", "executed in (s)": f"**{total:,.1f}**"})
    return table(rows, ["runs", "training (core-s)", "executed in (s)"])


def runs_table(runs):
    """Return one row for each kind of run, and a last one for all, as a Markdown table."""
    rows, kinds = [], ["dataset", "model", "shuffle_labels", "start", "epochs", "weight_decay"]
    titles = runs.assign(dataset=runs.dataset.map(data.title))
    for (dataset, model, shuffled, start, epochs, decay), part in titles.groupby(kinds, sort=False):
        rows.append(
            {
                "data": dataset,
                "architecture": f"{model}{', shuffled labels' * shuffled}",
                "from": start,
                "epochs": f"{epochs:g}",
                "decay": f"{decay:g}",
                "runs": f"{len(part):,d}",
                "accuracy (%)": f"{part.accuracy.mean():.1f}",
                "seconds": few(part.seconds.sum()),
            }
        )
    rows.append({"data": "**all**", "runs": f"**{len(runs):,d}**", "seconds": f"**{few(runs.seconds.sum())}**"})
    return table(rows, ["epochs", "decay", "runs", "accuracy (%)", "seconds"])


def few(seconds):
    """Return seconds with as many digits as matter."""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}" if seconds >= 0.1 else f"{seconds:.3f}"


def table(rows, right):
    """Return rows as a Markdown table, numbers to the right."""
    frame = pd.DataFrame(rows).fillna("")
    align = ["right" if name in right else "left" for name in frame]
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)
