"""The built book in a browser: each page is visited once, and each test asks one thing of all of them.

`make browser` runs these on book/_build/html; WAMLIB_HTML=FOLDER takes the pages of another folder.
"""

import os
import statistics
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="no playwright: pip install -e '.[test]'")

import checks
from playing import play, search
from serving import served
from visiting import ALL, PATIENCE, pages_of, walk

ROOT = Path(__file__).parents[2]
BUILT = Path(os.environ.get("WAMLIB_HTML") or ROOT / "book" / "_build" / "html")


@pytest.fixture(scope="module")
def address():
    if not (BUILT / "index.html").is_file():
        pytest.skip(f"no built book in {BUILT}: run `make book` (or `make smoke`) first")
    with served(BUILT) as url:
        yield url


@pytest.fixture(scope="module")
def visits(chromium, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[test]'").Axe()
    pages = pages_of(BUILT)
    return walk(chromium, address, pages, axe, lambda name: asked_of(name, pages))


def asked_of(name, pages):
    """Return what axe looks at on a page.

    Contrast takes it seconds a page, and pages of one folder have their colours from the same styles: it is looked at
    on every page of prose, in the dark on the first of each folder. Pages of source code are made by one template.
    """
    folder, inside, _ = name.partition("/")
    if not inside or name == next(page for page in pages if page.startswith(f"{folder}/")):
        return ALL
    return {"notebooks": ("rules", "light"), "_modules": ()}.get(folder, ("rules",))


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1300, "height": 900})
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def test_the_walk_has_seen_the_book(visits):
    names = {each.name for each in visits}
    chapters = {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names >= {"index.html", "glossary.html", "claims.html", "search.html", "api/merge.html"} | chapters
    assert sum(len(each.pictures) for each in visits) > len(chapters)
    assert sum(len(each.links) for each in visits) > 1000


@pytest.mark.parametrize(
    "check",
    [checks.complaints, checks.requests, checks.twice, checks.pictures, checks.dark, checks.access, checks.width],
    ids=lambda check: check.__name__,
)
def test_no_page_fails_in(visits, check):
    assert check(visits) == []


def test_each_link_inside_the_book_arrives(visits, address):
    assert checks.links(visits, BUILT, address) == []


def test_no_page_is_heavy(visits):
    print("".join(f"\n{each.transferred / 1e6:5.2f} MB  {each.name}" for each in sorted(visits, key=_bytes)[-8:]))
    assert checks.weight(visits) == []


def _bytes(each):
    return each.transferred


def test_each_page_paints(visits):
    # How soon is printed and measured by benchmarks/reading.py; a loaded machine is no failure.
    paints = sorted((each.first_paint, each.name) for each in visits)
    print(f"\nfirst paint: median {statistics.median(t for t, _ in paints):.0f} ms, last {paints[-1]}")
    assert paints[0][0] > 0, paints[0][1]


@pytest.mark.parametrize("name", ["index.html", "notebooks/21_templates_of_soups.html", "api/merge.html"])
def test_pages_open_from_disk(page, name, address):
    folder, complaints = BUILT.resolve().as_uri() + "/", []
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto(folder + name, wait_until="load")
    assert page.locator("article h1").first.is_visible()
    assert complaints == []


def test_interactive_figures_follow_keys_and_mouse(visits, page, address):
    names = [each.name for each in visits if each.interactive]
    played = ("21_templates_of_soups", "31_how_many", "32_between", "40_magnitude")
    assert {f"notebooks/{name}.html" for name in played} <= set(names)
    for name in names:
        page.goto(address + name)
        assert play(page) == [], name


@pytest.mark.parametrize("word", ["barrier", "recalibrate", "soup"])
def test_search_finds_the_glossary(page, address, word):
    assert "glossary.html" in search(page, address, word)
