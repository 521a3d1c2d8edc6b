"""The command line: a user's mistake ends with one message and exit code 2, never a traceback."""

import os
import subprocess
import sys

import pytest

SMALL = """
dataset: digits
n_train: 100
models: [mlp]
n_members: 1
n_replicas: 1
epochs: 2
trunk_epochs: 1
linear_epochs: 1
"""


def wamlib(*words, home):
    environment = {**os.environ, "WAMLIB_HOME": str(home), "NO_COLOR": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, "-m", "wamlib.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.slow
def test_sweep_trains_and_runs_lists(tmp_path):
    (tmp_path / "params.yml").write_text(SMALL)
    first = wamlib("sweep", "--params", tmp_path / "params.yml", home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "training (0 of" in first.stderr
    again = wamlib("sweep", "--params", tmp_path / "params.yml", home=tmp_path)
    assert again.returncode == 0
    assert "training" not in again.stderr  # nothing was missing
    listed = wamlib("runs", home=tmp_path).stdout
    assert "digits-mlp" in listed
    assert f"{len(list(tmp_path.glob('runs/*/record.json')))} finished runs" in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "--params", "nope.yml"], "nope.yml"),
        (["sweep", "--params", "broken.yml"], "broken.yml"),
        (["sweep", "--params", "list.yml"], "not a mapping"),
        (["sweep", "--params", "unknown-data.yml"], "fashion_mnist"),
        (["sweep", "--params", "bad-value.yml"], "epochs"),
        (["sweep", "--params", "typo.yml"], "'n_trian'"),
        (["fetch", "imagenet"], "'imagenet'"),
        (["fetch", "folder:nope"], "no such folder"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(words, said, tmp_path):
    (tmp_path / "broken.yml").write_text("a: [1")
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "unknown-data.yml").write_text("{dataset: fashion_mnist, models: [mlp], n_members: 1, n_replicas: 1}")
    (tmp_path / "typo.yml").write_text("{n_trian: 100}")
    (tmp_path / "bad-value.yml").write_text("{epochs: 0}")
    words = [tmp_path / word if word.endswith(".yml") else word for word in words]
    done = wamlib(*words, home=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "wanted" in done.stderr


def test_unknown_commands_are_refused(tmp_path):
    done = wamlib("mege", home=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
