"""A chapter offers the tables behind its figures and itself; a table that is not there stops the build."""

import json

import nbformat
import pytest
from downloads import profile_of, saved
from tiny_book import begin, build, chapter

CODE = ['profile = "laptop"', 'profile = "toy"', "%config x\nhere.save(a, name)"]


def test_the_profile_is_the_last_that_was_set():
    assert profile_of(chapter("# A question?", *CODE)) == "toy"
    assert profile_of(chapter("# A question?", "x = 1")) == "laptop"


def test_tables_are_those_that_the_chapter_wrote_down(tmp_path):
    (tmp_path / "chapter_10.json").write_text(json.dumps({"tables": ["first", "second"]}))
    assert saved(tmp_path, "10_members") == ["first", "second"]
    assert saved(tmp_path, "11_recipes") == []


@pytest.fixture
def book(tmp_path):
    settings = "html_sourcelink_suffix = ''; suppress_warnings = ['mystnb.unknown_mime_type']\n"
    settings += f"downloads_tables = {str(tmp_path / 'tables')!r}"
    source = begin(tmp_path, ["downloads"], "# Book\n\n```{toctree}\nnotebooks/10_a\n```\n", settings)
    nbformat.write(chapter("# A question?", *CODE), source / "notebooks" / "10_a.ipynb")
    (tmp_path / "tables" / "toy").mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / "tables" / "toy" / f"{name}.csv").write_text("x,y\n1,2\n3,4\n")
    (tmp_path / "tables" / "toy" / "chapter_10.json").write_text(json.dumps({"tables": ["first", "second"]}))
    return source


def test_a_page_ends_with_its_tables_and_its_notebook(book):
    code, said, out = build(book)
    assert code == 0, said
    page = (out / "notebooks" / "10_a.html").read_text()
    assert page.count("(2 rows)") == 2
    for address in ("../_data/toy/first.csv", "../_data/toy/second.csv", "../_sources/notebooks/10_a.ipynb"):
        assert f'href="{address}"' in page
        assert (out / "notebooks" / address).resolve().is_file()


def test_a_table_that_is_not_there_stops_the_build(book):
    (book.parent / "tables" / "toy" / "first.csv").unlink()
    code, said, _ = build(book)
    assert code == 1
    assert "cannot offer a table: first.csv: got no such file" in said
