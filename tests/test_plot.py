"""Figures that several chapters draw hold the numbers of their table."""

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import check_drawing

from wamlib import plot
from wamlib.plot.style import intervals

STARTS = ["shared start", "independent init"]


def grid(**columns):
    rows = itertools.product(*columns.values())
    return pd.DataFrame(rows, columns=list(columns))


def with_values(table, name):
    return table.assign(**{name: np.random.default_rng(0).uniform(10, 90, len(table))})


COMBINED = grid(
    start=STARTS,
    replica=[0, 1, 2],
    n_members=[2, 5],
    combination=["member", "uniform soup", "uniform soup, recalibrated", "logit ensemble"],
)
COMBINED = with_values(COMBINED, "accuracy").assign(model="mlp")
PATH = with_values(
    grid(model=["mlp"], start=STARTS, replica=[0, 1], alpha=[0.0, 0.5, 1.0], recalibrated=[False]), "error"
)
SCALE = grid(replica=[0, 1], combination=["member", "uniform soup", "logit ensemble"], c=[0.1, 1.0, 10.0])
SCALE = with_values(SCALE, "accuracy").assign(model="mlp", scope="learnable", nll=1.0, agreement=90.0, finite=100.0)
DECAY = grid(dataset=["digits", "cats"], weight_decay=[0.0, 0.1], seed=[0, 1, 2])
DECAY = DECAY.assign(own=0.5, null=0.0, accuracy=80.0, residual=3.0, confidence=20.0, limit_correlation=0.9)
GAINS = grid(
    dataset=["digits", "cats"],
    model=["mlp", "resnet8", "vit"],
    replica=[0, 1, 2],
    combination=["uniform soup", "logit ensemble"],
)
GAINS = with_values(GAINS, "gain").assign(gain=lambda rows: rows.gain / 100)
NAMES = ["cat", "dog", "cow"]
KINDS = ["uniform soup", "logit ensemble"]
PICTURES = {"a": np.ones((3, 1, 4, 4)), "b": np.zeros((3, 3, 4, 4))}
ANSWERS = DECAY, COMBINED, SCALE

FIGURES = {
    "picture_grid": lambda: plot.picture_grid(PICTURES, NAMES),
    "error_along_path": lambda: plot.error_along_path(PATH),
    "gains_by_model": lambda: plot.gains_by_model(GAINS, KINDS),
    "answers": lambda: plot.answers(*ANSWERS)[1],
    "summary": lambda: plot.summary(*ANSWERS),
}
INTERACTIVE = {"Quantity", "walk_figure"}  # test_interactive.py tries them
WITHOUT_UNITS = {"picture_grid", "summary"}  # pictures, and correlations beside errors


def test_every_figure_is_tried_here():
    assert set(FIGURES) == set(plot.__all__) - INTERACTIVE


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(name, tmp_path):
    check_drawing(FIGURES[name](), tmp_path, units=name not in WITHOUT_UNITS)


def test_lines_are_means_over_replicas():
    line = plot.error_along_path(PATH).axes[0].containers[0].lines[0]
    means = PATH[PATH.start == STARTS[0]].groupby("alpha").error.mean()
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), means)


def test_the_answers_are_the_panels_of_the_summary():
    alone, panels = plot.answers(*ANSWERS), plot.summary(*ANSWERS).axes
    assert len(alone) == len(panels) == 3
    for fig, panel in zip(alone, panels):
        (ax,) = fig.axes
        assert ax.get_ylabel() == panel.get_ylabel()
        for one, other in zip(ax.lines, panel.lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())


def test_meanings_are_told_apart_without_colour():
    # By the marker alone, for some figures have no lines; of those with lines, by the dash as well.
    for looks in (plot.style.LOOKS.values(), plot.style.DATASETS):
        assert len({marker for _, marker, _ in looks}) == len(looks)
    looks = [(marker, str(dash)) for _, marker, dash in plot.style.LOOKS.values()]
    assert len(set(looks)) == len(looks)
    assert len({marker for _, marker in plot.style.KINDS.values()}) == len(plot.style.KINDS)


def test_pictures_of_several_kinds_have_labels_above_each_kind():
    rows = {"a": np.ones((3, 1, 4, 4)), "b": np.ones((3, 1, 4, 4)), "c": np.ones((3, 3, 8, 8))}
    fig = plot.picture_grid(rows, {"a": NAMES, "c": NAMES[::-1]})
    assert [ax.get_title() for ax in fig.axes] == [*NAMES, "", "", "", *NAMES[::-1]]


def points(container):
    """Return the values of an `errorbar`, and the two ends of each bar."""
    line, _, (bars,) = container.lines
    return (
        np.asarray(line.get_xdata(), dtype=float),
        line.get_ydata(),
        np.vstack([ends for ends in bars.get_segments() if len(ends)]),
    )


def test_gains_are_means_and_a_combination_that_was_not_measured_is_a_blank():
    table = GAINS[(GAINS.model != "vit") | (GAINS.combination != "uniform soup")]
    fig = plot.gains_by_model(table, ["uniform soup", "logit ensemble"])
    for ax, (_, part) in zip(fig.axes, table.groupby("dataset", sort=False), strict=True):
        for container, name in zip(ax.containers, ("uniform soup", "logit ensemble"), strict=True):
            means = part[part.combination == name].groupby("model", sort=False).gain.mean()
            means = means.reindex(GAINS.model.unique())
            np.testing.assert_allclose(points(container)[0], means)
    assert np.isnan(points(fig.axes[0].containers[0])[0][-1])


def test_panels_beyond_three_go_to_a_second_line():
    table = pd.concat([GAINS.assign(dataset=f"{name}") for name in range(5)])
    axes = plot.gains_by_model(table, ["uniform soup"]).axes
    assert [ax.get_title() for ax in axes if ax.axison] == ["0", "1", "2", "3", "4"]
    assert len({round(ax.get_position().y0, 3) for ax in axes[:5]}) == 2


def test_collapses_and_tenths_of_a_point_share_an_axis():
    fig = plot.gains_by_model(GAINS.assign(gain=GAINS.gain - 60 * (GAINS.model == "vit")), ["uniform soup"])
    assert {ax.get_xscale() for ax in fig.axes} == {"symlog"}
    assert {ax.get_xscale() for ax in plot.gains_by_model(GAINS, ["uniform soup"]).axes} == {"linear"}


def test_one_replica_is_drawn_without_an_interval(tmp_path):
    check_drawing(plot.gains_by_model(GAINS[GAINS.replica == 0], KINDS), tmp_path)


def test_no_bar_on_a_logarithmic_axis_ends_at_zero():
    wide = pd.DataFrame({"c": 1.0, "value": [1.0, 10.0, 100.0]})
    plain, logs = (intervals(wide, ["c"], "value", log=log).iloc[0] for log in (False, True))
    assert plain.low < 0 < logs.low
    np.testing.assert_allclose([logs["mean"], logs["mean"] ** 2], [10, logs.low * logs.high])
