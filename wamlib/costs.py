"""What a network costs: operations, time, memory."""

import time
from statistics import median

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from . import evaluate, models
from .probe.second_order import plain_attention

__all__ = ["inference_costs", "prediction_operations", "training_operations"]


def prediction_operations(model, dataset):
    """Count the floating-point operations of one prediction, a multiplication with its addition counted as two.

    Parameters
    ----------
    model : str
        Architecture, with a width or without.
    dataset : wamlib.data.Dataset
        Says what an image is.

    Returns
    -------
    float
        Per image, in millions.
    """
    return _count(_build(model, dataset), dataset.test)


def training_operations(model, dataset):
    """Count the floating-point operations of a training step, a multiplication with its addition counted as two.

    Parameters
    ----------
    model : str
        Architecture, with a width or without.
    dataset : wamlib.data.Dataset
        Says what an image is.

    Returns
    -------
    float
        Of one forward and backward pass, per image; the optimizer's own are left out.
    """
    module = _build(model, dataset).train()
    images, labels = next(iter(dataset.train.take(slice(0, 4)).batches()))
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter, plain_attention():
        F.cross_entropy(module(images), labels).backward()
    return counter.get_total_flops() / len(labels)


def inference_costs(names, dataset, n_images=500, repeats=5):
    """Measure what predictions of single members cost on this machine.

    Parameters
    ----------
    names : sequence of str
        Architectures, with a width or without.
    dataset : wamlib.data.Dataset
    n_images : int
        Test images of one pass.
    repeats : int
        Passes; the median counts.

    Returns
    -------
    DataFrame
        Columns model, mflops (see `prediction_operations`), ms (milliseconds per 1,000 images, on the threads that
        torch uses now) and mb (megabytes of learnable tensors and buffers).
    """
    split = dataset.test.take(slice(0, n_images))
    rows = []
    for model in names:
        module, times = _build(model, dataset), []
        mflops = _count(module, split)
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            evaluate.predict_logits(module, split)
            if split.images.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        ms = 1e6 * median(times[1:]) / len(split)
        rows.append({"model": model, "mflops": mflops, "ms": ms, "mb": size / 1e6})
    return pd.DataFrame(rows)


def _build(model, dataset):
    module = models.build(model, len(dataset.classes), dataset.in_channels, dataset.image_size)
    return module.to(dataset.test.images.device, memory_format=torch.channels_last)


def _count(module, split):
    split = split.take(slice(0, 2))
    with FlopCounterMode(display=False) as counter, plain_attention():
        evaluate.predict_logits(module, split)
    return counter.get_total_flops() / 1e6 / len(split)
