"""Verdicts follow from tables."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wamlib import claims
from wamlib.errors import ProbeError

YES, NO, OPEN = [1.0, 1.1, 0.9], [-1.0, -1.1, -0.9], [1.0, -0.8, 0.3]


def rows(**verdicts):
    values = {"holds": YES, "does not hold": NO, "undecided": OPEN}
    fixed = {"bound": 0, "dataset": "d"}
    return [claims.measure("C1", name, values[said], protocol=name, **fixed) for name, said in verdicts.items()]


@pytest.mark.parametrize(("values", "verdict"), [(YES, "holds"), (NO, "does not hold"), (OPEN, "undecided")])
def test_a_measure_is_judged_by_its_interval(values, verdict):
    above = claims.measure("C1", "m", values, bound=0)
    below = claims.measure("C1", "m", [-v for v in values], bound=0, side="below")
    assert above["verdict"] == below["verdict"] == verdict
    assert (above["n_needed"] > 3) == (verdict == "undecided")


def test_one_replica_decides_nothing():
    row = claims.measure("C1", "m", [5.0], bound=0)
    assert row["verdict"] == "undecided"
    assert row["n_needed"] == 2


def test_equal_replicas_are_an_interval_of_no_width():
    assert claims.measure("C1", "m", [100.0] * 3, bound=10)["verdict"] == "holds"
    assert claims.measure("C1", "m", [10.0] * 3, bound=10)["verdict"] == "undecided"


@pytest.mark.parametrize(
    ("released", "corrected", "verdict"),
    [
        ("holds", "holds", "holds"),
        ("does not hold", "holds", "holds"),
        ("holds", "does not hold", claims.ONLY_RELEASED),
        ("undecided", "does not hold", "does not hold"),
        ("holds", "undecided", "undecided"),
        (None, "does not hold", "does not hold"),
        ("holds", None, "holds"),
    ],
)
def test_protocols_are_weighed(released, corrected, verdict):
    given = {name: value for name, value in (("released", released), ("corrected", corrected)) if value}
    entry = claims.ledger(pd.DataFrame(rows(**given))).iloc[0]
    assert entry.verdict == verdict
    assert (entry.released or None, entry.corrected or None) == (released, corrected)
    assert (entry.n_needed > 0) == (verdict == "undecided")


def test_a_claim_is_as_good_as_its_worst_measure():
    table = pd.DataFrame([*rows(corrected="holds"), *rows(corrected="does not hold"), *rows(corrected="undecided")])
    assert list(claims.ledger(table).verdict) == ["does not hold"]


@pytest.mark.parametrize(("values", "verdict"), [(YES, "does not hold"), (NO, "undecided"), (OPEN, "undecided")])
def test_without_its_premise_a_claim_is_not_tested(values, verdict):
    premise = claims.measure("C5", "p", values, bound=0, dataset="d", premise=True)
    table = pd.DataFrame([premise, claims.measure("C5", "m", NO, bound=0, dataset="d")])
    assert list(claims.ledger(table).verdict) == [verdict]


def test_data_sets_are_judged_apart():
    table = pd.DataFrame(
        [{**rows(corrected="holds")[0], "dataset": "a"}, {**rows(corrected="undecided")[0], "dataset": "b"}]
    )
    assert dict(zip(claims.ledger(table).dataset, claims.ledger(table).verdict)) == {"a": "holds", "b": "undecided"}


def test_a_ledger_reads_what_was_written_to_disk(tmp_path):
    table = pd.DataFrame(rows(released="holds", corrected="does not hold"))
    table.to_csv(tmp_path / "claims.csv", index=False)
    again = claims.ledger(pd.read_csv(tmp_path / "claims.csv", keep_default_na=False))
    pd.testing.assert_frame_equal(again, claims.ledger(table))


@pytest.mark.parametrize(
    "wrong",
    [{"claim": "C99"}, {"side": "beside"}, {"protocol": "ours"}, {"values": []}, {"values": [1.0, float("nan")]}],
)
def test_what_cannot_be_judged_is_refused(wrong):
    settings = {"claim": "C1", "name": "m", "values": YES, "bound": 0, **wrong}
    with pytest.raises(ProbeError, match="cannot judge a claim"):
        claims.measure(settings.pop("claim"), settings.pop("name"), settings.pop("values"), **settings)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(-5, 5))
def test_moving_values_and_bound_together_changes_no_verdict(values, shift):
    here = claims.measure("C1", "m", values, bound=0.5)
    moved = claims.measure("C1", "m", [v + shift for v in values], bound=0.5 + shift)
    margin = min(abs(here["low"] - 0.5), abs(here["high"] - 0.5))
    assert margin < 1e-9 or here["verdict"] == moved["verdict"]
