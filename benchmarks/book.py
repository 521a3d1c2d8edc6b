"""What the commands of the README cost a new user: measured in a fresh clone that makes its own environment.

``book.py [FOLDER]``: the clone goes to FOLDER and stays there, or to a temporary folder that goes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write

ROOT = Path(__file__).parents[1]


def new_users_environment():
    """Return this environment without what points to this checkout's packages, or to a make above this one."""
    own = str(Path(sys.executable).parent)
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return {**kept, "PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != own)}


def timed(folder, *words):
    begin = time.perf_counter()
    subprocess.run(["make", *words], cwd=folder, env=new_users_environment(), check=True)
    seconds = time.perf_counter() - begin
    print(f"make {' '.join(words)}: {seconds:.1f} s", flush=True)
    return seconds


def executed(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "book" / "notebooks").glob("*.ipynb")}


def measure(clone):
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    numbers = {"book_setup_minutes": timed(clone, "setup") / 60}
    numbers["book_smoke_seconds"] = timed(clone, "smoke")
    numbers["book_cold_minutes"] = timed(clone, "book") / 60
    numbers["book_again_seconds"] = timed(clone, "book")
    before = executed(clone)
    path = clone / "notebooks" / "00_quickstart.ipynb"
    text = path.read_text()
    path.write_text(text.replace("## Take-away", "## The take-away"))
    numbers["book_one_chapter_seconds"] = timed(clone, "book")
    after = executed(clone)
    numbers["book_chapters_rerun"] = sum(before[name] != after[name] for name in after)
    path.write_text(text)
    return numbers


def main():
    if len(sys.argv) > 1:
        numbers = measure(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            numbers = measure(Path(temporary) / "clone")
    print(f"written to {write('book', numbers)}")


if __name__ == "__main__":
    main()
