"""The comparison with other tools: it passes where they agree, and it can fail."""

import csv
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import fidelity  # noqa: E402

HERE = {name: fidelity.TOOLS[name] for name in ("numpy", "ties-merging", "torch", "files")}


def test_the_merges_agree_with_what_needs_no_other_package(tmp_path):
    assert fidelity.main(HERE, tmp_path / "fidelity.csv") == 0
    rows = list(csv.DictReader((tmp_path / "fidelity.csv").read_text().splitlines()))
    assert {row["method"] for row in rows} >= {
        "uniform_soup",
        "interpolate",
        "task_arithmetic",
        "ties",
        "dare",
        "slerp",
        "model_stock",
        "fisher",
        "regmean",
        "learned_soup",
        "RunningAverage (SWA)",
        "RunningAverage (EMA)",
        "merge_files, uniform",
        "merge_files, ties",
    }


def test_a_wrong_reference_would_be_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fidelity.references, "uniform", lambda members: fidelity.references.arrays(members[0]))
    assert fidelity.main({"numpy": HERE["numpy"]}, tmp_path / "fidelity.csv") == 1
    assert "uniform_soup is" in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), 1e-5, float("inf")])
def test_nan_and_what_is_beyond_the_tolerance_are_failures(value):
    row = fidelity.Row("ties", "a tool", "", value)
    assert fidelity.failures([row]) == [row]
    assert fidelity.failures([fidelity.Row("ties", "a tool", "", 1e-7)]) == []
    assert fidelity.failures([fidelity.Row("ties", "a tool", "", value, "differs by design", None)]) == []


def test_a_difference_looks_at_every_value_and_lets_nan_through():
    a = {"w": torch.zeros(3), "v": torch.tensor([0.0, 2.0])}
    assert fidelity.difference(a, {"w": torch.zeros(3), "v": torch.zeros(2)}) == 2.0
    assert fidelity.difference(a, {"w": torch.tensor([0.0, float("nan"), 9.0])}) != 9.0
    with pytest.raises(AssertionError):
        fidelity.difference(a, {})
    with pytest.raises(AssertionError):
        fidelity.difference(a, {"w": torch.zeros(1)})


def test_the_published_table_has_no_failure_and_knows_every_tool():
    rows = list(csv.DictReader((BENCHMARKS / "results" / "fidelity.csv").read_text().splitlines()))
    for row in rows:
        assert "differs by design" in row["note"] or float(row["largest_difference"]) <= fidelity.TOLERANCE
    for tool in ("numpy", "torch", "timm", "mergekit", "peft", "ties-merging", "in memory"):
        assert any(tool in row["reference"] for row in rows)
