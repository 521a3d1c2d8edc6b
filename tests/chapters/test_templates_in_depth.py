"""Chapter 22: structure of pairs, and what an order of units changes and what it does not."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny
from helpers import check_drawing, random_dataset, untrained, untrained_chapter

from wamlib import pictures, probe
from wamlib.chapters import templates_in_depth as chapter
from wamlib.pools import Pool
from wamlib.runs import RunStore

STARTS = (chapter.SHARED, chapter.APART)


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_a_permuted_pair_keeps_structure_and_function_and_loses_its_cosine(store, model):
    pool = Pool([store.train(tiny(model=model, seed=seed, epochs=3)) for seed in (0, 1)])
    plain, permuted = chapter.structure(pool, n_images=200, n_gradients=50, permute=True).itertuples()
    assert (plain.permuted, permuted.permuted) == (False, True)
    for column in ("own", "null", "likeness", "retrieval", "linear_share", "member_accuracy"):
        assert getattr(permuted, column) == pytest.approx(getattr(plain, column), rel=1e-3, abs=1e-4), column
    assert permuted.agreement == 100
    assert abs(permuted.cosine) < plain.cosine - 0.2
    assert permuted.gain < plain.gain - 5
    layers = chapter.layers(pool, permute=True)
    for row in (plain, permuted):
        part = layers[layers.permuted == row.permuted]
        assert (part.cosine.mean(), part.cosine.iloc[0]) == pytest.approx((row.cosine, row.first_cosine))


def test_structure_of_a_member_with_itself(store):
    run = store.train(tiny(model="mlp"))
    row = chapter.structure(Pool([run, run]), n_gradients=30).iloc[0]
    assert (row.likeness, row.cosine, row.gain) == pytest.approx((1, 1, 0), abs=1e-6)
    assert row.soup_own == pytest.approx(row.own, abs=1e-6)
    # The first images that are asked for, and no others.
    assert chapter.structure(Pool([run, run], n_test=30), n_gradients=30).own.item() == row.own
    accuracy = Pool([run], n_test=50).accuracy(run.state)
    assert chapter.structure(Pool([run, run]), n_images=50, n_gradients=5).member_accuracy.item() == accuracy


def test_layers_are_numbered_in_their_order():
    dataset = random_dataset()
    table = chapter.layers(Pool(untrained("mlp", dataset, 2), dataset))
    assert list(table.layer) == ["fc1.weight", "fc2.weight", "fc3.weight", "head.weight"]
    assert list(table.depth) == [1, 2, 3, 4]


def test_filters_are_what_they_began_with_and_what_was_added():
    dataset = random_dataset()
    pool = Pool(untrained("mlp", dataset, 2), dataset)
    table = chapter.first_filters(pool)
    assert list(table.member) == ["A"] * 10 + ["B"] * 10
    for letter, run in zip("AB", pool.runs, strict=True):
        part = table[table.member == letter]
        began = probe.first_layer(RunStore().start_state(run.config), (1, 8, 8))[:10]
        now = probe.first_layer(run.state, (1, 8, 8))[:10]
        np.testing.assert_allclose(pictures.stack(part), now, atol=1e-3)
        np.testing.assert_allclose(pictures.stack(part.assign(picture=part.added)), now - began, atol=1e-3)


def test_effective_templates_of_a_linear_member_are_its_rows():
    dataset = random_dataset()
    pool = Pool(untrained("linear", dataset, 2), dataset)
    found = pictures.stack(chapter.effective_pictures(pool, n_gradients=20))
    np.testing.assert_allclose(found, pool.states[0]["head.weight"].reshape(-1, 1, 8, 8), atol=1e-3)


# ---- The chapter -----------------------------------------------------------------------------------------------------


def at_work(folder, models):
    sizes = {"n_images": 60, "n_gradients": 10}
    parameters = {"datasets": ["digits"], "template_models": models, **sizes}
    here = untrained_chapter("templates_in_depth", random_dataset(60, 20, 60), folder, **parameters)
    return here, chapter.tables(here)


# A ViT has units that nobody can put into another order; a VGG has fewer filters than a line of pictures has room.
@pytest.mark.parametrize("models", [["mlp", "resnet8"], ["vit", "vgg"]])
def test_the_chapter_runs_with_any_architectures(models, tmp_path):
    here, tables = at_work(tmp_path, models)
    found = tables["structure"]
    assert list(found.columns)[-4:] == ["kind", "dataset", "model", "replica"]
    kinds = {model: set(part.kind) for model, part in found.groupby("model")}
    assert kinds == {model: set(chapter.KINDS) - ({"permuted"} if model == "vit" else set()) for model in models}
    assert set(tables["layers"].kind) == set(chapter.KINDS)
    assert len(chapter.ranks(found)) == 5
    numbers = chapter.numbers(here, tables)
    said = [value for name, value in numbers.items() if not isinstance(value, str) and not name.startswith("rank")]
    assert np.isfinite(said).all()
    assert f"; {numbers['last_model']}: " in numbers["failed"]
    assert list(here.judge(chapter.claims(here, tables)).claim) == ["C5"]
    fig = chapter.filters(tables, here.p)
    lines = [f"{letter} added,\n{start}" for start in STARTS for letter in "AB"]
    lines += [f"{letter}, {start},\n{models[-1]}" for start in STARTS for letter in "AB"]
    labels = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
    assert labels == [f"A as it is,\n{STARTS[0]}", *lines]
    check_drawing(fig if "vgg" in models else chapter.effective(tables), tmp_path, units=False)


def test_claims_are_about_structured_members_that_do_not_merge(tmp_path):
    here, tables = at_work(tmp_path, ["mlp", "mlp"])
    found = tables["structure"].assign(own=0.8, null=0.0)
    for gain, verdict in ((-30.0, "does not hold"), (0.5, "holds")):
        gains = found.gain.where(found.kind == chapter.SHARED, gain + 0.1 * found.replica)
        assert here.judge(chapter.claims(here, {"structure": found.assign(gain=gains)})).verdict.item() == verdict
    unstructured = {"structure": found.assign(own=-0.1, gain=-30.0)}
    assert here.judge(chapter.claims(here, unstructured)).verdict.item() == "undecided"


PAIRS = pd.DataFrame(
    [
        (model, kind, replica, dataset, depth, 0.1 * depth + value, 0.5, 0.7, 2.0 * replica)
        for model in ("mlp", "resnet8")
        for kind in chapter.KINDS
        for replica in range(3)
        for dataset, value in (("a", 0.0), ("b", 0.2))
        for depth in (1, 2, 3)
    ],
    columns=["model", "kind", "replica", "dataset", "depth", "cosine", "own", "likeness", "gain"],
)


def test_every_kind_is_drawn_and_replicas_are_means_over_data_sets(tmp_path):
    fig = chapter.structure_and_gain(PAIRS)
    check_drawing(fig, tmp_path)
    assert all(len(ax.lines) == 5 for ax in fig.axes)  # four kinds, and 0
    assert "(points)" in fig.axes[0].get_ylabel()
    fig = chapter.layer_profiles(PAIRS)
    check_drawing(fig, tmp_path, units=False)  # correlations
    assert list(fig.axes[0].containers[0].lines[0].get_ydata()) == pytest.approx([0.2, 0.3, 0.4])
    for ends in fig.axes[0].containers[0].lines[2][0].get_segments():  # the data sets differ, the replicas do not
        assert np.ptp(ends[:, 1]) == pytest.approx(0, abs=1e-12)
