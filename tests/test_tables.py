"""Tables against values computed in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny

from wamlib import evaluate, sweeps, tables
from wamlib.errors import ProbeError
from wamlib.merge import uniform_soup


@pytest.fixture(scope="module")
def pool(store):
    return [store.train(tiny(model="resnet8", seed=seed, epochs=3)) for seed in range(3)]


@pytest.fixture(scope="module")
def dataset(pool, store):
    return store.dataset(pool[0].config)


def test_combinations_agree_with_the_parts(pool, dataset):
    table = tables.combinations(pool, dataset, sizes=(2, 3)).set_index(["n_members", "combination"])
    labels = dataset.test.labels
    accuracies = [run.record["metrics"]["test"]["accuracy"] for run in pool]
    assert table.accuracy[2, "member"] == pytest.approx(np.mean(accuracies[:2]))
    pooled = torch.stack([run.logits["test"] for run in pool]).mean(0)
    assert table.accuracy[3, "logit ensemble"] == pytest.approx(evaluate.accuracy(pooled, labels))
    assert table.nll[3, "logit ensemble"] == pytest.approx(evaluate.nll(pooled, labels), rel=1e-6)
    evaluator = tables.Evaluator("resnet8", dataset)
    soup = uniform_soup([run.state for run in pool])
    assert table.accuracy[3, "uniform soup"] == pytest.approx(100 - evaluator.error(soup, recalibrate=True))


@pytest.mark.parametrize("sizes", [(4,), (2, 9), (0,), (-1, 2)])
def test_a_soup_is_never_smaller_than_asked_for(pool, dataset, sizes):
    with pytest.raises(ProbeError, match="1 to 3"):
        tables.combinations(pool, dataset, sizes)


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_a_pool_of_copies_is_one_member_however_combined(model, store):
    run = store.train(tiny(model=model, epochs=3))
    table = tables.combinations([run] * 3, store.dataset(run.config), sizes=(3,)).set_index("combination")
    if model == "resnet8":  # BatchNorm is recalibrated in soups: with other images, to other statistics
        table = table.drop(index=["uniform soup", "greedy soup"])
    assert table.accuracy.nunique() == 1
    assert table.nll.round(5).nunique() == 1
    assert table.disagreement["member"] == table.distance["member"] == 0


def test_recalibration_leaves_the_member_itself_alone(pool, dataset):
    before = {key: value.clone() for key, value in pool[0].state.items()}
    tables.combinations(pool, dataset, sizes=(2,))
    torch.testing.assert_close(pool[0].state, before, rtol=0, atol=0)


def test_path_has_both_kinds_of_line_for_batchnorm_only(pool, dataset, store):
    line = tables.path(*pool[:2], dataset, [0, 0.5, 1])
    assert set(line.recalibrated) == {False, True}
    plain = [store.train(tiny(seed=seed)) for seed in (0, 1)]
    assert set(tables.path(*plain, store.dataset(plain[0].config), [0, 0.5, 1]).recalibrated) == {False}


def test_pairs_are_zero_apart_from_themselves(pool):
    table = tables.pairs([pool[0], pool[0], pool[1]])
    assert table.distance[0] == 0
    assert table.agreement[0] == 100
    assert table.distance[1] == pytest.approx(table.distance[2])
    assert table.distance[1] > 0


def test_template_matches_find_the_classes_and_not_in_the_control(store):
    groups = sweeps.linear_members("digits", n_train=1000, n_members=2, epochs=10, weight_decays=(0.0,))
    table = tables.template_matches(sweeps.run_groups(groups, store), store.dataset(groups[0.0][0]))
    assert list(table.seed) == [0, 1] * 3
    table = table[table.group != sweeps.RELEASED]
    true, shuffled = (table[(table.group == "shuffled labels") == flag] for flag in (False, True))
    assert (true.own > 0.6).all()
    assert (true.p < 0.01).all()
    assert (true.retrieval > 90).all()
    assert (shuffled.own.abs() < 0.3).all()
    assert (true.null < true.own).all()


def test_over_stacks_with_the_names_of_the_keys(pool):
    table = tables.over({("resnet8", "shared start", 1): pool}, tables.pairs)
    assert list(table.columns[:3]) == ["model", "start", "replica"]
    assert (table.replica == 1).all()


def test_save_writes_what_read_gives_back(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    table = pd.DataFrame({"a": [1.5, float("nan")], "b": ["x", "y"]})
    assert tables.save(table, "t", "smoke") is table
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tables" / "smoke" / "t.csv"), table)
