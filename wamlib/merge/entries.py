"""What a checkpoint file holds: tensors by name, each with a dtype, a shape and a place; and the memory to read one."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..errors import CheckpointError

__all__ = ["DTYPES", "Entry", "Room", "as_bytes", "refuse_file"]

# Names of the format's specification. https://huggingface.co/docs/safetensors
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


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
    device = torch.device("cpu")

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


def as_bytes(values):
    """Return the memory of a contiguous one-dimensional tensor."""
    return memoryview(values.view(torch.uint8).numpy())


def refuse_file(path, got, wanted, fix, doing="cannot read a checkpoint"):
    """Raise the error for a file that cannot be worked with."""
    raise CheckpointError(doing, item=str(path), got=got, wanted=wanted, fix=fix) from None
