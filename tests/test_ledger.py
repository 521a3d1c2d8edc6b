"""The ledger page says what the tables say."""

import json
import re

import ledger
import pandas as pd
import pytest

from wamlib import claims


@pytest.fixture
def folder(tmp_path):
    def write(name, rows):
        pd.DataFrame(rows).to_csv(tmp_path / name, index=False)

    write(
        "claims_22.csv",
        [claims.measure("C5", "gain", [-20.0, -22.0, -19.0], bound=-1, unit="points", dataset="digits")],
    )
    write(
        "claims_20.csv",
        [
            claims.measure(
                "C1", "own", [0.9, 0.91, 0.9], bound=0, unit="correlation", dataset="digits", protocol=protocol
            )
            for protocol in ("released", "corrected")
        ]
        + [claims.measure("C2", "price", [0.1, -0.1, 0.12], bound=0, unit="points", dataset="digits")],
    )
    return tmp_path


def test_the_page_has_every_claim_with_its_verdict_and_its_numbers(folder):
    page = ledger.page(ledger.collect(folder), {"notebooks/20_a": ["C1", "C2"], "notebooks/22_b": ["C5", "C1"]})
    lines = dict(re.findall(r"^\| \{ref\}`(C\d+) <claim-c\d+>` *(\|.*)", page.split("## Measurements")[0], re.M))
    assert "holds" in lines["C1"]
    assert "does not hold" in lines["C5"]
    assert "undecided (" in lines["C2"]
    assert "how many replicas would decide" in page
    assert "-20.3 [-24.1, -16.5] points" in page
    assert "above -1" in page
    assert f"Source: {claims.CLAIMS['C5'][1]}. Control: {claims.CLAIMS['C5'][2]}." in page
    assert "(claim-c5)=\n### C5: " in page
    assert "Measured in: {doc}`/notebooks/20_a`, {doc}`/notebooks/22_b`. Source: paper, perspective 1." in page
    assert "Measured in: {doc}`/notebooks/22_b`. " in page.partition("### C5")[2]
    assert page.index("### C1") < page.index("### C2") < page.index("### C5")
    assert all(claims.CLAIMS[name][0] in page for name in ("C1", "C2", "C5"))


def test_a_claim_without_measurements_has_neither_row_nor_target(folder):
    page = ledger.page(ledger.collect(folder), {})
    assert "claim-c1)" in page
    assert "claim-c3" not in page


def test_chapters_have_the_claims_that_their_tables_measure(folder):
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    for name in ("20_templates", "22_depth", "50_trust"):
        (notebooks / f"{name}.ipynb").write_text("{}")
    assert ledger.chapters(folder, notebooks) == {"notebooks/20_templates": ["C1", "C2"], "notebooks/22_depth": ["C5"]}
    (folder / "claims_20.csv").unlink()
    assert list(ledger.chapters(folder, notebooks)) == ["notebooks/22_depth"]


def test_measurements_are_collected_in_the_order_of_the_claims(folder):
    table = ledger.collect(folder)
    assert list(table.claim) == ["C1", "C1", "C2", "C5"]
    assert (folder / "claims.csv").is_file()
    assert len(ledger.collect(folder)) == 4  # claims.csv itself is not collected


def judged(claim, values, dataset="digits"):
    return claims.measure(claim, "m", values, bound=0, dataset=dataset)


def test_changes_of_verdicts_between_two_builds():
    up, down = [1.0, 1.1, 1.2], [-1.0, -1.1, -1.2]
    before = pd.DataFrame([judged("C1", up), judged("C2", up), judged("C6", up)])
    after = pd.DataFrame([judged("C1", up), judged("C2", down), judged("C14", up)])
    assert ledger.changes(before, before) == {}
    assert ledger.changes(before, after) == {
        ("C2", "digits"): ("holds", "does not hold"),
        ("C6", "digits"): ("holds", "none"),
        ("C14", "digits"): ("none", "holds"),
    }
    assert set(ledger.changes(pd.DataFrame(), after).values()) == {("none", "holds"), ("none", "does not hold")}
    # Another number behind the same verdict is no change.
    assert ledger.changes(before, pd.DataFrame([judged("C1", [5, 5.1, 5.2]), *before.to_dict("records")[1:]])) == {}


def test_verdicts_that_the_changelog_does_not_name():
    changed = {
        ("C1", "digits"): ("holds", "undecided"),
        ("C14", "digits"): ("none", "holds"),
        ("C14", "cats"): ("", ""),
    }
    named = "## Unreleased\n\n### Results changed\n- C14 is new.\n\n### Added\n- C1 in a table.\n\n## 0.1.0\n- C1.\n"
    assert ledger.unnamed(changed, named) == ["C1"]
    assert ledger.unnamed(changed, named.replace("C14 is", "C14 and C1 are")) == []
    assert ledger.unnamed({}, "") == []
    assert ledger.unnamed({("C1", "digits"): ("", "")}, named.replace("C14", "C10")) == ["C1"]  # C10 is not C1


def test_reading_the_measurements_of_a_build_that_never_was(tmp_path):
    assert ledger.read(tmp_path / "claims.csv").empty


@pytest.mark.parametrize(
    ("values", "shown"),
    [([-0.031, -0.022, -0.026], "-0.03 [-0.04, -0.02] points"), ([5.0, 5.1, 5.2], "5.1 [4.9, 5.3]")],
)
def test_small_numbers_show_the_side_of_zero_they_lie_on(values, shown):
    rows = [claims.measure("C18", "gain", values, bound=0, unit="points", dataset="digits")]
    assert shown in ledger.measurements(pd.DataFrame(rows))


def test_other_profiles_stand_beside_the_one_that_is_shown(folder):
    results = folder / "results"
    assert "No results of another profile" in ledger.other_profiles(results, "laptop")
    (results / "gpu").mkdir(parents=True)
    ledger.collect(folder).to_csv(results / "gpu" / "claims.csv", index=False)
    machine = [{"gpu": "Card A", "cpu": "x"}, {"gpu": None, "cpu": "Core B"}, {"gpu": "Card A", "cpu": "y"}]
    findings = {
        "machine": machine,
        "versions": [{"torch": "9.9"}],
        "commit": ["0123456789abcdef"],
        "numbers": {"n_runs": 1234},
    }
    (results / "gpu" / "findings.json").write_text(json.dumps(findings))
    text = ledger.other_profiles(results, "laptop")
    assert "Profile *gpu*: 1,234 runs on Card A and Core B, torch 9.9, trained at commit 0123456789." in text
    assert "does not hold" in next(line for line in text.splitlines() if line.startswith("| C5"))
    assert "No results" in ledger.other_profiles(results, "gpu")
