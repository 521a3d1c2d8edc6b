"""What a reader waits for: the weight of each page, the first paint of each chapter from disk, a build of the pages.

``reading.py``: of the book in book/_build/html, which `make book` has built; no chapter is executed. A paint is that of
a browser that is open already and has nothing of the book in its cache; medians of the rounds are reported.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write
from playwright.sync_api import sync_playwright

# The tests visit pages too.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from serving import served
from visiting import ARGUMENTS, Reader, first_paint, pages_of

BOOK = Path(__file__).parents[1] / "book"
BUILT = BOOK / "_build" / "html"
ROUNDS = 5


def weights(browser):
    """Return the megabytes that each page brings to a browser that has none of them, as they lie on the disk."""
    with served(BUILT) as address:
        reader = Reader(browser, address)
        seen = [reader.visit(name) for name in pages_of(BUILT)]
    return {each.name: each.transferred / 1e6 for each in seen}


def paints(browser, names):
    """Return the seconds until each page shows its first text, opened from disk."""
    folder = BUILT.resolve().as_uri() + "/"
    first_paint(browser, folder, names[0])  # the browser's own start
    rounds = [{name: first_paint(browser, folder, name) / 1e3 for name in names} for _ in range(ROUNDS)]
    return {name: statistics.median(each[name] for each in rounds) for name in names}


def building():
    """Return the seconds that all pages take from executed chapters."""
    command = [Path(sys.executable).parent / "jupyter-book", "build", "-W", "--keep-going", "-q", "--path-output"]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([*command, folder, BOOK], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begin


def main():
    if not (BUILT / "index.html").is_file():
        print(
            f"cannot measure the book: {BUILT}: got no index.html, wanted the built pages. Run `make book` first.",
            file=sys.stderr,
        )
        return 2
    path = shutil.which("chromium")
    if path is None:
        print(
            "cannot measure the book: chromium: got none on the PATH, wanted a browser. Install Debian's chromium.",
            file=sys.stderr,
        )
        return 2
    chapters = sorted(f"notebooks/{each.stem}.html" for each in (BUILT / "notebooks").glob("*.html"))
    with sync_playwright() as run:
        browser = run.chromium.launch(executable_path=path, args=ARGUMENTS)
        megabytes, seconds = weights(browser), paints(browser, chapters)
        browser.close()
    numbers = {
        "reading_rounds": ROUNDS,
        "reading_pages": len(megabytes),
        "reading_megabytes_median": statistics.median(megabytes.values()),
        "reading_megabytes_most": max(megabytes.values()),
        "reading_paint_seconds_median": statistics.median(seconds.values()),
        "reading_paint_seconds_slowest": max(seconds.values()),
        "reading_build_seconds": building(),
    }
    for name in chapters:
        numbers[f"reading_{Path(name).stem}_megabytes"] = megabytes[name]
        numbers[f"reading_{Path(name).stem}_paint_seconds"] = seconds[name]
    print(f"written to {write('reading', numbers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
