"""Chapter 34: hidden permutations are found, matched members lie nearer, and lines are what their parts give."""

import pandas as pd
import pytest
from conftest import tiny
from helpers import check_drawing, untrained_chapter

from wamlib import probe, sweeps
from wamlib.chapters import alignment as chapter
from wamlib.chapters.sweep import given
from wamlib.merge import interpolate
from wamlib.pairs import MATCHINGS, REPAIRS, matched
from wamlib.pools import Pool


@pytest.fixture(scope="module")
def strangers(store):
    return Pool([store.train(tiny(init_seed=seed, seed=seed, epochs=10, peak_lr=0.1)) for seed in range(2)])


@pytest.fixture(scope="module")
def here(digits, tmp_path_factory):
    parameters = {"models": ["mlp", "resnet8"], "wide_models": ["mlp"], "widths": [0.5, 1], "line": [0.0, 0.5, 1.0]}
    return untrained_chapter("alignment", digits, tmp_path_factory.mktemp("here"), n_images=60, **parameters)


@pytest.fixture(scope="module")
def tables(here):
    return chapter.tables(here)


def test_pairs_of_width_one_are_members_of_the_pools():
    p = given("alignment", {"dataset": "digits", "n_replicas": 2})
    found, settings = chapter.runs(p), {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_train": p.n_train}
    assert all(len(key) == len(chapter.NAMES) for key in found)
    for model in p.models:
        for replica in (0, 1):
            whole = sweeps.pool("independent init", model=model, replica=replica, dataset="digits", **settings)
            assert found[model, "independent init", 1, replica] == whole[:2]
    assert {config.model for config in found["mlp", "independent init", 0.5, 0]} == {"mlp-x0.5"}


def test_a_hidden_permutation_is_found(strangers):
    row = chapter.hidden_permutation(strangers, n_images=None).iloc[0]
    assert row.agreement == 100
    assert row.matched_distance == 0
    assert row.matched_barrier == 0
    assert row.shuffled_distance > 0.5  # the twin: without matching the two are far apart
    assert row.shuffled_barrier > 10


def test_matching_brings_independent_members_nearer(strangers):
    table = chapter.errors(strangers, alphas=[0, 0.5, 1], matchings=MATCHINGS, n_images=None)
    distance = table.groupby("matching").distance.first()
    assert distance["weights"] < distance["activations"] < distance["none"]
    middle = table[(table.repair == "none") & (table.alpha == 0.5)].set_index("matching").error
    assert middle["weights"] < middle["none"]


def test_the_ends_of_a_matched_line_are_the_members(strangers):
    table = chapter.errors(strangers, alphas=[0, 0.5, 1], matchings=MATCHINGS, n_images=None)
    errors = [100 - run.record["metrics"]["test"]["accuracy"] for run in strangers.runs]
    for _, line in table.groupby(["matching", "repair"]):
        assert [line.error.iloc[0], line.error.iloc[-1]] == pytest.approx(errors, abs=0.3)  # near ties may flip


def test_there_is_a_line_for_every_matching_and_repair_and_its_barrier_is_that_of_probe(here, tables):
    lines = tables["alignment"].groupby(["model", "matching", "repair"], sort=False)
    repairs = {"mlp": ["none", "REPAIR"], "resnet8": REPAIRS}
    assert list(lines.groups) == [(m, way, r) for m in repairs for way in MATCHINGS for r in repairs[m]]
    pool = here.pool("resnet8").first(2, n_test=60)
    a, b = pool.states
    other = matched(pool, a, b, "weights")
    for repair, recalibrate in (("none", False), ("recalibrated", True)):
        expected = probe.barrier(a, other, lambda state, r=recalibrate: pool.error(state, recalibrate=r), [0, 0.5, 1])
        found = lines.get_group(("resnet8", "weights", repair))
        found = found[found.replica == 0]
        # The far end is the member itself, whose permuted copy rounds in another order.
        assert found.error.to_list() == pytest.approx(expected.errors, abs=1.7)
        assert found.error.iloc[1] == expected.errors[1]
        assert set(found.barrier) == {probe.barrier_height(found.alpha.to_list(), found.error.to_list())}


def test_the_middle_of_width_one_is_measured_once(here, tables):
    again = chapter.errors(here.pool("mlp"), alphas=[0.0, 0.5, 1.0], matchings=["none", "weights"], n_images=60)
    found = tables["alignment_width"]
    found = found[(found.width == 1) & (found.replica == 0)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[list(again)], again, check_dtype=False)
    assert list(found)[:3] == ["model", "width", "replica"]
    records = {path.parent.name for path in here.evidence.used}
    assert records == {"alignment.errors", "alignment.hidden_permutation"}
    assert len(here.evidence.used) == 4 + 4 + 2  # errors of plain pairs, permutations, and the pairs of width 0.5


def test_barrier_height_is_that_of_barrier(strangers):
    a, b = strangers.states
    line = probe.barrier(a, b, probe.weight_norm, [0, 0.3, 1])
    errors = [probe.weight_norm(interpolate(a, b, alpha)) for alpha in (0, 0.3, 1)]
    assert line.height == probe.barrier_height([0, 0.3, 1], errors)


def test_numbers_are_means_over_architectures(here, tables):
    said, table = chapter.numbers(here, tables), tables["alignment"]
    unmatched = table[(table.matching == "none") & (table.repair == "none")]
    per_line = unmatched.drop_duplicates(["model", "replica"]).groupby("model").barrier.mean()
    assert said["naive"] == pytest.approx(per_line.mean())
    narrow = chapter.by_line(tables["alignment_width"])
    narrow = narrow[(narrow.line == "matched + REPAIR") & (narrow.width == 0.5)]
    assert said["narrow"] == pytest.approx(narrow.barrier.mean())
    assert (said["n_models"], said["n_wide"]) == (2, 4)


def test_figures_show_what_the_tables_say(tables, tmp_path):
    fig = chapter.alignment_paths(tables["alignment"])
    check_drawing(fig, tmp_path)
    table = tables["alignment"]
    middle = table[
        (table.model == "mlp") & (table.matching == "none") & (table.repair == "none") & (table.alpha == 0.5)
    ]
    drawn = fig.axes[0].lines[0].get_ydata()
    assert drawn[1] == pytest.approx(middle.error.mean())
    # The second panel may reach higher than the first, with which it shares its axis.
    lines = chapter.by_line(tables["alignment_width"])
    higher = pd.concat([lines, lines.assign(model="resnet8", barrier=lines.barrier + 60)])
    for drawn in (lines, higher):
        check_drawing(chapter.barrier_vs_width(drawn), tmp_path)
