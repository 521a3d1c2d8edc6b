"""wamlib advise: text or JSON on standard output, and a user's mistake ends with one message and exit code 2."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from wamlib import data, models, sweeps
from wamlib.advise import OPTIONS, build_model, open_selection, read_member
from wamlib.cli import main

BUILDER = """
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))

def nothing():
    return "a network"

def broken():
    raise KeyError("weights")
"""


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    """Members of digits in files of both kinds, others that do not fit, and a module that builds networks."""
    folder = tmp_path_factory.mktemp("advise")
    settings = {"dataset": "digits", "n_train": 200, "epochs": 12, "trunk_epochs": 4, "batch_size": 32}
    configs = sweeps.pool("shared start", model="mlp", n_members=3, **settings)
    states = [store.train(config, device="cpu").state for config in configs]
    save_file(states[0], folder / "a.safetensors")
    save_file(states[1], folder / "b.safetensors")
    torch.save({f"module.{key}": tensor for key, tensor in states[2].items()}, folder / "c.pt")
    save_file({"weight": torch.zeros(3)}, folder / "other.safetensors")
    save_file({key: tensor / 0 for key, tensor in states[0].items()}, folder / "nan.safetensors")
    (folder / "text.safetensors").write_text("not a checkpoint, but long enough for a header")
    (folder / "builders_of_a_user.py").write_text(BUILDER)
    return folder


def run(words, monkeypatch, capsys, folder):
    """Run the command in this process, because starting one takes seconds; return (exit code, output, errors)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "argv", ["wamlib", "advise", *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    return exit_.value.code or 0, said.out, said.err


ASK = ["a.safetensors", "b.safetensors", "c.pt", "--model", "mlp", "--data", "digits", "--device", "cpu"]


def test_text_names_the_members_and_the_recommendation(monkeypatch, capsys, folder):
    code, out, err = run(ASK, monkeypatch, capsys, folder)
    assert code == 0
    assert all(name in out for name in ("a.safetensors", "b.safetensors", "c.pt", "67 selection images"))
    assert any(f"Recommended, at 1 forward pass: {option}" in out for option in OPTIONS)
    assert "Next: " in out
    assert "stripped the prefix 'module.'" in err


def test_json_is_all_that_stands_on_standard_output(monkeypatch, capsys, folder):
    code, out, _ = run([*ASK, "--json", "--budget", "3", "--n-images", "40"], monkeypatch, capsys, folder)
    assert code == 0
    said = json.loads(out)
    assert said["files"] == ["a.safetensors", "b.safetensors", "c.pt"]
    assert (said["budget"], said["n_images"], said["n_members"]) == (3, 40, 3)
    assert said["recommendation"] in OPTIONS
    dataset = open_selection("digits", 40)
    model = build_model("mlp", dataset)
    model.load_state_dict(read_member(folder / "a.safetensors"))
    from wamlib.evaluate import accuracy, predict_logits

    expected = accuracy(predict_logits(model, dataset.selection), dataset.selection.labels)
    assert said["members"][0]["accuracy"] == pytest.approx(expected)
    assert expected > 30


def test_a_network_of_ones_own_and_another_normalisation(monkeypatch, capsys, folder):
    monkeypatch.syspath_prepend(folder)
    from builders_of_a_user import network

    for seed in range(2):
        torch.manual_seed(seed)
        save_file(network().state_dict(), folder / f"own{seed}.safetensors")
    words = ["own0.safetensors", "own1.safetensors", "--model", "builders_of_a_user:network", "--data", "digits"]
    code, out, _ = run([*words, "--json"], monkeypatch, capsys, folder)
    assert code == 0
    assert json.loads(out)["n_members"] == 2
    answers = [
        run([*ASK, "--json", *more], monkeypatch, capsys, folder) for more in ([], ["--mean", "0.9", "--std", "2"])
    ]
    own, other = (json.loads(out)["members"] for _, out, _ in answers)
    assert [row["norm"] for row in own] == [row["norm"] for row in other]
    assert own[0]["accuracy"] > other[0]["accuracy"] + 10


def test_normalisation_is_that_of_pixels_from_0_to_1():
    split = open_selection("digits", mean="0.5", std="0.25").selection
    plain = data.load("digits").selection
    torch.testing.assert_close(split.normalize(split.images), (plain.images / 255 - 0.5) / 0.25)


@pytest.fixture
def two_runs(store):
    settings = {"dataset": "digits", "n_train": 200, "epochs": 1}
    configs = sweeps.pool("independent init", model="mlp", n_members=2, **settings)
    return [store.train(config, device="cpu") for config in configs]


def test_members_are_found_by_the_id_of_their_run(two_runs, store, monkeypatch, tmp_path):
    monkeypatch.delenv("WAMLIB_RUNS", raising=False)
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    (tmp_path / "runs").symlink_to(store.root)
    run = two_runs[0]
    for name in (run.config.run_id, run.path):
        state = read_member(name)
        assert all(torch.equal(state[key], tensor) for key, tensor in run.state.items())
    models.build("mlp", 10, 1, (8, 8)).load_state_dict(state)


def test_runs_are_looked_for_where_their_store_is_and_nowhere_else(
    two_runs, store, monkeypatch, capsys, tmp_path, folder
):
    words = [*(run.config.run_id for run in two_runs), "--model", "mlp", "--data", "digits", "--json"]
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    monkeypatch.setenv("WAMLIB_RUNS", str(store.root))
    code, out, err = run(words, monkeypatch, capsys, folder)
    assert code == 0, err
    assert json.loads(out)["n_members"] == 2
    # The twin: the runs lie in the folder of runs below WAMLIB_HOME, but the store is elsewhere.
    (tmp_path / "runs").symlink_to(store.root)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("WAMLIB_RUNS", str(elsewhere))
    code, _, err = run(words, monkeypatch, capsys, folder)
    assert code == 2
    assert f"no such file, and no run of that id in {elsewhere}" in err


def test_a_store_of_objects_is_said_to_be_no_folder(monkeypatch, capsys, folder):
    monkeypatch.setenv("WAMLIB_RUNS", "memory://bucket/runs")
    code, _, err = run(["digits-mlp-s0-0000000000", *ASK[1:]], monkeypatch, capsys, folder)
    assert code == 2
    assert "memory://bucket/runs is no folder" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (ASK[:1] + ASK[3:], "at least two"),
        (["a.safetensors", "none.safetensors", *ASK[3:]], "none.safetensors"),
        (["a.safetensors", "digits-mlp-s0-0000000000", *ASK[3:]], "the id of a finished run"),
        (["a.safetensors", "text.safetensors", *ASK[3:]], "text.safetensors"),
        (["a.safetensors", "other.safetensors", *ASK[3:]], "member 1"),
        (["a.safetensors", "nan.safetensors", *ASK[3:]], "NaN or infinite"),
        ([*ASK, "--model", "resnet8"], "do not fit"),
        ([*ASK, "--model", "mpl"], "'mpl'"),
        ([*ASK, "--model", "no_such_module:network"], "no_such_module"),
        ([*ASK, "--model", "builders_of_a_user:missing"], "missing"),
        ([*ASK, "--model", "builders_of_a_user:nothing"], "a str"),
        ([*ASK, "--model", "builders_of_a_user:broken"], "KeyError"),
        ([*ASK, "--data", "cats"], "'cats'"),
        ([*ASK, "--data", "folder:nope"], "nope"),
        ([*ASK, "--budget", "0"], "forward passes"),
        ([*ASK, "--n-images", "1"], "2 or more"),
        ([*ASK, "--mean", "a"], "--mean"),
        ([*ASK, "--mean", "0.1,0.2"], "1 number(s)"),
        ([*ASK, "--std", "0"], "--std"),
        ([*ASK, "--device", "abacus"], "'abacus'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_end_with_one_message_and_code_2(words, said, monkeypatch, capsys, folder):
    code, out, err = run([*words, "--json"], monkeypatch, capsys, folder)
    assert code == 2
    assert out == ""
    assert said in err
    assert "wanted" in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if "wanted" in line]) == 1
