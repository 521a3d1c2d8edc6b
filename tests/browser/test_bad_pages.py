"""Each check of the browser tests finds the page that is bad, and no fault in its good twin."""

import pytest

pytest.importorskip("playwright", reason="no playwright: pip install -e '.[test]'")

import checks
from playing import play, search
from serving import served
from visiting import pages_of, walk

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20" width="40" height="20">
<path d="M2 18 38 2" stroke="#222" fill="none"/></svg>"""
BLANK = PICTURE.replace("<path", "<g").replace("stroke", "class")

GOOD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>A page</title><link rel="icon" href="data:,">
<style>[data-theme=dark] body {{ background: #111; color: #eee }} [data-theme=dark] img {{ background: #fff }}
[data-theme=dark] a {{ color: #adf }} svg text {{ fill: currentColor }}</style>
<main><h1 id="top">A page</h1><p><a href="good.html#top">Here</a>, <a href="https://example.org">elsewhere</a></p>
<img src="picture.svg" alt="Error falls." width="200"><svg><text y="20" x="0">words</text></svg>{more}</main></html>"""

# What is put into a page, by the check that must find it, and a part of what the check must say.
BAD = {
    "error": (checks.complaints, '<script>console.error("oh")</script>', "oh"),
    "warning": (checks.complaints, '<script>console.warn("hm")</script>', "hm"),
    "thrown": (checks.complaints, '<script>throw new Error("no")</script>', "no"),
    "missing-script": (checks.complaints, '<script src="nowhere.js"></script>', "404"),
    "outside-script": (checks.requests, '<script src="https://cdn.example/x.js"></script>', "cdn.example/x.js"),
    "outside-picture": (checks.requests, '<img src="http://127.0.0.1:9/x.png" alt="x">', "127.0.0.1:9"),
    "outside-fetch": (checks.requests, '<script>fetch("//far.example/").catch(e => 0)</script>', "far.example"),
    "dead-link": (checks.links, '<a href="nowhere.html">there</a>', "nowhere.html, which does not exist"),
    "dead-anchor": (checks.links, '<a href="good.html#nowhere">there</a>', "where nothing has that name"),
    "dead-anchor-here": (checks.links, '<a href="#nowhere">there</a>', "where nothing has that name"),
    "twice": (checks.twice, '<p id="top">again</p>', "2 elements of the name top"),
    "no-alt": (checks.pictures, '<img src="picture.svg">', "without alt text"),
    "blank-alt": (checks.pictures, '<img src="picture.svg" alt=" ">', "without alt text"),
    "canvas-without-name": (checks.pictures, "<canvas></canvas>", "without alt text"),
    "blank-picture": (checks.pictures, '<img src="blank.svg" alt="Error falls.">', "blank.svg, which is empty"),
    "lost-picture": (checks.pictures, '<img src="lost.svg" alt="Error falls.">', "lost.svg, which is empty"),
    "empty-drawing": (checks.pictures, '<figure><svg aria-label="Error"></svg></figure>', "which is empty"),
    "dark-ground": (checks.dark, '<img src="picture.svg" alt="x" style="background: none">', "picture.svg lies on"),
    "dark-words": (checks.dark, '<svg><text y="20" style="fill: #333">words</text></svg>', "stands out by 1."),
    "dark-rim": (
        checks.dark,
        '<svg><text y="20" style="fill: #333; stroke: #222; stroke-width: 3; paint-order: stroke">words</text></svg>',
        "stands out by 1.",
    ),
    "no-label": (checks.access, '<input type="range">', "light: label (critical)"),
    "faint": (checks.access, '<p style="color: #ccc; background: #fff">words</p>', "light: color-contrast (serious)"),
    "faint-in-dark": (checks.access, '<p style="color: #222">words</p>', "dark phone: color-contrast (serious)"),
    "unfocusable": (
        checks.access,
        f'<div style="height: 40px; overflow: auto"><p>{200 * "words "}</p></div>',
        "dark phone: scrollable-region-focusable (serious)",
    ),
    "wide": (checks.width, '<p id="long" style="width: 700px">words</p>', "<p#long> words"),
    "heavy": (checks.weight, '<img src="heavy.svg" alt="Error falls.">', "weighs 2.1"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "picture.svg").write_text(PICTURE)
    (folder / "blank.svg").write_text(BLANK)
    (folder / "heavy.svg").write_text(PICTURE + "<!--" + 2_100_000 * "x" + "-->")
    (folder / "good.html").write_text(GOOD.format(more=""))
    for name, (_, more, _) in BAD.items():
        (folder / f"{name}.html").write_text(GOOD.format(more=more))
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def visits(chromium, folder, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[test]'").Axe()
    return {each.name: each for each in walk(chromium, address, pages_of(folder), axe)}


def problems(check, visits, folder, address):
    return check(visits, folder, address) if check is checks.links else check(visits)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_page_is_found_out(visits, folder, address, name):
    check, _, said = BAD[name]
    good, bad = visits["good.html"], visits[f"{name}.html"]
    assert problems(check, [good], folder, address) == []
    found = problems(check, [good, bad], folder, address)
    assert any(problem.startswith(f"{name}.html") and said in problem for problem in found), found
    assert all(problem.startswith(f"{name}.html") for problem in found)


def test_every_check_has_a_page_that_fails_it():
    assert {check for check, _, _ in BAD.values()} == {
        checks.complaints,
        checks.requests,
        checks.links,
        checks.twice,
        checks.pictures,
        checks.dark,
        checks.access,
        checks.width,
        checks.weight,
    }


def test_pages_are_weighed_with_all_that_they_load(visits, folder):
    size = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert visits["good.html"].transferred == size["good.html"] + size["picture.svg"]
    assert visits["good.html"].first_paint > 0


# ---- Figures to play with --------------------------------------------------------------------------------------

FIGURE = """<div data-interactive><label>alpha <input type="range" max="10" value="5"></label>
<p data-part="says" aria-live="polite">5</p></div><script>
document.querySelector("input").addEventListener("input", (event) => {
  document.querySelector("[data-part=says]").textContent = event.target.value; });</script>"""
DEAD = {
    "no slider": (FIGURE.replace('type="range"', 'type="text"'), "has no slider"),
    "no live region": (FIGURE.replace('aria-live="polite"', ""), "has no live region"),
    "says nothing": (FIGURE.replace("event.target.value", '"moved"'), "its keys change nothing"),
    "out of the way of the Tab key": (FIGURE.replace("<input", '<input tabindex="-1"'), "does not reach"),
    "keys alone": (FIGURE.replace("<div", '<div style="pointer-events: none"'), "the mouse changes nothing"),
    "mouse alone": (FIGURE.replace("<input", '<input onkeydown="return event.key === &quot;Tab&quot;"'), "its keys"),
}


@pytest.fixture
def page(browser):
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(("figure", "said"), DEAD.values(), ids=DEAD)
def test_a_figure_that_does_not_respond_is_found_out(page, figure, said):
    page.set_content(GOOD.format(more=FIGURE))
    assert play(page) == []
    page.set_content(GOOD.format(more=figure))
    assert any(said in problem for problem in play(page)), play(page)


def test_the_second_figure_of_a_page_is_played_with_too(page):
    page.set_content(GOOD.format(more=FIGURE + FIGURE.replace("<script>", "<!--") + "-->"))
    assert play(page) == ["figure 2: its keys change nothing", "figure 2: the mouse changes nothing"]


# ---- Search ----------------------------------------------------------------------------------------------------

BOX = """<dialog open><form action="search.html"><input type="search" name="q" aria-label="Search"></form></dialog>"""
RESULTS = """<div id="search-results"></div><script>document.querySelector("#search-results").innerHTML =
  "<h2>Search Results</h2>" + (location.search === "?q=soup" ? '<a href="glossary.html#soup">Glossary</a>' : "");
</script>"""


def test_a_search_without_result_finds_nothing(page, tmp_path):
    (tmp_path / "index.html").write_text(GOOD.format(more=BOX))
    (tmp_path / "search.html").write_text(GOOD.format(more=RESULTS))
    with served(tmp_path) as url:
        assert search(page, url, "soup") == ["glossary.html#soup"]
        assert search(page, url, "broth") == []
