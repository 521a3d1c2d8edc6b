"""The soup as a file that is ready to use: merged, and its BatchNorm measured anew."""

import copy
import json
import os
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from ..merge import merge_files, recalibrate_batchnorm
from .loading import find_member, read_member

__all__ = ["write_soup"]


def write_soup(names, out, model, training_batches):
    """Write the uniform soup of checkpoint files, with its BatchNorm recalibrated if the model has any.

    Parameters
    ----------
    names : sequence of str or Path
        As for `find_member`.
    out : str or Path
        Name of the soup, ending in ``.safetensors``; see `wamlib.merge.merge_files`.
    model : torch.nn.Module
        Of the members' architecture. Left as it is.
    training_batches : iterable of Tensor
        As for `wamlib.merge.recalibrate_batchnorm`.

    Returns
    -------
    Path
        Of the soup. Its metadata names the members with their SHA-256, and says whether it was recalibrated.

    Raises
    ------
    CheckpointError, MergeError, MemberMismatchError, NonFiniteMemberError
        As `wamlib.merge.merge_files`.
    """
    out, paths = Path(out), [find_member(name) for name in names]
    if not any(key.endswith("running_mean") for key in model.state_dict()):
        return merge_files(paths, out).path
    merge_files(paths, out, dry_run=True)  # refuses a name that is a member's, before anything takes its place
    # Merged under another name, so that no soup with averaged statistics is ever found under its own.
    part = out.with_name(f".{out.stem}.part.safetensors")
    try:
        merge_files(paths, part)
        model = copy.deepcopy(model)
        model.load_state_dict(read_member(part))
        recalibrate_batchnorm(model, training_batches)
        with safe_open(part, "pt") as file:
            notes = json.loads(file.metadata()["wamlib"])
        state = {key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}
        save_file(state, part, {"wamlib": json.dumps({**notes, "recalibrated": True})})
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out
