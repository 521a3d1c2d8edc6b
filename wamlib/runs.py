"""The run store: one folder per run, found by its config, trained once."""

import contextlib
import hashlib
import json
import math
import os
import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError

from . import data, evaluate, linear, models, stacked
from .config import TrainConfig, home
from .errors import CheckpointError, DataError, RunNotFoundError
from .provenance import describe_code, describe_machine, describe_versions
from .records import decode_record, encode_record
from .storage import Bucket, Folder, open_storage, pack, unpack
from .train import check_finite, initial_model, pick_device, train

__all__ = ["Run", "RunStore"]

CHECKPOINT, LOGITS = "checkpoint", "logits"
RECORD, RESUME, FAILURE = "record.json", "resume", "failure.json"


@dataclass(frozen=True)
class Run:
    """A finished run: its config, its record, and its weights when asked for.

    Parameters
    ----------
    config : TrainConfig
    record : dict
        What the JSON record says: metrics, history, split hash, versions, machine, commit.
    storage : wamlib.storage.Folder or wamlib.storage.Bucket
        Where the files of the run are.
    """

    config: TrainConfig
    record: dict
    storage: Folder | Bucket = field(compare=False, repr=False)

    @property
    def path(self):
        """Folder of the run as a Path, or its URL in an object store."""
        return self.storage.path(self.config.run_id)

    @cached_property
    def state(self):
        """Weights of the member, as a dict of str to Tensor on the CPU, checked against the record."""
        return self._load(CHECKPOINT)

    @cached_property
    def logits(self):
        """Logits on the "selection" and the "test" split, as a dict of str to Tensor."""
        return self._load(LOGITS)

    def check_images(self, dataset):
        """Refuse a data set whose images are not those that the member was trained on.

        A run is found by the name of its data set, and a folder may hold other images by now.

        Parameters
        ----------
        dataset : wamlib.data.Dataset
            Loaded as the config says.

        Raises
        ------
        DataError
        """
        if dataset.split_hash != self.record["split_hash"]:
            doing, item = "cannot use a run that was trained before", f"{self.config.dataset}, run {self.config.run_id}"
            wanted = f"{self.record['split_hash'][:12]}, those that the member was trained on"
            fix = "The images changed since: give their folder another name, or delete the runs trained on it."
            raise DataError(doing, item, f"images with the split hash {dataset.split_hash[:12]}", wanted, fix)

    def _load(self, stem):
        """Load tensors after checking the file's bytes against the record."""
        digest = self.record[f"{stem}_sha256"]
        name = f"{self.config.run_id}/{self.storage.name_of(stem, 'safetensors', digest)}"
        try:
            content = self.storage.read(name)
            found = hashlib.sha256(content).hexdigest()
            if found == digest:
                # safetensors sorts its keys; the order of the forward pass is worth keeping, see wamlib.probe.scale.
                tensors, notes = unpack(content)
                return {key: tensors[key] for key in json.loads(notes["order"])}
            problem = f"sha256 {found[:16]}..."
        except (FileNotFoundError, SafetensorError) as error:
            problem = f"no readable file ({error})"
        wanted = f"sha256 {digest[:16]}..., as recorded"
        fix = f"Delete the folder {self.path} and run the command again: it trains this run anew."
        raise CheckpointError("cannot load weights", str(self.storage.path(name)), problem, wanted, fix)


class RunStore:
    """Runs below one folder, or one URL of an object store.

    A run is finished when its record is there; the record is written last and in
    one step, so a killed training leaves either no record or a whole one.

    Parameters
    ----------
    root : str or Path or None
        Folder of the store, or a URL such as ``s3://bucket/runs``; None means the environment variable
        ``WAMLIB_RUNS`` if it is set, else ``runs`` in `wamlib.config.home`.
    data_root : str or Path or None
        Folder of the data sets; None means ``raw`` in `wamlib.config.home`.

    Raises
    ------
    ConfigError
        If nothing that is installed reads such a URL.
    """

    def __init__(self, root=None, data_root=None):
        if root is None:
            root = os.environ.get("WAMLIB_RUNS") or home() / "runs"
        self.storage = open_storage(root)
        self.data_root = Path(data_root if data_root is not None else home() / "raw").absolute()

    @property
    def root(self):
        """The folder, as an absolute Path, or the URL."""
        return self.storage.root

    def __contains__(self, config):
        return self.storage.has(f"{config.run_id}/{RECORD}")

    def missing(self, configs):
        """Return those of the configs that have no finished run, in their order and each once."""
        names = {f"{config.run_id}/{RECORD}": config for config in configs}
        return [names[name] for name in self.storage.missing(names)]

    def __getitem__(self, config):
        """Return the finished run of a config.

        Raises
        ------
        RunNotFoundError
            If there is none.
        CheckpointError
            If its record is damaged.
        """
        return self.load([config])[0]

    def load(self, configs):
        """Return the finished runs of configs, in their order; from an object store many are read at once.

        Raises
        ------
        RunNotFoundError, CheckpointError
            As for one config.
        """
        names = [f"{config.run_id}/{RECORD}" for config in configs]
        contents = self.storage.read_all(list(dict.fromkeys(names)))
        for name, config in zip(names, configs, strict=True):
            if name not in contents:
                got = f"no record in {self.storage.path(config.run_id)}"
                fix = "Train it with RunStore.train, or run `make sweep`."
                raise RunNotFoundError("cannot find a run", config.run_id, got, "a finished run", fix)
        return [
            Run(config, decode_record(contents[name], self.storage.path(name), config.run_id), self.storage)
            for name, config in zip(names, configs, strict=True)
        ]

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
        if linear.can_train_together(config):
            # As in a sweep, so that the weights are the same bit by bit.
            return self.train_together([config], device=device)[0]
        start = None if config.start is None else self.train(config.start, device=device).state
        with self.storage.lock(config.run_id):
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
        with contextlib.ExitStack() as locks:
            # In one order everywhere, so that two processes never wait for each other.
            for run_id in sorted(config.run_id for config in configs):
                locks.enter_context(self.storage.lock(run_id))
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
        dataset = self.dataset(config, device)
        with self.storage.unfinished(f"{config.run_id}/{RESUME}") as (resume, grown):

            def after_epoch(row):
                grown()
                if progress:
                    progress(row)

            state, history = train(config, dataset, start=start, device=device, resume=resume, progress=after_epoch)
        model = models.build(config.model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        model.load_state_dict(state)
        model.to(device, memory_format=torch.channels_last)
        logits = {name: evaluate.predict_logits(model, split) for name, split in _held_out(dataset)}
        self._keep(config, dataset, state, history, logits, device)
        self.storage.delete(f"{config.run_id}/{RESUME}")

    def _keep(self, config, dataset, state, history, logits, device, together=1):
        """Write the run of a trained member, the record last."""
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
            "checkpoint_sha256": self._save(config, CHECKPOINT, state),
            "logits_sha256": self._save(config, LOGITS, {k: v.cpu().contiguous() for k, v in logits.items()}),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.storage.create(f"{config.run_id}/{RECORD}", encode_record(record))
        self.storage.delete(f"{config.run_id}/{FAILURE}")

    def _save(self, config, stem, tensors):
        """Write tensors and return the SHA-256 of the file."""
        content = pack(tensors, {"order": json.dumps(list(tensors))})
        digest = hashlib.sha256(content).hexdigest()
        self.storage.write(f"{config.run_id}/{self.storage.name_of(stem, 'safetensors', digest)}", content)
        return digest

    def note_failure(self, config, error, traceback):
        """Keep why a run failed, until it is finished.

        Parameters
        ----------
        config : TrainConfig
        error, traceback : str
        """
        note = {
            "run_id": config.run_id,
            "error": error,
            "config": config.to_dict(),
            "where": f"{platform.node()}, process {os.getpid()}",
            "failed": datetime.now(UTC).isoformat(timespec="seconds"),
            "traceback": traceback,
        }
        self.storage.write(f"{config.run_id}/{FAILURE}", json.dumps(note, indent=1).encode())

    def failures(self):
        """Return what `note_failure` has kept of the runs that are not finished, a dict each."""
        notes = []
        for content in self.storage.read_all(self.storage.find(FAILURE)).values():
            with contextlib.suppress(ValueError):  # a note that is damaged is no loss
                notes.append(json.loads(content))
        return notes

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
        for name, content in self.storage.read_all(self.storage.find(RECORD)).items():
            record = decode_record(content, self.storage.path(name), name.partition("/")[0])
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
