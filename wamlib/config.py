"""The settings that decide the weights of one member, and the seeds derived from them."""

import dataclasses
import hashlib
import json
import math
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .errors import ConfigError

__all__ = ["TrainConfig", "derive_seed", "home"]

DOING = "cannot make a TrainConfig"

SCHEDULES = ("cosine", "step", "fifths", "linear", "constant")
AUGMENTS = ("none", "flip", "crop", "flip-crop")
PRECISIONS = ("float32", "bfloat16")
PIXELS = ("normalised", "unit")

# Part of every run id. Raise it when a change in training or in a model changes
# the weights that a config leads to, so that no old run is taken for a new one.
RECIPE_VERSION = 2
RECIPE_VERSIONS = {"linear": 3}  # of single models: 3 trains them in slots, see wamlib.linear
# Settings that came later: while at their default they are no part of a run id, so that
# runs trained before keep their names.
LATER = ("redraw", "weights", "n_eval", "nesterov")
# Settings by name, see `TrainConfig.recipe`.
RECIPES = {
    # Wang et al. (2024), the released trainer of the second perspective, whose augmentation never takes effect.
    "paper": {"epochs": 50, "batch_size": 128, "peak_lr": 0.01, "warmup_epochs": 1}
    | {"schedule": "step", "weight_decay": 0.0, "augment": "none"},
    # A triangle of the learning rate, Nesterov's momentum and smoothed labels, after the records of Jordan (2024),
    # 94 % on CIFAR-10 in 3.29 seconds on a single GPU, Section 3. https://arxiv.org/abs/2404.00498
    "fast": {"epochs": 10, "batch_size": 128, "peak_lr": 0.1, "warmup_epochs": 2.5}
    | {"schedule": "linear", "nesterov": True, "label_smoothing": 0.1, "augment": "flip"},
}
PARTS = ("stem", "head")


def home():
    """Return the folder for data sets and runs.

    The environment variable ``WAMLIB_HOME`` if it is set, else the folder ``data`` of the
    checkout around the working directory (so that a notebook and the command line
    share one store), else ``./data``.
    """
    if "WAMLIB_HOME" in os.environ:
        return Path(os.environ["WAMLIB_HOME"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "wamlib" / "config.py").is_file():
            return folder / "data"
    return Path("data")


def derive_seed(*parts):
    """Return a seed in [0, 2**63) that depends on all parts and on nothing else.

    Built on SHA-256, never on ``hash()``, which Python salts anew in every process.

    Parameters
    ----------
    *parts : str or int
        What the seed is for, e.g. ``derive_seed("order", 3, 12)``.

    Returns
    -------
    int

    Examples
    --------
    >>> derive_seed("order", 0) == derive_seed("order", 0)
    True
    >>> derive_seed("order", 0) == derive_seed("order", 1)
    False
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings that decide the weights of one member, and nothing else.

    Device, folders and the progress bar are not here: they do not change the
    weights, so they must not change the name of the run. The thread count is
    here because on a CPU it does change the last digits.

    Parameters
    ----------
    dataset : str
        A name that `wamlib.data.load` knows.
    n_train : int or None
        Training images to use, drawn by ``split_seed``; None means all of them.
    split_seed : int
        Fixes which images are in the train and the selection split.
    model : str
        A name that `wamlib.models.build` knows.
    init_seed : int or None
        Fixes the random weights to begin with; None when ``start`` gives them all.
    start : TrainConfig or None
        The run whose final weights are the weights to begin with.
    redraw : tuple of {"stem", "head"}
        Layers of the start that are drawn anew by ``init_seed``: the one that reads the image,
        the classifier.
    weights : str or None
        Name of pretrained weights to begin with, see `wamlib.models.build`; the head is drawn
        by ``init_seed``.
    seed : int
        Fixes the order of the images, their augmentation and dropout.
    epochs : int
        Passes over the training images.
    batch_size : int
        Images a step; the last, smaller batch of an epoch is used too, and joined to the one
        before if it holds a single image.
    peak_lr : float
        Highest learning rate of the schedule.
    warmup_epochs : float
        Epochs over which the learning rate climbs linearly to ``peak_lr``.
    schedule : {"cosine", "step", "fifths", "linear", "constant"}
        What follows the warm-up. "step" multiplies by 0.2 at 40 % and 80 % of training,
        "fifths" by 0.1 at 20, 40, 60 and 80 %.
    momentum, weight_decay : float
        Of SGD; the decay acts on every learnable tensor.
    nesterov : bool
        Whether the momentum is Nesterov's.
    label_smoothing : float
        Share of the target spread evenly over the classes, in [0, 1).
    augment : {"none", "flip", "crop", "flip-crop"}
        Random horizontal flip, and random crop after padding by an eighth of the side.
    precision : {"float32", "bfloat16"}
        Compute type; bfloat16 means autocast with float32 weights.
    threads : int
        CPU threads of the training process.
    pixels : {"normalised", "unit"}
        What the model reads: images with mean 0 and standard deviation 1 per channel, or
        bytes divided by 255.
    shuffle_labels : bool
        Deal the training labels out at random, by ``seed``: a control in which there is nothing to learn.
    n_eval : int or None
        Test images that the record of the run is measured on, and at most a third as many selection
        images; None means all. The one setting that decides nothing about the weights.

    Raises
    ------
    ConfigError
        If a value is out of range; the message names the field.
    """

    dataset: str = "fashion-mnist"
    n_train: int | None = None
    split_seed: int = 0
    model: str = "cnn"
    init_seed: int | None = 0
    start: "TrainConfig | None" = None
    seed: int = 0
    epochs: int = 4
    batch_size: int = 64
    peak_lr: float = 0.05
    warmup_epochs: float = 0.5
    schedule: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augment: str = "none"
    precision: str = "float32"
    threads: int = 1
    pixels: str = "normalised"
    shuffle_labels: bool = False
    redraw: tuple[str, ...] = ()
    weights: str | None = None
    n_eval: int | None = None
    nesterov: bool = False

    def __post_init__(self):
        for field, wanted in self._problems():
            fix = "Correct this setting where the config is made."
            raise ConfigError(DOING, f"field {field!r}", repr(getattr(self, field)), wanted, fix)

    def _problems(self):
        """Yield each field that cannot be trained with, and what was wanted; later checks rely on earlier ones."""
        lowest = {"epochs": 1, "batch_size": 1, "threads": 1, "seed": 0, "split_seed": 0}
        lowest |= {field: 1 for field in ("n_train", "n_eval") if getattr(self, field) is not None}
        for field, low in lowest.items():
            yield from self._unless_whole(field, low)
        highest = {"peak_lr": math.inf, "warmup_epochs": math.inf, "momentum": 1, "weight_decay": math.inf}
        for field, high in (highest | {"label_smoothing": 1}).items():
            value = getattr(self, field)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Compared, which NaN never passes; isfinite() fails for a whole number that no float holds.
            if not number or not 0 <= value < min(high, sys.float_info.max):
                yield field, f"a number in [0, {high})"
        words = {"schedule": SCHEDULES, "augment": AUGMENTS, "precision": PRECISIONS, "pixels": PIXELS}
        for field, allowed in words.items():
            if getattr(self, field) not in allowed:
                yield field, f"one of {', '.join(allowed)}"
        for field in ("shuffle_labels", "nesterov"):
            if not isinstance(getattr(self, field), bool):
                yield field, "True or False"
        for field in ("dataset", "model"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                yield field, "a name"
        yield from self._problems_of_the_start()

    def _unless_whole(self, field, low):
        value = getattr(self, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            yield field, f"a whole number of at least {low}"

    def _problems_of_the_start(self):
        if not (isinstance(self.redraw, tuple) and all(part in PARTS for part in self.redraw)):
            yield "redraw", f"a tuple of {', '.join(PARTS)}"
        named = isinstance(self.weights, str) and self.weights
        if self.weights is not None and (not named or self.start is not None):
            yield "weights", "a name, and no start beside it"
        if self.start is not None and not isinstance(self.start, TrainConfig):
            yield "start", "a TrainConfig or None"
        if self.start is None or self.redraw:
            yield from self._unless_whole("init_seed", 0)
        elif self.init_seed is not None:
            yield "init_seed", "None, because `start` already fixes the weights to begin with"
        if self.start is None:
            if self.redraw:
                yield "redraw", "nothing, because there is no start to draw anew"
        elif (self.start.model, self.start.dataset) != (self.model, self.dataset):
            yield "start", f"a run of {self.model} on {self.dataset}"

    def to_dict(self):
        """Return the settings as plain values that JSON can hold."""
        return dataclasses.asdict(self, dict_factory=_plain)

    @classmethod
    def from_dict(cls, settings):
        """Return the config that `to_dict` wrote.

        Raises
        ------
        ConfigError
            If a name is unknown; the message lists the known ones. If a value is out of range.
        """
        if not isinstance(settings, dict):
            wanted, fix = "a dict, from names to values", "Pass what to_dict() returned."
            raise ConfigError(DOING, "the settings", f"a {type(settings).__name__}", wanted, fix)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = [name for name in settings if name not in known]
        if unknown:
            wanted, fix = f"one of {', '.join(sorted(known))}", "Correct the name, or remove it."
            raise ConfigError(DOING, f"field {unknown[0]!r}", "a name that is not a setting", wanted, fix)
        settings = dict(settings)
        if isinstance(settings.get("start"), dict):
            settings["start"] = cls.from_dict(settings["start"])
        if isinstance(settings.get("redraw"), list):
            settings["redraw"] = tuple(settings["redraw"])
        return cls(**settings)

    @classmethod
    def recipe(cls, name, **changes):
        """Return a config by a named recipe.

        Parameters
        ----------
        name : {"paper", "fast"}
            "paper" is that of the released trainer of Wang et al. (2024); "fast" takes a fifth of
            its epochs; chapter 11 of the book compares what both reach.
        **changes
            Settings that the recipe leaves open, or that are to differ from it.

        Raises
        ------
        ConfigError
            If the name or a setting is unknown, or a value out of range.

        Examples
        --------
        >>> TrainConfig.recipe("fast", model="resnet8", seed=3).epochs
        10
        """
        if not isinstance(name, str) or name not in RECIPES:
            raise ConfigError(DOING, "the recipe", repr(name), f"one of {', '.join(RECIPES)}", "Correct the name.")
        return cls.from_dict(RECIPES[name] | changes)

    @cached_property
    def run_id(self):
        """Name of the run, the same in every process and on every machine."""
        version = RECIPE_VERSIONS.get(self.model, RECIPE_VERSION)
        text = json.dumps([version, _without_defaults(self.to_dict())], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        # A folder: data set carries a path, which is no part of a file name.
        dataset = self.dataset.partition(":")[0]
        return f"{dataset}-{self.model}-s{self.seed}-{digest}"


def _plain(pairs):
    """Return names and values as a dict, with lists for tuples, which JSON does not have."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}


def _without_defaults(settings):
    """Return settings, and those of their start, without `LATER` ones that are at their default."""
    if settings is None:
        return None
    defaults = _plain((field.name, field.default) for field in dataclasses.fields(TrainConfig))
    said = {name: value for name, value in settings.items() if name not in LATER or value != defaults[name]}
    return said | {"start": _without_defaults(settings["start"])}
