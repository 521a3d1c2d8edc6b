"""The interactive figure carries all it needs and shows the numbers of its table, also by keyboard alone."""

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from check_html import problems

from wamlib.chapters.templates_of_soups.mixing import Mixture, mixing_figure

ALT = 'Rows look like "their" class means.'
CLASSES = ["cat", "dog", "</script>", "cow"]
ALPHAS = np.linspace(0, 1, 21)
# Pictures are stored as 16-bit integers, which moves a correlation by about 1e-5; the brief was 1e-3.
TOLERANCE = 1e-3


def pictures(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape or (4, 3, 5, 6))


MEANS, FIRST, SECOND = (pictures(seed) for seed in range(3))
ACCURACY = pd.DataFrame({"alpha": ALPHAS, "accuracy": np.random.default_rng(3).uniform(70, 80, 21)})
PAIRS = pd.DataFrame(
    [(i, j, alpha) for i, j in itertools.combinations(range(4), 2) for alpha in ALPHAS],
    columns=["first", "second", "alpha"],
)
PAIRS[["recall_first", "recall_second"]] = np.random.default_rng(4).uniform(0, 100, (len(PAIRS), 2))
MEMBERS = Mixture("two members", FIRST, SECOND, ACCURACY, "members")
TWO_CLASSES = Mixture("two classes", FIRST, FIRST, PAIRS, "classes")


def static():
    fig, ax = plt.subplots(figsize=(6, 2))
    ax.plot([0, 1])
    plt.close(fig)
    return fig


def figure(*mixtures, means=MEANS, classes=CLASSES, alt=ALT, **settings):
    return mixing_figure(mixtures or [MEMBERS, TWO_CLASSES], means, classes, static=static(), alt=alt, **settings)


class Fragment(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_nothing_is_loaded_and_words_are_there():
    text = figure()._repr_html_()
    fragment = Fragment(text)
    assert "http" not in re.sub(r"[\w+/=]{200,}", "", text)  # but by chance among the bytes of a picture
    assert all(address.startswith("data:") for address in fragment.all("src"))
    assert not fragment.all("href")
    assert "url(" not in text
    assert "@import" not in text
    assert fragment.all("alt") == [ALT]
    assert repr(figure()) == ALT
    assert problems(text) == []
    assert text.count("</script>") == 2  # the class of that name ends nothing


def test_labels_name_controls():
    fragment = Fragment(figure()._repr_html_())
    controls = [attributes["id"] for tag, attributes in fragment.tags if tag in ("select", "input")]
    assert fragment.all("for") == controls
    assert len(set(controls)) == 4


def test_equal_arguments_give_equal_bytes_and_others_another_id():
    once, again, other = figure(), figure(), figure(MEMBERS)
    assert once._repr_html_() == again._repr_html_()
    assert not set(Fragment(once._repr_html_()).all("id")) & set(Fragment(other._repr_html_()).all("id"))


def test_three_mixtures_of_fashion_mnist_size_are_small():
    first, second = (pictures(seed, 10, 1, 28, 28) for seed in (0, 1))
    pairs = pd.concat(PAIRS.iloc[:21].assign(first=i, second=j) for i, j in itertools.combinations(range(10), 2))
    mixtures = [replace(MEMBERS, first=a, second=b) for a, b in ((first, second), (first + 1, second + 1))]
    mixtures.append(Mixture("two classes", first, first, pairs, "classes"))
    text = figure(*mixtures, means=pictures(2, 10, 1, 28, 28), classes=list("abcdefghij"))._repr_html_()
    assert len(text) < 200_000  # leaves 50 kB for a static figure of many pictures


def test_only_the_first_classes_are_offered():
    text = figure(max_classes=2)._repr_html_()
    assert '"classes":["cat","dog"],"n_classes":4' in text
    assert '"0,1"' in text
    assert '"0,2"' not in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"curves": ACCURACY.assign(alpha=ALPHAS**2)}, "not those of the other curves"),
        ({"curves": ACCURACY.iloc[1:]}, "not those of the other curves"),
        ({"curves": ACCURACY.drop(columns="accuracy")}, "lack the columns"),
        ({"curves": ACCURACY.assign(accuracy=np.nan)}, "not finite"),
        ({"first": FIRST[:, :1]}, "shapes"),
        ({"first": FIRST[:3], "second": SECOND[:3]}, "shapes"),
        ({"first": FIRST * np.inf}, "not finite"),
        ({"kind": "soups"}, "kind"),
        ({"kind": "classes", "curves": PAIRS}, "classes of one member"),
        ({"kind": "classes", "second": FIRST, "curves": PAIRS[PAIRS.second < 3]}, "lack pairs"),
    ],
)
def test_wrong_input_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        figure(TWO_CLASSES, replace(MEMBERS, **changes))
    figure(TWO_CLASSES, MEMBERS)  # the twin: right input is taken


@pytest.mark.parametrize(
    "alphas", [ALPHAS * 0.5, np.zeros(21), ALPHAS**2], ids=["not to 1", "one stop", "not even about 0.5"]
)
def test_a_grid_that_cannot_be_read_is_refused(alphas):
    curves = PAIRS.assign(alpha=np.tile(alphas, 6))
    with pytest.raises(ValueError, match="alpha"):
        figure(replace(TWO_CLASSES, curves=curves))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"means": MEANS[:, 0]}, "class_means"), ({"classes": ["cat"]}, "class names"), ({"alt": " "}, "alt text")],
)
def test_wrong_means_classes_or_words_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        figure(**arguments)


# ---- In a browser ----------------------------------------------------------------------------------------------


def focus(page, part, within=0):
    """Go to a control by the Tab key alone."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(10):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => [document.activeElement.dataset.part,
            [...document.querySelectorAll('.mixing-figure')].indexOf(document.activeElement.closest('.mixing-figure'))]"""
        )
        if found == [part, within]:
            return
    raise AssertionError(f"the Tab key never reaches '{part}'")


def choose(page, part, text, within=0):
    """Choose an option as a keyboard does: by the letters it begins with."""
    focus(page, part, within)
    page.keyboard.type(text)


def set_alpha(page, alpha, within=0):
    focus(page, "alpha", within)
    page.keyboard.press("Home")
    for _ in range(round(alpha * 20)):
        page.keyboard.press("ArrowRight")


def part(page, name, within=0):
    return page.locator(".mixing-figure").nth(within).locator(f'[data-part="{name}"]')


def minus(text):
    """Write a number as the page does: a true minus sign, and none before a zero."""
    return re.sub(r"^[+-](0\.0+)$", r"\1", text).replace("-", "−")


def correlations(page, within=0):
    values = page.locator(".mixing-figure").nth(within).locator(".mixing-value")
    shown = values.evaluate_all("cells => cells.map(cell => [cell.textContent, Number(cell.dataset.r)])")
    assert [text for text, _ in shown] == [minus(f"{r:.2f}") for _, r in shown]
    return np.array([r for _, r in shown])


def expected(picture):
    return np.array([np.corrcoef(picture.ravel(), mean.ravel())[0, 1] for mean in MEANS])


def test_members_are_mixed_as_numpy_mixes_them(show):
    page = show(figure())
    choose(page, "first", "dog")
    accuracy = ACCURACY.accuracy.to_numpy()
    for alpha in (0, 0.5, 1):
        set_alpha(page, alpha)
        wanted = expected((1 - alpha) * FIRST[1] + alpha * SECOND[1])
        np.testing.assert_allclose(correlations(page), wanted, atol=TOLERANCE)
        value = accuracy[round(20 * alpha)]
        points, r = minus(f"{value - (accuracy[0] + accuracy[-1]) / 2:+.1f}"), minus(f"{wanted.max():.2f}")
        assert part(page, "says").inner_text() == (
            f"alpha = {alpha:.2f}: accuracy {value:.1f} % ({points} points against the mean of the two ends); "
            f"the picture matches the mean of {CLASSES[wanted.argmax()]} best (r = {r})."
        )
    assert part(page, "bars").locator(".mixing-own").all_inner_texts()[0].startswith("■")
    assert not part(page, "second").is_visible()


@pytest.mark.parametrize(("i", "j"), [(0, 3), (3, 0)], ids=["in order", "the other way round"])
def test_classes_are_mixed_as_numpy_mixes_them(show, i, j):
    page = show(figure())
    choose(page, "mixture", "two c")
    choose(page, "second", "</")  # makes room, for no list offers what the other has chosen
    choose(page, "first", CLASSES[i])
    choose(page, "second", CLASSES[j])
    rows = PAIRS[(PAIRS["first"] == 0) & (PAIRS["second"] == 3)]
    recall = {0: rows.recall_first.to_numpy(), 3: rows.recall_second.to_numpy()}
    for alpha in (0, 0.5, 0.8, 1):
        set_alpha(page, alpha)
        mixed = (1 - alpha) * FIRST[i] + alpha * FIRST[j]
        np.testing.assert_allclose(correlations(page), expected(mixed), atol=TOLERANCE)
        at = round(20 * (alpha if i < j else 1 - alpha))
        own = {0: recall[0][0], 3: recall[3][20]}  # class 0 has its own row at the table's 0, class 3 at its 1
        for side, k in enumerate((i, j)):
            points = minus(f"{recall[k][at] - own[k]:+.1f}")
            wanted = f"recall of {CLASSES[k]} {recall[k][at]:.1f} % ({points} points against alpha = {side})"
            assert wanted in part(page, "says").inner_text()
    assert part(page, "bars").locator(".mixing-own").count() == 2


def test_a_class_is_never_mixed_with_itself(show):
    page = show(figure())
    choose(page, "first", "dog")  # of two members; the hidden second list holds dog as well
    choose(page, "mixture", "two c")
    assert part(page, "first").input_value() == "1"
    assert part(page, "second").input_value() == "2"
    choose(page, "second", "dog")
    assert part(page, "second").input_value() == "2"


def test_the_keys_of_the_slider_stop_at_every_alpha_of_the_table(show):
    page = show(figure())
    focus(page, "alpha")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # the focus is seen
    for key, said in (("Home", "0.00"), ("ArrowRight", "0.05"), ("End", "1.00"), ("ArrowLeft", "0.95")):
        page.keyboard.press(key)
        assert part(page, "alpha").get_attribute("aria-valuetext") == f"alpha = {said}"
        assert part(page, "says").inner_text().startswith(f"alpha = {said}: ")


def test_the_picture_is_drawn_in_the_colours_of_the_grid(show):
    page = show(figure())
    set_alpha(page, 1)
    drawn = part(page, "canvas").evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    mean = SECOND[0].mean(0)
    wanted = plt.get_cmap("RdBu_r")((mean / np.abs(mean).max() + 1) / 2, bytes=True)
    # A value at the edge between two of the 256 colours may fall to either.
    assert np.abs(np.reshape(drawn, wanted.shape) - wanted.astype(int)).max() <= 4


def test_a_flat_picture_matches_nothing(show):
    page = show(figure(replace(MEMBERS, second=-FIRST)))
    set_alpha(page, 0.5)
    assert "matches no class mean" in part(page, "says").inner_text()
    assert part(page, "bars").locator(".mixing-value").all_inner_texts() == ["none"] * 4


def test_two_figures_on_one_page_do_not_meet(show):
    page = show(figure(), figure(replace(MEMBERS, first=SECOND, second=FIRST)))
    set_alpha(page, 0.25, within=1)
    assert part(page, "says", 0).inner_text().startswith("alpha = 0.50")
    assert part(page, "says", 1).inner_text().startswith("alpha = 0.25")
    np.testing.assert_allclose(correlations(page, 0), expected((FIRST + SECOND)[0]), atol=TOLERANCE)
    np.testing.assert_allclose(correlations(page, 1), expected((0.75 * SECOND + 0.25 * FIRST)[0]), atol=TOLERANCE)


def test_the_scripts_leave_no_global(show):
    names = "Object.getOwnPropertyNames(window)"
    assert set(show(figure()).evaluate(names)) == set(show().evaluate(names))
    assert show(figure()).evaluate("[typeof data, typeof root, typeof draw]") == ["undefined"] * 3


@pytest.mark.parametrize("width", [360, 1200])
def test_no_page_scrolls_sideways(show, width):
    page = show(
        figure(classes=["cat", "dog", "a class of a rather long name", "Unbreakablylongclassname"]), width=width
    )
    for mixture in ("two m", "two c"):
        choose(page, "mixture", mixture)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_static_figure_stands(show):
    page = show(figure(), java_script_enabled=False)
    assert page.locator("img").is_visible()
    assert page.locator("select, input, canvas").count() == 5
    assert not any(control.is_visible() for control in page.locator("select, input, canvas").all())


def test_with_scripts_it_gives_way(show):
    page = show(figure())
    assert not page.locator("img").is_visible()
    assert part(page, "alpha").is_visible()
    assert page.get_by_role("group", name=ALT).count() == 1
