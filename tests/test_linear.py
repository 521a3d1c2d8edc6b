"""Linear members trained as one problem are the members that the loop trains, but for rounding."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st

from wamlib import data, linear
from wamlib.errors import ConfigError
from wamlib.train import train


def linear_config(**changes):
    return tiny(model="linear", epochs=3, weight_decay=0.0, **changes)


CONFIGS = [linear_config(seed=seed, init_seed=seed) for seed in (0, 1)]
CONFIGS = [replace(config, weight_decay=decay) for config in CONFIGS for decay in (0.0, 0.1)]
CONFIGS += [replace(config, shuffle_labels=True) for config in CONFIGS[::2]]


@pytest.fixture(scope="module")
def images():
    # 193 images in batches of 32: the last one would hold a single image.
    return data.load("digits", n_train=193)


def test_weights_and_histories_are_those_of_the_loop(images):
    together = linear.train_together(CONFIGS, images)
    for config, (state, history) in zip(CONFIGS, together, strict=True):
        own = images.with_shuffled_labels(config.seed) if config.shuffle_labels else images
        alone, rows = train(config, own, device="cpu")
        torch.testing.assert_close(state, alone, rtol=0, atol=2e-6)
        assert list(state) == list(alone)
        for row, other in zip(rows, history, strict=True):
            assert set(row) == set(other)
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert (row["epoch"], row["accuracy"], row["lr"]) == (other["epoch"], other["accuracy"], other["lr"])


def test_a_step_is_the_step_of_numpy(images):
    """One batch, one step, in float64 and without any of the code under test."""
    config = linear_config(batch_size=193, warmup_epochs=0, schedule="constant", peak_lr=0.1)
    config = replace(config, epochs=1, weight_decay=0.3)
    ((after, _),) = linear.train_together([config], images)
    from wamlib import models

    start = models.build("linear", 10, 1, (8, 8), seed=config.init_seed).state_dict()
    w, b = (np.asarray(start[f"head.{name}"], dtype=np.float64) for name in ("weight", "bias"))
    x = np.asarray(images.train.images, dtype=np.float64).reshape(193, 64)
    x = (x - float(images.train.mean)) / float(images.train.std)
    logits = x @ w.T + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(10)[np.asarray(images.train.labels)]) / 193
    np.testing.assert_allclose(after["head.weight"], w - 0.1 * (error.T @ x + 0.3 * w), atol=1e-6)
    np.testing.assert_allclose(after["head.bias"], b - 0.1 * (error.sum(0) + 0.3 * b), atol=1e-6)


def test_a_seed_does_not_see_the_others(images):
    pair = [config for config in CONFIGS if not config.shuffle_labels]
    both = linear.train_together(pair, images)
    one = linear.train_together(pair[2:], images)
    for (state, _), (other, _) in zip(both[2:], one, strict=True):
        torch.testing.assert_close(state, other, rtol=0, atol=0)


def test_a_diverged_member_leaves_the_others_as_they_are(images):
    good = linear_config()
    wild = replace(good, weight_decay=1e20)
    (state, history), (_, broken) = linear.train_together([good, wild], images)
    assert not np.isfinite(broken[-1]["loss"])
    torch.testing.assert_close(state, train(good, images, device="cpu")[0], rtol=0, atol=2e-6)
    assert np.isfinite(history[-1]["loss"])


@pytest.mark.parametrize(
    "change", [{"epochs": 4}, {"peak_lr": 0.01}, {"batch_size": 16}, {"pixels": "unit"}, {"n_train": 100}]
)
def test_what_differs_in_more_than_seed_decay_and_labels_is_refused_and_split(change, images):
    other = linear_config(**{"seed": 1, **change}) if "epochs" not in change else replace(linear_config(), **change)
    with pytest.raises(ConfigError, match=r"linear\.group"):
        linear.train_together([linear_config(), other], images)
    assert len(linear.group([linear_config(), other])) == 2


@pytest.mark.parametrize(
    "change", [{"model": "mlp"}, {"augment": "flip"}, {"label_smoothing": 0.1}, {"precision": "bfloat16"}]
)
def test_what_is_no_plain_linear_model_stands_alone(change, images):
    odd = [replace(linear_config(seed=seed), **change) for seed in (0, 1)]
    assert linear.group(odd) == [[odd[0]], [odd[1]]]
    with pytest.raises(ConfigError):
        linear.train_together(odd, images)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.1]), st.sampled_from(["linear", "mlp"])), unique=True)
)
def test_groups_hold_every_config_once(parts):
    configs = [tiny(model=model, seed=seed, weight_decay=decay) for seed, decay, model in parts]
    groups = linear.group(configs)
    flat = [config for group in groups for config in group]
    assert sorted(c.run_id for c in flat) == sorted(c.run_id for c in configs)
    assert all(len({c.seed for c in group}) <= linear.SEEDS_TOGETHER for group in groups)
