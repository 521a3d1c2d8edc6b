"""Merges of files in real processes: killed, interrupted, out of space. Never half a file, never a traceback."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wamlib.merge import uniform_soup

SLOWLY = """
import sys, time
from wamlib.merge import merge_files

def progress(what, done, total):
    print(what, done, total, flush=True)
    time.sleep(0.01)

merge_files(sys.argv[2:], sys.argv[1], progress=progress, n_threads=1)
print("end", flush=True)
"""


@pytest.fixture
def paths(tmp_path):
    """Two members of several pieces each."""
    found = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        state = {f"w{index}": torch.randn(300, 1000, generator=generator) for index in range(8)}
        found.append(tmp_path / f"{seed}.safetensors")
        save_file(state, found[-1])
    return found


def start(out, paths, script=SLOWLY):
    command = [sys.executable, "-c", script, *map(str, [out, *paths])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process, word, n=1):
    for line in process.stdout:
        n -= line.startswith(word)
        if n == 0:
            return
    pytest.fail(f"ended before {word!r}: {process.stderr.read()}")


def soup(paths):
    return uniform_soup([load_file(path) for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_a_merge_killed_at_any_moment_leaves_the_folder_as_it_was(old, paths, tmp_path):
    out = tmp_path / "out.safetensors"
    if old:
        out.write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    moments = [("merging", 1), ("merging", 12), ("hashing", 3)]
    for word, n in moments:
        process = start(out, paths)
        wait_for(process, word, n)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert sorted(tmp_path.iterdir()) == before
        assert not old or out.read_bytes() == b"old"
    process = start(out, paths)  # the twin: let alone, it writes
    wait_for(process, "end")
    process.communicate()
    torch.testing.assert_close(load_file(out), soup(paths), rtol=0, atol=0)


def command(*words, **more):
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "wamlib.cli", "merge", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        **more,
    )


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="only Linux lists the files that another process holds open"
)
def test_ctrl_c_ends_a_merge_with_one_line_and_no_file(tmp_path):
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.safetensors")
        save_file({f"w{i}": torch.full((4_000_000,), float(seed)) for i in range(12)}, paths[-1])
    out = tmp_path / "out.safetensors"
    before = sorted(tmp_path.iterdir())
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # see test_kill
    process = subprocess.Popen(
        [sys.executable, "-m", "wamlib.cli", "merge", *map(str, paths), "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, handler)
    # It is under way when it holds the output, which has no name yet, open.
    deadline = time.monotonic() + 60
    while not holds_unnamed(process.pid, tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert error.strip().splitlines()[-1] == "Interrupted. Nothing was written."
    assert "Traceback" not in error
    assert sorted(tmp_path.iterdir()) == before


def holds_unnamed(pid, folder):
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith(str(folder)) and link.endswith("(deleted)") for link in links)


def test_a_file_that_grows_too_large_is_an_error_of_four_parts(paths, tmp_path):
    # The limit on the size of files stands for a full disk: the system refuses the same calls.
    limit = 4_000_000

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    before = sorted(tmp_path.iterdir())
    done = command(*paths, "-o", tmp_path / "out.safetensors", preexec_fn=small)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Free some space" in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full_is_an_error_of_four_parts(paths, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    try:
        done = command(*paths, "-o", disk / "out.safetensors")
        assert done.returncode == 2
        assert "No space left on device" in done.stderr
        assert "Free some space" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


PEAK = """
import sys
from wamlib.merge import merge_files

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_"))

peak, before = 0, private()
def progress(what, done, total):
    global peak
    peak = max(peak, private())

settings = {} if sys.argv[2] == "uniform" else {"base": sys.argv[3], "density": 0.2}
merge_files(sys.argv[3:], sys.argv[1], sys.argv[2], progress=progress, n_threads=2, **settings)
print((peak - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells a process its private memory"
)
@pytest.mark.parametrize("method", ["uniform", "ties"])
def test_memory_does_not_grow_with_the_number_of_members(method, tmp_path):
    size = 40  # MB of one checkpoint
    state = {f"w{index}": torch.randn(size * 250_000 // 8) for index in range(8)}
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.safetensors")
        save_file({key: tensor + index for key, tensor in state.items()}, paths[-1])
    used = {}
    for n in (3, 12):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path / "out.safetensors"), method, *map(str, paths[:n])],
            capture_output=True,
            text=True,
            check=True,
        )
        used[n] = float(done.stdout)
    assert used[12] < size + 64  # of one output and 64 MiB; loading all would take 12 times the size
    assert used[12] < used[3] + size / 2
