"""The linear assignment that both matchings solve."""

import torch

__all__ = ["assignment"]


def assignment(gain):
    """Return the order with the largest sum of gains."""
    from scipy.optimize import linear_sum_assignment

    # Taking the best of each row and column out first changes no optimum, and the solver starts nearer to it.
    cost = -gain.cpu().double().numpy()
    cost -= cost.min(1, keepdims=True)
    cost -= cost.min(0, keepdims=True)
    return torch.from_numpy(linear_sum_assignment(cost)[1])
