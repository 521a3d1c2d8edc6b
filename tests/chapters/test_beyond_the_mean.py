"""Chapter 35: merges are scored as soups are, and what they choose they choose on the selection split."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny
from helpers import check_drawing, random_dataset, untrained

from wamlib import evaluate
from wamlib.chapters import beyond_the_mean as chapter
from wamlib.chapters.sweep import given
from wamlib.pools import Pool
from wamlib.stats import paired_difference


@pytest.fixture(scope="module")
def pool():
    dataset = random_dataset()
    return Pool(untrained("resnet8", dataset), dataset)


@pytest.fixture(scope="module")
def table(pool):
    return chapter.merges(pool, n_images=90)


def test_pools_share_their_beginning():
    groups = chapter.runs(given("beyond_the_mean", {"models": ["mlp"], "n_replicas": 2}))
    assert {(key[0], key[1]) for key in groups} == {("mlp", "shared start"), ("mlp", "shared init")}
    for members in groups.values():
        assert len({(config.start, config.init_seed) for config in members}) == 1


def test_merges_are_scored_as_a_pool_scores_them(pool, table):
    table = table.set_index("merge")
    assert table.accuracy["uniform soup"] == pool.accuracy(pool.soup(), recalibrate=True)
    alone = [evaluate.accuracy(logits, pool.dataset.test.labels) for logits in pool.recorded()]
    assert table.accuracy["member"] == pytest.approx(sum(alone) / len(alone))
    assert len(table) == 10
    assert "density" in table.chosen["TIES"]
    assert table.index[table.largest_share.notna()].to_list() == ["learned soup, per model", "learned soup, per tensor"]


def test_what_is_chosen_is_chosen_on_the_selection_split(pool, table):
    # Other test labels change the scores, and must not change the choice.
    flipped = replace(pool.dataset, test=replace(pool.dataset.test, labels=pool.dataset.test.labels.flip(0)))
    other = chapter.merges(Pool(pool.runs, flipped), n_images=90)
    assert other.chosen.to_list() == table.chosen.to_list()
    assert other.accuracy[1] != table.accuracy[1]
    kinds = chapter.candidates(pool)
    for merge in ("task arithmetic", "DARE"):
        scores = {text: pool.accuracy(make(), "selection", recalibrate=True) for text, make in kinds[merge].items()}
        assert scores[table.set_index("merge").chosen[merge]] == max(scores.values())


def test_a_pool_begins_with_what_its_training_began_with(store, monkeypatch):
    monkeypatch.setenv("WAMLIB_RUNS", str(store.root))
    trunk = tiny(epochs=1)
    later = store.train(tiny(init_seed=None, start=trunk, epochs=1))
    for run, expected in ((later, store.train(trunk).state), (store.train(trunk), store.start_state(tiny(epochs=2)))):
        begun = chapter.beginning(Pool([run]))
        assert all(torch.equal(begun[key], tensor) for key, tensor in expected.items())
        assert all(torch.equal(begun[key], tensor) for key, tensor in store.start_state(run.config).items())
    assert not torch.equal(begun["fc1.weight"], store.start_state(tiny(epochs=1, init_seed=1))["fc1.weight"])


@pytest.fixture
def measured():
    names = [*("member", "uniform soup", "learned soup, per model", "TIES", "DARE")]
    rows = [
        (model, start, replica, merge)
        for model in ("mlp", "vit")
        for start in ("shared start", "shared init")
        for replica in (0, 1, 2)
        for merge in names
    ]
    table = pd.DataFrame(rows, columns=["model", "start", "replica", "merge"])
    table["accuracy"] = np.random.default_rng(0).uniform(60, 90, len(table))
    chosen = {"TIES": "density 0.2", "DARE": "density 0.5"}
    table["chosen"] = [chosen.get(merge, "") for merge in table["merge"]]
    table["largest_share"] = np.where(table["merge"] == names[2], 0.6, np.nan)
    return table


def test_differences_are_paired_within_pools(measured):
    found = chapter.differences(measured).set_index(["model", "start", "merge"])
    assert set(found.index.levels[2]) == {"learned soup, per model", "TIES", "DARE"}
    cell = measured[(measured.model == "vit") & (measured.start == "shared init")].pivot_table(
        "accuracy", "replica", "merge"
    )
    expected = paired_difference(cell["TIES"], cell["uniform soup"])
    assert tuple(found.loc["vit", "shared init", "TIES"]) == pytest.approx(tuple(expected))


def test_how_often_a_setting_was_chosen(measured):
    measured.loc[(measured["merge"] == "TIES") & (measured.replica == 0), "chosen"] = "density 1"
    found = chapter.chosen(measured).chosen
    assert found["TIES", "shared init"] == "4× density 0.2; 2× density 1"
    assert set(found.index.get_level_values(0)) == {"TIES", "DARE"}


def test_numbers_and_figure_hold_what_the_tables_say(measured, tmp_path):
    class Here:
        p = given("beyond_the_mean", {"n_members": 4})

    tables = {"merges": measured, "merge_differences": chapter.differences(measured)}
    said = chapter.numbers(Here, tables)
    init = measured[measured.start == "shared init"].groupby("merge").accuracy.mean()
    assert said["soup_loss"] == pytest.approx(init["member"] - init["uniform soup"])
    assert said["best_gain"] == pytest.approx(init.drop(["member", "uniform soup"]).max() - init["uniform soup"])
    assert said["learned_member"] == pytest.approx(init["learned soup, per model"] - init["member"])
    assert (said["learned_share"], said["equal_share"], said["n_merges"]) == (pytest.approx(60), 25, 3)
    fig = chapter.merge_differences(tables["merge_differences"])
    check_drawing(fig, tmp_path)
    assert len(fig.axes) == 2
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["learned soup, per model", "TIES", "DARE"]
