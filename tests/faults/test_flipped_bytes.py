"""One byte that changed on the disk: seen, or without any effect; never a wrong number."""

import json
import random
import shutil

import pandas as pd
import pytest
import torch
from conftest import tiny

from wamlib import runs
from wamlib.chapters import members
from wamlib.errors import CheckpointError
from wamlib.evidence import Evidence
from wamlib.predictions import Predictions
from wamlib.runs import RunStore

CONFIG = tiny(epochs=3)


def flips(path, n=None):
    """Yield after each flip of one bit of a file, and mend it again; n places at random, or every byte."""
    content = path.read_bytes()
    places = range(len(content)) if n is None else sorted(random.Random(0).sample(range(len(content)), n))
    for number, place in enumerate([*places, len(content) - 1]):
        damaged = bytearray(content)
        damaged[place] ^= 1 << number % 8
        path.write_bytes(damaged)
        yield place
    path.write_bytes(content)


@pytest.fixture
def run(store, tmp_path):
    """A run in a store of its own."""
    shutil.copytree(store.train(CONFIG).path, tmp_path / "runs" / CONFIG.run_id)
    return RunStore(tmp_path / "runs")[CONFIG]


def test_in_a_record_every_byte_counts(run):
    store, n_seen = RunStore(run.path.parent), 0
    for place in flips(run.path / runs.RECORD):
        try:
            found = store[CONFIG].record
        except CheckpointError:
            n_seen += 1
        else:
            assert found == run.record, place  # white space
    assert n_seen > 0.8 * len((run.path / runs.RECORD).read_bytes())
    assert store[CONFIG].record == run.record


@pytest.mark.parametrize("part", ["checkpoint", "logits"])
def test_in_weights_and_logits_it_is_seen(part, run):
    for _ in flips(run.path / f"{part}.safetensors", 100):
        damaged = RunStore(run.path.parent)[CONFIG]
        with pytest.raises(CheckpointError, match="as recorded"):
            getattr(damaged, {"checkpoint": "state", "logits": "logits"}[part])


class StopError(Exception):
    pass


def test_an_unfinished_training_begins_anew_rather_than_from_damaged_weights(store, tmp_path):
    whole, there = store.train(CONFIG), RunStore(tmp_path)

    def stop(row):
        if row["epoch"] == 2:
            raise StopError

    with pytest.raises(StopError):
        there.train(CONFIG, progress=stop)
    path = tmp_path / CONFIG.run_id / runs.RESUME
    kept = path.read_bytes()
    for _ in flips(path, 20):
        rows = []
        run = there.train(CONFIG, progress=rows.append)
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        assert run.record["checkpoint_sha256"] == whole.record["checkpoint_sha256"]
        (run.path / runs.RECORD).unlink()
    path.write_bytes(kept)
    there.train(CONFIG, progress=rows.append)
    assert rows[3]["epoch"] == 3  # the twin: whole, it is believed


def test_predictions_and_records_that_changed_are_computed_again(tmp_path):
    tensor, table = torch.arange(24.0).view(4, 6), pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    computed = []

    def predicted():
        return Predictions(tmp_path).get(["t"], lambda: computed.append(0) or tensor)

    def measured():
        return Evidence(tmp_path).get(members.scores, [], {}, lambda: computed.append(0) or table).rows

    predicted(), measured()
    (path,), (text,) = tmp_path.rglob("*.safetensors"), tmp_path.rglob("*.json")
    for _ in flips(path):
        assert torch.equal(predicted(), tensor)
    for _ in flips(text, 40):
        pd.testing.assert_frame_equal(measured(), table)
    assert len(computed) > 100
    n = len(computed)
    predicted(), measured()
    assert len(computed) == n  # the twin


def old_record(run, **changes):
    """Write a record as the versions before did: without format and digest."""
    record = {name: value for name, value in run.record.items() if name != "format"} | changes
    (run.path / runs.RECORD).write_text(json.dumps({name: v for name, v in record.items() if v is not None}))
    return RunStore(run.path.parent)


def test_a_record_of_the_format_before_is_read(run):
    found = old_record(run)[CONFIG]
    assert found.record["metrics"] == run.record["metrics"]
    torch.testing.assert_close(found.state, run.state, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": None}, "without a valid 'metrics'"),
        ({"history": None}, "without a valid 'history'"),
        ({"machine": "a PC"}, "without a valid 'machine'"),
        ({"checkpoint_sha256": 7}, "without a valid 'checkpoint_sha256'"),
        ({"checkpoint_sha256": "../../elsewhere"}, "without a valid 'checkpoint_sha256'"),
        ({"logits_sha256": "A" * 64}, "without a valid 'logits_sha256'"),
        ({"run_id": "digits-mlp-s0-0000000000"}, "the record of 'digits-mlp-s0-0000000000'"),
        ({"run_id": "../../elsewhere"}, "the record of '../../elsewhere'"),
        ({"format": 2}, "format 2 without a digest"),
        ({"format": 3}, "format 3"),
        ({"format": "1"}, "format '1'"),
        ({"format": True}, "format True"),
    ],
)
def test_a_record_of_a_format_that_cannot_be_read_says_what_to_do(changes, said, run):
    store = old_record(run, **changes)
    for ask in (lambda: store[CONFIG], lambda: store.train(CONFIG), store.table):
        with pytest.raises(CheckpointError) as caught:
            ask()
        assert said in str(caught.value)
        assert str(run.path) in str(caught.value)
        assert "run the command again: it trains this run anew" in str(caught.value)


def test_weights_are_read_from_the_folder_of_the_run_whatever_its_record_says(run, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.copy(run.path / "checkpoint.safetensors", outside)
    for name in ("path", "checkpoint", "checkpoint_sha256"):
        store = old_record(run, **{name: f"../../{outside.name}"})
        (run.path / "checkpoint.safetensors").rename(run.path / "away")
        with pytest.raises(CheckpointError):
            _ = store[CONFIG].state
        (run.path / "away").rename(run.path / "checkpoint.safetensors")
