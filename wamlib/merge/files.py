"""Merges of checkpoint files, whatever their size: memory for a few pieces, never for a model."""

import inspect
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..errors import CheckpointError, MergeError
from .checkpoint import open_checkpoint
from .members import is_learnable
from .output import output
from .pool import Pool, workers
from .streamed import METHODS, OF_A_BASE, check_settings

__all__ = ["MergedFile", "merge_files"]

UNKNOWN = "0" * 64  # stands where a SHA-256 will be


@dataclass(frozen=True)
class MergedFile:
    """A merged file, or the plan of one.

    Parameters
    ----------
    path : Path
    method : str
    settings : dict
        The method's arguments.
    inputs : list of dict
        Per member ``file``, ``bytes`` and ``sha256`` (None in a plan, or if not asked for).
    base : dict or None
        The same of the base.
    tensors : list of dict
        Per tensor ``key``, ``dtype``, ``shape``, and ``plan``: how it comes about.
    written : bool
        False for a plan.
    """

    path: Path
    method: str
    settings: dict
    inputs: list[dict]
    base: dict | None
    tensors: list[dict]
    written: bool


def merge_files(
    paths, out, method="uniform", *, base=None, dry_run=False, checksums=True, n_threads=None, progress=None, **settings
):
    """Merge checkpoint files into one, reading them piece by piece.

    The values are those that the function of the same name returns for the loaded state
    dicts: to the bit, but for SLERP and Model Stock, whose angles may differ in the
    sixteenth digit. Memory is needed for some megabytes per thread, whatever the size and
    the number of the files.

    Parameters
    ----------
    paths : sequence of str or Path
        Members: safetensors files, or state dicts that ``torch.save`` wrote (``.pt``, ``.pth``,
        ``.bin``, ``.ckpt``), opened with ``weights_only=True``; both kinds in one merge if need be.
    out : str or Path
        Name of the merged file, ending in ``.safetensors``. It appears, or replaces an old
        file of that name, in one step when everything is written. Never one of the inputs.
    method : {"uniform", "interpolate", "slerp", "task_arithmetic", "ties", "dare", "model_stock"}
        See `uniform_soup`, `interpolate`, `slerp`, `task_arithmetic`, `ties`, `dare` and `model_stock`.
    base : str, Path or None
        The file that the members started from, for the last four.
    dry_run : bool
        Check everything that can be checked without reading values, write nothing, and return the plan.
    checksums : bool
        Record the SHA-256 of each input, which takes longer than the merge itself.
    n_threads : int or None
        None means as many as there are cores, at most 8.
    progress : callable or None
        Called with what is being done, how much of it is done, and how much there is.
    **settings
        The method's other arguments: ``weights``, ``alpha``, ``scope``, ``scale``, ``density``, ``seed``.

    Returns
    -------
    MergedFile
        What was done. The same stands in the file's metadata: method, settings, inputs and
        base with their SHA-256, and the version of wamlib, as JSON under ``wamlib``.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated, corrupt, no state dict, or changes while it is read;
        if the output is an input, or cannot be written.
    MergeError, MemberMismatchError, NonFiniteMemberError
        As the method on state dicts, naming the file; and if the method or a setting is unknown.
        After any error there is no new file, and an old one of that name is as it was.

    Notes
    -----
    Tied tensors are merged once. The format knows no ties, so each of their names has a copy.

    References
    ----------
    The safetensors format. https://huggingface.co/docs/safetensors
    """
    paths, out = _paths("the members", paths), _paths("the output", [out])[0]
    _check_call(paths, out, method, base, settings)
    with ExitStack() as stack:
        known = {}
        opened = [stack.enter_context(open_checkpoint(path, known)) for path in paths]
        start = None if base is None else stack.enter_context(open_checkpoint(base, known))
        executor = stack.enter_context(workers(n_threads))
        pool = Pool(opened, start, executor, progress or (lambda what, done, total: None))
        pool.check()
        _check_output(out, pool.files)
        tensors = _plan(pool, method)
        if dry_run:
            return _report(out, method, settings, pool, {}, tensors)
        recipe = METHODS[method](pool, **settings)
        notes = _report(out, method, settings, pool, dict.fromkeys(pool.files, UNKNOWN) if checksums else {}, tensors)
        with output(out, pool.entries, _metadata(notes)) as target:
            _write(pool, recipe, target)
            hashes = {}
            if checksums:
                found = pool.run("hashing", lambda file: file.sha256(), pool.files, lambda file: file.n_bytes)
                hashes = dict(zip(pool.files, found, strict=True))
            for checkpoint in pool.files:
                checkpoint.check_unchanged()
            notes = _report(out, method, settings, pool, hashes, tensors, written=True)
            target.finish(_metadata(notes))
    return notes


def _write(pool, recipe, target):
    """Merge all pieces into the file."""
    names = {key: [key] for key in pool.merged_keys()}
    for key, first in pool.tied.items():
        names[pool.tied.get(first, first)].append(key)

    def write(pieces):
        for piece in pieces:
            values = recipe.merge(piece)
            for key in names[piece.key]:
                target.write(key, piece.start, values)

    # One item is what one thread does in order.
    work = [pool.pieces([key]) for key in names] if recipe.in_order else [[piece] for piece in pool.pieces(names)]
    pool.run("merging", write, work, lambda pieces: sum(piece.size for piece in pieces))
    for piece in recipe.again():
        write([piece])


def _plan(pool, method):
    """Return a row per tensor that says how it comes about."""
    rows = []
    for key, entry in pool.entries.items():
        if key in pool.tied:
            plan = f"copy of {pool.tied[key]}"
        elif not pool.is_averaged(key):
            plan = "from the first member"
        elif is_learnable(key) or method in ("uniform", "interpolate"):
            plan = method
        else:
            plan = "on the line" if method == "slerp" else "mean"
        dtype = str(entry.dtype).removeprefix("torch.")
        rows.append({"key": key, "dtype": dtype, "shape": tuple(entry.shape), "plan": plan})
    return rows


def _report(out, method, settings, pool, hashes, tensors, written=False):
    def described(file):
        return {"file": str(file.path), "bytes": file.n_bytes, "sha256": hashes.get(file)}

    base = None if pool.base is None else described(pool.base)
    return MergedFile(out, method, settings, [described(file) for file in pool.members], base, tensors, written)


def _metadata(notes):
    """Return the metadata of the format: text by name. "format" is what other readers look for."""
    record = {
        "version": version("wamlib"), "method": notes.method, "settings": notes.settings,
        "inputs": notes.inputs, "base": notes.base,
    }  # fmt: skip
    # Weights may be numbers of numpy or torch, which JSON does not know.
    return {"format": "pt", "wamlib": json.dumps(record, default=lambda value: value.tolist())}


def _paths(item, names):
    names = list(names) if isinstance(names, Iterable) and not isinstance(names, (str, os.PathLike)) else [None]
    if not all(isinstance(name, (str, os.PathLike)) for name in names):
        raise MergeError("cannot merge files", item=item, got="something that names no files",
                         wanted="a list of paths, and one path of the output", fix="Correct the call.")  # fmt: skip
    return [Path(name) for name in names]


def _check_call(paths, out, method, base, settings):
    """Refuse a call that could not mean anything, before a file is opened."""
    problem, fix = None, "Correct the call."
    known = ", ".join(METHODS)
    if not isinstance(method, str) or method not in METHODS:
        problem = ("the method", repr(method), f"one of {known}")
    elif not paths:
        problem = ("the members", "none", "at least one file")
    elif (base is None) == (method in OF_A_BASE):
        if base is None:
            problem = (f"method {method!r}", "no base", "the file that the members started from")
            fix = "Pass base=FILE, or --base FILE on the command line."
        else:
            problem = (f"method {method!r}", "a base", f"none; a base is for {', '.join(OF_A_BASE)}")
    elif out.suffix != ".safetensors":
        problem = ("the output", str(out), "a name that ends in .safetensors")
    if problem is None:
        arguments = dict(list(inspect.signature(METHODS[method]).parameters.items())[1:])
        unknown = sorted(settings.keys() - arguments.keys())
        needed = [n for n, p in arguments.items() if p.default is p.empty and n not in settings]
        takes = f"{method!r} takes {', '.join(arguments) or 'none'}"
        if unknown:
            problem = ("the settings", f"{unknown[0]!r}", f"only what {takes}")
        elif needed:
            problem = ("the settings", f"no {needed[0]!r}", f"what {takes}")
    if problem:
        item, got, wanted = problem
        raise MergeError("cannot merge files", item=item, got=got, wanted=wanted, fix=fix)
    check_settings(method, len(paths), settings)


def _check_output(out, files):
    folder = out.parent
    problem = None
    for checkpoint in files:
        if checkpoint.is_same_file(out):
            problem = (f"the input {checkpoint.path}", "a file that is no input")
    if not os.path.isdir(folder):
        problem = (f"no folder {folder}", "a folder that exists")
    elif os.path.isdir(out):
        problem = ("a folder", "the name of a file")
    elif not os.access(folder, os.W_OK):
        problem = (f"a folder {folder} that cannot be written to", "one that can")
    if problem:
        got, wanted = problem
        raise CheckpointError(
            "cannot write a merged checkpoint", item=str(out), got=got, wanted=wanted, fix="Choose another output."
        )
