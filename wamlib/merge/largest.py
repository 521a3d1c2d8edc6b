"""The k-th largest magnitude of a task vector that is never in memory as a whole."""

import numpy as np
import torch

from .deltas import wide

__all__ = ["thresholds"]

SAMPLE = 2**17  # entries from which the answer is guessed before it is searched for
BLOCK = 2**10  # entries of the sample that are read together
HELD = 2**20  # entries around the guess that are kept in memory


def thresholds(pool, keys, density):
    """Return, per member, the magnitude of the int(density * n)-th largest entry of its task vector over these keys.

    Exactly: a guess from a sample says between which two magnitudes to look, a pass over
    the files counts what lies above and keeps what lies between.

    Parameters
    ----------
    pool : Pool
    keys : list of str
    density : float

    Returns
    -------
    list of float
        Infinity if no entry is kept, 0 if all are.
    """
    n = n_entries(pool, keys)
    kept = int(density * n)
    if not 0 < kept < n:
        return [0.0 if kept else float("inf")] * len(pool.members)
    # Positions spread evenly over all entries, as short runs, because single values would cost a read each.
    runs = _runs(pool, keys, n)
    base = _read(pool, pool.base, runs)

    def search(member):
        return _kth(pool, member, keys, kept, (_read(pool, member, runs) - base).abs())

    return pool.run("finding thresholds", search, pool.members, lambda member: n)


def n_entries(pool, keys):
    """Return the number of values of these tensors together."""
    return sum(pool.entries[key].size for key in keys)


def _kth(pool, member, keys, kept, sample):
    """Search for the magnitude of the kept-th largest entry between ever closer bounds.

    Magnitudes are ordered as the integers that their bits spell, so that two bounds can be
    neighbours. The answer lies above ``floor`` and is at most ``roof``.
    """
    dtype, bits = sample.dtype, torch.int64 if sample.dtype == torch.float64 else torch.int32

    def magnitude(number):
        return torch.tensor(number, dtype=bits).view(dtype).item() if number >= 0 else -1.0

    low, high = torch.from_numpy(_guess(sample.numpy(), kept / n_entries(pool, keys))).view(bits).tolist()
    low -= 1  # entries equal to the lower bound are looked at too
    floor, roof, crowds = -1, torch.tensor(float("inf"), dtype=dtype).view(bits).item(), 0
    while roof - floor > 1:
        above, n_between, between = _scan(
            pool, member, keys, sample.numpy().dtype, magnitude(low), magnitude(high), high - low > 1
        )
        if kept <= above:
            floor = low = high
            high = roof
        elif kept > above + n_between:
            roof = high = low
            low = floor
        elif between is not None:
            place = n_between - (kept - above)
            return float(np.partition(between, place)[place])
        else:
            # Too many to be held: look closer, where the answer would be if they lay evenly, or halve.
            floor, roof, crowds = low, high, crowds + 1
            share = HELD / 4 / n_between if crowds % 3 else 0.25
            middle = (kept - above) / n_between if crowds % 3 else 0.5
            low = max(floor, high - int((middle + share) * (roof - floor)) - 1)
            high = min(roof, max(low + 1, high - int((middle - share) * (roof - floor))))
    return magnitude(roof)


def _guess(sample, share):
    """Return two entries of the sample between which the answer lies, but for a rare accident."""
    n = len(sample)
    spread = 5 * np.sqrt(n * share * (1 - share)) + 0.002 * n + 1
    places = [int(np.clip(n * (1 - share) + side * spread, 0, n - 1)) for side in (-1, 1)]
    return np.partition(sample, places)[places]


def _scan(pool, member, keys, dtype, low, high, keep):
    """Count the entries above high, and those above low up to high; return the latter too if few and wanted."""
    above, n_between, between = 0, 0, [] if keep else None
    rooms = {}  # pieces come in few sizes, and memory that was just used is still in the cache
    for piece in pool.pieces(keys):
        size = pool.entries[piece.key].dtype, piece.size
        if size not in rooms:
            rooms[size] = pool.room(piece), pool.room(piece), np.empty(piece.size, bool), np.empty(piece.size, bool)
        room, base_room, over, inside = rooms[size]
        own = wide(size[0])
        entries, base = member.read(*piece, room).to(own), pool.base.read(*piece, base_room).to(own)
        entries = torch.sub(entries, base, out=entries if entries is room.values else None)
        entries = entries.abs_().numpy().astype(dtype, copy=False)
        np.greater(entries, high, out=over)
        np.greater(entries, low, out=inside)
        n_over = np.count_nonzero(over)
        above += n_over
        n_between += np.count_nonzero(inside) - n_over
        if n_between > HELD:
            between = None
        if between is not None:
            between.append(entries[np.not_equal(over, inside, out=inside)])
    return above, n_between, None if between is None else np.concatenate(between)


def _runs(pool, keys, n):
    """Return short pieces that lie evenly over all entries of these tensors; all of them if there are few."""
    if n <= SAMPLE:
        return pool.pieces(keys)
    step = n * BLOCK // SAMPLE
    runs, at = [], step // 2
    for key in keys:
        size = pool.entries[key].size
        for start in range(at, size, step):
            runs.append((key, start, min(start + BLOCK, size)))
        at = (at - size) % step if at < size else at - size
    return runs


def _read(pool, checkpoint, runs):
    """Return these values one after the other, as wide as a task vector is."""
    dtype = torch.float64 if any(pool.entries[key].dtype == torch.float64 for key, _, _ in runs) else torch.float32
    out, at = torch.empty(sum(stop - start for _, start, stop in runs), dtype=dtype), 0
    for key, start, stop in runs:
        out[at : at + stop - start] = checkpoint.read(key, start, stop)
        at += stop - start
    return out
