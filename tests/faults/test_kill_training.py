"""Kill -9 at every step on the disk, and at many moments: nothing finished is lost, nothing half is taken for whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from moments import LONG, SHORT

from wamlib import runs
from wamlib.runs import RunStore

pytestmark = pytest.mark.slow


def moments(*words):
    command = [sys.executable, str(Path(__file__).with_name("moments.py")), *map(str, words)]
    # One thread: a fork beside threads of others can hang.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return int(subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout)


def test_killed_at_every_step_on_the_disk_a_training_continues_with_the_same_bits(tmp_path):
    whole = RunStore(tmp_path / "whole").train(SHORT)
    n_steps = moments("every", tmp_path)
    # Lock, folders, two epochs' states, weights, logits and record: opened and named, each one.
    assert n_steps >= 14
    finished = []
    for step in range(n_steps):
        store = RunStore(tmp_path / str(step))
        finished.append(SHORT in store)
        if finished[-1]:  # whole, then: its weights are those of the record
            assert store[SHORT].state.keys() == whole.state.keys()
        run = store.train(SHORT)
        torch.testing.assert_close(run.state, whole.state, rtol=0, atol=0)
        torch.testing.assert_close(run.logits, whole.logits, rtol=0, atol=0)
        assert run.record["checkpoint_sha256"] == whole.record["checkpoint_sha256"]
    assert finished == sorted(finished)
    assert set(finished) == {False, True}  # killed before its record, and between the record and the end


def test_one_training_killed_25_times_ends_with_the_same_bits(tmp_path):
    whole = RunStore(tmp_path / "whole").train(LONG)
    store = RunStore(tmp_path / "killed")
    assert moments("many", store.root, 25) >= 20
    assert LONG not in store
    assert (store.root / LONG.run_id / runs.RESUME).exists()  # some epochs were finished
    rows = []
    run = store.train(LONG, progress=rows.append)
    assert 0 < len(rows) < LONG.epochs  # and are not trained again
    torch.testing.assert_close(run.state, whole.state, rtol=0, atol=0)
    assert [row["loss"] for row in run.record["history"]] == [row["loss"] for row in whole.record["history"]]
    assert {path.name for path in run.path.iterdir()} == {"checkpoint.safetensors", "logits.safetensors", "record.json"}
