"""How much shorter a soup is than its members, and why."""

import math

import numpy as np
import pandas as pd
import torch

from ..errors import ProbeError
from ..merge import is_learnable
from .combining import check_sizes, subsets

__all__ = ["norm_ratios"]


def norm_ratios(pool, reference, sizes=(2, 3), n_subsets=1):
    """Compare the norm of soups with that of their members, and of the members' deviations.

    With :math:`\\delta_i` the deviation of member i from the reference and c the mean of
    :math:`\\delta_i \\cdot \\delta_j` over pairs, over the mean of :math:`\\lVert\\delta_i\\rVert^2`,

    .. math:: \\frac{\\lVert \\frac1N \\sum_i \\delta_i \\rVert^2}{\\frac1N \\sum_i \\lVert\\delta_i\\rVert^2}
              = \\frac1N + \\left(1 - \\frac1N\\right) c ,

    so that deviations shrink by :math:`\\sqrt N` where, and only where, they have nothing in common.

    Parameters
    ----------
    pool : list of Run
    reference : dict of str to Tensor or None
        What deviations are taken from, such as the weights of the trunk; None takes the weights themselves.
    sizes : sequence of int
        Numbers N of members.
    n_subsets : int
        Subsets of each size, see `subsets`.

    Returns
    -------
    DataFrame
        One row per size, subset and layer (a learnable tensor, "all" of them together, or "kernels",
        those of at least two axes): n_members,
        subset, layer, norm_ratio (norm of the soup over the mean norm of its members), deviation_ratio (norm
        of the mean deviation over the root mean square of their norms), cosine (the c above; NaN for one
        member), centred_ratio (distance of the soup from the soup of the whole pool, over the root mean
        square of the members') and centred_law (its root mean square over all subsets,
        :math:`\\sqrt{(1/N - 1/M) / (1 - 1/M)}` for a pool of M: sampling without replacement,
        whatever the vectors are).

    Raises
    ------
    ProbeError
        If a size is larger than the pool, the pool has one member, or the reference has other tensors.
    """
    check_sizes(sizes, pool)
    states = [run.state for run in pool]
    learnable = {key for key in states[0] if is_learnable(key)}
    wrong = reference is not None and learnable ^ {key for key in reference if is_learnable(key)}
    if len(pool) < 2 or wrong:
        raise ProbeError(
            "cannot compare norms",
            item="reference" if wrong else "pool",
            got=f"other learnable tensors, such as {min(wrong)!r}" if wrong else "one member",
            wanted="those of the members" if wrong else "at least two",
            fix="Pass the state of the trunk of these members." if wrong else "Train more members.",
        )
    # Of every norm that is wanted only inner products of members are needed.
    weights, deviations = _products(states, None), _products(states, reference)
    rows, n_all = [], len(pool)
    for n in sizes:
        law = math.sqrt((1 / n - 1 / n_all) / (1 - 1 / n_all))
        for number, chosen in enumerate(subsets(n_all, n, n_subsets)):
            for layer in weights:
                row = {"n_members": n, "subset": number, "layer": layer}
                row |= _ratios(weights[layer], deviations[layer], list(chosen))
                rows.append(row | {"centred_law": law})
    return pd.DataFrame(rows)


def _products(states, reference):
    """Return the inner products of the members' deviations, shape (member, member): of each tensor, and of several."""
    found = {}
    for key in filter(is_learnable, states[0]):
        rows = torch.stack([state[key].double().flatten() for state in states])
        rows = rows if reference is None else rows - reference[key].double().flatten()
        found[key] = (rows @ rows.T).numpy()
    # The gains of norms begin at 1 in every network, so that strangers too have them in common.
    kernels = sum(products for key, products in found.items() if states[0][key].dim() > 1)
    return {"all": sum(found.values()), "kernels": kernels} | found


def _ratios(weights, deviations, chosen):
    n, part, apart = len(chosen), weights[np.ix_(chosen, chosen)], deviations[np.ix_(chosen, chosen)]
    square = np.trace(apart) / n
    pairs = apart[~np.eye(n, dtype=bool)]
    # Inner products of the members' distances from the soup of the whole pool.
    centred = deviations - deviations.mean(0) - deviations.mean(1)[:, None] + deviations.mean()
    return {
        "norm_ratio": _ratio(math.sqrt(part.mean()), np.sqrt(np.diag(part)).mean()),
        "deviation_ratio": _ratio(math.sqrt(max(apart.mean(), 0)), math.sqrt(square)),
        "cosine": _ratio(pairs.mean(), square) if n > 1 else math.nan,
        "centred_ratio": _ratio(
            math.sqrt(max(centred[np.ix_(chosen, chosen)].mean(), 0)), math.sqrt(np.trace(centred) / len(centred))
        ),
    }


def _ratio(a, b):
    return a / b if b else math.nan
