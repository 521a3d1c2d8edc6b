"""Data sets: verified bytes in, uint8 tensors on the device out."""

from .augment import augment, draw_moves, move
from .corruptions import CORRUPTIONS, corrupt
from .dataset import Dataset, Split, load, training_size
from .fetch import fetch
from .foreign import as_if_from, foreign, photographs
from .sources import is_present, title

__all__ = [
    "CORRUPTIONS",
    "Dataset",
    "Split",
    "as_if_from",
    "augment",
    "corrupt",
    "draw_moves",
    "fetch",
    "foreign",
    "is_present",
    "load",
    "move",
    "photographs",
    "title",
    "training_size",
]
