"""Runs that fail: the others are finished, and the command says which failed, with what config, and why."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import tiny

from wamlib import chapters, cli, sweeps
from wamlib.runs import RunStore

GOOD, DIVERGED = [tiny(epochs=1, seed=seed) for seed in range(2)], tiny(epochs=3, peak_lr=1e20, seed=7)
TRUNK = tiny(epochs=1, seed=9)
BRANCHES = [tiny(epochs=1, start=TRUNK, init_seed=None, seed=seed) for seed in (20, 21)]


@pytest.fixture
def broken(monkeypatch):
    """A mistake in the program that the trunk meets."""
    real = RunStore.train

    def train(self, config, **options):
        if config == TRUNK:
            raise ZeroDivisionError("the trunk is cursed")
        return real(self, config, **options)

    monkeypatch.setattr(RunStore, "train", train)


def run(configs, store):
    with ThreadPoolExecutor(2) as executor:
        return sweeps.run(configs, store, executor)


def test_the_others_are_finished_and_the_error_knows_what_failed(broken, tmp_path):
    store = RunStore(tmp_path)
    with pytest.raises(sweeps.SweepError) as caught:
        run([DIVERGED, *BRANCHES, *GOOD], store)
    assert all(config in store for config in GOOD)
    failed = {failure.config: failure for failure in caught.value.failures}
    assert set(failed) == {DIVERGED, TRUNK}
    assert failed[DIVERGED].explained
    assert "training diverged" in failed[DIVERGED].error
    assert not failed[TRUNK].explained
    assert "in train\n" in failed[TRUNK].traceback
    assert "ZeroDivisionError: the trunk is cursed" in failed[TRUNK].traceback
    assert "2 of 6 runs" in str(caught.value)
    assert "2 more begin with one of them" in str(caught.value)


def test_a_failure_is_kept_until_the_run_succeeds(broken, tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    with pytest.raises(sweeps.SweepError):
        run(BRANCHES, store)
    (note,) = store.failures()
    assert note["run_id"] == TRUNK.run_id
    assert note["config"] == TRUNK.to_dict()
    assert note["error"] == "ZeroDivisionError: the trunk is cursed"
    monkeypatch.undo()
    assert len(run(BRANCHES, store)) == 2
    assert store.failures() == []


def command(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["wamlib", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0, *capsys.readouterr()


def sweep(monkeypatch, capsys, store, configs):
    monkeypatch.setattr(chapters, "all_runs", lambda _: configs)
    monkeypatch.setattr(
        "wamlib.sweeps.training.LocalWorkers", lambda environments: ThreadPoolExecutor(len(environments))
    )
    return command(monkeypatch, capsys, "sweep", "--store", store.root)


def test_the_command_line_says_config_and_traceback_and_ends_with_1(broken, tmp_path, monkeypatch, capsys):
    store = RunStore(tmp_path)
    code, _, error = sweep(monkeypatch, capsys, store, [DIVERGED, *BRANCHES, *GOOD])
    assert code == 1
    assert f"{DIVERGED.run_id} failed: ConfigError: training diverged" in error
    assert f"config: {json.dumps(DIVERGED.to_dict())}" in error
    assert f"{TRUNK.run_id} failed: ZeroDivisionError" in error
    assert error.count("Traceback") == 1  # of the mistake in the program; four parts explain the other
    assert error.strip().splitlines()[-1].startswith("SweepError: cannot finish a sweep: 2 of 6 runs")
    code, output, _ = command(monkeypatch, capsys, "runs", "--failed", "--store", store.root)
    assert code == 0
    assert "2 failed runs in " in output
    assert output.count("Traceback") == 2
    assert json.dumps(TRUNK.to_dict()) in output


def test_without_failures_it_ends_with_0(tmp_path, monkeypatch, capsys):
    store = RunStore(tmp_path)
    assert sweep(monkeypatch, capsys, store, GOOD)[0] == 0
    assert "0 failed runs" in command(monkeypatch, capsys, "runs", "--failed", "--store", store.root)[1]


def test_of_many_failures_the_first_are_shown(tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    configs = [replace(DIVERGED, seed=seed) for seed in range(7)]
    code, _, error = sweep(monkeypatch, capsys, RunStore(tmp_path), configs)
    assert code == 1
    assert error.count(" failed: ") == 5
    assert "... and 2 more." in error
