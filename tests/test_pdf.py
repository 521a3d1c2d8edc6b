"""The book as one PDF: composed of the built pages, and printed by a real Chromium where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pdf
import pytest
import yaml

from wamlib.errors import ConfigError

BOOK = Path(__file__).parents[1] / "book"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text())
PAGE = """<html><head><title>{title} — Book</title><link rel="stylesheet" href="{up}_static/x.css">
<script>window.MathJax = {{}}</script>
<script defer src="{up}_static/mathjax/startup.js?v=1"></script></head>
<body><article class="bd-article"><section id="top">
<h1>{title}<a class="headerlink" href="#top">#</a></h1>{body}</section></article></body></html>"""
ROWS = [("index", None, 1), (None, "Part one", 1), ("notebooks/a", None, 2), ("api", None, 2)]
LONG = "Is it so that a title which is longer than the width of the page keeps its spaces in the outline?"
BODY = """<p id="here">See <a href="../api.html#top">the library</a>, <a href="../_modules/x.html">its source</a>.</p>
<details class="above-input"><summary>Show code</summary>secret = 1</details>
<details><summary>Solution</summary><p>Because it is open.</p></details>
<div class="live-figure"><div data-part="static" hidden><img alt="x" src="data:image/png;base64,"></div>
<div data-part="live">Move the slider</div><script>1</script></div><img src="../_images/a.svg" alt="a picture">
<table><tr>{cells}</tr></table>""".replace("{cells}", "<td>0123456789012345</td>" * 20 + "<td>lastcell</td>")


@pytest.fixture
def built(tmp_path):
    html = tmp_path / "html"
    back = '<p>Back to <a href="notebooks/a.html#here">a</a>.</p>'
    words = [("index", "The book", ""), ("notebooks/a", LONG, BODY), ("api", "The library", back)]
    for name, title, body in words:
        path = html / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE.format(title=title, body=body, up="../" * name.count("/")))
    math = html / "_static" / "mathjax"
    math.mkdir(parents=True)
    (math / "startup.js").write_text("window.MathJax = {startup: {promise: Promise.resolve()}}")
    return html


def test_pages_stand_in_the_order_of_the_table_of_contents_with_their_parts():
    rows = pdf.pages(TOC)
    names = [name for name, _, _ in rows if name]
    assert names == ["index", *re.findall(r"file: (\S+)", (BOOK / "_toc.yml").read_text())]
    assert [caption for _, caption, _ in rows if caption] == [part["caption"] for part in TOC["parts"]]


def test_links_lead_within_the_document_and_what_moves_is_left_out(built):
    page = pdf.compose(built, ROWS)
    anchors, targets = re.findall(r' id="([^"]+)"', page), re.findall(r'href="#([^"]*)"', page)
    assert len(anchors) == len(set(anchors))
    assert len(targets) >= 5
    assert set(targets) <= set(anchors)
    assert not re.search(r'href="[^"#]*\.html', page)
    assert 'src="../html/_images/a.svg"' in page
    assert page.count('src="../html/_static/mathjax/startup.js?v=1"') == 1
    assert "Because it is open." in page
    assert "<details open" in page
    for gone in ("secret = 1", "Move the slider", "headerlink"):
        assert gone not in page
    assert "data:image/png" in page


def test_a_link_to_nowhere_would_be_seen(built):
    text = (built / "api.html").read_text()
    (built / "api.html").write_text(text.replace("a.html#here", "a.html#gone"))
    page = pdf.compose(built, ROWS)
    assert not set(re.findall(r'href="#([^"]*)"', page)) <= set(re.findall(r' id="([^"]+)"', page))


@pytest.fixture
def printer():
    for program in ("pdftotext", "pdftohtml"):
        if not shutil.which(program):
            pytest.skip(f"no {program} on this machine: apt-get install poppler-utils")
    if not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("no browser to print with: install Chromium (apt-get install chromium)")


def text_of(path):
    return subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True).stdout


def outline_of(path):
    words = ["pdftohtml", "-xml", "-i", "-stdout", path]
    return re.findall(r"<item[^>]*>(.*?)</item>", subprocess.run(words, capture_output=True, text=True).stdout)


@pytest.mark.slow
def test_a_print_has_an_outline_page_numbers_and_all_of_a_wide_table(built, tmp_path, printer):
    page, out = tmp_path / "pdf" / "book.html", tmp_path / "pdf" / "book.pdf"
    page.parent.mkdir()
    page.write_text(pdf.compose(built, ROWS))
    pdf.print_pages(page, out)
    assert outline_of(out) == ["The book", "Part one", LONG, "The library"]
    text = text_of(out)
    assert all(words in text for words in ("Because it is open.", "lastcell", "Contents", "The wamlib authors"))
    assert "Move the slider" not in text
    numbers = [text_of_page.split()[-1] for text_of_page in text.split("\f")[:-1]]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("missing", ["index.html", "notebooks/00_quickstart.html"])
def test_a_book_that_is_not_built_is_refused(built, missing, tmp_path):
    (built / "index.html").unlink() if missing == "index.html" else None
    with pytest.raises(ConfigError, match="Run `make book` first"):
        pdf.main(built, tmp_path / "book.pdf")
    assert not list(tmp_path.glob("*.pdf*"))


def test_without_chromium_the_error_says_what_to_install(built, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="apt-get install chromium"):
        pdf.print_pages(built / "index.html", tmp_path / "book.pdf")


def test_the_printed_book_has_every_chapter_and_no_raw_role(printer):
    out, html = BOOK / "_build" / "pdf" / "book.pdf", BOOK / "_build" / "html" / "index.html"
    if not out.is_file() or not html.is_file() or out.stat().st_mtime < html.stat().st_mtime:
        pytest.skip("no print of the book as it is built: run `make pdf`")
    text, outline = " ".join(text_of(out).split()), outline_of(out)
    chapters = (BOOK.parent / "notebooks" / "text").glob("*.md")
    titles = [re.search(r"^# (.+)", path.read_text(), re.M)[1] for path in chapters]
    assert [title for title in titles if title not in text] == []
    assert [title for title in titles if title not in outline] == []
    assert re.findall(r"\{(?:glue:?\w*|term|ref|numref|eq|cite|doc)\}`", text) == []
