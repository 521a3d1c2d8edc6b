"""The page of runs says what was trained, how long it took in all, and for which chapter."""

import nbformat
import pandas as pd
import pytest
import timings


def run(seconds, accuracy, **changes):
    row = {
        "dataset": "digits",
        "n_train": 1_000,
        "split_hash": "0123456789abcdef",
        "model": "mlp",
        "start": "random",
        "shuffle_labels": False,
        "epochs": 3.0,
        "weight_decay": 5e-4,
    }
    return {**row, **changes, "accuracy": accuracy, "seconds": seconds}


def chapter(seconds):
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["papermill"] = {"duration": seconds, "end_time": "2026-01-02T03:04:05"}
    return notebook


FACTS = {"machine": [{"cpu": "Core", "cores": 2, "system": "Linux", "device": "cpu"}], "versions": [{"torch": "9.9"}]}
RUNS = pd.DataFrame(
    [run(10.0, 80.0), run(30.0, 81.0), run(0.004, 50.0, model="linear", shuffle_labels=True, weight_decay=0.1)]
)


def rows(page, heading):
    return [line for line in page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].splitlines() if "|" in line]


def test_the_page_has_totals_units_machine_and_a_link_to_each_chapter():
    chapters, numbers = {"a": chapter(12.34), "b": chapter(7.0)}, {"a": {"n_runs": 3, "training": 40.004}, "b": {}}
    page = timings.page(chapters, numbers, RUNS, FACTS, "toy")
    assert "**3 trained networks, 40 seconds of one core**" in " ".join(page.split())
    assert "Core, 2 cores, Linux, device cpu" in page
    assert "torch 9.9" in page
    assert "digits, 1,000 (`0123456789abcdef`)" in page
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows(page, "Chapters")]
    assert cells[0] == ["chapter", "runs", "training (core-s)", "executed in (s)", "at (UTC)"]
    assert cells[2] == ["{doc}`/notebooks/a`", "3", "40", "12.3", "2026-01-02 03:04"]
    assert cells[3][1:3] == ["–", "–"]
    assert cells[4][0::3] == ["**all**", "**19.3**"]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows(page, "Runs")]
    assert cells[2] == ["digits", "mlp", "random", "3", "0.0005", "2", "80.5", "40"]
    assert cells[3][1:] == ["linear, shuffled labels", "random", "3", "0.1", "1", "50.0", "0.004"]
    assert (cells[-1][0], cells[-1][5], cells[-1][7]) == ("**all**", "**3**", "**40**")


def test_a_number_that_is_none_is_a_dash():
    table = timings.chapters_table({"a": chapter(1.0)}, {"a": {"n_runs": float("nan"), "trained": 5.0}})
    assert [cell.strip() for cell in table.splitlines()[2].split("|")[2:4]] == ["–", "5"]


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 seconds"), (600, "10 minutes"), (9000, "2.5 hours")])
def test_times_in_words(seconds, said):
    assert timings.duration(seconds) == said
