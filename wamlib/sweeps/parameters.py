"""The parameters of chapters and sweeps, as a file in params/ sets them: known names, and values that can be."""

import difflib
import inspect
import reprlib
from collections import Counter
from pathlib import Path

import yaml

from .. import data
from ..data.foreign import PHOTOGRAPHS
from ..errors import ConfigError, DataError
from ..models.registry import check_name
from .book import CHAPTER_ONLY, book

__all__ = ["check_parameters", "read_parameters"]

KINDS = {int: "a whole number", float: "a number", str: "a name"}
# Where numbers may lie, ends included; of others, whole ones from 1 and the rest above 0.
SPANS = {"alphas": (0, 1), "line": (0, 1), "ways": (0, 1), "severities": (1, 5)}
MOST = 1_000_000_000
MAY_BE_NULL = ("n_train", "n_eval", "output", "mean", "std")  # how these names begin: null is all, none, or measured


def read_parameters(path):
    """Read a YAML file of parameters, such as params/smoke.yml.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict
        Empty for an empty file.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no mapping of names to values or sets a name twice; and as `check_parameters`.
    """
    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
        settings = {} if settings is None else settings
        if not isinstance(settings, dict):
            raise ValueError("not a mapping of names to values")
    # PyYAML's own constructors let what a wrong tag leads to pass: KeyError, AttributeError, ...
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError,
            yaml.YAMLError) as error:  # fmt: skip
        raise ConfigError(
            "cannot read parameters", item=str(path), got=str(error), wanted="a YAML file of names and values",
            fix="Correct the path or the file; params/smoke.yml is an example.",
        ) from error  # fmt: skip
    check_parameters(settings)
    return settings


class _Loader(yaml.SafeLoader):
    """A loader for which a name that stands there twice is a mistake, not the last of the two."""

    def construct_mapping(self, node, deep=False):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        names = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"{twice[0]!r} twice")
        return super().construct_mapping(node, deep)


def check_parameters(settings):
    """Refuse parameters that no chapter has, or that no chapter could work with.

    Parameters
    ----------
    settings : dict
        Parameters of `book` and of the chapters (`CHAPTER_ONLY`) to their values.

    Raises
    ------
    ConfigError
        If a name is unknown; the message says which known one is nearest. If a value is of another kind than the
        default, or is a number that cannot be, an empty name, or an unknown model, data set or corruption.
    """
    if not isinstance(settings, dict):
        _refuse("the parameters", f"a {type(settings).__name__}", "a dict, from names to values", "Correct the call.")
    known = _kinds()
    for name, value in settings.items():
        if name not in known:
            _refuse(f"name {name!r}", "a name that no chapter has", _nearest(name, known),
                    "Correct the name, or remove it.")  # fmt: skip
        if value is None and name.startswith(MAY_BE_NULL):
            continue
        kind = known[name]
        if not isinstance(kind, list):
            _check_value(name, value, kind)
            continue
        if not isinstance(value, (list, tuple)):
            _refuse_value(name, value, "a list", "Write [a, b], or [] for none.")
        for one in value:
            _check_value(name, one, kind[0])
    for model in settings.get("wide_models", ()):
        for width in settings.get("widths", ()):
            _check_model("widths", model if width == 1 else f"{model}-x{width:g}")


def _kinds():
    """Return the type of each parameter's value, in a list where the value is one."""
    defaults = {name: p.default for name, p in inspect.signature(book).parameters.items() if name != "others"}
    return CHAPTER_ONLY | {name: _kind(default) for name, default in defaults.items()}


def _kind(default):
    if not isinstance(default, tuple):
        return type(default)
    types = {type(one) for one in default}
    return [float if types == {int, float} else types.pop()]


def _check_value(name, value, kind):
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        _refuse_value(name, value, 'text, as "0.49,0.48,0.45"' if name in ("mean", "std") else KINDS[kind])
    if kind is str:
        _check_text(name, value)
        return
    low, high = SPANS.get(name, (1 if kind is int else 0, MOST))
    open_below = kind is float and name not in SPANS
    if not (low <= value <= high) or (open_below and value == low):
        _refuse_value(name, value, f"{KINDS[kind]} {'above' if open_below else 'from'} {low} to {high}")


def _check_text(name, value):
    if not value.strip():
        _refuse_value(name, value, "a name that is not empty")
    if name == "model" and ":" in value:  # package.module:function, which only its own machine can import
        return
    if name.endswith(("model", "models")):
        _check_model(name, value)
    elif name.endswith(("dataset", "datasets")) and not (name == "foreign_datasets" and value == PHOTOGRAPHS):
        _check_dataset(name, value)
    elif name == "corruptions" and value not in data.CORRUPTIONS:
        _refuse_value(name, value, f"one of {', '.join(data.CORRUPTIONS)}")
    elif name == "profile" and Path(value).name != value:
        _refuse_value(name, value, "the name of a folder, without a path")


def _check_model(name, value):
    try:
        check_name(value)
    except ConfigError as error:
        _refuse_value(name, value, error.wanted)


def _check_dataset(name, value):
    try:
        data.title(value)
    except DataError as error:
        _refuse_value(name, value, error.wanted)


def _nearest(name, known):
    near = difflib.get_close_matches(str(name), known, 1)
    return f"perhaps {near[0]!r}" if near else f"one of {', '.join(sorted(known))}"


def _refuse_value(name, value, wanted, fix="Correct the value, or remove the parameter."):
    _refuse(f"parameter {name!r}", reprlib.repr(value), wanted, fix)


def _refuse(item, got, wanted, fix):
    raise ConfigError("cannot use the parameters", item=item, got=got, wanted=wanted, fix=fix) from None
