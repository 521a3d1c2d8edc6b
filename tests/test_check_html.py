"""The check of the built pages sees what it is for, and a book with a hostile notebook does not pass it."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from check_html import main, problems
from check_scripts import FIGURES, hosts, script_problems

ROOT = Path(__file__).parents[1]

GOOD = """<link rel="stylesheet" href="_static/book.css"><script src="_static/x.js"></script>
<p>A <a href="https://arxiv.org">link</a> may leave.</p><img src="a.svg" alt="Error falls."><code>{term}</code>"""


def test_a_good_page_has_no_problem():
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    "bad",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img src="https://example/x.png" alt="words">',
        '<img src="a.svg">',
        '<img src="a.svg" alt="">',
        '<img src="_images/a.svg" alt="_images/a.svg">',
        "<p>{term}`member`</p>",
        "<p>{{ gain }}</p>",
        "<p>better by nan points</p>",
        "<pre>Traceback (most recent call last):</pre>",
    ],
)
def test_a_bad_page_has_one(bad):
    assert len(problems(GOOD + bad)) == 1


# What a page may run and load

OWN = {
    **{f"figure {k}": f"<script>{figure}</script>" for k, figure in enumerate(sorted(FIGURES))},
    "data of the figure": '<script type="application/json">{"a":"alert(1)"}</script>',
    "the theme's": "<script>DOCUMENTATION_OPTIONS.pagename = 'notebooks/21_a';</script>",
    "the theme's colours": """<script>
document.documentElement.dataset.mode = localStorage.getItem("mode") || "auto";
document.documentElement.dataset.theme = localStorage.getItem("theme") ||
(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");</script>""",
    "parts of MathJax": """<script>window.MathJax = {"loader": {"load": ["input/tex", "output/chtml"]},
"options": {"processHtmlClass": "tex2jax_process|math"}}</script>""",
    "the theme's button": '<button onclick="window.print()">Print</button>',
    "the index of the search": '<script src="../searchindex.js"></script>',
    "a stamp behind a script": '<script src="../../_static/scripts/x.js?digest=55c2"></script>',
    "a picture in the page": '<img src="data:image/png;base64,iVBOR//8" alt="Error falls.">',
    "its other sizes": '<img src="a.png" srcset="a.png 1x, b.png 2x" alt="Error falls.">',
    "a style": '<style>.a { color: red; background: url("data:image/png;base64,AA") }</style>',
    "a mail": '<a href="mailto:a@example.org">write</a>',
    "an anchor": '<a href="#eq-wamlib.data:x">there</a>',
    "the form of the search": '<form action="../search.html"></form>',
    "where it is published": '<link rel="canonical" href="https://book.example/">',
    "names of XML": '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"></svg>',
    "words": '<img src="a.svg" alt="data: 5 members"><!-- <body> --><p>onclick=x, https://example.org</p>',
    "a link in TeX": r"<p>\(\href{https://example.org}{x}\)</p>",
}


@pytest.mark.parametrize("page", OWN.values(), ids=OWN)
def test_what_is_the_books_own_may_stay(page):
    assert problems(GOOD + page) == []


FOREIGN = {
    "an inline script": "<script>alert(1)</script>",
    "the figure and more": f"<script>{min(FIGURES)};alert(1)</script>",
    "the theme's and more": "<script>kernelName = 'x';alert(1)//'</script>",
    "thebe's settings": '<script>const THEBE_JS_URL = "https://unpkg.com/thebe@0.8.2/lib/index.js"</script>',
    "a part of MathJax from elsewhere": """<script>window.MathJax = {"loader": {"load": ["https://cdn.example/x"]},
"options": {"processHtmlClass": "math"}}</script>""",
    "an empty script": "<script></script>",
    "a script that looks closed": "<script/>alert(1)</script>",
    "a module": '<script type="module">import("./x.js")</script>',
    "data to begin with": '<script type="text/javascript" type="application/json">alert(1)</script>',
    "data by another name": '<script x:type="application/json">alert(1)</script>',
    "a script of the page's": '<script src="../_sources/a.txt"></script>',
    "a script behind dots": '<script src="_static/../_images/a.svg"></script>',
    "a script in the address": '<script src="data:text/javascript,alert(1)"></script>',
    "an event": '<img src="a.svg" alt="words" onerror="alert(1)">',
    "an event of the theme's element": '<button onclick="alert(1)">Print</button>',
    "an event without spaces": '<svg/onload="alert(1)"></svg>',
    "a link that runs": '<a href="javascript:alert(1)">x</a>',
    "a link that runs, in disguise": '<a href=" java&#10;script:alert(1)">x</a>',
    "a link in a picture": '<svg><a xlink:href="javascript:alert(1)"></a></svg>',
    "a link to a page in the address": '<a href="data:text/html,x">x</a>',
    "a ping": '<a href="a.html" ping="https://example.org">x</a>',
    "an address with the other slash": r'<img src="\\example.org/x.png" alt="words">',
    "an address without slashes": '<img src="https:example.org/x.png" alt="words">',
    "other sizes": '<img src="a.png" srcset="a.png 1x,//example.org/b.png 2x" alt="words">',
    "an object": '<object data="a.svg"></object>',
    "an embedded one": '<embed src="a.svg">',
    "a base": '<base href="a/">',
    "a frame": '<iframe src="a.html"></iframe>',
    "a frame with its page": '<iframe srcdoc="x"></iframe>',
    "an animated address": '<svg><a><set attributeName="href" to="a.html"/></a></svg>',
    "a form": '<form action="https://example.org"></form>',
    "a button of a form": '<button formaction="//example.org">x</button>',
    "a way elsewhere": '<meta http-equiv="Refresh" content="0; url=https://example.org">',
    "a style with an address": "<style>a { background: url(//example.org/x.png) }</style>",
    "a style that imports": '<style>@import "a.css";</style>',
    "a style in other letters": r"<style>a { background: url(\2f\2f example.org) }</style>",
    "a style that looks closed": "<style/>@import 'a.css';</style>",
    "a style without an end": "<style>@import 'a.css';",
    "a style of one element": '<p style="background: url(https://example.org/x.png)">x</p>',
    "markup in a style": '<svg><style><img src="x" alt="words"></style></svg>',
    "a prefetch": '<link rel="canonical prefetch" href="https://example.org">',
    "a rel that excuses nothing": '<img rel="canonical" src="https://example.org" alt="words">',
    "a piece that the theme would fetch": '<div data-pst-announcement-url="https://example.org/x.html"></div>',
    "a button that loads thebe": '<button class="btn thebe-launch-button">x</button>',
    "a link that runs, in TeX": r"<p>\(\href{javascript:alert(1)}{x}\)</p>",
    "a style in TeX": r"<p>\(\style{background:url(x)}{x}\)</p>",
    "a comment that ends early": "<!--><p>x</p>-->",
    "a comment that ends otherwise": "<!-- --!><p>x</p>-->",
    "a null character": '<x\0 onerror="alert(1)">',
    "a marked section": "<![CDATA[ ><p>x</p> ]]>",
}


@pytest.mark.parametrize("page", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_is_one_problem(page):
    assert len(problems(GOOD + page)) == 1


SVG = '<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "a" "http://www.w3.org/a.dtd">\n<svg><use xlink:href="#a"/></svg>\n'


@pytest.mark.parametrize(
    "bad",
    [
        SVG.replace("<use", "<script>alert(1)</script><use"),
        SVG.replace("<use", "<x:script>alert(1)</x:script><use"),
        SVG.replace("#a", "https://example.org/a.svg#a"),
        SVG.replace("<svg>", '<svg onload="alert(1)">'),
        SVG.replace("<svg>", '<?xml-stylesheet href="a.css"?><svg>'),
        SVG.replace(' PUBLIC "a" "http://www.w3.org/a.dtd"', ' [<!ENTITY a "x">]'),
    ],
)
def test_a_picture_that_runs_or_loads_is_one_problem_and_one_that_does_not_is_none(bad):
    assert len(script_problems(bad)) == 1
    assert script_problems(SVG) == []


def test_the_servers_that_a_script_names_are_found():
    assert hosts('a="https://b.example/x.js";c="wss://d.example";// e.example') == ["b.example", "d.example"]


# Folders


def test_every_kind_of_file_is_looked_at(tmp_path, capsys):
    inert = "// see https://github.com/a"
    for name, content in {
        "index.html": GOOD,
        "_static/a.js": inert,
        "_static/macros.html": "<script>a</script>",
        "_images/a.svg": SVG,
        "_modules/a.html": "<p>{term}`a`</p>",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert main(tmp_path) == 0
    (tmp_path / "_static" / "a.js").write_text(inert + "\nfetch('https://cdn.example/x')")
    (tmp_path / "_images" / "a.svg").write_text(SVG.replace("<use", "<script/><use"))
    (tmp_path / "_modules" / "a.html").write_text("<script>a</script>")
    assert main(tmp_path) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("cannot publish the book: ").split()[0] for line in said] == [
        "_images/a.svg",
        "_modules/a.html",
        "_static/a.js",
    ]
    assert "cdn.example" in said[2]


def test_a_folder_without_pages_is_no_good_book(tmp_path, capsys):
    assert main(tmp_path) == 2
    assert "got no index.html, wanted the built pages. Run `make book` first." in capsys.readouterr().err


# A book that is built


def build(folder, outputs):
    """Build a book of one page, in the style of the real one, whose one cell has these outputs; return its HTML."""
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
    del config["sphinx"]["local_extensions"]["findings"]  # the numbers of the chapters, of which there are none
    for name in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "book" / "references.bib", folder)
    (folder / "_config.yml").write_text(yaml.safe_dump(config))
    (folder / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    cell = nbformat.v4.new_code_cell("show()", execution_count=1, outputs=outputs)
    cell.metadata["mystnb"] = {"image": {"alt": "A picture."}}
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A page\n\n$x$"), cell])
    page.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "python"},
    }
    nbformat.write(page, folder / "index.ipynb")
    command = [Path(sys.executable).parent / "jupyter-book", "build", folder, "-W", "--keep-going", "-q"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


def shown(kind, content):
    return nbformat.v4.new_output("display_data", {kind: content})


def checked(folder):
    command = [sys.executable, str(ROOT / "book" / "tools" / "check_html.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.slow
def test_a_book_with_a_hostile_notebook_is_refused(tmp_path):
    hostile = [
        shown("text/html", '<script src="https://cdn.example/x.js"></script>'),
        shown("text/html", "</div></div></div><script>alert('inline')</script>"),
        shown("text/html", '<img src="x" alt="words" onerror="alert(1)">'),
        shown("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"><script>alert("svg")</script></svg>'),
        shown("application/javascript", "alert('javascript')"),
    ]
    code, said = checked(build(tmp_path, hostile))
    assert code == 1
    assert all(line.startswith("cannot publish the book: ") for line in said)
    for words in (
        "index.html loads https://cdn.example/x.js",
        "alert('inline')",
        "attribute onerror of <img>",
        'alert("svg")',
        "alert('javascript')",
    ):
        assert sum(words in line for line in said) == 1, said
    assert len(said) == 5


@pytest.mark.slow
def test_the_same_book_with_harmless_outputs_passes(tmp_path):
    harmless = [
        shown("text/html", "<table><tr><td>1</td></tr></table>"),
        shown("text/html", f"<p>x</p><script>{min(FIGURES)}</script>"),
        shown("text/html", '<img src="data:image/png;base64,iVBORw0KGgo=" alt="words">'),
        shown("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"><path d="M 0 0"/></svg>'),
    ]
    assert checked(build(tmp_path, harmless)) == (0, [])
