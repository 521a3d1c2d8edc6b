"""Checkpoint files that are damaged, dangerous or something else: each is refused, and nothing is written."""

import io
import json
import math
import os
import zipfile

import pytest
import torch
from checker import check_refused, check_refused_by_cli, run_cli
from safetensors.torch import save

STATE = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
WHOLE = save(STATE)
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def framed(header, data=b"\0" * 8):
    """Return a file of a header, as text or as what JSON can hold, and bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def length(n, rest=WHOLE[8:]):
    return n.to_bytes(8, "little") + rest


BYTES = {
    "an empty file": b"",
    "one byte": b"\x08",
    "text": b"these are my weights, take them",
    "zeros": b"\0" * 64,
    "a header of length 0": length(0),
    "a header one byte too short": length(int.from_bytes(WHOLE[:8], "little") - 1),
    "a header one byte too long": length(int.from_bytes(WHOLE[:8], "little") + 1),
    "a header as long as the file": length(len(WHOLE)),
    "a header of terabytes": length(2**43),
    "a header of every bit": length(2**64 - 1),
    "a byte at the end": WHOLE + b"\0",
    **{f"cut at {at}": WHOLE[:at] for at in (1, 7, 8, 9, 40, 100, len(WHOLE) - 9, len(WHOLE) - 1)},
    "not JSON": framed(b"{'w': 1}"),
    "half of JSON": framed(b'{"w": {"dtype": "F32"'),
    "not UTF-8": framed(b'{"\xff": 1}'),
    "JSON with a mark of its byte order": framed(b"\xef\xbb\xbf" + json.dumps({"w": F32}).encode()),
    "JSON in UTF-16": framed(json.dumps({"w": F32}).encode("utf-16")),
    "a list": framed([F32]),
    "a number": framed(3),
    "text in JSON": framed("w"),
    "nothing in JSON": framed(None),
    "brackets without end": framed(b"[" * 200_000),
    "a key twice": framed(b'{"w": %b, "w": %b}' % ((json.dumps(F32).encode(),) * 2)),
    "a field twice": framed(b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
    "an entry that is a list": framed({"w": ["F32", [2], [0, 8]]}),
    "an entry that is nothing": framed({"w": None}),
    "no dtype": framed({"w": {"shape": [2], "data_offsets": [0, 8]}}),
    "no shape": framed({"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
    "no offsets": framed({"w": {"dtype": "F32", "shape": [2]}}),
    "an unknown dtype": framed({"w": {**F32, "dtype": "F31"}}),
    "a dtype in small letters": framed({"w": {**F32, "dtype": "f32"}}),
    "a dtype that is a list": framed({"w": {**F32, "dtype": ["F32"]}}),
    "a dtype that is nothing": framed({"w": {**F32, "dtype": None}}),
    "offsets that overlap": framed({"w": F32, "v": {**F32, "data_offsets": [4, 12]}}, b"\0" * 12),
    "offsets of the same bytes": framed({"w": F32, "v": F32}),
    "offsets beyond the file": framed({"w": {**F32, "data_offsets": [8, 16]}}),
    "offsets of terabytes": framed({"w": {"dtype": "U8", "shape": [2**42], "data_offsets": [0, 2**42]}}),
    "offsets past every integer": framed({"w": {"dtype": "U8", "shape": [10**30], "data_offsets": [0, 10**30]}}),
    "offsets that go back": framed({"w": {**F32, "data_offsets": [8, 0]}}),
    "negative offsets": framed({"w": {**F32, "data_offsets": [-8, 0]}}),
    "one offset": framed({"w": {**F32, "data_offsets": [8]}}),
    "three offsets": framed({"w": {**F32, "data_offsets": [0, 4, 8]}}),
    "offsets with a point": framed({"w": {**F32, "data_offsets": [0.0, 8.0]}}),
    "offsets that are true": framed({"w": {"dtype": "U8", "shape": [1], "data_offsets": [False, True]}}, b"\0"),
    "offsets of text": framed({"w": {**F32, "data_offsets": "08"}}),
    "a gap between tensors": framed({"w": F32, "v": {**F32, "data_offsets": [12, 20]}}, b"\0" * 20),
    "a shape with more values": framed({"w": {**F32, "shape": [3]}}),
    "a shape with fewer values": framed({"w": {**F32, "shape": [1]}}),
    "a negative shape": framed({"w": {**F32, "shape": [-1, -2]}}),
    "a shape of no text": framed({"w": {"dtype": "F64", "shape": "", "data_offsets": [0, 8]}}),
    "a shape of no mapping": framed({"w": {"dtype": "F64", "shape": {}, "data_offsets": [0, 8]}}),
    "a shape that is a number": framed({"w": {**F32, "shape": 2}}),
    "a shape with a point": framed({"w": {**F32, "shape": [2.0]}}),
    "a shape that is huge and zero": framed({"w": {**F32, "shape": [2**62, 2**62, 0], "data_offsets": [0, 0]}}, b""),
    "a shape of infinity": framed(b'{"w": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}'),
    "a number of 5,000 digits": framed(b'{"w": {"dtype": "F32", "shape": [%b], "data_offsets": [0]}}' % (b"9" * 5000)),
    "a dtype whose width does not fit": framed({"w": {**F32, "dtype": "F64"}}),
    "metadata that is a list": framed({"__metadata__": [], "w": F32}),
    "metadata that is nothing": framed({"__metadata__": None, "w": F32}),
    "metadata of numbers": framed({"__metadata__": {"epoch": 3}, "w": F32}),
    "the name of the metadata behind a prefix": framed({"module.__metadata__": F32}),
    "half a key of Unicode": framed(b'{"\\ud800": %b}' % json.dumps(F32).encode()),
    "a zip": b"PK\3\4" + b"\0" * 100,
    "a pickle": b"\x80\x02}q\0.",
}


@pytest.fixture
def good(tmp_path):
    """A file that the others are merged with, of the same keys where those have any."""
    path = tmp_path / "good.safetensors"
    path.write_bytes(framed({"w": F32}))
    return path


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
def test_safetensors_file(content, good, tmp_path, monkeypatch):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    out = tmp_path / "out.safetensors"
    # Twice the same file: whatever it holds fits itself, so that only what is wrong with it can be refused.
    message = check_refused_by_cli(f"merge {bad} {bad} -o {out}", monkeypatch, tmp_path)
    assert str(bad) in message
    check_refused_by_cli(f"merge {good} {bad} -o {out} --dry-run", monkeypatch, tmp_path)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def saved(thing, **options):
    file = io.BytesIO()
    torch.save(thing, file, **options)
    return file.getvalue()


def repacked(change, **options):
    """Return a saved state dict with the files of its zip changed: name to content, None to leave one out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(STATE))) as old, zipfile.ZipFile(file, "w", **options) as new:
        for name in old.namelist():
            content = change(name.partition("/")[2], old.read(name))
            if content is not None:
                new.writestr(name, content)
    return file.getvalue()


SAVED = saved(STATE)
NESTED = {"model": STATE}
PICKLES = {
    "empty": b"",
    "text": b"state dict",
    "safetensors": WHOLE,
    **{f"cut at {share}": SAVED[: int(share * len(SAVED))] for share in (0.1, 0.5, 0.9, 0.99)},
    "a pickle of the old kind, cut": saved(STATE, _use_new_zipfile_serialization=False)[:-20],
    "a list": saved([torch.ones(2)]),
    "a tensor": saved(torch.ones(2)),
    "a number": saved(3),
    "nothing": saved(None),
    "a state dict inside": saved(NESTED),
    "a training checkpoint": saved({"epoch": 3, "model": STATE, "lr": 0.1}),
    "a whole module": saved(torch.nn.Linear(2, 2)),
    "keys that are numbers": saved({1: torch.ones(2)}),
    "keys that are nothing": saved({None: torch.ones(2)}),
    "a list among tensors": saved({"w": [1.0, 2.0]}),
    "a sparse tensor": saved({"w": torch.eye(2).to_sparse()}),
    "a tensor without values": saved({"w": torch.ones(2, device="meta")}),
    "NaN": saved({"w": torch.tensor([1.0, math.nan])}),
    "a zip without the pickle": repacked(lambda name, content: None if name == "data.pkl" else content),
    "a zip without a tensor": repacked(lambda name, content: None if name == "data/0" else content),
    "a zip with a short tensor": repacked(lambda name, content: content[:5] if name == "data/0" else content),
    "a zip with an empty pickle": repacked(lambda name, content: b"" if name == "data.pkl" else content),
    "a zip whose pickle is text": repacked(lambda name, content: b"hello" if name == "data.pkl" else content),
    "a zip that is compressed": repacked(lambda name, content: content, compression=zipfile.ZIP_DEFLATED),
    "a zip that is compressed and cut": repacked(lambda name, content: content, compression=zipfile.ZIP_DEFLATED)[:-8],
    "a zip with a long tensor": repacked(lambda name, content: content + b"\0" * 4 if name == "data/0" else content),
    "few values that stand for terabytes": saved({"w": torch.ones(1).expand(2**40)}),
    "a dtype that safetensors lacks": saved({"w": torch.ones(2, dtype=torch.complex128)}),
    "the name of the metadata": saved({"__metadata__": torch.ones(2)}),
    "half a key of Unicode": saved({"\ud800": torch.ones(2)}),
    "an empty zip": b"PK\5\6" + b"\0" * 18,
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
def test_pickled_file(content, suffix, tmp_path, monkeypatch):
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes(content)
    message = check_refused_by_cli(f"merge {bad} {bad} -o {tmp_path}/out.safetensors", monkeypatch, tmp_path)
    assert str(bad) in message


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: {"w": p}], ids=["alone", "in a dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(wrap, zipped, tmp_path, monkeypatch):
    (tmp_path / "bad.pt").write_bytes(
        saved(wrap(Payload(str(tmp_path / "ran"))), _use_new_zipfile_serialization=zipped)
    )
    check_refused_by_cli(f"merge {tmp_path}/bad.pt -o {tmp_path}/out.safetensors", monkeypatch, tmp_path)


def test_files_of_this_kind_that_are_right_are_merged(good, tmp_path, monkeypatch):
    same = repacked(lambda name, content: content)
    for name, content in (("a.safetensors", WHOLE), ("b.pt", SAVED), ("c.pth", same)):
        (tmp_path / name).write_bytes(content)
    held = {"w": torch.nn.Parameter(STATE["w"].T.contiguous()).T, "n": STATE["n"].expand(1)[0]}
    torch.save(held, tmp_path / "d.ckpt")
    members = f"{tmp_path}/a.safetensors {tmp_path}/b.pt {tmp_path}/c.pth {tmp_path}/d.ckpt"
    assert run_cli(f"merge {members} -o {tmp_path}/out.safetensors", monkeypatch)[0] == 0
    assert run_cli(f"merge {good} {good} -o {tmp_path}/out.safetensors", monkeypatch)[0] == 0
    with pytest.raises(AssertionError):
        check_refused(lambda: run_cli(f"merge {good} {good} -o {tmp_path}/out.safetensors", monkeypatch))
