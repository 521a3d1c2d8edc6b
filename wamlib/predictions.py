"""Logits and features on disk, found by all that they follow from."""

import hashlib
import json
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from .config import home
from .storage import write_atomically

__all__ = ["Predictions", "fingerprint"]

# Part of every key. Raise it when a change in evaluation changes what is predicted.
VERSION = 1


def fingerprint(tensors):
    """Return the SHA-256 of named tensors: names, dtypes, shapes and bytes, in any order.

    Parameters
    ----------
    tensors : dict of str to Tensor

    Returns
    -------
    str
    """
    parts = []
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        parts.append(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest(*parts)


def digest(*contents):
    """Return the SHA-256 of bytes, one after the other."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


class Predictions:
    """Tensors that cost a pass over many images, computed once.

    The key holds the content of the weights and of the images, not their names, so that
    nothing stale is found; the folder may be deleted at any time.

    Parameters
    ----------
    root : str or Path or None
        Folder; None means ``predictions`` in `wamlib.config.home`.
    """

    def __init__(self, root=None):
        self.root = Path(root) if root is not None else home() / "predictions"

    def get(self, key, compute):
        """Return the tensor of a key; compute and keep it if it is not there.

        Parameters
        ----------
        key : sequence of str, int and bool
            All that the tensor follows from; fingerprints of tensors, not the tensors.
        compute : callable
            Takes nothing and returns the tensor.

        Returns
        -------
        Tensor
            On the CPU if it was kept, else where it was computed.
        """
        path = self._path(key, "safetensors")
        kept = _read(path)
        if kept is not None:
            return kept
        tensor = compute()
        content = {"kept": tensor.cpu().contiguous()}
        _keep(path, save(content | {"digest": _digest(content)}))
        return tensor

    def _path(self, key, suffix):
        name = digest(json.dumps([VERSION, torch.__version__, *key]).encode())
        return self.root / name[:2] / f"{name[2:]}.{suffix}"


def _keep(path, content):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:  # nothing is lost but time
        warnings.warn(f"cannot keep predictions ({error}), so they are computed again next time", stacklevel=3)


def _digest(content):
    return torch.tensor(list(bytes.fromhex(fingerprint(content))), dtype=torch.uint8)


def _read(path):
    """Return the tensor of a file, or None where it is not there or damaged: it can be computed again."""
    try:
        content = load(path.read_bytes())  # not mapped: the file may go while it is read
        found = content.pop("digest")
        return content["kept"] if torch.equal(found, _digest(content)) else None
    except (OSError, SafetensorError, KeyError):
        return None
