"""Architectures: gains and gaps follow from the accuracies, and members are moved as far as is said."""

import numpy as np
import pandas as pd
import pytest
from helpers import check_drawing, random_dataset, untrained, untrained_chapter

from wamlib import probe
from wamlib.chapters import architectures
from wamlib.merge import interpolate
from wamlib.plot import gains_by_model
from wamlib.pools import Pool


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    names = {"pool_models": ["mlp", "resnet8", "vit"], "arm_models": ["resnet8", "vit"]}
    folder = tmp_path_factory.mktemp("tables")
    return untrained_chapter("architectures", random_dataset(), folder, datasets=["digits"], n_pool_members=2, **names)


@pytest.fixture(scope="module")
def tables(here):
    return architectures.tables(here)


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_members_are_moved_to_the_distance_that_is_asked_for(model):
    dataset = random_dataset()
    pool = Pool(untrained(model, dataset, spread=0.5), dataset)
    own, soup = probe.relative_distance(pool.states), pool.soup()
    for share in (1, 1 / 3):
        found = architectures.gain_at_distance(pool, distance=share * own).iloc[0]
        moved = [interpolate(soup, state, found.way) for state in pool.states]
        assert found.way == pytest.approx(share)
        assert probe.relative_distance(moved) == pytest.approx(share * own, rel=1e-5)
        errors = [pool.error(state, recalibrate=True) for state in (soup, *moved)]
        assert found.gain == pytest.approx(np.mean(errors[1:]) - errors[0])
    assert architectures.gain_at_distance(pool, distance=0.0).gain.item() == 0  # all in one place


def test_gains_and_gaps_are_differences_of_accuracies(tables):
    table = tables["architectures"]
    at = table.set_index(["start", "dataset", "model", "replica", "combination"]).accuracy.sort_index()
    for row in architectures.gains(table).itertuples():
        cell = at[row.start, row.dataset, row.model, row.replica]
        assert row.gain == pytest.approx(cell[row.combination] - cell["member"])
    for row in architectures.gaps(table).itertuples():
        cell = at[row.start, row.dataset, row.model, row.replica]
        assert row.gap == pytest.approx(cell["logit ensemble"] - cell["uniform soup"])
        assert row.error == pytest.approx(100 - cell["member"])


def test_arms_come_from_all_shared_to_nothing_shared(here, tables):
    arms = architectures.arms(tables["architectures"], here.p)
    starts = list(dict.fromkeys(arms.start))
    assert starts == list(architectures.LESS_AND_LESS)
    assert set(arms.model) == {"resnet8", "vit"}


def test_claims_are_judged_by_pools_with_a_shared_start(here, tables):
    rows = pd.DataFrame(architectures.claims(here, tables))
    assert list(dict.fromkeys(rows.claim)) == ["C6", "C10", "C7", "C8"]
    shared = architectures.gaps(tables["architectures"]).query("start == 'shared start'")
    of_all = rows[(rows.claim == "C6") & (rows.dataset == "all data sets")].iloc[0]
    assert of_all["mean"] == pytest.approx(shared.groupby("replica").gap.mean().mean())
    against = rows[(rows.claim == "C8") & rows.measure.str.startswith("soup minus member")]
    assert against.note.tolist() == ["resnet8"]  # the CNN with all starts, against the ViT
    # Twin: an ensemble that is worse by ten points everywhere.
    other = tables["architectures"].copy()
    other.loc[other.combination == "logit ensemble", "accuracy"] -= 200
    worse = pd.DataFrame(architectures.claims(here, tables | {"architectures": other}))
    assert (worse[worse.claim == "C6"].verdict == "does not hold").any()


def test_slopes_are_those_of_the_line_through_all_cells(tables):
    table = tables["architectures"]
    gap = architectures.gaps(table).query("start == 'shared start'")
    expected = [10 * np.polyfit(part.error, part.gap, 1)[0] for _, part in gap.groupby("replica")]
    assert architectures.slopes(table) == pytest.approx(expected)


def test_figures_draw_every_cell(tables, tmp_path):
    gap = architectures.gaps(tables["architectures"]).query("start == 'shared start'")
    fig = architectures.gap_vs_error(gap)
    check_drawing(fig, tmp_path)
    assert len(fig.axes[0].containers) == 3
    gains = architectures.gains(tables["architectures"])
    check_drawing(gains_by_model(gains, architectures.COMBINED[:2], "start"), tmp_path)


def test_numbers_are_all_there_without_a_vit(tmp_path):
    here = untrained_chapter(
        "architectures",
        random_dataset(),
        tmp_path,
        datasets=["digits"],
        n_pool_members=2,
        pool_models=["mlp", "resnet8"],
        arm_models=["resnet8"],
    )
    tables = architectures.tables(here)
    assert "C8" not in {row["claim"] for row in architectures.claims(here, tables)}
    said = architectures.numbers(here, tables)
    assert said["n_pools"] == 4
