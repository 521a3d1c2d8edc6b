"""The readers that take bytes from outside, each with what spoils its files and what may come of reading them.

A target's ``check`` returns "read" if the reader gave what an independent reading gives, "refused" if it raised a
WamlibError, and raises an AssertionError otherwise: another exception, other values, or memory out of proportion.
"""

import io
import json
import resource
import sys
import warnings
from pathlib import Path

import mutations
import safetensors.torch
import torch
from hypothesis import strategies as st

from wamlib.advise import read_member
from wamlib.config import TrainConfig
from wamlib.errors import NonFiniteMemberError, WamlibError
from wamlib.merge import merge_files
from wamlib.runs import RunStore

CORPUS = Path(__file__).parent / "corpus"
MOST = 256 * 2**20  # bytes of memory that reading a file of a few kilobytes may take

STATES = [
    {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)},
    {"module.a": torch.ones(3, dtype=torch.bfloat16), "module.b": torch.tensor([True, False])},
    {"a": torch.ones(2, 0), "é": torch.ones(2, dtype=torch.half), "c": torch.ones(1, dtype=torch.complex64)},
]


def tied():
    weight = torch.arange(4.0)
    return {"a": weight, "b": weight, "c": torch.arange(12.0).view(3, 4).T, "d": torch.arange(8.0)[2:5]}


def pickled(state, **options):
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


def corpus(name):
    """Return the files of a target's corpus by name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}


class _Files:
    """A target of checkpoint files: read, and where that worked merged with themselves."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def check(self, content):
        path, out = self.folder / f"a{self.suffix}", self.folder / "out.safetensors"
        path.write_bytes(content)
        before = peak_memory()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the notice about prefixes
                state = read_member(path)
                merged = merged_or_not_finite(path, out)
        except WamlibError:
            out.unlink(missing_ok=True)
            assert peak_memory() - before < MOST, "memory out of proportion"
            return "refused"
        assert peak_memory() - before < MOST, "memory out of proportion"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice about old formats
            expected = without_prefix(self.read_plainly(content))
        assert state.keys() == expected.keys(), (list(state), list(expected))
        for key, tensor in expected.items():
            assert_same(state[key], tensor)
            if merged is not None:
                assert_equal(merged[key], tensor)
        return "read"


class Safetensors(_Files):
    """Files of tensors; the plain reading is that of the format's own library."""

    name, suffix = "safetensors", ".safetensors"
    seeds = tuple(safetensors.torch.save(state, metadata={"of": "a test"}) for state in STATES)
    strategy = st.one_of(mutations.bytes_of(seeds), mutations.safetensors_of(seeds))

    @staticmethod
    def read_plainly(content):
        return safetensors.torch.load(content)


class Pickled(_Files):
    """State dicts that torch saved; the plain reading is torch's own, into memory."""

    name, suffix = "pickled", ".pt"
    seeds = (*(pickled(state) for state in (*STATES, tied())), pickled(STATES[0], _use_new_zipfile_serialization=False))
    strategy = st.one_of(mutations.bytes_of(seeds), mutations.zip_of(seeds[:-1]))

    @staticmethod
    def read_plainly(content):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class Record:
    """The record of a run of the run store: it is read as it was written, or refused."""

    name = "record"

    def __init__(self, folder):
        self.store = RunStore(Path(folder) / "runs")
        self.config = TrainConfig(dataset="digits", n_train=100, model="linear", epochs=1)
        self.run = self.store.train(self.config, device="cpu")
        self.path = self.store.root / self.config.run_id / "record.json"
        self.seeds = (self.path.read_bytes(),)
        assert self.check(self.seeds[0]) == "read"

    @property
    def strategy(self):
        record = json.loads(self.seeds[0])
        texts = mutations.json_of(record).map(lambda changed: json.dumps(changed).encode())
        return st.one_of(mutations.bytes_of(self.seeds), texts)

    def check(self, content):
        self.path.write_bytes(content)
        before = peak_memory()
        try:
            run = self.store[self.config]
            state = run.state
        except WamlibError:
            return "refused"
        finally:
            assert peak_memory() - before < MOST, "memory out of proportion"
        # A record of format 1 has no digest: what holds there is that the weights are those it names.
        if run.record.get("format", 1) != 1:
            assert run.record == self.run.record
        for key, tensor in self.run.state.items():
            assert_same(state[key], tensor)
        return "read"


TARGETS = (Safetensors, Pickled, Record)


def peak_memory():
    """Return the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def merged_or_not_finite(path, out):
    """Return the soup of a file with itself, or None of one that holds NaN or infinity."""
    try:
        merge_files([path, path], out)
    except NonFiniteMemberError:
        assert not out.exists()
        return None
    merged = safetensors.torch.load_file(out)
    out.unlink()
    return merged


def without_prefix(state):
    for prefix in 2 * ("module.", "_orig_mod."):
        while state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: tensor for key, tensor in state.items()}
    return state


def assert_equal(a, b):
    """Assert that tensors hold the same numbers: a sum makes 0 of -0."""
    if a.is_floating_point() or a.is_complex():
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a.to(torch.complex128), b.to(torch.complex128))
    else:
        assert_same(a, b)


def assert_same(a, b):
    """Assert that tensors are the same to the bit: NaN is like itself here."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    kind = a.dtype
    a, b = (tensor.detach().resolve_conj().contiguous().flatten().view(torch.uint8) for tensor in (a, b))
    # Torch takes every byte but 0 for True, and may write 1 for it.
    assert torch.equal(a != 0, b != 0) if kind == torch.bool else torch.equal(a, b)
