"""The run store: one folder per run, found by its config, trained once."""

import contextlib
import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import data, evaluate, linear, models, stacked
from .config import TrainConfig, home
from .errors import CheckpointError, RunNotFoundError
from .provenance import describe_code, describe_machine, describe_versions
from .train import check_finite, initial_model, pick_device, train

__all__ = ["Run", "RunStore"]

CHECKPOINT, LOGITS, RECORD, RESUME = "checkpoint.safetensors", "logits.safetensors", "record.json", "resume.safetensors"


@dataclass(frozen=True)
class Run:
    """A finished run: its config, its record, and its weights when asked for.

    Parameters
    ----------
    config : TrainConfig
    record : dict
        What the JSON record says: metrics, history, split hash, versions, machine, commit.
    path : Path
        Folder of the run.
    """

    config: TrainConfig
    record: dict
    path: Path

    @cached_property
    def state(self):
        """Weights of the member, as a dict of str to Tensor on the CPU, checked against the record."""
        return _load_checked(self.path / CHECKPOINT, self.record["checkpoint_sha256"])

    @cached_property
    def logits(self):
        """Logits on the "selection" and the "test" split, as a dict of str to Tensor."""
        return _load_checked(self.path / LOGITS, self.record["logits_sha256"])


class RunStore:
    """Runs on disk below one folder.

    A run is finished when its record is there; the record is written last and in
    one step, so a killed training leaves either no record or a whole one.

    Parameters
    ----------
    root : str or Path or None
        Folder of the store; None means ``runs`` in `wamlib.config.home`.
    data_root : str or Path or None
        Folder of the data sets; None means ``raw`` in `wamlib.config.home`.
    """

    def __init__(self, root=None, data_root=None):
        self.root = Path(root) if root is not None else home() / "runs"
        self.data_root = Path(data_root) if data_root is not None else home() / "raw"

    def __contains__(self, config):
        return (self.root / config.run_id / RECORD).is_file()

    def __getitem__(self, config):
        """Return the finished run of a config.

        Raises
        ------
        RunNotFoundError
            If there is none.
        CheckpointError
            If its record is damaged.
        """
        path = self.root / config.run_id
        if config not in self:
            raise RunNotFoundError(
                "cannot find a run",
                item=config.run_id,
                got=f"no record in {path}",
                wanted="a finished run",
                fix="Train it with RunStore.train, or run `make sweep`.",
            )
        return Run(config, _read_record(path / RECORD), path)

    def dataset(self, config, device="cpu"):
        """Return the data set that a config names, with its training images."""
        sizes = {"n_train": config.n_train, "n_eval": config.n_eval, "split_seed": config.split_seed}
        dataset = data.load(config.dataset, self.data_root, **sizes, device=device)
        dataset = dataset.with_unit_pixels() if config.pixels == "unit" else dataset
        return dataset.with_shuffled_labels(config.seed) if config.shuffle_labels else dataset

    def train(self, config, *, device="auto", progress=None):
        """Return the run of a config, training it, and its start, if that was not done yet.

        Two processes that ask for the same run do not train it twice: the second
        waits and takes the result of the first.

        Parameters
        ----------
        config : TrainConfig
        device : str or torch.device
            "auto" takes CUDA, else MPS, else the CPU.
        progress : callable or None
            Called after each epoch with its row of the history.

        Returns
        -------
        Run
        """
        if config in self:
            return self[config]
        start = None if config.start is None else self.train(config.start, device=device).state
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".locks" / config.run_id):
            if config not in self:
                self._train(config, start, pick_device(device), progress)
        return self[config]

    def train_together(self, configs, *, device="auto"):
        """Return the runs of several members, training those that are missing at once.

        Nothing is kept of a training that is cut short.

        Parameters
        ----------
        configs : list of TrainConfig
            One of the lists that `wamlib.linear.group` or `wamlib.stacked.group` returns.
        device : str or torch.device
            "auto" takes CUDA, else MPS, else the CPU.

        Returns
        -------
        list of Run
        """
        device = pick_device(device)
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            # In one order everywhere, so that two processes never wait for each other.
            for run_id in sorted(config.run_id for config in configs):
                locks.enter_context(FileLock(self.root / ".locks" / run_id))
            missing = [config for config in configs if config not in self]
            if missing:
                dataset = self.dataset(replace(missing[0], shuffle_labels=False), device)
                # Labels are shuffled in the training images only, so all can be evaluated on the same ones.
                trained, logits = self._train_linear(missing, dataset) or self._train_stacked(missing, dataset)
                for number, (config, (state, history)) in enumerate(zip(missing, trained, strict=True)):
                    if math.isfinite(history[-1]["loss"]):
                        own = {name: z[number] for name, z in logits.items()}
                        self._keep(config, dataset, state, history, own, device, together=len(missing))
                for config, (_, history) in zip(missing, trained, strict=True):
                    check_finite(config, history[-1])  # now that the others are kept
        return [self[config] for config in configs]

    def _train_linear(self, missing, dataset):
        """Return members and their logits on each split, shape (member, image, class); None if they are not linear."""
        if not all(linear.can_train_together(config) for config in missing):
            return None
        trained = linear.train_together(missing, dataset)
        states = [state for state, _ in trained]
        return trained, {name: linear.predict_together(states, split) for name, split in _held_out(dataset)}

    def _train_stacked(self, missing, dataset):
        starts = [None if config.start is None else self[config.start].state for config in missing]
        trained = stacked.train_stacked(missing, dataset, starts, device=dataset.test.images.device)
        logits = {name: [] for name, _ in _held_out(dataset)}
        model = models.build(missing[0].model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        model.to(dataset.test.images.device, memory_format=torch.channels_last)
        for state, _ in trained:
            model.load_state_dict(state)
            for name, split in _held_out(dataset):
                logits[name].append(evaluate.predict_logits(model, split))
        return trained, logits

    def _train(self, config, start, device, progress):
        path = self.root / config.run_id
        path.mkdir(parents=True, exist_ok=True)
        dataset = self.dataset(config, device)
        state, history = train(config, dataset, start=start, device=device, resume=path / RESUME, progress=progress)
        model = models.build(config.model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        model.load_state_dict(state)
        model.to(device, memory_format=torch.channels_last)
        logits = {name: evaluate.predict_logits(model, split) for name, split in _held_out(dataset)}
        self._keep(config, dataset, state, history, logits, device)
        (path / RESUME).unlink(missing_ok=True)

    def _keep(self, config, dataset, state, history, logits, device, together=1):
        """Write the run of a trained member, the record last."""
        path = self.root / config.run_id
        path.mkdir(parents=True, exist_ok=True)
        record = {
            "run_id": config.run_id,
            "status": "done",
            "config": config.to_dict(),
            "metrics": {name: evaluate.metrics(logits[name], split.labels) for name, split in _held_out(dataset)},
            "history": history,
            "seconds": sum(row["seconds"] for row in history),
            "trained_together": together,
            "split_hash": dataset.split_hash,
            "machine": describe_machine(device, config.threads),
            "versions": describe_versions(),
            "code": describe_code(),
            "checkpoint_sha256": _save(state, path / CHECKPOINT),
            "logits_sha256": _save({k: v.cpu().contiguous() for k, v in logits.items()}, path / LOGITS),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _write_atomically(path / RECORD, json.dumps(record, indent=1).encode())

    def start_state(self, config):
        """Return the weights that training began with: those of ``config.start``, or the random ones.

        Raises
        ------
        RunNotFoundError
            If the start is no finished run.
        """
        start = None if config.start is None else self[config.start].state
        return initial_model(config, self.dataset(config), start).state_dict()

    def table(self):
        """Return one row per finished run: its settings, test metrics, seconds and provenance."""
        rows = []
        for path in sorted(self.root.glob(f"*/{RECORD}")):
            record = _read_record(path)
            start = record["config"].pop("start")
            test = {f"test_{name}": value for name, value in record["metrics"]["test"].items()}
            rows.append(
                {"run_id": record["run_id"], **record["config"], "has_start": start is not None, **test}
                | {"seconds": record["seconds"], "device": record["machine"]["device"], "finished": record["finished"]}
            )
        return pd.DataFrame(rows)


def _held_out(dataset):
    """Return the splits that no member is trained on, with their names."""
    return [("selection", dataset.selection), ("test", dataset.test)]


def _read_record(path):
    try:
        record = json.loads(path.read_text())
        record["config"], record["metrics"], record["checkpoint_sha256"]
        return record
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "cannot read a run",
            item=str(path),
            got=f"a damaged record ({type(error).__name__}: {error})",
            wanted="the JSON that training wrote",
            fix=f"Delete the folder {path.parent} and run the command again: it trains this run anew.",
        ) from error


def _load_checked(path, digest):
    """Load tensors after checking the file's bytes against the record."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found == digest:
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in json.loads(file.metadata()["order"])}
        problem = f"sha256 {found[:16]}..."
    except (OSError, SafetensorError) as error:
        problem = f"no readable file ({error})"
    raise CheckpointError(
        "cannot load weights",
        item=str(path),
        got=problem,
        wanted=f"sha256 {digest[:16]}..., as recorded",
        fix=f"Delete the folder {path.parent} and run the command again: it trains this run anew.",
    )


def _save(tensors, path):
    """Write tensors in one step and return the SHA-256 of the file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    # safetensors sorts its keys; the order of the forward pass is worth keeping, see wamlib.probe.scale.
    save_file(tensors, temporary, metadata={"order": json.dumps(list(tensors))})
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    os.replace(temporary, path)
    return digest


def _write_atomically(path, content):
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may keep the name and lose the content
    os.replace(temporary, path)
