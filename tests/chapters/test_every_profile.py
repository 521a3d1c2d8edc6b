"""Every chapter bears the names of every profile: its cells run, and nothing that it says is no number.

The networks are small ones of the same kind under the profile's names, and nobody trained them.
"""

import math
import re
import types
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import yaml
from helpers import random_dataset, untrained_chapter

import wamlib
from wamlib import chapters, models
from wamlib.models import registry

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "params").glob("*.yml"))
SMALL = {"mlp": "mlp", "cnn": "cnn", "vgg": "vgg", "resnet": "resnet8", "densenet": "densenet", "vit": "vit"}
# Few images, one pass: as the smoke profile, and less.
FEW = {
    "datasets": ["digits"],
    "foreign_datasets": ["photographs"],
    "pretrained_datasets": [],
    "n_replicas": 2,
    "n_members": 3,
    "n_pool_members": 2,
    "n_many": 3,
    "sizes": [2, 3],
    "n_linear": 6,
    "wide_models": ["mlp"],
    "widths": [0.5, 1],
    "n_plane": 3,
    "n_plane_images": 20,
    "n_attacked": 4,
    "n_noisy": 6,
    "n_jacobians": 2,
    "n_images": 20,
    "n_scaled_images": 90,
    "n_gradients": 20,
    "n_curvature_images": 60,
    "n_line_images": 10,
    "n_directions": 2,
    "n_foreign": 20,
    "n_recalibration": [30],
    "few_factors": [0.1, 10.0],
    "factors": [0.1, 1.0, 10.0],
    "noise_factors": [0.5, 1.0, 4.0],
    "ways": [0.5, 1.0],
    "alphas": [0.0, 0.5, 1.0],
    "line": [0.0, 0.5, 1.0],
    "linear_sizes": [1, 2],
    "corruptions": ["contrast"],
    "severities": [5],
    "budgets": [8],
}


def names_of(profile):
    """Return the architectures that a profile names."""
    settings = yaml.safe_load((ROOT / "params" / f"{profile}.yml").read_text())
    return {name: value for name, value in settings.items() if name.endswith(("model", "models"))}


@pytest.fixture
def small(monkeypatch):
    """Build every architecture at the smallest size that there is of its kind."""
    build = registry.build

    def built(name, *args, **kwargs):
        base, _, width = name.partition("-x")
        facts = models.facts(base)
        normed = "_bn" * (facts.family == "vgg" and facts.batchnorm)
        base = base if base in models.SMALL else SMALL[facts.family] + normed
        return build(f"{base}-x{width}" if width else base, *args, **kwargs)

    monkeypatch.setattr(models, "build", built)


@pytest.mark.slow
@pytest.mark.parametrize("profile", [name for name in PROFILES if names_of(name)])
@pytest.mark.parametrize("name", chapters.names())
def test_every_cell_runs_with_the_names_of_a_profile(name, profile, tmp_path, monkeypatch, small):
    if name in ("quickstart", "primer", "your_own"):
        pytest.skip("speaks of one architecture, or of none")
    known = chapters.defaults(name)
    chosen = {key: value for key, value in {**FEW, **names_of(profile)}.items() if key in known}
    dataset = random_dataset(n_classes=10)
    here = untrained_chapter(name, dataset, tmp_path, **chosen)
    said, shown = {}, {}
    monkeypatch.setattr(here, "say", said.update)
    monkeypatch.setattr(here, "show", lambda key, figure: shown.update({key: figure}))
    monkeypatch.setattr(chapters, "begin", lambda *given: here)
    monkeypatch.setattr(pd, "set_option", lambda *given: None)
    scope = {"__name__": "cell", **vars(here.p)}
    book = nbformat.read(ROOT / "notebooks" / f"{here.number}_{name}.ipynb", as_version=4)
    for cell in book.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "parameters" not in tags:
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
            exec(compile(code, f"{name}: {cell.source[:40]!r}", "exec"), scope)
    assert shown
    assert all(isinstance(figure, (plt.Figure, types.SimpleNamespace)) or figure for figure in shown.values())
    text = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    asked = set(re.findall(r"\{glue:text\}`(\w+)", text)) - {"n_runs", "training", "redraw"}
    assert asked <= set(said), "a number that the text asks for and nobody says"
    nothing = [key for key in asked if not isinstance(said[key], str) and not math.isfinite(float(said[key]))]
    assert nothing == [], "the page would say nan"


def test_profiles_name_more_than_one_architecture():
    assert "gpu" in [name for name in PROFILES if names_of(name)]
    assert wamlib.models.kind(names_of("gpu")["pool_models"][-1]) == "vit"
