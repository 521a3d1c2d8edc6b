"""An interactive figure: the reader walks along an axis and reads what each network scores there."""

from dataclasses import dataclass

import numpy as np

from ...stats import mean_interval
from ..style import LOOKS, MODELS
from .fragment import interactive_figure, require, select, slider

__all__ = ["Quantity", "walk_figure"]


@dataclass(frozen=True)
class Quantity:
    """What the vertical axis shows.

    Parameters
    ----------
    column : str
        Column of the table.
    label : str
        Words for list and axis, with the unit: ``"Test accuracy (%)"``.
    unit, difference_unit : str
        Behind a value, and behind a difference of two: ``"%"`` and ``"points"``.
    digits : int
        Decimals of a value.
    low, high : float or None
        Ends of the axis; None lets each curve have its own.
    """

    column: str
    label: str
    unit: str = "%"
    difference_unit: str = "points"
    digits: int = 1
    low: float | None = None
    high: float | None = None


def walk_figure(
    table,
    x,
    combinations,
    quantities,
    facets,
    *,
    x_label,
    x_name,
    static,
    alt,
    difference=(),
    first=None,
    words=None,
    log=False,
):
    """Let the reader choose a network and walk along an axis, from one measured point to the next.

    Shows means with 95 % intervals over replicas, and of a pair of combinations the difference, paired by replica.

    Parameters
    ----------
    table : DataFrame
        Columns x, combination, replica, those of ``facets`` and of ``quantities``; one row per replica.
    x : str
        Column of the horizontal axis; its values are the stops of the slider.
    combinations : sequence of str
        Which to draw, in the order of the legend; keys of the book's looks.
    quantities : sequence of Quantity
        What can be shown.
    facets : dict of str to str
        Column to the label of its list: what the reader chooses.
    x_label, x_name : str
        Words for the axis, and the symbol that stands before a value.
    static : Figure
        What is shown where scripts do not run.
    alt : str
        What ``static`` says, in words.
    difference : (str, str), or empty
        Two combinations; the first minus the second is shown.
    first : number or None
        Where the slider stands in the beginning; None is the middle.
    words : dict or None
        Values of facets to what the reader sees in their place.
    log : bool
        Whether the horizontal axis is logarithmic.

    Returns
    -------
    InteractiveFigure

    Raises
    ------
    ValueError
        If a column is missing, or nothing is there to be drawn.
    """
    wanted = [x, "combination", "replica", *facets, *(q.column for q in quantities)]
    missing = [name for name in wanted if name not in table]
    require(not missing, f"the table lacks the columns {missing}")
    table = table[table.combination.isin([*combinations, *difference])]
    stops = sorted(table[x].unique())
    require(len(stops) > 1, f"column '{x}' has the values {stops}, wanted two at least to walk between")
    require(first is None or first in stops, f"first is {first}, wanted one of {stops}")
    words, choices = MODELS | (words or {}), {name: list(dict.fromkeys(table[name])) for name in facets}
    cells = {}
    for key, part in table.groupby(list(facets), sort=False):
        place = ",".join(str(choices[name].index(value)) for name, value in zip(facets, key))
        cells[place] = [_curves(part, x, stops, combinations, difference, q) for q in quantities]
    data = {
        "x": {"label": x_label, "name": x_name, "values": [float(stop) for stop in stops], "log": bool(log)},
        "facets": [{"name": name, "words": [words.get(v, str(v)) for v in choices[name]]} for name in facets],
        "quantities": [
            {
                "label": q.label,
                "unit": q.unit,
                "difference": q.difference_unit,
                "digits": q.digits,
                "low": q.low,
                "high": q.high,
            }
            for q in quantities
        ],
        "lines": [_look(name) for name in combinations],
        "difference": [_short(name) for name in difference],
        "cells": cells,
    }
    middle = len(stops) // 2 if first is None else stops.index(first)
    lists = "".join(select(name, label) for name, label in facets.items())
    body = f"""\
<div class="live-controls">{lists}{select("quantity", "Show")}{slider("stop", x_label, len(stops), middle)}</div>
<p class="live-says" aria-live="polite" data-part="says"></p><div class="live-panels">
<div class="walk-chart"><p class="live-head" data-part="head"></p>
<svg viewBox="0 0 460 270" aria-hidden="true" data-part="chart"></svg></div>
<div class="walk-values"><p class="live-head" data-part="values-head"></p><div role="list" data-part="values"></div>
<p class="live-note">Mean and 95&nbsp;% interval over independent pools.</p></div></div>
"""
    return interactive_figure("walk", body, data, static=static, alt=alt)


def _curves(part, x, stops, combinations, difference, quantity):
    """Return mean and ends of the interval at every stop, of each combination and of the difference; None is absent."""
    values = part.pivot_table(quantity.column, [x, "replica"], "combination", sort=False)
    columns = [values.get(name) for name in combinations]
    if difference:
        both = all(name in values for name in difference)
        columns.append(values[difference[0]] - values[difference[1]] if both else None)
    return [[_interval(column, stop, quantity.digits) for stop in stops] for column in columns]


def _interval(column, stop, digits):
    if column is None or stop not in column.index.get_level_values(0):
        return None
    values = column.loc[stop].dropna()
    values = values[np.isfinite(values)]
    if values.empty:
        return None
    mean, low, high = mean_interval(values)[:3]
    # One replica has no interval.
    return [round(float(value), digits + 2) if np.isfinite(value) else None for value in (mean, low, high)]


def _look(name):
    colour, marker, dash = LOOKS[name]
    steps = "none" if dash == "-" else " ".join(f"{4 * step:g}" for step in dash[1])
    return {"name": _short(name), "colour": colour, "marker": marker, "dash": steps}


def _short(name):
    return name.replace("feature ensemble, averaged head", "feature ensemble")
