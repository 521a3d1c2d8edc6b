"""Chapter 01: the loss of two weights, drawn and said."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import check_drawing

from wamlib.chapters import primer

STARTS = list(primer.STARTS.values())
LINES = pd.DataFrame(
    [
        (pair, alpha, alpha, 1 - alpha, loss)
        for pair, losses in zip(STARTS, ([1, 0.5, 1], [1, 4, 2]))
        for alpha, loss in zip((0.0, 0.5, 1.0), losses)
    ],
    columns=["pair", "alpha", "w1", "w2", "loss"],
)
GRID = [(a, b, (a * b - 1.0) ** 2) for a in (-1, 0, 1) for b in (-1, 0, 1)]
SURFACE = pd.DataFrame(GRID, columns=["w1", "w2", "loss"])


def test_the_map_and_the_lines_are_drawn(tmp_path):
    fig = primer.loss_landscape(SURFACE, LINES)
    check_drawing(fig, tmp_path, units=False)  # a squared error of a toy has none
    for line, (_, part) in zip(fig.axes[1].lines[::3], LINES.groupby("pair", sort=False)):
        np.testing.assert_allclose(line.get_xydata(), part[["alpha", "loss"]])


def test_barriers_are_those_of_the_lines():
    losses = pd.DataFrame({"soup": [0.5, 4.0], "members": [1.0, 1.5]}, index=STARTS)
    said = primer.numbers(SimpleNamespace(), LINES, losses, np.array([1.0, -2.0]))
    assert (said["zero"], said["n_test"]) == (2.5, 2)
    assert (said["barrier_shared"], said["barrier_independent"]) == (0, pytest.approx(2.5))
    assert (said["soup_independent"], said["members_shared"]) == (4.0, 1.0)
