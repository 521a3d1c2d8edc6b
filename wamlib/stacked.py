"""Train several members of one architecture as one program: each weight has a leading axis for the member.

On small networks most of a step is the overhead of its many small calls; members that are stacked share it.
Each keeps its own seeds, order of images, start, learning rate and weight decay, and its weights are those of
`wamlib.train.train` but for rounding.
"""

import time
from dataclasses import replace
from functools import cache
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from . import models
from .config import derive_seed
from .data import draw_moves, move
from .errors import ConfigError
from .train import batches, initial_model, learning_rate, pick_device

__all__ = ["can_stack", "group", "train_stacked"]

OWN = {"seed": 0, "init_seed": 0, "start": None, "redraw": (), "peak_lr": 0.1, "weight_decay": 0.0}


def can_stack(config):
    """Return whether a member may be trained with others as one program.

    Not with dropout, whose masks are drawn for all of a program at once; not with shuffled labels, which are other
    labels for each seed; and not in bfloat16, in which the order of a sum shows.
    """
    plain = config.precision == "float32" and not config.shuffle_labels and config.weights is None
    return plain and not _has_dropout(config.model)


def group(configs, n_together):
    """Split configs into lists that `train_stacked` takes; what cannot be joined stands alone.

    Parameters
    ----------
    configs : sequence of TrainConfig
    n_together : int
        Members in one program at most.

    Returns
    -------
    list of list of TrainConfig
        Each config once, in lists of the same settings but for seeds, starts, learning rates and weight decays.
        A config and one of its starts are never in lists that wait for each other.
    """
    joined = [config for config in configs if can_stack(config)]
    together = [[config] for config in configs if not can_stack(config)]
    for _, same in groupby(sorted(joined, key=_generation), key=_generation):
        members = list(same)
        together += [members[first : first + n_together] for first in range(0, len(members), n_together)]
    return together


def train_stacked(configs, dataset, starts=None, *, device="auto"):
    """Train members of one architecture as one program.

    Parameters
    ----------
    configs : list of TrainConfig
        That differ in seeds, starts, learning rates and weight decays only, see `group`.
    dataset : wamlib.data.Dataset
        The one that they name.
    starts : list of (dict of str to Tensor, or None), or None
        The weights of each config's ``start``; None if no config has one.
    device : str or torch.device
        "auto" takes CUDA, else MPS, else the CPU.

    Returns
    -------
    list of tuple (dict of str to Tensor, list of dict)
        Weights on the CPU and history of each member, as `wamlib.train.train` returns them, but also of a
        member that diverged: the others are none the worse for it.

    Raises
    ------
    ConfigError
        If the configs cannot be trained together.
    """
    if not all(can_stack(config) for config in configs) or len({_common(config) for config in configs}) != 1:
        got = "settings that differ in more than seeds, starts, learning rates and weight decays, or no stacked form"
        wanted = "members in float32 by SGD, with neither dropout nor shuffled labels"
        fix = "Split them with wamlib.stacked.group."
        raise ConfigError("cannot train together", f"{len(configs)} configs", got, wanted, fix)
    device = pick_device(device)
    dataset = dataset.to(device)
    starts = starts or [None] * len(configs)
    members = [initial_model(config, dataset, start) for config, start in zip(configs, starts, strict=True)]
    base = members[0].to(device, memory_format=torch.channels_last).train()
    parameters, buffers = stack_module_state([member.to(device).train() for member in members])
    stack = _Stack(base, parameters, buffers, configs, device)
    histories = [[] for _ in configs]
    for epoch in range(configs[0].epochs):
        for history, row in zip(histories, stack.train_epoch(dataset.train, epoch), strict=True):
            history.append(row)
    return list(zip(stack.states(), histories, strict=True))


class _Stack:
    """Stacked members under training."""

    def __init__(self, module, parameters, buffers, configs, device):
        self.module, self.configs = module, configs
        self.parameters = {name: nn.Parameter(value) for name, value in parameters.items()}
        self.buffers = buffers
        self.velocities = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.decays = self._shape(torch.tensor([config.weight_decay for config in configs], device=device))
        self.forward = vmap(self._logits, in_dims=(0, 0, 0))

    def _logits(self, parameters, buffers, images):
        return functional_call(self.module, (parameters, buffers), (images,))

    def _shape(self, numbers):
        """Return one number per member, shaped to multiply each of the parameters."""
        return {name: numbers.view(-1, *[1] * (value.dim() - 1)) for name, value in self.parameters.items()}

    def train_epoch(self, split, epoch):
        """Train for an epoch and return a row of the history for each member."""
        begin, device, k = time.perf_counter(), split.images.device, len(self.configs)
        config, order, moves = self.configs[0], [], []
        for member in self.configs:
            generator = torch.Generator().manual_seed(derive_seed("epoch", member.seed, epoch))
            order.append(batches(torch.randperm(len(split), generator=generator), config.batch_size))
            sizes = [len(index) for index in order[-1]]
            moves.append(draw_moves(sizes, config.augment, split.images.shape[2], generator, device))
        order = [torch.stack(step).to(device) for step in zip(*order, strict=True)]  # each (member, image)
        steps, n_steps = range(epoch * len(order), (epoch + 1) * len(order)), config.epochs * len(order)
        rates = [[learning_rate(one, step, n_steps, len(order)) for one in self.configs] for step in steps]
        on_device = torch.tensor(rates, device=device)  # copied once, so that no step waits for the host
        losses, right, seen = torch.zeros(k, device=device), torch.zeros(k, device=device), 0
        for step, index in enumerate(order):
            images, n = split.images[index.flatten()].unflatten(0, index.shape), index.shape[1]
            if config.augment != "none":
                own = zip(images, moves, strict=True)
                images = torch.stack([move(some, drawn.take(seen, seen + n)) for some, drawn in own])
            seen += n
            images, labels = split.normalize(images.flatten(0, 1)).unflatten(0, index.shape), split.labels[index]
            loss, hits = self._step(images, labels, self._shape(on_device[step]))
            losses += loss * n
            right += hits
        seconds, n = (time.perf_counter() - begin) / k, len(split)
        return [
            {"epoch": epoch + 1, "loss": loss / n, "accuracy": 100 * hits / n, "lr": lr, "seconds": seconds}
            for loss, hits, lr in zip(losses.tolist(), right.tolist(), rates[-1], strict=True)
        ]

    def _step(self, images, labels, rates):
        config = self.configs[0]
        logits = self.forward(self.parameters, self.buffers, images)
        settings = {"reduction": "none", "label_smoothing": config.label_smoothing}
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **settings).view(labels.shape).mean(1)
        # The sum: no member's loss depends on another's weights, so each gradient is its own.
        gradients = torch.autograd.grad(loss.sum(), self.parameters.values())
        with torch.no_grad():
            for (name, value), gradient in zip(self.parameters.items(), gradients, strict=True):
                velocity = self.velocities[name]
                gradient = gradient.addcmul(self.decays[name], value)
                velocity.mul_(config.momentum).add_(gradient)
                ahead = gradient.add(velocity, alpha=config.momentum) if config.nesterov else velocity
                value.addcmul_(rates[name], ahead, value=-1)
            return loss.detach(), (logits.argmax(2) == labels).sum(1)

    def states(self):
        """Return the state dict of each member, on the CPU, keys in the order of the module's."""
        stacked = {**self.parameters, **self.buffers}
        return [
            {key: stacked[key][number].detach().cpu().contiguous().clone() for key in self.module.state_dict()}
            for number in range(len(self.configs))
        ]


def _generation(config):
    """Return how many starts lie below a config, so that no list waits for its own members, and what a list shares."""
    depth, start = 0, config.start
    while start is not None:
        depth, start = depth + 1, start.start
    return depth, _common(config)


def _common(config):
    """Return what members trained together share, as text that can be sorted."""
    return repr(replace(config, **OWN))


@cache
def _has_dropout(model):
    module = models.build(model, 2, 1, (28, 28))
    return any(isinstance(part, nn.Dropout) and part.p > 0 for part in module.modules())
