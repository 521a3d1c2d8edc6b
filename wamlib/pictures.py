"""Class means and weight rows as pictures, in rows of a table."""

from dataclasses import replace

import numpy as np
import pandas as pd

from . import probe
from .packed import pack, unpack
from .pools import images_of

__all__ = ["N_SHOWN", "class_pictures", "normalised", "row_pictures", "stack"]

N_SHOWN = 10  # classes, or units, whose pictures stand in a line


def normalised(pool):
    """Return the data set of a pool with every channel normalised, whatever pixels its members read.

    Parameters
    ----------
    pool : wamlib.pools.Pool

    Returns
    -------
    wamlib.data.Dataset
    """
    config = pool.runs[0].config
    return pool.dataset if config.pixels == "normalised" else images_of(replace(config, pixels="normalised"))


def class_pictures(pool, *, centred=True):
    """Return the mean training images of the first classes; see `wamlib.probe.class_means`.

    Parameters
    ----------
    pool : wamlib.pools.Pool
    centred : bool
        Subtract the mean of the class means.

    Returns
    -------
    DataFrame
        Columns class (its name) and picture (see `wamlib.packed.pack`), at most `N_SHOWN` rows.
    """
    dataset = normalised(pool)
    means = probe.class_means(dataset.train, len(dataset.classes), centred=centred).cpu()
    return _rows(dataset.classes, means)


def row_pictures(pool, *, member=0):
    """Return the weight rows of a linear member for the first classes; see `wamlib.probe.templates`.

    Parameters
    ----------
    pool : wamlib.pools.Pool
    member : int
        Position of the member.

    Returns
    -------
    DataFrame
        As `class_pictures`.
    """
    shape = pool.dataset.test.images.shape[1:]
    return _rows(pool.dataset.classes, probe.templates(pool.states[member], shape).cpu())


def _rows(classes, pictures):
    return pd.DataFrame({"class": classes[:N_SHOWN], "picture": [pack(one) for one in pictures[:N_SHOWN]]})


def stack(table):
    """Return the pictures of a table as one array.

    Parameters
    ----------
    table : DataFrame
        With a column picture, of pictures of one size.

    Returns
    -------
    numpy.ndarray, float32, shape (picture, channel, height, width)
    """
    return np.stack([unpack(text) for text in table.picture])
