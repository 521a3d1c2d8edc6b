"""Two members brought together: their units matched, and the statistics of what lies between them repaired."""

from functools import cached_property

from . import align, evaluate
from .align.repair import unit_statistics
from .merge import interpolate

__all__ = ["MATCHINGS", "REPAIRS", "Line", "matched", "repairs"]

MATCHINGS = ("none", "weights", "activations")
REPAIRS = ("none", "recalibrated", "REPAIR")


def repairs(pool):
    """Return the repairs, of `REPAIRS`, that networks of a pool can have: without BatchNorm none is recalibrated."""
    return [repair for repair in REPAIRS if pool.has_batchnorm or repair != "recalibrated"]


def matched(pool, a, b, matching):
    """Return the weights of b with its units in the order that matches those of a.

    Parameters
    ----------
    pool : wamlib.pools.Pool
        Of their architecture; by activations its training images are looked at.
    a, b : dict of str to Tensor
    matching : str
        Of `MATCHINGS`.

    Returns
    -------
    dict of str to Tensor
    """
    if matching == "none":
        return b
    batches = pool.training_batches() if matching == "activations" else None
    return align.apply(align.permutation(a, b, pool.module, by=matching, batches=batches), b)


class Line:
    """The straight line between two networks, with repairs.

    Parameters
    ----------
    pool : wamlib.pools.Pool
        Of their architecture; BatchNorm and units are repaired on its training images.
    a, b : dict of str to Tensor
        The ends.
    """

    def __init__(self, pool, a, b):
        self.pool, self.ends = pool, (a, b)

    def network(self, alpha, repair):
        """Return the network at one point of the line after a repair of `REPAIRS`; the pool's one module."""
        module = self.pool.load(interpolate(*self.ends, alpha), recalibrate=repair == "recalibrated")
        if _rescales(alpha, repair):
            images, weights = self.pool.training_batches(), [1 - alpha, alpha]
            align.repair(module, self.ends, images, weights, statistics=self._statistics)
        return module

    def logits(self, alpha, repair):
        """Return the logits on the test images at one point of the line after a repair."""
        if _rescales(alpha, repair):
            return evaluate.predict_logits(self.network(alpha, repair), self.pool.dataset.test)
        return self.pool.logits(interpolate(*self.ends, alpha), recalibrate=repair == "recalibrated")

    def error(self, alpha, repair):
        """Return the test error, in percent, at one point of the line after a repair."""
        return 100 - evaluate.accuracy(self.logits(alpha, repair), self.pool.dataset.test.labels)

    @cached_property
    def _statistics(self):
        """What `wamlib.align.repair` has to know of the ends, the same at every point."""
        return unit_statistics(self.pool.module, self.ends, self.pool.training_batches())


def _rescales(alpha, repair):
    return repair == "REPAIR" and alpha not in (0, 1)  # a member on its own has the spread that it has
