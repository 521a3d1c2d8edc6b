"""Merges of checkpoint files, whatever their size: memory for a few pieces, never for a model."""

import inspect
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from .checkpoint import open_checkpoint
from .deltas import Dare, TaskArithmetic, Ties
from .entries import refuse_file
from .members import is_learnable, refuse
from .method import carry_out
from .output import output
from .soups import Interpolate, Uniform
from .sources import Opened, workers
from .sphere import ModelStock, Slerp

__all__ = ["METHODS", "MergedFile", "merge_files"]

METHODS = {
    "uniform": Uniform,
    "interpolate": Interpolate,
    "slerp": Slerp,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare": Dare,
    "model_stock": ModelStock,
}
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
    chosen = _checked_call(paths, out, method, base, settings)
    with ExitStack() as stack:
        known = {}
        opened = [stack.enter_context(open_checkpoint(path, known)) for path in paths]
        start = None if base is None else stack.enter_context(open_checkpoint(base, known))
        executor = stack.enter_context(workers(n_threads))
        source = Opened(opened, start, executor, progress or (lambda what, done, total: None))
        _check_output(out, source.files)

        def report(hashes, written=False):
            rows = [
                {"file": str(file.path), "bytes": file.n_bytes, "sha256": hashes.get(file)} for file in source.files
            ]
            inputs, row_of_base = rows[: len(paths)], None if base is None else rows[-1]
            return MergedFile(out, method, settings, inputs, row_of_base, tensors, written)

        tensors = _plan(source, method, chosen.others or method)
        if dry_run:
            return report({})
        chosen.start(source)
        notes = report(dict.fromkeys(source.files, UNKNOWN) if checksums else {})
        with output(out, source.entries, _metadata(notes)) as target:
            names = {owner: [] for owner in source.merged_keys()}
            for key, owner in source.owners.items():
                names[owner].append(key)

            def write(piece, values):
                for key in names[piece.key]:
                    target.write(key, piece.start, values)

            carry_out(chosen, write)
            hashes = {}
            if checksums:
                found = source.run("hashing", lambda file: file.sha256(), source.files, lambda file: file.n_bytes)
                hashes = dict(zip(source.files, found, strict=True))
            for checkpoint in source.files:
                checkpoint.check_unchanged()
            notes = report(hashes, written=True)
            target.finish(_metadata(notes))
    return notes


def _plan(source, method, others):
    """Return a row per tensor that says how it comes about."""
    rows = []
    for key, entry in source.entries.items():
        if source.owners[key] != key:
            plan = f"copy of {source.owners[key]}"
        elif not source.is_averaged(key):
            plan = "from the first member"
        else:
            plan = method if is_learnable(key) else others
        dtype = str(entry.dtype).removeprefix("torch.")
        rows.append({"key": key, "dtype": dtype, "shape": tuple(entry.shape), "plan": plan})
    return rows


def _metadata(notes):
    """Return the metadata of the format: text by name. "format" is what other readers look for."""
    record = {"version": version("wamlib")}
    record |= {name: getattr(notes, name) for name in ("method", "settings", "inputs", "base")}
    # Weights may be numbers of numpy or torch, which JSON does not know.
    return {"format": "pt", "wamlib": json.dumps(record, default=lambda value: value.tolist())}


def _paths(item, names):
    names = list(names) if isinstance(names, Iterable) and not isinstance(names, (str, os.PathLike)) else [None]
    if not all(isinstance(name, (str, os.PathLike)) for name in names):
        _refuse_call(item, "something that names no files", "a list of paths, and one path of the output")
    return [Path(name) for name in names]


def _checked_call(paths, out, method, base, settings):
    """Return the method with its settings; refuse a call that could not mean anything, before a file is opened."""
    if not isinstance(method, str) or method not in METHODS:
        _refuse_call("the method", repr(method), f"one of {', '.join(METHODS)}")
    if not paths:
        _refuse_call("the members", "none", "at least one file")
    if base is None and METHODS[method].needs_base:
        fix = "Pass base=FILE, or --base FILE on the command line."
        _refuse_call(f"method {method!r}", "no base", "the file that the members started from", fix)
    if base is not None and not METHODS[method].needs_base:
        others = ", ".join(name for name, other in METHODS.items() if other.needs_base)
        _refuse_call(f"method {method!r}", "a base", f"none; a base is for {others}")
    if out.suffix != ".safetensors":
        _refuse_call("the output", str(out), "a name that ends in .safetensors")
    _, *arguments = inspect.signature(METHODS[method]).parameters.values()  # the number of members is no setting
    names = [argument.name for argument in arguments]
    takes = f"{method!r} takes {', '.join(names) or 'none'}"
    for unknown in sorted(settings.keys() - set(names)):
        _refuse_call("the settings", f"{unknown!r}", f"only what {takes}")
    for argument in arguments:
        if argument.default is argument.empty and argument.name not in settings:
            _refuse_call("the settings", f"no {argument.name!r}", f"what {takes}")
    return METHODS[method](len(paths), **settings)


def _refuse_call(item, got, wanted, fix="Correct the call."):
    refuse(item, got, wanted, fix, "cannot merge files")


def _check_output(out, files):
    folder = out.parent
    problems = {
        (f"no folder {folder}", "a folder that exists"): not os.path.isdir(folder),
        ("a folder", "the name of a file"): os.path.isdir(out),
        (f"a folder {folder} that cannot be written to", "one that can"): not os.access(folder, os.W_OK),
    }
    problems |= {(f"the input {file.path}", "a file that is no input"): file.is_same_file(out) for file in files}
    for got_wanted, found in problems.items():
        if found:
            refuse_file(out, *got_wanted, "Choose another output.", "cannot write a merged checkpoint")
