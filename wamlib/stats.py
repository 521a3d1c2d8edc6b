"""Means, intervals and paired differences over replicas."""

from typing import NamedTuple

import numpy as np

__all__ = ["Interval", "mean_interval", "paired_difference", "permutation_p"]


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, in the unit of the data."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values, level=0.95):
    """Return the mean of replicas with its Student-t confidence interval.

    Parameters
    ----------
    values : array_like, shape (replica,)
        One number per independent replica.
    level : float
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Interval
        With one replica there is no interval: ``low`` and ``high`` are NaN.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Interval(mean, float("nan"), float("nan"), n)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a, b, level=0.95):
    """Return the mean of ``a - b`` over replicas measured in pairs, with its interval.

    Parameters
    ----------
    a, b : array_like, shape (replica,)
        Two numbers per replica, in the same order.
    level : float
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Interval
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired_difference: a has shape {a.shape}, b has {b.shape}; they must agree")
    return mean_interval(a - b, level)


def permutation_p(observed, null):
    """Return the one-sided permutation p-value of a statistic where larger is stronger.

    Parameters
    ----------
    observed : float
        The statistic with the true labels.
    null : array_like, shape (permutation,)
        The statistic under permuted labels.

    Returns
    -------
    float
        ``(1 + #{null >= observed}) / (1 + n)``, never exactly 0.

    References
    ----------
    Phipson and Smyth (2010), Permutation p-values should never be zero, Section 3.
    https://doi.org/10.2202/1544-6115.1585
    """
    null = np.asarray(null, dtype=np.float64)
    return float((1 + np.sum(null >= observed)) / (1 + len(null)))
