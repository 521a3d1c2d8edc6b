"""The run store: nothing trained twice, nothing half, nothing taken on trust."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from conftest import tiny

from wamlib import runs
from wamlib.errors import CheckpointError, RunNotFoundError
from wamlib.runs import RunStore


@pytest.fixture
def fresh(tmp_path):
    return RunStore(tmp_path / "runs")


def test_record_says_all_that_is_needed_to_judge_a_run(store):
    record = store.train(tiny(epochs=10)).record
    assert record["status"] == "done"
    assert record["config"]["model"] == "mlp"
    assert set(record["metrics"]) == {"selection", "test"}
    assert record["metrics"]["test"]["accuracy"] > 30
    assert record["split_hash"] == store.dataset(tiny()).split_hash
    assert (
        record["versions"]["torch"] == torch.__version__.split("+")[0]
        or record["versions"]["torch"] == torch.__version__
    )
    assert {"device", "cpu", "threads", "tf32_cudnn"} <= set(record["machine"])
    assert set(record["code"]) == {"commit", "dirty"}
    assert len(record["history"]) == 10


def test_a_finished_run_is_not_trained_again(fresh, monkeypatch):
    first = fresh.train(tiny())
    monkeypatch.setattr(runs, "train", lambda *args, **kwargs: pytest.fail("trained again"))
    second = fresh.train(tiny())
    assert second.record == first.record


def test_two_processes_train_a_run_once(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from conftest import tiny; from wamlib.runs import RunStore\n"
        "print(RunStore(sys.argv[1]).train(tiny(model='cnn', epochs=3)).record['finished'], flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), os.path.dirname(__file__)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert answers[0] == answers[1] != ""  # the same training, to the second


def test_weights_and_logits_come_back_as_they_were(fresh):
    from wamlib import evaluate, models

    run = fresh.train(tiny(model="resnet8"))
    dataset = fresh.dataset(run.config)
    model = models.build("resnet8", 10, 1, (8, 8))
    model.load_state_dict(run.state)
    assert list(run.state) == list(model.state_dict())  # in the order of the forward pass, not by name
    assert list(run.state) != sorted(run.state)
    torch.testing.assert_close(evaluate.predict_logits(model, dataset.test), run.logits["test"], rtol=1e-5, atol=1e-5)
    assert not (run.path / runs.RESUME).exists()


def test_a_start_is_trained_first_and_shared(fresh):
    trunk = tiny(epochs=1)
    a, b = (fresh.train(tiny(start=trunk, init_seed=None, seed=seed)) for seed in (1, 2))
    assert trunk in fresh
    assert a.record["config"]["start"] == b.record["config"]["start"] == trunk.to_dict()
    assert len(fresh.table()) == 3


def test_a_missing_run_says_how_to_get_it(fresh):
    with pytest.raises(RunNotFoundError, match="make sweep"):
        fresh[tiny()]


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("name", [f"{runs.CHECKPOINT}.safetensors", f"{runs.LOGITS}.safetensors"])
@pytest.mark.parametrize("damage", [flip_last_byte, lambda p: p.write_bytes(p.read_bytes()[:-8]), lambda p: p.unlink()])
def test_damaged_weights_are_not_loaded(fresh, name, damage):
    run = fresh.train(tiny(epochs=1))
    damage(run.path / name)
    with pytest.raises(CheckpointError, match="Delete the folder") as caught:
        _ = fresh[run.config].state, fresh[run.config].logits
    assert str(run.path / name) in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run_id": 1}', "\x00"])
def test_a_damaged_record_is_an_error_that_says_what_to_do(fresh, content):
    run = fresh.train(tiny(epochs=1))
    (run.path / runs.RECORD).write_text(content)
    for ask in (lambda: fresh[run.config], fresh.table):
        with pytest.raises(CheckpointError, match="Delete the folder"):
            ask()


def test_after_the_folder_is_deleted_the_run_is_trained_anew(fresh):
    import shutil

    run = fresh.train(tiny(epochs=1))
    state = run.state
    shutil.rmtree(run.path)
    torch.testing.assert_close(fresh.train(tiny(epochs=1)).state, state, rtol=0, atol=0)


def test_record_is_written_last(fresh, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "encode_record", stop)
        with pytest.raises(KeyboardInterrupt):
            fresh.train(tiny(epochs=1))
    assert tiny(epochs=1) not in fresh  # weights are there, but the run does not count
    assert fresh.train(tiny(epochs=1)).record["status"] == "done"


def test_table_has_a_row_per_run(store):
    store.train(tiny())
    table = store.table()
    assert len(table) == len(list(store.root.glob("*/record.json")))
    assert {"run_id", "model", "test_accuracy", "seconds"} <= set(table.columns)


def test_shuffled_labels_leave_nothing_to_learn(store):
    true, shuffled = (store.train(tiny(epochs=10, shuffle_labels=flag)) for flag in (False, True))
    assert true.record["metrics"]["test"]["accuracy"] > 60
    assert shuffled.record["metrics"]["test"]["accuracy"] < 30


def test_records_are_plain_json_without_paths_of_the_machine(store):
    text = json.dumps(store.train(tiny()).record)
    assert os.path.expanduser("~") not in text
    assert str(store.root) not in text
    assert time.strftime("%Y") in text
