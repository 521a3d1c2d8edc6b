"""Chapter 60: advice against the truth, every number computed in another way, and what a policy costs."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, random_dataset, untrained
from safetensors.torch import save_file

from wamlib import advise, align, data, evaluate, merge, models
from wamlib.chapters import recipe as chapter
from wamlib.chapters.sweep import given
from wamlib.pools import Pool
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=100)


def pool_of(name, dataset, n=3, spread=0.4, **settings):
    return Pool(untrained(name, dataset, n, spread=spread), dataset, **settings)


def score(name, state, split, dataset, recalibrate=True):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    if recalibrate:
        merge.recalibrate_batchnorm(module, [images for images, _ in dataset.train.batches()])
    return evaluate.accuracy(evaluate.predict_logits(module, split), split.labels)


@pytest.mark.parametrize(("name", "kind"), [("mlp", "MLP"), ("resnet8", "CNN, BatchNorm")])
def test_the_row_holds_the_advice_and_what_each_option_gives(name, kind, dataset, tmp_path):
    pool = pool_of(name, dataset, predictions=Predictions(tmp_path))
    table = chapter.advice(pool)
    row, states, model = table.iloc[0], pool.states, models.build(name, 3, 1, (8, 8))
    batches = [images for images, _ in dataset.train.batches()]
    found = advise.advise(states, model, dataset.selection, training_batches=batches)
    assert (row.once, row.many) == (found.recommendation, found.with_budget(3).recommendation)
    assert (row.predicted_gain, row.predicted_noise) == pytest.approx(found.measured.gain("uniform soup"))
    assert row.distance == pytest.approx(np.mean([pair.distance for pair in found.measured.pairs]))
    members = [score(name, state, dataset.test, dataset, recalibrate=False) for state in states]
    soup = merge.uniform_soup(states)
    assert row.member == pytest.approx(np.mean(members))
    assert row["best member"] == pytest.approx(members[int(np.argmax(found.measured.accuracies))])
    assert row["uniform soup"] == pytest.approx(score(name, soup, dataset.test, dataset))
    assert row.measured_gain == pytest.approx(row["uniform soup"] - row.member)
    on_selection = score(name, soup, dataset.selection, dataset)
    assert row.selection_gain == pytest.approx(on_selection - np.mean(found.measured.accuracies))
    pooled = torch.stack([run.logits["test"] for run in pool.runs]).double().mean(0)
    assert row["logit ensemble"] == pytest.approx(evaluate.accuracy(pooled, dataset.test.labels))
    assert (row.kind, row.n_members, row.n_selection) == (kind, 3, len(dataset.selection))
    assert np.isnan(row["shift"]) == (name == "mlp")
    assert np.isnan(row["aligned soup"]) == ("aligned soup" not in found.measured.options)
    kept = pool_of(name, dataset, predictions=Predictions(tmp_path))
    pd.testing.assert_frame_equal(chapter.advice(kept), table)


def test_a_greedy_soup_of_one_is_that_member(dataset):
    pool = pool_of("resnet8", dataset, 2, spread=1.0)  # in weights that are as far apart as strangers'
    states = pool.states
    alone = [score("resnet8", state, dataset.selection, dataset, recalibrate=False) for state in states]
    together = score("resnet8", merge.uniform_soup(states), dataset.selection, dataset)
    best = states[int(np.argmax(alone))]
    expected = (merge.uniform_soup(states), True) if together >= max(alone) else (best, False)
    found = chapter.advice(pool)["greedy soup"].item()
    assert found == pytest.approx(score("resnet8", expected[0], dataset.test, dataset, expected[1]))


def test_kinds_are_named_by_what_the_network_is(dataset):
    names = ("mlp", "deep_linear", "cnn", "vgg16_bn", "vit", "vit_b_16_cifar", "mine:network")
    pools = [SimpleNamespace(model=name, has_batchnorm=models.facts(name).batchnorm) for name in names]
    kinds = {pool.model: chapter.kind(pool) for pool in pools}
    assert kinds == {
        "mlp": "MLP",
        "deep_linear": "MLP",
        "cnn": "CNN, no BatchNorm",
        "vgg16_bn": "CNN, BatchNorm",
        "vit": "ViT",
        "vit_b_16_cifar": "ViT",
        "mine:network": "other",
    }


def test_reordered_members_are_the_same_functions(dataset):
    pool = pool_of("cnn", dataset)
    moved = chapter.with_units_reordered(pool)
    assert moved.states[0] is pool.states[0]
    for index in (1, 2):
        torch.testing.assert_close(moved.logits(moved.states[index]), moved.recorded()[index], rtol=0, atol=1e-4)
        assert any(not torch.equal(pool.states[index][key], moved.states[index][key]) for key in pool.states[index])
    plain, other = (chapter.advice(pool, reordered=moved).iloc[0] for moved in (False, True))
    assert plain.member == other.member
    assert other.distance > 2 * plain.distance
    aligned = align.apply(align.permutation(moved.states[0], moved.states[1], pool.module), moved.states[1])
    assert all(torch.equal(aligned[key], pool.states[1][key]) for key in aligned)


def test_what_the_command_prints_is_what_the_table_holds(tmp_path, monkeypatch, capsys, digits):
    from wamlib.cli import main

    pool = Pool(untrained("resnet8", digits, 2), digits)
    ids = [run.config.run_id for run in pool.runs]
    for run_id, state in zip(ids, pool.states, strict=True):
        (tmp_path / run_id).mkdir()
        save_file(state, tmp_path / run_id / "checkpoint.safetensors")
    lines = chapter.command(pool, n_images=60).line
    assert lines[0] == f"$ wamlib advise {ids[0]} {ids[1]} --model resnet8 --data digits --n-images 60"
    files = [str(tmp_path / run_id) for run_id in ids]
    monkeypatch.setattr(sys, "argv", ["wamlib", "advise", *files, *lines[0].split()[5:], "--device", "cpu"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out.splitlines()
    first = next(index for index, line in enumerate(said) if "midpoint gain" in line)  # behind the names of the files
    assert said[first:] == lines[1:].to_list()[-len(said[first:]) :]
    assert len(said) > 15


def test_a_list_without_some_kinds_has_pools_all_the_same():
    names = {"pool_models": ["vit_b_16_cifar"], "arm_models": [], "reordered_models": ["vit_b_16_cifar", "mlp"]}
    p = given("recipe", {"dataset": "digits", "datasets": ["digits"], **names})
    assert {key[2] for key in chapter.runs(p)} == {"shared start", "independent init"}


# What follows from the table

TABLE = pd.DataFrame(
    {
        "group": ["a"] * 3 + ["b"] * 3,
        "member": 70.0,
        "uniform soup": [71.0, 70.8, 71.1, 30.0, 31.0, 29.0],
        "best member": [70.5, 70.6, 70.4, 70.5, 70.6, 70.4],
        "greedy soup": [71.2, 70.7, 71.3, 70.5, 70.6, 70.4],
        "aligned soup": [np.nan] * 3 + [60.0, 61.0, 62.0],
        "logit ensemble": [71.5, 70.9, 70.7, 75.0, 75.1, 74.9],
        "once": ["uniform soup", "uniform soup", "greedy soup", "best member", "align first", "best member"],
        "many": ["logit ensemble"] * 5 + ["best member"],
    }
)


def test_the_cheapest_is_chosen_among_those_that_are_not_resolved():
    once = chapter.decisions(TABLE, ["group"], "once").set_index("group")
    assert once.best.to_dict() == {"a": "greedy soup", "b": "best member"}
    assert once.choice.to_dict() == {"a": "uniform soup", "b": "best member"}
    assert once.gain["b"] == pytest.approx(0.5)
    assert once.behind["a"] == pytest.approx(np.mean([0.2, -0.1, 0.2]))
    many = chapter.decisions(TABLE, ["group"], "many").set_index("group")
    assert many.choice.to_dict() == {"a": "uniform soup", "b": "logit ensemble"}
    assert many.n_pools.to_list() == [3, 3]
    one = chapter.decisions(TABLE.iloc[:1], ["group"], "once").iloc[0]  # a single pool has no interval
    assert one.choice == one.best == "greedy soup"


def test_an_option_that_is_far_behind_is_not_chosen_however_wide_its_interval():
    pools = TABLE[TABLE.group == "a"].copy()
    pools["uniform soup"] = pools["greedy soup"] - [0.1, 1.9, 0.1]  # 0.7 behind on average, not resolved
    far = chapter.decisions(pools.assign(**{"best member": 60.0}), ["group"], "once").iloc[0]
    assert far.choice == far.best == "greedy soup"
    pools["uniform soup"] = pools["greedy soup"] - [0.1, 0.9, 0.1]  # the twin: 0.4 behind
    assert chapter.decisions(pools, ["group"], "once").iloc[0].choice == "uniform soup"


def test_regret_is_what_is_lost_against_the_best_of_the_budget():
    expected = {
        ("once", "advice"): [0.2, 0, 0, 0, 9.6, 0],
        ("many", "advice"): [0, 0, 0.6, 0, 0, 4.5],
        ("many", "uniform soup"): [0.5, 0.1, 0.2, 45, 44.1, 45.9],
    }
    for key, values in expected.items():
        np.testing.assert_allclose(chapter.regrets(TABLE, *key), values, atol=1e-9)
    shown = chapter.regret(TABLE)
    assert shown.loc[("once", "advice")].to_list() == pytest.approx([9.8 / 6, 500 / 6])
    assert ("once", "logit ensemble") not in shown.index


def test_of_equal_options_the_cheapest_is_the_best():
    best = chapter.best_options(TABLE, "once")
    assert best.to_list() == ["greedy soup", "uniform soup", "greedy soup", "best member", "best member", "best member"]
    assert chapter.best_options(TABLE, "many")[0] == "logit ensemble"
    assert set(chapter.CHEAPEST_FIRST) == set(advise.OPTIONS)
    assert chapter.confusion(TABLE, "once").loc["align first", "best member"] == 1


@pytest.fixture
def table():
    keys = [
        (start, model, replica)
        for start in ("shared start", "independent init", "reordered")
        for model in ("mlp", "vit")
        for replica in (0, 1, 2)
    ]
    table = pd.DataFrame(keys, columns=["start", "model", "replica"]).assign(dataset="digits", n_selection=100)
    draw = np.random.default_rng(0)
    table = table.assign(kind=table.model, once="best member", many="logit ensemble", predicted_noise=0.5)
    for name in ("member", *dict.fromkeys(chapter.CHEAPEST_FIRST.values())):
        table[name] = draw.uniform(60, 80, len(table))
    for name in ("predicted_gain", "selection_gain", "measured_gain"):
        table[name] = draw.uniform(-5, 5, len(table))
    return table.assign(predicted_gain=table.predicted_gain - 40 * (table.start == "reordered"))


def of(**changes):
    return SimpleNamespace(p=given("recipe", {"dataset": "digits", "datasets": ["digits"], **changes}))


def test_numbers_are_those_of_the_validation_pools(table):
    table = chapter.described(table, of().p)
    assert table.setting.sum() == 4
    pools = chapter.validation(table)
    alike = pools[pools.start == "shared start"]
    found = chapter.numbers(of(), {"recipe": table})
    assert found["rank_start"] == pytest.approx(np.corrcoef(alike.predicted_gain, alike.measured_gain)[0, 1])
    missed, spread = alike.measured_gain - alike.predicted_gain, alike.measured_gain - alike.measured_gain.mean()
    assert found["r2_both_start"] == pytest.approx(1 - np.square(missed).sum() / np.square(spread).sum())
    known = table[table.setting & (table.start == "shared start")]
    slope, intercept = np.polyfit(known.predicted_gain, known.measured_gain, 1)
    wrong = alike.measured_gain - slope * alike.predicted_gain - intercept
    assert found["r2_drawn"] == pytest.approx(1 - np.square(wrong).mean() / np.var(alike.measured_gain))
    assert (found["n_validation"], found["aligned_share"]) == (14, 0)
    difference = found["behind_many_advice"] - found["behind_many_logit"]
    assert found["against_logit_low"] <= found["against_logit"] == pytest.approx(difference)
    assert "0 % are told to align." in found["reordered_sentence"]
    found = chapter.numbers(of(), {"recipe": table[(table.start != "reordered") & (table.model == "mlp")]})
    assert (found["reordered_sentence"], found["drawn_r2"]) == (
        "No pool was reordered in this profile.",
        "not measured",
    )


def test_an_ensemble_costs_a_pass_for_each_member(table):
    mflops = pd.DataFrame({"dataset": "digits", "model": ["mlp", "vit"], "mflops": [2.0, 5.0]})
    cells = chapter.options_and_costs(table, mflops, of(n_pool_members=3).p).set_index(["start", "model", "option"])
    assert cells.mflops["shared start", "vit", "logit ensemble"] == 15
    assert cells.mflops["shared start", "vit", "greedy soup"] == 5
    part = table[(table.start == "independent init") & (table.model == "mlp")]
    assert cells.error["independent init", "mlp", "aligned soup"] == pytest.approx(100 - part["aligned soup"].mean())
    assert ("shared start", "mlp", "aligned soup") not in cells.index
    assert set(cells.panel) == {f"{data.title('digits')}, shared start", f"{data.title('digits')}, independent init"}


# Figures


def test_an_option_stands_at_its_cost_and_its_error(table, tmp_path):
    mflops = pd.DataFrame({"dataset": "digits", "model": ["mlp", "vit"], "mflops": [2.0, 5.0]})
    cells = chapter.options_and_costs(table, mflops, of().p)
    fig = chapter.cost_vs_error(cells)
    check_drawing(fig, tmp_path)
    panels = [ax for ax in fig.axes if ax.axison]
    for ax, (panel, part) in zip(panels, cells.groupby("panel", sort=False), strict=True):
        assert ax.get_title() == panel
        marks = {(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1}
        assert marks == set(map(tuple, part[["mflops", "error"]].to_numpy()))
        assert {text.get_text() for text in ax.texts} == {"MLP", "ViT"}
    assert chapter._short("vgg16_bn") == "VGG-BN"


def test_gains_near_zero_have_a_panel_with_bars_and_setting_pools_are_hollow(table, tmp_path):
    table = chapter.described(table, of().p)
    fig = chapter.predicted_gain(table)
    check_drawing(fig, tmp_path)
    every, near = fig.axes
    assert sum(len(container.lines[0].get_xdata()) for container in every.containers) == len(table)
    assert all(not container.has_xerr for container in every.containers)
    close = table[table.start != "reordered"]
    found = [x for container in near.containers for x in container.lines[0].get_xdata()]
    assert sorted(found) == sorted(close.predicted_gain)
    for container in near.containers:
        line, _, (bars,) = container.lines
        ends = np.vstack(bars.get_segments())[:, 0]
        middles = np.repeat(np.asarray(line.get_xdata(), dtype=float), 2)
        np.testing.assert_allclose(np.abs(ends - middles), 0.5)
    faces = [container.lines[0].get_markerfacecolor() for container in every.containers]
    assert faces == ["none", "#0173B2", "none", "#7A7A7A", "#D55E00"]
    assert len(chapter.predicted_gain(table[table.start == "reordered"]).axes) == 1
