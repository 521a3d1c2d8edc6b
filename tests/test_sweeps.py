"""Pools, and sweeps that go on when a run fails."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

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
    groups = sweeps.linear_members("fashion-mnist", n_members=2, weight_decays=(0.0, 0.1))
    assert list(groups) == [0.0, 0.1, sweeps.SHUFFLED, sweeps.RELEASED]
    assert all(config.shuffle_labels for config in groups["shuffled labels"])
    assert groups[0.1][0].weight_decay == 0.1
    assert {config.pixels for config in groups[sweeps.RELEASED]} == {"unit"}


def test_a_smaller_data_set_is_passed_over_more_often():
    assert sweeps.fit_passes("digits", 8000, 4, 2) == (None, 24, 12)
    assert sweeps.fit_passes("digits", 600, 4, 2) == (600, 4, 2)
    assert sweeps.fit_passes("fashion-mnist", 8000, 4, 2) == (8000, 4, 2)
    assert sweeps.fit_passes("digits", None, 4) == (None, 4)


def test_the_stated_size_of_the_small_data_set_is_its_size():
    from wamlib import data
    from wamlib.sweeps.pools import SIZES

    assert {name: len(data.load(name).train) for name in SIZES} == SIZES


def test_pairs_over_data_sets_begin_the_pools():
    settings = {"epochs": 2, "trunk_epochs": 1}
    pairs = sweeps.pools_by_dataset({"digits": 100}, ["mlp"], n_replicas=2, **settings)
    assert {key[2] for key in pairs} == {"shared start", "independent init"}
    for (dataset, model, start, replica), pair in pairs.items():
        assert (
            pair
            == sweeps.pool(start, model=model, replica=replica, dataset=dataset, n_members=5, n_train=100, **settings)[
                :2
            ]
        )


def test_the_book_counts_only_data_sets_that_are_here(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    settings = {"dataset": "digits", "models": [], "wide_models": [], "template_models": ["mlp"]}
    names = {config.dataset for config in sweeps.book(datasets=["digits", "folder:nowhere.zip"], **settings)}
    assert names == {"digits"}
    (tmp_path / "raw" / "nowhere.zip").mkdir(parents=True)  # the twin: now there is something of that name
    names = {config.dataset for config in sweeps.book(datasets=["digits", "folder:nowhere.zip"], **settings)}
    assert names == {"digits", "folder:nowhere.zip"}


def test_linear_members_of_a_sweep_are_trained_together_and_kept_apart(tmp_path):
    store = RunStore(tmp_path)
    groups = sweeps.linear_members("digits", n_train=200, n_members=2, epochs=2, weight_decays=(0.0, 0.1))
    with ThreadPoolExecutor(1) as executor:
        done = sweeps.run_groups(groups, store, executor)
    assert {run.record["trained_together"] for run in done[0.0]} == {6}  # 2 seeds x (2 decays + shuffled labels)
    assert {run.record["trained_together"] for run in done[sweeps.RELEASED]} == {2}
    assert len(store.table()) == 8
    alone = RunStore(tmp_path / "alone").train(groups[0.1][1])
    torch.testing.assert_close(done[0.1][1].state, alone.state, rtol=0, atol=1e-6)
    assert alone.record["trained_together"] == 1


def test_a_member_that_diverges_takes_none_of_those_trained_with_it_along(tmp_path):
    store = RunStore(tmp_path)
    good = tiny(model="linear", epochs=20, weight_decay=0.0)
    bad = replace(good, weight_decay=1e20)
    with ThreadPoolExecutor(1) as executor, pytest.raises(sweeps.SweepError, match=r"1 of 2 runs.*\n?.*diverged"):
        sweeps.run([bad, good], store, executor)
    assert good in store
    assert bad not in store
