"""What is published is the edition's, small enough to commit, and names every verdict that changed."""

import json
import math

import collect
import nbformat
import pandas as pd
import pytest

from wamlib import claims


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one executed run: two numbers, a picture, two tables and one verdict."""
    generated, tables, results = tmp_path / "generated", tmp_path / "tables", tmp_path / "results"
    for folder in (generated, tables / "edition"):
        folder.mkdir(parents=True)
    for name, value in {"ROOT": tmp_path, "GENERATED": generated, "TABLES": tables, "RESULTS": results}.items():
        monkeypatch.setattr(collect, name, value)
    (generated / "findings.json").write_text(json.dumps({"profile": "edition", "soup_gain": 1.25}))
    (generated / "summary.png").write_bytes(b"picture")
    rows = [claims.measure("C1", "own", [0.9, 0.91, 0.9], bound=0, unit="correlation", dataset="digits")]
    pd.DataFrame(rows).to_csv(tables / "edition" / "claims.csv", index=False)
    (tables / "edition" / "soups.csv").write_text("gain\n1.25\n")
    (tmp_path / "book").mkdir()
    for name in collect.FILLED:
        (tmp_path / name).write_text("<!-- n: soup_gain:.1f -->0<!-- /n -->\n")
    (tmp_path / "CHANGELOG.md").write_text("## Unreleased\n\n### Results changed\n\n- C1\n")
    monkeypatch.setattr(collect, "published_numbers", lambda: json.loads((results / "findings.json").read_text()))
    return tmp_path


def nothing_was_copied(checkout):
    return not (checkout / "results").exists() and "-->0<!--" in (checkout / "README.md").read_text()


def test_the_edition_is_published(checkout):
    assert collect.publish("edition") == 0
    copied = sorted(path.name for path in (checkout / "results").iterdir())
    assert copied == ["claims.csv", "findings.json", "soups.csv", "summary.png"]
    assert all("-->1.2<!--" in (checkout / name).read_text() for name in collect.FILLED)


def test_another_profile_is_not(checkout, capsys):
    (checkout / "generated" / "findings.json").write_text(json.dumps({"profile": "smoke"}))
    assert collect.publish("edition") == 2
    assert "got profile 'smoke', wanted 'edition'" in capsys.readouterr().err
    assert nothing_was_copied(checkout)


def test_a_verdict_that_changes_without_a_word_is_not(checkout, capsys):
    (checkout / "CHANGELOG.md").write_text("## Unreleased\n\n### Results changed\n\n- C2\n")
    assert collect.publish("edition") == 2
    assert "got changed verdicts of C1" in capsys.readouterr().err
    assert nothing_was_copied(checkout)


def test_a_table_too_large_to_commit_is_not(checkout, capsys):
    table = checkout / "tables" / "edition" / "soups.csv"
    table.write_text("x" * collect.LARGEST)
    assert collect.publish("edition") == 0
    (checkout / "README.md").write_text("<!-- n: soup_gain:.1f -->0<!-- /n -->\n")
    table.write_text("x" * (collect.LARGEST + 1))
    assert collect.publish("edition") == 2
    assert "soups.csv: got 500,001 bytes, wanted at most 500,000" in capsys.readouterr().err
    assert "-->0<!--" in (checkout / "README.md").read_text()


def test_a_profile_of_its_own_has_a_folder_of_its_own_and_leaves_the_readme_alone(checkout, capsys):
    (checkout / "generated" / "findings.json").write_text(json.dumps({"profile": "gpu", "soup_gain": 2.5}))
    (checkout / "tables" / "edition").rename(checkout / "tables" / "gpu")
    assert collect.publish("gpu") == 0
    assert json.loads((checkout / "gpu" / "findings.json").read_text())["soup_gain"] == 2.5
    assert (checkout / "gpu" / "soups.csv").is_file()
    assert nothing_was_copied(checkout)


def test_a_smoke_run_is_no_result(checkout, capsys):
    (checkout / "generated" / "findings.json").write_text(json.dumps({"profile": "smoke"}))
    assert collect.publish("smoke") == 2
    assert "wanted a profile with results" in capsys.readouterr().err
    assert not (checkout / "smoke").exists()


# What a notebook holds is text, whatever it looks like


def glued(**values):
    """Return what `collect.glued` finds in a notebook with these texts under these names."""
    outputs = [
        nbformat.v4.new_output(
            "display_data", {"application/papermill.record/text/plain": text}, metadata={"scrapbook": {"name": name}}
        )
        for name, text in values.items()
    ]
    return collect.glued(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)]))


@pytest.mark.parametrize("value", [0, 3, -12, 10_000, 0.0, 15.589999999999996, -2.5e-07, 1e16, 1.5e300])
def test_numbers_are_what_they_were(value):
    assert glued(a=repr(value)) == {"a": value}
    assert type(glued(a=repr(value))["a"]) is type(value)


def test_what_is_not_a_number_stays_so():
    assert math.isnan(glued(a="nan")["a"])


@pytest.mark.parametrize(
    "text",
    ["__import__('pathlib').Path('made').touch()", "1.2.3", "007", "1_000", "٣", "9" * 5000, "1+1", "(1)", "1\n", "'1'",
     "<Figure size 638x341 with 2 Axes>", "inf", ""],
)  # fmt: skip
def test_what_is_no_number_is_left_alone(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert glued(a="1", b=text) == {"a": 1}
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_no_page_can_ask_for_is_left_alone():
    assert glued(**{"a": "1", "../../a": "2", "a/b": "3", "a }} b": "4", "": "5"}) == {"a": 1}
