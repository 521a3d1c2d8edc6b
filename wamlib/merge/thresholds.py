"""The k-th largest magnitude of a task vector that is never in memory as a whole."""

import numpy as np
import torch

from .sources import wide

__all__ = ["thresholds"]

SAMPLE = 2**17  # entries from which the answer is guessed before it is searched for
BLOCK = 2**10  # entries of the sample that are read together
HELD = 2**20  # entries around the guess that are kept in memory


def thresholds(source, keys, density):
    """Return, per member, the magnitude of the int(density * n)-th largest entry of its task vector over these keys.

    Exactly: of files, a guess from a sample says between which two magnitudes to look, a pass
    over them counts what lies above and keeps what lies between.

    Parameters
    ----------
    source : Source
    keys : list of str
    density : float

    Returns
    -------
    list of float
        Infinity if no entry is kept, 0 if all are.
    """
    n = sum(map(source.size, keys))
    kept = int(density * n)
    if not 0 < kept < n:
        return [0.0 if kept else float("inf")] * len(source.members)

    # Positions spread evenly over all entries, as short runs, because single values would cost a read each.
    runs = source.pieces(keys) if source.in_memory or n <= SAMPLE else _runs(source, keys, n)

    def search(member):
        entries = _magnitudes(source, member, runs)
        if source.in_memory:
            if entries.device.type != "cpu":
                return entries.kthvalue(n - kept + 1).values.item()
            return float(np.partition(entries.numpy(), n - kept)[n - kept])  # in half of kthvalue's time
        return _kth(source, member, keys, n, kept, entries.numpy())

    return source.run("finding thresholds", search, source.members, lambda member: n)


def _kth(source, member, keys, n, kept, sample):
    """Search for the magnitude of the kept-th largest entry between ever closer bounds.

    Magnitudes are ordered as the integers that their bits spell, so that two bounds can be
    neighbours. The answer lies above ``floor`` and is at most ``roof``.
    """
    dtype, bits = (torch.float64, torch.int64) if sample.dtype == np.float64 else (torch.float32, torch.int32)

    def magnitude(number):
        return torch.tensor(number, dtype=bits).view(dtype).item() if number >= 0 else -1.0

    low, high = torch.from_numpy(_guess(sample, kept / n)).view(bits).tolist()
    low -= 1  # entries equal to the lower bound are looked at too
    floor, roof, crowds = -1, torch.tensor(float("inf"), dtype=dtype).view(bits).item(), 0
    while roof - floor > 1:
        above, n_between, between = _scan(
            source, member, keys, sample.dtype, magnitude(low), magnitude(high), high - low > 1
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


def _scan(source, member, keys, dtype, low, high, keep):
    """Count the entries above high, and those above low up to high; return the latter too if few and wanted."""
    above, n_between, between = 0, 0, [] if keep else None
    rooms = {}  # pieces come in few sizes, and memory that was just used is still in the cache
    for piece in source.pieces(keys):
        size = source.entries[piece.key].dtype, piece.size
        if size not in rooms:
            rooms[size] = source.room(piece), source.room(piece), np.empty(piece.size, bool), np.empty(piece.size, bool)
        room, base_room, over, inside = rooms[size]
        own = wide(size[0])
        entries, base = member.read(*piece, room).to(own), source.base.read(*piece, base_room).to(own)
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


def _runs(source, keys, n):
    """Return short pieces that lie evenly over all entries of these tensors."""
    step = n * BLOCK // SAMPLE
    runs, at = [], step // 2
    for key in keys:
        size = source.size(key)
        for start in range(at, size, step):
            runs.append((key, start, min(start + BLOCK, size)))
        at = (at - size) % step if at < size else at - size
    return runs


def _magnitudes(source, member, runs):
    """Return the magnitudes of these entries of a task vector one after the other, as wide as the widest of them."""
    dtypes = {key: wide(source.entries[key].dtype) for key, _, _ in runs}
    total = sum(stop - start for _, start, stop in runs)
    dtype, at = max(dtypes.values(), key=lambda dtype: dtype.itemsize), 0
    out = torch.empty(total, dtype=dtype, device=source.base.read(*runs[0]).device)
    for key, start, stop in runs:
        own = dtypes[key]
        difference = member.read(key, start, stop).to(own) - source.base.read(key, start, stop).to(own)
        out[at : at + stop - start] = difference
        at += stop - start
    return out.abs_()
