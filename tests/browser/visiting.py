"""One visit to each page, which brings back all that the checks want to know."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDE = {"width": 1300, "height": 900}
PHONE = {"width": 360, "height": 740}
PATIENCE = 300_000  # milliseconds: a machine that is busy with other work is no failure
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
CONTRAST = "color-contrast"
LOOK = (Path(__file__).parent / "look.js").read_text("utf-8")


@dataclass
class Visit:
    """What one page was found to be."""

    name: str  # the path inside the book
    complaints: list = field(default_factory=list)  # errors and warnings of the console
    outside: list = field(default_factory=list)  # addresses elsewhere that the page asked for
    transferred: int = 0  # bytes as they lie on the disk; a web server that compresses sends fewer
    first_paint: float = 0.0  # milliseconds until the first text or picture
    anchors: list = field(default_factory=list)
    links: list = field(default_factory=list)  # where its <a> lead, resolved
    pictures: list = field(default_factory=list)
    interactive: int = 0  # figures that a reader can play with
    violations: list = field(default_factory=list)  # what axe finds serious or critical
    dark: list = field(default_factory=list)  # what cannot be seen in the dark theme
    too_wide: list = field(default_factory=list)  # what makes the page wider than a phone


def pages_of(folder):
    """Return the pages of a built book, as paths inside it."""
    paths = (path.relative_to(folder) for path in Path(folder).rglob("*.html"))
    return sorted(path.as_posix() for path in paths if path.parts[0] not in ("_static", "_sources"))


ALL = ("rules", "light", "dark")


def walk(chromium, address, names, axe, asked=lambda name: ALL):
    """Visit pages, two at a time; ``asked`` says what axe looks at on each: all rules, contrast in either theme."""

    def part(names):
        with sync_playwright() as run:
            browser = run.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            reader = Reader(browser, address)
            return [reader.visit(name, axe, asked(name)) for name in names]

    with ThreadPoolExecutor(2) as pool:
        return [each for visits in pool.map(part, (names[::2], names[1::2])) for each in visits]


class Reader:
    """A window in which pages are opened one after the other, each as by a new reader, who has kept nothing."""

    def __init__(self, browser, address):
        self.address, self.seen = address, None
        context = browser.new_context(color_scheme="light", reduced_motion="reduce")
        context.set_default_timeout(PATIENCE)
        context.add_init_script("try { localStorage.clear(); } catch { /* not at this address */ }")
        # Nothing leaves the machine, not even from a page that is here to be found out. It also turns the cache off.
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        self.page = context.new_page()
        self.page.on("request", lambda request: self._ask(request.url))
        self.page.on("response", self._weigh)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.seen.complaints.append(str(error)))

    def visit(self, name, axe=None, asked=ALL):
        """Open a page and look at it wide, then narrow and dark."""
        asked = asked if axe else ()
        self.page.goto("about:blank")
        self.page.set_viewport_size(WIDE)
        seen = self.seen = Visit(name)
        self.page.goto(self.address + name, wait_until="load")
        found = self.page.evaluate(LOOK, "whole")
        seen.first_paint, seen.interactive = found["firstPaint"], found["interactive"]
        seen.anchors, seen.links, seen.pictures = found["anchors"], found["links"], found["pictures"]
        if asked:
            self.page.evaluate(axe.axe_script)
            self._inspect("light", {"rules": {CONTRAST: {"enabled": "light" in asked}}})
        self.page.set_viewport_size(PHONE)
        self.page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark'")
        seen.too_wide = self.page.evaluate(LOOK, "narrow")
        seen.dark = self.page.evaluate(LOOK, "dark")
        if asked:
            self.page.evaluate(LOOK, "settled")
            # A figure to play with brings colours of its own.
            contrast = [CONTRAST] if "dark" in asked or seen.interactive else []
            self._inspect("dark phone", {"runOnly": ["scrollable-region-focusable", *contrast]})
        return seen

    def _ask(self, url):
        if not url.startswith((self.address, "data:", "blob:", "about:")):
            self.seen.outside.append(url)

    def _weigh(self, response):
        # Pictures that are part of the page have been weighed with it.
        if response.url.startswith("http"):
            self.seen.transferred += int(response.headers.get("content-length", 0))

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.seen.complaints.append(f"{message.text} ({message.location['url']})")

    def _inspect(self, state, choice):
        # Preloading would fetch what style sheets import once more, from addresses that axe guesses.
        options = {"resultTypes": ["violations"], "preload": False, **choice}
        for rule in self.page.evaluate("options => axe.run(document, options)", options)["violations"]:
            if rule["impact"] in ("serious", "critical"):
                places = [" ".join(map(str, node["target"])) for node in rule["nodes"]]
                self.seen.violations += [f"{state}: {rule['id']} ({rule['impact']}): {place}" for place in places]


def first_paint(browser, address, name):
    """Return the milliseconds until a page shows its first text or picture, with nothing kept from other pages."""
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address + name, wait_until="load")
    found = page.evaluate(LOOK, "painted")
    context.close()
    return found
