"""Evaluate state dicts of one architecture on one data set."""

from dataclasses import replace
from functools import cache

import torch

from .. import evaluate, models
from ..merge import recalibrate_batchnorm
from ..predictions import fingerprint

__all__ = ["Evaluator", "as_read_by"]

N_RECALIBRATION = 1_000  # training images that BatchNorm is recalibrated on; chapter 36 shows that fewer would do


def as_read_by(run, dataset):
    """Return a data set with its images normalised as a run's model reads them."""
    return dataset.with_unit_pixels() if run.config.pixels == "unit" else dataset


class Evaluator:
    """Evaluates state dicts of one architecture on one data set.

    Parameters
    ----------
    model : str
        Name of the architecture.
    dataset : wamlib.data.Dataset
        Its device is where everything is evaluated.
    predictions : wamlib.predictions.Predictions or None
        Where logits and features are kept, so that they are computed once; None keeps nothing.
    """

    def __init__(self, model, dataset, predictions=None):
        self.model, self.dataset, self.predictions = model, dataset, predictions
        self._read = cache(self._fingerprint)  # of the images, which do not change under the evaluator
        module = models.build(model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        self.module = module.to(dataset.test.images.device, memory_format=torch.channels_last)
        self.has_batchnorm = any(key.endswith("running_mean") for key in self.module.state_dict())

    @classmethod
    def of_first(cls, pool, dataset, n_images, n_selection):
        """Return an evaluator for a pool, of the first images of the test and selection splits; it keeps nothing."""
        parts = {"test": dataset.test.take(slice(0, n_images)),
                 "selection": dataset.selection.take(slice(0, n_selection))}  # fmt: skip
        return cls(pool[0].config.model, replace(dataset, **parts))

    def load(self, state, *, recalibrate=False):
        """Return the module with these weights, BatchNorm recalibrated on training images if asked."""
        self.module.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(self.module, self.training_batches())
        return self.module

    def recalibrated(self, state):
        """Return a state dict with BatchNorm recalibrated, in the order of the forward pass."""
        found = self.load(state, recalibrate=True).state_dict()
        return {key: tensor.detach().clone() for key, tensor in found.items()}

    def training_batches(self, n_images=N_RECALIBRATION):
        """Return the first training images, normalised, in batches of at least two."""
        images = self.dataset.train.take(slice(0, n_images)).batches()
        return [batch for batch, _ in images if len(batch) > 1]

    def logits(self, state, split="test", *, recalibrate=False):
        """Return the logits of a state dict on a split, shape (sample, class); of several splits, a tuple of them."""
        return self._predict(evaluate.predict_logits, state, split, recalibrate)

    def features(self, state, split="test", *, recalibrate=False):
        """Return the features of a state dict on a split, shape (sample, feature)."""
        return self._predict(evaluate.predict_features, state, split, recalibrate)

    def _predict(self, predict, state, split, recalibrate):
        recalibrate = recalibrate and self.has_batchnorm
        load = cache(lambda: self.load(state, recalibrate=recalibrate))  # once for all splits, and only if needed
        if isinstance(split, tuple):
            return tuple(self._look_up(predict, state, name, recalibrate, load) for name in split)
        return self._look_up(predict, state, split, recalibrate, load)

    def _look_up(self, predict, state, split, recalibrate, load):
        def compute():
            return predict(load(), getattr(self.dataset, split))

        if self.predictions is None:
            return compute()
        device = self.dataset.test.images.device
        key = [predict.__name__, self.model, fingerprint(state), self._read(split), device.type]
        key += [N_RECALIBRATION, self._read("train", N_RECALIBRATION)] if recalibrate else []
        return self.predictions.get(key, compute).to(device)

    def _fingerprint(self, split, n_images=None):
        """Return the fingerprint of the images of a split as a model reads them."""
        split = getattr(self.dataset, split)
        return fingerprint({"images": split.images[:n_images], "mean": split.mean, "std": split.std})

    def head(self, state):
        """Return the (weight, bias) of the classifier in a state dict."""
        layer = models.head(self.load(state))
        return layer.weight.detach().clone(), layer.bias.detach().clone()

    def error(self, state, *, recalibrate=False):
        """Return the test error of a state dict, in percent."""
        return 100 - evaluate.accuracy(self.logits(state, recalibrate=recalibrate), self.dataset.test.labels)

    def selection_accuracy(self, state, *, recalibrate=False):
        """Return the accuracy of a state dict on the selection split, in percent."""
        logits = self.logits(state, "selection", recalibrate=recalibrate)
        return evaluate.accuracy(logits, self.dataset.selection.labels)
