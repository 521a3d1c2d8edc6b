"""A pool makes soups and ensembles of its members, and remembers predictions by what they follow from."""

from dataclasses import replace

import pytest
import torch
from helpers import eval_logits, random_dataset, random_split, untrained

from wamlib import evaluate, merge, models, pools
from wamlib.errors import DataError, ProbeError
from wamlib.pools import Pool, combine
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_selection=150, n_test=240)


@pytest.fixture(scope="module")
def runs(dataset):
    return untrained("resnet8", dataset, 4, spread=0.5)


@pytest.fixture
def pool(runs, dataset):
    return Pool(runs, dataset)


def network(state, dataset, recalibrated=False):
    module = models.build("resnet8", 3, 1, (8, 8))
    module.load_state_dict(state)
    if recalibrated:
        merge.recalibrate_batchnorm(module, [dataset.train.normalize(dataset.train.images)])
    return module


def test_soups_and_ensembles_are_those_of_the_members(pool, runs, dataset):
    torch.testing.assert_close(pool.soup(), merge.uniform_soup([run.state for run in runs]), rtol=0, atol=0)
    torch.testing.assert_close(pool.soup([0, 2]), merge.uniform_soup([runs[0].state, runs[2].state]), rtol=0, atol=0)
    logits = [run.logits["test"] for run in runs]
    torch.testing.assert_close(pool.ensemble(), torch.stack(logits).mean(0))
    likely = pool.ensemble("probability ensemble", members=[1, 3]).exp()
    torch.testing.assert_close(likely, (logits[1].softmax(1) + logits[3].softmax(1)) / 2)
    assert len(pool.ensemble(split="selection")) == 150


def test_recalibration_is_that_of_the_training_images(pool, runs, dataset):
    soup = pool.soup()
    expected = eval_logits(network(soup, dataset, recalibrated=True), dataset.test)
    torch.testing.assert_close(pool.logits(soup, recalibrate=True), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pool.logits(pool.recalibrated(soup)), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(pool.logits(soup), expected, atol=0.1)
    # What a pool was asked before does not change what it says.
    assert torch.equal(Pool(runs, dataset).logits(soup), pool.logits(soup))


def test_a_greedy_soup_is_chosen_on_selection_images(pool, runs, dataset):
    def score(recalibrate):
        def accuracy(state):
            module = network(state, dataset, recalibrate)
            return evaluate.accuracy(eval_logits(module, dataset.selection), dataset.selection.labels)

        return accuracy

    states = [run.state for run in runs]
    for recalibrate in (True, False):
        found, expected = pool.greedy(recalibrate=recalibrate), merge.greedy_soup(states, score(recalibrate))
        assert found.accepted == expected.accepted
        torch.testing.assert_close(found.state, expected.state)
    flipped = replace(dataset, test=replace(dataset.test, labels=dataset.test.labels.flip(0)))
    assert Pool(runs, flipped).greedy().accepted == pool.greedy().accepted


def test_members_that_are_judged_as_they_stand_are_judged_by_what_their_runs_keep(runs, dataset):
    spoilt = [replace(run) for run in runs]
    labels = torch.nn.functional.one_hot(dataset.selection.labels, 3).float()
    for index, (run, kept) in enumerate(zip(runs, spoilt)):
        logits = labels if index == 2 else -labels  # the third knows all, the others know nothing
        vars(kept).update(state=run.state, logits={"selection": logits, "test": run.logits["test"]})
    pool = Pool(spoilt, dataset)
    assert pool.greedy(as_they_stand=True).accepted == [2]
    networks = pool.networks(["greedy soup"], as_they_stand=True)
    torch.testing.assert_close(networks["greedy soup"], runs[2].state, rtol=0, atol=0)  # not recalibrated


def test_first_images_and_members(pool, dataset):
    few = pool.first(2, n_test=10, n_selection=20)
    assert (len(few), len(few.dataset.test), len(few.dataset.selection)) == (2, 10, 20)
    assert torch.equal(few.recorded()[1], pool.recorded()[1][:10])
    torch.testing.assert_close(few.logits(few.states[0]), pool.logits(pool.states[0])[:10])


def test_predictions_are_found_by_content(pool, runs, dataset, tmp_path, monkeypatch):
    asked = []
    predict = evaluate.predict_logits
    monkeypatch.setattr(evaluate, "predict_logits", lambda *args: asked.append(1) or predict(*args))
    copy = {key: tensor.clone() for key, tensor in pool.states[0].items()}
    for states in (pool.states[0], copy):
        pool.logits(states)
    assert len(asked) == 1
    pool.logits(pool.states[0], ("test", "selection"))  # of which one is known
    assert len(asked) == 2
    pool.logits(pool.states[0], random_split(12))
    pool.logits(pool.states[0], recalibrate=True)
    pool.logits(pool.states[1])
    assert len(asked) == 5
    # Another pool finds what was kept on the disk, unless the images that BatchNorm saw are others.
    for _ in range(2):
        Pool(runs, dataset, predictions=Predictions(tmp_path)).logits(copy, recalibrate=True)
    assert len(asked) == 6
    other = replace(dataset, train=dataset.train.take(slice(0, 100)))
    Pool(runs, other, predictions=Predictions(tmp_path)).logits(copy, recalibrate=True)
    assert len(asked) == 7


def test_map_gives_every_network_a_copy(pool):
    modules = pool.map(lambda module: module, pool.networks())
    assert list(modules) == ["member 0", "member 1", "member 2", "member 3", "uniform soup"]
    assert len({id(module) for module in modules.values()}) == 5
    for state, module in zip(pool.states, modules.values()):
        torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)


def test_images_that_changed_since_the_training_are_refused(store, monkeypatch):
    from conftest import tiny

    run = store.train(tiny())
    pool = Pool([run])
    torch.testing.assert_close(pool.logits(run.state), run.logits["test"], rtol=1e-4, atol=1e-4)
    changed = replace(pool.dataset, split_hash="another")
    monkeypatch.setattr(pools, "images_of", lambda config: changed)
    with pytest.raises(DataError, match="images changed since"):
        Pool([run])


def test_unknown_kinds_are_refused(pool):
    with pytest.raises(ProbeError, match="probability ensemble"):
        combine(pool.recorded(), "vote")
    with pytest.raises(ProbeError, match="'soup'"):
        pool.networks(["soup"])
