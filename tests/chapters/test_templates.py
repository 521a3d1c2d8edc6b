"""Chapter 20: weight rows against class means and stationary points, computed in another way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import tiny
from helpers import check_drawing, random_dataset, untrained_chapter
from test_data import make_cifar, make_tiny_imagenet, save_images

from wamlib import evaluate, pictures, probe, sweeps
from wamlib.chapters import templates as chapter
from wamlib.chapters.sweep import given
from wamlib.data import is_present, load
from wamlib.errors import ProbeError
from wamlib.pools import Pool
from wamlib.runs import RunStore

N_TRUE = 6  # members of a group


@pytest.fixture(scope="module")
def pools(store):
    groups = sweeps.linear_members("digits", n_train=1000, n_members=N_TRUE, epochs=10, weight_decays=(0.0, 0.1))
    return {group: Pool([store.train(config) for config in configs]) for group, configs in groups.items()}


@pytest.fixture(scope="module")
def dataset(pools):
    return pools[0.0].dataset


def linear_chapter(name, dataset, folder, **parameters):
    """A chapter about linear members at work on members that nobody trained."""
    parameters = {"datasets": ["digits"], "n_linear": 3, "linear_sizes": [1, 3], **parameters}
    here = untrained_chapter(name, dataset, folder, **parameters)
    for key, configs in here.groups.items():
        for run, config in zip(here._finished[key], configs, strict=True):
            vars(run)["config"] = replace(config, pixels="normalised")
            labels = {split: getattr(dataset, split).labels for split in ("selection", "test")}
            accuracy = {split: evaluate.accuracy(run.logits[split], labels[split]) for split in labels}
            run.record["metrics"] = {split: {"accuracy": value} for split, value in accuracy.items()}
    return here


class Weights:
    """What the measures read of a run."""

    def __init__(self, weights, decay=0.1):
        self.state = {"head.weight": weights[:, :-1].float(), "head.bias": weights[:, -1].float()}
        self.config = tiny(model="linear", weight_decay=decay)


# ---- Class means -----------------------------------------------------------------------------------------------------


def test_rows_match_their_classes_and_those_of_shuffled_labels_do_not(pools):
    true, released, shuffled = (
        chapter.matches(pools[group], n_permutations=199) for group in (0.1, sweeps.RELEASED, sweeps.SHUFFLED)
    )
    assert list(true.seed) == list(range(N_TRUE))
    assert len(released) == 5
    assert (true.own > 0.6).all()
    assert (true.null < true.own).all()
    assert (true.p < 0.01).all()
    assert (true.retrieval > 90).all()
    assert (true.p_retrieval <= 0.01).all()
    assert true.null_retrieval.between(5, 15).all()
    assert (shuffled.own.abs() < 0.3).all()
    assert (shuffled.p_retrieval > 0.01).all()
    assert list(true.accuracy) == [run.record["metrics"]["test"]["accuracy"] for run in pools[0.1].runs]


def test_correlations_are_those_of_numpy(pools, dataset):
    means = probe.class_means(dataset.train, 10).flatten(1).numpy()
    rows = [np.asarray(state["head.weight"]) for state in pools[0.1].states]
    wanted = np.mean([np.corrcoef(row, means)[:10, 10:] for row in rows], axis=0)
    table = chapter.correlations(pools[0.1])
    found = table.set_index(["template", "class"]).correlation.unstack(sort=False)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    own = chapter.matches(pools[0.1], n_permutations=9).own.mean()
    assert own == pytest.approx(np.trace(wanted) / 10, abs=1e-6)


def test_permutations_are_drawn_one_after_the_other_for_all_members_of_a_data_set(pools):
    pool = pools[0.0]
    whole = chapter.matches(pool, n_permutations=19)
    rest = chapter.matches(Pool(pool.runs[2:], pool.dataset), before=2, n_permutations=19)
    pd.testing.assert_frame_equal(whole[2:].reset_index(drop=True), rest)
    again = chapter.matches(Pool(pool.runs[2:], pool.dataset), n_permutations=19)
    assert list(again.own) == list(rest.own)
    assert list(again.null_retrieval) != list(rest.null_retrieval)


def test_members_with_shuffled_labels_each_have_a_shuffle_of_their_own(pools, store):
    first, second = (store.dataset(run.config).train.labels for run in pools[sweeps.SHUFFLED].runs[:2])
    assert (first == second).double().mean() < 0.3
    assert (first == pools[0.0].dataset.train.labels).double().mean() < 0.3


def test_members_that_read_unit_pixels_are_evaluated_on_them_and_compared_with_normalised_means(pools, dataset):
    pool = pools[sweeps.RELEASED]
    state, wanted = pool.states[0], pool.runs[0].record["metrics"]["test"]["accuracy"]
    assert pool.dataset.test.normalize(pool.dataset.test.images).max() == 1
    assert pool.accuracy(state) == pytest.approx(wanted)
    assert pictures.normalised(pools[0.0]) is dataset
    assert pictures.normalised(pool).train.std == dataset.train.std
    # The twin: on normalised pixels the same weights give other logits.
    wrong = Pool(pool.runs, dataset).logits(state)
    assert evaluate.agreement(wrong, pool.recorded()[0]) < 100


def test_pictures_are_the_weights_and_means_to_half_precision(pools, dataset):
    rows, means = pictures.row_pictures(pools[0.0], member=1), pictures.class_pictures(pools[0.0], centred=False)
    assert list(rows["class"]) == list(means["class"]) == list(dataset.classes)
    wanted = pools[0.0].states[1]["head.weight"].reshape(10, 1, 8, 8)
    np.testing.assert_allclose(pictures.stack(rows), wanted, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(pictures.stack(means), probe.class_means(dataset.train, 10, centred=False), rtol=1e-3)


# ---- Stationary points -----------------------------------------------------------------------------------------------


def test_the_optimum_of_another_solver_is_stationary_and_the_twin_is_not(dataset):
    from sklearn.linear_model import LogisticRegression

    images = dataset.train.normalize(dataset.train.images).flatten(1)
    images = torch.cat([images, torch.ones(len(images), 1)], 1).double().numpy()
    solver = LogisticRegression(C=1 / (len(images) * 0.1), fit_intercept=False, tol=1e-8, max_iter=2000)
    optimum = torch.from_numpy(solver.fit(images, dataset.train.labels.numpy()).coef_)
    still, moved = (
        chapter.stationarity(Pool([Weights(weights)], dataset)).iloc[0]
        for weights in (optimum, optimum + 0.1 * optimum.roll(1, 0))
    )
    assert still.residual < 0.1  # percent
    assert moved.residual > 5
    assert 10 < still.confidence < 100


@pytest.mark.parametrize("group", [0.1, sweeps.RELEASED])
def test_the_soup_is_closer_to_the_stationary_point_than_its_members(pools, dataset, group):
    pool = pools[group]
    table = chapter.stationarity(pool)
    assert list(table.combination) == ["member"] * len(pool) + ["uniform soup"]
    # Members of a thousand images and ten passes keep a part of their random weights; their mean has less of it.
    member, soup = (table[table.combination == name].mean(numeric_only=True) for name in ("member", "uniform soup"))
    assert soup.residual < member.residual
    assert soup.limit_correlation > 0.95
    if group == sweeps.RELEASED:  # read with other pixels than those it was trained on, it is nowhere near
        assert chapter.stationarity(Pool(pool.runs, dataset)).residual.min() > 2 * table.residual.max()


def test_optima_reach_the_class_means_as_the_decay_grows(pools):
    table = chapter.optima(pools[0.0], weight_decays=[0.1, 10.0, 1000.0])
    assert table.own.iloc[0] < 0.98
    assert (table.own.iloc[1:] > 0.995).all()  # not 1: the classes are not of one size
    assert table.accuracy.iloc[0] > table.accuracy.iloc[-1]


def test_two_classes_are_too_few_for_the_solver(tmp_path):
    for label in ("cat", "dog"):
        save_images(tmp_path / label, 20)
    with pytest.raises(ProbeError, match="2 classes"):
        chapter.optima(Pool([Weights(torch.zeros(2, 3 * 64 + 1))], load(f"folder:{tmp_path}")), weight_decays=[0.1])


# ---- The chapter -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_work(tmp_path_factory):
    here = linear_chapter("templates", random_dataset(n_classes=5), tmp_path_factory.mktemp("chapter"))
    return here, chapter.tables(here)


def test_the_chapter_measures_every_group_and_says_numbers(at_work):
    here, tables = at_work
    table, settled = tables["templates"], tables["stationarity"]
    assert list(table.columns)[::12] == ["group", "dataset"]
    assert list(dict.fromkeys(table.group)) == [group for _, group in here.groups]
    # Without decay, and with labels dealt out at random, there is no stationary point to be near to.
    assert set(table.group) - set(settled.group) == {0.0, sweeps.SHUFFLED}
    assert list(settled.columns)[:3] == ["group", "weight_decay", "combination"]
    numbers = chapter.numbers(here, tables)
    assert all(np.isfinite(value) for value in numbers.values() if not isinstance(value, str))
    best = table[table.group == chapter.chosen(table)["digits"]]
    assert best.selection_accuracy.mean() == chapter.at_decays(table).groupby("group").selection_accuracy.mean().max()
    assert numbers["acc_best"] == chapter.price(table).loc["digits", "accuracy at best"] == best.accuracy.mean()
    verdicts = here.judge(chapter.claims(here, tables))
    assert list(verdicts.claim) == ["C1", "C2"]
    assert set(pd.read_csv(here.folder / "claims_20.csv").protocol) == {"released", "corrected"}


def test_claims_compare_what_they_say(at_work):
    here, tables = at_work
    clear = tables["templates"].copy()
    clear["own"] = 0.5 + 0.1 * clear.weight_decay + 0.001 * clear.seed
    clear["retrieval"], clear["null_retrieval"], clear["null"] = 100.0, 20.0, 0.0
    clear.loc[clear.group == sweeps.RELEASED, ["own", "accuracy"]] = 2.0, 1.0
    found = here.judge(chapter.claims(here, tables | {"templates": clear}))
    assert list(found.verdict) == ["holds", "holds"]


FIGURES = {
    "rows_beside_classes": lambda here, tables: chapter.rows_beside_classes(tables, here.p),
    "stretched_rows": lambda here, tables: chapter.stretched_rows(tables, here.p),
    "rows_elsewhere": lambda here, tables: chapter.rows_elsewhere(tables, here.p),
    "correlation_matrix": lambda here, tables: chapter.correlation_matrix(tables["correlations"]),
    "decay_trade_off": lambda here, tables: chapter.decay_trade_off(chapter.at_decays(tables["templates"])),
    "limit_correlation": lambda here, tables: chapter.limit_correlation(tables["stationarity"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(at_work, name, tmp_path):
    check_drawing(FIGURES[name](*at_work), tmp_path, units=name in ("decay_trade_off", "limit_correlation"))


def test_lines_of_pictures_show_the_groups_of_their_labels(at_work):
    here, tables = at_work
    fig = chapter.rows_beside_classes(tables, here.p)
    labels = [ax.get_ylabel() for ax in fig.axes[::5]]
    assert labels[1:] == list(chapter.lines(tables["templates"]))
    run = here._finished["digits", sweeps.SHUFFLED][0]
    wanted = run.state["head.weight"].reshape(5, 1, 8, 8)[2, 0]
    np.testing.assert_allclose(fig.axes[4 * 5 + 2].images[0].get_array(), wanted, rtol=1e-3, atol=1e-6)


def test_a_stretched_picture_reaches_black_and_white():
    picture = np.array([[[[-3.0, 5.0], [1.0, 1.0]]]])
    shown = chapter.stretched_grid({"a": picture}, ["x"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[0, 1], [0.5, 0.5]])


@pytest.mark.parametrize("name", ["cifar100", "tiny-imagenet"])
def test_the_data_sets_of_the_paper_run_by_name(name, tmp_path, monkeypatch):
    """A handful of files in the official format, through the parameters of params/gpu.yml."""
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    settings = yaml.safe_load((Path(__file__).parents[2] / "params" / "gpu.yml").read_text())
    assert name in settings["datasets"]
    assert not is_present(name)
    make = {"cifar100": lambda root: make_cifar(root, "cifar100", monkeypatch), "tiny-imagenet": make_tiny_imagenet}
    make[name](tmp_path / "raw")
    assert is_present(name)
    groups = chapter.runs(given("templates", settings | {"n_linear": 2, "linear_epochs": 1}))
    assert {dataset for dataset, _ in groups} == {name}
    store = RunStore()
    for group in (0.0, sweeps.SHUFFLED, sweeps.RELEASED):
        pool = Pool([store.train(config) for config in groups[name, group]])
        table = chapter.matches(pool, n_permutations=9)
        assert len(table) == 2
        assert table[["own", "raw", "null", "retrieval"]].notna().all().all()
        assert len(pictures.row_pictures(pool)) == min(10, len(pool.dataset.classes))
