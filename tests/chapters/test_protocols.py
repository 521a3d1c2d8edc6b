"""Chapter 37: the corrected protocol turned into the released one, against scores put together by hand (M17)."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, untrained, untrained_chapter

from wamlib import evaluate, merge, models, released, sweeps
from wamlib.chapters import protocols as chapter
from wamlib.pools import Pool
from wamlib.stats import mean_interval, paired_difference
from wamlib.sweeps import STARTS

MODELS = ("cnn", "resnet8", "vit")
HEADS = [f"feature ensemble, {head} head" for head in ("first", "averaged")]
COMBINATIONS = ["member", "uniform soup", "logit ensemble", *HEADS, "greedy soup"]
N_SELECTION = 40
DATASET = random_dataset(n_train=400, n_test=150)
NEAR_TIES = {"abs": 0.7}  # of 150 images one is 0.67 points; rounding may turn one that is a near tie


def pool_of(model, n=2):
    return Pool(untrained(model, DATASET, n, spread=0.2), DATASET)


def load(model, state):
    module = models.build(model, 3, 1, (8, 8))
    module.load_state_dict(state)
    return module


def recalibrated(model, state):
    return merge.recalibrate_batchnorm(load(model, state), [DATASET.train.normalize(DATASET.train.images)])


def accuracy(logits, split=DATASET.test):
    return evaluate.accuracy(logits, split.labels)


def mean(tensors):
    return torch.stack(list(tensors)).mean(0)


def combined(model, states, outputs, soup):
    """Accuracies from the (logits, features) of the members and the logits of their soup."""
    logits, features = zip(*outputs, strict=True)
    heads = [models.head(load(model, state)) for state in states]
    weight, bias = mean(head.weight for head in heads), mean(head.bias for head in heads)
    return {
        "member": np.mean([accuracy(one) for one in logits]),
        "uniform soup": accuracy(soup),
        "logit ensemble": accuracy(mean(logits)),
        HEADS[0]: accuracy(mean(features) @ heads[0].weight.T + heads[0].bias),
        HEADS[1]: accuracy(mean(features) @ weight.T + bias),
    }


def in_eval_mode(model, states, split):
    """The scores that the corrected protocol gives on some test images."""
    nets = [load(model, state) for state in states]
    outputs = [(eval_logits(net, split), evaluate.predict_features(net, split)) for net in nets]
    found = combined(model, states, outputs, eval_logits(recalibrated(model, merge.uniform_soup(states)), split))
    held_out = DATASET.selection.take(slice(0, N_SELECTION))
    greedy = merge.greedy_soup(states, lambda s: accuracy(eval_logits(recalibrated(model, s), held_out), held_out))
    return found | {"greedy soup": accuracy(eval_logits(recalibrated(model, greedy.state), split))}


def by_hand(model, states):
    """The scores of every step of the evaluation."""
    dataset = replace(DATASET, selection=DATASET.selection.take(slice(0, N_SELECTION)))
    other, leaked = released.with_other_normalisation(dataset.test), released.leaked_selection(dataset, 0)

    def train_mode(state, seed):
        return released.train_mode_outputs(load(model, state), other, seed=seed)

    def greedy(split, choose=merge.greedy_soup):  # selects in eval mode and recalibrates nothing
        soup = choose(states, lambda state: accuracy(eval_logits(load(model, state), split), split))
        return {"greedy soup": accuracy(train_mode(soup.state, len(states))[0])}

    outputs = [train_mode(state, seed) for seed, state in enumerate(states)]
    soup = train_mode(merge.uniform_soup(states), len(states))[0]
    found = {"D4": in_eval_mode(model, states, other)}
    found["D1"] = combined(model, states, outputs, soup) | greedy(dataset.selection)
    found["D3"] = dict(found["D1"])
    if model == "vit":
        features = [released.features_before_norm(load(model, state), other) for state in states]
        found["D3"] |= {head: combined(model, states, zip(features, features), soup)[head] for head in HEADS}
    found["D7"] = found["D3"] | greedy(leaked)
    found["D8"] = found["D7"] | greedy(leaked, released.greedy_soup_by_halves)
    return found


# What is trained


SMALL = {"dataset": "digits", "n_train": 200, "n_members": 2, "epochs": 4, "trunk_epochs": 2}


@pytest.mark.parametrize(
    ("model", "start"),
    [
        ("mlp", STARTS[2]),
        ("cnn", STARTS[2]),
        ("cnn-x2", STARTS[2]),
        ("vgg", "re-drawn head"),
        ("resnet8", "re-drawn head"),
        ("densenet121_cifar", "re-drawn head"),
        ("vit", "re-drawn stem and head"),
        ("vit-x2", "re-drawn stem and head"),
        ("vit_b_16_cifar", "re-drawn stem and head"),
    ],
)
@pytest.mark.parametrize("given", [{}, {"peak_lr": 0.03, "warmup_epochs": 0.2}])
def test_each_arm_of_the_protocols_adds_one_thing_to_the_arm_before(model, start, given):
    found = chapter.arms(model, 1, **SMALL, **given)
    assert list(found) == ["augmented", "this book's recipe", "released start", "released training"]
    augmented, recipe, begun, trained = found.values()
    settings = {**SMALL, **given, "model": model, "replica": 1}
    assert recipe == sweeps.pool(STARTS[0], **settings)
    assert augmented == [replace(config, augment="flip-crop") for config in recipe]  # of members, not of the trunk
    assert begun == sweeps.pool(start, **settings)
    assert trained == [replace(c, peak_lr=2 * c.peak_lr, warmup_epochs=2 * c.warmup_epochs) for c in begun]
    assert not given or {(c.peak_lr, c.warmup_epochs) for c in trained} == {(0.06, 0.4)}


# What is measured


@pytest.mark.parametrize("model", MODELS)
def test_steps_are_scored_as_if_by_hand(model):
    pool, every = pool_of(model), {"n_selection": N_SELECTION}
    found = chapter.steps_of_training(pool, **every).set_index("combination").accuracy
    assert list(found.index) == COMBINATIONS
    assert dict(found) == pytest.approx(in_eval_mode(model, pool.states, DATASET.test), **NEAR_TIES)
    table = chapter.steps_of_evaluation(pool, **every)
    table = table.pivot_table("accuracy", "step", "combination", sort=False)
    assert list(table.index) == ["D4", "D1", "D3", "D7", "D8"]
    assert list(table.columns) == COMBINATIONS
    for step, expected in by_hand(model, pool.states).items():
        assert dict(table.loc[step]) == pytest.approx(expected, **NEAR_TIES), step
    # What a step cannot change it repeats.
    changed = {b: {c for c in COMBINATIONS if table[c][a] != table[c][b]} for a, b in itertools.pairwise(table.index)}
    assert changed["D3"] <= (set(HEADS) if model == "vit" else set())
    assert changed["D7"] | changed["D8"] <= {"greedy soup"}
    assert (changed["D3"] == set(HEADS)) == (model == "vit")
    difference = (table.loc["D1"] - table.loc["D4"]).drop("greedy soup").abs().max()
    assert (difference <= 0.7) == (model == "vit")  # it has neither dropout nor BatchNorm


@pytest.mark.parametrize("model", MODELS)
def test_gaps_in_both_modes_are_those_of_the_first_members(model):
    pool = pool_of(model, 3)
    found = chapter.train_mode_gaps(pool, sizes=[1, 2])
    gaps = found.set_index(["n_members", "mode"]).gap
    assert list(gaps.index) == [(1, "eval"), (1, "train"), (2, "eval"), (2, "train")]
    states = pool.states[:2]
    soup = merge.uniform_soup(states)
    ensemble = accuracy(mean(eval_logits(load(model, state), DATASET.test) for state in states))
    expected = ensemble - accuracy(eval_logits(recalibrated(model, soup), DATASET.test))
    assert gaps[2, "eval"] == pytest.approx(expected, **NEAR_TIES)
    *outputs, soup = (
        released.train_mode_outputs(load(model, state), DATASET.test, seed=i)[0]
        for i, state in enumerate([*states, soup])
    )
    assert gaps[2, "train"] == pytest.approx(accuracy(mean(outputs)) - accuracy(soup), **NEAR_TIES)
    if model == "vit":  # one member is its soup, whatever the mode
        assert gaps[1, "eval"] == gaps[1, "train"] == 0
    if model == "cnn":  # two masks of one network: a gap made of noise
        assert gaps[1, "eval"] == 0
        assert gaps[1, "train"] != 0


# What follows from it


@pytest.mark.parametrize(
    ("names", "pairs"),
    [(["cnn", "resnet8", "vit"], ["resnet8"]), (["vgg"], []), (["vit", "mlp"], [])],
)
def test_every_list_of_architectures_has_its_claims_and_its_sentences(names, pairs, tmp_path):
    sizes = {"n_pool_members": 2, "n_many": 3, "many_models": ["mlp"], "n_train_pools": 100}
    here = untrained_chapter("protocols", random_dataset(), tmp_path, protocol_models=names, **sizes)
    tables = chapter.tables(here)
    steps = tables["protocol_steps"]
    order = list(itertools.product(names, [0, 1], [*chapter.EVALUATION, "D3", "D7", "D8"], COMBINATIONS))
    assert list(steps[["model", "replica", "step", "combination"]].itertuples(index=False, name=None)) == order
    assert list(dict.fromkeys(chapter.against_vit(steps).model)) == pairs
    notes = pd.DataFrame(chapter.claims(here, tables)).groupby("claim").note.agg(list)
    assert notes.get("C8", []) == pairs
    assert notes.get("C13", []) == [name for name in names if name not in ("vit", "mlp")]
    assert notes["C9"] == ["mlp, training mode"] * 2
    said = chapter.numbers(here, tables)
    assert "nan" not in " ".join(text for text in said.values() if isinstance(text, str))
    assert ("not measured" in said["vit_released_said"]) == (not pairs)
    assert ("not measured" in said["normalisation_said"]) == ("resnet8" not in names)
    axes = chapter.waterfall(chapter.against_vit(steps), "Points").axes
    assert len([ax for ax in axes if ax.axison]) == len(pairs)


# The figure


WATERFALL = pd.DataFrame(
    itertools.product(["mlp", "resnet8", "vit"], [0, 1, 2], ["corrected", "D5", "D2, D9", "D1"]),
    columns=["model", "replica", "step"],
)
WATERFALL = WATERFALL.assign(value=np.random.default_rng(0).uniform(10, 90, len(WATERFALL)))


def test_bars_of_a_waterfall_reach_from_each_value_to_the_next(tmp_path):
    fig = chapter.waterfall(WATERFALL, "Gap (points)")
    check_drawing(fig, tmp_path)
    for ax, (_, part) in zip(fig.axes, WATERFALL.groupby("model", sort=False), strict=False):
        means = part.groupby("step", sort=False).value.mean().to_numpy()
        bars = [container.patches[0] for container in ax.containers if hasattr(container, "patches")]
        middle = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars[:-2]]
        np.testing.assert_allclose(middle, list(itertools.pairwise(means)))
        np.testing.assert_allclose([bar.get_height() for bar in bars[-2:]], [means[0], means[-1]])
        assert len({bar.get_facecolor() for bar, (a, b) in zip(bars, itertools.pairwise(means)) if b > a}) <= 1
        labels = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
        assert labels == ["corrected", "D5", "D2, D9", "D1", "released"]  # the order of the table, not of the alphabet
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([1, 2, 3, 0, 4])


def test_whiskers_of_a_waterfall_are_intervals_of_the_change_and_of_the_ends(tmp_path):
    part = WATERFALL[WATERFALL.model == "mlp"]
    wide = part.pivot_table("value", "replica", "step", sort=False)
    ax = chapter.waterfall(part, "Gap (points)").axes[0]
    bars = [np.diff(c.lines[2][0].get_segments()[0][:, 1]).item() for c in ax.containers if hasattr(c, "lines")]
    intervals = [paired_difference(wide[b], wide[a]) for a, b in itertools.pairwise(wide.columns)]
    intervals += [mean_interval(wide[step]) for step in ("corrected", "D1")]
    np.testing.assert_allclose(bars, [one.high - one.low for one in intervals])
    check_drawing(chapter.waterfall(part[part.replica == 0], "Gap (points)"), tmp_path)  # without an interval
