"""Pools, and sweeps that go on when a run fails."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import tiny

from wamlib import sweeps
from wamlib.errors import ConfigError
from wamlib.runs import RunStore

SMALL = {"model": "mlp", "dataset": "digits", "n_train": 100, "n_members": 2, "epochs": 2, "trunk_epochs": 1}


def states(configs, store):
    return [run.state["fc1.weight"] for run in sweeps.run(configs, store)]


def test_the_three_pools_share_what_they_say():
    shared, init, independent = (sweeps.pool(start, **SMALL) for start in sweeps.STARTS)
    assert len({config.start for config in shared}) == 1
    assert shared[0].start is not None
    assert len({config.init_seed for config in init}) == 1
    assert len({config.init_seed for config in independent}) == 2
    for pool in (shared, init, independent):
        assert len({config.seed for config in pool}) == 2


def test_pairs_of_width_one_are_members_of_the_pools():
    settings = {name: value for name, value in SMALL.items() if name != "model"}
    pairs = sweeps.width_pairs(["mlp"], [0.5, 1], n_replicas=2, **settings)
    assert [key[1] for key in pairs] == [0.5, 0.5, 1, 1]
    for replica in (0, 1):
        assert pairs["mlp", 1, replica] == sweeps.pool("independent init", replica=replica, **SMALL)
    assert {config.model for config in pairs["mlp", 0.5, 0]} == {"mlp-x0.5"}


def test_every_member_has_seen_the_same_number_of_epochs():
    for start in sweeps.STARTS:
        for config in sweeps.pool(start, **SMALL):
            assert config.epochs + (config.start.epochs if config.start else 0) == 2


def test_replicas_share_no_seed():
    seeds = [
        {config.seed for start in sweeps.STARTS for config in sweeps.pool(start, replica=replica, **SMALL)}
        for replica in (0, 1)
    ]
    assert not seeds[0] & seeds[1]


def test_a_smaller_pool_is_the_beginning_of_a_larger_one():
    for start in sweeps.STARTS:
        assert sweeps.pool(start, **{**SMALL, "n_members": 5})[:2] == sweeps.pool(start, **SMALL)


@pytest.mark.parametrize("change", [{"start": "shared"}, {"trunk_epochs": 0}, {"trunk_epochs": 2}])
def test_pools_that_make_no_sense_are_refused(change):
    settings = {"start": "shared start", **SMALL, **change}
    with pytest.raises(ConfigError):
        sweeps.pool(settings.pop("start"), **settings)


def test_runs_come_back_in_order_and_are_trained_once(tmp_path):
    store = RunStore(tmp_path)
    configs = [tiny(seed=1), tiny(seed=0), tiny(seed=1)]
    with ThreadPoolExecutor(1) as executor:
        done = sweeps.run(configs, store, executor)
    assert [run.config.seed for run in done] == [1, 0, 1]
    assert len(store.table()) == 2


def test_worker_processes_give_the_same_bits_as_this_one(tmp_path):
    configs = [*sweeps.pool("shared start", **SMALL), *sweeps.pool("independent init", **SMALL)]
    in_workers = states(configs, RunStore(tmp_path / "a"))
    here = [RunStore(tmp_path / "b").train(config).state["fc1.weight"] for config in configs]
    for a, b in zip(in_workers, here, strict=True):
        assert torch.equal(a, b)


def test_a_failed_run_does_not_stop_the_others(tmp_path):
    store = RunStore(tmp_path)
    bad, good = tiny(peak_lr=1e20, warmup_epochs=0, epochs=3), tiny()
    child = tiny(start=bad, init_seed=None, seed=4)
    with ThreadPoolExecutor(1) as executor, pytest.raises(sweeps.SweepError) as caught:
        sweeps.run([bad, child, good], store, executor)
    assert bad.run_id in str(caught.value)
    assert "diverged" in str(caught.value)
    assert good in store
    assert child not in store


def test_nothing_is_started_when_nothing_is_missing(tmp_path):
    store = RunStore(tmp_path)
    store.train(tiny())

    class Refusing:
        def submit(self, *args):
            pytest.fail("submitted a finished run")

    assert len(sweeps.run([tiny()], store, Refusing())) == 1


def test_groups_keep_their_names(tmp_path):
    groups = {("mlp", 0): [tiny()], ("mlp", 1): [tiny(seed=1), tiny(seed=2)]}
    done = sweeps.run_groups(groups, RunStore(tmp_path))
    assert {name: [run.config for run in part] for name, part in done.items()} == groups


def test_linear_members_hold_a_control():
    groups = sweeps.linear_members(n_members=2, weight_decays=(0.0, 0.1))
    assert list(groups) == [0.0, 0.1, "shuffled labels"]
    assert all(config.shuffle_labels for config in groups["shuffled labels"])
    assert groups[0.1][0].weight_decay == 0.1
