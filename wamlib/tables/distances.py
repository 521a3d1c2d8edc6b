"""How far members stand from their soup."""

from statistics import fmean

from .. import probe
from ..merge import uniform_soup

__all__ = ["relative_distance"]


def relative_distance(members):
    """Return how far members are from their soup: mean distance of the weights over the norm of the soup.

    Parameters
    ----------
    members : sequence of dict of str to Tensor

    Returns
    -------
    float
    """
    soup = uniform_soup(members)
    return fmean(probe.distance(member, soup) for member in members) / probe.weight_norm(soup)
