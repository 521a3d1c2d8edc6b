"""Data sets: verified bytes in, uint8 tensors on the device out."""

from .augment import augment
from .dataset import Dataset, Split, load
from .fetch import fetch
from .sources import is_present, title

__all__ = ["Dataset", "Split", "augment", "fetch", "is_present", "load", "title"]
