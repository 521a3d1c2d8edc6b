"""Chapter 36: repair restores the spread of units, and only torch's recalibration depends on the order of images."""

import numpy as np
import pytest
from conftest import tiny
from helpers import check_drawing, untrained_chapter

from wamlib import evaluate
from wamlib.chapters import repair as chapter
from wamlib.merge import recalibrate_batchnorm, uniform_soup
from wamlib.pools import Pool


@pytest.fixture(scope="module")
def strangers(store):
    return Pool([store.train(tiny(init_seed=seed, seed=seed, epochs=10, peak_lr=0.1)) for seed in range(2)])


@pytest.fixture(scope="module")
def pool(store):
    return Pool([store.train(tiny(model="resnet8", seed=seed, epochs=3)) for seed in range(3)])


@pytest.fixture(scope="module")
def recalibrated(pool):
    return chapter.recalibrations(pool, sizes=[50, 200])


def test_repair_restores_the_spread_of_the_units(strangers):
    table = chapter.unit_spread(strangers)
    spread = table.groupby(["matching", "repair"]).spread.mean()
    assert spread["none", "none"] < 0.9
    assert spread["none", "none"] < spread["weights", "none"]
    assert spread["none", "REPAIR"] == pytest.approx(1, abs=0.15)  # other images than those repaired on
    assert list(dict.fromkeys(table.layer)) == ["fc1", "fc2", "fc3"]  # hidden layers, not the classifier


def test_the_spread_of_a_member_with_itself_is_one(strangers):
    table = chapter.unit_spread(Pool(strangers.runs[:1] * 2, strangers.dataset))
    np.testing.assert_allclose(table.spread, 1, rtol=1e-4)


def test_layer_spread_agrees_with_numpy(strangers):
    split, state = strangers.dataset.test, strangers.states[0]
    images = split.normalize(split.images).flatten(1).double().numpy()
    weight, bias = (state[f"fc1.{name}"].double().numpy() for name in ("weight", "bias"))
    expected = (images @ weight.T + bias).std(0, ddof=1).mean()
    assert evaluate.layer_spread(strangers.load(state), split)["fc1"] == pytest.approx(expected, rel=1e-5)


def test_recalibrations_agree_with_the_parts(pool, recalibrated):
    soup = uniform_soup([run.state for run in pool.runs])
    assert recalibrated.error[recalibrated.images == 0].item() == pytest.approx(pool.error(soup))
    assert set(zip(recalibrated.order[1:], recalibrated.tool[1:], strict=True)) == {
        (order, tool) for order in chapter.PHRASES for tool in ("wamlib", "torch")
    }
    ((images, _),) = pool.dataset.train.take(slice(0, 50)).batches(50)
    module = recalibrate_batchnorm(pool.load(soup), [images[:-2], images[-2:]])
    logits = evaluate.predict_logits(module, pool.dataset.test)
    rows = recalibrated[(recalibrated.images == 50) & (recalibrated.order == "shuffled")].set_index("tool")
    assert rows.error["wamlib"] == 100 - evaluate.accuracy(logits, pool.dataset.test.labels)


def test_the_order_of_the_images_matters_to_torch_only(recalibrated):
    error = recalibrated[recalibrated.images == 200].set_index(["order", "tool"]).error
    assert error["shuffled", "wamlib"] == pytest.approx(error["by class", "wamlib"], abs=0.3)
    assert error["shuffled", "torch"] != pytest.approx(error["by class", "torch"], abs=0.3)


@pytest.mark.parametrize("n_train", [100, None])
def test_the_chapter_says_and_draws_what_its_tables_hold(digits, tmp_path, n_train):
    parameters = {"models": ["mlp"], "batchnorm_model": "resnet8", "n_train": n_train, "n_members": 2}
    here = untrained_chapter("repair", digits, tmp_path, n_recalibration=[20, 60, 150], **parameters)
    tables = chapter.tables(here)
    said, spread, errors = chapter.numbers(here, tables), tables["spread"], chapter.by_size(tables["recalibrations"])
    assert set(spread.model) == {"mlp"}
    assert said["largest"] == (60 if n_train else 150)  # no more than members are trained on
    last = [part[part.depth == part.depth.max()] for _, part in spread.groupby("model")]
    silent = [part[(part.matching == "none") & (part.repair == "none")].spread for part in last]
    assert said["collapse"] == pytest.approx(100 * np.mean(np.concatenate(silent)))
    assert said["enough"] in errors.loc["shuffled"].index
    order = {phrase: order for order, phrase in chapter.PHRASES.items()}[said["worst_order"]]
    row = errors.loc[order, said["worst_images"]]
    assert (said["worst_torch"], said["worst_wamlib"]) == (row.torch, row.wamlib)
    fig = chapter.spread_by_depth(spread)
    check_drawing(fig, tmp_path)
    first = spread[(spread.model == "mlp") & (spread.matching == "none") & (spread.repair == "none")]
    assert fig.axes[0].lines[0].get_ydata()[0] == pytest.approx(first[first.depth == 1].spread.mean())
    check_drawing(chapter.recalibration_curves(tables["recalibrations"]), tmp_path)
