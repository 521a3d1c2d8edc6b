"""The command line: a user's mistake ends with one message and exit code 2, never a traceback."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from wamlib.cli import main

SMALL = """
dataset: digits
datasets: [digits, cifar10]
template_models: [mlp]
n_linear: 2
n_train: 100
models: [mlp]
n_members: 1
n_replicas: 1
epochs: 2
trunk_epochs: 1
linear_epochs: 1
recipe_models: []
wide_models: []
pool_models: [mlp]
n_train_pools: 100
n_eval_pools: 100
arm_models: []
protocol_models: []
many_models: []
flat_models: []
pretrained_datasets: []
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


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Return a function that gives the exit code and what is said of a command, in this process: one costs seconds."""

    def run(*words):
        for name, value in {"WAMLIB_HOME": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "160"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["wamlib", *map(str, words)])
        with pytest.raises(SystemExit) as end:  # a traceback would come out of main as the error itself
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_shares_of_a_sweep_add_up_to_it(tmp_path):
    (tmp_path / "params.yml").write_text(SMALL.replace("cifar10", "digits"))
    sweep = ("sweep", "--params", tmp_path / "params.yml")
    runs = [len(list((tmp_path / "runs").glob("*/record.json")))]
    for words in (["--shard", "1/2"], ["--shard", "2/2"], []):
        done = wamlib(*sweep, *words, home=tmp_path)
        assert done.returncode == 0, done.stderr
        runs.append(len(list((tmp_path / "runs").glob("*/record.json"))))
    assert runs[0] == 0 < runs[1] < runs[2] == runs[3]
    wrong = wamlib(*sweep, "--shard", "3/2", home=tmp_path)
    assert wrong.returncode == 2
    assert "got '3/2', wanted i/n" in wrong.stderr


@pytest.mark.slow
def test_sweep_trains_and_runs_lists(tmp_path):
    (tmp_path / "params.yml").write_text(SMALL)
    first = wamlib("sweep", "--params", tmp_path / "params.yml", home=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "training (0 of" in first.stderr
    assert "left out: CIFAR-10, which is not on this machine (wamlib fetch cifar10)" in first.stderr
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
        (["sweep", "--params", "no-list.yml"], "wanted a list"),
        (["sweep", "--params", "word.yml"], "wanted a list"),
        (["fetch", "imagenet"], "'imagenet'"),
        (["fetch", "folder:nope"], "no such folder"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(words, said, command, tmp_path):
    (tmp_path / "broken.yml").write_text("a: [1")
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "unknown-data.yml").write_text(
        "{dataset: fashion_mnist, datasets: [], models: [mlp], n_members: 1, n_replicas: 1}"
    )
    (tmp_path / "no-list.yml").write_text("{datasets: null}")
    (tmp_path / "word.yml").write_text("{datasets: digits}")
    (tmp_path / "typo.yml").write_text("{n_trian: 100}")
    (tmp_path / "bad-value.yml").write_text("{epochs: 0}")
    words = [tmp_path / word if word.endswith(".yml") else word for word in words]
    code, _, error = command(*words)
    assert code == 2
    assert said in error
    assert "wanted" in error


def test_unknown_commands_are_refused(tmp_path):
    done = wamlib("mege", home=tmp_path)  # a process of its own
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# merge


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints that can be merged, and some that cannot."""
    folder = tmp_path_factory.mktemp("files")
    state = {"layer.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(3)}
    for name, shift in (("base", 0.0), ("a", 1.0), ("b", 3.0)):
        save_file({**state, "layer.weight": state["layer.weight"] + shift}, folder / f"{name}.safetensors")
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, folder / "wrapped.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    save_file({**state, "layer.weight": torch.zeros(3, 2)}, folder / "shape.safetensors")
    save_file({**state, "layer.weight": state["layer.weight"].half()}, folder / "dtype.safetensors")
    save_file({**state, "other": torch.zeros(1)}, folder / "keys.safetensors")
    save_file({**state, "layer.weight": state["layer.weight"] / 0}, folder / "nan.safetensors")
    (folder / "short.safetensors").write_bytes((folder / "a.safetensors").read_bytes()[:-1])
    (folder / "text.safetensors").write_text("not a checkpoint, but long enough for a header")
    return folder


def test_merge_writes_what_the_library_merges(files, command, tmp_path):
    out = tmp_path / "soup.safetensors"
    code, said, error = command("merge", files / "a.safetensors", files / "b.safetensors", "-o", out)
    assert code == 0, error
    assert said.strip().endswith("uniform of 2 files, 2 tensors, 0.0 MB")
    assert load_file(out)["layer.weight"][0].tolist() == [2.0, 3.0, 4.0]
    words = ["--method", "ties", "--density", "0.5", "--base", files / "base.safetensors", "--scope", "tensor"]
    code, _, error = command("merge", files / "a.safetensors", files / "wrapped.pt", "-o", out, *words)
    assert code == 0, error
    assert "Notice: stripped the prefix 'module.'" in error
    assert load_file(out)["layer.weight"][0].tolist() == [1.0, 2.0, 3.0]


def test_a_dry_run_prints_keys_shapes_dtypes_and_the_plan(files, command, tmp_path):
    words = [files / "a.safetensors", files / "b.safetensors", "-o", tmp_path / "out.safetensors", "--dry-run"]
    code, output, error = command("merge", *words, "--weights", "0.25,0.75")
    assert code == 0, error
    said = ["layer.weight", "float32", "2×3", "uniform", "steps", "int64", "from the first member"]
    said += ["weights [0.25, 0.75]", "nothing was written", str(files / "b.safetensors")]
    assert [words for words in said if words not in output] == []
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "none"], "none.safetensors: got No such file"),
        (["a", "short"], "short.safetensors"),
        (["a", "text"], "text.safetensors"),
        (["a", "module.pt"], "pickled module"),
        (["a", "shape"], "'layer.weight'"),
        (["a", "dtype"], "torch.float16"),
        (["a", "keys"], "'other'"),
        (["a", "nan"], "NaN or infinite"),
        (["a", "b", "-o", "a"], "a file that is no input"),
        (["a", "b", "-o", "nowhere/out"], "no folder"),
        (["a", "b", "-o", "out.bin"], r"ends in .safetensors"),
        (["a", "b", "--weights", "1;2"], "'1;2'"),
        (["a", "b", "--weights", "1,-1"], "sum is 0"),
        (["a", "b", "--method", "mean"], "'mean'"),
        (["a", "b", "--method", "ties", "--density", "0.2"], "no base"),
        (["a", "b", "--method", "dare", "--density", "0.2", "--base", "base"], "no 'seed'"),
        (["a", "b", "--density", "0.2"], "'density'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_mistakes_of_a_merge_end_with_one_message_and_code_2(words, said, files, command, tmp_path):
    def path(word, folder):
        return folder / (word if "." in word else f"{word}.safetensors")

    words, out = list(words), tmp_path / "out.safetensors"
    if "-o" in words:
        at = words.index("-o")
        word = words[at + 1]
        out = path(word, files if word == "a" else tmp_path)
        del words[at : at + 2]
    before = sorted(tmp_path.rglob("*"))
    plain = [
        w if w.startswith("--") or (words[i - 1].startswith("--") and w != "base") else path(w, files)
        for i, w in enumerate(words)
    ]
    code, _, error = command("merge", *plain, "-o", out)
    assert code == 2
    assert said in error
    assert "wanted" in error
    assert sorted(tmp_path.rglob("*")) == before
