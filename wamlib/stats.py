"""Means, intervals and paired differences over replicas."""

from typing import NamedTuple

import numpy as np

__all__ = [
    "Discordance",
    "Interval",
    "interval_text",
    "mcnemar",
    "mean_interval",
    "number_text",
    "paired_difference",
    "permutation_p",
    "replicas_needed",
]


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, in the unit of the data."""

    mean: float
    low: float
    high: float
    n: int


class Discordance(NamedTuple):
    """Images that only one of two models gets right, and the p-value of their difference."""

    only_a: int
    only_b: int
    p: float


def mcnemar(right_a, right_b):
    """Test whether two models have the same accuracy on the same images: McNemar's test, exact and two-sided.

    Parameters
    ----------
    right_a, right_b : array_like of bool, shape (sample,)
        Whether each model is right about each image.

    Returns
    -------
    Discordance
        The p-value is about these two models and other images of the same kind, not about other trainings.

    References
    ----------
    Dietterich (1998), Approximate statistical tests for comparing supervised classification
    learning algorithms, Section 3.1. https://doi.org/10.1162/089976698300017197
    """
    from scipy import stats

    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise ValueError(f"mcnemar: a has shape {right_a.shape}, b has {right_b.shape}; they must agree")
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Discordance(only_a, only_b, float(p))


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


def replicas_needed(values, bound, level=0.95, most=10_000):
    """Return how many replicas would tell the mean from a bound, if mean and spread stay as found.

    Parameters
    ----------
    values : array_like, shape (replica,)
        At least two numbers, one per independent replica.
    bound : float
        What the mean is to be told from.
    level : float
        Coverage of the interval, in (0, 1).
    most : int
        Returned where still more would be needed.

    Returns
    -------
    int
        The smallest n at which the half-width of a Student-t interval is below the distance;
        never less than one more than there are.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        return 2  # one replica has no spread: look at a second
    distance, spread = abs(values.mean() - bound), values.std(ddof=1)
    n = np.arange(len(values) + 1, most)
    enough = stats.t.ppf(0.5 + level / 2, n - 1) * spread / np.sqrt(n) < distance
    return int(n[enough.argmax()]) if enough.any() else most


def interval_text(values, digits=1, signed=True):
    """Return a mean with its 95 % interval as a table shows it: ``"+0.5 [+0.2, +0.8]"``.

    Parameters
    ----------
    values : array_like, shape (replica,)
    digits : int
        Behind the point.
    signed : bool
        Whether a positive number has its sign.

    Returns
    -------
    str
    """
    sign = "+" if signed else ""
    mean, low, high = (f"{number:{sign}.{digits}f}" for number in mean_interval(values)[:3])
    return f"{mean} [{low}, {high}]"


def number_text(value, form="+z.1f", unknown="(not measured)"):
    """Return a number as a sentence says it, or words for one that could not be measured.

    Parameters
    ----------
    value : float
    form : str
        Of `format`.
    unknown : str
        What stands for NaN.

    Returns
    -------
    str
    """
    return unknown if np.isnan(value) else f"{value:{form}}"
