"""One chapter at work: its parameters, its pools, and the tables, numbers and verdicts that it writes."""

import json
import time
from functools import cached_property
from pathlib import Path

import pandas as pd

from .. import claims, data, sweeps
from ..config import home
from ..errors import ConfigError
from ..evidence import Evidence, Published
from ..pools import Pool
from ..predictions import Predictions
from .parameters import PUBLISHED, Parameters, defaults, notebook
from .sweep import given, module

__all__ = ["NAMES", "Chapter", "begin"]

NAMES = ("dataset", "model", "start", "replica")  # what the keys of pools stand for, unless a chapter says otherwise
EVIDENCE = Path(__file__).parents[2] / "data" / "evidence"
RUNS = "runs.csv"  # settings and seconds of the published runs


def begin(name, values=None):
    """Begin a chapter.

    Parameters
    ----------
    name : str
        One of `wamlib.chapters.names`.
    values : dict or None
        Where the values of its parameters are: in a notebook ``globals()``. None means the notebook's defaults.

    Returns
    -------
    Chapter
    """
    known = defaults(name)
    return Chapter(name, Parameters(**{key: (values or known)[key] for key in known}))


class Chapter:
    """A chapter with its parameters.

    Parameters
    ----------
    name : str
        One of `wamlib.chapters.names`.
    p : Parameters
        Parameters as attributes, see `given`.

    Attributes
    ----------
    groups : dict
        Key of each pool to its configs: what the chapter's ``runs(p)`` returns.
    """

    def __init__(self, name, p):
        self.name, self.p, self.module = name, p, module(name)
        self.number = notebook(name).stem.partition("_")[0]
        self.groups = self.module.runs(p)
        self.evidence = Published(EVIDENCE) if p.published else Evidence()
        self._begin, self._pools, self._saved = time.perf_counter(), {}, []

    @classmethod
    def of(cls, name, **overrides):
        """Return a chapter with the parameters of its notebook but for some."""
        return cls(name, given(name, overrides))

    # ---- Pools -------------------------------------------------------------------------------------------------------

    @cached_property
    def _finished(self):
        """The runs of all pools by key; what is missing is trained first."""
        return sweeps.run_groups(self.groups)

    def pool(self, *key):
        """Return a pool; its members, and all others of the chapter, are trained if they are not there.

        Parameters
        ----------
        *key : str and int
            As in `groups`. Where the end is left out it is the first pool that begins so.

        Raises
        ------
        ConfigError
            If no pool begins so, or if nothing is to be trained.
        """
        if self.p.published:
            raise ConfigError(
                "cannot open a pool",
                item=str(key),
                got=f"the profile {PUBLISHED!r}, which trains nothing",
                wanted="a profile that trains",
                fix="Run the chapter with another profile.",
            )
        place = next((name for name in self.groups if name[: len(key)] == key), None)
        if place is None:
            raise ConfigError(
                "cannot open a pool",
                item=str(key),
                got="no pool of this chapter that begins so",
                wanted=f"one of {len(self.groups)}, such as {next(iter(self.groups), None)}",
                fix="Correct the key, or add the pool to the parameters.",
            )
        if place not in self._pools:
            self._pools[place] = Pool(self._finished[place], predictions=Predictions())
        return self._pools[place]

    def groups_where(self, **values):
        """Return the groups whose key has one of the given values under each name, as a dict.

        Parameters
        ----------
        **values
            Name, of the chapter's ``NAMES``, to a value or a list of values.
        """
        places = {self.names.index(name): v if isinstance(v, (list, tuple)) else [v] for name, v in values.items()}
        return {key: group for key, group in self.groups.items() if all(key[i] in v for i, v in places.items())}

    @property
    def names(self):
        """What the entries of the keys of `groups` stand for."""
        return getattr(self.module, "NAMES", NAMES)

    # ---- Evidence ----------------------------------------------------------------------------------------------------

    def rows(self, measure, groups=None, names=None, **arguments):
        """Return the rows of a measure of every pool, stacked; what is not there is trained and measured.

        Parameters
        ----------
        measure : callable
            Takes a `wamlib.pools.Pool` and the arguments, returns a DataFrame.
        groups : dict or None
            Pools by key; None means all of the chapter. See `groups_where`.
        names : sequence of str or None
            What the entries of the keys stand for; None means the chapter's own names.
        **arguments
            Values that JSON can hold.

        Returns
        -------
        DataFrame
            First a column for each name, then those of the measure.
        """
        groups, names = self.groups if groups is None else groups, self.names if names is None else names
        parts = []
        for key, configs in groups.items():
            record = self._record(measure, key, configs, arguments)
            parts.append(record.rows.assign(**dict(zip(names, key, strict=True))))
        if not parts:
            return pd.DataFrame(columns=list(names))
        stacked = pd.concat(parts, ignore_index=True)
        return stacked[[*names, *(column for column in stacked.columns if column not in names)]]

    def once(self, measure, **arguments):
        """Return the rows of a measure that needs no networks; it takes the arguments only."""
        return self._record(measure, None, [], arguments).rows

    def _record(self, measure, key, configs, arguments):
        if self.p.published:
            return self.evidence.get(measure, [config.run_id for config in configs], arguments)
        if key is None:
            return self.evidence.get(measure, [], arguments, lambda: measure(**arguments))
        return self.evidence.get(measure, self._finished[key], arguments, lambda: measure(self.pool(*key), **arguments))

    def images(self, dataset):
        """Return what a table or a sentence needs to know of the images of a data set, one row; see `describe`."""
        key, configs = next((key, group) for key, group in self.groups.items() if group[0].dataset == dataset)
        return self._record(describe, key, configs, {}).rows.iloc[0]

    # ---- What it writes ----------------------------------------------------------------------------------------------

    @cached_property
    def folder(self):
        """Where the tables of this profile lie."""
        folder = home() / "tables" / self.p.profile
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, table, name):
        """Write a table to ``tables/<profile>/<name>.csv`` in `wamlib.config.home`, and return it."""
        table.to_csv(self.folder / f"{name}.csv", index=False, float_format="%.6g")
        self._saved = list(dict.fromkeys([*self._saved, name]))
        return table

    def judge(self, measures):
        """Write what the chapter's claims are judged by, and return the verdicts.

        Parameters
        ----------
        measures : list of dict
            As `wamlib.claims.measure` returns them.

        Returns
        -------
        DataFrame
        """
        table = self.save(pd.DataFrame(measures), f"claims_{self.number}")
        return claims.ledger(table)[["claim", "dataset", "released", "corrected", "verdict"]]

    def show(self, name, figure):
        """Keep a figure for the place in the text that names it."""
        from myst_nb import glue

        glue(name, figure, display=False)

    def say(self, numbers):
        """Keep numbers and words for the places in the text that name them.

        Every chapter also says ``n_runs`` and ``training`` (core-seconds of its runs), and ``redraw`` (seconds since it
        began). They, and the names of the tables and records that were used, are written to ``chapter_NN.json``.
        """
        from myst_nb import glue

        said = {**self.costs(), **numbers, "redraw": time.perf_counter() - self._begin}
        said = {name: _plain(value) for name, value in said.items()}
        for name, value in said.items():
            glue(name, value, display=False)
        records = [] if self.p.published else sorted(map(str, self.evidence.used))
        written = {"chapter": self.name, "numbers": said, "tables": self._saved, "records": records}
        (self.folder / f"chapter_{self.number}.json").write_text(json.dumps(written, indent=1) + "\n")

    def costs(self):
        """Return ``n_runs`` and ``training``, the number of the chapter's runs and their core-seconds."""
        ids = list(dict.fromkeys(config.run_id for group in self.groups.values() for config in group))
        if self.p.published:
            seconds = pd.read_csv(EVIDENCE / RUNS, index_col="run_id").seconds.reindex(ids)
        else:
            runs = [run for group in (self._finished.values() if ids else []) for run in group]
            seconds = pd.Series({run.config.run_id: run.record["seconds"] for run in runs}, dtype=float)
        return {"n_runs": len(ids), "training": float(seconds.sum())}


def describe(pool):
    """Return one row about the images of a pool: title, classes (JSON), sizes of the splits and of an image."""
    dataset = pool.dataset
    height, width = dataset.image_size
    row = {
        "title": data.title(dataset.name),
        "classes": json.dumps(dataset.classes),
        "n_classes": len(dataset.classes),
        "n_train": len(dataset.train),
        "n_selection": len(dataset.selection),
        "n_test": len(dataset.test),
        "channels": dataset.in_channels,
        "height": height,
        "width": width,
    }
    return pd.DataFrame([row])


def _plain(value):
    """Return a number of numpy or torch as one of Python; words as they are."""
    return value.item() if hasattr(value, "item") else value
