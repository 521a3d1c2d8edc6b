"""Train members, merge them, and probe the results.

``import wamlib`` is light: a submodule is imported when it is first touched,
so that nobody pays for torch, torchvision or matplotlib before using them.
"""

import importlib

__version__ = "0.1.0"

__all__ = [
    "advise",
    "align",
    "chapters",
    "claims",
    "combinations",
    "config",
    "costs",
    "data",
    "ensemble",
    "errors",
    "evaluate",
    "evidence",
    "linear",
    "lines",
    "merge",
    "models",
    "packed",
    "pairs",
    "pictures",
    "plot",
    "pools",
    "predictions",
    "probe",
    "provenance",
    "reach",
    "records",
    "released",
    "runs",
    "stacked",
    "stats",
    "storage",
    "sweeps",
    "train",
]


def __getattr__(name):
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, "__version__"])
