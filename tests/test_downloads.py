"""A chapter offers the tables behind its figures and itself; a table that is not there stops the build."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "_ext"))

from downloads import saved

EXTENSIONS = Path(__file__).parents[1] / "book" / "_ext"

CODE = [
    'profile = "laptop"',
    'profile = "toy"',
    '%config x\nwamlib.tables.save(wamlib.tables.save(a, "first", profile), "second", profile)\nb.save("third")',
    'wamlib.tables.save(a, "first", profile)',
]


def chapter(*cells):
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A question?"), *cells])
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook


def test_tables_are_those_that_are_saved_under_the_last_profile():
    assert saved(chapter(*CODE)) == (["first", "second"], "toy")
    assert saved(chapter("x = 1")) == ([], "laptop")


@pytest.fixture
def book(tmp_path):
    source = tmp_path / "book"
    (source / "notebooks").mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(EXTENSIONS)!r})\n"
        "extensions = ['myst_nb', 'downloads']; nb_execution_mode = 'off'; html_sourcelink_suffix = ''\n"
        f"downloads_tables = {str(tmp_path / 'tables')!r}\nsuppress_warnings = ['mystnb.unknown_mime_type']\n"
    )
    (source / "index.md").write_text("# Book\n\n```{toctree}\nnotebooks/a\n```\n")
    nbformat.write(chapter(*CODE), source / "notebooks" / "a.ipynb")
    (tmp_path / "tables" / "toy").mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / "tables" / "toy" / f"{name}.csv").write_text("x,y\n1,2\n3,4\n")
    return source


def build(book):
    out = book.parent / "html"
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(book), str(out)]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stderr, out


def test_a_page_ends_with_its_tables_and_its_notebook(book):
    code, said, out = build(book)
    assert code == 0, said
    page = (out / "notebooks" / "a.html").read_text()
    assert page.count("(2 rows)") == 2
    for address in ("../_data/toy/first.csv", "../_data/toy/second.csv", "../_sources/notebooks/a.ipynb"):
        assert f'href="{address}"' in page
        assert (out / "notebooks" / address).resolve().is_file()


def test_a_table_that_is_not_there_stops_the_build(book):
    shutil.rmtree(book.parent / "tables")
    code, said, _ = build(book)
    assert code == 1
    assert "cannot offer a table: first.csv: got no such file" in said
