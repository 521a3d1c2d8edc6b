"""Tables of matched members, of merges and of repairs, against values computed in another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny

from wamlib import evaluate, probe, tables
from wamlib.merge import interpolate, recalibrate_batchnorm, uniform_soup


@pytest.fixture(scope="module")
def pool(store):
    return [store.train(tiny(model="resnet8", seed=seed, epochs=3)) for seed in range(3)]


@pytest.fixture(scope="module")
def strangers(store):
    return [store.train(tiny(init_seed=seed, seed=seed, epochs=10, peak_lr=0.1)) for seed in range(2)]


@pytest.fixture(scope="module")
def dataset(pool, store):
    return store.dataset(pool[0].config)


def test_alignment_has_a_line_per_matching_and_repair(pool, strangers, dataset):
    table = tables.alignment(*pool[:2], dataset, [0, 0.5, 1], n_images=100)
    lines = table.groupby(["matching", "repair"], sort=False)
    assert list(lines.groups) == [(m, r) for m in tables.MATCHINGS for r in tables.REPAIRS]
    assert (lines.barrier.nunique() == 1).all()
    assert set(tables.alignment(*strangers, dataset, [0, 1], n_images=100).repair) == {"none", "REPAIR"}


def test_the_unmatched_line_is_that_of_path(pool, dataset):
    line = tables.alignment(*pool[:2], dataset, [0, 0.5, 1])
    path = tables.path(*pool[:2], dataset, [0, 0.5, 1])
    for repair, flag in (("none", False), ("recalibrated", True)):
        ours = line[(line.matching == "none") & (line.repair == repair)].error.to_list()
        assert ours == pytest.approx(path[path.recalibrated == flag].error.to_list())


def test_the_ends_of_a_matched_line_are_the_members(pool, dataset):
    table = tables.alignment(*pool[:2], dataset, [0, 0.5, 1])
    errors = [100 - run.record["metrics"]["test"]["accuracy"] for run in pool[:2]]
    for _, line in table[table.repair == "none"].groupby("matching"):
        assert [line.error.iloc[0], line.error.iloc[-1]] == pytest.approx(errors, abs=0.3)  # near ties may flip


def test_matching_brings_independent_members_nearer(strangers, dataset):
    table = tables.alignment(*strangers, dataset, [0, 0.5, 1])
    distance = table.groupby("matching").distance.first()
    assert distance["weights"] < distance["activations"] < distance["none"]
    barrier = table[table.repair == "none"].groupby("matching").barrier.first()
    assert barrier["weights"] < barrier["none"]


def test_a_hidden_permutation_is_found(strangers, dataset):
    row = tables.hidden_permutation(strangers[0], dataset).iloc[0]
    assert row.agreement == 100
    assert row.matched_distance == 0
    assert row.matched_barrier == 0
    assert row.shuffled_distance > 0.5  # the twin: without matching the two are far apart
    assert row.shuffled_barrier > 10


def test_repair_restores_the_spread_of_the_units(strangers, dataset):
    table = tables.unit_spread(*strangers, dataset)
    spread = table.groupby(["matching", "repair"]).spread.mean()
    assert spread["none", "none"] < 0.9
    assert spread["none", "none"] < spread["weights", "none"]
    assert spread["none", "REPAIR"] == pytest.approx(1, abs=0.15)  # other images than those repaired on


def test_the_spread_of_a_member_with_itself_is_one(strangers, dataset):
    table = tables.unit_spread(strangers[0], strangers[0], dataset)
    np.testing.assert_allclose(table.spread, 1, rtol=1e-4)


def test_layer_spread_agrees_with_numpy(strangers, dataset):
    module = tables.Evaluator("mlp", dataset).load(strangers[0].state)
    images = dataset.test.normalize(dataset.test.images).flatten(1).double().numpy()
    weight, bias = (strangers[0].state[f"fc1.{name}"].double().numpy() for name in ("weight", "bias"))
    expected = (images @ weight.T + bias).std(0, ddof=1).mean()
    spread = evaluate.layer_spread(module, dataset.test)
    assert list(spread) == ["fc1", "fc2", "fc3"]  # hidden layers, not the classifier
    assert spread["fc1"] == pytest.approx(expected, rel=1e-5)


def test_merges_are_scored_as_evaluate_scores_them(pool, store, dataset):
    base = store.start_state(pool[0].config)
    table = tables.merges(pool, base, dataset).set_index("merge")
    evaluator = tables.Evaluator("resnet8", dataset)
    soup = uniform_soup([run.state for run in pool])
    assert table.accuracy["uniform soup"] == pytest.approx(100 - evaluator.error(soup, recalibrate=True))
    member = np.mean([run.record["metrics"]["test"]["accuracy"] for run in pool])
    assert table.accuracy["member"] == pytest.approx(member)
    assert len(table) == 10
    assert "density" in table.chosen["TIES"]


def test_what_is_chosen_is_chosen_on_the_selection_split(pool, store, dataset):
    base = store.start_state(pool[0].config)
    # Other test labels change the scores, and must not change the choice.
    flipped = replace(dataset, test=replace(dataset.test, labels=dataset.test.labels.flip(0)))
    before, after = tables.merges(pool, base, dataset), tables.merges(pool, base, flipped)
    assert before.chosen.to_list() == after.chosen.to_list()
    assert before.accuracy[1] != after.accuracy[1]


def test_a_start_is_what_training_began_with(store):
    trunk = tiny(epochs=1)
    later = tiny(init_seed=None, start=trunk, epochs=1)
    store.train(later)
    assert all(torch.equal(a, b) for a, b in zip(
        store.start_state(later).values(), store.train(trunk).state.values(), strict=True
    ))  # fmt: skip
    begun = store.start_state(trunk)
    again, other = store.start_state(tiny(epochs=2)), store.start_state(tiny(epochs=1, init_seed=1))
    assert torch.equal(begun["fc1.weight"], again["fc1.weight"])
    assert not torch.equal(begun["fc1.weight"], other["fc1.weight"])


def test_recalibrations_agree_with_the_parts(pool, dataset):
    table = tables.recalibrations(pool, dataset, [50, 200])
    soup = uniform_soup([run.state for run in pool])
    evaluator = tables.Evaluator("resnet8", dataset)
    assert table.error[table.images == 0].item() == pytest.approx(evaluator.error(soup))
    assert set(zip(table.order[1:], table.tool[1:], strict=True)) == {
        (order, tool) for order in ("shuffled", "by class") for tool in ("wamlib", "torch")
    }
    ((images, _),) = dataset.train.take(slice(0, 50)).batches(50)
    module = recalibrate_batchnorm(evaluator.load(soup), [images[:-2], images[-2:]])
    logits = evaluate.predict_logits(module, dataset.test)
    ours = table[(table.images == 50) & (table.order == "shuffled") & (table.tool == "wamlib")].error.item()
    assert ours == pytest.approx(100 - evaluate.accuracy(logits, dataset.test.labels), abs=0.3)


def test_the_order_of_the_images_matters_to_torch_only(pool, dataset):
    error = tables.recalibrations(pool, dataset, [200]).set_index(["order", "tool"]).error
    assert error["shuffled", "wamlib"] == pytest.approx(error["by class", "wamlib"], abs=0.3)
    assert error["shuffled", "torch"] != pytest.approx(error["by class", "torch"], abs=0.3)


def test_barrier_height_is_that_of_barrier(strangers):
    a, b = (run.state for run in strangers)
    line = probe.barrier(a, b, probe.weight_norm, [0, 0.3, 1])
    errors = [probe.weight_norm(interpolate(a, b, alpha)) for alpha in (0, 0.3, 1)]
    assert line.height == probe.barrier_height([0, 0.3, 1], errors)
