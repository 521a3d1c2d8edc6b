"""A chapter offers the tables behind its figures and itself; a table that is not there stops the build."""

import shutil

import nbformat
import pytest
from downloads import saved
from tiny_book import begin, build, chapter

CODE = [
    'profile = "laptop"',
    'profile = "toy"',
    '%config x\nwamlib.tables.save(wamlib.tables.save(a, "first", profile), "second", profile)\nb.save("third")',
    'wamlib.tables.save(a, "first", profile)',
]


def test_tables_are_those_that_are_saved_under_the_last_profile():
    assert saved(chapter("# A question?", *CODE)) == (["first", "second"], "toy")
    assert saved(chapter("# A question?", "x = 1")) == ([], "laptop")


@pytest.fixture
def book(tmp_path):
    settings = "html_sourcelink_suffix = ''; suppress_warnings = ['mystnb.unknown_mime_type']\n"
    settings += f"downloads_tables = {str(tmp_path / 'tables')!r}"
    source = begin(tmp_path, ["downloads"], "# Book\n\n```{toctree}\nnotebooks/a\n```\n", settings)
    nbformat.write(chapter("# A question?", *CODE), source / "notebooks" / "a.ipynb")
    (tmp_path / "tables" / "toy").mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / "tables" / "toy" / f"{name}.csv").write_text("x,y\n1,2\n3,4\n")
    return source


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
