"""Imports point down, importing wamlib is light, and randomness has a seed (M18)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from wamlib.reach import _targets

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wamlib"
CHAPTERS = [path.stem.partition("_")[2] for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]

# Module -> modules of the package it may import. An arrow never points up.
BASE = {"errors", "config"}
USUAL = BASE | {"data", "models"}
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "stats": set(),
    "modes": set(),
    "reach": set(),
    "packed": set(),
    "provenance": set(),
    "data": BASE,
    "models": BASE,
    "storage": {"errors"},
    "records": {"errors"},
    "train": USUAL | {"merge", "storage"},
    "linear": BASE | {"models", "train"},
    "stacked": USUAL | {"train"},
    "evaluate": USUAL | {"modes"},
    "runs": USUAL | {"train", "linear", "stacked", "evaluate", "provenance", "records", "storage"},
    "merge": {"errors", "modes"},
    "ensemble": {"errors"},
    "predictions": BASE | {"storage"},
    "released": USUAL | {"train", "evaluate", "merge"},
    "align": BASE | {"merge"},
    "probe": BASE | {"merge", "modes", "ensemble", "evaluate"},
    "advise": USUAL | {"evaluate", "merge", "ensemble", "align", "probe", "runs"},
    "sweeps": USUAL | {"linear", "stacked", "runs", "provenance"},
    "claims": {"errors", "stats"},
    "plot": {"stats"},
    # What a pool is, what is measured on one, and what is kept of that.
    "pools": USUAL | {"ensemble", "evaluate", "merge", "predictions", "train"},
    "evidence": BASE | {"predictions", "provenance", "reach", "storage", "train"},
    "combinations": BASE | {"ensemble", "evaluate", "pools", "probe", "stats"},
    "costs": {"evaluate", "models", "probe"},
    "lines": {"probe"},
    "pairs": {"align", "evaluate", "merge"},
    "pictures": {"packed", "pools", "probe"},
    # Chapters may use all of the library but the command line, which asks them for their runs.
    "chapters": USUAL
    | {"linear", "train", "evaluate", "runs", "merge", "ensemble", "align", "probe", "stats", "predictions", "released"}
    | {"advise", "sweeps", "claims", "plot", "pools", "evidence"}
    | {"combinations", "costs", "lines", "packed", "pairs", "pictures"},
    "cli": BASE | {"data", "merge", "runs", "sweeps", "advise", "train", "chapters"},
    "__init__": set(),
}
FRAME = {"chapter", "parameters", "sweep"}  # what all chapters share


def imported(source, package):
    """Return the names of the package's own modules that a source imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == package:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wamlib"):
            found.add(node.module.partition(".")[2] or "wamlib")
    return found


SOURCES = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", sorted({name_of(path) for path in SOURCES}))
def test_imports_point_down(name):
    for path, source in SOURCES.items():
        if name_of(path) == name:
            above = imported(source, len(path.relative_to(PACKAGE).parts)) - BELOW[name]
            assert not above, f"{path} imports {above}, which is not below {name}"


def test_an_arrow_that_points_up_would_be_seen():
    assert imported("from . import sweeps\ndef f():\n    from .runs import RunStore", 1) == {"sweeps", "runs"}
    assert imported("from ..train import x", 2) == {"train"}
    assert imported("from wamlib.plot import x", 1) == {"plot"}


def test_the_order_has_no_circle():
    reach = {name: set(below) for name, below in BELOW.items()}
    for _ in reach:
        reach = {name: below.union(*(reach[b] for b in below)) for name, below in reach.items()}
    assert not [name for name, below in reach.items() if name in below]


def chapters_brought(module, source, is_package=False):
    """Return the chapters other than its own that a module of `wamlib.chapters` imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            targets = [t if isinstance(t, str) else ".".join(t) for t in _targets(node, module, is_package).values()]
        for parts in (target.split(".") for target in targets):
            if parts[:2] == ["wamlib", "chapters"]:
                found |= {parts[2] if parts[2:] else "all of them"}
    return found - FRAME - {module.split(".")[2]}


def module_of(path):
    return ".".join(["wamlib", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_chapter_imports_another(name):
    parts = {path: source for path, source in SOURCES.items() if module_of(path).split(".")[1:3] == ["chapters", name]}
    assert parts
    for path, source in parts.items():
        assert chapters_brought(module_of(path), source, path.name == "__init__.py") == set(), path


def test_the_frame_of_chapters_imports_none():
    for name in ("chapter", "parameters", "sweep"):
        source = SOURCES[PACKAGE / "chapters" / f"{name}.py"]
        assert not chapters_brought(f"wamlib.chapters.{name}", source) & set(CHAPTERS)


@pytest.mark.parametrize(
    "source",
    [
        "from .trust import x",
        "from . import trust",
        "from wamlib.chapters import trust",
        "import wamlib.chapters.trust",
        "def f():\n    from ..chapters.trust import x",
        "from wamlib.chapters.trust import x as y",
    ],
)
def test_a_chapter_that_imports_another_would_be_seen(source):
    assert chapters_brought("wamlib.chapters.recipe", source) == {"trust"}
    assert chapters_brought("wamlib.chapters.trust", source) == set()
    assert chapters_brought("wamlib.chapters.recipe", "from . import chapter\nfrom .. import pools") == set()
    assert chapters_brought("wamlib.chapters.between.plane", source.replace("from .", "from ..")) == {"trust"}


def loaded_by(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_import_wamlib_brings_nothing_heavy():
    assert not loaded_by("import wamlib") & {"torch", "torchvision", "matplotlib", "pandas", "distributed", "sklearn"}


def test_merging_needs_neither_torchvision_nor_matplotlib():
    loaded = loaded_by("import wamlib; wamlib.merge.uniform_soup; wamlib.ensemble; wamlib.probe")
    assert "torch" in loaded
    assert not loaded & {"torchvision", "matplotlib", "pandas", "distributed", "sklearn", "scipy"}


def test_drawing_needs_no_torch():
    assert "torch" not in loaded_by("import wamlib.plot")


def test_a_sweep_of_all_chapters_draws_nothing():
    """All chapters in one process: what draws is imported by the figures themselves."""
    loaded = loaded_by(f"import {', '.join(f'wamlib.chapters.{name}' for name in CHAPTERS)}")
    assert {f"wamlib.chapters.{name}" for name in CHAPTERS} <= loaded
    assert not loaded & {"matplotlib", "seaborn", "wamlib.plot", "captum", "distributed", "IPython", "papermill"}


def unseeded(source):
    """Return calls that would draw from, or set, a generator that everybody shares, or hash with a salt."""
    found, forked = [], set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item) for item in node.items):
            forked |= set(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node not in forked:
            name = ast.unparse(node.func)
            drawing = name in ("torch.rand", "torch.randn", "torch.randint", "torch.randperm", "torch.multinomial")
            if name in ("hash", "torch.manual_seed", "torch.seed") or name.startswith(("np.random.", "random.")):
                found.append(name)
            if drawing and "generator" not in [keyword.arg for keyword in node.keywords]:
                found.append(name)
    return found


def test_randomness_enters_by_a_seed_or_a_generator():
    assert {path.name: unseeded(source) for path, source in SOURCES.items() if unseeded(source)} == {}


def test_unseeded_randomness_would_be_seen():
    bad = "torch.manual_seed(0); hash('x'); np.random.rand(); torch.randperm(5)"
    assert unseeded(bad) == ["torch.manual_seed", "hash", "np.random.rand", "torch.randperm"]
    assert unseeded("torch.randperm(5, generator=g)") == []
