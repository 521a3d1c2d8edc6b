"""What the commands of the README cost: measured in a fresh clone, beside the set-up.

The clone uses the environment that runs this script; set-up is timed on its own by
`rm -rf .venv && time make setup`, because it depends on the network.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write

ROOT = Path(__file__).parents[1]


def timed(folder, *words):
    begin = time.perf_counter()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    # A make above this one must not hand its job slots down.
    environment = {
        name: value for name, value in environment.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    subprocess.run(["make", *words], cwd=folder, env=environment, check=True)
    seconds = time.perf_counter() - begin
    print(f"make {' '.join(words)}: {seconds:.1f} s", flush=True)
    return seconds


def executed(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "book" / "notebooks").glob("*.ipynb")}


def main():
    numbers = {}
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        timed(clone, "setup")
        numbers["book_smoke_seconds"] = timed(clone, "smoke")
        numbers["book_cold_minutes"] = timed(clone, "book") / 60
        numbers["book_again_seconds"] = timed(clone, "book")
        before = executed(clone)
        path = clone / "notebooks" / "00_quickstart.ipynb"
        path.write_text(path.read_text().replace("## Take-away", "## The take-away"))
        numbers["book_one_chapter_seconds"] = timed(clone, "book")
        after = executed(clone)
        numbers["book_chapters_rerun"] = sum(before[name] != after[name] for name in after)
    print(f"written to {write('book', numbers)}")


if __name__ == "__main__":
    main()
