"""Check the built pages: nothing from another server, no raw role, no image without words, no error in an output.

``check_html.py [FOLDER]``; the folder of the book is the default.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from check_scripts import hosts, script_problems

BUILT = Path(__file__).parents[1] / "_build" / "html"
# Roles and substitutions that were not resolved, and numbers that are none.
RAW = re.compile(r"\{(glue:?\w*|term|ref|numref|eq|cite|doc|py:\w+)\}|\{\{|\bnan\b")
# Servers that the theme's files name: in comments, as names of XML dialects, as links, and as the home of parts of
# MathJax and thebe that no page of this book starts.
NAMED = {
    "cdn.jsdelivr.net",
    "clipboardjs.com",
    "developer.mozilla.org",
    "github.com",
    "pydata-sphinx-theme.readthedocs.io",
    "www.apache.org",
    "www.mathjax.org",
    "www.w3.org",
}


class Page(HTMLParser):
    """Collects what is wrong with the words and pictures of one page."""

    def __init__(self):
        super().__init__()
        self.problems, self.code = [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        address, alt = attributes.get("src") or "", attributes.get("alt") or ""
        if tag == "img" and not alt.strip():
            self.problems.append(f"image {address[:60]} has no alt text")
        if tag == "img" and re.fullmatch(r"[\w./-]+\.(svg|png)", alt):
            self.problems.append(f"image {address[:60]} has its file name for alt text")
        self.code += tag in ("code", "pre", "script", "style")

    def handle_endtag(self, tag):
        self.code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, text):
        if not self.code and (raw := RAW.search(text)):
            self.problems.append(f"shows {raw[0]!r} in {text.strip()[:60]!r}")
        if "Traceback (most recent call last)" in text:
            self.problems.append("shows a traceback")


def problems(html):
    """Return what is wrong with a page, as a list of sentences."""
    page = Page()
    page.feed(html)
    return page.problems + script_problems(html)


def problems_of_file(path, parts):
    """Return what is wrong with one file of the book; ``parts`` are those of its path inside it."""
    text = path.read_text("utf-8")
    if "_static" in parts:  # what the theme brings; its pieces of HTML are templates that no page shows
        if path.suffix != ".js":
            return []
        return [f"names the server {host}, which is not known to be inert" for host in hosts(text) if host not in NAMED]
    if path.suffix == ".html":
        # Source code may show whatever it likes.
        return script_problems(text) if "_modules" in parts else problems(text)
    return script_problems(text) if path.suffix == ".svg" else []


def main(folder=BUILT):
    folder, found = Path(folder), []
    if not (folder / "index.html").is_file():
        print(
            f"cannot check the book: {folder}: got no index.html, wanted the built pages. Run `make book` first.",
            file=sys.stderr,
        )
        return 2
    for path in sorted(path for path in folder.rglob("*.*") if path.suffix in (".html", ".js", ".svg")):
        inside = path.relative_to(folder)
        found += [f"{inside} {problem}" for problem in problems_of_file(path, inside.parts)]
    for problem in found:
        print(f"cannot publish the book: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
