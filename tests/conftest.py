"""Fixtures: small real data and small real members, trained once per session."""

import os

import pytest
import torch
from hypothesis import settings

from wamlib.config import TrainConfig
from wamlib.runs import RunStore

# Figures are drawn without a screen.
os.environ.setdefault("MPLBACKEND", "agg")

# A slow machine is no failure: tests say what is right, benchmarks/ says how fast.
settings.register_profile("wamlib", deadline=None)
settings.load_profile("wamlib")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def tiny(**changes):
    """Return a config that trains in a fraction of a second on scikit-learn's digits."""
    settings = {"dataset": "digits", "n_train": 200, "model": "mlp", "epochs": 2, "batch_size": 32, **changes}
    return TrainConfig(**settings)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A run store that the tests of one worker share."""
    return RunStore(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def digits():
    from wamlib import data

    return data.load("digits", n_train=200)
