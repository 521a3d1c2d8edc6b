"""A book that is built on several cores is the book that is built on one."""

import filecmp
import os

import in_less_time
import pytest
from tiny_book import begin, build

import wamlib

pytest.importorskip("sphinx_book_theme", reason="no Sphinx: pip install -e '.[book]'")

MODULES = wamlib.__all__[:6]
EXTERNAL = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", *in_less_time.SILENT]


def book(folder, extensions):
    pages = "\n".join(["api/index", *(f"api/{name}" for name in MODULES)])
    settings = "html_theme = 'sphinx_book_theme'; html_copy_source = False"
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
    assert (other / "_modules" / "wamlib" / "advise" / "deciding.html").is_file()


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


def test_pages_of_source_share_one_list_and_others_have_their_own():
    made = []

    def listed(pagename):
        context = {"toctree": lambda depth=1: made.append(pagename) or f"list of depth {depth}"}
        in_less_time._keep_list(None, pagename, "page.html", context, None)
        return context["toctree"]

    in_less_time._lists.clear()
    for name in ("_modules/a/b", "_modules/a/c", "_modules/a", "api/a", "api/b", "_modules/d/e"):
        assert listed(name)() == "list of depth 1"
    assert made == ["_modules/a/b", "_modules/a", "api/a", "api/b"]
    assert listed("_modules/a/f")(depth=2) == "list of depth 2"
    in_less_time._lists.clear()
    context = {}
    in_less_time._keep_list(None, "_modules/a", "page.html", context, None)
    assert context == {}
