"""A chapter at work: what it trains, which pools it opens, and what it writes."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import random_dataset, untrained_chapter

from wamlib import chapters
from wamlib.chapters import Chapter, members
from wamlib.errors import ConfigError

SMALL = {"dataset": "digits", "datasets": ["digits"], "n_train": 1_000, "n_train_pools": 1_000}
SMALL |= {"pretrained_datasets": []}  # whose package takes seconds to import


@pytest.fixture
def here(tmp_path):
    return untrained_chapter("members", random_dataset(), tmp_path, models=["mlp", "linear"], n_members=2)


def test_rows_stand_behind_the_names_of_the_keys(here):
    groups = here.groups_where(model="mlp", start=["shared start"])
    table = here.rows(members.scores, groups)
    assert list(table.columns) == [*here.names, "accuracy", "nll", "brier", "calibration_error"]
    assert list(table[list(here.names)].itertuples(index=False, name=None)) == [k for k in groups for _ in range(2)]
    assert list(here.rows(members.scores, {}).columns) == list(here.names)


def test_a_pool_is_found_by_the_beginning_of_its_key(here):
    key = next(iter(here.groups))
    assert here.pool() is here.pool(key[0]) is here.pool(*key)
    with pytest.raises(ConfigError, match="no pool of this chapter"):
        here.pool("nothing")
    published = Chapter("members", SimpleNamespace(**{**vars(here.p), "published": True}))
    with pytest.raises(ConfigError, match="trains nothing"):
        published.pool()


def test_what_is_saved_is_read_back_and_said_by_name(here, monkeypatch):
    glued = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: glued.update({name: value}))
    table = pd.DataFrame({"a": [1.5, float("nan")], "b": ["x", "y"]})
    assert here.save(table, "t") is table
    pd.testing.assert_frame_equal(pd.read_csv(here.folder / "t.csv"), table)
    here.rows(members.scores)
    here.say({"gap": np.float32(0.5), "word": "none"})
    written = json.loads((here.folder / f"chapter_{here.number}.json").read_text())
    assert written["numbers"] == glued
    assert (glued["gap"], glued["word"], glued["n_runs"]) == (0.5, "none", len(here._finished) * 2)
    assert written["tables"] == ["t"]
    assert len(written["records"]) == len(here.groups)


# What a sweep trains


def test_a_sweep_trains_what_the_chapters_ask_for_each_run_once():
    everything = chapters.all_runs(SMALL)
    assert len(everything) == len(set(everything)) == len({config.run_id for config in everything})
    groups = [group for name in chapters.names() for group in Chapter.of(name, **SMALL).groups.values()]
    assert set(everything) == {config for group in groups for config in group}
    assert set(chapters.all_runs(SMALL, ["between"])) < set(everything)


def test_only_parameters_of_what_is_trained_change_what_is_trained():
    def runs(**changes):
        return set(chapters.all_runs(SMALL | changes))

    assert runs(ways=[0.5], n_subsets=3, alphas=[0.0, 1.0]) == runs()
    assert runs(n_eval_pools=1_000) != runs()


def test_a_sweep_counts_only_data_sets_that_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))

    def names():
        return {config.dataset for config in chapters.all_runs(SMALL | {"datasets": ["digits", "folder:here.zip"]})}

    assert names() == {"digits"}
    (tmp_path / "raw" / "here.zip").mkdir(parents=True)  # the twin: now there is something of that name
    assert names() == {"digits", "folder:here.zip"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_pool_member": 3}, "'n_pool_member'.*\n?.*'n_pool_members'"),
        ({"pool_models": "mlp"}, "parameter 'pool_models'"),
        ({"many_models": "mlp"}, "parameter 'many_models'"),
    ],
)
def test_a_sweep_refuses_what_no_chapter_has(settings, said):
    with pytest.raises(ConfigError, match=said):
        chapters.all_runs(settings)
