"""Logits and features on disk, found by all that they follow from."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from .config import home

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
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
        text = json.dumps([VERSION, torch.__version__, *key])
        name = hashlib.sha256(text.encode()).hexdigest()
        path = self.root / name[:2] / f"{name[2:]}.safetensors"
        kept = _read(path)
        if kept is not None:
            return kept
        tensor = compute()
        content = {"kept": tensor.cpu().contiguous()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(save(content | {"digest": _digest(content)}))
        os.replace(temporary, path)
        return tensor


def _digest(content):
    return torch.tensor(list(bytes.fromhex(fingerprint(content))), dtype=torch.uint8)


def _read(path):
    """Return the tensor of a file, or None where it is not there or damaged: it can be computed again."""
    try:
        content = load(path.read_bytes())  # not mapped: the file may go while it is read
        digest = content.pop("digest")
        return content["kept"] if torch.equal(digest, _digest(content)) else None
    except (OSError, SafetensorError, KeyError):
        return None
