"""Tiny members and data sets, and independent float64 references that share no code with wamlib."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from conftest import tiny
from torch import nn

from wamlib import data, evaluate, models
from wamlib.chapters import Chapter
from wamlib.evidence import Evidence
from wamlib.pools import Pool
from wamlib.predictions import fingerprint
from wamlib.runs import Run


def linear_state(seed, rows=3, columns=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(rows, columns, generator=generator).to(dtype),
        "bias": torch.randn(rows, generator=generator).to(dtype),
    }


def bn_model(seed=0, dropout=0.0):
    """A small convolution network with BatchNorm and dropout, and statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 1, 6, 6) * 2 + 1)
    return model.eval()


def reference_mean(members, weights=None):
    """Weighted mean in numpy float64."""
    weights = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    stacked = {key: np.stack([np.asarray(m[key].double()) for m in members]) for key in members[0]}
    return {key: np.asarray(np.tensordot(weights, values, axes=1) / weights.sum()) for key, values in stacked.items()}


def random_split(n=40, channels=1, side=8, seed=0, n_classes=3):
    """Random pictures with random labels: no two alike."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, n_classes, (n,), generator=generator)
    mean, std = torch.full((channels,), 120.0), torch.full((channels,), 70.0)
    return data.Split(images, labels, mean, std)


def random_dataset(n_train=200, n_selection=60, n_test=90, channels=1, n_classes=3):
    """Three splits of random pictures."""
    sizes = enumerate((n_train, n_selection, n_test))
    splits = [random_split(n, channels, seed=seed, n_classes=n_classes) for seed, n in sizes]
    return data.Dataset("random", tuple("abcdefghij"[:n_classes]), *splits, split_hash="")


def untrained(model, dataset, n=3, spread=0.1):
    """Runs that nobody trained: members around one set of random weights, with statistics that are no default.

    ``spread`` is the size of their deviations relative to the size of each tensor; 1 is as good as strangers.
    """
    shape = len(dataset.classes), dataset.in_channels, dataset.image_size
    module = models.build(model, *shape, seed=0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module.train()(dataset.train.normalize(dataset.train.images) * 1.5 + 0.5)
    module.eval()
    runs = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for key, tensor in module.state_dict().items():
            state[key] = tensor.clone()
            if tensor.is_floating_point():
                size = tensor.abs().mean() if key.endswith("running_var") else tensor.square().mean().sqrt()
                state[key] += spread * size * torch.randn(tensor.shape, generator=generator)
                if key.endswith("running_var"):
                    state[key].clamp_(min=0.2 * size)
        module.load_state_dict(state)
        logits = {name: eval_logits(module, getattr(dataset, name)) for name in ("selection", "test")}
        metrics = {name: evaluate.metrics(logits[name], getattr(dataset, name).labels) for name in logits}
        history = [{"epoch": epoch, "loss": 1.0, "accuracy": 50.0, "lr": 0.1, "seconds": 0.5} for epoch in (1, 2)]
        record = {"metrics": metrics, "history": history, "seconds": 1.0, "split_hash": dataset.split_hash}
        record |= {f"{name}_sha256": fingerprint(part) for name, part in (("checkpoint", state), ("logits", logits))}
        run = Run(tiny(model=model, seed=seed), record, storage=None)
        vars(run).update(state=state, logits=logits)  # in place of files
        runs.append(run)
    return runs


def eval_logits(module, split):
    """The logits of a model in eval mode, all images at once."""
    with torch.no_grad():
        return module.eval()(split.normalize(split.images)).float()


def untrained_chapter(name, dataset, folder, **parameters):
    """A chapter at work on runs that nobody trained, so that it can be tried with any architectures in seconds."""
    here = Chapter.of(name, **{"profile": "test", "dataset": "digits", "n_replicas": 2, **parameters})
    here.evidence, here._finished, here.folder = Evidence(folder), {}, folder
    dataset = replace(dataset, name=getattr(here.p, "dataset", "digits"))
    for index, (key, configs) in enumerate(here.groups.items()):
        runs = untrained(configs[0].model, dataset, len(configs), spread=0.1 + 0.01 * index)
        runs = [as_configured(run, config) for run, config in zip(runs, configs, strict=True)]
        here._finished[key], here._pools[key] = runs, Pool(runs, dataset)
    return here


def as_configured(run, config):
    """The run under the config of a chapter, but for the trunk, which there is none of."""
    other = replace(run, config=replace(config, start=None, redraw=(), init_seed=config.init_seed or 0))
    vars(other).update(state=run.state, logits=run.logits)
    return other


UNITS = ("(%)", "(%,", "(points)", "Points against", "Points over", "members = 1", "(logit)", "(nats)")


def check_drawing(fig, folder, units=False):
    """What every figure must be: closed, small, with units, no panel empty, no title, no point outside its panel."""
    labels = " ".join(ax.get_xlabel() + ax.get_ylabel() + ax.get_title() for ax in fig.axes)
    assert not units or any(unit in labels for unit in UNITS), labels
    assert not plt.get_fignums()  # else a notebook would show it twice
    assert fig.get_suptitle() == ""
    for ax in fig.axes:
        blank = not ax.axison or [text.get_text() for text in ax.texts] == ["not defined"]
        assert blank or ax.lines or ax.collections or ax.images, "a panel is empty"
        low, high = sorted(ax.get_ylim())
        for line in ax.lines:
            values = np.asarray(line.get_ydata(), dtype=float)
            # The ends of intervals may: an error below 0 does not exist.
            if line.get_transform() == ax.transData and line.get_marker() not in ("_", "|"):
                assert ((values >= low) & (values <= high))[np.isfinite(values)].all(), line.get_label()
    fig.savefig(folder / "x.svg")
    assert (folder / "x.svg").stat().st_size < 500_000
