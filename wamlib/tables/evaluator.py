"""Evaluate state dicts of one architecture on one data set."""

import torch

from .. import evaluate, models
from ..merge import recalibrate_batchnorm

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
    """

    def __init__(self, model, dataset):
        self.dataset = dataset
        module = models.build(model, len(dataset.classes), dataset.in_channels, dataset.image_size)
        self.module = module.to(dataset.test.images.device, memory_format=torch.channels_last)
        self.has_batchnorm = any(key.endswith("running_mean") for key in self.module.state_dict())

    def load(self, state, *, recalibrate=False):
        """Return the module with these weights, BatchNorm recalibrated on training images if asked."""
        self.module.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(self.module, self.training_batches())
        return self.module

    def training_batches(self, n_images=N_RECALIBRATION):
        """Return the first training images, normalised, in batches of at least two."""
        images = self.dataset.train.take(slice(0, n_images)).batches()
        return [batch for batch, _ in images if len(batch) > 1]

    def logits(self, state, split="test", *, recalibrate=False):
        """Return the logits of a state dict on a split, shape (sample, class)."""
        return evaluate.predict_logits(self.load(state, recalibrate=recalibrate), getattr(self.dataset, split))

    def features(self, state, split="test"):
        """Return the features of a state dict on a split, shape (sample, feature)."""
        return evaluate.predict_features(self.load(state), getattr(self.dataset, split))

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
