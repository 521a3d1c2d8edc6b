"""Shrunk members, restored soups and flatness as tables, against networks put together by hand."""

import numpy as np
import pytest
import torch
from helpers import eval_logits, random_dataset, untrained

from wamlib import evaluate, merge, models, probe, tables
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


def network(name, state, dataset):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    if name == "resnet8":
        merge.recalibrate_batchnorm(module, [dataset.train.normalize(dataset.train.images)])
    return module


def measure(name, state, dataset):
    module = network(name, state, dataset)
    test, held_out = (eval_logits(module, split) for split in (dataset.test, dataset.selection))
    cooled = test / evaluate.fit_temperature(held_out, dataset.selection.labels)
    labels = dataset.test.labels
    return [evaluate.accuracy(test, labels), evaluate.nll(test, labels), evaluate.nll(cooled, labels)]


def length(tensor):
    """The norm, for untrained zeros a number to divide by."""
    return tensor.double().norm().item() or 1.0


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_controls_have_each_others_norms_and_recalibrated_statistics(name, dataset):
    pool = untrained(name, dataset, 3, spread=1.0)
    states = [run.state for run in pool]
    soup = {key: torch.stack([s[key].double() for s in states]).mean(0).to(states[0][key].dtype) for key in states[0]}
    learnable = probe.layer_norms(soup)
    norms = [{key: s[key].double().norm().item() for key in learnable} for s in states]
    restored = soup | {key: soup[key] * np.mean([n[key] for n in norms]) / length(soup[key]) for key in learnable}
    shrunk = [s | {key: s[key] * length(soup[key]) / length(s[key]) for key in learnable} for s in states]
    expected = {"member": states, "uniform soup": [soup], "member shrunk": shrunk, "soup restored": [restored]}
    found = tables.shrinking(pool, dataset).set_index("network")
    assert list(found.index) == list(expected)
    for kind, networks in expected.items():
        values = np.mean([measure(name, state, dataset) for state in networks], axis=0)
        got = found.loc[kind, ["accuracy", "nll", "refitted_nll"]].astype(float)
        np.testing.assert_allclose(got[1:], values[1:], rtol=2e-3)
        assert got.iloc[0] == pytest.approx(values[0], abs=0.8)  # one image may tip over
    assert found.norm_ratio["member"] == pytest.approx(1)
    assert found.norm_ratio["uniform soup"] < 0.9
    assert found.norm_ratio["member shrunk"] == pytest.approx(found.norm_ratio["uniform soup"], rel=1e-5)
    assert found.norm_ratio["soup restored"] == pytest.approx(1, rel=0.02)
    assert abs(found.nll["member"] - found.nll["member shrunk"]) > 1e-3


def test_copies_need_no_shrinking(dataset):
    pool = untrained("mlp", dataset, 1) * 3
    found = tables.shrinking(pool, dataset)
    np.testing.assert_allclose(found.nll, found.nll[0], rtol=1e-5)


def test_curves_begin_at_the_networks_and_eigenvalues_are_theirs(dataset):
    pool = untrained("resnet8", dataset, 2, spread=0.3)
    split = dataset.train.take(slice(0, 30))
    images = split.normalize(split.images)
    soup = merge.uniform_soup([run.state for run in pool])
    curves = tables.flatness(pool, dataset, n_directions=2, n_steps=3, n_images=30)
    sharp = tables.sharpness(pool, dataset, n_images=30, tolerance=1e-3)
    for kind, state in (("member", pool[0].state), ("uniform soup", soup)):
        module = network("resnet8", state, dataset)
        own = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        part = curves[curves.network == kind]
        assert sorted(part.step.unique()) == [-1, 0, 1]
        for number, rows in part.groupby("direction"):
            way = probe.filter_normalised_direction(own, number)
            losses = probe.loss_along(module, own, way, [-1, 0, 1], images, split.labels)
            np.testing.assert_allclose(rows.loss, losses, rtol=1e-3)
        assert part[part.step == 1].loss.nunique() == 2
    assert sharp.network.tolist() == ["member"] * len(pool) + ["uniform soup"]
    for found, state in zip(sharp.eigenvalue, [*(run.state for run in pool), soup], strict=True):
        module = network("resnet8", state, dataset)
        assert found == pytest.approx(probe.top_hessian_eigenvalue(module, images, split.labels), rel=1e-2)
    assert sharp.eigenvalue.round(3).nunique() == len(sharp)


def test_tables_are_kept(dataset, tmp_path, monkeypatch):
    pool, kept = untrained("mlp", dataset, 2), Predictions(tmp_path)
    compute = (tables.shrinking, tables.flatness, tables.sharpness)
    first = [table(pool, dataset, predictions=kept) for table in compute]
    monkeypatch.setattr(merge, "uniform_soup", None)
    monkeypatch.setattr(probe, "layer_norms", None)
    monkeypatch.setattr(probe, "loss_along", None)
    monkeypatch.setattr(probe, "top_hessian_eigenvalue", None)
    for before, table in zip(first, compute, strict=True):
        np.testing.assert_array_equal(before.to_numpy(), table(pool, dataset, predictions=kept).to_numpy())
