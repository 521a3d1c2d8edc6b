"""What is published is the edition's, small enough to commit, and names every verdict that changed."""

import json
import math
from pathlib import Path

import collect
import nbformat
import pandas as pd
import pytest

from wamlib import claims, evidence

RECORD = {
    "measure": "members.scores",
    "version": "0" * 12,
    "runs": ["digits-mlp-s0"],
    "weights": "",
    "images": "",
    "arguments": {},
    "made": {"day": "2026-01-02"},
    "columns": {"accuracy": [90.5]},
}
TABLE = pd.DataFrame([{"run_id": "digits-mlp-s0", "seconds": 1.5}])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one executed run: two numbers, a picture, two tables and one verdict; no chapter has records."""
    generated, tables, results = tmp_path / "generated", tmp_path / "tables", tmp_path / "results"
    for folder in (generated, tables / "edition"):
        folder.mkdir(parents=True)
    places = {"ROOT": tmp_path, "GENERATED": generated, "TABLES": tables, "RESULTS": results}
    for name, value in {**places, "EXECUTED": tmp_path / "executed", "EVIDENCE": tmp_path / "evidence"}.items():
        monkeypatch.setattr(collect, name, value)
    monkeypatch.setattr(collect, "finished_runs", lambda settings: (TABLE, {"machine": [settings["profile"]]}))
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "edition.yml").write_text("profile: edition")
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


# Numbers come from what each chapter wrote about itself


SAID = {
    "10_members": {"n_train": 8_000, "n_test": 2_000, "n_selection": 1_000, "training": 12.5},
    "33_architectures": {"n_replicas": 3, "main": "Fashion-MNIST", "gain": math.nan},
}


def test_numbers_of_chapters_are_told_apart_and_words_are_left_to_their_pages():
    found = collect.numbers(SAID)
    assert found["members_training"] == 12.5
    assert math.isnan(found["architectures_gain"])
    assert "architectures_main" not in found
    shared = {name: found[name] for name in ("n_train", "n_test", "n_selection", "n_replicas", "dataset")}
    assert list(shared.values()) == [8_000, 2_000, 1_000, 3, "Fashion-MNIST"]


def test_every_chapter_has_a_name_for_its_numbers():
    stems = {path.stem for path in (Path(__file__).parents[1] / "notebooks").glob("*.ipynb")}
    assert set(collect.PREFIXES) == stems
    assert len(set(collect.PREFIXES.values())) == len(stems)


def test_what_a_chapter_wrote_is_read(checkout):
    (checkout / "tables" / "edition" / "chapter_33.json").write_text('{"numbers": {"gain": 1.5}, "tables": []}')
    assert collect.written("33_architectures", "edition")["numbers"] == {"gain": 1.5}


# Published records, so that the book can be drawn without training


def test_the_records_behind_the_chapters_are_published_with_what_experiments_print(checkout):
    executed, where = checkout / "executed", checkout / "evidence"
    executed.mkdir()
    record = checkout / "records" / "a.json"
    evidence._keep(record, json.dumps(RECORD).encode())
    for number, name in ((10, "members"), (33, "architectures")):
        words = {"numbers": {}, "tables": [], "records": [str(record)]}  # two chapters draw from the same record
        (checkout / "tables" / "edition" / f"chapter_{number}.json").write_text(json.dumps(words))
        cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": ["experiment"]})
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{name}\n")]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("2"), cell])
        nbformat.write(book, executed / f"{number}_{name}.ipynb")
    where.mkdir()
    (where / "old.measure.csv").write_text("of a measure that is gone\n")
    collect.publish_records("edition")
    names = ["experiments.json", "made.json", "members.scores.csv", "provenance.json", "records.csv", "runs.csv"]
    assert sorted(path.name for path in where.iterdir()) == names
    assert len(pd.read_csv(where / "records.csv")) == 1
    assert collect.published_runs()[0].to_dict("records") == TABLE.to_dict("records")
    assert collect.published_runs()[1] == {"machine": ["edition"]}
    printed = json.loads((where / "experiments.json").read_text())
    assert list(printed) == ["10_members", "33_architectures"]
    assert [output["text"] for outputs in printed["10_members"].values() for output in outputs] == ["members\n"]
