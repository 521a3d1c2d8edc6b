"""Imports point down, importing wamlib is light, and randomness has a seed (M18)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "wamlib"

# Module -> modules of the package it may import. An arrow never points up.
BASE = {"errors", "config"}
USUAL = BASE | {"data", "models"}
BELOW = {
    "errors": set(),
    "config": {"errors"},
    "stats": set(),
    "modes": set(),
    "data": BASE,
    "models": BASE,
    "storage": {"errors"},
    "records": {"errors"},
    "train": USUAL | {"merge", "storage"},
    "linear": BASE | {"models", "train"},
    "stacked": USUAL | {"train"},
    "evaluate": USUAL | {"modes"},
    "provenance": set(),
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
    "tables": USUAL
    | {"linear", "evaluate", "runs", "merge", "ensemble", "align", "probe"}
    | {"stats", "predictions", "released", "advise"},
    "plot": {"stats"},
    "cli": BASE | {"data", "merge", "runs", "sweeps", "advise", "train"},
    "__init__": set(),
}


def imported(source, package):
    """Return the names of the package's own modules that a source imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == package:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wamlib"):
            found.add(node.module.partition(".")[2] or "wamlib")
    return found


def sources():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        name = relative.parts[0].removesuffix(".py")
        yield pytest.param(name, path, len(relative.parts), id=str(relative))


@pytest.mark.parametrize(("name", "path", "depth"), list(sources()))
def test_imports_point_down(name, path, depth):
    above = imported(path.read_text(), depth) - BELOW[name]
    assert not above, f"{name} imports {above}, which is not below it"


def test_an_arrow_that_points_up_would_be_seen():
    assert imported("from . import sweeps\ndef f():\n    from .runs import RunStore", 1) == {"sweeps", "runs"}
    assert imported("from ..train import x", 2) == {"train"}
    assert imported("from wamlib.plot import x", 1) == {"plot"}


def test_the_order_has_no_circle():
    reach = {name: set(below) for name, below in BELOW.items()}
    for _ in reach:
        reach = {name: below.union(*(reach[b] for b in below)) for name, below in reach.items()}
    assert not [name for name, below in reach.items() if name in below]


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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_randomness_enters_by_a_seed_or_a_generator(path):
    assert unseeded(path.read_text()) == []


def test_unseeded_randomness_would_be_seen():
    bad = "torch.manual_seed(0); hash('x'); np.random.rand(); torch.randperm(5)"
    assert unseeded(bad) == ["torch.manual_seed", "hash", "np.random.rand", "torch.randperm"]
    assert unseeded("torch.randperm(5, generator=g)") == []
