"""The ledger of claims: the measurements of all chapters, and the verdicts that follow from them."""

import json
import re

import pandas as pd

from wamlib import claims


def collect(folder):
    """Stack the measurements that the chapters wrote into claims.csv, by number of the claim, and return them."""
    parts = [read(path) for path in sorted(folder.glob("claims_*.csv"))]
    table = pd.concat(parts, ignore_index=True).sort_values("claim", key=lambda c: c.str[1:].astype(int), kind="stable")
    table.to_csv(folder / "claims.csv", index=False)
    return table


def chapters(folder, notebooks):
    """Return which chapters measured which claims: ``{"notebooks/37_protocols": ["C6", ...]}``.

    ``folder`` holds the tables claims_NN.csv, ``notebooks`` the chapters NN_*.ipynb.
    """
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        table = read(folder / f"claims_{path.stem.partition('_')[0]}.csv")
        if len(table):
            found[f"notebooks/{path.stem}"] = list(dict.fromkeys(table.claim))
    return found


def changes(before, after):
    """Return each verdict that differs between two tables of measurements: {(claim, data set): (old, new)}."""
    old, new = (
        {(row.claim, row.dataset): row.verdict for row in claims.ledger(table).itertuples()} if len(table) else {}
        for table in (before, after)
    )
    keys = dict.fromkeys([*old, *new])
    return {key: (old.get(key, "none"), new.get(key, "none")) for key in keys if old.get(key) != new.get(key)}


def unnamed(changed, changelog):
    """Return the claims with a changed verdict that the part "Results changed" of what is unreleased does not name."""
    unreleased = changelog.partition("## Unreleased")[2].partition("\n## ")[0]
    results = unreleased.partition("### Results changed")[2].partition("\n### ")[0]
    named = set(re.findall(r"\bC\d+\b", results))
    return [claim for claim in dict.fromkeys(claim for claim, _ in changed) if claim not in named]


def read(path):
    """Return the measurements of an earlier build; none, if there was none."""
    return pd.read_csv(path, keep_default_na=False) if path.is_file() else pd.DataFrame()


def page(table, measured_in):
    """Return the verdicts, and the measurements behind them, as MyST.

    ``measured_in`` is what `chapters` returns. Each claim has a target, claim-c6 and the like.
    """
    parts = [
        f"({target(name)})=\n### {name}: {statement}\n\n"
        f"Measured in: {', '.join(f'{{doc}}`/{chapter}`' for chapter in of_claim(name, measured_in))}. "
        f"Source: {source}. Control: {control}.\n\n{measurements(rows)}\n"
        for name, rows in table.groupby("claim", sort=False)
        for statement, source, control in [claims.CLAIMS[name]]
    ]
    return "\n".join(
        [
            "## Verdicts\n",
            "A claim's number leads to its measurements and to the chapters that made them. In brackets:",
            "how many replicas would decide what is undecided, at the spread found. A dash: not measured on these",
            "data.\n",
            verdicts(table),
            "\n## Measurements\n",
            "Mean and 95 % interval (Student's t) over *n* independent replicas, and the side of the bound that the",
            "claim names.\n",
            *parts,
        ]
    )


def verdicts(table, linked=True):
    """Return one row for each claim and one column for each data set, as a Markdown table."""
    rows = claims.ledger(table).assign(verdict=lambda rows: [with_need(row) for row in rows.itertuples()])
    wide = rows.pivot_table(
        index=["claim", "statement"], columns="dataset", values="verdict", aggfunc="first", sort=False
    )
    wide = wide.fillna("–").reset_index()
    if linked:
        wide["claim"] = [f"{{ref}}`{name} <{target(name)}>`" for name in wide["claim"]]
    return wide.to_markdown(index=False, disable_numparse=True)


def target(claim):
    """Return the name by which a page refers to a claim's measurements."""
    return f"claim-{claim.lower()}"


def of_claim(claim, measured_in):
    return [chapter for chapter, named in measured_in.items() if claim in named]


def other_profiles(folder, shown):
    """Return the verdicts that were published of profiles other than the one that is shown, as MyST.

    ``folder`` holds one folder for each profile, as ``make findings`` fills them.
    """
    parts = ["\n## Other profiles\n"]
    for path in sorted(folder.glob("*/claims.csv")):
        profile = path.parent.name
        if profile == shown:
            continue
        findings = json.loads((path.parent / "findings.json").read_text())
        machines = " and ".join(dict.fromkeys(one["gpu"] or one["cpu"] for one in findings["machine"]))
        versions = " and ".join(dict.fromkeys(f"torch {one['torch']}" for one in findings["versions"]))
        commits = [str(commit)[:10] for commit in findings["commit"]]
        parts += [
            f"Profile *{profile}*: {findings['numbers']['n_runs']:,d} runs on {machines}, {versions}, "
            f"trained at commit {', '.join(commits[:3])}{' and others' * (len(commits) > 3)}.\n",
            verdicts(read(path), linked=False) + "\n",
        ]
    if len(parts) == 1:
        parts.append(
            "No results of another profile are published with this edition: all verdicts here are of networks "
            "that train in seconds.\n"
        )
    return "\n".join(parts)


def measurements(table):
    """Return the measurements of one claim as a Markdown table."""
    rows = [
        {
            "data": row.dataset,
            "protocol": row.protocol,
            "measure": f"{row.measure} ({row.note})" if row.note else row.measure,
            "found": f"{number(row, row.mean)} [{number(row, row.low)}, {number(row, row.high)}] {row.unit}",
            "claimed": f"{row.side} {row.bound:.3g}",
            "n": row.n,
            "verdict": with_need(row),
        }
        for row in table.itertuples()
    ]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def with_need(row):
    """Return a verdict and, in brackets, how many replicas would decide it if it is open."""
    if not row.n_needed:
        return row.verdict
    return f"{row.verdict} ({row.n_needed:,d}{' or more' * (row.n_needed >= 10_000)})"


def number(row, value):
    """Return a value with the digits that its unit is read with."""
    if row.unit in ("%", "points"):  # one decimal, unless that would hide which side of zero all of it lies on
        return f"{value:.2f}" if max(abs(row.mean), abs(row.low), abs(row.high)) < 1 else f"{value:.1f}"
    return f"{value:.1e}" if row.unit == "logit" else f"{value:.3f}"
