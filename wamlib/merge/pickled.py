"""State dicts that torch saved: read without running code, and checked against the archive that they are in."""

import os
import pickle
import warnings
import zipfile

import torch

from .entries import DTYPES, Entry, refuse_file

__all__ = ["PICKLED", "read_pickled"]

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
STATE_DICT, WRITE_ANEW = "a state dict, from keys to tensors", "Write it anew: torch.save(model.state_dict(), path)."
COPY_AGAIN = f"Copy it again. {WRITE_ANEW}"


def read_pickled(path):
    """Return the entries of a state dict, mapped into memory.

    Raises
    ------
    CheckpointError
        If the file is damaged, could run code, or holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice about old formats; what it cannot read is an error
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        refuse_file(path, "a pickled module or other objects, which could run code when read", STATE_DICT, WRITE_ANEW)
    except Exception as error:  # of a damaged file torch's readers raise whatever it leads them to
        reason = str(error).partition("\n")[0][:120]
        refuse_file(path, f"a file that torch cannot read ({reason})", STATE_DICT, COPY_AGAIN)
    if not isinstance(state, dict):
        refuse_file(path, f"a {type(state).__name__}", STATE_DICT, WRITE_ANEW)
    for key, tensor in state.items():
        if not (_is_name(key) and isinstance(tensor, torch.Tensor)):
            hint = f"Write that part on its own: torch.save(checkpoint[{key!r}], path)."
            got = f"a {type(tensor).__name__} under {key!r}"
            refuse_file(path, got, STATE_DICT, hint if isinstance(tensor, dict) else WRITE_ANEW)
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            got = f"a sparse, quantized or empty tensor under {key!r}"
            refuse_file(path, got, "dense tensors with values", WRITE_ANEW)
        if tensor.dtype not in DTYPES.values():
            known = f"one of {', '.join(map(str, DTYPES.values()))}"
            refuse_file(path, f"{tensor.dtype} under {key!r}", known, "Convert that tensor before it is saved.")
    _check_storages(path, state)
    state = {key: tensor.detach().resolve_conj().resolve_neg() for key, tensor in state.items()}
    return {key: Entry(tensor.dtype, tuple(tensor.shape), tensor) for key, tensor in state.items()}


def _is_name(key):
    """Return whether a key is text that UTF-8 can hold, which half of a character pair is not."""
    return isinstance(key, str) and not any("\ud800" <= c <= "\udfff" for c in key)


def _check_storages(path, state):
    """Refuse a file whose tensors are longer than what it holds of them: torch maps what the pickle says, unchecked."""
    storages = {tensor.untyped_storage() for tensor in state.values()}
    places = sorted({(storage.data_ptr(), storage.nbytes()) for storage in storages if storage.nbytes()})
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            kept = [part for part in members if part.filename.split("/")[1:-1] == ["data"] and part.file_size]
            for part in kept:
                archive.open(part).close()  # which compares what stands before the part with the list at the end
    except Exception as error:  # zipfile raises struct.error, UnicodeDecodeError, ... beside its own
        refuse_file(path, f"a damaged archive ({error})", STATE_DICT, COPY_AGAIN)
    sizes = [part.file_size if part.compress_type == zipfile.ZIP_STORED else None for part in kept]
    if sizes != [size for _, size in places]:
        refuse_file(path, "tensors that differ in size from the parts of the archive", STATE_DICT, COPY_AGAIN)
    for key, tensor in state.items():
        if tensor.numel() * tensor.itemsize > os.path.getsize(path):
            fix = f"Save it as tensor.contiguous(). {WRITE_ANEW}"
            refuse_file(path, f"a tensor that repeats few values under {key!r}", STATE_DICT, fix)
