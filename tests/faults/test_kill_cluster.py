"""Dask workers and schedulers, killed for real."""

import shutil
import time

import pytest
from clusters import started, sweep

from wamlib import runs
from wamlib.runs import RunStore

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def under_way(folder):
    """Unfinished trainings with an epoch behind them."""
    return [path for path in folder.glob(f"runs/*/{runs.RESUME}") if not (path.parent / runs.RECORD).exists()]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The digests of the weights that a sweep on this machine gives."""
    folder = tmp_path_factory.mktemp("here")
    process = sweep(folder)
    process.communicate(timeout=240)
    assert process.returncode == 0
    return digests(folder)


def digests(folder):
    store = RunStore(folder / "runs")
    return {name: record["checkpoint_sha256"] for name, record in records(store).items()}


def records(store):
    import json

    return {path.parent.name: json.loads(path.read_text()) for path in store.root.glob("*/record.json")}


def test_a_worker_that_is_killed_costs_an_epoch(tmp_path, weights):
    with started(tmp_path) as start:
        _, address = start("scheduler")
        first, _ = start("worker", address, "--nthreads", "1")
        process = sweep(tmp_path, "--dask", address)
        (unfinished, *_) = wait_for(lambda: under_way(tmp_path))
        begun = unfinished.stat().st_mtime_ns
        wait_for(lambda: not unfinished.exists() or unfinished.stat().st_mtime_ns != begun)  # an epoch later
        first.kill()
        first.wait()
        assert process.poll() is None  # the sweep waits for another
        start("worker", address, "--nthreads", "1")
        _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert "Traceback" not in error
    assert digests(tmp_path) == weights
    assert not under_way(tmp_path)


def test_a_scheduler_that_is_killed_loses_nothing(tmp_path, weights):
    with started(tmp_path) as start:
        scheduler, address = start("scheduler")
        start("worker", address, "--nthreads", "1")
        process = sweep(tmp_path, "--dask", address)
        wait_for(lambda: len(list(tmp_path.glob("runs/*/record.json"))) >= 2 and under_way(tmp_path))
        scheduler.kill()
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1, error
    assert "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith("SweepError: cannot finish a sweep: ")
    assert "Start the scheduler and its workers, and run the same command again" in error
    finished = records(RunStore(tmp_path / "runs"))
    assert 2 <= len(finished) < len(weights)
    with started(tmp_path) as start:
        _, address = start("scheduler")
        start("worker", address, "--nthreads", "1")
        process = sweep(tmp_path, "--dask", address)
        _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert digests(tmp_path) == weights
    later = records(RunStore(tmp_path / "runs"))
    assert {name: later[name] for name in finished} == finished  # and are not trained again


def test_two_workers_give_the_same_bits_as_this_machine(tmp_path, weights):
    with started(tmp_path) as start:
        _, address = start("scheduler")
        for _ in range(2):
            start("worker", address, "--nthreads", "1", "--resources", "GPU=0.5")
        process = sweep(tmp_path, "--dask", address)
        _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert digests(tmp_path) == weights


@pytest.mark.parametrize(
    ("workers", "options", "said"),
    [
        (["--nthreads 3"], [], "a worker of 3 threads"),
        (["--nthreads 1 --resources GPU=0.25"], ["--gpus", "1"], "got workers with GPU=0.25, wanted one with GPU=1.0"),
        (["--nthreads 1"], ["--gpus", "1"], "got workers with GPU=0, wanted one with GPU=1.0"),
    ],
)
def test_a_cluster_that_cannot_do_it_is_refused(workers, options, said, tmp_path):
    with started(tmp_path) as start:
        _, address = start("scheduler")
        for words in workers:
            start("worker", address, *words.split())
        process = sweep(tmp_path, "--dask", address, *options)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    assert "Traceback" not in error
    assert said in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "tcp://", "http://127.0.0.1:1", ""])
def test_an_address_where_no_scheduler_is_is_refused(address, tmp_path):
    process = sweep(tmp_path, "--dask", address, DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="2s")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2, error
    assert error.startswith("ConfigError: cannot use a cluster: ")
    assert "Traceback" not in error


def test_workers_that_write_elsewhere_are_told_from_finished_ones(tmp_path, monkeypatch):
    """As on machines that do not share the folder: the worker says done, and nothing is here."""
    from concurrent.futures import ThreadPoolExecutor

    from conftest import tiny

    from wamlib import sweeps

    store, config = RunStore(tmp_path), tiny(epochs=1)

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, call, *arguments):
            future = super().submit(call, *arguments)
            future.result()
            shutil.rmtree(store.root / config.run_id)
            return future

    with Elsewhere(1) as executor, pytest.raises(sweeps.SweepError, match="must share the store"):
        sweeps.run([config], store, executor)
