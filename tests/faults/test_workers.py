"""The processes of this machine: a death costs the call that died, and no other."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import psutil
import pytest
import torch
from conftest import tiny

from wamlib import sweeps
from wamlib.errors import ConfigError
from wamlib.runs import RunStore
from wamlib.sweeps.local import ATTEMPTS, LocalWorkers, WorkerDiedError, slots


@pytest.fixture(scope="module")
def workers():
    """Two processes for all tests: each costs seconds, and one that died is replaced."""
    with_two = LocalWorkers([{"SLOT": "a"}, {"SLOT": "b"}])
    yield with_two
    with_two.shutdown(cancel_futures=True)


def die_at_first(path):
    """Die of signal 9 unless somebody died here before."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(code):
    os._exit(code) if code >= 0 else os.kill(os.getpid(), -code)


def refuse():
    raise ConfigError("cannot do it", item="x", got="a", wanted="b", fix="Do it.")


def live_workers():
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # one that has just ended
            found += [child] if any("spawn_main" in word for word in child.cmdline()) else []
    return found


def stay(path):
    Path(path).touch()
    time.sleep(600)


def test_a_call_whose_process_dies_is_done_again_and_the_others_notice_nothing(workers, tmp_path):
    good = [workers.submit(pow, 2, n) for n in range(20)]
    bad = workers.submit(die_at_first, tmp_path / "died")
    more = [workers.submit(pow, 3, n) for n in range(20)]
    assert [future.result(60) for future in good] == [2**n for n in range(20)]
    assert bad.result(60) != os.getpid()
    assert [future.result(60) for future in more] == [3**n for n in range(20)]


@pytest.mark.parametrize(
    ("code", "said", "attempts"), [(-9, "signal 9", ATTEMPTS), (3, "exit code 3", 1), (0, "exit code 0", 1)]
)
def test_a_call_that_always_kills_its_process_is_given_up(code, said, attempts, workers, monkeypatch):
    monkeypatch.setattr("wamlib.sweeps.local.ATTEMPTS", attempts)  # each costs the start of a process
    future = workers.submit(die, code)
    with pytest.raises(WorkerDiedError, match=f"{attempts} deaths .*{said}"):
        future.result(60)
    assert workers.submit(pow, 2, 3).result(60) == 8


UNGUARDED = """
import sys
sys.path.insert(0, sys.argv[2])
from conftest import tiny
from wamlib import sweeps
from wamlib.runs import RunStore
print("begun", flush=True)
sweeps.run([tiny(seed=seed, epochs=1) for seed in range(50)], RunStore(sys.argv[1]), workers=1)
"""


@pytest.mark.slow
def test_where_no_process_comes_up_a_sweep_ends_at_once(tmp_path):
    """A script without the guard of its main part: each worker would begin a sweep of its own."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, tmp_path / "script.py", tmp_path / "runs", Path(__file__).parents[1]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout.count("begun") == 1 + ATTEMPTS
    assert "wamlib.sweeps.training.SweepError: cannot finish a sweep: 50 of 50 runs" in done.stderr
    assert "needs the line `if __name__ == '__main__':` above the call" in done.stderr


def test_each_process_has_its_own_environment(workers):
    futures = [workers.submit(os.getenv, "SLOT") for _ in range(40)]
    assert {future.result(60) for future in futures} == {"a", "b"}


def test_errors_come_back_as_they_are(workers):
    with pytest.raises(ConfigError, match="cannot do it: x: got a, wanted b"):
        workers.submit(refuse).result(60)
    with pytest.raises(ZeroDivisionError) as caught:
        workers.submit(divmod, 1, 0).result(60)
    assert "In the worker:" in caught.value.__notes__[0]


def test_what_cannot_be_sent_is_refused_at_once(workers):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        workers.submit(lambda: 0)


def test_shutting_down_ends_what_is_under_way(tmp_path):
    others, alone = live_workers(), LocalWorkers([{}])
    running, waiting = alone.submit(stay, tmp_path / "begun"), alone.submit(pow, 2, 2)
    while not (tmp_path / "begun").exists():
        time.sleep(0.02)
    processes = [process for process in live_workers() if process not in others]
    assert processes
    alone.shutdown(cancel_futures=True)
    wait([running, waiting], timeout=10)
    assert isinstance(running.exception(), CancelledError)
    assert waiting.cancelled()
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_shutting_down_without_haste_lets_calls_end():
    with LocalWorkers([{}]) as workers:
        futures = [workers.submit(pow, 2, n) for n in range(5)]
    assert [future.result(0) for future in futures] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("device", "workers", "n_gpus", "listed", "expected"),
    [
        ("auto", None, 3, None, ["0", "1", "2"]),
        ("cuda", None, 2, "4,7", ["4", "7"]),
        ("auto", 4, 2, None, ["0", "1", "0", "1"]),
        ("auto", 1, 2, "GPU-a,GPU-b", ["GPU-a"]),
        ("cuda:1", None, 2, None, [None]),
        ("cpu", 3, 2, None, [None] * 3),
    ],
)
def test_each_process_sees_one_gpu(device, workers, n_gpus, listed, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert [slot.get("CUDA_VISIBLE_DEVICES") for slot in slots(device, workers, 1)] == expected


def test_on_cpus_there_are_as_many_processes_as_their_threads_allow(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("wamlib.sweeps.local._cores", lambda: 8)
    assert [len(slots("cpu", None, threads)) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]


@pytest.mark.slow
def test_a_sweep_outlives_its_workers(tmp_path):
    """A stranger with kill -9 goes about while a sweep trains; it finishes, with the bits of one left alone."""
    import threading

    store, configs = RunStore(tmp_path / "a"), [tiny(model="cnn", epochs=30, seed=seed) for seed in range(2)]
    others, killed, done = live_workers(), [], threading.Event()

    def stranger():
        while not done.wait(0.05) and len(killed) < 2:
            begun = {path.parent.name for path in store.root.glob("*/resume")}
            victims = [process for process in live_workers() if process not in others]
            if len(begun) > len(killed) and victims:  # an epoch is behind some training
                victims[0].kill()
                killed.append(victims[0].pid)

    thread = threading.Thread(target=stranger)
    thread.start()
    found = sweeps.run(configs, store)
    done.set()
    thread.join()
    assert killed
    for run, config in zip(found, configs, strict=True):
        alone = RunStore(tmp_path / "b").train(config)
        assert run.record["checkpoint_sha256"] == alone.record["checkpoint_sha256"]
