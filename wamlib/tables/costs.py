"""What one prediction costs: operations, time, memory."""

import time
from statistics import median

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import evaluate
from ..probe.second_order import plain_attention
from .evaluator import Evaluator

__all__ = ["inference_costs"]


def inference_costs(models, dataset, n_images=500, repeats=5):
    """Measure what predictions of single members cost on this machine.

    Parameters
    ----------
    models : sequence of str
        Architectures, with a width or without.
    dataset : wamlib.data.Dataset
    n_images : int
        Test images of one pass.
    repeats : int
        Passes; the median counts.

    Returns
    -------
    DataFrame
        Columns model, mflops (million floating-point operations per image, a multiplication with its
        addition counted as two), ms (milliseconds per 1,000 images, on the threads that torch uses now)
        and mb (megabytes of learnable tensors and buffers).
    """
    split = dataset.test.take(slice(0, n_images))
    rows = []
    for model in models:
        module = Evaluator(model, dataset).module
        with FlopCounterMode(display=False) as counter, plain_attention():
            evaluate.predict_logits(module, split.take(slice(0, 2)))
        times = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            evaluate.predict_logits(module, split)
            if split.images.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        rows.append({"model": model, "mflops": counter.get_total_flops() / 2e6,
                     "ms": 1e6 * median(times[1:]) / len(split), "mb": size / 1e6})  # fmt: skip
    return pd.DataFrame(rows)
