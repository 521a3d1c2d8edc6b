"""Sweeps that are interrupted or killed, with their workers."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from wamlib import runs


@pytest.mark.slow
def test_ctrl_c_ends_the_command_line_with_one_line(tmp_path):
    params = tmp_path / "params.yml"
    params.write_text(
        "{dataset: digits, datasets: [digits], n_linear: 1, n_train: 1000, models: [resnet8], n_members: 4, "
        "epochs: 40, linear_epochs: 1}\n"
    )
    # A shell starts what it puts in the background with SIGINT ignored, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "wamlib.cli", "sweep", "--params", str(params)],
        env={**os.environ, "WAMLIB_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "Interrupted. Finished runs are kept; the same command continues."
    assert "Traceback" not in error
    assert len(list(tmp_path.glob("runs/*/record.json"))) >= 1


def children(pid):
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


@pytest.mark.slow
def test_workers_end_with_a_sweep_that_is_killed_and_the_next_one_continues(tmp_path):
    params = tmp_path / "params.yml"
    params.write_text(
        "{dataset: digits, datasets: [digits], n_linear: 1, n_train: 1000, models: [cnn], n_members: 2, n_replicas: 1, "
        "epochs: 30, trunk_epochs: 15, linear_epochs: 1, template_models: [], wide_models: [], pool_models: [], "
        "arm_models: [], protocol_models: [], many_models: [], flat_models: [], recipe_models: [], "
        "pretrained_datasets: [], n_train_pools: 100, n_eval_pools: 100, model: cnn, batchnorm_model: cnn}\n"
    )
    command = [sys.executable, "-m", "wamlib.cli", "sweep", "--params", str(params), "--workers", "2"]
    settings = {"env": {**os.environ, "WAMLIB_HOME": str(tmp_path)}, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **settings)
    deadline = time.monotonic() + 60
    # A training is under way: its resume file is there, its record is not.
    while not list(tmp_path.glob(f"runs/*/{runs.RESUME}")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the sweep"
        time.sleep(0.05)
    finished = set(tmp_path.glob("runs/*/record.json"))
    unfinished = {path.parent for path in tmp_path.glob(f"runs/*/{runs.RESUME}")}
    assert unfinished
    again = subprocess.run(command, **settings, timeout=240)
    assert again.returncode == 0, again.stderr
    assert finished <= set(tmp_path.glob("runs/*/record.json"))
    assert all((path / "record.json").is_file() and not (path / runs.RESUME).exists() for path in unfinished)
