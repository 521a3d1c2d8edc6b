"""The line between two members: the error at points of it."""

import pandas as pd

from . import probe

__all__ = ["error_along_line"]


def error_along_line(pool, *, alphas):
    """Measure the test error along the line between the first two members of a pool.

    Parameters
    ----------
    pool : wamlib.pools.Pool
    alphas : sequence of float
        Mixing weights in [0, 1], with both ends.

    Returns
    -------
    DataFrame
        Columns alpha, error (percent), recalibrated (bool; only False without
        BatchNorm) and barrier (percentage points, the same on every row of a line).
    """
    a, b = pool.states[:2]
    tables = []
    for recalibrate in (False, True) if pool.has_batchnorm else (False,):
        line = probe.barrier(a, b, lambda state, r=recalibrate: pool.error(state, recalibrate=r), alphas)
        columns = {"alpha": line.alphas, "error": line.errors, "recalibrated": recalibrate, "barrier": line.height}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)
