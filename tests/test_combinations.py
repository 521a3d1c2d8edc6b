"""Members against soups and ensembles, against values computed in another way (M13)."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import eval_logits, random_dataset, untrained
from scipy import stats as reference

from wamlib import combinations as combining
from wamlib import evaluate, merge, models, probe
from wamlib.combinations import combinations, subsets
from wamlib.errors import ProbeError
from wamlib.pools import Pool

# Subsets


@pytest.mark.parametrize(("n_all", "n", "n_subsets"), [(10, 2, 4), (10, 5, 4), (10, 9, 4), (7, 3, 20), (10, 3, 1)])
def test_subsets_are_different_and_the_first_is_that_of_the_first(n_all, n, n_subsets):
    found = subsets(n_all, n, n_subsets)
    assert len(found) == len(set(found)) == n_subsets
    assert found[0] == tuple(range(n))
    for chosen in found:
        assert list(chosen) == sorted(set(chosen))
        assert len(chosen) == n
        assert set(chosen) <= set(range(n_all))
    assert subsets(n_all, n, n_subsets) == found
    if n_subsets > 1:
        assert subsets(n_all, n, n_subsets, seed=1) != found


@pytest.mark.parametrize(("n_all", "n", "n_subsets"), [(4, 2, 6), (4, 2, 99), (10, 10, 4), (5, 4, 5), (3, 1, 8)])
def test_where_there_are_few_subsets_all_are_taken(n_all, n, n_subsets):
    assert subsets(n_all, n, n_subsets) == list(itertools.combinations(range(n_all), n))


def test_every_member_is_drawn_about_as_often():
    drawn = [index for seed in range(100) for chosen in subsets(10, 3, 5, seed)[1:] for index in chosen]
    counts = np.bincount(drawn, minlength=10)
    assert reference.chisquare(counts).pvalue > 1e-3


# Combinations


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_selection=150, n_test=240)


@pytest.fixture(scope="module")
def pool(dataset):
    return untrained("resnet8", dataset, 4, spread=0.5)


@pytest.fixture(scope="module")
def table(pool, dataset):
    return combinations(Pool(pool, dataset), sizes=(2, 3, 4), n_subsets=3)


def recalibrated(state, dataset):
    """A network with these weights, its BatchNorm recalibrated on all training images."""
    module = models.build("resnet8", 3, 1, (8, 8))
    module.load_state_dict(state)
    return merge.recalibrate_batchnorm(module, [dataset.train.normalize(dataset.train.images)])


def row(table, n, subset, combination):
    return table[(table.n_members == n) & (table.subset == subset) & (table.combination == combination)].squeeze()


def right(logits, split):
    return (logits.argmax(1) == split.labels).numpy()


def test_every_subset_has_every_combination_and_the_first_a_greedy_soup_too(table):
    assert set(table.combination) == {"member", *combining.EVERY}
    rows = table.groupby(["n_members", "subset"]).combination.agg(list)
    assert list(rows.index) == [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2), (4, 0)]  # there is one subset of all
    everything = ["member", *combining.EVERY]
    for (_, subset), names in rows.items():
        assert names == [name for name in everything if subset == 0 or name != "greedy soup"]


def test_a_member_row_is_the_mean_over_the_members(table, pool, dataset):
    for number, chosen in enumerate(subsets(4, 3, 3)):
        found = row(table, 3, number, "member")
        members = [evaluate.metrics(pool[i].logits["test"], dataset.test.labels) for i in chosen]
        for name in members[0]:
            assert found[name] == pytest.approx(np.mean([member[name] for member in members])), name
        temperatures = [evaluate.fit_temperature(pool[i].logits["selection"], dataset.selection.labels) for i in chosen]
        cooled = [pool[i].logits["test"] / t for i, t in zip(chosen, temperatures, strict=True)]
        assert found.refitted_nll == pytest.approx(np.mean([evaluate.nll(z, dataset.test.labels) for z in cooled]))
        names = [pool[i].logits["test"].argmax(1).numpy() for i in chosen]
        apart = [np.mean(a != b) for a, b in itertools.combinations(names, 2)]
        assert found.disagreement == pytest.approx(100 * np.mean(apart))
        assert found.disagreement > 1
        assert found.distance == pytest.approx(probe.relative_distance([pool[i].state for i in chosen]))
        assert math.isnan(found.p)


def test_ensembles_are_those_of_the_chosen_members(table, pool, dataset):
    labels = dataset.test.labels
    for number, chosen in enumerate(subsets(4, 2, 3)):
        logits = torch.stack([pool[i].logits["test"].double() for i in chosen])
        by_logits, by_probabilities = logits.mean(0), logits.softmax(2).mean(0).log()
        for name, pooled in (("logit ensemble", by_logits), ("probability ensemble", by_probabilities)):
            found = row(table, 2, number, name)
            assert found.accuracy == pytest.approx(evaluate.accuracy(pooled, labels))
            assert found.nll == pytest.approx(evaluate.nll(pooled, labels), rel=1e-5)
    assert table[table.combination == "logit ensemble"].nll.nunique() == 7


def test_feature_ensembles_put_one_head_on_the_mean_feature(table, pool, dataset):
    chosen, features, heads = subsets(4, 3, 3)[1], [], []
    for i in chosen:
        module = models.build("resnet8", 3, 1, (8, 8)).eval()
        module.load_state_dict(pool[i].state)
        with torch.no_grad():
            features.append(module[:-1](dataset.test.normalize(dataset.test.images)))
        heads.append((pool[i].state["head.weight"], pool[i].state["head.bias"]))
    mean = torch.stack(features).mean(0)
    averaged = [torch.stack(part).mean(0) for part in zip(*heads, strict=True)]
    for name, (weight, bias) in (("first", heads[0]), ("averaged", averaged)):
        found = row(table, 3, 1, f"feature ensemble, {name} head")
        logits = mean @ weight.T + bias
        assert found.nll == pytest.approx(evaluate.nll(logits, dataset.test.labels), rel=1e-4)
        assert math.isnan(found.refitted_nll)
        assert math.isnan(found.refitted_calibration_error)


def test_soups_are_recalibrated_and_their_temperature_is_fitted_on_selection_images(table, pool, dataset):
    for n, number in ((2, 0), (2, 2), (4, 0)):
        chosen = subsets(4, n, 3)[number]
        module = recalibrated(merge.uniform_soup([pool[i].state for i in chosen]), dataset)
        test, selection = (eval_logits(module, split) for split in (dataset.test, dataset.selection))
        found = row(table, n, number, "uniform soup")
        assert found.nll == pytest.approx(evaluate.nll(test, dataset.test.labels), rel=1e-4)
        temperature = evaluate.fit_temperature(selection, dataset.selection.labels)
        refitted = evaluate.nll(test / temperature, dataset.test.labels)
        assert found.refitted_nll == pytest.approx(refitted, rel=1e-4)
        # The twins: without recalibration, and with the temperature of the test images, it is another number.
        module.load_state_dict(merge.uniform_soup([pool[i].state for i in chosen]))
        assert found.nll != pytest.approx(
            evaluate.nll(eval_logits(module, dataset.test), dataset.test.labels), rel=1e-2
        )
        cheated = evaluate.nll(test / evaluate.fit_temperature(test, dataset.test.labels), dataset.test.labels)
        assert cheated < found.refitted_nll - 1e-6


def test_temperatures_of_ensembles_are_fitted_behind_the_pooling(table, pool, dataset):
    chosen = subsets(4, 3, 3)[2]
    test, selection = (
        torch.stack([pool[i].logits[name].double() for i in chosen]).mean(0) for name in ("test", "selection")
    )
    temperature = evaluate.fit_temperature(selection, dataset.selection.labels)
    found = row(table, 3, 2, "logit ensemble")
    assert found.refitted_nll == pytest.approx(evaluate.nll(test / temperature, dataset.test.labels), rel=1e-4)
    expected = evaluate.calibration_error(test / temperature, dataset.test.labels)
    assert found.refitted_calibration_error == pytest.approx(expected, abs=0.01)


def test_disagreement_with_the_ensemble_is_tested_image_by_image(table, pool, dataset):
    for n, number in ((2, 1), (4, 0)):
        chosen = subsets(4, n, 3)[number]
        module = recalibrated(merge.uniform_soup([pool[i].state for i in chosen]), dataset)
        pooled = torch.stack([pool[i].logits["test"].double() for i in chosen]).mean(0)
        soup, ensemble = right(eval_logits(module, dataset.test), dataset.test), right(pooled, dataset.test)
        found = row(table, n, number, "uniform soup")
        only = int((soup & ~ensemble).sum()), int((ensemble & ~soup).sum())
        assert (found.only_this, found.only_ensemble) == only
        assert found.p == pytest.approx(reference.binomtest(only[0], sum(only)).pvalue)
        difference = row(table, n, number, "logit ensemble").accuracy - found.accuracy
        assert 100 * (only[1] - only[0]) / 240 == pytest.approx(difference)
    itself = table[table.combination == "logit ensemble"]
    assert (itself.only_this == 0).all()
    assert (itself.p == 1).all()


def test_the_greedy_soup_is_chosen_on_selection_images(pool, dataset):
    labels = dataset.selection.labels

    def score(state):
        return evaluate.accuracy(eval_logits(recalibrated(state, dataset), dataset.selection), labels)

    for n in (3, 4):
        soup = merge.greedy_soup([run.state for run in pool[:n]], score)
        logits = eval_logits(recalibrated(soup.state, dataset), dataset.test)
        found = row(combinations(Pool(pool, dataset), sizes=(n,)), n, 0, "greedy soup")
        assert found.accepted == len(soup.accepted)
        assert found.nll == pytest.approx(evaluate.nll(logits, dataset.test.labels), rel=1e-4)
    # Other test labels change its score, and must not change the choice.
    flipped = replace(dataset, test=replace(dataset.test, labels=dataset.test.labels.flip(0)))
    changed = row(combinations(Pool(pool, flipped), sizes=(4,)), 4, 0, "greedy soup")
    assert changed.accepted == found.accepted
    assert changed.nll != found.nll


def test_only_the_kinds_that_are_asked_for_are_made(pool, dataset):
    table = combinations(Pool(pool, dataset), sizes=(2,), kinds=["logit ensemble", "uniform soup"])
    assert list(table.combination) == ["member", "logit ensemble", "uniform soup"]


def test_only_the_first_selection_images_are_chosen_on(pool, dataset, monkeypatch):
    monkeypatch.setattr(combining, "N_SELECTION", 50)
    few = row(combinations(Pool(pool, dataset), sizes=(2,)), 2, 0, "logit ensemble")
    test, selection = (
        torch.stack([run.logits[name].double() for run in pool[:2]]).mean(0) for name in ("test", "selection")
    )
    temperature = evaluate.fit_temperature(selection[:50], dataset.selection.labels[:50])
    assert few.refitted_nll == pytest.approx(evaluate.nll(test / temperature, dataset.test.labels), rel=1e-4)


def test_one_member_disagrees_with_nobody(pool, dataset):
    table = combinations(Pool(pool, dataset), sizes=(1,), kinds=["logit ensemble"]).set_index("combination")
    assert math.isnan(table.disagreement["member"])
    assert table.accuracy["member"] == table.accuracy["logit ensemble"]


@pytest.mark.parametrize("sizes", [(5,), (2, 9), (0,), (-1, 2)])
def test_a_soup_is_never_smaller_than_asked_for(pool, dataset, sizes):
    with pytest.raises(ProbeError, match="1 to 4"):
        combinations(Pool(pool, dataset), sizes=sizes)


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_copies_are_one_member_however_combined_and_stay_as_they_are(model, dataset):
    (run,) = untrained(model, dataset, 1)
    before = {key: value.clone() for key, value in run.state.items()}
    table = combinations(Pool([run] * 3, dataset), sizes=(3,)).set_index("combination")
    torch.testing.assert_close(run.state, before, rtol=0, atol=0)
    if model == "resnet8":  # BatchNorm is recalibrated in soups: with other images, to other statistics
        table = table.drop(index=["uniform soup", "greedy soup"])
    assert table.accuracy.nunique() == 1
    assert table.nll.round(5).nunique() == 1
    assert table.disagreement["member"] == table.distance["member"] == 0
