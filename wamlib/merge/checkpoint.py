"""Checkpoint files: opened, checked, and read piece by piece, whatever their size."""

import hashlib
import json
import math
import os
from pathlib import Path

import torch

from .entries import DTYPES, Entry, Room, as_bytes, refuse_file
from .members import strip_prefixes
from .pickled import PICKLED, read_pickled

__all__ = ["DTYPES", "Checkpoint", "Entry", "Room", "as_bytes", "open_checkpoint"]

LONGEST_HEADER = 100_000_000  # bytes; the limit of the format
LARGEST, MOST_AXES = 2**63 - 1, 64  # of torch's tensors


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
            refuse_file(self.path, "a file that changed while it was read", "one that stays as it is", "Merge again.")

    def _fill(self, buffer, at):
        while buffer:
            n = os.preadv(self._file, [buffer], at)
            if n == 0:
                self.check_unchanged()
                refuse_file(self.path, f"an end of the file at byte {at}", "more", "Copy or download it again.")
            buffer, at = buffer[n:], at + n


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
        fix = "Check the path and its permissions."
        refuse_file(path, error.strerror or str(error), "a readable file", fix, "cannot open a checkpoint")
    try:
        if not os.path.isfile(path):
            refuse_file(path, "something that is no file", "a file", "Pass the files, not their folder.")
        entries = read_pickled(path) if path.suffix in PICKLED else _header(path, file, {} if known is None else known)
        entries = strip_prefixes(entries, str(path))
        if "__metadata__" in entries:
            wanted = "a name that the format leaves free"
            refuse_file(path, "a tensor named '__metadata__'", wanted, "Rename that tensor.")
        return Checkpoint(path, entries, file)
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
        refuse_file(path, f"{size} bytes that begin with no such header", wanted, again)
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
        refuse_file(path, f"a corrupt header ({error})", "the header of a safetensors file", again)
    end = 8 + length
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].place, item[1].size)):
        if entry.place != end:
            refuse_file(path, f"{key!r} at byte {entry.place}", f"at {end}, where the last one ends", again)
        end += entry.size * entry.dtype.itemsize
    if end != size:
        refuse_file(path, f"{size} bytes", f"{end}, as the header says", again)
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
    if not isinstance(shape, list) or not all(
        type(number) is int and 0 <= number <= LARGEST for number in (*shape, begin, end)
    ):
        raise ValueError(f"{key!r} has the shape {shape} at {begin} to {end}")
    if len(shape) > MOST_AXES or math.prod(side or 1 for side in shape) > LARGEST:
        raise ValueError(f"{key!r} has a shape that no tensor has")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{key!r} of shape {shape} has {end - begin} bytes")
    return Entry(dtype, tuple(shape), origin + begin)


def _stamp(status):
    return status.st_size, status.st_mtime_ns
