"""Differences between combinations, with a word for each that follows from its interval."""

import pandas as pd

from ..errors import ProbeError
from ..stats import paired_difference

__all__ = ["judged_differences"]


def judged_differences(table, pairs, better):
    """Judge one combination against another, measure by measure.

    Parameters
    ----------
    table : DataFrame
        One row per independent replica; columns are pairs (measure, combination).
    pairs : sequence of (str, str)
        Combinations: the first minus the second.
    better : dict of str to {"lower", "higher"}
        Measure to the direction in which it is better, in the order wanted.

    Returns
    -------
    DataFrame
        One row per measure and pair: measure, difference, mean, low and high (95 % interval over replicas), and
        verdict: "better" or "worse" if the interval lies on that side of 0, else "undecided". Each interval is
        of its own; of many, about one in twenty misses what it should hold.

    Raises
    ------
    ProbeError
        If a direction is unknown.
    """
    rows = []
    for measure, direction in better.items():
        if direction not in ("lower", "higher"):
            raise ProbeError(
                "cannot judge differences", item=measure, got=repr(direction), wanted="'lower' or 'higher'",
                fix="Say in which direction the measure is better.",
            )  # fmt: skip
        for first, second in pairs:
            mean, low, high, _ = paired_difference(table[measure, first], table[measure, second])
            fell, rose = ("better", "worse") if direction == "lower" else ("worse", "better")
            verdict = fell if high < 0 else rose if low > 0 else "undecided"
            rows.append({"measure": measure, "difference": f"{first} − {second}", "mean": mean, "low": low,
                         "high": high, "verdict": verdict})  # fmt: skip
    return pd.DataFrame(rows)
