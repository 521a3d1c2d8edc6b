"""What a merge reads: members that fit together, and their base, in memory or in files, piece by piece."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch

from .entries import Room
from .members import (
    check_finite,
    check_layout,
    checked_state,
    find_ties,
    has_delta,
    prepared,
    refuse_non_finite,
    strip_prefixes,
    tied_keys,
)
from .sums import dots, n_not_finite, weighted_sum

__all__ = ["Loaded", "Opened", "Piece", "Source", "wide", "workers"]

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


class Source:
    """The members of a merge, and their base if there is one.

    Parameters
    ----------
    members : list of Checkpoint or _State
        Each has ``entries``, from keys to what has a dtype, a shape and a device, and reads pieces of them.
    base : Checkpoint, _State or None
    tied : dict of str to str
        Key to an earlier key that is the same tensor in some member.

    Attributes
    ----------
    owners : dict of str to str
        Key to the first key of the same tensor, which is merged once: itself if it is not tied.
    """

    def __init__(self, members, base, tied):
        self.members, self.base = members, base
        self.entries = members[0].entries
        self.owners = {}
        for key in self.entries:
            self.owners[key] = self.owners[tied[key]] if key in tied else key

    def merged_keys(self):
        """Return the keys that are merged: each tied tensor once."""
        return [key for key, owner in self.owners.items() if key == owner]

    def delta_keys(self):
        """Return the keys that have a task vector, each tied tensor once."""
        return [key for key in self.merged_keys() if has_delta(key, self.entries[key])]

    def is_averaged(self, key):
        """Return whether a tensor has a mean: integers and booleans have none."""
        entry = self.entries[key]
        return entry.is_floating_point() or entry.is_complex()

    def size(self, key):
        """Return the number of values of a tensor."""
        return math.prod(self.entries[key].shape)

    def deltas(self, piece):
        """Yield the task vectors of a piece, member by member; each is overwritten by the next."""
        dtype, room = wide(self.entries[piece.key].dtype), self.room(piece)
        base = self.base.read(*piece).to(dtype)
        out = torch.empty_like(base)
        for member in self.members:
            yield torch.sub(member.read(*piece, room).to(dtype), base, out=out)

    def mean(self, piece, shares, members=None):
        """Return the weighted sum of a piece over the members, or over these, in float64."""
        members, room = self.members if members is None else members, self.room(piece)
        total = weighted_sum((member.read(*piece, room) for member in members), shares)
        self.check_finite(piece, total)
        return total

    def summed(self, measure, size=PIECE):
        """Return per key of a task vector the sum over its pieces of the numbers that a function measures."""
        pieces, found = self.pieces(self.delta_keys(), size), {}
        measured = self.run("measuring", measure, pieces, lambda piece: piece.size)
        for piece, numbers in zip(pieces, measured, strict=True):
            old = found.get(piece.key)
            found[piece.key] = numbers if old is None else [x + y for x, y in zip(old, numbers, strict=True)]
        return found


class _State:
    """A state dict: a member whose pieces lie in memory already."""

    def __init__(self, entries, first):
        self.entries, self._first = entries, first

    def read(self, key, start, stop, room=None):
        """Return values of a tensor in one dimension, where the first member's are; of MPS on the CPU."""
        device = self._first[key].device
        tensor = self.entries[key].detach().to("cpu" if device.type == "mps" else device)
        return tensor.reshape(-1)[start:stop]


class Loaded(Source):
    """State dicts: checked as a whole before anything is merged, and then read in pieces of a whole tensor.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
    base : dict of str to Tensor
        None or one.
    """

    in_memory = True
    # Dot products are added up in the order in which they were when the book's numbers were published.
    gram, total = staticmethod(dots), staticmethod(sum)

    def __init__(self, members, *base):
        members = prepared(members)
        base = [strip_prefixes(checked_state(state, "the base")) for state in base]
        for state in base:
            check_layout(state, members[0], "the base", "member 0")
            check_finite(state, "the base")
        states = [*members, *base]
        read = [_State(state, members[0]) for state in states]
        super().__init__(read[: len(members)], read[-1] if base else None, tied_keys(states))

    def pieces(self, keys, size=PIECE):
        """Return one piece per tensor."""
        return [Piece(key, 0, self.size(key)) for key in keys]

    def run(self, what, function, items, size):
        """Return the function's results, one after the other: torch uses all cores for each."""
        return [function(item) for item in items]

    def room(self, piece):
        """Return nothing: no room is needed."""

    def check_finite(self, piece, values):
        """Do nothing: all was checked before."""


class Opened(Source):
    """Checkpoint files: read piece by piece, checked on the way, worked on by several threads.

    Parameters
    ----------
    members : list of Checkpoint
    base : Checkpoint or None
    executor : concurrent.futures.Executor
    progress : callable
        Called with what is done, how much of it is done, and how much there is.

    Raises
    ------
    MemberMismatchError
        If they do not fit together, naming the file.
    """

    in_memory = False
    total = staticmethod(math.fsum)

    def __init__(self, members, base, executor, progress):
        self.files = members if base is None else [*members, base]
        self.executor, self.progress = executor, progress
        self.entries = entries = members[0].entries
        names = [str(file.path) for file in self.files]
        for file, name in zip(self.files, names, strict=True):
            if file.entries is not entries:
                check_layout(file.entries, entries, name, names[0])

        def equal(index, key, first):
            read = self.files[index].read
            return all(torch.equal(read(*piece), read(first, *piece[1:])) for piece in self.pieces([key]))

        # Only what is mapped into memory can share it.
        places = [{key: file.entries[key].place for key in entries} for file in self.files]
        mapped = [{k: place for k, place in each.items() if isinstance(place, torch.Tensor)} for each in places]
        super().__init__(members, base, find_ties(mapped, names, equal))

    def pieces(self, keys, size=PIECE):
        """Return the pieces of these tensors."""
        return [
            Piece(key, start, min(start + size, self.size(key)))
            for key in keys
            for start in range(0, self.size(key), size)
        ]

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

    def room(self, piece):
        """Return memory to read a piece into."""
        return Room.of(piece.size, self.entries[piece.key].dtype)

    def check_finite(self, piece, values):
        """Refuse files with NaN or infinity in a piece, given a sum over all: neither can vanish from it."""
        if not n_not_finite(values):
            return
        for file in self.files:
            n_values = sum(n_not_finite(file.read(*part)) for part in self.pieces([piece.key]))
            if n_values:
                refuse_non_finite(piece.key, str(file.path), n_values)

    @staticmethod
    def gram(rows):
        """Return what `dots` does; for the many rows of many pieces one product of matrices is faster."""
        rows = torch.stack(rows)
        return (rows @ rows.T)[torch.triu_indices(len(rows), len(rows)).unbind()].tolist()


def wide(dtype):
    """Return the dtype of a task vector: float32, or float64 where the members are."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@contextmanager
def workers(n_threads=None):
    """Give threads to work in, each of which lets torch use one core."""
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
