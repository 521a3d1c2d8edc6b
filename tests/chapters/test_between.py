"""Lines and planes between members: each error is that of the network which stands there."""

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import check_drawing, random_dataset, untrained, untrained_chapter

from wamlib.chapters import between
from wamlib.chapters.between.plane import BANDS, error_over_plane
from wamlib.lines import error_along_line
from wamlib.merge import interpolate
from wamlib.pools import Pool
from wamlib.stats import mean_interval


@pytest.fixture(scope="module", params=["resnet8", "mlp"])
def pool(request):
    dataset = random_dataset()
    return Pool(untrained(request.param, dataset, spread=0.5), dataset)


def test_a_line_has_both_kinds_of_statistics_for_batchnorm_only(pool):
    line = error_along_line(pool, alphas=[0, 0.25, 1])
    assert set(line.recalibrated) == ({False, True} if pool.has_batchnorm else {False})
    for row in line.itertuples():
        state = interpolate(*pool.states[:2], row.alpha)
        assert row.error == pytest.approx(pool.error(state, recalibrate=row.recalibrated))
    plain = line[~line.recalibrated].error.tolist()
    chord = 0.75 * plain[0] + 0.25 * plain[2]
    assert line.barrier.iloc[0] == pytest.approx(max(0, plain[1] - chord))


def test_the_plane_scores_members_and_soup_where_they_stand(pool):
    found = between.over_plane(pool, n_points=3, n_images=40)
    few, at = pool.first(n_test=40), found.set_index("place")
    assert (found.place == "grid").sum() == 9
    for letter, state in zip("ABC", pool.states):
        assert at.error[letter] == pytest.approx(few.error(state, recalibrate=True))
    assert at.error["soup"] == pytest.approx(few.error(pool.soup(), recalibrate=True))
    assert (at.u["A"], at.v["A"], at.u["B"]) == pytest.approx((0, 0, 1))
    assert at.u["soup"] == pytest.approx((1 + at.u["C"]) / 3)


def test_barriers_are_one_for_each_line_and_shown_with_their_interval():
    places = itertools.product(("shared start", "independent init"), range(3), (0.0, 1.0))
    path = pd.DataFrame(places, columns=["start", "replica", "alpha"]).assign(model="mlp", recalibrated=False)
    path["barrier"] = 10.0 * path.replica + (path.start == "independent init")
    found = between.barriers(path)
    assert found.barrier.tolist() == [0, 10, 20, 1, 11, 21]
    mean, _, high, _ = mean_interval([0, 10, 20])
    words = between.with_interval(found).barrier.tolist()
    assert words[0] == f"{mean:.1f} [0.0, {high:.1f}]"  # no barrier is below 0


def test_the_chapter_measures_and_says_what_it_needs(tmp_path):
    here = untrained_chapter(
        "between",
        random_dataset(),
        tmp_path,
        models=["mlp", "resnet8"],
        plane_model="mlp",
        n_members=3,
        alphas=[0.0, 0.5, 1.0],
        n_plane=3,
        n_plane_images=30,
    )
    tables = between.tables(here)
    assert set(tables) == {"path", "plane", "barriers"}
    assert len(tables["plane"]) == 3 * (9 + 4)
    said = between.numbers(here, tables)
    assert (said["n_points"], said["n_plane_images"], said["plane_model"]) == (9, 30, "mlp")
    fresh = tables["barriers"].query("recalibrated and start == 'shared init'").barrier.mean()
    assert said["fresh_init"] == pytest.approx(fresh)
    fig = error_over_plane(tables["plane"])
    check_drawing(fig, tmp_path, units=False)  # its legend has them
    assert np.isfinite(tables["path"].error).all()


def test_a_plane_is_drawn_the_right_way_up_in_bands_above_the_members():
    grid = pd.DataFrame([(u, v) for u in (-0.5, 0.0, 0.5, 1.0, 1.5) for v in (-0.2, 0.4, 1.0)], columns=["u", "v"])
    grid = grid.assign(place="grid", error=np.random.default_rng(0).uniform(10, 90, len(grid)))
    corners = pd.DataFrame({"place": ["A", "B", "C", "soup"], "u": [0, 1, 0.4, 0.467], "v": [0, 0, 0.8, 0.267]})
    table = pd.concat([grid, corners.assign(error=20.0)], ignore_index=True).assign(start="shared start")
    (picture,) = error_over_plane(table).axes[0].images
    assert picture.origin == "lower"
    low, high = BANDS[3:5]
    there = grid.pivot(index="v", columns="u", values="error").to_numpy() - 20.0
    shown = np.asarray(picture.get_array())
    np.testing.assert_array_equal(shown == 4, (there >= low) & (there < high))
    assert (shown == 0).any()  # better than the members
