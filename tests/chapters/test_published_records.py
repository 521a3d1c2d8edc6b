"""The published records give the published tables, verdicts and numbers: no network, no image and no store at hand."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from collect import PREFIXES

from wamlib import chapters, data, evidence, runs, sweeps
from wamlib.chapters.chapter import EVIDENCE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "data" / "results" / "edition"
FINDINGS = json.loads((RESULTS / "findings.json").read_text())["numbers"]
PREFIX = {stem.partition("_")[2]: prefix for stem, prefix in PREFIXES.items()}
PARAMETERS = chapters.read_parameters(ROOT / "params" / "published.yml")


@pytest.fixture
def nothing_at_hand(monkeypatch, tmp_path):
    """No data set, no run and no record of this machine can be reached."""

    def refuse(*args, **kwargs):
        raise AssertionError("a published chapter asked for images or networks")

    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    monkeypatch.delenv("WAMLIB_RUNS", raising=False)
    for module, name in ((data, "load"), (data, "is_present"), (sweeps, "run"), (sweeps, "run_groups")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(runs.RunStore, "load", refuse)
    monkeypatch.setattr(evidence.Evidence, "get", refuse)


@pytest.mark.parametrize("name", [name for name in chapters.names() if name != "primer"])
def test_a_chapter_is_what_was_published(name, nothing_at_hand):
    here = chapters.Chapter.of(name, **PARAMETERS)
    tables = here.module.tables(here)
    if hasattr(here.module, "claims"):
        here.judge(here.module.claims(here, tables))
    written = sorted(here.folder.glob("*.csv"))
    assert written
    for path in written:
        assert path.read_text() == (RESULTS / path.name).read_text(), path.name
    said = {**here.costs(), **here.module.numbers(here, tables)}
    for key, value in said.items():
        if not isinstance(value, str):
            known = FINDINGS[f"{PREFIX[name]}_{key}"]
            neither = math.isnan(value) and math.isnan(known)
            assert neither or math.isclose(value, known, rel_tol=1e-9, abs_tol=1e-12), key


def test_every_record_is_of_the_code_as_it_is(nothing_at_hand):
    # What the chapters above did not ask for is not published.
    index = pd.read_csv(EVIDENCE / "records.csv", dtype=str, keep_default_na=False)
    assert index.record.is_unique
    assert len(index) > 500
    assert all(path.stat().st_size < 500_000 for path in EVIDENCE.iterdir())
    assert set(index.measure) == {path.stem.partition("-")[0] for path in EVIDENCE.glob("*.*.csv")}
