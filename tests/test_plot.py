"""Figures hold the numbers of their table."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from wamlib import plot

STARTS = ["shared start", "independent init"]


def grid(**columns):
    rows = itertools.product(*columns.values())
    return pd.DataFrame(rows, columns=list(columns))


def with_values(table, name):
    return table.assign(**{name: np.random.default_rng(0).uniform(10, 90, len(table))})


COMBINATIONS = with_values(
    grid(model=["mlp", "resnet8"], start=STARTS, replica=[0, 1, 2], n_members=[2, 5],
         combination=["member", "uniform soup", "uniform soup, recalibrated", "logit ensemble"]), "accuracy",
)  # fmt: skip
PATH = with_values(
    grid(model=["mlp"], start=STARTS, replica=[0, 1], alpha=[0.0, 0.5, 1.0], recalibrated=[False]), "error"
)
SCALE = with_values(
    grid(model=["mlp"], scope=["learnable"], replica=[0, 1], combination=["member", "uniform soup", "logit ensemble"],
         c=[0.1, 1.0, 10.0]), "accuracy",
)  # fmt: skip
DECAY = grid(dataset=["digits", "cats"], weight_decay=[0.0, 0.1], seed=[0, 1, 2])
DECAY = DECAY.assign(own=0.5, null=0.0, accuracy=80.0, residual=3.0, confidence=20.0, limit_correlation=0.9)
SOUPS = grid(dataset=["digits", "cats"], group=[0.0, "released recipe"], n_members=[1, 2, 5], subset=[0, 1, 2])
SOUPS = with_values(SOUPS, "own_change").assign(accuracy_change=0.3)
SOUPS = SOUPS[(SOUPS.n_members < 5) | (SOUPS.subset == 0)]  # the largest soup has no replica
PAIRS = grid(
    dataset=["digits"], model=["mlp", "resnet8"], kind=list(plot.style.KINDS), replica=[0, 1], depth=[1, 2]
)
PAIRS = PAIRS.assign(own=0.3, likeness=0.2, cosine=0.1, gain=-20.0)
HISTORY = with_values(grid(model=["mlp", "cnn"], epoch=[1, 2, 3], seed=[0, 1]), "accuracy")
MEMBERS = with_values(grid(model=["mlp", "cnn"], start=STARTS, seed=[0, 1, 2]), "accuracy")
LINES = grid(model=["mlp", "resnet8"], replica=[0, 1], matching=["none", "weights"], repair=["none", "REPAIR"],
             alpha=[0.0, 0.5, 1.0], depth=[1])  # fmt: skip
LINES = with_values(with_values(LINES, "error"), "spread")
WIDTHS = grid(model=["mlp", "resnet8"], width=[0.5, 1, 2], replica=[0, 1], line=["naive", "matched"])
# The second panel reaches higher than the first, with which it shares its axis.
WIDTHS = WIDTHS.assign(
    barrier=[5.0 + 60 * (model == "resnet8") + replica for model, replica in zip(WIDTHS.model, WIDTHS.replica)]
)
MERGES = grid(model=["mlp", "cnn"], start=STARTS, merge=["TIES", "Fisher"]).assign(mean=0.5, low=-0.5, high=1.5)
IMAGES = with_values(
    grid(replica=[0, 1], images=[0, 100, 1000], order=["shuffled", "by class"], tool=["wamlib", "torch"]), "error"
)
NAMES = ["cat", "dog", "cow"]

# Pictures, and correlations, which have no unit.
UNITLESS = {"picture_grid", "stretched_grid", "correlation_matrix", "layer_profiles", "summary"}

FIGURES = {
    "learning_curves": lambda: plot.learning_curves(HISTORY),
    "member_strip": lambda: plot.member_strip(MEMBERS),
    "picture_grid": lambda: plot.picture_grid({"a": np.ones((3, 1, 4, 4)), "b": np.zeros((3, 3, 4, 4))}, NAMES),
    "correlation_matrix": lambda: plot.correlation_matrix(pd.DataFrame(np.eye(3), index=NAMES, columns=NAMES)),
    "stretched_grid": lambda: plot.stretched_grid({"a": np.ones((3, 1, 4, 4)), "b": np.zeros((3, 3, 4, 4))}, NAMES),
    "decay_trade_off": lambda: plot.decay_trade_off(DECAY),
    "limit_correlation": lambda: plot.limit_correlation(DECAY),
    "rows_vs_members": lambda: plot.rows_vs_members(SOUPS),
    "structure_and_gain": lambda: plot.structure_and_gain(PAIRS),
    "layer_profiles": lambda: plot.layer_profiles(PAIRS),
    "error_vs_members": lambda: plot.error_vs_members(COMBINATIONS, ["member", "logit ensemble"]),
    "error_along_path": lambda: plot.error_along_path(PATH),
    "scale_curves": lambda: plot.scale_curves(SCALE),
    "alignment_paths": lambda: plot.alignment_paths(LINES),
    "spread_by_depth": lambda: plot.spread_by_depth(LINES),
    "barrier_vs_width": lambda: plot.barrier_vs_width(WIDTHS),
    "merge_differences": lambda: plot.merge_differences(MERGES),
    "recalibration_curves": lambda: plot.recalibration_curves(IMAGES),
    "summary": lambda: plot.summary(DECAY, COMBINATIONS[COMBINATIONS.model == "mlp"], SCALE),
}


# No matplotlib figure but a page to act on, and its input; tests/test_mixing.py tries them.
INTERACTIVE = {"Mixture", "mixing_figure"}


def test_every_figure_is_tried_here():
    assert set(FIGURES) == set(plot.__all__) - INTERACTIVE


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_closed(name, tmp_path):
    fig = FIGURES[name]()
    assert not plt.get_fignums()  # else a notebook would show it twice
    drawn = [ax for ax in fig.axes if ax.lines or ax.collections or ax.images]
    assert len(drawn) == len(fig.axes), "a panel is empty"
    fig.savefig(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").stat().st_size < 500_000


@pytest.mark.parametrize("name", sorted(set(FIGURES) - UNITLESS))
def test_quantities_have_units_and_images_no_titles(name):
    fig = FIGURES[name]()
    labels = " ".join([ax.get_xlabel() + ax.get_ylabel() for ax in fig.axes])
    assert any(unit in labels for unit in ("(%)", "(%,", "(points)", "Points against", "members = 1"))
    assert fig.get_suptitle() == ""


@pytest.mark.parametrize("name", FIGURES)
def test_no_point_lies_outside_its_panel(name):
    for ax in FIGURES[name]().axes:
        low, high = sorted(ax.get_ylim())
        for line in ax.lines:
            values = np.asarray(line.get_ydata(), dtype=float)
            # The ends of intervals may: an error below 0 does not exist.
            if line.get_transform() == ax.transData and line.get_marker() not in ("_", "|"):
                assert ((values >= low) & (values <= high))[np.isfinite(values)].all(), line.get_label()


def test_lines_are_means_over_replicas():
    fig = plot.error_vs_members(COMBINATIONS, ["member"])
    line = fig.axes[0].lines[0]
    rows = COMBINATIONS.query("model == 'mlp' and start == 'shared start' and combination == 'member'")
    np.testing.assert_allclose(
        np.asarray(line.get_ydata(), dtype=float), 100 - rows.groupby("n_members").accuracy.mean()
    )


def test_meanings_are_told_apart_without_colour():
    looks = [(marker, str(dash)) for _, marker, dash in plot.style.LOOKS.values()]
    assert len(set(looks)) == len(looks)


def test_pictures_of_several_kinds_have_labels_above_each_kind():
    rows = {"a": np.ones((3, 1, 4, 4)), "b": np.ones((3, 1, 4, 4)), "c": np.ones((3, 3, 8, 8))}
    fig = plot.picture_grid(rows, {"a": NAMES, "c": NAMES[::-1]})
    assert [ax.get_title() for ax in fig.axes] == [*NAMES, "", "", "", *NAMES[::-1]]


def test_a_subset_without_replicas_has_no_interval():
    fig = plot.rows_vs_members(SOUPS)
    bars = fig.axes[0].containers[0].lines[2][0].get_segments()
    spans = [abs(high - low) for (_, low), (_, high) in bars]
    assert min(spans[:-1]) > 0
    assert spans[-1] == 0  # one soup of five


def test_a_stretched_picture_reaches_black_and_white():
    picture = np.array([[[[-3.0, 5.0], [1.0, 1.0]]]])
    shown = plot.stretched_grid({"a": picture}, ["x"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[0, 1], [0.5, 0.5]])
