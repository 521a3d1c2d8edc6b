"""The walk along an axis and the plane through three members show the numbers of their tables, also by keyboard."""

import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from check_html import problems

from wamlib import plot, stats
from wamlib.chapters.between.plane import band_colours, excess, plane_figure
from wamlib.plot import Quantity, walk_figure

MODELS, STARTS, SIZES = ["mlp", "resnet8"], ["shared start", "independent init"], [2, 3, 5, 10]
NAMES = ["member", "uniform soup", "logit ensemble"]
TABLE = pd.DataFrame(
    list(itertools.product(MODELS, STARTS, range(3), SIZES, NAMES)),
    columns=["model", "start", "replica", "n_members", "combination"],
)
TABLE["accuracy"] = np.random.default_rng(0).uniform(60, 90, len(TABLE))
TABLE["nll"] = np.random.default_rng(1).uniform(0.1, 2, len(TABLE))
# Of one choice the soup was not measured, and of another nothing.
TABLE = TABLE[~((TABLE.model == "resnet8") & (TABLE.start == STARTS[1]))]
TABLE = TABLE[~((TABLE.model == "resnet8") & (TABLE.combination == "uniform soup"))]
QUANTITIES = [Quantity("accuracy", "Test accuracy (%)"), Quantity("nll", "NLL (nats)", "", "nats", 3)]

GRID = pd.DataFrame(
    list(itertools.product(STARTS, [-0.2, 0.1, 0.4, 0.7, 1.0, 1.3], [-0.2, 0.2, 0.6, 1.0])), columns=["start", "u", "v"]
).assign(place="grid")
GRID["error"] = np.random.default_rng(2).uniform(10, 80, len(GRID))
CORNERS = pd.DataFrame(
    {
        "place": ["A", "B", "C", "soup"],
        "u": [0, 1, 0.4, 0.4667],
        "v": [0, 0, 0.8, 0.2667],
        "error": [20.0, 22.0, 24.0, 19.5],
    }
)
PLANES = pd.concat([GRID, *(CORNERS.assign(start=start) for start in STARTS)], ignore_index=True)


FRAGMENT = (Path(plot.__file__).parent / "interactive" / "fragment.js").read_text("utf-8")
ROUND_TICKS = re.search(r"^function roundTicks\(.*?^\}", FRAGMENT, re.S | re.M)[0]


@pytest.fixture
def page_of_scripts(browser):
    """Return a function that evaluates a script's function on many lists of arguments."""
    page = browser.new_page()
    yield lambda script, calls: page.evaluate(f"calls => calls.map(each => (() => {{ {script} }})()(...each))", calls)
    page.close()


def static():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1])
    plt.close(fig)
    return fig


def walk(table=TABLE, **settings):
    defaults = {
        "facets": {"model": "Architecture", "start": "Members"},
        "x_label": "Members N",
        "x_name": "N",
        "static": static(),
        "alt": "More members help.",
        "difference": ("logit ensemble", "uniform soup"),
        "first": 2,
    }
    return walk_figure(table, "n_members", NAMES, QUANTITIES, **(defaults | settings))


def plane(table=PLANES, **settings):
    return plane_figure(table, **({"static": static(), "alt": "One valley, three valleys."} | settings))


FIGURES = {"walk": walk, "plane": plane}


@pytest.mark.parametrize("name", FIGURES)
def test_fragments_load_nothing_and_the_checker_lets_them_pass(name):
    text = FIGURES[name]()._repr_html_()
    assert "http" not in re.sub(r"[\w+/=]{200,}", "", text)
    assert problems(text) == []
    assert problems(text.replace('"use strict";', '"use strict"; alert(1);'))  # no other script does
    assert FIGURES[name]()._repr_html_() == text
    assert len(text) < 60_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": TABLE.drop(columns="nll")}, "lacks the columns"),
        ({"table": TABLE[TABLE.n_members == 2]}, "two at least"),
        ({"first": 4}, "wanted one of"),
        ({"alt": " "}, "alt text"),
    ],
)
def test_a_walk_that_cannot_be_drawn_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        walk(**changes)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (PLANES[PLANES.place != "C"], "has no"),
        (PLANES.drop(index=3), "no whole grid"),
        (PLANES[:0], "table is empty"),
        (PLANES[(PLANES.start != STARTS[1]) | (PLANES.u != 1.3)], "different sizes"),
    ],
)
def test_a_plane_that_cannot_be_drawn_is_refused(table, words):
    with pytest.raises(ValueError, match=words):
        plane(table)


# ---- In a browser ----------------------------------------------------------------------------------------------


def part(page, name):
    return page.locator(f'[data-part="{name}"]')


def minus(text):
    return re.sub(r"(?<![\d.])[+-](0\.0+)(?!\d)", r"\1", text).replace("-", "−")


def told(values, digits=1, sign="", unit=" %"):
    mean, low, high = stats.mean_interval(values)[:3]
    return minus(f"{mean:{sign}.{digits}f}") + unit + minus(f" [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]")


def cell(model, start, size, combination, column="accuracy"):
    rows = TABLE[(TABLE.model == model) & (TABLE.start == start) & (TABLE.n_members == size)]
    return rows[rows.combination == combination].sort_values("replica")[column].to_numpy()


def tab_to(page, name):
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.part") == name:
            return
    raise AssertionError(f"the Tab key never reaches '{name}'")


def test_the_arrow_keys_walk_from_stop_to_stop_and_say_its_numbers(show):
    page = show(walk())
    tab_to(page, "stop")
    for size, key in ((2, "Home"), (3, "ArrowRight"), (10, "End")):
        page.keyboard.press(key)
        assert part(page, "stop").get_attribute("aria-valuetext") == f"N = {size}"
        values = {name: cell("mlp", "shared start", size, name) for name in NAMES}
        gap = values["logit ensemble"] - values["uniform soup"]
        words = ", ".join(f"{name} {told(values[name])}" for name in NAMES)
        assert part(page, "says").inner_text() == (
            f"N = {size}, Test accuracy (%): {words}; "
            f"logit ensemble minus uniform soup: {told(gap, sign='+', unit=' points')}."
        )
        assert told(values["member"]) in part(page, "values").inner_text()


def test_a_choice_changes_what_is_shown_and_says_what_was_not_measured(show):
    page = show(walk())
    part(page, "quantity").select_option(label="NLL (nats)")
    wanted = told(cell("mlp", "shared start", 2, "member", "nll"), digits=3, unit="")
    assert wanted in part(page, "says").inner_text()
    part(page, "quantity").select_option(index=0)
    part(page, "model").select_option(index=1)
    assert "uniform soup" not in part(page, "says").inner_text()
    assert part(page, "values").inner_text().count("not measured") == 1
    part(page, "start").select_option(index=1)
    assert part(page, "says").inner_text() == "N = 2: not measured for this choice."
    assert part(page, "chart").locator("*").count() == 0


def test_the_curve_passes_through_the_means(show):
    page = show(walk())
    points = part(page, "chart").locator("polyline").first.get_attribute("points")
    heights = np.array([float(point.split(",")[1]) for point in points.split()])
    means = [cell("mlp", "shared start", size, "member").mean() for size in SIZES]
    # The axis is linear: heights are a straight line of the means, and fall as these rise.
    slope, offset = np.polyfit(means, heights, 1)
    np.testing.assert_allclose(slope * np.array(means) + offset, heights, atol=0.1)
    assert slope < 0


def test_ticks_are_few_and_span_the_values_whatever_those_are(page_of_scripts):
    random = np.random.default_rng(3)
    ends = np.sort(random.choice([-1, 1], (3_000, 2)) * 10 ** random.uniform(-3, 3, (3_000, 2)))
    narrow = random.uniform(0, 100, 3_000)[:, None] + [0, 1] * 10 ** random.uniform(-3, 2, (3_000, 1))
    ranges = [*ends.tolist(), *narrow.tolist(), [75.9, 80.1], [0, 0], [5, 5]]
    for (low, high), ticks in zip(ranges, page_of_scripts(f"{ROUND_TICKS}\n return roundTicks", ranges), strict=True):
        assert 2 <= len(ticks) <= 6 or low == high == ticks[0], (low, high, ticks)
        assert ticks[0] <= low, (low, high, ticks)
        assert ticks[-1] >= high, (low, high, ticks)
        # An axis is not much longer than what is on it.
        assert ticks[-1] - ticks[0] <= 4 * (high - low) or low == high, (low, high, ticks)


def test_on_a_logarithmic_axis_stops_lie_by_their_logarithms(show):
    scaled = TABLE.assign(n_members=TABLE.n_members.map({2: 0.01, 3: 0.1, 5: 1.0, 10: 100.0}))
    page = show(walk(scaled, log=True, first=1.0))
    points = part(page, "chart").locator("polyline").first.get_attribute("points")
    across = np.array([float(point.split(",")[0]) for point in points.split()])
    np.testing.assert_allclose(np.diff(across) / np.diff(across)[0], [1, 1, 2], atol=0.01)
    assert part(page, "says").inner_text().startswith("N = 1,")


def test_combinations_differ_by_mark_and_dash_as_well_as_by_colour(show):
    page = show(walk())
    lines = part(page, "chart").locator("polyline")
    looks = lines.evaluate_all("all => all.map(line => line.getAttribute('stroke-dasharray'))")
    marks = part(page, "values").locator("path").evaluate_all("all => all.map(mark => mark.getAttribute('d'))")
    assert len(set(zip(looks, marks))) == len(NAMES)
    assert len(set(marks)) == len(NAMES)


def there(start, i, j):
    rows = GRID[GRID.start == start]
    u, v = sorted(rows.u.unique())[i], sorted(rows.v.unique())[j]
    return u, v, float(rows[(rows.u == u) & (rows.v == v)].error.iloc[0])


def spoken(start, i, j):
    u, v, error = there(start, i, j)
    c = v / 0.8
    b = u - 0.4 * c
    shares = (1 - b - c, b, c)
    first, *others = (f"{share:.2f}" for share in shares)
    words = minus(f"{first} A") + "".join(
        f" {'−' if share < 0 else '+'} {text.strip('-')} {letter}"
        for share, text, letter in zip(shares[1:], others, "BC")
    )
    return words, minus(
        f"test error {error:.1f} %, {error - 22:+.1f} points against the mean of the three members (22.0 %)"
    )


def test_the_keys_move_over_the_plane_and_say_where_one_is(show):
    page = show(plane())
    for name, key in (("u", "Home"), ("u", "ArrowRight"), ("v", "End"), ("v", "ArrowLeft")):
        page.evaluate("document.activeElement.blur()")
        tab_to(page, name)
        page.keyboard.press(key)
        at = [int(part(page, axis).input_value()) for axis in ("u", "v")]
        for words in spoken(STARTS[0], *at):
            assert words in part(page, "says").inner_text()
    assert at == [1, 2]
    part(page, "plane").select_option(index=1)
    assert spoken(STARTS[1], 1, 2)[1] in part(page, "says").inner_text()
    assert "Their soup, in the middle: 19.5 %." in part(page, "says").inner_text()


def test_a_click_and_a_drag_go_to_the_point_under_the_mouse(show):
    page = show(plane())
    box = part(page, "canvas").bounding_box()
    across, up = box["width"] / 6, box["height"] / 4
    page.mouse.move(box["x"] + 4.5 * across, box["y"] + 0.5 * up)  # the top line is the last v
    page.mouse.down()
    assert [part(page, axis).input_value() for axis in ("u", "v")] == ["4", "3"]
    page.mouse.move(box["x"] + 0.5 * across, box["y"] + 3.5 * up)
    page.mouse.up()
    assert [part(page, axis).input_value() for axis in ("u", "v")] == ["0", "0"]
    assert spoken(STARTS[0], 0, 0)[1] in part(page, "says").inner_text()
    page.mouse.move(box["x"] + 4.5 * across, box["y"] + 0.5 * up)  # no button, no move
    assert part(page, "u").input_value() == "0"


def test_the_map_is_drawn_in_its_bands_the_right_way_up(show):
    page = show(plane())
    drawn = part(page, "canvas").evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    rows = PLANES[PLANES.start == STARTS[0]]
    grid = rows[rows.place == "grid"].pivot(index="v", columns="u", values="error").to_numpy()
    wanted = np.round(255 * band_colours()[excess(grid, rows)][::-1])
    np.testing.assert_allclose(np.reshape(drawn, wanted.shape), wanted, atol=1)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("name", FIGURES)
def test_no_page_scrolls_sideways(show, name, width):
    page = show(FIGURES[name](), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", FIGURES)
def test_the_static_figure_stands_only_where_scripts_do_not_run(show, name):
    page = show(FIGURES[name](), java_script_enabled=False)
    assert page.locator("img").is_visible()
    assert not any(control.is_visible() for control in page.locator("select, input, canvas").all())
    page = show(FIGURES[name]())
    assert not page.locator("img").is_visible()
    assert page.locator("input").first.is_visible()
    assert page.get_by_role("group").count() == 1


def test_figures_of_all_kinds_share_a_page(show):
    page = show(walk(), plane())
    part(page, "stop").focus()
    page.keyboard.press("End")
    assert part(page, "says").first.inner_text().startswith("N = 10")
    assert "A + " in part(page, "says").last.inner_text()
