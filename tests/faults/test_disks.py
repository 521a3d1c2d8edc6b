"""Stores on a disk that is full or read-only, real ones where this system lets them be mounted."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import SMALL
from conftest import tiny

from wamlib import runs, sweeps
from wamlib.errors import ConfigError, StoreError
from wamlib.predictions import Predictions
from wamlib.runs import RunStore


@contextlib.contextmanager
def mounted(disk, *options):
    """A small disk of its own at a folder."""
    disk.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def remount(disk, option):
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


def sweep(folder, store, **more):
    (folder / "params.yml").write_text(SMALL.replace("cnn", "mlp"))
    command = [sys.executable, "-m", "wamlib.cli", "sweep", "--params", folder / "params.yml", "--store", store]
    env = {**os.environ, "WAMLIB_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env, timeout=300, **more)


def check_refused(done, said, code):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert "StoreError: cannot " in done.stderr
    assert "name another store" in done.stderr


def check_whole(store):
    """Whatever counts as finished is whole, and nothing of a write that failed is left."""
    assert list(store.table().run_id)
    for path in store.root.glob(f"*/{runs.RECORD}"):
        assert (path.parent / "checkpoint.safetensors").stat().st_size > 0
    assert not list(store.root.rglob("*.tmp"))


@pytest.mark.slow
def test_a_sweep_onto_a_disk_that_is_full_keeps_what_it_has_and_goes_on_later(tmp_path):
    with mounted(tmp_path / "disk", "size=700k") as disk:
        done = sweep(tmp_path, disk / "runs")
        check_refused(done, "No space left on device", 1)  # some runs were finished
        store = RunStore(disk / "runs")
        check_whole(store)
        before = {row["run_id"]: row["finished"] for row in store.table().to_dict("records")}
        remount(disk, "size=100m")
        done = sweep(tmp_path, disk / "runs")
        assert done.returncode == 0, done.stderr
        after = {row["run_id"]: row["finished"] for row in store.table().to_dict("records")}
        assert {name: after[name] for name in before} == before  # and are not trained again
        assert store.failures() == []


@pytest.mark.slow
def test_a_sweep_onto_a_read_only_disk_is_an_error_and_what_is_there_can_be_read(tmp_path):
    with mounted(tmp_path / "disk", "size=100m") as disk:
        store, config = RunStore(disk / "runs"), tiny(epochs=1)
        state = store.train(config).state
        remount(disk, "ro")
        check_refused(sweep(tmp_path, disk / "runs"), "Read-only file system", 2)  # nothing was begun
        assert store.train(config).state.keys() == state.keys()
        with pytest.raises(StoreError, match="Read-only file system"):
            store.train(tiny(seed=1))
        with pytest.warns(UserWarning, match="cannot keep predictions"):
            assert Predictions(disk / "predictions").get(["x"], lambda: state["fc1.weight"]) is state["fc1.weight"]
        remount(disk, "rw")
        assert store.train(tiny(seed=1)).record["status"] == "done"


LIMITS = (1_000, 30_000, 60_000, 100_000)
LIMITED = f"""
import resource, sys
sys.path.insert(0, sys.argv[2])
from conftest import tiny
from wamlib.errors import StoreError
from wamlib.runs import RunStore
for limit in {LIMITS}:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        RunStore(f"{{sys.argv[1]}}/{{limit}}").train(tiny(epochs=2))
    except StoreError as error:
        print("refused", error)
"""


def test_files_that_may_not_grow_are_errors_of_four_parts(tmp_path):
    # The limit on the size of files stands for a full disk where none can be mounted. The smallest refuses a record,
    # the others the state of an unfinished training or the weights.
    command = [sys.executable, "-c", LIMITED, tmp_path, Path(__file__).parents[1]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused cannot keep") == done.stdout.count("File too large") == len(LIMITS)
    for limit in LIMITS:
        store = RunStore(tmp_path / str(limit))
        assert tiny(epochs=2) not in store
        assert not list(store.root.rglob("*.tmp"))
        assert store.train(tiny(epochs=2)).state


@pytest.mark.parametrize("place", ["file", "file/below", "folder/file/below/all"])
def test_a_store_in_the_place_of_a_file_is_refused(place, tmp_path):
    (tmp_path / "folder").mkdir()
    for file in ("file", "folder/file"):
        (tmp_path / file).write_text("in the way")
    store = RunStore(tmp_path / place)
    with pytest.raises(StoreError, match=r"cannot (lock|make|list)"):
        store.train(tiny(epochs=1))
    with pytest.raises(StoreError, match="cannot keep a file of a run"):
        sweeps.run([tiny(epochs=1)], store)
    assert tiny() not in store


def test_a_store_that_can_be_written_to_shows_no_trace_of_the_check(tmp_path):
    RunStore(tmp_path / "runs").storage.check_writable()
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", ".locks"]


def test_a_store_without_a_name_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="got an empty text"):
        RunStore("")
    monkeypatch.setenv("WAMLIB_RUNS", "")  # the twin: an empty variable is one that is not set
    assert RunStore().root.name == "runs"
