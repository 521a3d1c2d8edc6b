"""One visit to each page, which brings back all that the checks want to know."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDE = {"width": 1300, "height": 900}
PHONE = {"width": 360, "height": 740}
PATIENCE = 300_000  # milliseconds: a machine that is busy with other work is no failure
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


def walk(chromium, address, names, axe, spared=()):
    """Visit pages, two at a time; axe does not look at those that are spared."""

    def part(names):
        with sync_playwright() as run:
            browser = run.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            return [visit(browser, address, name, None if name in spared else axe) for name in names]

    with ThreadPoolExecutor(2) as pool:
        return [each for visits in pool.map(part, (names[::2], names[1::2])) for each in visits]


def visit(browser, address, name, axe=None):
    """Open one page as a new reader does, with nothing kept from other pages; look at it wide, then narrow and dark."""
    seen = Visit(name)
    context = browser.new_context(viewport=WIDE, color_scheme="light", reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()

    def asked(request):
        if not request.url.startswith((address, "data:", "blob:")):
            seen.outside.append(request.url)

    # Nothing leaves the machine, not even from a page that is here to be found out.
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    page.on("request", asked)
    page.on("response", lambda response: _weigh(seen, response))
    page.on("console", lambda message: _complain(seen, message))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(address + name, wait_until="load")
    found = page.evaluate(LOOK, "whole")
    seen.first_paint, seen.interactive = found["firstPaint"], found["interactive"]
    seen.anchors, seen.links, seen.pictures = found["anchors"], found["links"], found["pictures"]
    if axe:
        page.evaluate(axe.axe_script)
    seen.violations += _violations(page, axe, "light")
    page.set_viewport_size(PHONE)
    page.evaluate("document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'dark'")
    seen.too_wide = page.evaluate(LOOK, "narrow")
    seen.dark = page.evaluate(LOOK, "dark")
    if axe:
        page.evaluate(LOOK, "settled")
    seen.violations += _violations(page, axe, "dark phone", ["color-contrast", "scrollable-region-focusable"])
    context.close()
    return seen


def first_paint(browser, address, name):
    """Return the milliseconds until a page shows its first text or picture, with nothing kept from other pages."""
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(address + name, wait_until="load")
    found = page.evaluate(LOOK, "painted")
    context.close()
    return found


def _weigh(seen, response):
    # Pictures that are part of the page have been weighed with it.
    if response.url.startswith("http"):
        seen.transferred += int(response.headers.get("content-length", 0))


def _complain(seen, message):
    if message.type in ("error", "warning"):
        seen.complaints.append(f"{message.text} ({message.location['url']})")


def _violations(page, axe, state, rules=None):
    if axe is None:
        return []
    options = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = rules
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [
        f"{state}: {rule['id']} ({rule['impact']}): {' '.join(map(str, node['target']))}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
