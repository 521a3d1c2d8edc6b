"""Commands of a user who is mistaken: each ends with exit code 2 and one message, and leaves every file as it was."""

import os
import subprocess
import sys

import pytest
import torch
from checker import check_ending, check_refused_by_cli, listing, run_cli
from safetensors.torch import save_file

import wamlib
from wamlib import models
from wamlib.data import fashion_mnist

WORDS = {
    "nothing that exists": "mege",
    "an option that exists nowhere": "merge {a} {b} -o {out} --methd ties",
    "merge without an output": "merge {a} {b}",
    "merge without files": "merge -o {out}",
    # merge: files
    "merge a missing file": "merge {a} {files}/none.safetensors -o {out}",
    "merge a folder": "merge {a} {files} -o {out}",
    "merge a folder named like a file": "merge {a} {files}/folder.safetensors -o {out}",
    "merge a file with a name of zero": "merge {a} '' -o {out}",
    "merge a file with too long a name": "merge {a} " + 300 * "x" + ".safetensors -o {out}",
    "merge a device": "merge {a} /dev/null -o {out}",
    "merge other keys": "merge {a} {files}/keys.safetensors -o {out}",
    "merge other shapes": "merge {a} {files}/shape.safetensors -o {out}",
    "merge other dtypes": "merge {a} {files}/dtype.safetensors -o {out}",
    "merge NaN": "merge {a} {files}/nan.safetensors -o {out}",
    "merge infinity": "merge {files}/inf.safetensors {a} -o {out}",
    "merge NaN in the base": "merge {a} {b} -o {out} --method ties --density 0.5 --base {files}/nan.safetensors",
    "merge a missing base": "merge {a} {b} -o {out} --method task_arithmetic --base {files}/none.safetensors",
    "merge a base of other shapes": "merge {a} {b} -o {out} --method model_stock --base {files}/shape.safetensors",
    "merge a pickled module": "merge {a} {files}/module.pt -o {out}",
    # merge: the output
    "the output is an input": "merge {a} {b} -o {a}",
    "the output is an input in another spelling": "merge {a} {b} -o {files}/../{files_name}/b.safetensors",
    "the output is a link to an input": "merge {a} {b} -o {files}/link.safetensors",
    "the output is the base": "merge {a} {b} -o {base} --method task_arithmetic --base {base}",
    "the output is a folder": "merge {a} {b} -o {files}/folder.safetensors",
    "the output is in no folder": "merge {a} {b} -o {tmp}/no/out.safetensors",
    "the output is below a file": "merge {a} {b} -o {a}/out.safetensors",
    "the output has another suffix": "merge {a} {b} -o {tmp}/out.pt",
    "the output has no name": "merge {a} {b} -o ''",
    "the output has too long a name": "merge {a} {b} -o {tmp}/" + 300 * "x" + ".safetensors",
    "the output cannot be written": "merge {a} {b} -o /proc/out.safetensors",
    "the plan of an output in no folder": "merge {a} {b} -o {tmp}/no/out.safetensors --dry-run",
    # merge: settings
    "an unknown method": "merge {a} {b} -o {out} --method mean",
    "an empty method": "merge {a} {b} -o {out} --method ''",
    "too few weights": "merge {a} {b} -o {out} --weights 1",
    "too many weights": "merge {a} {b} -o {out} --weights 1,1,1",
    "weights that are words": "merge {a} {b} -o {out} --weights half,half",
    "empty weights": "merge {a} {b} -o {out} --weights ''",
    "a weight left out": "merge {a} {b} -o {out} --weights 1,",
    "weights that sum to 0": "merge {a} {b} -o {out} --weights 1,-1",
    "weights of 0": "merge {a} {b} -o {out} --weights 0,0",
    "a weight that is NaN": "merge {a} {b} -o {out} --weights 1,nan",
    "an infinite weight": "merge {a} {b} -o {out} --weights inf,1",
    "weights whose sum is infinite": "merge {a} {b} -o {out} --weights 1e308,1e308",
    "weights for ties": "merge {a} {b} -o {out} --method ties --density 0.5 --base {base} --weights 1,1",
    "interpolate without alpha": "merge {a} {b} -o {out} --method interpolate",
    "alpha that is a word": "merge {a} {b} -o {out} --method interpolate --alpha half",
    "alpha that is NaN": "merge {a} {b} -o {out} --method interpolate --alpha nan",
    "an infinite alpha": "merge {a} {b} -o {out} --method slerp --alpha=-inf",
    "alpha for three": "merge {a} {b} {a} -o {out} --method interpolate --alpha 0.5",
    "alpha for one": "merge {a} -o {out} --method slerp --alpha 0.5",
    "alpha for uniform": "merge {a} {b} -o {out} --alpha 0.5",
    "ties without a base": "merge {a} {b} -o {out} --method ties --density 0.5",
    "dare without a base": "merge {a} {b} -o {out} --method dare --density 0.5 --seed 1",
    "task arithmetic without a base": "merge {a} {b} -o {out} --method task_arithmetic",
    "model stock without a base": "merge {a} {b} -o {out} --method model_stock",
    "uniform with a base": "merge {a} {b} -o {out} --base {base}",
    "ties without a density": "merge {a} {b} -o {out} --method ties --base {base}",
    "density above 1": "merge {a} {b} -o {out} --method ties --base {base} --density 1.1",
    "negative density": "merge {a} {b} -o {out} --method ties --base {base} --density=-0.1",
    "density that is NaN": "merge {a} {b} -o {out} --method ties --base {base} --density nan",
    "density that is a word": "merge {a} {b} -o {out} --method ties --base {base} --density most",
    "dare of density 0": "merge {a} {b} -o {out} --method dare --base {base} --density 0 --seed 1",
    "dare without a seed": "merge {a} {b} -o {out} --method dare --base {base} --density 0.5",
    "a seed with a point": "merge {a} {b} -o {out} --method dare --base {base} --density 0.5 --seed 1.5",
    "a seed for ties": "merge {a} {b} -o {out} --method ties --base {base} --density 0.5 --seed 1",
    "an unknown scope": "merge {a} {b} -o {out} --method ties --base {base} --density 0.5 --scope layer",
    "an empty scope": "merge {a} {b} -o {out} --method slerp --alpha 0.5 --scope ''",
    "a scale that is NaN": "merge {a} {b} -o {out} --method task_arithmetic --base {base} --scale nan",
    "an infinite scale": "merge {a} {b} -o {out} --method task_arithmetic --base {base} --scale inf",
    "a scale beyond the dtype": "merge {a} {b} -o {out} --method task_arithmetic --base {base} --scale 1e300",
    "an alpha beyond the dtype": "merge {a} {b} -o {out} --method interpolate --alpha 1e300",
    "model stock of one": "merge {a} -o {out} --method model_stock --base {base}",
    # advise
    "advise without a model": "advise {m0} {m1} --data digits",
    "advise without data": "advise {m0} {m1} --model mlp",
    "advise on one member": "advise {m0} --model mlp --data digits",
    "advise on a missing file": "advise {m0} {files}/none.pt --model mlp --data digits",
    "advise on a folder without a run": "advise {m0} {files} --model mlp --data digits",
    "advise on an empty name": "advise {m0} '' --model mlp --data digits",
    "advise on members of another model": "advise {m0} {m1} --model cnn --data digits",
    "advise on members of no model": "advise {a} {b} --model mlp --data digits",
    "advise on NaN": "advise {m0} {files}/m_nan.safetensors --model mlp --data digits",
    "advise for an unknown model": "advise {m0} {m1} --model lenet --data digits",
    "advise for an empty model": "advise {m0} {m1} --model '' --data digits",
    "advise for a width that is none": "advise {m0} {m1} --model mlp-x0 --data digits",
    "advise for a missing module": "advise {m0} {m1} --model nowhere:build --data digits",
    "advise for a missing function": "advise {m0} {m1} --model json:build --data digits",
    "advise for a function that needs arguments": "advise {m0} {m1} --model json:dumps --data digits",
    "advise for a function that returns text": "advise {m0} {m1} --model platform:node --data digits",
    "advise for a colon": "advise {m0} {m1} --model : --data digits",
    "advise for a relative module": "advise {m0} {m1} --model .x:y --data digits",
    "advise on unknown data": "advise {m0} {m1} --model mlp --data digit",
    "advise on data that are not here": "advise {m0} {m1} --model mlp --data cifar10",
    "advise on a missing folder": "advise {m0} {m1} --model mlp --data folder:{tmp}/none",
    "advise on an empty folder name": "advise {m0} {m1} --model mlp --data folder:",
    "advise on an empty name of data": "advise {m0} {m1} --model mlp --data ''",
    "no budget": "advise {m0} {m1} --model mlp --data digits --budget 0",
    "a negative budget": "advise {m0} {m1} --model mlp --data digits --budget=-1",
    "a budget that is a word": "advise {m0} {m1} --model mlp --data digits --budget all",
    "one image": "advise {m0} {m1} --model mlp --data digits --n-images 1",
    "negative images": "advise {m0} {m1} --model mlp --data digits --n-images=-3",
    "a mean of three channels": "advise {m0} {m1} --model mlp --data digits --mean 0.1,0.2,0.3",
    "a mean that is a word": "advise {m0} {m1} --model mlp --data digits --mean dark",
    "a mean that is NaN": "advise {m0} {m1} --model mlp --data digits --mean nan",
    "an empty mean": "advise {m0} {m1} --model mlp --data digits --mean ''",
    "a deviation of 0": "advise {m0} {m1} --model mlp --data digits --std 0",
    "a negative deviation": "advise {m0} {m1} --model mlp --data digits --std=-1",
    "advise on a device that is none": "advise {m0} {m1} --model mlp --data digits --device gpu",
    "advise on a device without values": "advise {m0} {m1} --model mlp --data digits --device meta",
    "advise on an empty device": "advise {m0} {m1} --model mlp --data digits --device ''",
    "advise on the hundredth GPU": "advise {m0} {m1} --model mlp --data digits --device cuda:99",
    # sweep
    "sweep on a device that is none": "sweep --params {files}/good.yml --device gpu",
    "sweep on a device without values": "sweep --params {files}/good.yml --device meta",
    "sweep on the hundredth GPU": "sweep --params {files}/good.yml --device cuda:99",
    "no members together": "sweep --params {files}/good.yml --together 0",
    "negative members together": "sweep --params {files}/good.yml --together=-1",
    "members together in words": "sweep --params {files}/good.yml --together all",
    "no workers": "sweep --params {files}/good.yml --workers 0",
    "a share past the last": "sweep --params {files}/good.yml --shard 3/2",
    "share 0": "sweep --params {files}/good.yml --shard 0/2",
    "a share without a number": "sweep --params {files}/good.yml --shard 1",
    "a share of words": "sweep --params {files}/good.yml --shard one/two",
    "a share with a sign": "sweep --params {files}/good.yml --shard=-1/2",
    "an empty share": "sweep --params {files}/good.yml --shard ''",
    "no file of parameters": "sweep --params {tmp}/none.yml",
    "a folder of parameters": "sweep --params {files}",
    "a cluster without an address": "sweep --params {files}/good.yml --dask ''",
    "a cluster at no address": "sweep --params {files}/good.yml --dask nowhere",
    "fewer than no GPUs": "sweep --params {files}/good.yml --gpus=-1",
    "GPUs that are NaN": "sweep --params {files}/good.yml --gpus nan",
    "GPUs of no cluster": "sweep --params {files}/good.yml --gpus 1",
    "a store without a name": "sweep --params {files}/good.yml --store ''",
    "a store that nothing reads": "sweep --params {files}/good.yml --store nowhere://runs",
    # fetch and runs
    "fetch nothing": "fetch",
    "fetch an unknown name": "fetch imagenet --root {tmp}/raw",
    "fetch an empty name": "fetch '' --root {tmp}/raw",
    "fetch a missing folder": "fetch folder:{tmp}/none --root {tmp}/raw",
    "fetch to a file": "fetch digits --root {a}",
    "fetch below a file": "fetch digits --root {a}/raw",
    "runs with an argument": "runs all",
    "runs of a store without a name": "runs --store ''",
    "runs of a store that nothing reads": "runs --store nowhere://runs",
    "runs of a store that is a file": "runs --store {a}",
    "failed runs of a store that is a file": "runs --failed --store {a}",
    "runs with a damaged record": "runs --store {files}/store",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints that can be merged, some that cannot, and members of a model on digits."""
    folder = tmp_path_factory.mktemp("files")
    state = {"layer.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(3)}
    weight = state["layer.weight"]
    changes = {"a": weight + 1, "b": weight + 3, "base": weight, "nan": weight / 0, "inf": weight + torch.inf}
    changes |= {"shape": torch.zeros(3, 2), "dtype": weight.half()}
    for name, changed in changes.items():
        save_file({**state, "layer.weight": changed}, folder / f"{name}.safetensors")
    save_file({**state, "other": torch.zeros(1)}, folder / "keys.safetensors")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    (folder / "link.safetensors").symlink_to("b.safetensors")
    (folder / "folder.safetensors").mkdir()
    for seed in (0, 1):
        save_file(models.build("mlp", 10, 1, (8, 8), seed=seed).state_dict(), folder / f"m{seed}.safetensors")
    broken = models.build("mlp", 10, 1, (8, 8), seed=0).state_dict()
    next(iter(broken.values()))[0] = torch.nan
    save_file(broken, folder / "m_nan.safetensors")
    (folder / "store" / "digits-mlp").mkdir(parents=True)
    (folder / "store" / "digits-mlp" / "record.json").write_text("{}")
    (folder / "good.yml").write_text("{dataset: digits, datasets: [digits], pretrained_datasets: []}")
    return folder


@pytest.fixture
def command(files, tmp_path, monkeypatch):
    """A function that fills in a command's paths."""

    def trained(*_, **__):
        raise RuntimeError("the sweep began")

    monkeypatch.setattr(wamlib.sweeps, "run", trained)
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    names = {name: files / f"{name}.safetensors" for name in ("a", "b", "base", "m0", "m1")}
    return lambda line: line.format(
        **names, files=files, files_name=files.name, tmp=tmp_path, out=tmp_path / "out.safetensors"
    )


@pytest.mark.parametrize("line", WORDS.values(), ids=WORDS)
def test_command(line, command, files, tmp_path, monkeypatch):
    check_refused_by_cli(command(line), monkeypatch, files, tmp_path)


GOOD = {
    "uniform": "merge {a} {b} -o {out}",
    "weights": "merge {a} {b} -o {out} --weights 0.5,-0.2",
    "the output replaces an old one": "merge {a} {b} -o {files}/old.safetensors",
    "ties": "merge {a} {b} -o {out} --method ties --base {base} --density 0 --scope tensor",
    "dare": "merge {a} -o {out} --method dare --base {base} --density 1 --seed 3",
    "alpha outside": "merge {a} {b} -o {out} --method interpolate --alpha 1.5",
    "advise": "advise {m0} {m1} --model mlp --data digits --mean 0.5 --std 0.2 --device cpu",
    "fetch": "fetch digits",
    "runs": "runs",
}


@pytest.mark.parametrize("line", GOOD.values(), ids=GOOD)
def test_the_same_commands_without_the_mistake_end_well(line, command, files, tmp_path, monkeypatch):
    code, _, err = run_cli(command(line), monkeypatch)
    assert (code, "Error" in err) == (0, False), err


def test_a_sweep_without_a_mistake_begins(command, monkeypatch):
    code, _, err = run_cli(command("sweep --params {files}/good.yml --device cpu --shard 1/2"), monkeypatch)
    assert code == 1
    assert "the sweep began" in err


PARAMS = {
    "broken YAML": b"a: [1",
    "a list": b"- 1",
    "a word": b"n_train",
    "a number": b"3",
    "false": b"false",
    "an empty list": b"[]",
    "bytes that are no text": b"n_train: \xff\xfe",
    "a zero byte": b"n_train: \x00",
    "tabs": b"n_train:\t\t- 3\n\t- 4",
    "a name set twice": b"n_train: 3\nepochs: 2\nn_train: 4",
    "two documents": b"n_train: 3\n---\nepochs: 2",
    "code": b"n_train: !!python/object/apply:os.getcwd []",
    "a tag that is wrong": b"n_train: !!bool maybe",
    "a time that is none": b"n_train: !!timestamp soon",
    "a mapping that is a list": b"!!map [1, 2]",
    "a list as a name": b"? [n_train]\n: 3",
    "an alias to nothing": b"n_train: *n",
    "brackets without end": b"[" * 5000,
    "a list of itself": b"models: &m [*m]",
    "aliases that multiply": b"models: &a [x, x, x, x, x, x, x, x, x]\n"
    + b"".join(b"p%d: &%c [%s]\n" % (i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(8)),
    "a misspelt name": b"n_trian: 3",
    "a wrong type": b"n_train: many",
    "no epochs": b"epochs: 0",
    "NaN": b"widths: [.nan]",
    "an unknown model": b"models: [lenet]",
    "an unknown data set": b"dataset: mnits",
    "a trunk as long as all": b"{dataset: digits, datasets: [digits], epochs: 2, trunk_epochs: 2}",
}


@pytest.mark.parametrize("content", PARAMS.values(), ids=PARAMS)
def test_file_of_parameters(content, command, tmp_path, monkeypatch):
    (tmp_path / "params.yml").write_bytes(content)
    check_refused_by_cli(command("sweep --params {tmp}/params.yml"), monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "merge {a} {files}/none.safetensors -o {out}",
        "merge {a} {b} -o {a}",
        "merge {a} {b} -o {out} --weights 1,nan",
        "advise {m0} {m1} --model lenet --data digits",
        "sweep --params {tmp}/params.yml",
        "fetch imagenet",
        "merge {a} {b}",
    ],
)
def test_command_as_a_process_of_its_own(line, command, files, tmp_path):
    (tmp_path / "params.yml").write_bytes(PARAMS["a misspelt name"])
    before = listing(files, tmp_path)
    words = command(line).split()
    done = subprocess.run([sys.executable, "-m", "wamlib.cli", *words], capture_output=True, text=True, env=os.environ)
    check_ending(done.returncode, done.stdout, done.stderr.lstrip())
    assert listing(files, tmp_path) == before


def test_every_command_and_every_method_has_rows():
    from wamlib.cli import app
    from wamlib.merge.files import METHODS

    lines = " \n".join(WORDS.values()) + " "
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert [name for name in commands if f"{name} " not in lines] == []
    assert [name for name in METHODS if name != "uniform" and f"--method {name} " not in lines] == []
