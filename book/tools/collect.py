"""Gather what the chapters computed: the numbers, the summary figure, the page of runs and timings.

``collect.py --profile NAME`` writes book/generated/ for the build.
``collect.py --publish`` copies the laptop run's numbers into README.md, book/speed.md and data/results/laptop/; with
``--profile gpu`` those of that profile into data/results/gpu/, with the device, versions and commit of their making.
"""

import argparse
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import deviations
import ledger
import nbformat
import pandas as pd
import timings
import yaml

from wamlib import data, plot, runs, sweeps

ROOT = Path(__file__).parents[2]
GENERATED, EXECUTED = ROOT / "book" / "generated", ROOT / "book" / "notebooks"
TABLES, RESULTS = ROOT / "data" / "tables", ROOT / "data" / "results" / "laptop"
LARGEST = 500_000  # bytes of a file that is committed
FILLED = ("README.md", "book/speed.md")  # texts that name numbers of the published run and of the benchmarks
# What Python writes for int and float. Nothing is evaluated: a notebook comes from wherever its author had it from.
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?(e[-+][0-9]{2,3})?|nan")
PREFIXES = {"20_templates": "templates", "21_templates_of_soups": "rows", "22_templates_in_depth": "depth",
            "30_same_or_not": "same", "31_how_many": "many", "32_between": "between",
            "33_architectures": "architectures", "34_alignment": "alignment",
            "35_beyond_the_mean": "beyond", "36_repair": "repair",
            "37_protocols": "protocols", "38_pretrained": "pretrained",
            "40_magnitude": "magnitude", "41_stability": "stability",
            "42_regulariser": "regulariser", "50_trust": "trust", "60_recipe": "recipe", "61_your_own": "own",
            "00_quickstart": "quickstart", "01_primer": "primer", "10_members": "members",
            "11_recipes": "recipes"}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    if arguments.publish:
        return publish(arguments.profile)
    params = ROOT / "params" / f"{arguments.profile}.yml"
    settings = yaml.safe_load(params.read_text()) if params.is_file() else {}
    configs = sweeps.book(**settings)
    finished = runs.RunStore().load(configs)
    for path in EXECUTED.glob("*.ipynb"):
        if not (ROOT / "notebooks" / path.name).exists():
            path.unlink()  # a chapter that was renamed or removed since
    chapters = {path.stem: nbformat.read(path, as_version=4) for path in sorted(EXECUTED.glob("*.ipynb"))}
    GENERATED.mkdir(exist_ok=True)
    findings = {
        "profile": arguments.profile,
        "numbers": numbers(chapters, settings) | {"n_runs": len(finished)},
        **provenance(finished),
    }
    write("findings.json", json.dumps(findings, indent=1, sort_keys=True) + "\n")
    said = {stem: glued(book) for stem, book in chapters.items()}
    write("runs.md", timings.page(chapters, said, finished, provenance(finished), arguments.profile))
    write("fidelity.md", fidelity_page())
    before = ledger.read(TABLES / arguments.profile / "claims.csv")
    measurements = ledger.collect(TABLES / arguments.profile)
    for (claim, name), (old, new) in ledger.changes(before, measurements).items():
        print(f"  verdict changed: {claim} on {name}: {old} -> {new}")
    measured_in = ledger.chapters(TABLES / arguments.profile, EXECUTED)
    write("claims.json", json.dumps(measured_in, indent=1) + "\n")
    write(
        "ledger.md", ledger.page(measurements, measured_in) + ledger.other_profiles(RESULTS.parent, arguments.profile)
    )
    write("effects.json", json.dumps(deviations.effects(TABLES / arguments.profile), indent=1) + "\n")
    draw_summary(arguments.profile)
    return 0


def write(name, text):
    """Write a file only if it changes: Sphinx reads again whatever has a new time stamp."""
    path = GENERATED / name
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def glued(notebook):
    """Return the numbers that a chapter glued, by name."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            text = "".join(str(value) for kind, value in output.get("data", {}).items() if kind.endswith("text/plain"))
            # A name is one that a page can ask for: {{ name }}.
            if isinstance(name, str) and re.fullmatch(r"\w+", name) and NUMBER.fullmatch(text):
                found[name] = int(text) if text.lstrip("-").isdigit() else float(text)
    return found


def main_dataset(settings):
    return settings.get("dataset", inspect.signature(sweeps.book).parameters["dataset"].default)


def numbers(chapters, settings):
    """Return all glued numbers, prefixed by their chapter, and what every chapter shares."""
    found = {
        f"{PREFIXES[stem]}_{name}": value for stem, book in chapters.items() for name, value in glued(book).items()
    }
    shared = {name: found[f"members_{name}"] for name in ("n_train", "n_test", "n_selection")}
    described = {"n_replicas": found["architectures_n_replicas"], "dataset": data.title(main_dataset(settings))}
    return found | shared | described


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
    apart = [sweeps.SHUFFLED, sweeps.RELEASED]
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
        print(f"cannot publish findings: book/generated: got profile {findings['profile']!r}, wanted {wanted}. "
              "Run `make book` with that profile first.", file=sys.stderr)  # fmt: skip
        return 2
    tables, results = TABLES / profile, RESULTS if profile == "laptop" else RESULTS.parent / profile
    changed = ledger.changes(ledger.read(results / "claims.csv"), ledger.read(tables / "claims.csv"))
    if missing := ledger.unnamed(changed, (ROOT / "CHANGELOG.md").read_text()):
        print(f"cannot publish findings: CHANGELOG.md: got changed verdicts of {', '.join(missing)} without a word, "
              'wanted each named under "Results changed" of "Unreleased". Say there what changed, and why.',
              file=sys.stderr)  # fmt: skip
        return 2
    files = [GENERATED / "findings.json", GENERATED / "summary.png", *sorted(tables.glob("*.csv"))]
    if large := [path for path in files if path.stat().st_size > LARGEST]:
        print(f"cannot publish findings: {large[0].name}: got {large[0].stat().st_size:,} bytes, "
              f"wanted at most {LARGEST:,}, for it is committed. Save fewer rows or columns in the chapter.",
              file=sys.stderr)  # fmt: skip
        return 2
    results.mkdir(parents=True, exist_ok=True)
    for path in files:
        shutil.copy2(path, results)
    if profile == "laptop":  # whose numbers they name
        for path in map(ROOT.joinpath, FILLED):
            path.write_text(fill(path.read_text(), published_numbers()))
    return 0


def published_numbers():
    """Return the numbers that FILLED may state: of the committed laptop run and of the committed benchmarks."""
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
