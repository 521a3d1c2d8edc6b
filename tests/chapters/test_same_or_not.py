"""Chapter 30: the gap between logit ensemble and soup, against values computed in another way."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, untrained

from wamlib import evaluate, merge, models, probe
from wamlib.chapters import same_or_not as chapter
from wamlib.chapters.sweep import given
from wamlib.pools import Pool
from wamlib.predictions import Predictions

STARTS = ("shared start", "independent init")


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=100)


def pool_of(name, dataset, n=3, spread=1.0, **settings):
    return Pool(untrained(name, dataset, n, spread=spread), dataset, **settings)


def arrays(state):
    return {key: np.asarray(tensor.double()) for key, tensor in state.items()}


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
    pool, split = pool_of("deep_linear", dataset), dataset.test
    members, x = [arrays(state) for state in pool.states], np.asarray(split.normalize(split.images).double().flatten(1))
    each = [x @ (m["head.weight"] @ m["fc.weight"]).T + m["head.bias"] for m in members]
    crossed = [x @ (a["head.weight"] @ b["fc.weight"]).T + a["head.bias"] for a in members for b in members]
    ensemble, soup = np.mean(each, axis=0), np.mean(crossed, axis=0)
    found = chapter.cross_terms(pool).iloc[0]
    assert found.layers == 2
    assert found.gap == pytest.approx(rms(ensemble - soup))
    assert found.formula == pytest.approx(rms(ensemble - soup))
    assert found.gap > 0.1
    assert found.difference < 1e-12 * found.spread
    assert found.spread == pytest.approx(ensemble.std(ddof=1))
    for name, values in (("soup", soup), ("ensemble", ensemble)):
        assert found[f"{name}_error"] == pytest.approx(100 * np.mean(values.argmax(1) != split.labels.numpy()))


def test_one_layer_has_no_gap_and_nor_have_two_of_which_one_is_shared(dataset):
    found = chapter.cross_terms(pool_of("linear", dataset)).iloc[0]
    assert (found.layers, found.formula, found.soup_error) == (1, 0, found.ensemble_error)
    assert found.gap < 1e-13 * found.spread
    pool = pool_of("deep_linear", dataset)
    for state in pool.states[1:]:
        state["fc.weight"] = pool.states[0]["fc.weight"]
    found = chapter.cross_terms(pool).iloc[0]
    assert found.gap < 1e-12 * found.spread
    assert found.spread > 0.1


def test_only_the_first_images_are_looked_at(dataset):
    pool = pool_of("deep_linear", dataset, 2)
    part = chapter.cross_terms(pool.first(n_test=30))
    pd.testing.assert_frame_equal(chapter.cross_terms(pool, n_images=30), part)
    assert chapter.cross_terms(pool).gap.item() != part.gap.item()


# Gaps


@pytest.mark.parametrize("name", ["mlp", "resnet8", "vit"])
def test_the_gap_is_ensemble_minus_soup(name, dataset):
    pool = pool_of(name, dataset, spread=0.2)
    split, soup = dataset.test.take(slice(0, 60)), merge.uniform_soup(pool.states)
    ensemble = torch.stack([logits(name, state, split).double() for state in pool.states]).mean(0)
    middle = logits(name, soup, split)
    table = chapter.logit_gaps(pool, ways=(0.5, 1.0), n_images=60).set_index("way")
    assert table.gap[1.0] == pytest.approx(rms(centred(ensemble) - centred(middle)), rel=1e-3)
    assert table.gap[1.0] > 1e-3
    difference = evaluate.nll(middle, split.labels) - evaluate.nll(ensemble, split.labels)
    assert table.nll_gap[1.0] == pytest.approx(difference, rel=1e-2, abs=1e-6)
    distance = probe.relative_distance(pool.states)
    np.testing.assert_allclose(table.distance, [distance / 2, distance])
    # Half the way, with the statistics of BatchNorm moved like weights.
    moved = [
        {k: (soup[k] + 0.5 * (t - soup[k])) if t.is_floating_point() else t for k, t in state.items()}
        for state in pool.states
    ]
    halved = centred(torch.stack([logits(name, state, split).double() for state in moved]).mean(0)) - centred(middle)
    assert table.gap[0.5] == pytest.approx(rms(halved), rel=1e-2)


def test_what_is_explained_is_the_share_of_the_squared_gap(dataset):
    """From the prediction itself, in float64."""
    pool, split = pool_of("mlp", dataset, spread=0.5), dataset.test
    table = chapter.logit_gaps(pool, ways=(0.25, 1.0)).set_index("way")
    module, soup = models.build("mlp", 3, 1, (8, 8)).double(), merge.uniform_soup(pool.states)
    middle, x = logits("mlp", soup, split).double(), split.normalize(split.images).double()
    for name, step in (("half way", 0.5), ("at the soup", None)):
        bend = centred(probe.second_order_gap(module, pool.states, x, step))
        for way in (0.25, 1.0):
            moved = [merge.interpolate(soup, state, way) for state in pool.states]
            gap = centred(torch.stack([logits("mlp", state, split).double() for state in moved]).mean(0) - middle)
            share = 1 - np.square(gap - way**2 * bend).sum() / np.square(gap).sum()
            assert table[f"explained, {name}"][way] == pytest.approx(share, abs=2e-3)
            assert table[f"predicted_gap, {name}"][way] == pytest.approx(way**2 * rms(bend), rel=1e-3)
            slope = np.eye(3)[split.labels] - np.asarray(middle.softmax(1))
            predicted = np.mean((slope * way**2 * bend).sum(1))
            assert table[f"predicted_nll_gap, {name}"][way] == pytest.approx(predicted, rel=1e-2, abs=1e-6)


def test_of_two_layers_all_is_explained_and_the_likelihood_follows_near_the_soup(dataset):
    table = chapter.logit_gaps(pool_of("deep_linear", dataset), ways=(0.25, 0.5, 1.0))
    for column in (chapter.HALF, chapter.EXPLAINED):
        np.testing.assert_allclose(table[column], 1, atol=1e-5)
    np.testing.assert_allclose(table.gap / table.gap.iloc[-1], [1 / 16, 1 / 4, 1], rtol=1e-3)
    np.testing.assert_allclose(table["predicted_gap, at the soup"], table.gap, rtol=1e-3)
    ratio = table["predicted_nll_gap, half way"] / table.nll_gap
    assert abs(ratio[0] - 1) < 0.05  # to first order in the gap
    assert abs(ratio[2] - 1) > 2 * abs(ratio[0] - 1)


def test_in_a_relu_network_the_derivative_explains_less_than_half_the_way(dataset):
    table = chapter.logit_gaps(pool_of("mlp", dataset, spread=0.5), ways=(1.0,)).iloc[0]
    assert table[chapter.EXPLAINED] < table[chapter.HALF] - 0.1
    smooth = chapter.logit_gaps(pool_of("vit", dataset, spread=0.05), ways=(1.0,)).iloc[0]
    assert smooth[chapter.EXPLAINED] > 0.9  # the twin


def test_the_derivative_is_taken_on_the_first_images_only(dataset, monkeypatch):
    pool, seen, second_order_gap = pool_of("mlp", dataset, 2), {}, probe.second_order_gap

    def watching(model, members, images, step):
        seen[step] = len(images)
        return second_order_gap(model, members, images, step)

    monkeypatch.setattr(chapter, "N_DERIVATIVES", 30)
    monkeypatch.setattr(chapter.probe, "second_order_gap", watching)
    chapter.logit_gaps(pool, ways=(1.0,), n_images=80)
    assert seen == {None: 30, 0.5: 80}


def test_kept_gaps_are_those_of_a_new_computation(dataset, tmp_path):
    expected = chapter.logit_gaps(pool_of("resnet8", dataset, 2), ways=(0.5, 1.0))
    for _ in range(2):
        pool = pool_of("resnet8", dataset, 2, predictions=Predictions(tmp_path))
        pd.testing.assert_frame_equal(chapter.logit_gaps(pool, ways=(0.5, 1.0)), expected)


# What follows from them


@pytest.fixture
def tables():
    rows = [
        (model, start, replica, way, way * (1 + replica), 3 * way**1.5)
        for model in ("mlp", "vit", "vgg")
        for start in reversed(STARTS)
        for replica in (0, 1)
        for way in (0.5, 1.0)
    ]
    gaps = pd.DataFrame(rows, columns=["model", "start", "replica", "way", "distance", "gap"]).assign(nll_gap=0.1)
    shares = {"mlp": 0.2, "vit": 0.9, "vgg": -2.0}
    gaps = gaps.assign(**{chapter.EXPLAINED: gaps.model.map(shares) + gaps.replica / 10, chapter.HALF: 0.5 * gaps.way})
    layers = [
        (n, start, replica, 1e-16, 1e-17, 30.0 * n, 30.0) for n in (1, 2) for start in STARTS for replica in (0, 1)
    ]
    columns = ["layers", "start", "replica", "difference", "gap", "soup_error", "ensemble_error"]
    return {"cross_terms": pd.DataFrame(layers, columns=columns), "logit_gaps": gaps}


def of(**changes):
    return SimpleNamespace(
        p=given("same_or_not", {"dataset": "digits", "pool_models": ["mlp", "vit", "vgg"], **changes})
    )


def test_numbers_and_claims_are_those_of_members_where_they_were_trained(tables):
    found = chapter.numbers(of(), tables)
    assert found["exponent_shared"] == pytest.approx(1.5)
    assert found["deep_loss"] == 30
    assert found["vit_derivative"] == pytest.approx(95)
    assert (found["vit_share"], found["half_shares"]) == ("95 %", "50 to 50 %")
    assert (found["derivative_shares"], found["n_relu"], found["n_half_better"]) == ("-195 to 25 %", 2, 2)
    judged = pd.DataFrame(chapter.claims(of(), tables))
    assert judged.claim.to_list() == ["C11"] * 4 + ["C12"] * 3
    shares = dict(zip(judged.note[4:], judged["mean"][4:], strict=True))
    assert shares == pytest.approx({"mlp": 0.25, "vit": 0.95, "vgg": -1.95})
    assert list(chapter.trained(tables["logit_gaps"]).start.unique()) == list(STARTS)


def test_what_no_architecture_of_the_list_has_is_said_in_words(tables):
    some = dict(tables, logit_gaps=tables["logit_gaps"].query("model == 'mlp'"))
    assert chapter.numbers(of(pool_models=["mlp"]), some)["vit_share"] == chapter.UNKNOWN
    some["logit_gaps"] = tables["logit_gaps"].query("model == 'vit'")
    some["cross_terms"] = tables["cross_terms"].query("layers == 1")
    found = chapter.numbers(of(pool_models=["vit"]), some)
    assert (found["derivative_shares"], found["n_half_better"], found["deep_lost"]) == (
        chapter.UNKNOWN,
        0,
        "not measured",
    )
    assert [row["claim"] for row in chapter.claims(of(), some)] == ["C11"] * 3 + ["C12"]
    names = of(pool_models=["vit_b_16_cifar"], flat_models=["deep_linear", "mlp"]).p
    assert {model for _, model, _, _ in chapter.runs(names)} == {"deep_linear", "vit_b_16_cifar"}


# Figures


def test_gaps_have_a_line_per_pool_and_one_slope_for_all_panels(tables, tmp_path):
    table = tables["logit_gaps"]
    fig = chapter.gap_vs_distance(table)
    check_drawing(fig, tmp_path)
    panels = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == ["MLP", "ViT", "VGG"]
    for ax, (_, part) in zip(panels, table.groupby("model", sort=False), strict=True):
        *lines, slope = ax.lines
        found = sorted((*line.get_xdata(), *line.get_ydata()) for line in lines)
        assert found == sorted((*pool.distance, *pool.gap) for _, pool in part.groupby(["start", "replica"]))
        x, y = slope.get_data()
        assert y[1] / y[0] == pytest.approx((x[1] / x[0]) ** 2)
    assert len({tuple(ax.lines[-1].get_ydata()) for ax in panels}) == 1


def test_shares_are_those_of_members_where_they_were_trained_and_end_at_minus_one(tables, tmp_path):
    table = tables["logit_gaps"]
    trained = table[table.way == 1]
    for ax, start in zip(chapter.explained_gap(table).axes, reversed(STARTS), strict=True):
        assert ax.get_title() == start
        for container, column in zip(ax.containers, (chapter.HALF, chapter.EXPLAINED), strict=True):
            means = trained[trained.start == start].groupby("model", sort=False)[column].mean()
            line, _, (bars,) = container.lines
            np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), means.clip(-1, 1))
            assert np.abs(np.vstack(bars.get_segments())[:, 0]).max() <= 1
    check_drawing(chapter.explained_gap(table), tmp_path, units=False)  # shares
    chapter.explained_gap(table[table.replica == 0])  # without an interval
