"""Print the built book as one PDF: ``pdf.py [HTML [OUT.pdf]]``; by default book/_build/pdf/book.pdf.

The articles of the built pages are put behind each other in the order of _toc.yml, with links between pages turned into
links within the document, and Chromium prints that. So what is printed is what was built, and nothing is built twice.
"""

import os
import re
import shutil
import sys
import time
from html import escape
from pathlib import Path
from urllib.parse import unquote

import yaml
from bs4 import BeautifulSoup

from wamlib.errors import ConfigError, WamlibError

BOOK = Path(__file__).parents[1]
STYLE = Path(__file__).with_name("pdf.css")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Nothing to click on paper. Of an interactive figure its static picture stays.
LEFT_OUT = (
    "script, noscript, .headerlink, button, details.above-input, [data-part=live], .live-figure > style, .downloads, "
    ".toctree-wrapper"
)
FOOTER = """<div style="width: 100%; font: 8px sans-serif; color: #666; padding: 0 16mm; display: flex;
justify-content: space-between"><span class="title"></span><span class="pageNumber"></span></div>"""


def pages(toc):
    """Return the pages of a table of contents in order, each with its level, and parts as (caption, 1)."""
    found = [(toc["root"], None, 1)]
    for part in toc["parts"]:
        found.append((None, part["caption"], 1))
        found += _below(part["chapters"], 2)
    return found


def _below(entries, level):
    return [
        row
        for entry in entries
        for row in [(entry["file"], None, level), *_below(entry.get("sections", []), level + 1)]
    ]


def compose(html, rows):
    """Return the whole book as one page of HTML, to lie in a folder beside ``html``."""
    soup = BeautifulSoup((html / "index.html").read_text("utf-8"), "html.parser")
    known = {name for name, _, _ in rows if name}
    parts, contents, math = [], [], ""
    for name, caption, level in rows:
        if caption:
            anchor = _anchor("part", caption)
            parts.append(f'<section class="part"><h1 id="{anchor}">{escape(caption)}</h1></section>')
            contents.append((caption, anchor, 1))
            continue
        page = BeautifulSoup((html / f"{name}.html").read_text("utf-8"), "html.parser")
        article, math = page.select_one("article.bd-article"), math or _math(page)
        title = article.find("h1").get_text().rstrip("#").strip()
        _prepare(article, name, known, level)
        anchor = _anchor(name, "")
        parts.append(f'<section class="page" id="{anchor}">{article.decode_contents()}</section>')
        if level > 1:
            contents.append((title, anchor, level))
    head = "".join(str(link) for link in soup.select("link[rel=stylesheet]"))
    head = re.sub(r'href="(?!http)', 'href="../html/', head)
    line = '<li class="level-{2}"><a href="#{1}">{0}</a></li>'
    lines = "".join(line.format(escape(title), anchor, level) for title, anchor, level in contents)
    title = escape(soup.find("h1").get_text().rstrip("#").strip())
    first, rest = parts[0], "".join(parts[1:])
    return f"""<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>{title}</title>{head}
<style>{STYLE.read_text()}</style>{math}
</head><body><main class="bd-content"><article class="bd-article">
<section class="title"><p class="title-name">{title}</p><p>The wamlib authors</p>
<p>The book as printed pages. Interactive figures stand still here, and folded code is left out: chapters can be had
whole as notebooks.</p><p>Code: MIT. Text and figures: CC BY 4.0.</p></section>
<section class="contents"><p class="contents-name">Contents</p><ul>{lines}</ul></section>{first}{rest}
</article></main></body></html>"""


def _math(page):
    """Return the scripts by which a page sets its formulas, if it has any; those of the theme are not needed."""
    source = page.select_one('script[src*="mathjax"]')
    if source is None:
        return ""
    settings = [str(tag) for tag in page.find_all("script") if tag.string and "window.MathJax" in tag.string]
    return "".join(settings) + f'<script src="../html/{source["src"].removeprefix("../")}"></script>'


def _anchor(page, fragment):
    return re.sub(r"[^\w.-]", "-", f"{page}--{fragment}")


def _prepare(article, name, known, level):
    """Make one page fit into the whole: names of its own, links within, headings a step down, and all of it open."""
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for tag in article.select("details"):
        tag["open"] = ""
    for tag in article.find_all(re.compile("^h[1-6]$")):
        tag.name = f"h{min(6, int(tag.name[1]) + level - 1)}"
    folder = os.path.dirname(name)
    for tag in article.find_all(id=True):
        tag["id"] = _anchor(name, tag["id"])
    for tag in article.select("[src]"):
        if not re.match(r"data:|https?:", tag["src"]):
            tag["src"] = "../html/" + os.path.normpath(os.path.join(folder, tag["src"]))
    for tag in article.select("a[href]"):
        address, _, fragment = tag["href"].partition("#")
        if re.match(r"[a-z]+:", address):
            continue
        target = os.path.normpath(os.path.join(folder, address)).removesuffix(".html") if address else name
        if target in known:
            tag["href"] = "#" + _anchor(target, unquote(fragment))
        else:  # source code, downloads, the search: not part of the print
            tag.unwrap()


def print_pages(page, out):
    """Print a page of HTML with Chromium, when its formulas are set and its tables fit."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        raise ConfigError(
            "cannot print the book",
            item=" or ".join(BROWSERS),
            got="no such program, or no Python package playwright",
            wanted="both",
            fix="Install Chromium (apt-get install chromium), and playwright by `make setup`.",
        )
    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            tab = browser.new_page(viewport={"width": 680, "height": 960})  # what A4 leaves between the margins
            tab.set_default_timeout(0)
            tab.emulate_media(media="print")
            tab.goto(page.as_uri(), wait_until="load")
            tab.evaluate("() => window.MathJax?.startup.promise")
            tab.evaluate(FIT)
            tab.pdf(
                path=out,
                format="A4",
                print_background=True,
                outline=True,
                tagged=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                margin={"top": "16mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
            )
        finally:
            browser.close()


# A table, or a formula, that is wider than the page is made smaller until it fits; nothing is cut off.
FIT = """() => {
  for (const it of document.querySelectorAll("table, mjx-container[display=true]")) {
    const room = it.parentElement.clientWidth, width = it.scrollWidth;
    if (room && width > room) it.style.zoom = Math.max(0.35, room / width * 0.99);
  }
}"""


def main(html=BOOK / "_build" / "html", out=BOOK / "_build" / "pdf" / "book.pdf"):
    html, out, begin = Path(html).absolute(), Path(out).absolute(), time.perf_counter()
    if not (html / "index.html").is_file():
        raise ConfigError(
            "cannot print the book",
            item=str(html),
            got="no index.html",
            wanted="the built pages",
            fix="Run `make book` first.",
        )
    rows = pages(yaml.safe_load((BOOK / "_toc.yml").read_text()))
    if missing := [name for name, _, _ in rows if name and not (html / f"{name}.html").is_file()]:
        raise ConfigError(
            "cannot print the book",
            item=missing[0],
            got="no built page",
            wanted="every page of _toc.yml",
            fix="Run `make book` first.",
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = html.parent / "pdf"
    folder.mkdir(exist_ok=True)
    page, part = folder / "book.html", out.with_name(f".{out.name}.part")
    page.write_text(compose(html, rows), "utf-8")
    try:
        print_pages(page, part)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    print(f"{os.path.relpath(out)}: {out.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except WamlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
