"""Checkpoint files: opened, checked, and read piece by piece, whatever their size."""

import hashlib
import json
import math
import os
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..errors import CheckpointError
from .members import strip_prefixes

__all__ = ["DTYPES", "Checkpoint", "Entry", "Room", "open_checkpoint"]

# Names of the format's specification. https://huggingface.co/docs/safetensors
DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip
LONGEST_HEADER = 100_000_000  # bytes; the limit of the format
LARGEST, MOST_AXES = 2**63 - 1, 64  # of torch's tensors
PICKLED = (".pt", ".pth", ".bin", ".ckpt")
STATE_DICT, WRITE_ANEW = "a state dict, from keys to tensors", "Write it anew: torch.save(model.state_dict(), path)."


@dataclass(frozen=True)
class Entry:
    """A tensor of a file: its dtype and shape, and what finds its values.

    Parameters
    ----------
    dtype : torch.dtype
    shape : tuple of int
    place : int or Tensor
        Its first byte in the file, or the tensor mapped into memory.
    """

    dtype: torch.dtype
    shape: tuple
    place: object

    @property
    def size(self):
        """Number of values."""
        return math.prod(self.shape)

    def is_floating_point(self):
        """Return whether its values are real numbers, as a tensor does."""
        return self.dtype.is_floating_point

    def is_complex(self):
        """Return whether its values are complex numbers, as a tensor does."""
        return self.dtype.is_complex


class Room(NamedTuple):
    """Memory to read values into: as a tensor of one dimension, and as bytes."""

    values: torch.Tensor
    bytes: memoryview

    @classmethod
    def of(cls, n, dtype):
        """Return room for n values."""
        values = torch.empty(n, dtype=dtype)
        return cls(values, as_bytes(values))


class Checkpoint:
    """An open file of named tensors.

    Parameters
    ----------
    path : Path
    entries : dict of str to Entry
    file : int
        Descriptor, open for reading; closed with this object.
    """

    def __init__(self, path, entries, file):
        self.path, self.entries, self._file = path, entries, file
        self._stamp = _stamp(os.fstat(file))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.entries = {}
        os.close(self._file)

    def __repr__(self):
        return f"Checkpoint({str(self.path)!r}): {len(self.entries)} tensors"

    def read(self, key, start, stop, room=None):
        """Return the values from start to stop of a tensor, in one dimension, in its dtype.

        Parameters
        ----------
        key : str
        start, stop : int
        room : Room or None
            Memory for exactly these values. It may be left unused.
        """
        entry = self.entries[key]
        if isinstance(entry.place, torch.Tensor):
            if entry.place.is_contiguous():
                return entry.place.view(-1)[start:stop]
            return entry.place.take(torch.arange(start, stop))
        if room is None:
            room = Room.of(stop - start, entry.dtype)
        # The memory is read with pread, not mapped: a file that shrinks meanwhile is an error, not a crash.
        # This is the innermost line of every merge, so it does no more than it must.
        at = entry.place + start * entry.dtype.itemsize
        n = os.preadv(self._file, [room.bytes], at)
        if n < len(room.bytes):
            self._fill(room.bytes[n:], at + n)
        return room.values

    @property
    def n_bytes(self):
        """Size of the file."""
        return self._stamp[0]

    def sha256(self):
        """Return the SHA-256 of the file's bytes as hexadecimal digits."""
        digest, buffer, at = hashlib.sha256(), memoryview(bytearray(2**18)), 0
        while n := os.preadv(self._file, [buffer], at):
            digest.update(buffer[:n])
            at += n
        return digest.hexdigest()

    def is_same_file(self, path):
        """Return whether a path leads to this file, under whatever name."""
        return os.path.exists(path) and os.path.samestat(os.fstat(self._file), os.stat(path))

    def check_unchanged(self):
        """Refuse a file that was written to since it was opened."""
        if _stamp(os.fstat(self._file)) != self._stamp:
            refuse(self.path, "a file that changed while it was read", "one that stays as it is", "Merge again.")

    def _fill(self, buffer, at):
        while buffer:
            n = os.preadv(self._file, [buffer], at)
            if n == 0:
                self.check_unchanged()
                refuse(self.path, f"an end of the file at byte {at}", "more", "Copy or download it again.")
            buffer, at = buffer[n:], at + n


def as_bytes(values):
    """Return the memory of a contiguous one-dimensional tensor."""
    return memoryview(values.view(torch.uint8).numpy())


def open_checkpoint(path, known=None):
    """Open a file of named tensors without reading their values.

    Parameters
    ----------
    path : str or Path
        A safetensors file, or a state dict that `torch.save` wrote, named .pt, .pth,
        .bin or .ckpt. The latter is unpickled with ``weights_only=True`` and mapped into memory.
    known : dict or None
        Headers that were checked before, with the size of their file: members often have the
        same one. Added to.

    Returns
    -------
    Checkpoint
        A context manager. A ``module.`` or ``_orig_mod.`` before every key is stripped, with a notice.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, corrupt, or holds something else than a state dict.
    """
    path = Path(path)
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CheckpointError(
            "cannot open a checkpoint", item=str(path), got=error.strerror or str(error), wanted="a readable file",
            fix="Check the path and its permissions.",
        ) from None  # fmt: skip
    try:
        if not os.path.isfile(path):
            refuse(path, "something that is no file", "a file", "Pass the files, not their folder.")
        entries = _pickled(path) if path.suffix in PICKLED else _header(path, file, {} if known is None else known)
        return Checkpoint(path, strip_prefixes(entries, str(path)), file)
    except BaseException:
        os.close(file)
        raise


def _header(path, file, known):
    """Read the header of a safetensors file and check that the file fits it, byte for byte."""
    size = os.fstat(file).st_size
    again = "Copy or download it again."
    length = int.from_bytes(os.pread(file, 8, 0), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        wanted = "a safetensors file with a whole header, or a state dict named .pt or .pth"
        refuse(path, f"{size} bytes that begin with no such header", wanted, again)
    text = os.pread(file, length, 8)
    if (size, text) in known:
        return known[size, text]
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
        notes = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in notes.values()):
            raise ValueError("metadata that is not text")
        entries = {key: _entry(key, described, 8 + length) for key, described in header.items()}
    # JSON and Unicode errors are ValueErrors; a header of nothing but brackets exceeds the recursion limit.
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        refuse(path, f"a corrupt header ({error})", "the header of a safetensors file", again)
    end = 8 + length
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].place, item[1].size)):
        if entry.place != end:
            refuse(path, f"{key!r} at byte {entry.place}", f"at {end}, where the last one ends", again)
        end += entry.size * entry.dtype.itemsize
    if end != size:
        refuse(path, f"{size} bytes", f"{end}, as the header says", again)
    known[size, text] = entries
    return entries


def _unique(pairs):
    """Return a JSON object as a dict; the format allows no name twice, and no half of a character pair."""
    found = dict(pairs)
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        text.encode()
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _entry(key, described, origin):
    dtype, shape, (begin, end) = DTYPES.get(described["dtype"]), described["shape"], described["data_offsets"]
    if dtype is None:
        raise ValueError(f"{key!r} has the unknown dtype {described['dtype']!r}")
    if not all(type(number) is int and 0 <= number <= LARGEST for number in (*shape, begin, end)):
        raise ValueError(f"{key!r} has the shape {shape} at {begin} to {end}")
    if len(shape) > MOST_AXES or math.prod(side or 1 for side in shape) > LARGEST:
        raise ValueError(f"{key!r} has a shape that no tensor has")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{key!r} of shape {shape} has {end - begin} bytes")
    return Entry(dtype, tuple(shape), origin + begin)


def _pickled(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice about old formats; what it cannot read is an error
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        refuse(path, "a pickled module or other objects, which could run code when read", STATE_DICT, WRITE_ANEW)
    except Exception as error:  # of a damaged file torch's readers raise whatever it leads them to
        reason = str(error).partition("\n")[0][:120]
        refuse(path, f"a file that torch cannot read ({reason})", STATE_DICT, f"Copy it again. {WRITE_ANEW}")
    if not isinstance(state, dict):
        refuse(path, f"a {type(state).__name__}", STATE_DICT, WRITE_ANEW)
    for key, tensor in state.items():
        if not (_is_name(key) and isinstance(tensor, torch.Tensor)):
            hint = f"Write that part on its own: torch.save(checkpoint[{key!r}], path)."
            got = f"a {type(tensor).__name__} under {key!r}"
            refuse(path, got, STATE_DICT, hint if isinstance(tensor, dict) else WRITE_ANEW)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            refuse(path, f"a sparse, quantized or empty tensor under {key!r}", "dense tensors with values", WRITE_ANEW)
        if tensor.dtype not in DTYPES.values():
            refuse(path, f"{tensor.dtype} under {key!r}", f"one of {', '.join(map(str, DTYPES.values()))}",
                   "Convert that tensor before it is saved.")  # fmt: skip
    _check_storages(path, state)
    state = {key: tensor.detach().resolve_conj().resolve_neg() for key, tensor in state.items()}
    return {key: Entry(tensor.dtype, tuple(tensor.shape), tensor) for key, tensor in state.items()}


def _is_name(key):
    """Return whether a key is text that the header of a safetensors file can hold beside its metadata."""
    return isinstance(key, str) and key != "__metadata__" and not any("\ud800" <= c <= "\udfff" for c in key)


def _check_storages(path, state):
    """Refuse a file whose tensors are longer than what it holds of them: torch maps what the pickle says, unchecked."""
    storages = {tensor.untyped_storage() for tensor in state.values()}
    places = sorted({(storage.data_ptr(), storage.nbytes()) for storage in storages if storage.nbytes()})
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    except Exception as error:  # zipfile raises struct.error, UnicodeDecodeError, ... beside its own
        refuse(path, f"a damaged archive ({error})", STATE_DICT, f"Copy it again. {WRITE_ANEW}")
    kept = [member for member in members if member.filename.split("/")[1:-1] == ["data"] and member.file_size]
    sizes = [member.file_size if member.compress_type == zipfile.ZIP_STORED else None for member in kept]
    if sizes != [size for _, size in places]:
        refuse(path, "tensors that differ in size from the parts of the archive", STATE_DICT,
               f"Copy it again. {WRITE_ANEW}")  # fmt: skip
    for key, tensor in state.items():
        if tensor.numel() * tensor.itemsize > os.path.getsize(path):
            refuse(path, f"a tensor that repeats few values under {key!r}", STATE_DICT,
                   f"Save it as tensor.contiguous(). {WRITE_ANEW}")  # fmt: skip


def _stamp(status):
    return status.st_size, status.st_mtime_ns


def refuse(path, got, wanted, fix):
    """Raise the error for a file that cannot be read."""
    raise CheckpointError("cannot read a checkpoint", item=str(path), got=got, wanted=wanted, fix=fix) from None
