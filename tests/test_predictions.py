"""Predictions that are kept: found by what they follow from, and never in place of others."""

import contextlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from helpers import eval_logits, random_dataset, untrained
from safetensors.torch import load, load_file, save_file

from wamlib import models, predictions
from wamlib.pools import Pool
from wamlib.predictions import Predictions, fingerprint

# Fingerprints

STATE = {"a": torch.tensor([1.0, 2.0]), "b": torch.arange(6.0).reshape(2, 3)}


def test_a_fingerprint_depends_on_content_and_neither_on_order_nor_on_layout():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    same = [
        (STATE, dict(reversed(STATE.items()))),
        (STATE, {key: tensor.clone() for key, tensor in STATE.items()}),
        ({"x": images}, {"x": images.to(memory_format=torch.channels_last)}),
        ({"x": images[:, :, ::2]}, {"x": images[:, :, ::2].contiguous()}),
    ]
    assert all(fingerprint(a) == fingerprint(b) for a, b in same)


@pytest.mark.parametrize(
    "other",
    [
        {"a": STATE["a"], "c": STATE["b"]},  # a name
        {"a": STATE["a"].view(torch.int32), "b": STATE["b"]},  # a dtype, the same bytes
        {"a": STATE["a"], "b": STATE["b"].reshape(3, 2)},  # a shape, the same bytes
        {"a": torch.tensor([1.0, 2.0 + 2.0**-22]), "b": STATE["b"]},  # the last bit
        {"a": STATE["b"].flatten()[1:3], "b": torch.cat([torch.zeros(1), STATE["b"].flatten()[1:]]).reshape(1, 6)},
        {"a": STATE["a"]},
        {**STATE, "d": torch.tensor(0)},
        {**STATE, "d": torch.zeros(0)},
        {},
    ],
)
def test_another_content_has_another_fingerprint(other):
    assert fingerprint(other) != fingerprint(STATE)


def test_where_one_tensor_ends_and_the_next_begins_counts():
    parts = torch.arange(4, dtype=torch.uint8)
    cuts = [fingerprint({"a": parts[:n], "b": parts[n:]}) for n in range(5)]
    assert len(set(cuts)) == 5
    assert fingerprint({"x": torch.tensor(0.0)}) != fingerprint({"x": torch.tensor(-0.0)})


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_has_a_fingerprint(dtype):
    a, b = torch.zeros(3).to(dtype), torch.tensor([0.0, 0.0, 1.0]).to(dtype)
    assert fingerprint({"x": a}) != fingerprint({"x": b})


# The store


class Counting(Predictions):
    """Counts what is computed."""

    computed = 0

    def get(self, key, compute):
        def counted():
            self.computed += 1
            return compute()

        return super().get(key, counted)


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_what_is_kept_is_not_computed_again(tmp_path):
    store, value = Counting(tmp_path / "new"), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(store.get(["a", 1], lambda: value), value)
    again = Predictions(tmp_path / "new").get(["a", 1], lambda: pytest.fail("computed again"))
    assert torch.equal(again, value)
    assert again.dtype == value.dtype
    assert store.get(("a", 1), lambda: pytest.fail("a tuple is another key")) is not None
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"]  # no temporary file is left


def test_other_keys_are_computed_and_kept_apart(tmp_path):
    store = Counting(tmp_path)
    keys = [["a", 1], [1, "a"], ["a", "1"], ["a", True], ["a"], ["a", 1, 1], []]
    for number, key in enumerate(keys):
        store.get(key, lambda number=number: torch.tensor(number))
    assert store.computed == len(keys)
    assert [store.get(key, pytest.fail).item() for key in keys] == list(range(len(keys)))


@pytest.mark.parametrize(("where", "name"), [(predictions, "VERSION"), (torch, "__version__")])
def test_what_another_version_kept_is_not_found(where, name, tmp_path, monkeypatch):
    store = Counting(tmp_path)
    store.get(["a"], lambda: torch.zeros(1))
    monkeypatch.setattr(where, name, "another")
    assert store.get(["a"], lambda: torch.ones(1)) == 1
    assert store.computed == 2


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\xff" * 300),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "only the header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "a byte of the values": flip_last_byte,
    "zeros for values": lambda path: path.write_bytes(path.read_bytes()[:-16] + bytes(16)),
    "another tensor": lambda path: save_file({"other": torch.ones(4)}, path),
    "no digest": lambda path: save_file({"kept": load_file(path)["kept"]}, path),
    "the digest of another": lambda path: save_file(load_file(path) | {"kept": torch.ones(4)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_computed_anew_and_replaced(damage, tmp_path):
    store, value = Counting(tmp_path), torch.arange(4.0) + 1
    store.get(["a"], lambda: value)
    (path,) = files(tmp_path)
    DAMAGES[damage](path)
    assert torch.equal(store.get(["a"], lambda: value), value)
    assert store.computed == 2
    assert torch.equal(store.get(["a"], lambda: pytest.fail("not mended")), value)


def test_a_computation_that_fails_keeps_nothing(tmp_path):
    store = Predictions(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.get(["a"], lambda: 1 / 0)
    assert files(tmp_path) == []


def test_the_folder_is_that_of_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    Predictions().get(["a"], lambda: torch.zeros(1))
    assert len(files(tmp_path / "predictions")) == 1


WRITER = """
import sys, pathlib, torch
from wamlib.predictions import Predictions
root, value, written = pathlib.Path(sys.argv[1]), float(sys.argv[2]), 0
store = Predictions(root)

def compute():
    global written
    written += 1
    return torch.full((20_000,), value)

print("ready", flush=True)
sys.stdin.readline()
for _ in range(150):
    for path in root.rglob("*.safetensors"):
        path.unlink(missing_ok=True)  # so that both write, again and again
    store.get(["a"], compute)
print(written)
"""


def whole(path):
    """Whether a file holds one of the two tensors, all of it; None if it is not there just now."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None  # a writer has removed it
    return load(content)["kept"].unique().numel() == 1


def test_two_processes_that_write_one_key_leave_a_whole_file(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    words = [[sys.executable, "-c", WRITER, str(tmp_path), value] for value in ("1", "2")]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(subprocess.Popen(command, **pipes)) for command in words]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("\n")
            writer.stdin.flush()
        while any(writer.poll() is None for writer in writers):
            assert {whole(path) for path in tmp_path.rglob("*.safetensors")} <= {True, None}
        written = [int(writer.stdout.readline()) for writer in writers]
    assert min(written) > 10
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"]
    assert whole(files(tmp_path)[0])


# Predictions of a pool


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


@pytest.fixture(scope="module")
def runs(dataset):
    return {name: untrained(name, dataset, 1) for name in ("mlp", "cnn", "resnet8", "vit")}


@pytest.fixture(scope="module")
def states(runs):
    return {name: run.state for name, (run,) in runs.items()}


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8", "vit"])
def test_kept_predictions_are_those_of_the_network(name, dataset, runs, states, tmp_path):
    plain, keeping = Pool(runs[name], dataset), Pool(runs[name], dataset, predictions=Counting(tmp_path))
    for _ in range(2):
        for split in ("test", "selection"):
            for recalibrate in (False, True):
                logits = keeping.logits(states[name], split, recalibrate=recalibrate)
                assert torch.equal(logits, plain.logits(states[name], split, recalibrate=recalibrate))
            assert torch.equal(keeping.features(states[name], split), plain.features(states[name], split))
        assert keeping.logits(states[name], ("test", "selection"))[1].shape == (60, 3)
    assert keeping.predictions.computed == 6 if plain.has_batchnorm else 4  # each once
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(states[name])
    torch.testing.assert_close(keeping.logits(states[name]), eval_logits(module, dataset.test), rtol=1e-4, atol=1e-5)


def test_kept_scores_are_those_of_the_network(dataset, runs, tmp_path):
    (run,) = runs["resnet8"]
    keeping = Pool([run], dataset, predictions=Counting(tmp_path))
    for _ in range(2):
        for split in ("test", "selection"):
            expected = run.record["metrics"][split]["accuracy"]
            assert keeping.accuracy(run.state, split) == pytest.approx(expected)
            assert keeping.error(run.state, split) == pytest.approx(100 - expected)
    assert keeping.predictions.computed == 2


def nudged(state, key, places=0):
    """The same weights, but for the last bit of one of them."""
    tensor = state[key].clone()
    flat = tensor.view(-1)
    flat[places] = torch.nextafter(flat[places], torch.tensor(float("inf")))
    return {**state, key: tensor}


def one_pixel(split, image=0):
    images = split.images.clone()
    images[image, 0, 0, 0] ^= 1
    return replace(split, images=images)


def test_whatever_a_prediction_follows_from_makes_it_another(dataset, runs, states, tmp_path):
    """Each of these changes is one that a key of names and settings would not see."""
    state, store = states["resnet8"], Counting(tmp_path)

    def costs(ask):
        before = store.computed
        ask()
        return store.computed - before

    def pool(**changes):
        return Pool(runs["resnet8"], replace(dataset, **changes), predictions=store)

    def logits(state=state, split="test", recalibrate=True, **changes):
        return lambda: pool(**changes).logits(state, split, recalibrate=recalibrate)

    test, train, selection = dataset.test, dataset.train, dataset.selection
    assert costs(logits()) == 1
    assert costs(logits()) == 0
    changed = {
        "a weight": logits(nudged(state, "layer3.conv2.weight", -1)),
        "a bias": logits(nudged(state, "head.bias")),
        "a statistic": logits(nudged(state, "bn1.running_var")),
        "an image": logits(test=one_pixel(test, -1)),
        "the number of images": logits(test=test.take(slice(0, 89))),
        "their order": logits(test=test.take(torch.arange(89, -1, -1))),
        "their mean": logits(test=replace(test, mean=test.mean + 1)),
        "their spread": logits(test=replace(test, std=test.std * 1.01)),
        "no recalibration": logits(recalibrate=False),
        "an image that it is recalibrated on": logits(train=one_pixel(train)),
        "the normalisation of these": logits(train=replace(train, mean=train.mean + 1)),
        "the split": logits(split="selection"),
        "features": lambda: pool().features(state, recalibrate=True),
    }
    assert {what: costs(ask) for what, ask in changed.items()} == dict.fromkeys(changed, 1)
    assert {what: costs(ask) for what, ask in changed.items()} == dict.fromkeys(changed, 0)
    # The twins: what it does not follow from changes nothing, and labels are none of it.
    unchanged = {
        "other training images, not recalibrated": logits(recalibrate=False, train=one_pixel(train)),
        "images of another split": logits(selection=one_pixel(selection)),
        "the labels": logits(test=replace(test, labels=1 - test.labels)),
        "the name of the data set": logits(name="another"),
        "copies": logits({key: tensor.clone() for key, tensor in state.items()}),
    }
    assert {what: costs(ask) for what, ask in unchanged.items()} == dict.fromkeys(unchanged, 0)


def test_without_batchnorm_recalibration_is_the_same_prediction(dataset, runs, states, tmp_path):
    pool = Pool(runs["mlp"], dataset, predictions=Counting(tmp_path))
    for recalibrate in (False, True):
        pool.logits(states["mlp"], recalibrate=recalibrate)
    assert pool.predictions.computed == 1


def test_another_architecture_with_the_same_weights_is_another_prediction(dataset, runs, states, tmp_path):
    @models.register("mlp-test")
    def _mlp(n_classes, in_channels, image_size):
        model = models.build("mlp", n_classes, in_channels, image_size)
        model.relu1 = torch.nn.Tanh()
        return model

    store = Counting(tmp_path)
    pools = (runs["mlp"], untrained("mlp-test", dataset, 1))
    a, b = (Pool(pool, dataset, predictions=store).logits(states["mlp"]) for pool in pools)
    assert store.computed == 2
    assert not torch.equal(a, b)
