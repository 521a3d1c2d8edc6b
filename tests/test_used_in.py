"""An entry of the API pages lists the chapters that use it, and names in code lead to entries."""

import nbformat
import pytest
from tiny_book import begin, build, chapter
from used_in import GIVEN, link_names, names_behind, names_in_code, names_used, thing_of, used_in

import wamlib.config
import wamlib.stats


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("wamlib.stats.mean_interval([1])", ["wamlib.stats.mean_interval"]),
        ("%config x\nf = lambda: wamlib.stats.mean_interval", ["wamlib.stats.mean_interval"]),
        ('wamlib.config.TrainConfig.recipe("fast").to_dict()', ["wamlib.config.TrainConfig.recipe"]),
        ("from wamlib.stats import mcnemar, Interval", ["wamlib.stats.mcnemar", "wamlib.stats.Interval"]),
        (
            "from wamlib.chapters import members as chapter\nchapter.tables(1)",
            ["wamlib.chapters.members", "wamlib.chapters.members.tables"],
        ),
        ("import wamlib", []),
        ("other.stats.mean_interval()", []),
        ('"wamlib.stats.mean_interval"  # wamlib.stats.mcnemar', []),
        ("def broken(", []),
    ],
)
def test_names_in_code(code, names):
    assert names_in_code(code) == names


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from .. import data, stats\ndata.load(1)", ["wamlib.data.load"]),
        ("from ..stats import mcnemar", ["wamlib.stats.mcnemar"]),
        ("def f():\n    from ..plot import answers as draw", ["wamlib.plot.answers"]),
        ("def f(pool):\n    pool.soup()", ["wamlib.pools.Pool.soup"]),
        ("import pandas as data\ndata.load(1)", []),
    ],
)
def test_names_in_the_module_of_a_chapter(code, names):
    assert names_in_code(code, "wamlib.chapters", GIVEN) == names


def test_a_chapter_uses_what_its_module_uses_whether_it_is_a_file_or_a_folder():
    one, many = names_behind(["wamlib.chapters.members"]), names_behind(["wamlib.chapters.between.plane"])
    assert {"wamlib.pools.Pool", "wamlib.pools.Pool.recorded"} <= set(one)
    assert {"wamlib.probe.plane", "wamlib.plot.interactive"} <= set(many)  # of either file
    assert not any(name.startswith("wamlib.chapters") for name in [*one, *many])
    assert names_behind(["wamlib.stats.mcnemar", "wamlib.chapters.Chapter"]) == []


def test_prose_counts_and_a_method_counts_for_its_class():
    prose = "{py:func}`wamlib.merge.uniform_soup`, {py:meth}`one <wamlib.config.TrainConfig.recipe>`, `wamlib.stats`"
    names = ["wamlib.merge.uniform_soup", "wamlib.config.TrainConfig", "wamlib.config.TrainConfig.recipe"]
    assert names_used(chapter(prose, "x = 1")) == names
    assert used_in({"a": names, "b": names[:1]}) == {
        "wamlib.config.TrainConfig": ["a"],
        "wamlib.config.TrainConfig.recipe": ["a"],
        names[0]: ["a", "b"],
    }


def test_what_a_name_stands_for():
    assert thing_of("wamlib.stats.mean_interval") is wamlib.stats.mean_interval
    assert thing_of("wamlib.config.TrainConfig.recipe") == wamlib.config.TrainConfig.recipe
    assert thing_of("wamlib.stats") is wamlib.stats
    assert thing_of("wamlib.chapters.members").__name__ == "wamlib.chapters.members"
    assert callable(thing_of("wamlib.sweeps.pools"))  # the function, not the file of that name
    assert thing_of("wamlib.stats.median_interval") is None
    assert thing_of("wamlib.nowhere.mean_interval") is None


def test_a_name_leads_to_the_longest_part_that_has_an_entry():
    def name(*parts):
        return '<span class="o">.</span>'.join(f'<span class="n">{part}</span>' for part in parts)

    known = {"wamlib.stats": "s.html", "wamlib.stats.mcnemar": "s.html#m"}.get
    whole = name("wamlib", "stats", "mcnemar")
    assert link_names(whole, known) == f'<a class="api-name" href="s.html#m">{whole}</a>'
    part = link_names(name("wamlib", "stats", "LEVEL"), known)
    assert part.startswith(f'<a class="api-name" href="s.html">{name("wamlib", "stats")}</a><span class="o">')
    for other in (name("wamlib", "gone", "mcnemar"), name("other", "stats", "mcnemar"), "wamlib.stats.mcnemar"):
        assert link_names(other, known) == other


@pytest.fixture
def book(tmp_path):
    index = "# Book\n\n```{toctree}\nnotebooks/a\nnotebooks/b\napi/stats\n```\n"
    extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "used_in"]
    source = begin(tmp_path, extensions, index, "napoleon_use_rtype = False")
    (source / "api").mkdir()
    (source / "api" / "stats.md").write_text(
        "# Stats\n\n```{eval-rst}\n.. automodule:: wamlib.stats\n   :members:\n```\n"
    )
    nbformat.write(chapter("# Is it so?", "wamlib.stats.mean_interval([1, 2])"), source / "notebooks" / "a.ipynb")
    nbformat.write(chapter("# And this?\n\n{py:func}`wamlib.stats.mcnemar`", "x = 1"), source / "notebooks" / "b.ipynb")
    return source


def entry(out, name):
    page = (out / "api" / "stats.html").read_text()
    return page.partition(f'id="wamlib.stats.{name}"')[2].partition('id="wamlib.stats.')[0]


def test_entries_list_their_chapters_and_follow_when_those_change(book):
    code, said, out = build(book)
    assert (code, said) == (0, "")
    assert "Used in" in entry(out, "mean_interval")
    assert 'href="../notebooks/a.html"' in entry(out, "mean_interval")
    assert "Is it so?" in entry(out, "mean_interval")
    assert 'href="../notebooks/b.html"' in entry(out, "mcnemar")
    assert "Used in" not in entry(out, "replicas_needed")
    code = (out / "notebooks" / "a.html").read_text()
    assert '<a class="api-name" href="../api/stats.html#wamlib.stats.mean_interval">' in code
    nbformat.write(chapter("# Is it so?", "wamlib.stats.replicas_needed([1], 0)"), book / "notebooks" / "a.ipynb")
    assert build(book)[:2] == (0, "")
    assert "Used in" not in entry(out, "mean_interval")
    assert "Is it so?" in entry(out, "replicas_needed")


def test_a_name_that_is_gone_stops_the_build(book):
    nbformat.write(chapter("# Is it so?", "wamlib.stats.median_interval([1])"), book / "notebooks" / "a.ipynb")
    code, said, _ = build(book)
    assert code != 0
    assert "uses wamlib.stats.median_interval, which is not in the library" in said
    assert "a.ipynb" in said
