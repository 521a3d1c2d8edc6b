"""What a measure follows from is the code that it runs: not words, not figures, not what others run."""

import ast
import sys
import textwrap

import pytest

from wamlib import reach
from wamlib.chapters import architectures, members

PARTS = {
    "__init__.py": "",
    "errors.py": "class ChapterError(Exception):\n    '''x'''\n",
    "pools.py": "class Pool:\n    def soup(self):\n        return 1\n",
    "stats.py": "def mean(x):\n    return sum(x) / len(x)\n\ndef other(x):\n    return x\n",
    "probe/__init__.py": "from .norms import norm\nfrom .lines import line\n",
    "probe/norms.py": "def norm(x):\n    return abs(x)\n",
    "probe/lines.py": "def line(x):\n    return [x]\n",
    "chapters/__init__.py": "",
    "chapters/one.py": '''
        """A chapter."""
        from .. import probe, stats
        from ..errors import ChapterError
        from ..stats import other

        LIMIT = 3

        def measure(pool):
            """Rows."""
            # why
            if len(pool) > LIMIT:
                raise ChapterError("too many")
            return helper(probe.norm(pool.soup()))

        def helper(x: int) -> int:
            return stats.mean([x, x])

        def figure(table):
            return other(table)
        ''',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package of the same layout; returns a function that edits a file of it."""
    for name, text in PARTS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.setattr(reach, "PACKAGE", tmp_path)

    def edit(name="chapters/one.py", old="", new=""):
        for cached in (reach._parsed, reach._read, reach._contents, reach._definition, reach._version):
            cached.cache_clear()
        text = (tmp_path / name).read_text()
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new))
        found = reach._version("wamlib.chapters.one", "measure"), reach.imports("wamlib.chapters.one")
        (tmp_path / name).write_text(text)
        return found

    yield edit
    for cached in (reach._parsed, reach._read, reach._contents, reach._definition, reach._version):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("chapters/one.py", "LIMIT = 3", "LIMIT = 4"),
        ("chapters/one.py", "stats.mean([x, x])", "stats.mean([x])"),
        ("chapters/one.py", "probe.norm(", "probe.line("),
        ("stats.py", "/ len(x)", "* len(x)"),
        ("probe/norms.py", "abs(x)", "-x"),
        ("pools.py", "return 1", "return 2"),  # whoever hands over the pool
    ],
)
def test_an_edit_of_what_a_measure_runs_makes_it_another(package, name, old, new):
    assert package(name, old, new)[0] != package()[0]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("chapters/one.py", '"""Rows."""', '"""Other words."""'),
        ("chapters/one.py", "# why", "# because"),
        ("chapters/one.py", '"too many"', '"far too many"'),
        ("chapters/one.py", "x: int", "x: float"),
        ("chapters/one.py", "return other(table)", "return other(other(table))"),  # a figure
        ("stats.py", "    return x\n", "    return -x\n"),  # what only a figure calls
        ("probe/lines.py", "[x]", "[x, x]"),
        ("errors.py", "'''x'''", "'''y'''"),
    ],
)
def test_an_edit_of_words_or_of_what_it_does_not_run_leaves_it(package, name, old, new):
    assert package(name, old, new)[0] == package()[0]


def test_a_chapter_is_executed_for_code_that_it_imports_and_not_for_words(package):
    plain = package()[1]
    assert {"wamlib.chapters.one", "wamlib.stats", "wamlib.probe.norms"} <= set(plain)
    assert "wamlib.pools" not in plain
    assert package(old='"""Rows."""', new='"""Words."""')[1] == plain
    assert package("probe/lines.py", "[x]", "[x, x]")[1] != plain  # it might run it
    assert package("pools.py", "return 1", "return 2")[1] == plain


def test_real_measures_reach_what_they_run():
    found = {}
    reach._follow("wamlib.chapters.architectures", "measure", found)
    names = {f"{module}.{name}" for module, name in found}
    for name in ("combinations.combinations", "merge.soups.uniform_soup", "evaluate.accuracy", "stats.mcnemar"):
        assert f"wamlib.{name}" in names
    assert not [name for name in names if name.startswith(("wamlib.plot", "wamlib.errors", "wamlib.claims"))]
    assert reach.version(architectures.measure) != reach.version(members.scores)


def test_versions_do_not_depend_on_pythons_own_way_to_write_a_tree():
    # Fields that newer versions of Python add are empty lists or None, and are left out.
    tree = ast.parse("def f(x):\n    'words'\n    return f'{x}'\n")
    text = str(reach._plain(tree))
    assert "type_params" not in text
    assert "words" not in text
    assert sys.version_info >= (3, 11)
