"""Members that train as one program are the members that train alone, but for rounding."""

from dataclasses import replace

import pytest
import torch
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st

from wamlib import data
from wamlib.errors import ConfigError
from wamlib.stacked import can_stack, group, train_stacked
from wamlib.train import train


@pytest.fixture(scope="module")
def images():
    # 193 images in batches of 32: the last one would hold a single image.
    return data.load("digits", n_train=193)


def pool(model, **changes):
    """Three members, each with seeds, a learning rate and a weight decay of its own."""
    own = [(0, 0.05, 5e-4), (1, 0.02, 0.0), (2, 0.08, 0.01)]
    return [
        tiny(model=model, n_train=193, seed=seed, init_seed=seed, peak_lr=lr, weight_decay=decay, **changes)
        for seed, lr, decay in own
    ]


# torch has no batching rule for the pooling of ResNet and DenseNet and the attention of a ViT; it falls back to a loop.
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", ["linear", "deep_linear", "mlp", "resnet8", "densenet", "vit"])
def test_a_stacked_member_is_the_member_trained_alone(name, images):
    # One step: BatchNorm and attention carry a difference in the last digit on and on.
    configs = pool(name, augment="flip-crop", label_smoothing=0.1, nesterov=True, epochs=1, batch_size=193)
    for config, (state, history) in zip(configs, train_stacked(configs, images, device="cpu"), strict=True):
        alone, rows = train(config, images, device="cpu")
        assert list(state) == list(alone)
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-4)
        for row, other in zip(rows, history, strict=True):
            assert set(row) == set(other)
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-3)
            assert (row["epoch"], row["lr"]) == (other["epoch"], other["lr"])
            assert row["accuracy"] == pytest.approx(other["accuracy"], abs=1)


@pytest.mark.parametrize("nesterov", [False, True])
def test_of_an_mlp_only_the_last_digits_differ(nesterov, images):
    configs = pool("mlp", nesterov=nesterov, augment="flip-crop")
    for config, (state, history) in zip(configs, train_stacked(configs, images, device="cpu"), strict=True):
        alone, rows = train(config, images, device="cpu")
        torch.testing.assert_close(state, alone, rtol=0, atol=3e-6)
        assert [row["accuracy"] for row in history] == [row["accuracy"] for row in rows]


def test_members_with_a_start_begin_with_it(images):
    trunk = tiny(n_train=193, seed=7, epochs=1)
    start, _ = train(trunk, images, device="cpu")
    configs = [tiny(n_train=193, seed=seed, start=trunk, init_seed=None) for seed in (0, 1)]
    configs.append(tiny(n_train=193, seed=2, start=trunk, init_seed=5, redraw=("head",)))
    for config, (state, _) in zip(configs, train_stacked(configs, images, [start] * 3, device="cpu"), strict=True):
        torch.testing.assert_close(state, train(config, images, start=start, device="cpu")[0], rtol=0, atol=3e-6)


def test_a_member_does_not_depend_on_its_neighbours(images):
    a, b, c = pool("mlp")
    (first, _), _ = train_stacked([a, b], images, device="cpu")
    (second, _), _ = train_stacked([a, c], images, device="cpu")
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_diverged_member_leaves_the_others_as_they_are(images):
    good, wild, _ = pool("mlp")
    (state, history), (_, broken) = train_stacked([good, replace(wild, peak_lr=1e9)], images, device="cpu")
    assert not torch.isfinite(torch.tensor(broken[-1]["loss"]))
    assert history[-1]["loss"] < 3
    torch.testing.assert_close(state, train(good, images, device="cpu")[0], rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    "change",
    [{"model": "cnn"}, {"model": "vgg"}, {"precision": "bfloat16"}, {"shuffle_labels": True}],
)
def test_what_has_no_stacked_form_is_refused(change, images):
    config = tiny(**change)
    assert not can_stack(config)
    assert can_stack(tiny())
    with pytest.raises(ConfigError, match="no stacked form"):
        train_stacked([config], images, device="cpu")


@pytest.mark.parametrize("change", [{"epochs": 3}, {"batch_size": 16}, {"momentum": 0.5}, {"augment": "flip"}])
def test_members_of_different_settings_are_refused(change, images):
    with pytest.raises(ConfigError, match="differ in more than"):
        train_stacked([tiny(), tiny(seed=1, **change)], images, device="cpu")


@given(
    st.lists(
        st.builds(
            tiny,
            model=st.sampled_from(["mlp", "cnn", "resnet8"]),
            seed=st.integers(0, 3),
            epochs=st.integers(1, 2),
            weight_decay=st.sampled_from([0.0, 0.1]),
        ),
        unique=True,
    ),
    st.integers(1, 4),
)
def test_groups_hold_every_config_once_and_can_be_trained(configs, n_together):
    groups = group(configs, n_together)
    assert sorted(c.run_id for one in groups for c in one) == sorted(c.run_id for c in configs)
    for one in groups:
        assert len(one) <= n_together
        assert len({(c.model, c.epochs) for c in one}) == 1
        assert len(one) == 1 or all(can_stack(c) for c in one)


def test_as_few_programs_as_possible():
    configs = [tiny(seed=seed) for seed in range(5)] + [tiny(model="cnn")]
    assert sorted(len(one) for one in group(configs, 3)) == [1, 2, 3]
