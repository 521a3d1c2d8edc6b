"""Advice against the truth: every number computed in another way, and what a policy costs."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_dataset, untrained

from wamlib import advise, align, evaluate, merge, models, tables
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=100)


def score(name, state, split, dataset, recalibrate=True):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    if recalibrate:
        merge.recalibrate_batchnorm(module, [images for images, _ in dataset.train.batches()])
    return evaluate.accuracy(evaluate.predict_logits(module, split), split.labels)


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_the_row_holds_the_advice_and_what_each_option_gives(name, dataset):
    pool = untrained(name, dataset, 3, spread=0.4)
    row = tables.advice(pool, dataset).iloc[0]
    states, model = [run.state for run in pool], models.build(name, 3, 1, (8, 8))
    batches = [images for images, _ in dataset.train.batches()]
    found = advise.advise(states, model, dataset.selection, training_batches=batches)
    assert row.once == found.recommendation
    assert row.many == found.with_budget(3).recommendation
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
    pooled = torch.stack([run.logits["test"] for run in pool]).double().mean(0)
    assert row["logit ensemble"] == pytest.approx(evaluate.accuracy(pooled, dataset.test.labels))
    assert (row.n_members, row.n_selection) == (3, len(dataset.selection))
    assert np.isnan(row["shift"]) == (name == "mlp")
    assert np.isnan(row["aligned soup"]) == ("aligned soup" not in found.measured.options)


def test_a_greedy_soup_of_one_is_that_member(dataset):
    # Two that agree with the labels, in weights that are as far apart as strangers'.
    pool = untrained("resnet8", dataset, 2, spread=1.0)
    row = tables.advice(pool, dataset).iloc[0]
    states = [run.state for run in pool]
    alone = [score("resnet8", state, dataset.selection, dataset, recalibrate=False) for state in states]
    together = score("resnet8", merge.uniform_soup(states), dataset.selection, dataset)
    best = states[int(np.argmax(alone))]
    expected = (merge.uniform_soup(states), True) if together >= max(alone) else (best, False)
    assert row["greedy soup"] == pytest.approx(score("resnet8", expected[0], dataset.test, dataset, expected[1]))


def test_kinds_are_named_by_what_the_network_is(dataset):
    kinds = {
        name: tables.advice(untrained(name, dataset, 2), dataset).kind.item()
        for name in ("mlp", "cnn", "resnet8", "vit")
    }
    assert kinds == {"mlp": "MLP", "cnn": "CNN, no BatchNorm", "resnet8": "CNN, BatchNorm", "vit": "ViT"}


def test_kept_advice_is_that_of_a_new_computation(dataset, tmp_path):
    pool = untrained("resnet8", dataset, 2, spread=0.4)
    expected = tables.advice(pool, dataset)
    for store in (Predictions(tmp_path), Predictions(tmp_path)):
        pd.testing.assert_frame_equal(tables.advice(pool, dataset, predictions=store), expected)


def test_reordered_members_are_the_same_functions_with_records_of_their_own(dataset):
    pool = untrained("cnn", dataset, 3, spread=0.4)
    moved = tables.reordered(pool, dataset)
    assert moved[0] is pool[0]
    module = models.build("cnn", 3, 1, (8, 8))
    for run, other in zip(pool[1:], moved[1:], strict=True):
        assert other.record["checkpoint_sha256"] != run.record["checkpoint_sha256"]
        module.load_state_dict(other.state)
        logits = evaluate.predict_logits(module, dataset.test)
        torch.testing.assert_close(logits, run.logits["test"], rtol=0, atol=1e-4)
        assert torch.equal(other.logits["test"], run.logits["test"])
        assert any(not torch.equal(run.state[key], other.state[key]) for key in run.state)
    plain, other = (tables.advice(part, dataset).iloc[0] for part in (pool, moved))
    assert plain.member == other.member
    assert other.distance > 2 * plain.distance
    aligned = align.apply(align.permutation(moved[0].state, moved[1].state, module), moved[1].state)
    assert all(torch.equal(aligned[key], pool[1].state[key]) for key in aligned)


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
    once = tables.decisions(TABLE, ["group"], "once").set_index("group")
    assert once.best.to_dict() == {"a": "greedy soup", "b": "best member"}
    assert once.choice.to_dict() == {"a": "uniform soup", "b": "best member"}
    assert once.gain["b"] == pytest.approx(0.5)
    assert once.behind["a"] == pytest.approx(np.mean([0.2, -0.1, 0.2]))
    many = tables.decisions(TABLE, ["group"], "many").set_index("group")
    assert many.choice.to_dict() == {"a": "uniform soup", "b": "logit ensemble"}
    assert many.n_pools.to_list() == [3, 3]


def test_an_option_that_is_far_behind_is_not_chosen_however_wide_its_interval():
    pools = TABLE[TABLE.group == "a"].copy()
    pools["uniform soup"] = pools["greedy soup"] - [0.1, 1.9, 0.1]  # 0.7 behind on average, not resolved
    far = tables.decisions(pools.assign(**{"best member": 60.0}), ["group"], "once").iloc[0]
    assert far.choice == far.best == "greedy soup"
    pools["uniform soup"] = pools["greedy soup"] - [0.1, 0.9, 0.1]  # the twin: 0.4 behind
    assert tables.decisions(pools, ["group"], "once").iloc[0].choice == "uniform soup"


def test_a_single_pool_has_no_interval_so_its_best_is_chosen():
    one = tables.decisions(TABLE.iloc[:1], ["group"], "once").iloc[0]
    assert one.choice == one.best == "greedy soup"


def test_regret_is_what_is_lost_against_the_best_of_the_budget():
    np.testing.assert_allclose(tables.regrets(TABLE, "once", "advice"), [0.2, 0, 0, 0, 9.6, 0], atol=1e-9)
    np.testing.assert_allclose(tables.regrets(TABLE, "many", "advice"), [0, 0, 0.6, 0, 0, 4.5], atol=1e-9)
    np.testing.assert_allclose(
        tables.regrets(TABLE, "many", "uniform soup"), [0.5, 0.1, 0.2, 45, 44.1, 45.9], atol=1e-9
    )


def test_of_equal_options_the_cheapest_is_the_best():
    best = tables.best_options(TABLE, "once")
    assert best.to_list() == ["greedy soup", "uniform soup", "greedy soup", "best member", "best member", "best member"]
    assert tables.best_options(TABLE, "many")[0] == "logit ensemble"
    assert set(tables.CHEAPEST_FIRST) == set(advise.OPTIONS)
