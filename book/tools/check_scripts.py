"""What a page may run and load: the theme's own scripts, the package's figures, and nothing from another server."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["hosts", "script_problems"]

FOLDER = Path(__file__).parents[2] / "wamlib"
# As wamlib.plot.interactive.fragment puts them together; to import it would load matplotlib.
SOURCES = {path.stem: path.read_text("utf-8") for path in FOLDER.rglob("*.js")}
FIGURES = {f'(() => {{\n"use strict";\n{SOURCES["fragment"]}{text}}})();' for text in SOURCES.values()}
# Inline scripts of the theme and its extensions, as _ext/mended.py leaves them: word for word, but for settings. They
# are named, not found by where they stand: an output may close the element it is in.
THEME = re.compile(
    "|".join(
        [
            r"document\.documentElement\.dataset\.mode = localStorage\.getItem\(\"mode\"\) \|\| \"auto\"; "
            r"document\.documentElement\.dataset\.theme = localStorage\.getItem\(\"theme\"\) \|\| "
            r"\(matchMedia\(\"\(prefers-color-scheme: dark\)\"\)\.matches \? \"dark\" : \"light\"\);",
            r"DOCUMENTATION_OPTIONS\.(pagename = '[\w./-]*'|search_as_you_type = (true|false));",
            r"(var togglebuttonSelector|let toggle(HintShow|HintHide|OpenOnPrint)) = '[\w .,-]*';",
            r"window\.MathJax = \{\"loader\": \{\"load\": \[[\w/\", -]*\]\}, "
            r"\"options\": \{\"processHtmlClass\": \"[\w|]*\"\}\}",
            r"// Activate the search field on page load let searchInput = "
            r"document\.querySelector\(\"form\.bd-search input\"\); if \(searchInput\) \{ searchInput\.focus\(\); "
            r"searchInput\.select\(\); console\.log\(\"\[PST\]: Set focus on search field\.\"\); \}",
        ]
    )
)
EVENTS = {("button", "onclick", "toggleFullScreen()"), ("button", "onclick", "window.print()")}
DATA = {"application/json"}  # a type of script elements that no browser runs
OWN = re.compile(r"(\.\./)*(_static/(?!.*\.\.)[\w./-]+|searchindex\.js)(\?[\w=.-]*)?")

# Elements that hold other documents or move addresses; the book has none of them.
FORBIDDEN = {"animate", "applet", "base", "embed", "foreignobject", "frame", "frameset", "iframe", "object", "set"}
# Addresses that leave the book, once whitespace is taken out as a browser does. Pictures may be in the page.
PICTURE = r"data:image/(png|jpeg|gif|webp)[;,]"
FOREIGN = re.compile(rf"(?!{PICTURE})(//|(https?|ftp|wss?|file|blob|data|\w+script|about):)", re.I)
LINK = re.compile(r"(https?:|mailto:|//|(?![\w+.-]*:))", re.I)  # where a reader may be sent who clicks
CSS_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)")
# Attributes that hold words, or names that look like addresses.
WORDS = {"alt", "aria-label", "content", "id", "name", "placeholder", "resource", "title", "value"}
# A button of this class loads thebe from the address that the theme's inline script names; without one it is inert.
LAUNCHER = "thebe-launch-button"
# What MathJax makes links and styles of.
TEX = re.compile(r"\\(href(?!\{https?:)|style\b|mmlToken\b)")


def script_problems(page):
    """Return what a page, or an SVG picture, runs or loads that it must not, as a list of sentences."""
    parser = Scripts()
    if "\0" in page:  # which ends a name for Python and not for a browser
        parser.problems.append("holds a null character")
    try:
        parser.feed(page)
        parser.close()
        if parser.open:  # a style needs no end tag to be read
            parser.handle_data(parser.rawdata)
            parser.handle_endtag(parser.open[0])
    except AssertionError as error:  # of the parser, about a malformed declaration
        parser.problems.append(f"cannot be parsed ({error})")
    return parser.problems


def hosts(script):
    """Return the servers that the text of a script names."""
    return sorted(set(re.findall(r"\b(?:https?|wss?)://([\w.-]+)", script)))


class Scripts(HTMLParser):
    """Collects what a page runs or loads.

    Python's parser is not a browser's. What the two may read differently (comments, declarations and style elements
    that hold markup) is refused, so that nothing is hidden there.
    """

    def __init__(self):
        super().__init__()
        self.problems = []
        self.open, self.text = None, ""

    def handle_starttag(self, tag, attributes):
        attributes = [(name, value or "") for name, value in attributes if not name.startswith("xmlns")]
        # What excuses needs the plain name, and to come first if it is there twice; what is refused may have a prefix.
        first, tag = dict(reversed(attributes)), _local(tag)
        if tag in FORBIDDEN:
            self.problems.append(f"holds an element <{tag}>")
        if tag == "meta" and first.get("http-equiv", "").strip().lower() == "refresh":
            self.problems.append("leads the reader elsewhere by <meta http-equiv=refresh>")
        if tag in ("script", "style"):
            self.open, self.text = (tag, first), ""
        for name, value in attributes:
            if not (tag == "link" and name == "href" and first.get("rel") == "canonical"):
                self.problems += _of_attribute(tag, _local(name), value)

    def handle_startendtag(self, tag, attributes):
        # The slash means nothing to a browser: what follows <script/> is the script.
        self.handle_starttag(tag, attributes)
        if tag in self.CDATA_CONTENT_ELEMENTS:
            self.set_cdata_mode(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[0] == _local(tag):
            kind, attributes = self.open
            self.problems += _of_script(attributes, self.text) if kind == "script" else _of_style(self.text)
            self.open = None

    def handle_data(self, text):
        if self.open:
            self.text += text
        elif found := TEX.search(text):
            self.problems.append(f"holds a link or a style in TeX, {text[found.start() :][:60]!r}")

    def handle_comment(self, text):
        if text.startswith((">", "->")) or "--!>" in text:  # where a comment ends for a browser
            self.problems.append(f"holds a malformed comment, {text[:40]!r}")

    def handle_decl(self, text):
        if "[" in text:
            self.problems.append("declares entities")

    def unknown_decl(self, text):
        self.problems.append(f"holds a marked section, {text[:40]!r}")

    def handle_pi(self, text):
        if text.lower().startswith("xml-stylesheet"):
            self.problems.append("loads a style sheet by <?xml-stylesheet>")


def _local(name):
    return name.rpartition(":")[2]


def _of_attribute(tag, name, value):
    address = re.sub(r"[\x00-\x20]", "", value).replace("\\", "/")
    if name.startswith("on") and (tag, name, value) not in EVENTS:
        yield f"runs {value[:60]!r} by the attribute {name} of <{tag}>"
    elif name == "class" and LAUNCHER in value.split():
        yield f"holds a {LAUNCHER}, which loads a script from another server"
    elif name == "style":
        yield from _of_style(value)
    elif name == "href" and tag in ("a", "area"):
        if not LINK.match(address):
            yield f"links to {value[:60]!r}"
    elif tag == "script" and name in ("src", "href") and not FOREIGN.match(address) and not OWN.fullmatch(value):
        yield f"runs {value[:60]}, which is no script of the book"
    elif name.endswith("srcset"):
        foreign = [part for part in re.split(r"[\s,]+", value) if FOREIGN.match(part.replace("\\", "/"))]
        yield from (f"loads {part[:60]} from another server" for part in foreign)
    elif name not in WORDS and FOREIGN.match(address):
        yield f"loads {value[:60]} from another server"


def _of_script(attributes, text):
    known = text.strip() in FIGURES or THEME.fullmatch(" ".join(text.split()))
    if attributes.get("type", "").lower() in DATA or known or ("src" in attributes and not text.strip()):
        return
    yield f"runs an inline script that is none of the book's, {' '.join(text.split())[:60]!r}"


def _of_style(text):
    if "<" in text:
        yield f"holds markup in a style, {text.strip()[:60]!r}"
    # Character references and CSS escapes spell the same address in other letters.
    plain = CSS_ESCAPE.sub(lambda m: m[2] or chr(min(int(m[1], 16), 0x10FFFF)), html.unescape(text))
    plain = re.sub(r"[\x00-\x20]", "", plain).replace("\\", "/").lower()
    if re.search(rf"@import|//|\w+script:|(?!{PICTURE})data:", plain):
        yield f"loads by a style, {text.strip()[:60]!r}"
