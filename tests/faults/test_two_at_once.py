"""Two sweeps over one store at a time, and clocks that go back."""

import json
import os
import time

import pytest
from clusters import sweep
from conftest import tiny

from wamlib import chapters, runs
from wamlib.config import TrainConfig
from wamlib.runs import RunStore


@pytest.mark.slow
def test_two_sweeps_at_once_do_not_get_in_each_others_way(tmp_path):
    both = [sweep(tmp_path, "--workers", "2") for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        assert "Traceback" not in error
    store = RunStore(tmp_path / "runs")
    asked = chapters.all_runs(chapters.read_parameters(tmp_path / "params.yml"))
    assert len(store.table()) == len({*asked, *(config.start for config in asked if config.start)})
    for path in store.root.glob("*/record.json"):
        record = json.loads(path.read_text())
        assert store[TrainConfig.from_dict(record["config"])].state
        left = {file.name for file in path.parent.iterdir()}
        assert left == {"checkpoint.safetensors", "logits.safetensors", "record.json"}


class StopError(Exception):
    pass


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_changes_nothing(days, store, tmp_path, monkeypatch):
    """Files from another time, and a clock that has jumped since: what is unfinished continues, with the same bits."""
    config, there = tiny(epochs=4), RunStore(tmp_path)
    finished = there.train(tiny(epochs=1, seed=5)).record

    def stop(row):
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        there.train(config, progress=stop)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * days)
    for path in tmp_path.rglob("*"):
        os.utime(path, (now() - 86_400 * days,) * 2)
    rows = []
    run = there.train(config, progress=rows.append)
    assert [row["epoch"] for row in rows] == [3, 4]
    assert run.record["checkpoint_sha256"] == store.train(config).record["checkpoint_sha256"]
    assert all(row["seconds"] >= 0 for row in run.record["history"])
    assert there.train(tiny(epochs=1, seed=5)).record == finished
    assert len(there.table()) == 2
    assert not (run.path / runs.RESUME).exists()
