"""Tables that are computed once: kept by all that they follow from, this package's source included."""

import functools
import inspect
from pathlib import Path

from ..data import Dataset, Split
from ..predictions import digest, fingerprint
from ..runs import Run

__all__ = []


def kept(table):
    """Decorate a table function so that, given ``predictions=``, it looks there for its table first.

    The key holds the content of the members' checkpoints and of the images, all other arguments, and
    the source of this package: a table made by other code is not found.
    """
    signature = inspect.signature(table)

    @functools.wraps(table)
    def keeping(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        predictions = bound.arguments["predictions"]
        if predictions is None:
            return table(*args, **kwargs)
        others = {name: _describe(value) for name, value in bound.arguments.items() if name != "predictions"}
        key = [table.__name__, source(), *(entry for pair in others.items() for entry in pair)]
        return predictions.table(key, lambda: table(*args, **kwargs))

    return keeping


@functools.cache
def source():
    """Return the SHA-256 of the package's source files."""
    folder = Path(__file__).parents[1]
    return digest(*(path.read_bytes() for path in sorted(folder.rglob("*.py"))))


def _describe(value):
    """Return what a value is, as plain values; members by their checkpoints, images by their bytes."""
    if isinstance(value, Run):
        return [value.config.model, value.record["checkpoint_sha256"], value.record["logits_sha256"]]
    if isinstance(value, Dataset):
        return _images(value)
    if isinstance(value, Split):
        return fingerprint({name: getattr(value, name) for name in ("images", "labels", "mean", "std")})
    if isinstance(value, dict):
        return [[key, _describe(entry)] for key, entry in value.items()]
    if isinstance(value, (list, tuple)):
        return [_describe(entry) for entry in value]
    return value


@functools.lru_cache(maxsize=4)
def _images(dataset):
    """Return the fingerprint of all images and labels of a data set, and where they are: a GPU rounds otherwise."""
    tensors = {
        f"{split}.{name}": getattr(getattr(dataset, split), name)
        for split in ("train", "selection", "test")
        for name in ("images", "labels", "mean", "std")
    }
    return [fingerprint(tensors), dataset.test.images.device.type]
