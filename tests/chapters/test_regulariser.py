"""Chapter 42: norms, shrunk members, restored soups and flatness, against networks put together by hand."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny
from helpers import check_drawing, eval_logits, random_dataset, untrained, untrained_chapter

from wamlib import evaluate, merge, models, probe
from wamlib.chapters import Chapter, read_parameters
from wamlib.chapters import regulariser as chapter
from wamlib.combinations import subsets
from wamlib.errors import ProbeError
from wamlib.merge import uniform_soup
from wamlib.pools import Pool
from wamlib.runs import RunStore
from wamlib.stats import mean_interval

RESULTS = Path(__file__).parents[2] / "data" / "results" / "edition"
STARTS = ["shared start", "independent init"]
DATASET = random_dataset()


def pool_of(name, n, **settings):
    return Pool(untrained(name, DATASET, n, **settings), DATASET)


@pytest.fixture(scope="module")
def states():
    return pool_of("resnet8", 5, spread=0.5).states


def flat(state):
    wide = [t.double().flatten() for key, t in state.items() if "running_" not in key and "num_batches" not in key]
    return torch.cat(wide).numpy()


# Norms


def test_ratios_are_those_of_the_soup_itself(states):
    states, reference = states[:4], states[4]
    found = chapter.norm_ratios(states, reference, [1, 2, 4], n_subsets=3)
    every = flat(uniform_soup(states))
    spread = np.sqrt(np.mean([np.sum((flat(state) - every) ** 2) for state in states]))
    for row in found[found.layer == "all"].itertuples():
        chosen = [states[i] for i in subsets(4, row.n_members, 3)[row.subset]]
        members, soup = [flat(state) for state in chosen], flat(uniform_soup(chosen))
        assert row.norm_ratio == pytest.approx(np.linalg.norm(soup) / np.mean([np.linalg.norm(m) for m in members]))
        apart = [member - flat(reference) for member in members]
        rms = np.sqrt(np.mean([a @ a for a in apart]))
        assert row.deviation_ratio == pytest.approx(np.linalg.norm(np.mean(apart, axis=0)) / rms, rel=1e-5)
        assert row.centred_ratio == pytest.approx(np.linalg.norm(soup - every) / spread, abs=1e-5)
        if row.n_members > 1:
            cosine = np.mean([a @ b for a, b in itertools.combinations(apart, 2)]) / rms**2
            assert row.cosine == pytest.approx(cosine, rel=1e-5)
    of_four = found[found.n_members == 4].set_index("layer").norm_ratio
    only = [np.concatenate([t.numpy().ravel() for t in state.values() if t.dim() > 1]) for state in states]
    first = [state["conv1.weight"].numpy().ravel() for state in states]
    for layer, vectors in (("kernels", only), ("conv1.weight", first)):
        usual = np.mean([np.linalg.norm(one) for one in vectors])
        assert of_four[layer] == pytest.approx(np.linalg.norm(np.mean(vectors, axis=0)) / usual, rel=1e-5)


def test_the_deviation_follows_from_the_cosine_and_every_learnable_tensor_has_its_rows(states):
    found = chapter.norm_ratios(states[:4], states[0], [2, 3, 4], n_subsets=2)
    some = found.query("deviation_ratio > 0")
    law = 1 / some.n_members + (1 - 1 / some.n_members) * some.cosine
    np.testing.assert_allclose(some.deviation_ratio**2, law)
    layers = found.groupby(["n_members", "subset"]).layer.agg(list)
    assert len(layers) == 5  # of all four there is one subset
    assert all(names == ["all", "kernels", *probe.layer_norms(states[0])] for names in layers)


def test_over_all_subsets_the_centred_law_is_an_identity_whatever_the_members_have_in_common(states):
    """So it is no evidence that members are independent; these here share a drift and correlate in pairs."""
    states = copy.deepcopy(states[:4])
    for state in states[2:]:
        state["conv1.weight"] += 3.0
    found = chapter.norm_ratios(states, None, [1, 2, 3, 4], n_subsets=99).query("layer == 'all'")
    for n, rows in found.groupby("n_members"):
        assert len(rows) == math.comb(4, n)
        assert np.mean(rows.centred_ratio**2) == pytest.approx(rows.centred_law.iloc[0] ** 2, abs=1e-9)
    assert found[found.n_members == 2].centred_ratio.std() > 0.1


def gaussians(drift):
    draw = torch.Generator().manual_seed(0)
    common, *own = torch.randn(11, 100, 200, generator=draw, dtype=torch.float64)
    statistics = {"bn.running_mean": torch.full((3,), 1e6)}  # no part of any norm
    return [{"weight": drift * common + one, **statistics} for one in own]


@pytest.mark.parametrize(("drift", "cosine"), [(0, 0), (1, 0.5)])
def test_independent_deviations_shrink_by_the_square_root_and_those_with_a_common_drift_do_not(drift, cosine):
    found = chapter.norm_ratios(gaussians(drift), None, [2, 5, 10], n_subsets=2).query("layer == 'all'")
    np.testing.assert_allclose(found.cosine, cosine, atol=0.02)
    plain = found.deviation_ratio * np.sqrt(found.n_members)
    np.testing.assert_allclose(plain, np.sqrt(1 + (found.n_members - 1) * cosine), rtol=0.02)
    np.testing.assert_allclose(found.centred_ratio, found.centred_law, atol=0.02)  # the drift taken off, both are alike


def test_what_cannot_be_compared_is_refused(states):
    for some, sizes in ((states, [6]), (states, [0, 1]), (states[:1], [1])):
        with pytest.raises(ProbeError, match="sizes"):
            chapter.norm_ratios(some, None, sizes)
    with pytest.raises(ProbeError, match=r"reference.*conv1\.weight"):
        chapter.norm_ratios(states, {k: t for k, t in states[0].items() if k != "conv1.weight"}, [2])


def test_deviations_are_taken_from_the_trunk_and_from_nothing_where_there_is_none(store, monkeypatch):
    monkeypatch.setenv("WAMLIB_RUNS", str(store.root))
    trunk = tiny()
    runs = [store.train(replace(tiny(seed=seed), start=trunk, init_seed=None)) for seed in (1, 2)]
    pool = Pool(runs, store.dataset(trunk))
    found = chapter.norms(pool, sizes=[2], n_subsets=1)
    expected = chapter.norm_ratios(pool.states, RunStore()[trunk].state, [2])
    pd.testing.assert_frame_equal(found, expected)
    alone = Pool([store.train(tiny(seed=seed)) for seed in (1, 2)], pool.dataset)
    found = chapter.norms(alone, sizes=[2], n_subsets=1)
    pd.testing.assert_frame_equal(found, chapter.norm_ratios(alone.states, None, [2]))
    twin = chapter.norm_ratios(pool.states, None, [2])  # of the same members, the weights themselves
    assert (expected.cosine - twin.cosine).abs().max() > 0.01


# Controls, and the loss around a network


def network(name, state):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    if name == "resnet8":
        merge.recalibrate_batchnorm(module, [DATASET.train.normalize(DATASET.train.images)])
    return module


def measure(name, state):
    module = network(name, state)
    test, held_out = (eval_logits(module, split) for split in (DATASET.test, DATASET.selection))
    cooled = test / evaluate.fit_temperature(held_out, DATASET.selection.labels)
    labels = DATASET.test.labels
    return [evaluate.accuracy(test, labels), evaluate.nll(test, labels), evaluate.nll(cooled, labels)]


def length(tensor):
    """The norm, for untrained zeros a number to divide by."""
    return tensor.double().norm().item() or 1.0


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_controls_have_each_others_norms_and_recalibrated_statistics(name):
    pool = pool_of(name, 3, spread=1.0)
    states = pool.states
    soup = {key: torch.stack([s[key].double() for s in states]).mean(0).to(states[0][key].dtype) for key in states[0]}
    learnable = probe.layer_norms(soup)
    norms = [{key: s[key].double().norm().item() for key in learnable} for s in states]
    restored = soup | {key: soup[key] * np.mean([n[key] for n in norms]) / length(soup[key]) for key in learnable}
    shrunk = [s | {key: s[key] * length(soup[key]) / length(s[key]) for key in learnable} for s in states]
    expected = {"member": states, "uniform soup": [soup], "member shrunk": shrunk, "soup restored": [restored]}
    found = chapter.shrinking(pool).set_index("network")
    assert list(found.index) == list(expected)
    for kind, networks in expected.items():
        values = np.mean([measure(name, state) for state in networks], axis=0)
        got = found.loc[kind, ["accuracy", "nll", "refitted_nll"]].astype(float)
        np.testing.assert_allclose(got[1:], values[1:], rtol=2e-3)
        assert got.iloc[0] == pytest.approx(values[0], abs=0.8)  # one image may tip over
    assert found.norm_ratio["member"] == pytest.approx(1)
    assert found.norm_ratio["uniform soup"] < 0.9
    assert found.norm_ratio["member shrunk"] == pytest.approx(found.norm_ratio["uniform soup"], rel=1e-5)
    assert found.norm_ratio["soup restored"] == pytest.approx(1, rel=0.02)
    assert abs(found.nll["member"] - found.nll["member shrunk"]) > 1e-3


def test_copies_need_no_shrinking():
    pool = Pool(untrained("mlp", DATASET, 1) * 3, DATASET)
    found = chapter.shrinking(pool)
    np.testing.assert_allclose(found.nll, found.nll[0], rtol=1e-5)


def test_curves_begin_at_the_networks_and_eigenvalues_are_theirs():
    pool = pool_of("resnet8", 2, spread=0.3)
    split = DATASET.train.take(slice(0, 30))
    images = split.normalize(split.images)
    curves = chapter.flatness(pool, n_directions=2, n_images=30, n_steps=3)
    sharp = chapter.sharpness(pool, n_images=30, tolerance=1e-3)
    for kind, state in (("member", pool.states[0]), ("uniform soup", pool.soup())):
        module = network("resnet8", state)
        own = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        part = curves[curves.network == kind]
        assert sorted(part.step.unique()) == [-1, 0, 1]
        for number, rows in part.groupby("direction"):
            way = probe.filter_normalised_direction(own, number)
            losses = probe.loss_along(module, own, way, [-1, 0, 1], images, split.labels)
            np.testing.assert_allclose(rows.loss, losses, rtol=1e-3)
        assert part[part.step == 1].loss.nunique() == 2
    assert sharp.network.tolist() == ["member"] * len(pool) + ["uniform soup"]
    for found, state in zip(sharp.eigenvalue, [*pool.states, pool.soup()], strict=True):
        module = network("resnet8", state)
        assert found == pytest.approx(probe.top_hessian_eigenvalue(module, images, split.labels), rel=1e-2)
    assert sharp.eigenvalue.round(3).nunique() == len(sharp)


# What follows from it


def test_the_published_tables_give_the_published_verdicts():
    here = Chapter.of("regulariser", **read_parameters(RESULTS.parents[2] / "params" / "edition.yml"))
    tables = {name: pd.read_csv(RESULTS / f"{name}.csv") for name in ("norms", "shrinking", "flatness", "sharpness")}
    found, published = pd.DataFrame(chapter.claims(here, tables)), pd.read_csv(RESULTS / "claims_42.csv")
    pd.testing.assert_frame_equal(found, published, check_dtype=False, rtol=1e-3, atol=1e-4)
    said = chapter.numbers(here, tables)
    bounds = {(row.claim, row.measure): row["mean"] for _, row in published.iterrows()}
    assert said["norm_shared"] == pytest.approx(bounds["C17", "norm of the soup"], rel=1e-5)
    assert said["shrunk_gain"] == pytest.approx(bounds["C18", "gain of a shrunk member"], abs=1e-4)
    assert said["kernels_apart"] == pytest.approx(100 / math.sqrt(10), rel=0.01)
    ratio = tables["sharpness"].groupby(["model", "replica", "network"]).eigenvalue.mean().unstack()
    ratio = np.log2(ratio["uniform soup"] / ratio["member"])
    assert chapter.doublings(tables["sharpness"]).sort_index().tolist() == pytest.approx(ratio.tolist())
    assert 2 ** ratio.mean() == pytest.approx(said["sharp_ratio_mean"])


@pytest.mark.parametrize(("names", "dearer"), [(["mlp", "vit"], ["vit"]), (["cnn"], ["resnet8"])])
def test_every_list_of_architectures_has_its_claims_and_its_sentences(names, dearer, tmp_path):
    sizes = {"n_pool_members": 2, "n_many": 3, "many_models": names[:1], "sizes": [2, 3], "n_subsets": 2}
    sizes |= {"n_directions": 1, "n_line_images": 20, "n_curvature_images": 10}
    here = untrained_chapter("regulariser", DATASET, tmp_path, pool_models=names, protocol_models=dearer, **sizes)
    tables = chapter.tables(here)
    every = list(dict.fromkeys([*names, *dearer]))
    assert list(tables["norms"].columns[-1:]) == ["pool"]
    assert list(chapter.of_few(tables, "all").xs(STARTS[0], level="start").reset_index().model.unique()) == every
    assert list(tables["flatness"].model.unique()) == dearer
    assert set(tables["shrinking"].query("start == 'independent init'").model) == set(dearer)
    found = pd.DataFrame(chapter.claims(here, tables))
    assert found.claim.tolist() == ["C17", "C17", "C18", "C18"]
    assert found.note.str.contains(f"over {len(every)} architectures").all()
    said = chapter.numbers(here, tables)
    assert np.isfinite([value for name, value in said.items() if not name.startswith("rise")]).all()
    check_drawing(chapter.norms_vs_members(chapter.panels(chapter.of_many(tables))), tmp_path)


# Figures


def grid(value, **columns):
    table = pd.DataFrame(itertools.product(*columns.values()), columns=list(columns))
    return table.assign(**{value: np.random.default_rng(0).uniform(10, 90, len(table))})


POOLS = {"model": ["mlp", "vit"], "replica": [0, 1, 2]}
SHORTER = grid("ratio", panel=["soup", "taken off"], **POOLS, n_members=[2, 5])
SHORTER = SHORTER.assign(law=np.where(SHORTER.panel == "soup", np.nan, 100 / SHORTER.n_members))
SHRUNK = grid("gain", start=STARTS, **POOLS, network=list(chapter.CONTROLS))
AROUND = grid("loss", **POOLS, network=["member", "uniform soup"], direction=[0, 1], step=[-1.0, 0.0, 1.0])


def points(container, axis):
    return np.asarray(container.lines[0].get_data()[axis], dtype=float)


def test_norms_stand_beside_the_laws_that_they_might_follow(tmp_path):
    fig = chapter.norms_vs_members(SHORTER)
    check_drawing(fig, tmp_path)
    assert [ax.get_title() for ax in fig.axes] == ["soup", "taken off"]
    for ax, (_, part) in zip(fig.axes, SHORTER.groupby("panel", sort=False), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [100 / np.sqrt(2), 100 / np.sqrt(5)])
        for container, model in zip(ax.containers, ("mlp", "vit"), strict=True):
            means = part[part.model == model].groupby("n_members").ratio.mean()
            np.testing.assert_allclose(points(container, 1), means)
    np.testing.assert_allclose(fig.axes[1].lines[1].get_ydata(), [50, 20])


def test_controls_are_gains_by_architecture_and_what_was_not_measured_is_a_blank(tmp_path):
    fig = chapter.shrinking_gains(SHRUNK[(SHRUNK.start == STARTS[0]) | (SHRUNK.model == "mlp")])
    check_drawing(fig, tmp_path)
    for ax, start in zip(fig.axes, STARTS, strict=True):
        for container, name in zip(ax.containers, chapter.CONTROLS, strict=True):
            means = SHRUNK[(SHRUNK.start == start) & (SHRUNK.network == name)].groupby("model").gain.mean()
            means["vit"] = np.nan if start == STARTS[1] else means["vit"]
            np.testing.assert_allclose(points(container, 0), means)


def test_losses_are_means_over_directions_and_bands_are_over_replicas(tmp_path):
    fig = chapter.loss_around(AROUND)
    check_drawing(fig, tmp_path)
    for ax, (_, part) in zip(fig.axes, AROUND.groupby("model"), strict=True):
        for line, band, name in zip(ax.lines, ax.collections, ("member", "uniform soup"), strict=True):
            pools = part[part.network == name].groupby(["step", "replica"]).loss.mean()
            expected = [mean_interval(values) for _, values in pools.groupby("step")]
            np.testing.assert_allclose(line.get_ydata(), [one.mean for one in expected])
            assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(max(one.high for one in expected))
