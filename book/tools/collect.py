"""Gather what the chapters computed: the numbers, the summary figure, the page of runs and timings.

``collect.py --profile NAME`` writes book/generated/ for the build.
``collect.py --publish --profile edition`` copies what was found to where it is published: records to data/evidence/,
tables and numbers to data/results/edition/, numbers to README.md and book/speed.md; with ``--profile gpu`` the tables
and numbers of that profile to data/results/gpu/, with the device, versions and commit that they were made with.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import deviations
import execute
import ledger
import nbformat
import pandas as pd
import timings
import yaml

from wamlib import chapters, config, evidence, plot, runs
from wamlib.sweeps import RELEASED, SHUFFLED

ROOT = Path(__file__).parents[2]
GENERATED, EXECUTED = ROOT / "book" / "generated", ROOT / "book" / "notebooks"
TABLES, RESULTS = config.home() / "tables", ROOT / "data" / "results" / "edition"
EDITION = "edition"  # the profile that README.md and the published records are of
EVIDENCE = ROOT / "data" / "evidence"
LARGEST = 500_000  # bytes of a file that is committed
FILLED = ("README.md", "book/speed.md")  # texts that name numbers of the published run and of the benchmarks
# What the numbers of each chapter are called by in README.md and on pages that are not the chapter's own.
PREFIXES = {
    "20_templates": "templates",
    "21_templates_of_soups": "rows",
    "22_templates_in_depth": "depth",
    "30_same_or_not": "same",
    "31_how_many": "many",
    "32_between": "between",
    "33_architectures": "architectures",
    "34_alignment": "alignment",
    "35_beyond_the_mean": "beyond",
    "36_repair": "repair",
    "37_protocols": "protocols",
    "38_pretrained": "pretrained",
    "40_magnitude": "magnitude",
    "41_stability": "stability",
    "42_regulariser": "regulariser",
    "50_trust": "trust",
    "60_recipe": "recipe",
    "61_your_own": "own",
    "00_quickstart": "quickstart",
    "01_primer": "primer",
    "10_members": "members",
    "11_recipes": "recipes",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    if arguments.publish:
        return publish(arguments.profile)
    profile = arguments.profile
    params = ROOT / "params" / f"{profile}.yml"
    settings = yaml.safe_load(params.read_text()) if params.is_file() else {}
    table, facts = published_runs() if profile == chapters.PUBLISHED else finished_runs(settings)
    for path in EXECUTED.glob("*.ipynb"):
        if not (ROOT / "notebooks" / path.name).exists():
            path.unlink()  # a chapter that was renamed or removed since
    books = {path.stem: nbformat.read(path, as_version=4) for path in sorted(EXECUTED.glob("*.ipynb"))}
    said = {stem: written(stem, profile)["numbers"] for stem in books}
    GENERATED.mkdir(exist_ok=True)
    findings = {"profile": profile, "numbers": numbers(said) | {"n_runs": len(table)}, **facts}
    write("findings.json", json.dumps(findings, indent=1, sort_keys=True) + "\n")
    write("runs.md", timings.page(books, said, table, facts, profile))
    write("fidelity.md", fidelity_page())
    before = ledger.read(TABLES / profile / "claims.csv")
    measurements = ledger.collect(TABLES / profile)
    for (claim, name), (old, new) in ledger.changes(before, measurements).items():
        print(f"  verdict changed: {claim} on {name}: {old} -> {new}")
    measured_in = ledger.chapters(TABLES / profile, EXECUTED)
    write("claims.json", json.dumps(measured_in, indent=1) + "\n")
    write("ledger.md", ledger.page(measurements, measured_in) + ledger.other_profiles(RESULTS.parent, profile))
    write("effects.json", json.dumps(deviations.effects(TABLES / profile), indent=1) + "\n")
    draw_summary(profile)
    return 0


def write(name, text):
    """Write a file only if it changes: Sphinx reads again whatever has a new time stamp."""
    path = GENERATED / name
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def written(stem, profile):
    """Return what a chapter wrote about itself: its numbers, and the names of its tables and records."""
    return json.loads((TABLES / profile / f"chapter_{stem.partition('_')[0]}.json").read_text("utf-8"))


def numbers(said):
    """Return the numbers of all chapters, prefixed by their chapter, and what every chapter shares."""
    found = {
        f"{PREFIXES[stem]}_{name}": value
        for stem, values in said.items()
        for name, value in values.items()
        if not isinstance(value, str)
    }
    shared = {name: found[f"members_{name}"] for name in ("n_train", "n_test", "n_selection")}
    described = {"n_replicas": found["architectures_n_replicas"], "dataset": said["33_architectures"]["main"]}
    return found | shared | described


def finished_runs(settings):
    """Return one row for each run of a profile, and what `provenance` says of them."""
    finished = runs.RunStore().load(chapters.all_runs(settings))
    return pd.DataFrame([row_of(run) for run in finished]), provenance(finished)


def row_of(run):
    """Return what the page of runs says of one run."""
    c = run.config
    return {
        "run_id": c.run_id,
        "dataset": c.dataset,
        "n_train": c.n_train or 0,  # 0: all
        "split_hash": run.record["split_hash"][:16],
        "model": c.model,
        "shuffle_labels": c.shuffle_labels,
        "start": "trunk" if c.start else "pretrained" if c.weights else "random",
        "epochs": c.epochs,
        "weight_decay": c.weight_decay,
        "accuracy": run.record["metrics"]["test"]["accuracy"],
        "seconds": run.record["seconds"],
    }


def published_runs():
    """Return the same of the published runs."""
    return pd.read_csv(EVIDENCE / "runs.csv"), json.loads((EVIDENCE / "provenance.json").read_text("utf-8"))


def provenance(finished):
    """Return the machines, versions and splits of the runs, each a list of what occurs."""

    def distinct(read):
        return [json.loads(text) for text in dict.fromkeys(json.dumps(read(run.record)) for run in finished)]

    return {
        "machine": distinct(lambda r: {k: r["machine"][k] for k in ("device", "gpu", "cpu", "cores", "system")}),
        "versions": distinct(lambda r: r["versions"]),
        "commit": distinct(lambda r: r["code"]["commit"]),
        "split_hash": distinct(lambda r: r["split_hash"]),
    }


def fidelity_page():
    """Return the page that compares wamlib's merges with other tools, from the last `make fidelity`."""
    table = pd.read_csv(ROOT / "benchmarks" / "results" / "fidelity.csv").fillna("")
    table["largest difference"] = [f"{value:.1e}" for value in table.pop("largest_difference")]
    columns = ["method", "reference", "scope", "largest difference", "note"]
    tolerance = 1e-6  # TOLERANCE of benchmarks/fidelity.py
    return f"""(ch-fidelity)=
# Fidelity

Each merge of {{py:mod}}`wamlib.merge` beside other implementations of it, on the same members in float32: the
largest difference of any weight. `make fidelity` installs the tools and measures this table anew. Rows of *numpy*
compare with a few lines in float64, `tests/references.py`, which share no code with the
library. Where a tool differs by design the note says how; all other rows have to agree to {tolerance:g}.

{table[columns].to_markdown(index=False, disable_numparse=True)}
"""


def draw_summary(profile):
    tables = {name: pd.read_csv(TABLES / profile / f"{name}.csv") for name in ("templates", "architectures", "scale")}
    apart = [SHUFFLED, RELEASED]
    by_decay = tables["templates"][~tables["templates"].group.isin(apart)]
    # One architecture with BatchNorm, for what scale does, that was trained with every kind of start.
    model = next(name for name in tables["scale"].model.unique() if name.startswith("resnet"))
    pools = tables["architectures"]
    starts = pools.start.ne("shared start") | pools.dataset.eq(pools.dataset[pools.start.ne("shared start")].iloc[0])
    scale = tables["scale"][(tables["scale"].model == model) & tables["scale"].scope.isin(["learnable", "batchnorm"])]
    found = by_decay, pools[starts & pools.model.eq(model)], scale
    plot.summary(*found).savefig(GENERATED / "summary.png", dpi=150)
    for name, fig in zip(("templates", "outputs", "size"), plot.answers(*found), strict=True):
        fig.savefig(GENERATED / f"answer_{name}.svg", metadata={"Date": None})


def publish(profile):
    findings = json.loads((GENERATED / "findings.json").read_text())
    if findings["profile"] != profile or profile == "smoke":
        wanted = "a profile with results" if profile == "smoke" else repr(profile)
        print(
            f"cannot publish findings: book/generated: got profile {findings['profile']!r}, wanted {wanted}. "
            "Run `make book` with that profile first.",
            file=sys.stderr,
        )
        return 2
    tables, results = TABLES / profile, RESULTS if profile == EDITION else RESULTS.parent / profile
    changed = ledger.changes(ledger.read(results / "claims.csv"), ledger.read(tables / "claims.csv"))
    if missing := ledger.unnamed(changed, (ROOT / "CHANGELOG.md").read_text()):
        print(
            f"cannot publish findings: CHANGELOG.md: got changed verdicts of {', '.join(missing)} without a word, "
            'wanted each named under "Results changed" of "Unreleased". Say there what changed, and why.',
            file=sys.stderr,
        )
        return 2
    if profile == EDITION:
        publish_records(profile)
    files = [GENERATED / "findings.json", GENERATED / "summary.png", *sorted(tables.glob("*.csv"))]
    if large := [path for path in files if path.stat().st_size > LARGEST]:
        print(
            f"cannot publish findings: {large[0].name}: got {large[0].stat().st_size:,} bytes, "
            f"wanted at most {LARGEST:,}, for it is committed. Save fewer rows or columns in the chapter.",
            file=sys.stderr,
        )
        return 2
    results.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copy2(path, results)
    if profile == EDITION:  # whose numbers they name
        for path in map(ROOT.joinpath, FILLED):
            path.write_text(fill(path.read_text(), published_numbers()))
    return 0


def publish_records(profile):
    """Write the records behind the chapters, their runs, and what their experiments print, to data/evidence/."""
    books = {path.stem: nbformat.read(path, as_version=4) for path in sorted(EXECUTED.glob("*.ipynb"))}
    paths = dict.fromkeys(path for stem in books for path in written(stem, profile)["records"])
    evidence.publish([evidence.read_record(path) for path in paths], EVIDENCE, whole=True)
    table, facts = finished_runs(yaml.safe_load((ROOT / "params" / f"{profile}.yml").read_text()))
    table.to_csv(EVIDENCE / "runs.csv", index=False)
    (EVIDENCE / "provenance.json").write_text(json.dumps(facts, indent=1) + "\n")
    outputs = {
        stem: {execute.digest(cell): cell.outputs for cell in execute.experiments_of(book)}
        for stem, book in books.items()
    }
    (EVIDENCE / "experiments.json").write_text(json.dumps(outputs, indent=1) + "\n")


def published_numbers():
    """Return the numbers that FILLED may state: of the published edition and of the committed benchmarks."""
    found = dict(json.loads((RESULTS / "findings.json").read_text())["numbers"])
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        found |= result["numbers"] | {"bench_cores": result["machine"]["cores"]}
    return found


def fill(text, numbers):
    """Return a text with the number between each ``<!-- n: NAME:FORMAT -->`` and ``<!-- /n -->`` set anew."""
    pattern = r"(<!-- n: (\w+):([^ ]+) -->).*?(<!-- /n -->)"
    return re.sub(pattern, lambda m: f"{m[1]}{numbers[m[2]]:{m[3]}}{m[4]}", text)


if __name__ == "__main__":
    sys.exit(main())
