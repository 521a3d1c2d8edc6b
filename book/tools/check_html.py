"""Check the built pages: nothing from another server, no raw role, no image without words, no error in an output."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

BUILT = Path(__file__).parents[1] / "_build" / "html"
# Roles and substitutions that were not resolved, and numbers that are none.
RAW = re.compile(r"\{(glue:?\w*|term|ref|numref|eq|cite|doc|py:\w+)\}|\{\{|\bnan\b")


class Page(HTMLParser):
    """Collects what is wrong with one page."""

    def __init__(self):
        super().__init__()
        self.problems, self.code = [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        loaded = {"script": "src", "img": "src", "iframe": "src", "link": "href"}.get(tag)
        address = attributes.get(loaded) or ""
        if re.match(r"(https?:)?//", address) and attributes.get("rel") != "canonical":
            self.problems.append(f"loads {address} from another server")
        if tag == "img" and not attributes.get("alt", "").strip():
            self.problems.append(f"image {address} has no alt text")
        if tag == "img" and re.fullmatch(r"[\w./-]+\.(svg|png)", attributes.get("alt", "")):
            self.problems.append(f"image {address} has its file name for alt text")
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
    return page.problems


def main():
    found = [
        f"{path.relative_to(BUILT)} {problem}"
        for path in sorted(BUILT.rglob("*.html"))
        if not {"_static", "_modules"} & set(path.relative_to(BUILT).parts)
        for problem in problems(path.read_text())
    ]
    for problem in found:
        print(f"cannot publish the book: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
