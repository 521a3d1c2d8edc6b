"""What the theme writes is mended, and nothing else is touched."""

import os
import typing
from pathlib import Path
from types import SimpleNamespace

import pytest

EXTENSIONS = Path(__file__).parents[1] / "book" / "_ext"
mended = pytest.importorskip("mended", reason="no Sphinx: pip install -e '.[book]'")

GOOD = """<head><script src="../_static/doctools.js?v=1"></script><script>let a = 1;</script></head>
<p id="one">A word on searchindex.js, thebe and <code>kernelName = 'x'</code></p>
<script>let id = '<p id="one">';</script>
<a class="reference internal" href="x.html">Chapter</a><div id="two"></div><details><summary>More</summary></details>"""

BAD = {
    "icons as a script": ('<script defer src="../_static/scripts/fontawesome.js?digest=55c2"></script>', ""),
    "the index of the search": ('<script src="../searchindex.js"></script>', ""),
    "the search": ('<script src="_static/searchtools.js"></script>', ""),
    "words of the search": ('<script src="_static/language_data.js?v=1"></script>', ""),
    "thebe's settings": ('<script>const THEBE_JS_URL = "https://a.example/x.js"; const b = ".c"</script>', ""),
    "thebe's other settings": ('<script type="text/x-thebe-config">\n{ a: 1 }\n</script>', ""),
    "thebe's kernel": ("<script>kernelName = 'python3'</script>", ""),
    "thebe": ('<script async="async" src="_static/sphinx-thebe.js?v=c1"></script>', ""),
    "thebe's styles": ('<link rel="stylesheet" type="text/css" href="_static/sphinx-thebe.css?v=4f" />', ""),
    "no colours": (
        '<script>d.dataset.mode = localStorage.getItem("mode") || "";</script>',
        '<script>d.dataset.mode = localStorage.getItem("mode") || "auto";</script>',
    ),
    "an arrow alone": (
        '<a class="reference internal" href="a.html">API</a><details><summary><span>v</span></summary></details>',
        '<a class="reference internal" href="a.html">API</a><details><summary aria-label="Parts of API"><span>v</span>'
        "</summary></details>",
    ),
    "an arrow alone, of this page": (
        '<a class="current reference internal" href="#">API</a><details><summary><i></i></summary></details>',
        '<a class="current reference internal" href="#">API</a><details><summary aria-label="Parts of API"><i></i>'
        "</summary></details>",
    ),
    "a source out of its list": ('<div id="a" role="doc-biblioentry">', '<div id="a" role="listitem">'),
    "a name used twice": ('<section class="a" id="one">', '<section class="a" >'),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "good"), BAD.values(), ids=BAD)
def test_what_is_bad_is_mended_and_the_rest_is_left(bad, good):
    assert mended.mend(GOOD, "a") == GOOD
    assert mended.mend(GOOD + bad, "a") == GOOD + good
    assert mended.mend(GOOD + good, "a") == GOOD + good


def test_the_page_of_results_keeps_the_search():
    search = "".join(bad for name, (bad, _) in BAD.items() if "search" in name)
    assert search.count("<script") == 3
    assert mended.mend(GOOD + search, "search") == GOOD + search
    assert mended.mend(GOOD + search, "index") == GOOD


def test_a_page_begins_in_the_theme_of_the_system():
    theme = '<script>document.documentElement.dataset.theme = localStorage.getItem("theme") || "";</script>'
    assert 'matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"' in mended.mend(theme, "a")
    chosen = theme.replace('|| ""', '|| "dark"')  # by the book's settings
    assert mended.mend(chosen, "a") == chosen


def test_pages_of_source_that_are_older_than_the_mends_are_made_anew(tmp_path):
    old, new = tmp_path / "_modules" / "a" / "old.html", tmp_path / "_modules" / "new.html"
    for page in (old, new):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
    os.utime(old, (0, 0))
    mended._forget_sources(SimpleNamespace(outdir=tmp_path, srcdir=tmp_path))
    assert not old.exists()
    assert new.exists()


def test_fields_of_a_named_tuple_are_left_out_and_its_methods_stay():
    class Pair(typing.NamedTuple):
        one: int

        def both(self):
            """Return both."""

    class Own(typing.NamedTuple):
        one: int

    Own.one.__doc__ = "The first one."
    for thing, skip in ((Pair.one, True), (Pair.both, None), (Own.one, None), (Pair, None), (1, None)):
        assert mended.skipped(None, "class", "x", thing, False, {}) is skip


def test_modules_of_a_package_are_listed_in_its_item():
    # As sphinx.ext.viewcode writes it.
    listed = "<h1>All modules for which code is available</h1>\n<ul><li>a</li>\n<ul><li>a.b</li>\n<ul><li>a.b.c</li>\n"
    listed += "</ul></ul><li>d</li>\n</ul>"
    page = mended.mend(GOOD + listed, "_modules/index").removeprefix(GOOD)
    assert page.split("\n", 1)[1].replace("\n", "") == (
        "<ul><li>a<ul><li>a.b<ul><li>a.b.c</li></ul></li></ul></li><li>d</li></ul>"
    )
    assert mended.mend(GOOD + listed, "_modules/a") == GOOD + listed
    assert mended.mend(GOOD, "_modules/index") == GOOD


def test_styles_of_cards_stay_where_there_are_cards():
    styles = '<link rel="stylesheet" href="_static/sphinx-design.min.css?v=1" />'
    styles += '\n<script src="_static/design-tabs.js"></script>'
    cards = styles + '<div class="sd-card a">'
    assert mended.mend(styles, "a").strip() == ""
    assert mended.mend(cards, "a") == cards
