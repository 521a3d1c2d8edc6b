"""Train one member: a loop over epochs that can be interrupted and taken up again."""

import contextlib
import copy
import hashlib
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from . import models
from .config import derive_seed
from .data import draw_moves, move
from .errors import ConfigError
from .merge import RunningAverage
from .storage import pack, unpack, write_atomically

__all__ = ["initial_model", "learning_rate", "pick_device", "train"]


def pick_device(device="auto"):
    """Return the device to train on; "auto" takes CUDA, else MPS, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def learning_rate(config, step, n_steps, steps_per_epoch):
    """Return the learning rate of one step, counted from 0.

    Parameters
    ----------
    config : TrainConfig
    step, n_steps : int
        This step, and steps in all.
    steps_per_epoch : int

    Returns
    -------
    float
        Climbs linearly over the warm-up to ``peak_lr``, then follows the schedule.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.peak_lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, n_steps - warmup)
    if config.schedule == "cosine":
        return config.peak_lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "linear":
        return config.peak_lr * (1 - done)
    if config.schedule == "step":
        progress = step / n_steps
        return config.peak_lr * 0.2 ** ((progress >= 0.4) + (progress >= 0.8))
    if config.schedule == "fifths":
        return config.peak_lr * 0.1 ** (5 * step // n_steps)
    return config.peak_lr


def train(config, dataset, *, start=None, device="auto", resume=None, progress=None, average=None, compiled=False):
    """Train one member and return its weights.

    Every random choice of an epoch comes from ``(config.seed, epoch)``, so a
    training that was interrupted and taken up again ends with the same weights,
    bit by bit on a CPU, as one that was not.

    Parameters
    ----------
    config : TrainConfig
    dataset : wamlib.data.Dataset
        The one that ``config.dataset`` names.
    start : dict of str to Tensor, or None
        The weights of ``config.start``; required if that is set.
    device : str or torch.device
        "auto" takes CUDA, else MPS, else the CPU.
    resume : str or Path or None
        File that holds the state after the last finished epoch; read if it is
        there, written after each epoch.
    progress : callable or None
        Called after each epoch with its row of the history.
    average : wamlib.merge.RunningAverage or None
        Updated with the weights after each epoch or step, as its ``every`` says. It is kept in
        the resume file; the member is the same with it and without.
    compiled : bool
        Whether the network is compiled by `torch.compile` before its first step, which takes seconds and changes the
        last digits of the weights. On the CPUs that `benchmarks/training.py` was run on it does not pay.

    Returns
    -------
    state : dict of str to Tensor
        The member, on the CPU.
    history : list of dict
        One row an epoch: epoch, loss (nats), accuracy (percent, on the training
        images as they were seen), lr of the last step, seconds.

    Raises
    ------
    ConfigError
        If the config asks for a start that was not given, or training diverged.
    """
    device = pick_device(device)
    if (config.start is None) != (start is None):
        got = "no start weights" if start is None else "start weights"
        fix = "Train through wamlib.runs.RunStore, which finds the start."
        raise ConfigError("cannot train", config.run_id, got, "start weights exactly when config.start is set", fix)
    with _threads(config.threads):
        return _train(config, dataset.to(device), start, device, resume and Path(resume), progress, average, compiled)


def initial_model(config, dataset, start=None):
    """Return the model that training begins with.

    Parameters
    ----------
    config : TrainConfig
    dataset : wamlib.data.Dataset
    start : dict of str to Tensor, or None
        The weights of ``config.start``.

    Returns
    -------
    torch.nn.Module
        The start with ``config.redraw`` drawn anew, or the random or pretrained weights.
    """
    shape = len(dataset.classes), dataset.in_channels, dataset.image_size
    fresh = models.build(config.model, *shape, seed=config.init_seed or 0, weights=config.weights)
    if start is None:
        return fresh
    model = copy.deepcopy(fresh)
    model.load_state_dict(start)
    return models.redraw(model, config.redraw, fresh)


def _train(config, dataset, start, device, resume, progress, average, compiled):
    model = initial_model(config, dataset, start).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.peak_lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    history = _load_resume(resume, config, model, optimizer, average) if resume else []
    network = torch.compile(model, dynamic=False) if compiled else model  # of the same weights
    for epoch in range(len(history), config.epochs):
        row = _train_epoch(config, model, network, optimizer, dataset.train, epoch, average)
        history.append(row)
        check_finite(config, row)
        if average is not None and average.every == "epoch":
            average.update(model)
        if resume:
            _save_resume(resume, config, model, optimizer, history, average)
        if progress:
            progress(row)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    return state, history


def _train_epoch(config, model, network, optimizer, split, epoch, average):
    begin = time.perf_counter()
    device = split.images.device
    n = len(split)
    generator = torch.Generator().manual_seed(derive_seed("epoch", config.seed, epoch))
    order = batches(torch.randperm(n, generator=generator).to(device), config.batch_size)
    steps = len(order)
    # Drawn before the first step and copied once, so that no step waits for the host.
    moves = draw_moves([len(index) for index in order], config.augment, split.images.shape[2], generator, device)
    loss_sum, right, seen = *(torch.zeros((), device=device) for _ in range(2)), 0
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
    # Dropout draws from the global generator: seed it for this epoch, and put it back afterwards.
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive_seed("dropout", config.seed, epoch))
        for step, index in enumerate(order):
            images, labels = move(split.images[index], moves.take(seen, seen + len(index))), split.labels[index]
            seen += len(index)
            lr = learning_rate(config, epoch * steps + step, config.epochs * steps, steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with autocast:
                logits = network(split.normalize(images).contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None and average.every == "step":
                average.update(model)
            # Sums stay on the device: reading them here would wait for it at every step.
            loss_sum += loss.detach() * len(index)
            right += (logits.detach().argmax(1) == labels).sum()
    return {
        "epoch": epoch + 1,
        "loss": loss_sum.item() / n,
        "accuracy": 100 * right.item() / n,
        "lr": lr,
        "seconds": time.perf_counter() - begin,
    }


def batches(order, size):
    """Split an order of images into batches; a last one of a single image joins the one before.

    BatchNorm cannot train on one image: it has no variance.
    """
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def check_finite(config, row):
    """Raise if the loss of an epoch is no number.

    Raises
    ------
    ConfigError
    """
    if not math.isfinite(row["loss"]):
        got, fix = f"a loss of {row['loss']}", f"Lower peak_lr (now {config.peak_lr}) or lengthen the warm-up."
        raise ConfigError("training diverged", f"{config.run_id}, epoch {row['epoch']}", got, "a finite loss", fix)


@contextlib.contextmanager
def _threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save_resume(path, config, model, optimizer, history, average):
    tensors = {f"model/{key}": value.contiguous() for key, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors[f"momentum/{number}"] = state["momentum_buffer"].contiguous()
    if average is not None:
        tensors |= {f"average/{key}": value for key, value in average.dump().items()}
    content = pack(tensors, {"run_id": config.run_id, "history": json.dumps(history)})
    write_atomically(path, content + hashlib.sha256(content).digest())


def _load_resume(path, config, model, optimizer, average):
    """Load the state after the last finished epoch; return its history, empty if there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    content, digest = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != digest:
        return []  # damaged: the first epoch is the last known good state
    tensors, notes = unpack(content)
    if notes["run_id"] != config.run_id:
        return []
    if average is not None and not _take_up(average, tensors):
        return []  # what the average has missed cannot be made good
    model.load_state_dict({key[6:]: value for key, value in tensors.items() if key.startswith("model/")})
    state = {}
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"momentum/{number}" in tensors:
            # In the parameter's memory layout: the fused optimizer walks both buffers side by side.
            state[number] = {"momentum_buffer": torch.empty_like(parameter).copy_(tensors[f"momentum/{number}"])}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads(notes["history"])


def _take_up(average, tensors):
    """Load the average that was kept beside the weights; return whether it is there and of the same kind."""
    kept = {key[8:]: value for key, value in tensors.items() if key.startswith("average/")}
    if not kept:
        return False
    read = RunningAverage.restore(kept)
    if (read.decay, read.every) != (average.decay, average.every):
        return False
    average.load(kept)
    return True
