"""The gap between logit ensemble and soup, and what predictions cost, against values computed in another way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import eval_logits, random_dataset, untrained

from wamlib import evaluate, merge, models, tables
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=100)


def arrays(state):
    return {key: np.asarray(tensor.double()) for key, tensor in state.items()}


def pixels(split):
    return np.asarray(split.normalize(split.images).double().flatten(1))


def logits(name, state, split):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    return eval_logits(module, split)


def centred(values):
    values = np.asarray(values, dtype=np.float64)
    return values - values.mean(1, keepdims=True)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


# Linear networks


def test_two_layers_differ_by_their_cross_terms_and_by_nothing_else(dataset):
    """The soup multiplies every head with every first layer, the ensemble each with its own: written out in numpy."""
    pool = untrained("deep_linear", dataset, 3, spread=1.0)
    members, x = [arrays(run.state) for run in pool], pixels(dataset.test)
    each = [x @ (m["head.weight"] @ m["fc.weight"]).T + m["head.bias"] for m in members]
    crossed = [x @ (a["head.weight"] @ b["fc.weight"]).T + a["head.bias"] for a in members for b in members]
    ensemble, soup = np.mean(each, axis=0), np.mean(crossed, axis=0)
    found = tables.cross_terms(pool, dataset).iloc[0]
    assert found.gap == pytest.approx(rms(ensemble - soup))
    assert found.formula == pytest.approx(rms(ensemble - soup))
    assert found.gap > 0.1
    assert found.difference < 1e-12 * found.spread
    assert found.spread == pytest.approx(ensemble.std(ddof=1))
    labels = dataset.test.labels.numpy()
    for name, values in (("soup", soup), ("ensemble", ensemble)):
        assert found[f"{name}_error"] == pytest.approx(100 * np.mean(values.argmax(1) != labels))


def test_one_layer_has_no_gap(dataset):
    found = tables.cross_terms(untrained("linear", dataset, 3, spread=1.0), dataset).iloc[0]
    assert found.formula == 0
    assert found.gap < 1e-13 * found.spread
    assert found.soup_error == found.ensemble_error


def test_members_that_share_a_layer_have_no_cross_terms(dataset):
    pool = untrained("deep_linear", dataset, 3, spread=1.0)
    for run in pool[1:]:
        run.state["fc.weight"] = pool[0].state["fc.weight"]
    found = tables.cross_terms(pool, dataset).iloc[0]
    assert found.gap < 1e-12 * found.spread
    assert found.spread > 0.1


def test_only_the_first_images_are_looked_at(dataset):
    pool = untrained("deep_linear", dataset, 2, spread=1.0)
    part = replace(dataset, test=dataset.test.take(slice(0, 30)))
    pd.testing.assert_frame_equal(tables.cross_terms(pool, dataset, 30), tables.cross_terms(pool, part))
    assert tables.cross_terms(pool, dataset).gap.item() != tables.cross_terms(pool, part).gap.item()


# Distance


def test_distance_is_relative_to_the_soup_and_leaves_statistics_out(dataset):
    pool = untrained("resnet8", dataset, 3, spread=0.5)
    flat = [
        np.concatenate([v.ravel() for k, v in arrays(run.state).items() if "running" not in k and "num_" not in k])
        for run in pool
    ]
    soup = np.mean(flat, axis=0)
    expected = np.mean([np.linalg.norm(member - soup) for member in flat]) / np.linalg.norm(soup)
    assert tables.relative_distance([run.state for run in pool]) == pytest.approx(expected, rel=1e-6)
    assert tables.relative_distance([pool[0].state] * 2) == 0


def test_distance_does_not_depend_on_the_scale_of_the_weights(dataset):
    states = [run.state for run in untrained("mlp", dataset, 3)]
    larger = [{key: 7 * tensor for key, tensor in state.items()} for state in states]
    assert tables.relative_distance(larger) == pytest.approx(tables.relative_distance(states), rel=1e-5)


# Gaps


@pytest.mark.parametrize("name", ["mlp", "resnet8", "vit"])
def test_the_gap_is_ensemble_minus_soup(name, dataset):
    pool = untrained(name, dataset, 3, spread=0.2)
    split = dataset.test.take(slice(0, 60))
    soup = merge.uniform_soup([run.state for run in pool])
    ensemble = torch.stack([logits(name, run.state, split).double() for run in pool]).mean(0)
    middle = logits(name, soup, split)
    gap = centred(ensemble) - centred(middle)
    table = tables.logit_gaps(pool, dataset, ways=(0.5, 1.0), n_images=60).set_index("way")
    assert table.gap[1.0] == pytest.approx(rms(gap), rel=1e-3)
    assert table.gap[1.0] > 1e-3
    difference = evaluate.nll(middle, split.labels) - evaluate.nll(ensemble, split.labels)
    assert table.nll_gap[1.0] == pytest.approx(difference, rel=1e-2, abs=1e-6)
    distance = tables.relative_distance([run.state for run in pool])
    np.testing.assert_allclose(table.distance, [distance / 2, distance])
    # Half the way, with the statistics of BatchNorm moved like weights.
    moved = [
        {k: (soup[k] + 0.5 * (t - soup[k])) if t.is_floating_point() else t for k, t in run.state.items()}
        for run in pool
    ]
    halved = centred(torch.stack([logits(name, state, split).double() for state in moved]).mean(0)) - centred(middle)
    assert table.gap[0.5] == pytest.approx(rms(halved), rel=1e-2)


def test_what_is_explained_is_the_share_of_the_squared_gap(dataset):
    """From the prediction itself, in float64."""
    from wamlib.probe import second_order_gap

    pool = untrained("mlp", dataset, 3, spread=0.5)
    split = dataset.test
    table = tables.logit_gaps(pool, dataset, ways=(0.25, 1.0)).set_index("way")
    states, module = [run.state for run in pool], models.build("mlp", 3, 1, (8, 8)).double()
    soup = merge.uniform_soup(states)
    middle, x = logits("mlp", soup, split).double(), split.normalize(split.images).double()
    for name, step in (("half way", 0.5), ("at the soup", None)):
        bend = centred(second_order_gap(module, states, x, step))
        for way in (0.25, 1.0):
            moved = [merge.interpolate(soup, state, way) for state in states]
            gap = centred(torch.stack([logits("mlp", state, split).double() for state in moved]).mean(0) - middle)
            share = 1 - np.square(gap - way**2 * bend).sum() / np.square(gap).sum()
            assert table[f"explained, {name}"][way] == pytest.approx(share, abs=2e-3)
            assert table[f"predicted_gap, {name}"][way] == pytest.approx(way**2 * rms(bend), rel=1e-3)
            slope = np.eye(3)[split.labels] - np.asarray(middle.softmax(1))
            predicted = np.mean((slope * way**2 * bend).sum(1))
            assert table[f"predicted_nll_gap, {name}"][way] == pytest.approx(predicted, rel=1e-2, abs=1e-6)


def test_of_two_layers_all_is_explained_and_the_gap_is_the_square_of_the_way(dataset):
    pool = untrained("deep_linear", dataset, 3, spread=1.0)
    table = tables.logit_gaps(pool, dataset, ways=(0.25, 0.5, 1.0))
    for column in ("explained, half way", "explained, at the soup"):
        np.testing.assert_allclose(table[column], 1, atol=1e-5)
    np.testing.assert_allclose(table.gap / table.gap.iloc[-1], [1 / 16, 1 / 4, 1], rtol=1e-3)
    np.testing.assert_allclose(table["predicted_gap, at the soup"], table.gap, rtol=1e-3)


def test_in_a_relu_network_the_derivative_explains_less_than_half_the_way(dataset):
    table = tables.logit_gaps(untrained("mlp", dataset, 3, spread=0.5), dataset, ways=(1.0,)).iloc[0]
    assert table["explained, at the soup"] < table["explained, half way"] - 0.1
    smooth = tables.logit_gaps(untrained("vit", dataset, 3, spread=0.05), dataset, ways=(1.0,)).iloc[0]
    assert smooth["explained, at the soup"] > 0.9  # the twin


def test_near_the_soup_the_likelihood_follows_the_logits(dataset):
    table = tables.logit_gaps(untrained("deep_linear", dataset, 3, spread=1.0), dataset, ways=(0.25, 1.0))
    ratio = table["predicted_nll_gap, half way"] / table.nll_gap
    assert abs(ratio[0] - 1) < 0.05  # to first order in the gap
    assert abs(ratio[1] - 1) > 2 * abs(ratio[0] - 1)


def test_the_derivative_is_taken_on_the_first_images_only(dataset, monkeypatch):
    from wamlib.tables import gaps

    pool, seen = untrained("mlp", dataset, 2), {}
    second_order_gap = gaps.probe.second_order_gap

    def watching(model, members, images, step):
        seen[step] = len(images)
        return second_order_gap(model, members, images, step)

    monkeypatch.setattr(gaps, "N_DERIVATIVES", 30)
    monkeypatch.setattr(gaps.probe, "second_order_gap", watching)
    tables.logit_gaps(pool, dataset, n_images=80)
    assert seen == {None: 30, 0.5: 80}


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_kept_gaps_are_those_of_a_new_computation(name, dataset, tmp_path):
    pool, ways = untrained(name, dataset, 2), (0.5, 1.0)
    expected = tables.logit_gaps(pool, dataset, ways)
    for store in (Predictions(tmp_path), Predictions(tmp_path)):
        pd.testing.assert_frame_equal(tables.logit_gaps(pool, dataset, ways, predictions=store), expected)
    # The pieces by themselves: a table of other ways is made of kept predictions.
    pd.testing.assert_frame_equal(
        tables.logit_gaps(pool, dataset, (1.0,), predictions=Predictions(tmp_path)),
        expected[1:].reset_index(drop=True),
    )


# Gain at equal distance


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_at_their_own_distance_members_stand_where_they_are(name, dataset):
    pool = untrained(name, dataset, 3, spread=0.4)
    states = [run.state for run in pool]
    distance = tables.relative_distance(states)
    found = tables.gain_at_distance(pool, dataset, distance).iloc[0]
    evaluator = tables.Evaluator(name, dataset)
    errors = [evaluator.error(state, recalibrate=True) for state in (merge.uniform_soup(states), *states)]
    assert (found.way, found.distance) == (pytest.approx(1), distance)
    assert found.gain == pytest.approx(np.mean(errors[1:]) - errors[0])
    assert found.gain != 0


def test_members_are_moved_to_the_distance_that_is_asked_for(dataset):
    pool = untrained("resnet8", dataset, 3, spread=0.4)
    states = [run.state for run in pool]
    soup, own = merge.uniform_soup(states), tables.relative_distance(states)
    found = tables.gain_at_distance(pool, dataset, own / 3).iloc[0]
    moved = [merge.interpolate(soup, state, found.way) for state in states]
    assert found.way == pytest.approx(1 / 3)
    assert tables.relative_distance(moved) == pytest.approx(own / 3, rel=1e-5)
    evaluator = tables.Evaluator("resnet8", dataset)
    errors = [evaluator.error(state, recalibrate=True) for state in (soup, *moved)]
    assert found.gain == pytest.approx(np.mean(errors[1:]) - errors[0])
    assert tables.gain_at_distance(pool, dataset, 0.0).gain.item() == 0  # all in one place


# Costs


def test_operations_are_those_of_a_hand_count(dataset):
    """A multiplication and its addition are two operations; 8 x 8 grey images and three classes."""
    mlp = 2 * (64 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    cnn = 2 * (64 * 16 * 9 + 16 * 32 * 16 * 9 + 4 * 64 * 32 * 9 + 64 * 128 + 128 * 3)
    units, tokens = 64, 1 + 16
    attention = 4 * units**2 * tokens + 2 * units * tokens**2  # in and out, then scores and values
    block = attention + 2 * units * 2 * units * tokens
    vit = 2 * (16 * units * 4 + 2 * block + units * 3)
    table = tables.inference_costs(["linear", "mlp", "cnn", "vit"], dataset, n_images=10, repeats=1)
    counted = dict(zip(table.model, 1e6 * table.mflops, strict=True))
    assert counted == pytest.approx({"linear": 2 * 64 * 3, "mlp": mlp, "cnn": cnn, "vit": vit})
    assert torch.backends.mha.get_fastpath_enabled()  # put back


def test_time_and_memory_are_positive_and_memory_is_that_of_the_tensors(dataset):
    table = tables.inference_costs(["mlp", "mlp-x2", "resnet8"], dataset, n_images=10, repeats=1).set_index("model")
    assert (table.ms > 0).all()
    weights = 64 * 512 + 512 * 256 + 256 * 128 + 128 * 3 + 512 + 256 + 128 + 3
    assert table.mb["mlp"] == pytest.approx(4 * weights / 1e6)
    assert 3 < table.mb["mlp-x2"] / table.mb["mlp"] < 4
    assert 3 < table.mflops["mlp-x2"] / table.mflops["mlp"] < 4
