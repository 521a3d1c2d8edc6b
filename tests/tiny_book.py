"""A book of a few pages, which Sphinx builds with one of the book's own extensions."""

import subprocess
import sys
from pathlib import Path

import nbformat

EXTENSIONS = Path(__file__).parents[1] / "book" / "_ext"


def chapter(prose, *codes):
    """Return a notebook of prose and code cells."""
    cells = [nbformat.v4.new_markdown_cell(prose), *map(nbformat.v4.new_code_cell, codes)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def begin(folder, extensions, index, settings=""):
    """Begin a book in a folder: its settings and its first page, around a folder of chapters; return it."""
    source = folder / "book"
    (source / "notebooks").mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(EXTENSIONS)!r})\n"
        f"extensions = {['myst_nb', *extensions]}; nb_execution_mode = 'off'\n{settings}\n"
    )
    (source / "index.md").write_text(index)
    return source


def build(source, *options):
    """Build a book, where a warning is an error; return exit code, messages and the folder of the pages."""
    out = source.parent / "html"
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *options, str(source), str(out)]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stderr, out
