"""The parameters of chapters: their names, defaults and kinds stand in the parameters cells of the notebooks."""

import ast
import difflib
import json
import reprlib
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import yaml

from .. import data
from ..data.foreign import PHOTOGRAPHS
from ..errors import ConfigError, DataError
from ..models.registry import check_name

__all__ = ["PUBLISHED", "Parameters", "check_parameters", "defaults", "names", "notebook", "read_parameters"]

PUBLISHED = "published"  # the profile that trains nothing
KINDS = {int: "a whole number", float: "a number", str: "a name"}
# Where numbers may lie, ends included; of others, whole ones from 1 and the rest above 0.
SPANS = {"alphas": (0, 1), "line": (0, 1), "ways": (0, 1), "severities": (1, 5)}
MOST = 1_000_000_000
MAY_BE_NULL = ("n_train", "n_eval")  # how names begin of numbers for which null means all


class Parameters(SimpleNamespace):
    """The parameters of one chapter as attributes."""

    @property
    def published(self):
        """Whether the chapter is drawn from published records, so that nothing has to be here."""
        return self.profile == PUBLISHED

    def present(self, datasets):
        """Return those of several data sets that can be used: whose files are here, or all, from published records."""
        return [name for name in datasets if self.published or data.is_present(name)]


@cache
def _notebooks():
    """Return the notebooks by the name of their chapter, in the order of the book."""
    folder = Path(__file__).parents[2] / "notebooks"
    found = {path.stem.partition("_")[2]: path for path in sorted(folder.glob("*.ipynb"))}
    if not found:
        raise ConfigError(
            "cannot find the chapters",
            item=str(folder),
            got="no notebooks",
            wanted="the notebooks of the book, whose parameters cells hold the parameters",
            fix="Work in a checkout of the repository, and install it with pip install -e .",
        )
    return found


def names():
    """Return the names of all chapters, in the order of the book."""
    return list(_notebooks())


def notebook(name):
    """Return the path of a chapter's notebook.

    Raises
    ------
    ConfigError
        If there is no such chapter.
    """
    if name not in _notebooks():
        _refuse(f"chapter {name!r}", "a name that no chapter has", _nearest(name, _notebooks()), "Correct the name.")
    return _notebooks()[name]


@cache
def _cell(name):
    """Return the source of a chapter's parameters cell."""
    cells = json.loads(notebook(name).read_text("utf-8"))["cells"]
    found = [cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return "".join(found[0])


def defaults(name):
    """Return the parameters of a chapter with the values that stand in its notebook: the laptop profile.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    dict
        In the order of the cell.
    """
    body = ast.parse(_cell(name)).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign)}


@cache
def _kinds():
    """Return the type of each parameter's value, in a list where the value is one, and the names that may be null."""
    kinds, nullable = {}, set()
    for chapter in names():
        for name, value in defaults(chapter).items():
            if value is None or name.startswith(MAY_BE_NULL):
                nullable.add(name)
            kind = _kind(value)
            if name not in kinds or kind == [float]:
                kinds[name] = kind
    return kinds, nullable


def _kind(value):
    if isinstance(value, list):
        types = {type(one) for one in value} or {str}
        return [float if types == {int, float} else types.pop()]
    return str if value is None else type(value)


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
    wrong_tags = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError)  # PyYAML lets these pass
    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
        settings = {} if settings is None else settings
        if not isinstance(settings, dict):
            raise ValueError("not a mapping of names to values")
    except (OSError, ValueError, yaml.YAMLError, *wrong_tags) as error:
        raise ConfigError(
            "cannot read parameters",
            item=str(path),
            got=str(error),
            wanted="a YAML file of names and values",
            fix="Correct the path or the file; params/smoke.yml is an example.",
        ) from error
    check_parameters(settings)
    return settings


class _Loader(yaml.SafeLoader):
    """A loader for which a name that stands there twice is a mistake, not the last of the two."""

    def construct_mapping(self, node, deep=False):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
        if twice := [name for name, count in keys.items() if count > 1]:
            raise ValueError(f"{twice[0]!r} twice")
        return super().construct_mapping(node, deep)


def check_parameters(settings):
    """Refuse parameters that no chapter has, or that no chapter could work with.

    Parameters
    ----------
    settings : dict
        Names of parameters to values.

    Raises
    ------
    ConfigError
        If a name is unknown; the message says which known one is nearest. If a value is of another kind than the
        default, or is a number that cannot be, an empty name, or an unknown model, data set or corruption.
    """
    if not isinstance(settings, dict):
        _refuse("the parameters", f"a {type(settings).__name__}", "a dict, from names to values", "Correct the call.")
    known, nullable = _kinds()
    for name, value in settings.items():
        if name not in known:
            _refuse(
                f"name {name!r}", "a name that no chapter has", _nearest(name, known), "Correct the name, or remove it."
            )
        if value is None and name in nullable:
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
