"""A book that is built on several cores is the book that is built on one."""

import filecmp
import os
from pathlib import Path

import pytest
import yaml
from tiny_book import begin, build

import wamlib

pytest.importorskip("sphinx_book_theme", reason="no Sphinx: pip install -e '.[book]'")

MODULES = wamlib.__all__[:6]
EXTERNAL = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_multitoc_numbering"]
CONFIG = yaml.safe_load((Path(__file__).parents[1] / "book" / "_config.yml").read_text())


def book(folder, extensions):
    pages = "\n".join(["api/index", *(f"api/{name}" for name in MODULES)])
    settings = "html_theme = 'sphinx_book_theme'; html_copy_source = False\n"
    settings += f"html_sidebars = {CONFIG['sphinx']['config']['html_sidebars']}"
    source = begin(folder, extensions, f"# Book\n\n```{{toctree}}\n:numbered:\n{pages}\n```\n", settings)
    (source / "api").mkdir()
    (source / "api" / "index.md").write_text("# All\n\n## One\n\n### Two\n")
    for name in MODULES:
        entry = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: wamlib.{name}\n   :members:\n```\n"
        (source / "api" / f"{name}.md").write_text(entry)
    return source


def differences(one, other):
    files = {folder: {path.relative_to(folder) for path in folder.rglob("*.html")} for folder in (one, other)}
    alike, differing, missing = filecmp.cmpfiles(one, other, files[one] & files[other], shallow=False)
    assert len(alike) > 2 * len(MODULES)
    return sorted(map(str, [*differing, *missing, *(files[one] ^ files[other])]))


def test_the_pages_are_the_same_whatever_the_number_of_processes(tmp_path):
    code, said, one = build(book(tmp_path / "one", EXTERNAL))
    assert (code, said) == (0, "")
    code, said, other = build(book(tmp_path / "other", [*EXTERNAL, "in_less_time"]))
    assert (code, said) == (0, "")
    assert differences(one, other) == []
    source, entries = other / "_modules" / "wamlib" / "advise" / "deciding.html", other / "api" / "advise.html"
    assert 'class="bd-links' in entries.read_text()
    assert 'class="bd-links' not in source.read_text()  # it has no place there
    assert 'class="navbar-brand' in source.read_text()  # the way home


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core: pages are read one after the other")
def test_an_extension_that_keeps_silent_and_is_not_known_is_named(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "quiet.py").write_text("def setup(app):\n    pass\n")
    source = book(tmp_path, [*EXTERNAL, "in_less_time"])
    conf = source / "conf.py"
    conf.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'own')!r})\n{conf.read_text()}extensions += ['quiet']\n"
    )
    code, said, _ = build(source)
    assert code != 0
    assert "the quiet extension does not declare if it is safe for parallel reading" in said
