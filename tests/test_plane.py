"""The plane through three members: coordinates, shares and errors agree with arithmetic."""

import sys

import numpy as np
import pytest
import torch

from wamlib import probe
from wamlib.errors import ProbeError

probe_plane = sys.modules["wamlib.probe.plane"]  # the package has a function of that name


def flat(*values):
    return {"w": torch.tensor(values, dtype=torch.float64)}


A, B, C = flat(0, 0, 0), flat(2, 0, 0), flat(1, 3, 0)


def test_a_plane_measures_the_error_where_it_says():
    found = probe.plane(
        A, B, C, lambda state: float(state["w"] @ torch.tensor([1.0, 10.0, 0.0], dtype=torch.float64)), 5
    )
    # In units of the side from a to b, which is 2: c stands over the middle of it, 1.5 sides up.
    np.testing.assert_allclose(found.members, [(0, 0), (1, 0), (0.5, 1.5)], atol=1e-12)
    assert (found.us[0], found.us[-1], found.vs[0], found.vs[-1]) == pytest.approx((-0.25, 1.25, -0.25, 1.75))
    wanted = [[2 * u + 10 * 2 * v for u in found.us] for v in found.vs]
    np.testing.assert_allclose(found.errors, wanted, atol=1e-9)


def test_the_members_score_what_they_score_at_their_places():
    shares = [probe_plane.shares_at(u, v, 0.5, 1.5) for u, v in [(0, 0), (1, 0), (0.5, 1.5), (0.5, 0.5)]]
    np.testing.assert_allclose(shares, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3], atol=1e-12)


@pytest.mark.parametrize(
    ("c", "n_points", "words"),
    [(flat(1, 0, 0), 5, "on one line"), (C, 1, "at least 2"), (C, 2.0, "whole number")],
    ids=["on a line", "one point", "a fraction"],
)
def test_no_plane_no_grid(c, n_points, words):
    with pytest.raises(ProbeError, match=words):
        probe.plane(A, B, c, lambda state: 0.0, n_points)


def test_three_equal_members_span_no_plane():
    with pytest.raises(ProbeError, match="on one line"):
        probe.plane(A, A, A, lambda state: 0.0)
