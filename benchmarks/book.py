"""What the commands of the README cost a new user: measured in a fresh clone that makes its own environment.

``book.py [FOLDER]``: the clone goes to FOLDER and stays there, or to a temporary folder that goes.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import write

ROOT = Path(__file__).parents[1]
# File, words and what they become: of a chapter's text, of a docstring of the library, of one measure.
EDITS = {
    "one_chapter": ("notebooks/00_quickstart.ipynb", "## Take-away", "## The take-away"),
    "docstring": ("wamlib/merge/soups.py", '"""', '"""Edited. '),
    "measure": ("wamlib/chapters/members.py", "for run in pool.runs])", "for run in list(pool.runs)])"),
}


def new_users_environment():
    """Return this environment without what points to this checkout's packages, or to a make above this one."""
    own = str(Path(sys.executable).parent)
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS") and not k.startswith("WAMLIB_")
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


def cpu_minutes():
    """Return the minutes that processes below this one have computed, over all cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) / 60


def after_edit(clone, path, old, new):
    """Return the seconds of `make book` after an edit of one file, and how many chapters it executed."""
    before, path = executed(clone), clone / path
    text = path.read_text()
    if old not in text:
        raise SystemExit(f"cannot measure an edit: {path}: got no {old!r}, wanted one. Name words that are there.")
    path.write_text(text.replace(old, new, 1))
    seconds = timed(clone, "book")
    after = executed(clone)
    return seconds, sum(before[name] != after[name] for name in after)


def measure(clone):
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    numbers = {"book_setup_minutes": timed(clone, "setup") / 60}
    numbers["book_published_seconds"] = timed(clone, "book", "PROFILE=published")
    timed(clone, "clean")
    before = cpu_minutes()
    numbers["book_cold_minutes"] = timed(clone, "book") / 60
    numbers["book_cold_cpu_minutes"] = cpu_minutes() - before
    numbers["book_again_seconds"] = timed(clone, "book")
    for name, edit in EDITS.items():
        numbers[f"book_{name}_seconds"], numbers[f"book_{name}_chapters_rerun"] = after_edit(clone, *edit)
    numbers["book_chapters_rerun"] = numbers.pop("book_one_chapter_chapters_rerun")
    timed(clone, "clean")
    before = cpu_minutes()
    timed(clone, "smoke")
    numbers["book_smoke_cpu_minutes"] = cpu_minutes() - before
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
