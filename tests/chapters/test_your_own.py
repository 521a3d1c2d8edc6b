"""Members of a reader's own: what the options gave on other images, the lines between them, and the soup as a file."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, untrained
from safetensors import safe_open
from safetensors.torch import save_file

from wamlib import advise, models
from wamlib.chapters import your_own
from wamlib.data import load
from wamlib.ensemble import logit_ensemble
from wamlib.errors import CheckpointError, DataError, WamlibError
from wamlib.merge import recalibrate_batchnorm, uniform_soup


@pytest.fixture(scope="module", params=["mlp", "resnet8"])
def case(request):
    """Three members, a model of theirs, images, and batches to recalibrate with."""
    dataset = random_dataset()
    states = [run.state for run in untrained(request.param, dataset)]
    model = models.build(request.param, len(dataset.classes), dataset.in_channels, dataset.image_size)
    return states, model, dataset, [batch for batch, _ in dataset.train.batches()]


def right(model, state, split, batches=None):
    model.load_state_dict(state)
    if batches:
        recalibrate_batchnorm(model, batches)
    return eval_logits(model, split)


def percent(logits, split):
    return 100 * (logits.argmax(1) == split.labels).double().mean().item()


@pytest.fixture(scope="module")
def asked(case):
    states, model, dataset, batches = case
    advice = advise.advise(states, model, dataset.selection, training_batches=batches)
    return advice, your_own.outcomes(advice, states, model, dataset, batches).set_index("option")


def test_outcomes_are_measured_on_the_test_images_and_expectations_on_the_selection_images(case, asked):
    states, model, dataset, batches = case
    advice, table = asked
    logits = [right(model, state, dataset.test) for state in states]
    mean = sum(percent(part, dataset.test) for part in logits) / 3
    soup = percent(right(model, uniform_soup(states), dataset.test, batches), dataset.test)
    ensemble = percent(logit_ensemble(logits), dataset.test)
    best = max(range(3), key=lambda index: advice.measured.accuracies[index])
    assert table.accuracy["uniform soup"] == pytest.approx(soup)
    assert table.gain["uniform soup"] == pytest.approx(soup - mean)
    assert table.gain["logit ensemble"] == pytest.approx(ensemble - mean)
    assert table.accuracy["best member"] == pytest.approx(percent(logits[best], dataset.test))
    assert table.expected["uniform soup"] == pytest.approx(advice.measured.gain("uniform soup")[0])
    assert dict(table.passes) == {name: 3 if name == "logit ensemble" else 1 for name in table.index}
    assert (table.noise >= 0).all()


def test_a_soup_that_is_not_recalibrated_would_be_seen(case, asked):
    states, model, dataset, batches = case
    plain = right(model, uniform_soup(states), dataset.test)
    mended = right(model, uniform_soup(states), dataset.test, batches)
    assert torch.equal(plain, mended) == (not asked[0].measured.has_batchnorm)


def test_lines_end_at_the_members(asked):
    measured = asked[0].measured
    table = your_own.lines(measured, "ABC", at_most=2)
    assert list(table.start.unique()) == ["A to B", "A to C"]
    ends = table[table.alpha.isin([0.0, 1.0])].error.tolist()
    accuracies = measured.accuracies
    assert ends == pytest.approx([100 - accuracies[index] for index in (0, 1, 0, 2)])


@pytest.fixture
def files(case, tmp_path):
    names = [tmp_path / f"{index}.safetensors" for index in range(3)]
    for name, state in zip(names, case[0], strict=True):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, name)
    return names


def test_the_file_is_the_soup_that_was_measured(case, files, tmp_path):
    states, model, dataset, batches = case
    out = advise.write_soup(files, tmp_path / "soup.safetensors", model, batches)
    expected = right(model, uniform_soup(states), dataset.test, batches)
    torch.testing.assert_close(right(model, advise.read_member(out), dataset.test), expected)
    with safe_open(out, "pt") as file:
        assert [entry["file"] for entry in json.loads(file.metadata()["wamlib"])["inputs"]] == [str(f) for f in files]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f.name for f in files), "soup.safetensors"]


@pytest.mark.parametrize("out", ["soup.pt", "0.safetensors", "nowhere/soup.safetensors"])
def test_a_soup_that_cannot_be_written_leaves_nothing(out, case, files, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(WamlibError):
        advise.write_soup(files, tmp_path / out, case[1], case[3])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_member_that_is_not_there_is_named():
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        advise.find_member("nowhere.pt")


def test_held_out_images_are_two_halves_of_the_test_images():
    whole, halved = load("digits"), advise.open_selection("digits", held_out=True)
    assert len(halved.selection) + len(halved.test) == len(whole.test)
    flat = torch.cat([halved.selection.images, halved.test.images]).flatten(1).double()
    rank = torch.randn(flat.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = whole.test.images.flatten(1).double()
    torch.testing.assert_close((flat @ rank).sort().values, (expected @ rank).sort().values)
    assert len(advise.open_selection("digits").selection) == len(whole.selection)


def test_a_run_is_refused_for_images_it_was_not_trained_on(store, digits):
    from conftest import tiny

    run = store.train(tiny(epochs=1), device="cpu")
    run.check_images(digits)
    with pytest.raises(DataError, match="The images changed since"):
        run.check_images(load("digits", n_train=199))


OPTION_GAINS = pd.DataFrame(
    {
        "option": ["best member", "uniform soup", "aligned soup", "logit ensemble"],
        "expected": [0.5, -40.0, np.nan, 1.0],
        "gain": [0.1, -45.0, 0.2, 0.9],
        "noise": [0.3, 2.0, 0.3, 0.2],
    }
)


def test_gains_of_options_are_marked_as_measured_and_as_expected_and_a_collapse_shrinks_the_axis(tmp_path):
    fig = your_own.option_gains(OPTION_GAINS)
    check_drawing(fig, tmp_path)
    ax = fig.axes[0]
    np.testing.assert_allclose([container.lines[0].get_xdata()[0] for container in ax.containers], OPTION_GAINS.gain)
    hollow = [line.get_xdata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(hollow, OPTION_GAINS.expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(OPTION_GAINS.option)
    assert ax.get_xscale() == "symlog"
    assert your_own.option_gains(OPTION_GAINS[OPTION_GAINS.gain > -1]).axes[0].get_xscale() == "linear"
