"""Sums of tensors in float64, rounded once."""

import cmath
import itertools

import torch

from ..errors import MergeError

__all__ = ["cast", "check_range", "dots", "n_not_finite", "weighted_sum"]


def weighted_sum(tensors, shares):
    """Return ``sum(share * tensor)`` in float64; on MPS, which has no float64, on the CPU.

    Each tensor is read before the next one is asked for, so that all may use the same memory.
    """
    total = None
    for tensor, share in zip(tensors, shares, strict=True):
        if total is None:
            dtype = torch.complex128 if tensor.is_complex() else torch.float64
            where = torch.device("cpu") if tensor.device.type == "mps" else tensor.device
            total = torch.zeros(tensor.shape, dtype=dtype, device=where)
        tensor = tensor.detach().to(where)
        # torch adds no float8 to anything.
        total.add_(tensor.to(dtype) if tensor.dtype.itemsize == 1 else tensor, alpha=share)
    return total


def cast(wide, like):
    """Round once, to the dtype and device of a member's tensor; refuse a result that this dtype cannot hold."""
    narrow = wide.to(like.device, like.dtype)
    check_range(narrow)
    return narrow


def check_range(merged):
    """Refuse a merged tensor with values beyond the range of its dtype, which are infinite, or NaN for float8."""
    n_values = n_not_finite(merged)
    if n_values:
        got = f"{n_values} value(s) beyond the range of {merged.dtype}"
        fix = "Choose a scale, alpha or weights of usual size, or members of a wider dtype."
        raise MergeError("cannot merge", item="the result", got=got, wanted="finite weights", fix=fix)


def n_not_finite(tensor):
    """Return how many values are NaN or infinite."""
    values = tensor.detach()
    values = values.float() if values.dtype.itemsize == 1 else values  # torch sums no float8
    # Neither vanishes from a sum, which is many times faster than isfinite(); but the sum itself may overflow.
    return 0 if cmath.isfinite(values.sum().item()) else int((~torch.isfinite(values)).sum())


def dots(rows):
    """Return the dot products of all pairs of vectors, each with itself too: xx, xy, ..., yy, ..."""
    return [torch.dot(x, y).item() for x, y in itertools.combinations_with_replacement(rows, 2)]
