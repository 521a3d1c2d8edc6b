"""A pool of open checkpoint files: read piece by piece, checked on the way, worked on by several threads."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .checkpoint import Checkpoint, Room
from .deltas import has_delta, wide
from .members import check_layout, refuse_non_finite, refuse_untied, sharing

__all__ = ["Piece", "Pool", "workers"]

PIECE = 2**17  # values: shorter ones cost more calls than work, longer ones leave the processor's cache
MOST_THREADS = 8  # more would only wait for memory, and each holds a few pieces


class Piece(NamedTuple):
    """The values from start to stop of one tensor."""

    key: str
    start: int
    stop: int

    @property
    def size(self):
        """Number of values."""
        return self.stop - self.start


@contextmanager
def workers(n_threads=None):
    """Give a pool of threads, each of which lets torch use one core."""
    # Only Linux says how many of the cores a process may use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_threads = n_threads or min(cores, MOST_THREADS)
    before = torch.get_num_threads()
    executor = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # what a thread sets is the default of all threads to come


@dataclass
class Pool:
    """The open files of a merge.

    Parameters
    ----------
    members : list of Checkpoint
    base : Checkpoint or None
    executor : concurrent.futures.Executor
    progress : callable
        Called with what is done, how much of it is done, and how much there is.
    tied : dict of str to str
        Key to the earlier key whose memory it shares in some file; see `check`.
    """

    members: list[Checkpoint]
    base: Checkpoint | None
    executor: ThreadPoolExecutor
    progress: object
    tied: dict = field(default_factory=dict)

    @property
    def entries(self):
        """The tensors of the first member, which are those of all."""
        return self.members[0].entries

    @property
    def files(self):
        """The members, and the base if there is one."""
        return self.members if self.base is None else [*self.members, self.base]

    def check(self):
        """Refuse files that do not fit together, and find what is tied; errors as `uniform_soup`, naming the file."""
        first = self.members[0]
        for checkpoint in self.files:
            if checkpoint.entries is not first.entries:
                check_layout(checkpoint.entries, first.entries, str(checkpoint.path), str(first.path))
        pairs = {}
        for checkpoint in self.files:
            places = {key: checkpoint.entries[key].place for key in self.entries}
            pairs |= dict.fromkeys(
                sharing({k: place for k, place in places.items() if isinstance(place, torch.Tensor)})
            )
        for key, earlier in pairs:
            for checkpoint in self.files:
                for piece in self.pieces([key]):
                    if not torch.equal(checkpoint.read(*piece), checkpoint.read(earlier, *piece[1:])):
                        refuse_untied(key, earlier, str(checkpoint.path))
        self.tied = dict(reversed(pairs))

    def run(self, what, function, items, size):
        """Return the function's results in the order of the items, worked out in several threads.

        ``size`` maps an item to how much of the work it is.
        """
        total, done, results = sum(map(size, items)), 0, []
        self.progress(what, 0, total)
        for item, result in zip(items, self.executor.map(function, items), strict=True):
            results.append(result)
            done += size(item)
            self.progress(what, done, total)
        return results

    def merged_keys(self):
        """Return the keys that are merged: each tied tensor once."""
        return [key for key in self.entries if key not in self.tied]

    def delta_keys(self):
        """Return the keys that have a task vector, each tied tensor once."""
        return [key for key in self.merged_keys() if has_delta(key, self.entries[key])]

    def pieces(self, keys, size=PIECE):
        """Return the pieces of these tensors."""
        return [
            Piece(key, start, min(start + size, self.entries[key].size))
            for key in keys
            for start in range(0, self.entries[key].size, size)
        ]

    def room(self, piece):
        """Return memory to read a piece into."""
        return Room.of(piece.size, self.entries[piece.key].dtype)

    def is_averaged(self, key):
        """Return whether a tensor has a mean: integers and booleans have none."""
        entry = self.entries[key]
        return entry.is_floating_point() or entry.is_complex()

    def deltas(self, piece):
        """Yield the task vectors of a piece, member by member; each is overwritten by the next."""
        dtype, room = wide(self.entries[piece.key].dtype), self.room(piece)
        base, out = self.base.read(*piece).to(dtype), torch.empty(piece.size, dtype=dtype)
        cast = room.values.dtype != dtype
        for member in self.members:
            values = member.read(*piece, room)
            yield torch.sub(values.to(dtype) if cast else values, base, out=out)

    def mean(self, piece, shares, files=None):
        """Return the weighted sum of a piece over the members, or over these files, in float64."""
        files, room = self.members if files is None else files, self.room(piece)
        dtype = torch.complex128 if room.values.is_complex() else torch.float64
        total = torch.zeros(piece.size, dtype=dtype)
        cast = room.values.dtype.itemsize == 1  # torch adds no float8 to anything
        for checkpoint, share in zip(files, shares, strict=True):
            values = checkpoint.read(*piece, room)
            total.add_(values.to(dtype) if cast else values, alpha=share)
        self.check_finite(piece, total)
        return total

    def check_finite(self, piece, total):
        """Refuse files with NaN or infinity in a piece, given a sum over all: neither can vanish from it."""
        if math.isfinite(abs(total.sum().item())):
            return
        for checkpoint in self.files:
            pieces = self.pieces([piece.key])
            n_values = sum(int((~torch.isfinite(checkpoint.read(*piece).to(total.dtype))).sum()) for piece in pieces)
            if n_values:
                refuse_non_finite(piece.key, str(checkpoint.path), n_values)

    def average(self, piece):
        """Return the equal mean of a piece; of integers and booleans the first member's values."""
        if not self.is_averaged(piece.key):
            return self.members[0].read(*piece)
        total = self.mean(piece, [1.0] * len(self.members)).div_(len(self.members))
        if self.base is not None:  # it takes no part, but a damaged one says that something is wrong
            self.check_finite(piece, self.base.read(*piece).to(total.dtype))
        return total.to(self.entries[piece.key].dtype)
