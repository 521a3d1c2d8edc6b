"""The plane through three members."""

import math
from typing import NamedTuple

import numpy as np

from ..errors import ProbeError
from ..merge import uniform_soup
from .magnitude import distance

__all__ = ["Plane", "plane"]

MARGIN = 0.25  # how far the grid reaches beyond the three members, in distances from the first to the second


class Plane(NamedTuple):
    """The error over the plane through three members.

    Coordinates are distances of the learnable weights, in units of that from the first member to the second: the
    first member is the origin, the second lies at (1, 0), the third above the axis that joins them.

    Parameters
    ----------
    members : list of (float, float)
        Coordinates (u, v) of the three members.
    us, vs : list of float
        Coordinates of the grid.
    errors : list of list of float
        Error in percent at each of them; one list for each v.
    """

    members: list[tuple[float, float]]
    us: list[float]
    vs: list[float]
    errors: list[list[float]]


def plane(a, b, c, error, n_points=21):
    """Measure the error over the plane through three members.

    Parameters
    ----------
    a, b, c : dict of str to Tensor
        State dicts of the members. Every point of the plane is a sum of the three with shares that add up to 1;
        outside of their triangle some shares are negative.
    error : callable
        Takes a state dict and returns an error in percent. With BatchNorm, let it recalibrate at every point:
        running variances that are extrapolated can be negative.
    n_points : int
        Points along each axis, at least 2. The grid reaches beyond the triangle by a quarter of a side.

    Returns
    -------
    Plane

    Raises
    ------
    ProbeError
        If the members lie on one line, which spans no plane, or the grid has too few points.

    References
    ----------
    Garipov et al. (2018), Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs, Section 3 and Appendix.
    https://arxiv.org/abs/1802.10026
    """
    if not isinstance(n_points, int) or n_points < 2:
        fix = "Ask for more points along each axis."
        raise ProbeError("cannot measure a plane", "n_points", repr(n_points), "a whole number of at least 2", fix)
    side = distance(a, b)
    # The law of cosines gives the foot of the third member on the line through the first two.
    to_a, to_b = (distance(end, c) / side for end in (a, b)) if side > 0 else (0.0, 0.0)
    foot = (1 + to_a**2 - to_b**2) / 2
    height = math.sqrt(max(0.0, to_a**2 - foot**2))
    if height < 1e-6:
        wanted, fix = "three that span a plane", "Choose members that differ, and no soup of the other two."
        raise ProbeError("cannot measure a plane", "the third member", "three members on one line", wanted, fix)
    us = np.linspace(min(0.0, foot) - MARGIN, max(1.0, foot) + MARGIN, n_points).tolist()
    vs = np.linspace(-MARGIN, height + MARGIN, n_points).tolist()
    shares = [[shares_at(u, v, foot, height) for u in us] for v in vs]
    errors = [[float(error(uniform_soup([a, b, c], weights))) for weights in line] for line in shares]
    return Plane([(0.0, 0.0), (1.0, 0.0), (foot, height)], us, vs, errors)


def shares_at(u, v, foot, height):
    """Return the shares of the three members at a point of the plane; they add up to 1."""
    c = v / height
    b = u - c * foot
    return [1 - b - c, b, c]
