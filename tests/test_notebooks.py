"""The chapters as files: pairs in step, one parameters cell, short cells, one set of defaults."""

import ast
import inspect
import re
import statistics
from pathlib import Path

import jupytext
import nbformat
import pytest

from wamlib import sweeps

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = {path.stem: jupytext.read(path) for path in sorted((ROOT / "notebooks" / "text").glob("*.md"))}
CHAPTERS = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def plain(source):
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def cells(notebook):
    return [(cell.cell_type, cell.source.strip(), cell.metadata.get("tags", [])) for cell in notebook.cells]


def test_every_notebook_has_its_text_and_the_other_way_round():
    assert {path.stem for path in NOTEBOOKS} == set(TEXTS)


@pytest.mark.parametrize("path", CHAPTERS)
def test_pair_is_in_step(path):
    assert cells(nbformat.read(path, as_version=4)) == cells(TEXTS[path.stem]), f"run `make sync`: {path.name} differs"


@pytest.mark.parametrize("path", CHAPTERS)
def test_notebooks_are_committed_without_outputs(path):
    assert not any(cell.outputs for cell in code_cells(nbformat.read(path, as_version=4)))


def parameters(notebook):
    first, *rest = code_cells(notebook)
    assert first.metadata.get("tags") == ["parameters"]
    assert not [cell for cell in rest if "parameters" in cell.metadata.get("tags", [])]
    body = ast.parse(first.source).body
    assert all(isinstance(node, ast.Assign) for node in body)
    assert all("#" in line for line in first.source.splitlines()), "every parameter says what it is"
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


@pytest.mark.parametrize("name", TEXTS)
def test_parameters_have_the_same_defaults_everywhere(name):
    # What `make sweep` trains and what the chapters ask for must be the same runs.
    defaults = {key: p.default for key, p in inspect.signature(sweeps.book).parameters.items()}
    for key, value in parameters(TEXTS[name]).items():
        if key in defaults:
            assert value == (list(defaults[key]) if isinstance(defaults[key], tuple) else defaults[key]), key


def test_a_sweep_knows_every_parameter_and_no_other():
    known = set().union(*(parameters(text) for text in TEXTS.values()))
    deciding = set(inspect.signature(sweeps.book).parameters) - {"others"}
    assert known - deciding == set(sweeps.CHAPTER_ONLY)
    assert deciding <= known


@pytest.mark.parametrize("name", TEXTS)
def test_parameters_cells_pass_the_check_of_parameters(name):
    sweeps.check_parameters(parameters(TEXTS[name]))


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yml")), ids=lambda path: path.stem)
def test_profiles_set_only_parameters_that_exist(path):
    known = set().union(*(parameters(text) for text in TEXTS.values()))
    assert set(sweeps.read_parameters(path)) <= known


@pytest.mark.parametrize("name", TEXTS)
def test_cells_are_short_and_define_nothing_long(name):
    lengths = []
    for cell in code_cells(TEXTS[name]):
        lengths.append(len(cell.source.splitlines()))
        tree = ast.parse(plain(cell.source))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        long = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.end_lineno - n.lineno >= 6]
        assert not long
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 9


@pytest.mark.parametrize("name", TEXTS)
def test_chapters_have_the_parts_of_a_chapter(name):
    source = (ROOT / "notebooks" / "text" / f"{name}.md").read_text()
    for part in ("What this costs", "What would change our mind", "## Exercises", "## Take-away", "Sources:"):
        assert part in source, part
    assert source.count(":::{exercise}") >= 2
    for figure in re.findall(r":::\{glue:figure\} (\w+)\n(.*?)\n:::", source, re.S):
        assert ":alt:" in figure[1]
        assert "**" in figure[1], "a caption begins with its claim"
        assert not re.search(r":alt: (image|figure|plot) of", figure[1], re.I)


@pytest.mark.parametrize("name", TEXTS)
def test_every_number_in_the_prose_is_glued(name):
    source = (ROOT / "notebooks" / "text" / f"{name}.md").read_text()
    glued = set(re.findall(r"""glue\(f?["']([\w{}]+)["']""", source)) | set(re.findall(r'"(\w+)":', source))
    asked = set(re.findall(r"\{glue:text\}`(\w+)", source))
    static = {key for key in glued if "{" not in key}
    patterns = [re.compile(re.sub(r"\{\w+\}", r"\\w+", key) + "$") for key in glued - static]
    missing = [key for key in asked if key not in static and not any(p.match(key) for p in patterns)]
    assert not missing
    # A measured number typed into a sentence: digits with a decimal point before "%" or "points".
    prose = re.sub(r"```.*?```|\$\$.*?\$\$|`[^`]*`", "", source, flags=re.S)
    assert not re.findall(r"\d+\.\d+ (?:%|points)", prose)
