"""What recalibrating BatchNorm takes: how many images, and weighted how."""

import pandas as pd
import torch
from torch.optim.swa_utils import update_bn

from .. import evaluate
from ..merge import recalibrate_batchnorm, uniform_soup
from .evaluator import Evaluator

__all__ = ["recalibrations"]

BATCH = 250


def recalibrations(pool, dataset, sizes):
    """Measure the soup's error after recalibration, by images, by their order and by tool.

    Parameters
    ----------
    pool : list of Run
        Members of one pool, with BatchNorm.
    dataset : wamlib.data.Dataset
    sizes : sequence of int
        Numbers of training images.

    Returns
    -------
    DataFrame
        Columns images (0: the averaged statistics), order ("shuffled", or "by class":
        one class after the other), tool ("wamlib" or "torch", whose `update_bn` gives
        every batch the same weight) and error (percent).
    """
    evaluator = Evaluator(pool[0].config.model, dataset)
    soup = uniform_soup([run.state for run in pool])
    rows = [{"images": 0, "order": "shuffled", "tool": "none", "error": evaluator.error(soup)}]
    for size in sizes:
        train = dataset.train.take(slice(0, size))
        by_class = train.take(torch.argsort(train.labels, stable=True))
        for order, split in (("shuffled", train), ("by class", by_class)):
            # A last batch of two images, as a data set of odd length has it.
            whole = [images for images, _ in split.batches(BATCH)]
            batches = [*whole[:-1], whole[-1][:-2], whole[-1][-2:]] if len(whole[-1]) > 3 else whole
            for tool, recalibrate in (("wamlib", recalibrate_batchnorm), ("torch", _update_bn)):
                module = evaluator.load(soup)
                recalibrate(module, batches)
                logits = evaluate.predict_logits(module, dataset.test)
                error = 100 - evaluate.accuracy(logits, dataset.test.labels)
                rows.append({"images": size, "order": order, "tool": tool, "error": error})
    return pd.DataFrame(rows)


def _update_bn(module, batches):
    update_bn(batches, module)
