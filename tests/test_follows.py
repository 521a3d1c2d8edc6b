"""A chapter is executed again for a change of what it does, and for no other."""

import json
import shutil
from pathlib import Path

import follows
import pytest

from wamlib import reach

HERE = Path(__file__).parents[1]
EVERYTHING = {"10_members", "32_between", "34_alignment", "36_repair"}  # a few chapters are enough


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what chapters follow from."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("wamlib", "params"):
        shutil.copytree(HERE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "notebooks").mkdir()
    for name in EVERYTHING:
        shutil.copy2(HERE / "notebooks" / f"{name}.ipynb", tree / "notebooks")
    return tree


@pytest.fixture(scope="module")
def unchanged():
    return {}


@pytest.fixture
def changed(tree, unchanged, monkeypatch):
    """Return a function that edits a file of the copy for a moment, and returns whose digests that changes."""
    monkeypatch.setattr(follows, "ROOT", tree)
    monkeypatch.setattr(follows, "OUT", tree / "follows")
    monkeypatch.setattr(reach, "PACKAGE", tree / "wamlib")

    def digests(profile):
        for cached in (one for one in vars(reach).values() if hasattr(one, "cache_clear")):
            cached.cache_clear()
        assert follows.main(profile) == 0
        end = f"-{profile}"
        return {path.name.removesuffix(end): path.read_text() for path in (tree / "follows").glob(f"*{end}")}

    def after(place, old, new, profile="laptop"):
        path = tree / place
        text = path.read_text() if path.exists() else None
        if profile not in unchanged:
            unchanged[profile] = digests(profile)
        before = unchanged[profile]
        assert set(before) == EVERYTHING | {"sweep"}
        if text is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        else:
            assert old in text
        path.write_text(new if text is None else text.replace(old, new, 1))
        try:
            now = digests(profile)
        finally:
            path.write_text(text) if text is not None else path.unlink()
        return {name for name in now if now[name] != before[name]}

    yield after
    for cached in (one for one in vars(reach).values() if hasattr(one, "cache_clear")):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("wamlib/merge/soups.py", "def uniform_soup(", "# why\ndef uniform_soup("),
        ("wamlib/merge/soups.py", "Parameters\n", "Arguments\n"),
        ("wamlib/chapters/members.py", 'def scores(pool):\n    """', 'def scores(pool):\n    """Rows. '),
        ("params/gpu.yml", "profile: gpu", "profile: gpu2"),  # of another profile
    ],
)
def test_words_change_nothing(changed, place, old, new):
    assert changed(place, old, new) == set()


def test_a_measure_is_of_its_chapter_and_an_arithmetic_of_all_that_use_it(changed):
    measure = changed("wamlib/chapters/members.py", "def scores(pool):\n", "def scores(pool):\n    1 + 1\n")
    assert measure == {"10_members", "sweep"}
    part = changed("wamlib/chapters/between/plane.py", "", "X = 1\n")
    assert part == {"32_between", "sweep"}
    everywhere = changed("wamlib/merge/soups.py", "", "X = 1\n")
    assert everywhere - {"sweep"} == EVERYTHING


def test_a_figure_changes_the_chapters_that_draw_it(changed):
    assert changed("wamlib/plot/repairs.py", "", "X = 1\n") - {"sweep"} == {"34_alignment", "36_repair"}
    assert {"10_members", "34_alignment"} <= changed("wamlib/plot/style.py", "", "X = 1\n")


def test_scripts_and_styles_count(changed):
    script = next((HERE / "wamlib" / "plot" / "interactive").glob("*.js")).name
    found = changed(f"wamlib/plot/interactive/{script}", "", "// x\n")
    assert "32_between" in found
    assert "10_members" not in found


def test_a_notebook_is_executed_for_its_own_cells_and_the_sweep_for_its_parameters(changed):
    notebook = "notebooks/10_members.ipynb"
    assert changed(notebook, "here.show(", "here.show (") == {"10_members"}
    assert changed(notebook, "n_members = ", "n_members =  ") == {"10_members", "sweep"}
    assert changed("params/smoke.yml", "profile: ", "n_members: 3\nprofile: ", "smoke") == EVERYTHING | {"sweep"}


def test_published_records_count_where_chapters_are_drawn_from_them(changed):
    new = json.dumps({"10_members": {}})
    assert changed("data/evidence/experiments.json", None, new, "published") == EVERYTHING
    assert changed("data/evidence/experiments.json", None, new) == set()
