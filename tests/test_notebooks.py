"""The chapters as files: pairs in step, one parameters cell, short cells, one set of defaults."""

import ast
import importlib
import inspect
import re
import statistics
from pathlib import Path

import jupytext
import nbformat
import pytest

from wamlib import plot, sweeps

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


def source_of(name):
    return (ROOT / "notebooks" / "text" / f"{name}.md").read_text()


# What every chapter has, in this order.
PARTS = (
    r"^\(ch-[\w-]+\)=\n# [^\n]+\?$",  # its question
    r"^\w[^\n]*",  # the answer
    r"^:::\{admonition\} What this costs$",
    r"\*\*What would change our mind:\*\*",
    r"^:tags: \[parameters\]$",
    r"^## (?!Exercises|Take-away)",
    r"^## Exercises$",
    r"^## Take-away$",
    r"^Sources: .*\{cite\}",
)


def part_missing(source):
    """Return the first of `PARTS` that does not stand behind the one before it, or None."""
    place = source.index("\n---\n") + 5  # behind the header
    for part in PARTS:
        found = re.compile(part, re.M).search(source, place)
        if not found:
            return part
        place = found.end()
    return None


@pytest.mark.parametrize("name", TEXTS)
def test_chapters_have_the_parts_of_a_chapter_in_order(name):
    assert part_missing(source_of(name)) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("two networks?\n", "two networks\n"),
        ("What this costs", "What it costs"),
        ("**What would change our mind:**", "**We are sure:**"),
        ("## Exercises", "## Questions"),
        ("## Take-away", "## Exercises"),
        ("Sources: ", "See also "),
    ],
)
def test_a_chapter_without_one_of_its_parts_is_found(old, new):
    source = source_of("00_quickstart")
    assert old in source
    assert part_missing(source.replace(old, new)) is not None


def test_parts_in_another_order_are_found():
    body, end = source_of("00_quickstart").split("## Exercises", 1)
    exercises, rest = end.split("## Take-away", 1)
    assert part_missing(f"{body}## Take-away{rest}\n\n## Exercises{exercises}") is not None


def without_solution(source):
    """Return the labels of exercises that no folded solution belongs to."""
    solved = re.findall(r"^:::\{solution\} ([\w-]+)\n:class: dropdown\n\S", source, re.M)
    return [label for label in re.findall(r"^:::\{exercise\}\n:label: ([\w-]+)$", source, re.M) if label not in solved]


def kinds_of_exercises(source):
    return set(re.findall(r"^:::\{exercise\}\n:label: [\w-]+\n(Predict first|Break it): ", source, re.M))


@pytest.mark.parametrize("name", TEXTS)
def test_a_chapter_asks_to_predict_and_to_break_and_answers_both(name):
    source = source_of(name)
    assert source.count(":::{exercise}") >= 2
    assert kinds_of_exercises(source) == {"Predict first", "Break it"}
    assert without_solution(source) == []


def test_an_exercise_without_its_solution_is_found():
    source = source_of("00_quickstart")
    assert without_solution(source.replace("{solution} ex-quickstart-break", "{solution} ex-quickstart-brake")) == [
        "ex-quickstart-break"
    ]
    unfolded = source.replace(
        ":::{solution} ex-quickstart-predict\n:class: dropdown\n", ":::{solution} ex-quickstart-predict\n"
    )
    assert without_solution(unfolded) == ["ex-quickstart-predict"]
    assert kinds_of_exercises(source.replace("Break it: ", "Also: ")) == {"Predict first"}


FIGURE = re.compile(r"^:::\{glue:figure\} (?P<glue>\w+)\n(?P<body>.*?)\n:::$", re.S | re.M)


def plot_of(source, figure):
    """Return the function of `wamlib.plot` that draws a figure: within glue(), or before it under a name."""
    drawn = re.search(rf'glue\("{figure}", ([\w.]+)', source)[1]
    if not drawn.startswith("wamlib."):
        drawn = re.search(rf"^{drawn} = (wamlib\.plot\.\w+)\(", source, re.M)[1]
    return getattr(plot, drawn.removeprefix("wamlib.plot."))


def has_bars(function, seen=()):
    """Return whether a function of `wamlib.plot`, or one that it calls there, draws bars or a band."""
    source = inspect.getsource(function)
    if re.search(r"\.(errorbar|fill_between)\(", source):
        return True
    called = {getattr(inspect.getmodule(function), name, None) for name in re.findall(r"\b(\w+)\(", source)}
    called = [one for one in called if inspect.isfunction(one) and one.__module__.startswith("wamlib.plot")]
    return any(has_bars(one, (*seen, function)) for one in called if one not in seen and one is not function)


def flaws_of_figures(source):
    """Return what is lacking around the figures of a chapter: a citation, a reading, alt text, a claim, bars, n."""
    flaws = []
    for figure in FIGURE.finditer(source):
        name = re.search(r"^:name: ([\w-]+)$", figure["body"], re.M)[1]
        alt = re.search(r"^:alt: (.*)$", figure["body"], re.M)
        caption = re.split(r"^:alt: .*$", figure["body"], flags=re.M)[-1].strip()
        prose = FIGURE.sub("", source).partition("## Exercises")[0]
        if f"{{numref}}`{name}`" not in prose:
            flaws.append(f"{name}: no {{numref}} in the prose")
        # What is said of a figure stands in front of the next figure and of the next section.
        after = re.split(r"^(?:## |:::\{glue:figure\})", source[figure.end() :], flags=re.M)[0]
        if not re.search(r"^\w[^\n]{40,}", re.sub(r"^```.*?^```$", "", after, flags=re.S | re.M), re.M):
            flaws.append(f"{name}: no reading behind it")
        if not alt or re.match(r"(image|figure|plot) of", alt[1], re.I):
            flaws.append(f"{name}: no alt text that states a point")
        if not re.match(r"\*\*[^*]+[.!]\*\*", caption):
            flaws.append(f"{name}: the caption does not begin with its claim")
        if has_bars(plot_of(source, figure["glue"])):
            if not re.search(r"\b(bars?|bands?|whiskers?|intervals?)\b", caption, re.I):
                flaws.append(f"{name}: the caption does not say what bars are")
            if not re.search(r"\{glue:text\}`n_\w+", caption):
                flaws.append(f"{name}: the caption does not say how many")
    return flaws


@pytest.mark.parametrize("name", TEXTS)
def test_figures_are_cited_read_and_captioned(name):
    assert FIGURE.search(source_of(name))
    assert flaws_of_figures(source_of(name)) == []


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("{numref}`fig-alignment`", "the figure", "no {numref} in the prose"),
        ("Compare the heights in the middle of a panel", "See", "no reading behind it"),
        (":alt: Without matching", ":alt: Plot of", "no alt text that states a point"),
        ("**Order is a large part of the wall", "Order is a large part of the **wall", "does not begin with its claim"),
        ("bars: 95 % interval. BatchNorm", "BatchNorm", "does not say what bars are"),
        ("mean over\n{glue:text}`n_replicas` pairs;", "means over pairs;", "does not say how many"),
    ],
)
def test_a_figure_with_a_flaw_is_found(old, new, flaw):
    source = source_of("34_alignment")
    assert old in source
    if flaw.startswith("no reading"):
        begin = source.index(old)
        source = source[:begin] + new + source[source.index("\n## Width") :]
    assert any("fig-alignment" in found and flaw in found for found in flaws_of_figures(source.replace(old, new)))


def test_bars_are_known_from_the_drawing():
    assert has_bars(plot.alignment_paths)  # drawn by facets(), which a function beside it calls
    assert has_bars(plot.waterfall)  # drawn by a function beside it
    assert not has_bars(plot.picture_grid)


# Words of the glossary that mean nothing else in this book, with the forms in which they come.
TERMS = {
    "member": "members?",
    "soup": "soups?",
    "ensemble": "(?:(?:logit|probability|deep) )?ensembles?",
    "feature ensemble": "feature ensembles?",
    "barrier": "barriers?",
    "basin": "basins?",
    "pool": "pools?",
    "trunk": "trunks?",
    "template": "templates?",
    "effective template": "effective templates?",
    "logit": "logits?",
    "midpoint": "midpoints?",
    "permutation": "permutations?",
    "recalibrate": "recalibrat(?:e|ed|es|ing|ion)",
    "task vector": "task vectors?",
    "calibration error": "calibration error",
    "flip rate": "flip rates?",
    "pretrained": "pretrained",
    "temperature": "temperatures?",
    "local Lipschitz constant": "local Lipschitz constants?",
    "foreign image": "foreign images?",
}
# What a reader does not read as a sentence: code, formulas, titles, labels, targets of links.
NO_PROSE = (
    r"\A---\n.*?\n---\n|^```.*?^```$|\$\$.*?\$\$",
    r"^#.*$|^:(?:alt|label|name|class):.*$|^:::\{.*$|\((?:ch|eq)-[\w-]+\)=?|\$[^$\n]*\$",
)


def blank(match):
    return re.sub(r"\S", "\0", match[0])


def first_use(source, term):
    """Return the first use of a term in the prose and whether it links to the glossary; None where there is none."""
    for pattern in NO_PROSE:
        source = re.sub(pattern, blank, source, flags=re.S | re.M if pattern.startswith(r"\A") else re.M)
    source = re.sub(r"(\{[\w:]+\})?`[^`]*`", lambda m: m[0] if m[1] == "{term}" else blank(m), source)

    def other(match):  # a link of another term is no use of this one
        target = re.sub(r"(?s).*<([^>]+)>$", r"\1", match[1])
        return match[0] if target == term else blank(match)

    source = re.sub(r"\{term\}`([^`]*)`", other, source)
    for longer, forms in TERMS.items():
        if longer != term and term in longer.split():
            source = re.sub(rf"\b(?:{forms})\b", blank, source, flags=re.I)
    found = re.search(rf"(?<![\w\0-])(?:{TERMS[term]})(?![\w-])", source, re.I)
    return found and (found[0], re.search(r"\{term\}`[^`]*$", source[: found.start()]) is not None)


@pytest.mark.parametrize("name", TEXTS)
def test_the_first_use_of_a_term_links_to_the_glossary(name):
    uses = {term: first_use(source_of(name), term) for term in TERMS}
    assert [term for term, use in uses.items() if use and not use[1]] == []
    assert len([use for use in uses.values() if use]) >= 2


def test_a_first_use_without_a_link_is_found():
    assert first_use("Two soups, and a {term}`soup`.", "soup") == ("soups", False)
    assert first_use("# A soup?\n\n`soup`\n\nTwo {term}`soups <soup>`, a soup.", "soup") == ("soups", True)
    assert first_use("A {term}`feature ensemble`, an ensemble.", "ensemble") == ("ensemble", False)
    assert first_use("Nothing of it.", "soup") is None


def unknown_functions(source):
    """Return the names in {py:...} roles that do not exist."""
    unknown = []
    for name in re.findall(r"\{py:\w+\}`~?(wamlib[\w.]*)`", source):
        package, *rest = name.split(".")[1:]
        try:
            thing = importlib.import_module(f"wamlib.{package}")
            for part in rest:
                thing = getattr(thing, part)
        except (ImportError, AttributeError):
            unknown.append(name)
    return unknown


@pytest.mark.parametrize("name", TEXTS)
def test_a_chapter_names_the_functions_that_it_rests_on(name):
    prose = source_of(name).partition("## Exercises")[0]
    assert re.findall(r"\{py:(?:func|meth)\}`wamlib\.", prose)
    assert unknown_functions(source_of(name)) == []


def test_a_function_that_does_not_exist_is_found():
    assert unknown_functions("{py:func}`wamlib.merge.uniform_soup`, {py:func}`wamlib.merge.soupe`") == [
        "wamlib.merge.soupe"
    ]


def test_equations_are_cited_and_chapters_are_referred_to_by_name():
    text = "\n".join(source_of(name) for name in TEXTS)
    labels = re.findall(r"^\$\$ \((eq-[\w-]+)\)$", text, re.M)
    assert len(labels) == len(set(labels)) >= 15
    assert set(re.findall(r"\{eq\}`(eq-[\w-]+)`", text)) == set(labels)
    assert set(re.findall(r"\{ref\}`(ch-[\w-]+)`", text)) <= set(re.findall(r"^\((ch-[\w-]+)\)=$", text, re.M)) | {
        "ch-fidelity"
    }
    assert not re.findall(r"\b[Cc]hapter \d", text)


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
