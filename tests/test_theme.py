"""What the theme and its extensions write into a page is mended by the book's own templates, and the rest is left.

One small book is built twice, with the book's templates and without: what no longer is wrong without needs no mending.
"""

import os
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import anew
import named_tuples
import pytest
from tiny_book import begin, build

pytest.importorskip("sphinx_book_theme", reason="no Sphinx: pip install -e '.[book]'")

BOOK = Path(__file__).parents[1] / "book"
EXTENSIONS = [
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_book_theme",
    "sphinx_design",
    "sphinx_exercise",
    "sphinx_thebe",
    "sphinx_togglebutton",
    "sphinxcontrib.bibtex",
    "named_tuples",
    "offline_mathjax",
]
SETTINGS = """html_theme = 'sphinx_book_theme'; bibtex_bibfiles = ['all.bib']; myst_enable_extensions = ['colon_fence']
sys.path.insert(0, {folder!r}); templates_path = {templates!r}
html_theme_options = dict(show_navbar_depth=1, navbar_persistent=[])"""
PAGES = {
    "index.md": "# Book\n\n```{toctree}\nparts\nplain\n```\n",
    "parts.md": "# Whole & more\n\n```{toctree}\nexercises\napi\n```\n",
    "plain.md": "# Plain\n\nWords on `thebe`, `sphinx-design` and {cite}`a`, {cite}`b`.\n\n```{bibliography}\n```\n",
    "exercises.md": "# Exercises\n"
    + "".join(
        f"\n```{{exercise}}\n:label: e{n}\nWhat is {n}?\n```\n\n```{{solution}} e{n}\nIt is {n}.\n```\n" for n in (1, 2)
    )
    + "\n:::{card} A card\nwith words\n:::\n",
    "api.md": "# API\n\n```{eval-rst}\n"
    + "".join(
        f".. automodule:: {name}\n   :members:\n\n" for name in ("toy", "toy.inner", "toy.inner.last", "toy.other")
    )
    + "```\n",
    "all.bib": "".join(f"@misc{{{key}, author={{N. {key}}}, title={{On {key}}}, year={{2020}}}}\n" for key in "ab"),
}
MODULE = '"""A module."""\n\ndef one():\n    """Return one."""\n    return 1\n'
TUPLE = '"""A package."""\nimport typing\n\nclass Pair(typing.NamedTuple):\n    """Two."""\n    first: int\n'


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folders of the pages that the theme makes by itself, and with the book's templates."""
    return [_built(tmp_path_factory.mktemp("book"), templates) for templates in ([], [str(BOOK / "_templates")])]


def _built(folder, templates):
    settings = SETTINGS.format(folder=str(folder), templates=templates)
    source = begin(folder, EXTENSIONS, PAGES["index.md"], settings)
    for name, text in PAGES.items():
        (source / name).write_text(text)
    for name, text in {"__init__": TUPLE, "other": MODULE, "inner/__init__": MODULE, "inner/last": MODULE}.items():
        path = folder / "toy" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    code, said, out = build(source)
    assert (code, said) == (0, "")
    return out


# What is wrong, by the page where it is, and what is there instead if it is anything.
WRONG = {
    "icons as a script": ("plain", r"scripts/fontawesome\.js", None),
    "the index of the search": ("plain", r'src="[^"]*searchindex\.js', None),
    "the search": ("plain", r'src="[^"]*(searchtools|language_data)\.js', None),
    "thebe's settings": ("plain", "const THEBE_JS_URL", None),
    "thebe's other settings": ("plain", "x-thebe-config", None),
    "thebe's kernel": ("plain", "kernelName =", None),
    "thebe": ("plain", r"sphinx-thebe\.js", None),
    "thebe's styles": ("plain", r"sphinx-thebe\.css", None),
    "cards": ("plain", r"sphinx-design[\w.]*\.css", None),
    "tabs": ("plain", r"design-tabs\.js", None),
    "no mode": ("plain", r'getItem\("mode"\) \|\| "";', r'getItem\("mode"\) \|\| "auto";'),
    "no colours": ("plain", r'getItem\("theme"\) \|\| "";', r'getItem\("theme"\) \|\| \(matchMedia\("\(prefers-'),
    "an arrow alone": ("plain", "<summary>", '<summary aria-label="Parts of Whole &amp; more">'),
    "an arrow alone, of this page": ("parts", "<summary>", '<summary aria-label="Parts of Whole &amp; more">'),
    "sources out of their list": ("plain", 'role="doc-biblioentry"', 'role="listitem"'),
    "a name used by each exercise": ("exercises", 'id="exercise-content"', None),
    "a name used by each solution": ("exercises", 'id="solution-content"', None),
    "a list beside its item": ("_modules/index", r"</li>\s*<ul>", r'toy</a>\s*<ul>\s*<li><a href="toy/inner.html">'),
}


@pytest.mark.parametrize(("page", "wrong", "right"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_mended(built, page, wrong, right):
    theirs, ours = ((folder / f"{page}.html").read_text() for folder in built)
    assert re.search(wrong, theirs), "the theme has mended this itself: leave it out of book/_templates"
    assert not re.search(wrong, ours)
    if right:
        assert not re.search(right, theirs)
        assert re.search(right, ours)


def article(folder, page):
    return (folder / f"{page}.html").read_text().partition("<article")[2].partition("</article>")[0]


@pytest.mark.parametrize("page", ["index", "parts", "plain", "exercises", "api"])
def test_the_words_of_a_page_stay(built, page):
    theirs, ours = (
        re.sub(r"<script.*?</script>|<[^>]*>|\s+", " ", article(folder, page), flags=re.S) for folder in built
    )
    assert ours.split() == theirs.split() != []


def test_the_page_of_results_keeps_the_search_and_a_page_of_cards_its_styles(built):
    for folder in built:
        search = (folder / "search.html").read_text()
        assert len(re.findall(r'src="[^"]*(?:searchtools|language_data|searchindex)\.js', search)) == 3
        cards = (folder / "exercises.html").read_text()
        assert len(re.findall(r"sphinx-design[\w.]*\.css|design-tabs\.js", cards)) == 2


def test_scripts_and_styles_of_all_others_stay(built):
    def loaded(folder):
        page = (folder / "plain.html").read_text()
        return set(re.findall(r'<(?:script|link rel="stylesheet")[^>]*(?:src|href)="([^"]*)"', page))

    theirs, ours = map(loaded, built)
    assert ours < theirs
    gone = {re.sub(r"\?.*", "", name.rpartition("/")[2]) for name in theirs - ours}
    assert gone == {
        "fontawesome.js",
        "searchtools.js",
        "language_data.js",
        "searchindex.js",
        "sphinx-thebe.js",
        "sphinx-thebe.css",
        "sphinx-design.min.css",
        "design-tabs.js",
    }


def test_the_list_of_modules_is_a_tree(built):
    page = article(built[1], "_modules/index")
    assert (
        re.sub(r"\s*\n\s*|<a [^>]*>|</a>", "", page)
        .partition("</h1>")[2]
        .startswith(
            "<ul><li>toy<ul><li>toy.inner<ul><li>toy.inner.last</li></ul></li><li>toy.other</li></ul></li></ul>"
        )
    )


def test_the_check_of_pages_takes_the_mended_ones_and_no_others(built):
    theirs, ours = (
        subprocess.run(
            [sys.executable, BOOK / "tools" / "check_html.py", folder], capture_output=True, text=True
        ).stderr
        for folder in built
    )
    assert "plain.html runs an inline script that is none of the book's" in theirs
    assert ours == ""


def test_fields_of_a_named_tuple_are_left_out_and_its_methods_stay(built):
    assert 'id="toy.Pair"' in article(built[1], "api")
    assert "toy.Pair.first" not in article(built[1], "api")

    class Pair(typing.NamedTuple):
        one: int

        def both(self):
            """Return both."""

    class Own(typing.NamedTuple):
        one: int

    Own.one.__doc__ = "The first one."
    for thing, skip in ((Pair.one, True), (Pair.both, None), (Own.one, None), (Pair, None), (1, None)):
        assert named_tuples.skipped(None, "class", "x", thing, False, {}) is skip


def test_pages_of_source_that_are_older_than_what_makes_them_are_made_anew(tmp_path):
    (tmp_path / "_templates").mkdir()
    template = tmp_path / "_templates" / "page.html"
    template.touch()
    old, new = tmp_path / "_modules" / "a" / "old.html", tmp_path / "_modules" / "new.html"
    for page in (old, new):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
    os.utime(old, (0, 0))
    anew._forget_sources(SimpleNamespace(outdir=tmp_path, srcdir=tmp_path))
    assert not old.exists()
    assert new.exists()
    later = new.stat().st_mtime + 10
    os.utime(template, (later, later))
    anew._forget_sources(SimpleNamespace(outdir=tmp_path, srcdir=tmp_path))
    assert not new.exists()
