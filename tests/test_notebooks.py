"""The chapters as files: pairs in step, one parameters cell, short cells, one set of defaults."""

import ast
import importlib
import json
import re
import statistics
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from wamlib import chapters, reach

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = {path.stem: jupytext.read(path) for path in sorted((ROOT / "notebooks" / "text").glob("*.md"))}
CHAPTERS = [pytest.param(path, id=path.stem) for path in NOTEBOOKS]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def plain(source):
    return "\n".join(line for line in source.splitlines() if not line.startswith("%"))


def tags_of(cell):
    return cell.metadata.get("tags", [])


def is_folded(cell):
    return any(tag.startswith(("hide-", "remove-")) for tag in tags_of(cell))


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


# Linear members are trained at a larger size than others.
OWN_DEFAULTS = {"n_train": ["20_templates", "21_templates_of_soups"]}


def test_chapters_that_share_a_parameter_share_its_default():
    # Or they would not share runs, and the book would train many more.
    defaults = {}
    for name, text in TEXTS.items():
        for key, value in parameters(text).items():
            if name not in OWN_DEFAULTS.get(key, ()):
                assert defaults.setdefault(key, value) == value, (name, key)


@pytest.mark.parametrize("path", CHAPTERS)
def test_parameters_pass_their_check_and_are_read_as_papermill_reads_them(path):
    found = parameters(TEXTS[path.stem])
    chapters.check_parameters(found)
    assert chapters.defaults(path.stem.partition("_")[2]) == found
    inspected = papermill.inspect_notebook(str(path))
    assert {name: ast.literal_eval(one["default"]) for name, one in inspected.items()} == found
    assert all(one["help"] for one in inspected.values())


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yml")), ids=lambda path: path.stem)
def test_profiles_set_only_parameters_that_exist(path):
    known = set().union(*(parameters(text) for text in TEXTS.values()))
    assert set(chapters.read_parameters(path)) <= known


def flaws_of_cells(cells):
    """Return what is wrong with code cells: long lines, classes, long functions, too many lines."""
    flaws, lengths = [], [len(cell.source.splitlines()) for cell in cells]
    for cell in cells:
        flaws += [f"long line: {line}" for line in cell.source.splitlines() if len(line) > 100]
        for node in ast.walk(ast.parse(plain(cell.source))):
            if isinstance(node, ast.ClassDef):
                flaws.append(f"class {node.name}")
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 6:
                flaws.append(f"long function {node.name}")
    if max(lengths) > 20 or statistics.median(lengths) > 9:
        flaws.append(f"long cells: {lengths}")
    return flaws


@pytest.mark.parametrize("name", TEXTS)
def test_cells_are_short_and_define_nothing_long(name):
    assert flaws_of_cells(code_cells(TEXTS[name])) == []


@pytest.mark.parametrize(
    "source", ["x = 1  # " + "x" * 93, "class A:\n    x = 1", "def f():" + "\n    x = 1" * 6, "x = 1\n" * 21]
)
def test_a_cell_that_is_none_for_people_is_found(source):
    assert flaws_of_cells([nbformat.v4.new_code_cell(source)])
    assert not flaws_of_cells([nbformat.v4.new_code_cell("def f():" + "\n    x = 1" * 5)])


def test_at_least_half_of_the_code_is_visible():
    shares = {}
    for name, text in TEXTS.items():
        lines = [(is_folded(cell), line) for cell in code_cells(text) for line in cell.source.splitlines() if line]
        shares[name] = sum(not folded for folded, _ in lines), len(lines)
        print(f"{name}: {shares[name][0]} of {shares[name][1]} lines of code are visible")
    visible, everything = map(sum, zip(*shares.values(), strict=True))
    print(f"{visible} of {everything}")
    assert visible >= everything / 2
    assert all(2 * seen >= all_ for seen, all_ in shares.values()), shares


# Every chapter shows its experiment; where nothing is trained it is not executed, so that nothing may rest on it


def names_in(source):
    """Return the names that code sets, and those that it reads."""
    nodes = list(ast.walk(ast.parse(plain(source))))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        names |= {node.name} if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else set()
        names |= {node.arg} if isinstance(node, ast.arg) else set()
    return names, {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def resting_on_experiments(cells):
    """Return the names that experiments set and that code elsewhere reads without having set them itself."""
    only, elsewhere, resting = set(), set(), set()
    for cell in cells:
        sets, reads = names_in(cell.source)
        if "experiment" in tags_of(cell):
            only |= sets
        else:
            elsewhere |= sets
            resting |= reads & (only - elsewhere)
    return resting


def flaws_of_experiments(notebook):
    """Return what is wrong with the experiment and the last cell of a chapter."""
    cells, flaws = code_cells(notebook), []
    experiments = [cell for cell in cells if "experiment" in tags_of(cell)]
    if len(experiments) != 1:
        flaws.append(f"{len(experiments)} experiments")
    flaws += ["a long experiment" for cell in experiments if len(cell.source.splitlines()) > 10]
    flaws += ["a folded experiment" for cell in experiments if is_folded(cell)]
    flaws += [f"rests on {name} of the experiment" for name in sorted(resting_on_experiments(cells))]
    says = [cell for cell in cells if "here.say(" in cell.source]
    if says != cells[-1:] or tags_of(cells[-1]) != ["remove-cell"] or not cells[-1].source.startswith("here.say("):
        flaws.append("no folded last cell that says the numbers")
    return flaws


@pytest.mark.parametrize("name", TEXTS)
def test_a_chapter_shows_its_experiment_and_says_its_numbers_in_the_end(name):
    # The primer is the one chapter without a pool: all of it is experiment.
    assert flaws_of_experiments(TEXTS[name]) == ["0 experiments"] * (name == "01_primer")


@pytest.mark.parametrize(
    ("cell", "flaw"),
    [
        (("print(soup)", []), "rests on soup of the experiment"),
        (("soup = soup + 1", []), None),  # not seen: it would fail where it is executed
        (("def f(soup):\n    return soup", []), None),
        (("x = 2", ["experiment"]), "2 experiments"),
        (("here.say({})", ["remove-cell"]), "no folded last cell that says the numbers"),
    ],
)
def test_a_chapter_that_rests_on_its_experiment_is_found(cell, flaw):
    sources = [("x = 1", ["parameters"]), ("soup = x", ["experiment"]), cell, ("here.say({})", ["remove-cell"])]
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in sources]
    assert flaws_of_experiments(nbformat.v4.new_notebook(cells=cells)) == ([flaw] if flaw else [])
    cells[-1].metadata["tags"] = []
    assert "no folded last cell that says the numbers" in flaws_of_experiments(nbformat.v4.new_notebook(cells=cells))


def test_an_experiment_that_is_long_or_folded_is_found():
    tags = {"tags": ["experiment", "hide-input"]}
    cells = [nbformat.v4.new_code_cell("x = 1\n" * 11, metadata=tags), nbformat.v4.new_code_cell("here.say({})")]
    found = flaws_of_experiments(nbformat.v4.new_notebook(cells=cells))
    assert {"a long experiment", "a folded experiment"} <= set(found)


def source_of(name):
    return (ROOT / "notebooks" / "text" / f"{name}.md").read_text()


# What every chapter has, in this order.
PARTS = (
    r"^\(ch-[\w-]+\)=\n# [^\n]+\?$",  # its question
    r"^\w[^\n]*",  # the answer
    r"^:::\{admonition\} What this costs$",
    r"\*\*What\s+would\s+change\s+our\s+mind:\*\*",
    r"^:tags: \[parameters\]$",
    r"^## (?!Exercises|Take-away)",
    r"^## Exercises$",
    r"^## Take-away$",
    r"^Sources:\s(?s:.*)\{cite\}",
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
    """Return the (module, name) of the function that draws a figure: within here.show(), or before it under a name."""
    drawn = re.search(rf'here\.show\("{figure}", ([\w.]+)', source)[1]
    if "." not in drawn and (named := re.findall(rf"^{drawn} = ([\w.]+)\(", source.partition(f'"{figure}"')[0], re.M)):
        drawn = named[-1]
    module, _, name = drawn.rpartition(".")
    chapter = "wamlib.chapters." + re.search(r"^from wamlib\.chapters import (\w+) as chapter$", source, re.M)[1]
    if not module:  # of a part of the chapter
        module = re.search(rf"^from ([\w.]+) import .*\b{name}\b", source, re.M)[1]
    return (chapter if module == "chapter" else module), name


def has_bars(module, name):
    """Return whether a function draws bars or a band, by itself or by what it calls in a chapter or `wamlib.plot`."""
    found = {}
    reach._follow(module, name, found)
    assert found, f"{module}.{name} is no function of the package"
    trees = [tree for place, tree in found.items() if place[0].startswith(("wamlib.chapters", "wamlib.plot"))]
    return any(f'["attr", "{method}"]' in json.dumps(trees) for method in ("errorbar", "fill_between"))


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
        if has_bars(*plot_of(source, figure["glue"])):
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
        ("mean over {glue:text}`n_replicas` pairs; bars", "means over pairs; bars", "does not say how many"),
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
    assert has_bars("wamlib.chapters.alignment", "alignment_paths")  # drawn by a function of wamlib.plot
    assert has_bars("wamlib.chapters.protocols", "waterfall")
    assert not has_bars("wamlib.chapters.magnitude", "layer_heat_maps")


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
def test_no_measured_number_is_typed_into_the_prose(name):
    # Digits with a decimal point before "%" or "points". That every name is said, test_every_profile.py looks after.
    prose = re.sub(r"```.*?```|\$\$.*?\$\$|`[^`]*`", "", source_of(name), flags=re.S)
    assert not re.findall(r"\d+\.\d+ (?:%|points)", prose)
    assert "glue(" not in source_of(name)
