"""Figures hold the numbers of their table."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from wamlib import plot
from wamlib.plot.style import intervals

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
    grid(model=["mlp", "vit"], scope=["learnable", "batchnorm"], replica=[0, 1],
         combination=["member", "uniform soup", "logit ensemble"], c=[0.1, 1.0, 10.0]), "accuracy",
)  # fmt: skip
SCALE = SCALE[(SCALE.model == "mlp") | (SCALE.scope == "learnable")]
SCALE = SCALE.assign(nll=1.0 + SCALE.c, agreement=90.0, finite=100.0)
SCALE.loc[(SCALE.c == 10) & (SCALE.model == "mlp"), ["nll", "finite"]] = float("nan"), 50.0
LAYERS = with_values(
    grid(model=["mlp", "vit", "cnn", "vgg", "resnet8"], replica=[0, 1], depth=[1, 2, 3], c=[0.5, 2.0]), "drop"
)
SHARES = with_values(with_values(grid(model=["mlp", "vit"], replica=[0, 1], share=[0.1, 0.9]), "accuracy"), "weighted")
DECAY = grid(dataset=["digits", "cats"], weight_decay=[0.0, 0.1], seed=[0, 1, 2])
DECAY = DECAY.assign(own=0.5, null=0.0, accuracy=80.0, residual=3.0, confidence=20.0, limit_correlation=0.9)
SOUPS = grid(dataset=["digits", "cats"], group=[0.0, "released recipe"], n_members=[1, 2, 5], subset=[0, 1, 2])
SOUPS = with_values(SOUPS, "own_change").assign(accuracy_change=0.3)
SOUPS = SOUPS[(SOUPS.n_members < 5) | (SOUPS.subset == 0)]  # the largest soup has no replica
PAIRS = grid(dataset=["digits"], model=["mlp", "resnet8"], kind=list(plot.style.KINDS), replica=[0, 1], depth=[1, 2])
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
GAPS = grid(model=["mlp", "resnet8", "vit", "densenet", "vgg"], start=STARTS, replica=[0, 1, 2], way=[0.25, 0.5, 1.0])
GAPS = GAPS.assign(distance=GAPS.way * (1 + GAPS.replica), gap=GAPS.way**2 * (1 + GAPS.replica))
GAPS = with_values(GAPS, "explained, half way")
GAPS["explained, half way"] = GAPS["explained, half way"] / 100
GAPS["explained, at the soup"] = GAPS["explained, half way"] - 0.5 - 3 * (GAPS.model == "vgg")  # off the scale
GAINS = grid(dataset=["digits", "cats"], model=["mlp", "resnet8", "vit"], replica=[0, 1, 2],
             combination=["uniform soup", "logit ensemble"])  # fmt: skip
GAINS = with_values(GAINS, "gain").assign(gain=lambda rows: rows.gain / 100)
ERRORS = grid(dataset=["digits", "cats"], model=["mlp", "vit"], replica=[0, 1, 2])
ERRORS = with_values(with_values(ERRORS, "error"), "gap")
WATERFALL = grid(model=["mlp", "resnet8", "vit"], replica=[0, 1, 2], step=["corrected", "D5", "D2, D9", "D1"])
WATERFALL = with_values(WATERFALL, "value")
TRUST = grid(model=["mlp", "vit"], replica=[0, 1, 2], combination=["member", "uniform soup", "logit ensemble"],
             temperature=["raw", "refitted"], at=[0, 5, 10],
             measure=["confidence", "bin accuracy", "share"])  # fmt: skip
TRUST = with_values(TRUST, "value")
TRUST.loc[(TRUST.measure == "share") & (TRUST["at"] == 5), "value"] = 0.5  # too few to be drawn
COVERED = grid(model=["mlp", "vit"], replica=[0, 1, 2], combination=["member", "uniform soup"], at=[10, 50, 100])
COVERED = with_values(COVERED, "value")
FOUND = grid(images=["cats", "dogs"], model=["mlp", "vit"], replica=[0, 1, 2], combination=["member", "uniform soup"])
FOUND = with_values(FOUND, "value")
STATISTICS = grid(images=["cats", "dogs"], statistic=["mean pixel", "roughness"]).assign(AUROC=[40.0, 60.0, 70.0, 55.0])
RECIPE = grid(panel=["cats", "dogs", "cows"], model=["mlp", "vit"], option=["member", "uniform soup", "logit ensemble"])
RECIPE = with_values(RECIPE, "error").assign(mflops=[1, 1, 3, 5, 5, 15] * 3)
ADVISED = grid(start=["shared start", "reordered"], setting=[True, False], replica=[0, 1])
ADVISED = ADVISED.assign(predicted_gain=[1.0, 2, -1, 0, -50, -40, -60, -30], predicted_noise=0.5)
ADVISED["measured_gain"] = ADVISED.predicted_gain + 0.5
FLIPS = with_values(grid(corruption=["contrast", "gaussian noise"], severity=[1, 3], model=["mlp", "vit"],
                         replica=[0, 1, 2], combination=["member", "uniform soup", "logit ensemble"]),
                    "flip_rate")  # fmt: skip
ATTACKS = with_values(grid(kind=["fgsm", "pgd"], budget=[0, 4], model=["mlp", "vit"], replica=[0, 1, 2],
                           combination=["member", "uniform soup", "logit ensemble"]), "accuracy")  # fmt: skip
SHAKEN = grid(scope=["coherent", "other"], c=[0.5, 1.0, 4.0], model=["mlp", "vit"], replica=[0, 1, 2], network=[0, 1])
SHAKEN = with_values(SHAKEN, "flip_rate").assign(ratio=lambda rows: rows.flip_rate * rows.c**6)
SHAKEN = SHAKEN[(SHAKEN.model != "vit") | (SHAKEN.scope != "coherent")]
SHORTER = grid(panel=["soup", "taken off"], model=["mlp", "vit"], replica=[0, 1, 2], n_members=[2, 5])
SHORTER = with_values(SHORTER, "ratio").assign(law=np.where(SHORTER.panel == "soup", np.nan, 100 / SHORTER.n_members))
SHRUNK = grid(start=STARTS, model=["mlp", "vit"], replica=[0, 1, 2],
              network=["uniform soup", "soup restored", "member shrunk"])  # fmt: skip
SHRUNK = with_values(SHRUNK, "gain")
AROUND = grid(model=["mlp", "vit"], replica=[0, 1, 2], network=["member", "uniform soup"], direction=[0, 1],
              step=[-1.0, 0.0, 1.0])  # fmt: skip
AROUND = with_values(AROUND, "loss")
SHAKEN_COLUMNS = {"flip_rate": "Changed (%)", "ratio": "Lipschitz (c = 1 is 1)"}
NAMES = ["cat", "dog", "cow"]
PLANE = with_values(grid(start=STARTS, place=["grid"], u=[-0.5, 0.0, 0.5, 1.0, 1.5], v=[-0.2, 0.4, 1.0]), "error")
CORNERS = pd.DataFrame({"place": ["A", "B", "C", "soup"], "u": [0, 1, 0.4, 0.467], "v": [0, 0, 0.8, 0.267]})
PLANE = pd.concat([PLANE, *(CORNERS.assign(start=start, error=20.0) for start in STARTS)], ignore_index=True)
SURFACE = grid(w1=[-1.0, 0.0, 1.0], w2=[-1.0, 0.0, 1.0])
SURFACE = SURFACE.assign(loss=(SURFACE.w1 * SURFACE.w2 - 1) ** 2)
TWO_LINES = grid(pair=STARTS, alpha=[0.0, 0.5, 1.0])
TWO_LINES = with_values(TWO_LINES.assign(w1=TWO_LINES.alpha, w2=1 - TWO_LINES.alpha), "loss")

# Pictures, and correlations and shares, which have no unit.
UNITLESS = {"picture_grid", "stretched_grid", "correlation_matrix", "layer_profiles", "summary", "explained_gap"}
# Maps, whose legend says what the colours are; a squared error of a toy has no unit.
UNITLESS |= {"error_over_plane", "loss_landscape"}

TRAINED = pd.DataFrame(
    [(model, recipe, epochs, replica, 60 + epochs + replica, epochs * 3.0)
     for model in ("cnn", "resnet8") for recipe, epochs in [("paper", 5), ("paper", 10), ("fast", 2)]
     for replica in range(3)],
    columns=["model", "recipe", "epochs", "replica", "accuracy", "gflops"],
)  # fmt: skip
OPTION_GAINS = pd.DataFrame({"option": ["best member", "uniform soup", "aligned soup", "logit ensemble"],
                             "expected": [0.5, -40.0, np.nan, 1.0], "gain": [0.1, -45.0, 0.2, 0.9],
                             "noise": [0.3, 2.0, 0.3, 0.2]})  # fmt: skip
FIGURES = {
    "accuracy_vs_flops": lambda: plot.accuracy_vs_flops(TRAINED),
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
    "layer_heat_maps": lambda: plot.layer_heat_maps(LAYERS),
    "scale_curves": lambda: plot.scale_curves(SCALE),
    "scale_quantities": lambda: plot.scale_quantities(
        SCALE[SCALE.scope == "learnable"], {"agreement": "Agreement (%)", "nll": "NLL (nats)"}
    ),
    "share_curves": lambda: plot.share_curves(SHARES),
    "alignment_paths": lambda: plot.alignment_paths(LINES),
    "spread_by_depth": lambda: plot.spread_by_depth(LINES),
    "barrier_vs_width": lambda: plot.barrier_vs_width(WIDTHS),
    "merge_differences": lambda: plot.merge_differences(MERGES),
    "recalibration_curves": lambda: plot.recalibration_curves(IMAGES),
    "gap_vs_distance": lambda: plot.gap_vs_distance(GAPS),
    "explained_gap": lambda: plot.explained_gap(GAPS),
    "gains_by_model": lambda: plot.gains_by_model(GAINS, ["uniform soup", "logit ensemble"]),
    "gap_vs_error": lambda: plot.gap_vs_error(ERRORS),
    "cost_vs_error": lambda: plot.cost_vs_error(RECIPE),
    "option_gains": lambda: plot.option_gains(OPTION_GAINS),
    "predicted_gain": lambda: plot.predicted_gain(ADVISED),
    "waterfall": lambda: plot.waterfall(WATERFALL, "Gap (points)"),
    "reliability_diagram": lambda: plot.reliability_diagram(TRUST, ["member", "uniform soup", "logit ensemble"]),
    "error_vs_coverage": lambda: plot.error_vs_coverage(COVERED, ["member", "uniform soup"]),
    "detection_marks": lambda: plot.detection_marks(FOUND, ["member", "uniform soup"], STATISTICS),
    "flips_by_severity": lambda: plot.flips_by_severity(FLIPS),
    "attack_curves": lambda: plot.attack_curves(ATTACKS),
    "norms_vs_members": lambda: plot.norms_vs_members(SHORTER),
    "shrinking_gains": lambda: plot.shrinking_gains(SHRUNK),
    "loss_around": lambda: plot.loss_around(AROUND),
    "stability_vs_scale": lambda: plot.stability_vs_scale(SHAKEN, SHAKEN_COLUMNS),
    "loss_landscape": lambda: plot.loss_landscape(SURFACE, TWO_LINES),
    "error_over_plane": lambda: plot.error_over_plane(PLANE),
    "answers": lambda: plot.answers(DECAY, COMBINATIONS, SCALE)[1],
    "summary": lambda: plot.summary(
        DECAY, COMBINATIONS[COMBINATIONS.model == "mlp"], SCALE[SCALE.scope == "learnable"]
    ),
}


# No matplotlib figures but pages to act on, and their input; test_mixing.py and test_interactive.py try them.
INTERACTIVE = {"Mixture", "Quantity", "mixing_figure", "plane_figure", "walk_figure"}


def test_every_figure_is_tried_here():
    assert set(FIGURES) == set(plot.__all__) - INTERACTIVE


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_closed(name, tmp_path):
    fig = FIGURES[name]()
    assert not plt.get_fignums()  # else a notebook would show it twice
    # Beside the last panel of a grid there may be room, which shows no axes; among pictures, which show none, not.
    filler = [ax for ax in fig.axes if not ax.axison and name not in ("picture_grid", "stretched_grid")]
    filler += [ax for ax in fig.axes if [text.get_text() for text in ax.texts] == ["not defined"]]
    empty = [ax for ax in fig.axes if not (ax.lines or ax.collections or ax.images) and ax not in filler]
    assert not empty, "a panel is empty"
    fig.savefig(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").stat().st_size < 500_000


@pytest.mark.parametrize("name", sorted(set(FIGURES) - UNITLESS))
def test_quantities_have_units_and_images_no_titles(name):
    fig = FIGURES[name]()
    labels = " ".join([ax.get_xlabel() + ax.get_ylabel() + ax.get_title() for ax in fig.axes])
    assert any(
        unit in labels
        for unit in ("(%)", "(%,", "(points)", "Points against", "Points over", "members = 1", "(logit)", "(nats)")
    )
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


def test_the_answers_are_the_panels_of_the_summary():
    tables = DECAY, COMBINATIONS[COMBINATIONS.model == "mlp"], SCALE[SCALE.scope == "learnable"]
    alone, panels = plot.answers(*tables), plot.summary(*tables).axes
    assert len(alone) == len(panels) == 3
    for fig, panel in zip(alone, panels):
        (ax,) = fig.axes
        assert ax.get_ylabel() == panel.get_ylabel()
        for one, other in zip(ax.lines, panel.lines, strict=True):
            np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())


def test_a_plane_is_drawn_the_right_way_up_in_bands_above_the_members():
    fig = plot.error_over_plane(PLANE)
    rows = PLANE[(PLANE.start == STARTS[0]) & (PLANE.place == "grid")]
    (picture,) = fig.axes[0].images
    assert picture.origin == "lower"
    low, high = plot.plane.BANDS[3:5]
    there = rows.pivot(index="v", columns="u", values="error").to_numpy() - 20.0
    shown = np.asarray(picture.get_array())
    np.testing.assert_array_equal(shown == 4, (there >= low) & (there < high))
    assert (shown == 0).any()  # better than the members


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


def points(container):
    """Return the values of an `errorbar`, and the two ends of each bar."""
    line, _, (bars,) = container.lines
    return (
        np.asarray(line.get_xdata(), dtype=float),
        line.get_ydata(),
        np.vstack([ends for ends in bars.get_segments() if len(ends)]),
    )


def test_gaps_have_a_line_per_pool_and_one_slope_for_all_panels():
    fig = plot.gap_vs_distance(GAPS)
    panels = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in panels][:3] == ["MLP", "ResNet-8 (BatchNorm)", "ViT"]
    for ax, (_, part) in zip(panels, GAPS.groupby("model", sort=False), strict=True):
        *lines, slope = ax.lines
        assert len(lines) == 2 * 3
        for line, (_, pool) in zip(lines, part.groupby(["start", "replica"], sort=False), strict=True):
            np.testing.assert_allclose(line.get_xdata(), pool.distance)
            np.testing.assert_allclose(line.get_ydata(), pool.gap)
        x, y = slope.get_data()
        assert y[1] / y[0] == pytest.approx((x[1] / x[0]) ** 2)
    assert len({tuple(ax.lines[-1].get_ydata()) for ax in panels}) == 1


def test_shares_are_those_of_members_where_they_were_trained_and_end_at_minus_one():
    fig = plot.explained_gap(GAPS)
    trained = GAPS[GAPS.way == 1]
    for ax, start in zip(fig.axes, STARTS, strict=True):
        assert ax.get_title() == start
        for container, step in zip(ax.containers, ("half way", "at the soup"), strict=True):
            means = trained[trained.start == start].groupby("model", sort=False)[f"explained, {step}"].mean()
            x, _, bars = points(container)
            np.testing.assert_allclose(x, means.clip(-1, 1))
            assert np.abs(bars[:, 0]).max() <= 1
    assert (trained["explained, at the soup"] < -1).any()  # or there would be nothing to cut off


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


def test_a_narrow_range_of_errors_has_ticks_to_read_it_by():
    table = COMBINATIONS.assign(accuracy=80 + COMBINATIONS.accuracy / 100)
    for ax in plot.error_vs_members(table, sorted(set(table.combination))).axes:
        assert len(ax.get_yticks()) >= 3


def test_collapses_and_tenths_of_a_point_share_an_axis():
    fig = plot.gains_by_model(GAINS.assign(gain=GAINS.gain - 60 * (GAINS.model == "vit")), ["uniform soup"])
    assert {ax.get_xscale() for ax in fig.axes} == {"symlog"}
    assert {ax.get_xscale() for ax in plot.gains_by_model(GAINS, ["uniform soup"]).axes} == {"linear"}


def test_gaps_stand_over_the_mean_error_of_their_cell():
    found = {(round(x[0], 6), round(y[0], 6)) for x, y, _ in map(points, plot.gap_vs_error(ERRORS).axes[0].containers)}
    means = ERRORS.groupby(["dataset", "model"])[["error", "gap"]].mean().round(6)
    assert found == set(map(tuple, means.to_numpy()))


def test_bars_of_a_waterfall_reach_from_each_value_to_the_next():
    fig = plot.waterfall(WATERFALL, "Gap (points)")
    for ax, (_, part) in zip(fig.axes, WATERFALL.groupby("model", sort=False), strict=False):
        means = part.groupby("step", sort=False).value.mean().to_numpy()
        bars = [container.patches[0] for container in ax.containers if hasattr(container, "patches")]
        middle = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in bars[:-2]]
        np.testing.assert_allclose(middle, list(itertools.pairwise(means)))
        np.testing.assert_allclose([bar.get_height() for bar in bars[-2:]], [means[0], means[-1]])
        assert len({bar.get_facecolor() for bar, (a, b) in zip(bars, itertools.pairwise(means)) if b > a}) <= 1
        labels = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
        assert labels == ["corrected", "D5", "D2, D9", "D1", "released"]  # the order of the table, not of the alphabet
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([1, 2, 3, 0, 4])


def test_whiskers_of_a_waterfall_are_intervals_of_the_change_and_of_the_ends():
    from wamlib.stats import mean_interval, paired_difference

    part = WATERFALL[WATERFALL.model == "mlp"]
    wide = part.pivot_table("value", "replica", "step", sort=False)
    ax = plot.waterfall(part, "Gap (points)").axes[0]
    bars = [np.diff(c.lines[2][0].get_segments()[0][:, 1]).item() for c in ax.containers if hasattr(c, "lines")]
    intervals = [paired_difference(wide[b], wide[a]) for a, b in itertools.pairwise(wide.columns)]
    intervals += [mean_interval(wide[step]) for step in ("corrected", "D1")]
    np.testing.assert_allclose(bars, [one.high - one.low for one in intervals])


def test_bins_of_all_pools_are_weighted_by_their_images_and_small_ones_left_out():
    fig = plot.reliability_diagram(TRUST, ["member", "uniform soup", "logit ensemble"])
    part = TRUST[(TRUST.combination == "uniform soup") & (TRUST.temperature == "refitted")]
    wide = part.pivot_table("value", ["model", "replica", "at"], "measure").query("share > 1")
    ax = fig.axes[4]  # the second row, the second column
    for line, models in zip([*ax.lines[:2], ax.lines[3]], [["mlp"], ["vit"], ["mlp", "vit"]], strict=True):
        means = [
            (np.average(rows.confidence, weights=rows.share), np.average(rows["bin accuracy"], weights=rows.share))
            for _, rows in wide.loc[models].groupby("at")
        ]
        np.testing.assert_allclose(np.column_stack(line.get_data()), means)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, wide.groupby("at").share.mean())


def test_error_against_coverage_is_shown_beside_its_difference_from_a_member():
    fig = plot.error_vs_coverage(COVERED, ["member", "uniform soup"])
    mean = COVERED.groupby(["combination", "at"]).value.mean()
    for ax, taken in zip(fig.axes, (0, mean["member"]), strict=True):
        for line, name in zip(ax.lines, ("member", "uniform soup"), strict=True):
            np.testing.assert_allclose(line.get_ydata(), mean[name] - taken)
    assert len(fig.axes[1].collections) == 1  # a band for all but the baseline
    by_replica = COVERED.groupby(["combination", "replica", "at"]).value.mean()
    band = fig.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    widest = max(abs(v) for at in (10, 50, 100) for v in stats_of(by_replica, at))
    assert np.abs(band).max() == pytest.approx(widest)


def stats_of(by_replica, at):
    from wamlib.stats import paired_difference

    soup, member = (by_replica.xs(at, level="at")[name] for name in ("uniform soup", "member"))
    return paired_difference(soup, member)[1:3]


def test_detections_stand_beside_what_needs_no_network():
    fig = plot.detection_marks(FOUND, ["member", "uniform soup"], STATISTICS)
    for ax, (images, part) in zip(fig.axes, FOUND.groupby("images", sort=False), strict=True):
        assert ax.get_title() == f"against {images}"
        for container, name in zip(ax.containers, ("member", "uniform soup"), strict=True):
            means = part[part.combination == name].groupby("model", sort=False).value.mean()
            np.testing.assert_allclose(points(container)[0], means)
        lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines if "alone" in line.get_label()}
        known = STATISTICS[STATISTICS.images == images].set_index("statistic").AUROC
        assert lines == {f"{name} alone": value for name, value in known.items()}


ONE = ["gap_vs_distance", "explained_gap", "gains_by_model", "gap_vs_error", "waterfall", "reliability_diagram",
       "error_vs_coverage", "detection_marks"]  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_replica_is_drawn_without_an_interval(name, tmp_path, monkeypatch):
    for table in ("GAPS", "GAINS", "ERRORS", "WATERFALL", "TRUST", "COVERED", "FOUND"):
        monkeypatch.setitem(globals(), table, globals()[table].query("replica == 0"))
    FIGURES[name]().savefig(tmp_path / "x.svg")


def test_an_option_stands_at_its_cost_and_its_error():
    fig = plot.cost_vs_error(RECIPE)
    panels = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title() for ax in panels] == ["cats", "dogs", "cows"]
    for ax, (_, part) in zip(panels, RECIPE.groupby("panel", sort=False), strict=True):
        marks = {(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if len(line.get_xdata()) == 1}
        assert marks == set(map(tuple, part[["mflops", "error"]].to_numpy()))
        assert {text.get_text() for text in ax.texts} == {"MLP", "ViT"}


def test_gains_near_zero_have_a_panel_with_bars_and_setting_pools_are_hollow():
    every, near = plot.predicted_gain(ADVISED).axes
    assert sum(len(container.lines[0].get_xdata()) for container in every.containers) == len(ADVISED)
    assert all(not container.has_xerr for container in every.containers)
    assert sorted(x for container in near.containers for x in points(container)[0]) == [-1, 0, 1, 2]
    for container in near.containers:
        x, _, bars = points(container)
        np.testing.assert_allclose(np.abs(bars[:, 0] - np.repeat(x, 2)), 0.5)
    faces = [container.lines[0].get_markerfacecolor() for container in every.containers]
    assert faces == ["none", "#0173B2", "none", "#D55E00"]
    assert len(plot.predicted_gain(ADVISED[ADVISED.start == "reordered"]).axes) == 1


def test_flips_are_means_over_architectures_and_intervals_over_replicas():
    from wamlib.stats import mean_interval

    axes = plot.flips_by_severity(FLIPS).axes
    assert [ax.get_title() for ax in axes] == ["Contrast", "Gaussian noise"]
    for ax, (_, part) in zip(axes, FLIPS.groupby("corruption"), strict=True):
        for container, name in zip(ax.containers, ("member", "uniform soup", "logit ensemble"), strict=True):
            pools = part[part.combination == name].groupby(["severity", "replica"]).flip_rate.mean()
            expected = [mean_interval(values) for _, values in pools.groupby("severity")]
            x, y, _ = points(container)
            np.testing.assert_allclose(x, [1, 3], atol=0.1)
            np.testing.assert_allclose(y.astype(float), [one.mean for one in expected])
            spans = [np.ptp(bar[:, 1]) for bar in container.lines[2][0].get_segments()]
            np.testing.assert_allclose(spans, [one.high - one.low for one in expected])


def test_attacks_have_a_row_for_each_kind_and_a_column_for_each_architecture():
    fig = plot.attack_curves(ATTACKS)
    assert [ax.get_title() for ax in fig.axes] == ["MLP", "ViT", "", ""]
    assert [ax.get_ylabel()[:4].strip() for ax in fig.axes] == ["FGSM", "", "PGD", ""]
    part = ATTACKS.query("kind == 'pgd' and model == 'vit' and combination == 'uniform soup'")
    np.testing.assert_allclose(
        points(fig.axes[3].containers[1])[1].astype(float), part.groupby("budget").accuracy.mean()
    )


def test_stability_has_gaps_where_nothing_was_measured_and_ratios_on_a_logarithmic_axis():
    table = SHAKEN.assign(ratio=SHAKEN.ratio.where(SHAKEN.c > 0.5))
    axes = plot.stability_vs_scale(table, SHAKEN_COLUMNS).axes
    assert [ax.get_yscale() for ax in axes] == ["linear", "log"] * 2
    assert [len(ax.containers) for ax in axes] == [1, 1, 2, 2]  # the ViT has no coherent scale
    part = table[(table.scope == "other") & (table.model == "vit")]
    x, y, _ = points(axes[3].containers[1])
    assert x.tolist() == [1, 4]
    of_replicas = np.log(part.groupby(["c", "replica"]).ratio.mean())
    np.testing.assert_allclose(y.astype(float), np.exp(of_replicas.groupby("c").mean().loc[[1, 4]]))
    assert axes[2].get_ylim()[0] == 0


def test_no_bar_on_a_logarithmic_axis_ends_at_zero():
    wide = pd.DataFrame({"c": 1.0, "value": [1.0, 10.0, 100.0]})
    plain, logs = (intervals(wide, ["c"], "value", log=log).iloc[0] for log in (False, True))
    assert plain.low < 0 < logs.low
    np.testing.assert_allclose([logs["mean"], logs["mean"] ** 2], [10, logs.low * logs.high])


def test_narrow_ratios_have_plain_numbers_at_their_ticks():
    table = SHAKEN.assign(ratio=np.linspace(0.3, 12, len(SHAKEN)))
    ax = plot.stability_vs_scale(table, SHAKEN_COLUMNS).axes[1]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert {"1", "2", "5", "10"} <= set(labels)


def test_scale_curves_mark_overflow_and_say_where_a_scope_is_not_defined():
    fig = plot.scale_curves(SCALE)
    assert fig.get_size_inches()[1] < 5
    crosses = [
        line for ax in fig.axes for line in ax.lines if line.get_marker() == "x" and line.get_linestyle() == "None"
    ]
    assert {x for line in crosses for x in line.get_xdata()} == {10.0}
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["not defined"]
    assert "some logits overflow" in [text.get_text() for text in fig.legends[0].get_texts()]
    clean = plot.scale_curves(SCALE.assign(finite=100.0))
    assert "some logits overflow" not in [text.get_text() for text in clean.legends[0].get_texts()]


def test_quantities_that_overflow_are_marked_at_the_edge():
    fig = plot.scale_quantities(SCALE[SCALE.scope == "learnable"], {"agreement": "Agreement (%)", "nll": "NLL (nats)"})
    marked = [[line.get_label() for line in ax.lines].count("some logits overflow") > 0 for ax in fig.axes]
    assert marked == [False, True, False, False]


def test_heat_maps_show_the_mean_over_replicas():
    ax = plot.layer_heat_maps(LAYERS).axes[0]
    wide = LAYERS[LAYERS.model == "mlp"].pivot_table("drop", "depth", "c")
    assert np.allclose(ax.images[0].get_array(), wide)
    assert [text.get_text() for text in ax.texts] == [str(round(drop)) for drop in wide.to_numpy().ravel()]


def test_shares_draw_the_average_as_a_line_and_the_soups_as_marks():
    ax = plot.share_curves(SHARES).axes[0]
    mlp = SHARES[SHARES.model == "mlp"].groupby("share")
    assert np.allclose(ax.lines[0].get_ydata(), mlp.weighted.mean())
    assert np.allclose(ax.containers[0].lines[0].get_ydata(), mlp.accuracy.mean())


def test_norms_stand_beside_the_laws_that_they_might_follow():
    axes = plot.norms_vs_members(SHORTER).axes
    assert [ax.get_title() for ax in axes] == ["soup", "taken off"]
    for ax, (_, part) in zip(axes, SHORTER.groupby("panel", sort=False), strict=True):
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [100 / np.sqrt(2), 100 / np.sqrt(5)])
        for container, model in zip(ax.containers, ("mlp", "vit"), strict=True):
            means = part[part.model == model].groupby("n_members").ratio.mean()
            np.testing.assert_allclose(points(container)[1].astype(float), means)
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), [50, 20])


def test_controls_are_gains_by_architecture_and_what_was_not_measured_is_a_blank():
    axes = plot.shrinking_gains(SHRUNK[(SHRUNK.start == STARTS[0]) | (SHRUNK.model == "mlp")]).axes
    for ax, start in zip(axes, STARTS, strict=True):
        for container, name in zip(ax.containers, ("uniform soup", "soup restored", "member shrunk"), strict=True):
            means = SHRUNK[(SHRUNK.start == start) & (SHRUNK.network == name)].groupby("model").gain.mean()
            means["vit"] = np.nan if start == STARTS[1] else means["vit"]
            np.testing.assert_allclose(points(container)[0], means)


def test_losses_are_means_over_directions_and_bands_are_over_replicas():
    from wamlib.stats import mean_interval

    for ax, (_, part) in zip(plot.loss_around(AROUND).axes, AROUND.groupby("model"), strict=True):
        for line, band, name in zip(ax.lines, ax.collections, ("member", "uniform soup"), strict=True):
            pools = part[part.network == name].groupby(["step", "replica"]).loss.mean()
            expected = [mean_interval(values) for _, values in pools.groupby("step")]
            np.testing.assert_allclose(line.get_ydata(), [one.mean for one in expected])
            assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(max(one.high for one in expected))


def test_marks_of_recipes_stand_at_their_operations_and_say_their_epochs():
    first, second = plot.accuracy_vs_flops(TRAINED).axes
    assert [text.get_text() for text in first.texts] == ["5", "10", "2"]
    x, y, _ = points(first.containers[0])
    assert x.tolist() == [15, 30]
    np.testing.assert_allclose(y.astype(float), [66, 71])
    assert first.get_xscale() == second.get_xscale() == "log"


def test_gains_of_options_are_marked_as_measured_and_as_expected_and_a_collapse_shrinks_the_axis():
    ax = plot.option_gains(OPTION_GAINS).axes[0]
    np.testing.assert_allclose([container.lines[0].get_xdata()[0] for container in ax.containers], OPTION_GAINS.gain)
    hollow = [line.get_xdata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(hollow, OPTION_GAINS.expected)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(OPTION_GAINS.option)
    assert ax.get_xscale() == "symlog"
    assert (
        plot.option_gains(OPTION_GAINS[OPTION_GAINS.gain > -1].drop(index=1, errors="ignore")).axes[0].get_xscale()
        == "linear"
    )
