"""Accuracy against the operations of training."""

import pytest
from conftest import tiny

from wamlib import tables


def test_operations_are_those_of_all_passes_over_all_images(store, digits):
    groups = {("linear", "paper", 2): [store.train(tiny(model="linear", seed=seed), device="cpu") for seed in (0, 1)]}
    groups["mlp", "fast", 3] = [store.train(tiny(epochs=3), device="cpu")]
    table = tables.training_costs(groups, digits)
    assert table[["model", "recipe", "epochs", "replica"]].to_numpy().tolist() == [
        ["linear", "paper", 2, 0], ["linear", "paper", 2, 1], ["mlp", "fast", 3, 0]
    ]  # fmt: skip
    # Forward and the gradient of the weights; the gradient of the images is asked for by nobody.
    assert table.gflops[0] == pytest.approx(2 * 200 * 2 * (2 * 64 * 10) / 1e9)
    inner = 512 * 256 + 256 * 128 + 128 * 10
    assert table.gflops[2] == pytest.approx(3 * 200 * (2 * 2 * 64 * 512 + 3 * 2 * inner) / 1e9)
    runs = [run for several in groups.values() for run in several]
    for row, run in zip(table.itertuples(), runs, strict=True):
        assert row.accuracy == run.record["metrics"]["test"]["accuracy"]
        assert row.seconds == run.record["seconds"]
