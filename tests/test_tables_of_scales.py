"""What a scale factor does to members, soups and ensembles, against networks scaled by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import eval_logits, random_dataset, untrained

from wamlib import evaluate, merge, models, probe, tables
from wamlib.errors import ProbeError
from wamlib.predictions import Predictions

COMBINATIONS = ["member", "uniform soup", "greedy soup", "logit ensemble", "probability ensemble"]


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=100)


def logits(name, state, split, dataset, *, recalibrate=False):
    module = models.build(name, len(dataset.classes), 1, (8, 8))
    module.load_state_dict(state)
    if recalibrate:
        merge.recalibrate_batchnorm(module, [batch for batch, _ in dataset.train.batches()])
    return eval_logits(module, split)


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_numbers_are_those_of_networks_scaled_by_hand(dataset):
    pool = untrained("mlp", dataset, 2, spread=0.3)
    table = tables.scales(pool, dataset, [1.0, 4.0], ["learnable"], 60)
    assert list(table.combination) == COMBINATIONS * 2
    split, states = dataset.test.take(slice(0, 60)), [run.state for run in pool]
    soup = merge.uniform_soup(states)
    by_hand = [logits("mlp", {key: 4 * t for key, t in state.items()}, split, dataset) for state in (*states, soup)]
    pooled = torch.stack(by_hand[:2]).mean(0)
    for combination, networks in (("member", by_hand[:2]), ("uniform soup", by_hand[2:]), ("logit ensemble", [pooled])):
        row = one(table, c=4.0, combination=combination)
        for name in ("accuracy", "nll"):
            values = [getattr(evaluate, name)(network, split.labels) for network in networks]
            assert row[name] == pytest.approx(np.mean(values), rel=1e-4), (combination, name)
    before = [logits("mlp", state, split, dataset) for state in states]
    same = [evaluate.agreement(a, b) for a, b in zip(by_hand, before)]
    assert one(table, c=4.0, combination="member").agreement == pytest.approx(np.mean(same))
    assert (table[table.c == 1].agreement == 100).all()
    assert (table.finite == 100).all()


def test_soups_are_recalibrated_before_they_are_scaled(dataset):
    pool = untrained("resnet8", dataset, 2)
    row = one(tables.scales(pool, dataset, [1.0], ["everything"]), combination="uniform soup")
    soup = merge.uniform_soup([run.state for run in pool])
    right, wrong = (logits("resnet8", soup, dataset.test, dataset, recalibrate=flag) for flag in (True, False))
    assert row.nll == pytest.approx(evaluate.nll(right, dataset.test.labels), rel=1e-4)
    assert row.nll != pytest.approx(evaluate.nll(wrong, dataset.test.labels), rel=1e-2)


def test_coherently_nothing_changes_and_everything_breaks_batchnorm(dataset):
    pool = untrained("densenet", dataset, 2)
    table = tables.scales(pool, dataset, [1.0, 10.0], ["everything", "batchnorm"])
    assert (table[table.scope == "batchnorm"].agreement > 98).all()
    assert (table[(table.scope == "everything") & (table.c == 10)].agreement < 90).any()  # the twin


def test_the_head_alone_is_what_the_scaled_state_dict_gives(dataset):
    pool = untrained("mlp", dataset, 2)
    row = one(tables.scales(pool, dataset, [3.0], ["head"]), combination="uniform soup")
    scaled = probe.scale(merge.uniform_soup([run.state for run in pool]), 3.0, "head")
    assert row.nll == pytest.approx(evaluate.nll(logits("mlp", scaled, dataset.test, dataset), dataset.test.labels))
    assert row.agreement == 100


def test_scopes_that_multiply_the_same_tensors_have_the_same_rows(dataset):
    pool = untrained("mlp", dataset, 2)
    table = tables.scales(pool, dataset, [0.5, 1.0], ["everything", "learnable", "weights"])
    parts = [part.drop(columns="scope").reset_index(drop=True) for _, part in table.groupby("scope", sort=False)]
    pd.testing.assert_frame_equal(*parts[:2])
    assert not parts[0].equals(parts[2])  # the twin


def test_a_scope_that_an_architecture_does_not_have_is_left_out(dataset):
    table = tables.scales(untrained("vit", dataset, 2), dataset, [2.0], ["batchnorm", "learnable"])
    assert set(table.scope) == {"learnable"}


@pytest.mark.parametrize(("factor", "scope", "word"), [(2.0, "batch norm", "scope"), (-1.0, "batchnorm", "factor")])
def test_mistakes_are_refused_and_not_left_out(dataset, factor, scope, word):
    with pytest.raises(ProbeError, match=word):
        tables.scales(untrained("mlp", dataset, 2), dataset, [factor], [scope])


def test_overflow_is_shown_as_such(dataset):
    table = tables.scales(untrained("mlp", dataset, 2), dataset, [1.0, 1e30], ["everything"])
    blown = table[table.c == 1e30]
    assert len(blown) == len(COMBINATIONS)
    assert (blown.finite < 100).all()
    assert blown[["nll", "entropy", "margin"]].isna().all(axis=None)
    assert (blown[["accuracy", "agreement"]].max(axis=1) <= blown.finite).all()  # undefined is not right


def test_one_layer_at_a_time(dataset):
    pool = untrained("mlp", dataset, 2)
    table = tables.layer_scales(pool, dataset, [0.1, 1.0])
    assert list(table.layer.unique()) == ["fc1", "fc2", "fc3", "head"]
    assert (table[(table.c == 1) | (table.layer == "head")]["drop"] == 0).all()
    state = dict(pool[0].state)
    state |= {key: 0.1 * state[key] for key in ("fc2.weight", "fc2.bias")}
    labels = dataset.test.labels
    accuracies = [evaluate.accuracy(logits("mlp", s, dataset.test, dataset), labels) for s in (pool[0].state, state)]
    row = one(table, layer="fc2", c=0.1, combination="member")
    assert row["drop"] == pytest.approx(accuracies[0] - accuracies[1])


def test_the_released_way_is_saved_by_the_statistics_of_each_batch(dataset):
    pool = untrained("resnet8", dataset, 2)
    before, after = (
        part.set_index("combination").accuracy
        for _, part in tables.released_scales(pool, dataset, [1.0, 100.0]).groupby("c")
    )
    assert set(before.index) == {"member", "uniform soup", "logit ensemble"}
    assert abs(before - after).max() < 5
    module = models.build("resnet8", 3, 1, (8, 8))
    found = []
    for run in pool:
        module.load_state_dict(run.state)
        images = dataset.test.normalize(dataset.test.images)
        with torch.no_grad():
            read = [module.train()(batch) for batch in images.split(64)]
        found.append(evaluate.accuracy(torch.cat(read), dataset.test.labels))
    assert before["member"] == pytest.approx(np.mean(found))


# Scaled members


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_one_scaled_member_is_a_larger_share(dataset, name):
    pool = untrained(name, dataset, 3, spread=0.3)
    table = tables.one_member_scaled(pool, dataset, [0.5, 1.0, 100.0])
    assert list(table.share) == pytest.approx([0.2, 1 / 3, 100 / 102])
    assert (table.difference < 1e-6).all()
    assert one(table, c=1.0).agreement == 100
    first, *others = (run.state for run in pool)
    weighted = merge.uniform_soup([first, *others], weights=[0.2, 0.4, 0.4])
    expected = logits(name, weighted, dataset.test, dataset, recalibrate=True)
    assert one(table, c=0.5).weighted == pytest.approx(evaluate.accuracy(expected, dataset.test.labels))
    assert one(table, c=0.5).agreement > 95  # biases alone feel the scale of the whole


def test_greedy_soups_count_scaled_members_only(dataset):
    pool = untrained("resnet8", dataset, 3, spread=0.01)
    labels = dataset.selection.labels
    guesses = [run.logits["selection"].argmax(1) for run in pool]
    table = tables.greedy_soups_of_scaled(pool, dataset, [1.0, 1e4])
    assert list(table.protocol) == ["corrected", "released"] * 2
    assert (table.offered == 2).all()
    assert table.accepted.between(0, 2).all()
    best = max(range(3), key=lambda i: evaluate.accuracy(torch.eye(3)[guesses[i]], labels))
    members = [pool[best].state, *(run.state for i, run in enumerate(pool) if i != best)]

    def score(state):
        return evaluate.accuracy(logits("resnet8", state, dataset.selection, dataset, recalibrate=True), labels)

    by_hand = merge.greedy_soup(members, score)
    assert one(table, c=1.0, protocol="corrected").accepted == len(set(by_hand.accepted) - {0})


def test_tables_of_scales_are_kept_and_found(dataset, tmp_path):
    kept, pool = Predictions(tmp_path), untrained("mlp", dataset, 2)
    first = tables.scales(pool, dataset, [2.0], ["learnable"], predictions=kept)
    again = tables.scales(pool, dataset, [2.0], ["learnable"], predictions=kept)
    pd.testing.assert_frame_equal(first, again)
    other = replace(dataset, test=dataset.test.take(slice(0, 50)))
    assert not tables.scales(pool, other, [2.0], ["learnable"], predictions=kept).equals(first)
