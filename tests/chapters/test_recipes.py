"""Chapter 11: accuracy against the operations of training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import check_drawing, random_dataset, untrained

from wamlib import costs
from wamlib.chapters import recipes as chapter
from wamlib.chapters.sweep import given
from wamlib.config import TrainConfig
from wamlib.pools import Pool


def test_members_by_recipe_differ_in_their_seeds_and_keep_their_share_of_warm_up():
    found = chapter.recipe_members(["cnn"], {"paper": [10, 50], "fast": [2]}, dataset="digits", n_train=9, n_replicas=2)
    assert list(found) == [("cnn", "paper", 10), ("cnn", "paper", 50), ("cnn", "fast", 2)]
    for (_, recipe, epochs), configs in found.items():
        assert [(config.seed, config.init_seed) for config in configs] == [(0, 0), (1, 1)]
        whole = TrainConfig.recipe(recipe)
        for config in configs:
            assert config.warmup_epochs / config.epochs == pytest.approx(whole.warmup_epochs / whole.epochs)
            settings = {"epochs": whole.epochs, "warmup_epochs": whole.warmup_epochs}
            common = {"model": "cnn", "dataset": "digits", "n_train": 9}
            assert replace(config, **settings) == TrainConfig.recipe(
                recipe, seed=config.seed, init_seed=config.seed, **common
            )
        assert configs[0].epochs == epochs


def test_operations_are_those_of_all_passes_over_all_images():
    dataset = random_dataset(n_train=120)
    pool = Pool(untrained("mlp", dataset, 2), dataset)
    for seconds, run in enumerate(pool.runs):
        run.record.update(metrics={"test": {"accuracy": 70.0 + seconds, "nll": 0.5}}, seconds=seconds)
    table = chapter.training_costs(pool)
    assert table[["replica", "accuracy", "nll", "seconds"]].to_numpy().tolist() == [[0, 70, 0.5, 0], [1, 71, 0.5, 1]]
    per_image, epochs = costs.training_operations("mlp", dataset), pool.runs[0].config.epochs
    np.testing.assert_allclose(table.gflops, per_image * epochs * 120 / 1e9)
    assert epochs > 1


TABLE = pd.DataFrame(
    [
        (model, recipe, epochs, replica, 60 + epochs + replica, epochs * 3.0)
        for model in ("cnn", "resnet8")
        for recipe, epochs in [("paper", 5), ("paper", 10), ("fast", 2)]
        for replica in range(3)
    ],
    columns=["model", "recipe", "epochs", "replica", "accuracy", "gflops"],
)


def test_the_longest_trainings_are_compared_seed_by_seed():
    overrides = {"dataset": "digits", "recipe_models": ["cnn", "resnet8"], "paper_epochs": [5, 10], "fast_epochs": [2]}
    here = SimpleNamespace(
        p=given("recipes", overrides), costs=lambda: {"training": 7.0}, images=lambda name: SimpleNamespace(n_train=100)
    )
    table = TABLE.assign(accuracy=TABLE.accuracy + 3 * (TABLE.model == "cnn") * (TABLE.recipe == "fast"))
    found = chapter.numbers(here, {"recipes": table})
    assert [found[f"gain_{end}"] for end in ("first", "all", "last")] == pytest.approx([-5, -6.5, -8])
    assert found["gain_all_low"] == found["gain_all"]  # the replicas differ alike
    assert (found["share"], found["trained"], found["n_train"]) == (pytest.approx(20), 7, 100)
    here.p.recipe_models = ["vit_b_16_cifar"]
    assert {config.model for group in chapter.runs(here.p).values() for config in group} == {"vit_b_16_cifar"}


def test_marks_stand_at_their_operations_and_say_their_epochs(tmp_path):
    fig = chapter.accuracy_vs_flops(TABLE)
    check_drawing(fig, tmp_path)
    first, second = fig.axes
    assert [text.get_text() for text in first.texts] == ["5", "10", "2"]
    line = first.containers[0].lines[0]
    assert list(line.get_xdata()) == [15, 30]
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [66, 71])
    assert first.get_xscale() == second.get_xscale() == "log"
