"""Tiny members, and independent float64 references that share no code with wamlib."""

import numpy as np
import torch
from torch import nn


def linear_state(seed, rows=3, columns=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(rows, columns, generator=generator).to(dtype),
        "bias": torch.randn(rows, generator=generator).to(dtype),
    }


def bn_model(seed=0, dropout=0.0):
    """A small convolution network with BatchNorm and dropout, and statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 1, 6, 6) * 2 + 1)
    return model.eval()


def reference_mean(members, weights=None):
    """Weighted mean in numpy float64."""
    weights = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    stacked = {key: np.stack([np.asarray(m[key].double()) for m in members]) for key in members[0]}
    return {key: np.asarray(np.tensordot(weights, values, axes=1) / weights.sum()) for key, values in stacked.items()}
