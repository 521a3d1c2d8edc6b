"""Pools, and sweeps that go on when a run fails."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from conftest import tiny

from wamlib import models, sweeps
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


@pytest.mark.parametrize("start", sweeps.REDRAWN)
def test_members_with_parts_drawn_anew_share_a_trunk_and_no_seed(start):
    pool = sweeps.pool(start, **SMALL)
    assert {config.start for config in pool} == {sweeps.pool("shared start", **SMALL)[0].start}
    assert {config.redraw for config in pool} == {sweeps.REDRAWN[start]}
    assert len({config.init_seed for config in pool}) == 2
    assert [config.seed for config in pool] == [config.seed for config in sweeps.pool("shared start", **SMALL)]
    assert pool[0].start.redraw == ()


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet8", "vit"])
@pytest.mark.parametrize("start", ["shared start", *sweeps.REDRAWN])
def test_members_begin_with_the_trunk_but_for_what_is_drawn_anew(start, model, store):
    pool = sweeps.pool(start, **SMALL | {"model": model})
    trunk = store.train(pool[0].start).state
    begun = [store.start_state(config) for config in pool]
    module = models.build(model, 10, 1, (8, 8))
    layers = {"head": models.head(module), "stem": models.stem(module)}
    names = {part: next(name for name, m in module.named_modules() if m is layer) for part, layer in layers.items()}
    own = {f"{names[part]}.{key}" for part in sweeps.REDRAWN.get(start, ()) for key in layers[part].state_dict()}
    for key in trunk:
        values = [trunk[key], *(state[key] for state in begun)]
        different = not any(torch.equal(a, b) for a, b in itertools.combinations(values, 2))
        # A bias may be zero whenever it is drawn.
        assert different == (key in own) or (key in own and not values[1].any()), key
        assert different or torch.equal(begun[0][key], begun[1][key])
    assert all(f"{names[part]}.weight" in own for part in sweeps.REDRAWN.get(start, ()))
    # And so does training, whose first step from there is a small one.
    crawl = replace(pool[0], epochs=1, peak_lr=1e-30)
    torch.testing.assert_close(store.train(crawl).state[f"{names['head']}.weight"], begun[0][f"{names['head']}.weight"])


def test_what_is_drawn_anew_is_drawn_by_the_seed_alone(store):
    pool = sweeps.pool("re-drawn head", **SMALL)
    store.train(pool[0].start)
    again, other = store.start_state(replace(pool[0], seed=9)), store.start_state(replace(pool[0], init_seed=9))
    assert torch.equal(store.start_state(pool[0])["head.weight"], again["head.weight"])
    assert not torch.equal(again["head.weight"], other["head.weight"])


def test_changes_reach_the_members_and_not_their_trunk():
    for start in (*sweeps.STARTS, *sweeps.REDRAWN):
        plain = sweeps.pool(start, **SMALL)
        changed = sweeps.pool(start, changes={"augment": "flip", "peak_lr": 0.3}, **SMALL)
        assert [(c.augment, c.peak_lr) for c in changed] == [("flip", 0.3)] * 2
        assert [config.start for config in changed] == [config.start for config in plain]
        assert [replace(c, augment="none", peak_lr=p.peak_lr) for c, p in zip(changed, plain, strict=True)] == plain


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


@pytest.mark.parametrize(
    "change",
    [{"start": "shared"}, {"trunk_epochs": 0}, {"trunk_epochs": 2}, {"start": "re-drawn head", "trunk_epochs": 2}],
)
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


def test_smaller_pools_over_data_sets_begin_the_larger_ones():
    common = {"epochs": 2, "trunk_epochs": 1, "n_replicas": 2, "n_eval": 60}
    names, models = {"digits": 100, "fashion-mnist": 100}, ["mlp", "vit"]
    common |= {"starts": (*sweeps.STARTS, *sweeps.REDRAWN)}
    few, many = (sweeps.pools_by_dataset(names, models, n_members=n, **common) for n in (3, 10))
    assert list(few) == list(many)
    assert len(few) == 2 * 2 * 5 * 2
    for name, pool in many.items():
        assert len(pool) == 10
        assert pool[:3] == few[name]


def test_linear_members_of_a_sweep_are_trained_together_and_kept_apart(tmp_path):
    store = RunStore(tmp_path)
    groups = sweeps.linear_members("digits", n_train=200, n_members=2, epochs=2, weight_decays=(0.0, 0.1))
    with ThreadPoolExecutor(1) as executor:
        done = sweeps.run_groups(groups, store, executor)
    assert {run.record["trained_together"] for run in done[0.0]} == {6}  # 2 seeds x (2 decays + shuffled labels)
    assert {run.record["trained_together"] for run in done[sweeps.RELEASED]} == {2}
    assert len(store.table()) == 8
    alone = RunStore(tmp_path / "alone").train(groups[0.1][1])
    torch.testing.assert_close(done[0.1][1].state, alone.state, rtol=0, atol=0)
    assert alone.record["trained_together"] == 1


def test_a_member_that_diverges_takes_none_of_those_trained_with_it_along(tmp_path):
    store = RunStore(tmp_path)
    good = tiny(model="linear", epochs=20, weight_decay=0.0)
    bad = replace(good, weight_decay=1e20)
    with ThreadPoolExecutor(1) as executor, pytest.raises(sweeps.SweepError, match=r"1 of 2 runs.*\n?.*diverged"):
        sweeps.run([bad, good], store, executor)
    assert good in store
    assert bad not in store


def test_members_of_an_architecture_are_trained_as_one_program_where_that_is_asked_for(tmp_path):
    trunk = tiny(epochs=1, seed=7)
    members = [tiny(seed=seed, start=trunk, init_seed=None) for seed in range(3)]
    other = [tiny(model="linear", weight_decay=decay) for decay in (0.0, 0.1)]
    cnn = tiny(model="cnn")
    store, alone = RunStore(tmp_path / "a"), RunStore(tmp_path / "b")
    with ThreadPoolExecutor(1) as executor:
        found = sweeps.run([*members, *other, cnn], store, executor, together=2)
        expected = sweeps.run([*members, *other, cnn], alone, executor)
    # Two of the three members, the linear ones as one problem, and what has dropout by itself.
    assert sorted(run.record["trained_together"] for run in found) == [1, 1, 2, 2, 2, 2]
    assert {run.record["trained_together"] for run in expected} == {1, 2}
    for run, other_run in zip(found, expected, strict=True):
        torch.testing.assert_close(run.state, other_run.state, rtol=0, atol=3e-6)
        torch.testing.assert_close(run.logits["test"], other_run.logits["test"], rtol=0, atol=1e-4)
        assert run.record["metrics"]["test"]["accuracy"] == other_run.record["metrics"]["test"]["accuracy"]


def test_programs_do_not_wait_for_each_other(tmp_path):
    """Trunks and members of the same settings: in one list with a member of another trunk, both would wait for ever."""
    trunks = [tiny(seed=seed, epochs=1) for seed in (0, 1)]
    members = [tiny(seed=seed, epochs=1, start=trunk, init_seed=None) for seed in (2, 3) for trunk in trunks]
    with ThreadPoolExecutor(2) as executor:
        found = sweeps.run([members[0], trunks[1], *members[1:]], RunStore(tmp_path), executor, together=2)
    assert {run.record["trained_together"] for run in found} == {2}


def test_as_many_processes_train_as_are_asked_for(tmp_path, monkeypatch):
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, environments):
            asked.append(len(environments))
            super().__init__(len(environments))

    monkeypatch.setattr("wamlib.sweeps.training.LocalWorkers", Pool)
    sweeps.run([tiny(seed=seed, epochs=1) for seed in range(3)], RunStore(tmp_path), workers=2)
    sweeps.run([tiny(seed=seed, epochs=1) for seed in range(3, 5)], RunStore(tmp_path), workers=9)
    assert asked == [2, 2]  # no more than there are runs
