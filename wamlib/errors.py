"""Errors in four parts: what was being done, to which item, got against wanted, and what to do next."""

__all__ = [
    "AlignmentError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EvidenceError",
    "FetchError",
    "MemberMismatchError",
    "MergeError",
    "NonFiniteMemberError",
    "ProbeError",
    "RunNotFoundError",
    "StoreError",
    "WamlibError",
]


class WamlibError(Exception):
    """Base of every error that wamlib raises on purpose.

    Parameters
    ----------
    doing : str
        What was being done, as a clause: ``"cannot average 'head.weight'"``.
    item : str
        Which member, file, key or field it was about.
    got, wanted : str
        What was found there and what would have been right.
    fix : str
        What to do next, as one sentence.

    Notes
    -----
    The parts are passed in this order; one that is too long for the line of the ``raise`` is named first, in a
    line such as ``fix = "Pass one entry per member."``.
    """

    def __init__(self, doing, item, got, wanted, fix):
        super().__init__(doing, item, got, wanted, fix)  # what a worker's error is made from again, see pickle
        self.doing, self.item, self.got, self.wanted, self.fix = doing, item, got, wanted, fix

    def __str__(self):
        return f"{self.doing}: {self.item}: got {self.got}, wanted {self.wanted}. {self.fix}"

    def _render_traceback_(self):
        """Return what a notebook shows: the four parts, a line each, and not the way through this package."""
        parts = {"where": self.item, "got": self.got, "wanted": self.wanted, "next": self.fix}
        return [f"{type(self).__name__}: {self.doing}", *(f"  {name:<7} {part}" for name, part in parts.items())]


class ConfigError(WamlibError, ValueError):
    """A setting has a value that cannot be trained with."""


class DataError(WamlibError):
    """A data set is missing, damaged or unusable."""


class FetchError(DataError):
    """A data set could not be brought here from any of its sources."""


class AlignmentError(WamlibError, ValueError):
    """The units of a network cannot be permuted, matched or repaired."""


class MergeError(WamlibError, ValueError):
    """A merge was asked for that has no meaning (no members, weights that sum to zero)."""


class MemberMismatchError(MergeError):
    """Members differ in keys, shapes or dtypes, so they cannot be merged."""


class NonFiniteMemberError(MergeError):
    """A member holds NaN or infinity."""


class ProbeError(WamlibError, ValueError):
    """A probe was asked for something it cannot measure."""


class CheckpointError(WamlibError):
    """A file of weights is damaged or is not what its record says."""


class EvidenceError(WamlibError, LookupError):
    """A record of evidence is not there, or was measured by other code."""


class RunNotFoundError(WamlibError, LookupError):
    """The run store holds no finished run of that name."""


class StoreError(WamlibError):
    """The system refused to read or write a file of the run store."""
