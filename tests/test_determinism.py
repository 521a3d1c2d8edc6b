"""The same config on the same machine gives the same bytes: in this process, in workers, on a cluster, resumed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wamlib import linear, provenance, sweeps
from wamlib.config import TrainConfig
from wamlib.runs import RunStore

TRUNK = tiny(model="resnet8", epochs=2, n_train=100)
CONFIGS = [
    tiny(model="cnn", augment="flip-crop", epochs=3),  # dropout and augmentation draw at random
    tiny(model="vit", epochs=2, n_train=100),
    tiny(model="resnet8", epochs=2, n_train=100, start=TRUNK, init_seed=None, seed=1),
    *[tiny(model="linear", seed=seed, init_seed=seed, weight_decay=wd) for seed in range(2) for wd in (0.0, 0.1)],
]


class StopError(Exception):
    pass


def in_this_process(root):
    for config in CONFIGS:
        RunStore(root).train(config)


def in_a_process_of_its_own(root):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_determinism import in_this_process\nin_this_process(sys.argv[1])\n"
    )
    # Other seeds of Python's own hashes, and a machine that would rather use more threads.
    env = {**os.environ, "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", script, root, Path(__file__).parent], env=env, check=True)


def in_one_worker(root):
    sweeps.run(CONFIGS, RunStore(root), workers=1)


def in_three_workers_backwards(root):
    sweeps.run(CONFIGS[::-1], RunStore(root), workers=3)


def one_after_the_other(root):
    """Linear members without those that they are trained beside in a sweep."""
    for config in CONFIGS[::-1]:
        with ThreadPoolExecutor(1) as executor:
            sweeps.run([config], RunStore(root), executor)


def with_a_break_in_each_epoch(root):
    def stop(row):
        raise StopError

    for config in CONFIGS:
        for _ in range(config.epochs):
            try:
                RunStore(root).train(config, progress=stop)
            except StopError:
                continue
        RunStore(root).train(config)


WAYS = [
    in_a_process_of_its_own,
    in_one_worker,
    in_three_workers_backwards,
    one_after_the_other,
    with_a_break_in_each_epoch,
]


def contents(root):
    """The bytes of each file of weights and logits, and all of a record but times."""
    files = {path.relative_to(root): path.read_bytes() for path in Path(root).glob("*/*.safetensors")}
    store = RunStore(root)
    for config in (TRUNK, *CONFIGS):
        record = store[config].record
        files[config.run_id] = record["metrics"], [(row["loss"], row["accuracy"]) for row in record["history"]]
    return files


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    root = tmp_path_factory.mktemp("expected")
    in_this_process(root)
    found = contents(root)
    assert len(found) == 3 * len((TRUNK, *CONFIGS))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_weights_are_the_same_bytes(way, expected, tmp_path):
    way(str(tmp_path))
    assert contents(tmp_path) == expected


def test_another_seed_gives_other_bytes(store):
    digests = {store.train(tiny(seed=seed)).record["checkpoint_sha256"] for seed in range(3)}
    assert len(digests) == 3  # the twin: the equality above is not for want of anything to differ


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([3, 10]))
def test_a_linear_member_does_not_depend_on_those_beside_it(draw, n_classes):
    """Any others, in any slot: the bits of its weights are those it has alone."""
    from wamlib.data.dataset import Dataset, Split

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (70, 1, 8, 9), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, n_classes, (70,), generator=generator)
    split = Split(images, labels, torch.tensor([128.0]), torch.tensor([70.0]))
    dataset = Dataset("digits", tuple("abcdefghij"[:n_classes]), split, split, split, "hash")
    decays = draw.draw(st.lists(st.floats(0, 1), min_size=1, max_size=11, unique=True))
    shuffled = draw.draw(st.lists(st.booleans(), min_size=len(decays), max_size=len(decays)))
    plain = TrainConfig(dataset="digits", model="linear", epochs=2, batch_size=32)
    each = zip(decays, shuffled, strict=True)
    members = [replace(plain, weight_decay=decay, shuffle_labels=mixed) for decay, mixed in each]
    together = linear.train_together(members, dataset)
    alone = [linear.train_together([member], dataset)[0] for member in members]
    for (state, _), (own, _) in zip(together, alone, strict=True):
        torch.testing.assert_close(state, own, rtol=0, atol=0)
    states = [state for state, _ in together]
    logits = linear.predict_together(states, split)
    for z, state in zip(logits, states, strict=True):
        assert torch.equal(z, linear.predict_together([state], split)[0])


def test_a_record_says_what_decides_the_last_digits(store):
    machine = store.train(tiny()).record["machine"]
    assert machine["threads"] == 1
    assert machine["tf32_matmul"] is torch.backends.cuda.matmul.allow_tf32
    assert machine["tf32_cudnn"] is torch.backends.cudnn.allow_tf32
    assert machine["cudnn"] == torch.backends.cudnn.version()
    assert machine["cudnn_benchmark"] is torch.backends.cudnn.benchmark
    assert machine["cudnn_deterministic"] is torch.backends.cudnn.deterministic
    assert machine["deterministic_algorithms"] is torch.are_deterministic_algorithms_enabled()
    assert machine["matmul_precision"] == torch.get_float32_matmul_precision()
    assert machine["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert {"mkl", "mkldnn"} <= set(machine)


@pytest.mark.parametrize("name", ["deterministic", "benchmark"])
def test_a_record_follows_the_settings(name, monkeypatch):
    before = provenance.describe_machine(torch.device("cpu"), 1)
    monkeypatch.setattr(torch.backends.cudnn, name, not getattr(torch.backends.cudnn, name))
    after = provenance.describe_machine(torch.device("cpu"), 1)
    assert {key for key in after if after[key] != before[key]} == {f"cudnn_{name}"}
