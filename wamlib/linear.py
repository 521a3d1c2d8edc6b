"""Train many linear classifiers as one problem.

Members of one seed see the same images in the same order, whatever their weight decay and
whatever their labels; so one product with the images serves all of them, and the gradient
of the cross-entropy needs no autograd. The weights are those of `wamlib.train.train` but
for rounding.
"""

import time
from dataclasses import replace
from itertools import groupby

import torch
import torch.nn.functional as F

from . import models
from .config import derive_seed
from .errors import ConfigError
from .train import batches, learning_rate

__all__ = ["can_train_together", "group", "predict_together", "train_together"]

SEEDS_TOGETHER = 4  # in one job, so that jobs can run side by side and a bar moves
# Members in one product; what is missing is made up by rows that nobody reads. A product of another shape may round
# otherwise, and the weights of a member must not depend on which others are trained beside it.
SLOTS = 8


def can_train_together(config):
    """Return whether a member may be trained with others as one problem."""
    return (
        config.model == "linear"
        and config.start is None
        and config.augment == "none"
        and config.label_smoothing == 0
        and config.precision == "float32"
    )


def group(configs):
    """Split configs into lists that `train_together` takes; what cannot be joined stands alone.

    Parameters
    ----------
    configs : sequence of TrainConfig

    Returns
    -------
    list of list of TrainConfig
        Each config once, in lists of the same settings but for the seeds, the weight
        decay and the labels.
    """
    joined = [config for config in configs if can_train_together(config)]
    together = [[config] for config in configs if not can_train_together(config)]
    for _, same in groupby(sorted(joined, key=_common), key=_common):
        by_seed = [list(g) for _, g in groupby(sorted(same, key=_order), key=lambda c: (c.seed, c.init_seed))]
        for first in range(0, len(by_seed), SEEDS_TOGETHER):
            together.append([config for members in by_seed[first : first + SEEDS_TOGETHER] for config in members])
    return together


def _common(config):
    """Return what members trained together share, as text that can be sorted."""
    return repr(replace(config, seed=0, init_seed=0, weight_decay=0.0, shuffle_labels=False))


def _order(config):
    return config.seed, config.init_seed, config.shuffle_labels, config.weight_decay


def train_together(configs, dataset):
    """Train linear members that differ in seeds, weight decay and labels only.

    Parameters
    ----------
    configs : list of TrainConfig
        One of the lists that `group` returns.
    dataset : wamlib.data.Dataset
        The one that they name, with its true labels, on the device to train on.

    Returns
    -------
    list of tuple (dict of str to Tensor, list of dict)
        Weights on the CPU and history of each member, as `wamlib.train.train` returns them,
        but also of a member that diverged: the others are none the worse for it.

    Raises
    ------
    ConfigError
        If the configs cannot be trained together.
    """
    if not all(can_train_together(config) for config in configs) or len({_common(c) for c in configs}) != 1:
        got = "settings that differ in more than seeds, weight decay and labels, or no plain linear models"
        wanted = "linear members without start, augmentation, label smoothing and mixed precision"
        fix = "Split them with wamlib.linear.group, or use wamlib.sweeps.run, which does."
        raise ConfigError("cannot train together", f"{len(configs)} configs", got, wanted, fix)
    # A last pixel of 1, whose weight is the bias: so its gradient too comes from the product, the same in any slot.
    pixels = F.pad(dataset.train.normalize(dataset.train.images).flatten(1), (0, 1), value=1.0)
    done = {}
    # Seed by seed: their images come in different orders, so nothing is gained by going
    # through them at once, and the weights of one seed stay in the cache.
    for _, members in groupby(sorted(configs, key=_order), key=lambda c: (c.seed, c.init_seed)):
        members = list(members)
        mixed = dataset.with_shuffled_labels(members[0].seed)
        for first in range(0, len(members), SLOTS):
            some = members[first : first + SLOTS]
            some += some[-1:] * (SLOTS - len(some))
            labels = torch.stack([(mixed if c.shuffle_labels else dataset).train.labels for c in some], 1)
            done |= zip((c.run_id for c in some), _train(some, pixels, labels, dataset), strict=True)
    return [done[config.run_id] for config in configs]


def _train(members, pixels, labels, dataset):
    """Train the members of one seed; pixels (image, pixel), labels (image, member)."""
    config, m, n_classes = members[0], len(members), len(dataset.classes)
    device = pixels.device
    model = models.build("linear", n_classes, dataset.in_channels, dataset.image_size, seed=config.init_seed)
    weight, bias = model.head.weight.detach().to(device), model.head.bias.detach().to(device)
    # One matrix with the rows of all members below each other, the bias as a last column.
    rows = torch.cat([weight, bias[:, None]], 1).repeat(m, 1)
    decay = torch.tensor([c.weight_decay for c in members], device=device).repeat_interleave(n_classes)[:, None]
    velocity, histories = torch.zeros_like(rows), [[] for _ in members]
    for epoch in range(config.epochs):
        begin = time.perf_counter()
        generator = torch.Generator().manual_seed(derive_seed("epoch", config.seed, epoch))
        order = batches(torch.randperm(len(pixels), generator=generator).to(device), config.batch_size)
        loss, right = torch.zeros(m, device=device), torch.zeros(m, device=device)
        for step, index in enumerate(order):
            lr = learning_rate(config, epoch * len(order) + step, config.epochs * len(order), len(order))
            images, target = pixels[index], labels[index]
            logits = (images @ rows.T).view(len(index), m, n_classes)
            logs = logits.log_softmax(2)
            loss -= logs.gather(2, target[:, :, None]).sum((0, 2))
            right += (logits.argmax(2) == target).sum(0)
            # The gradient of the mean cross-entropy: (probability - one-hot) times image.
            error = ((logs.exp() - F.one_hot(target, n_classes)) / len(index)).flatten(1)
            velocity.mul_(config.momentum).addcmul_(decay, rows)
            velocity.addmm_(error.T, images)
            rows.sub_(velocity, alpha=lr)
        seconds = (time.perf_counter() - begin) / len(set(members))
        for number, history in enumerate(histories):
            row = {"loss": loss[number].item() / len(pixels), "accuracy": 100 * right[number].item() / len(pixels)}
            history.append({"epoch": epoch + 1, **row, "lr": lr, "seconds": seconds})
    parts = rows.cpu().view(m, n_classes, -1)
    states = [{"head.weight": part[:, :-1].clone(), "head.bias": part[:, -1].clone()} for part in parts]
    return list(zip(states, histories, strict=True))


def predict_together(states, split, dtype=torch.float32, batch_size=1000):
    """Return the logits of linear members for every image of a split.

    Parameters
    ----------
    states : list of dict of str to Tensor
        Weights of linear members.
    split : wamlib.data.Split
    dtype : torch.dtype
        What is computed in; float64 leaves the rounding of the weights as the only one.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor of that dtype, shape (member, image, class)
    """
    # The rows below each other: one product with the images instead of many thin ones, as in training.
    device, logits = split.images.device, []
    for first in range(0, len(states), SLOTS):
        some = states[first : first + SLOTS]
        slots = some + some[-1:] * (SLOTS - len(some))
        weight, bias = (torch.cat([s[f"head.{name}"] for s in slots]).to(device, dtype) for name in ("weight", "bias"))
        parts = [F.linear(images.flatten(1).to(dtype), weight, bias) for images, _ in split.batches(batch_size)]
        logits.append(torch.cat(parts).unflatten(1, (SLOTS, -1)).transpose(0, 1)[: len(some)])
    return torch.cat(logits)
