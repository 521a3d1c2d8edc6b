"""The words around the code say what is there."""

import importlib
import inspect
import itertools
import re
import subprocess
from pathlib import Path

import collect
import pytest
import yaml
from used_in import thing_of

import wamlib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_every_module_has_its_page():
    pages = {path.stem for path in (ROOT / "book" / "api").glob("*.md")} - {"index"}
    assert pages == set(wamlib.__all__) - {"chapters"}  # they are no library
    toc = (ROOT / "book" / "_toc.yml").read_text()
    assert set(re.findall(r"- file: api/(\w+)", toc)) == pages | {"index"}


@pytest.mark.parametrize("name", wamlib.__all__)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(f"wamlib.{name}")
    for public in module.__all__:
        thing = getattr(module, public)
        assert not callable(thing) or thing.__doc__, f"{name}.{public}"


GLOSSARY = (ROOT / "book" / "glossary.md").read_text()
# Words of which the code has no thing of its own, and that no work in the bibliography brought up.
ONLY_WORDS = {"body", "confidence", "coverage", "gain", "midpoint", "MLP", "replica", "unit", "weight"}


def glossary_problems(text):
    """Return what is wrong with a glossary, as a list of sentences."""
    body = text.partition("```{glossary}\n")[2].rpartition("\n```")[0]
    entries = [entry.partition("\n  ") for entry in body.strip().split("\n\n")]
    terms, found = [term for term, _, _ in entries], []
    found += [f"{b} stands behind {a}" for a, b in itertools.pairwise(terms) if b.lower() <= a.lower()]
    keys = bib_entries((ROOT / "book" / "references.bib").read_text())
    for term, _, meaning in entries:
        words = re.sub(r"\{py:\w+\}`[^`]*`|\{cite\}`[^`]*`", "", meaning)
        if not re.match(r"[^.]{15,}", words) or "\n" in meaning:
            found.append(f"{term} has no definition in one sentence")
        code = re.findall(r"\{py:(\w+)\}`(wamlib(?:\.\w+)+)`", meaning)
        cited = [key for group in re.findall(r"\{cite\}`([^`]+)`", meaning) for key in group.split(",")]
        if "wamlib" in re.sub(r"\{py:\w+\}`[^`]+`", "", meaning):
            found.append(f"{term} names code that does not lead to its page")
        found += [f"{term} is {kind} {name}, which is none" for kind, name in code if kind_of(name) != kind]
        found += [f"{term} cites {key}, which is not in the bibliography" for key in cited if key not in keys]
        if not code and not cited and term not in ONLY_WORDS:
            found.append(f"{term} has neither code nor source")
    return found + [f"{term} is only a word, and no entry" for term in sorted(ONLY_WORDS - set(terms))]


def kind_of(name):
    """Return the role that leads to a name of the library: mod, class, func or meth; none if it is not there."""
    thing = thing_of(name)
    _, module, *path = name.split(".")
    if thing is None or (path and path[0] not in getattr(wamlib, module).__all__):
        return None  # neither there, nor on the page
    kinds = [("mod", inspect.ismodule(thing)), ("class", inspect.isclass(thing)), ("meth", len(path) > 1)]
    return next((kind for kind, true in kinds if true), "func")


def test_the_glossary_is_sorted_defined_linked_and_sourced():
    assert glossary_problems(GLOSSARY) == []
    assert GLOSSARY.count("{py:") > 30


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\nagreement\n", "\nzebra\n", "stands behind zebra"),
        ("{py:func}`wamlib.probe.barrier`", "`wamlib.probe.barrier`", "barrier names code that does not lead"),
        ("{py:func}`wamlib.probe.barrier`", "{py:func}`wamlib.probe.wall`", "barrier is func wamlib.probe.wall"),
        ("{py:func}`wamlib.probe.barrier`", "{py:class}`wamlib.probe.barrier`", "barrier is class"),
        ("{cite}`neyshabur2020`", "{cite}`nobody1900`", "basin cites nobody1900"),
        ("; {cite}`neyshabur2020`", "", "basin has neither code nor source"),
        ("\nunit\n", "\nunits\n", "unit is only a word, and no entry"),
    ],
)
def test_a_glossary_with_a_mistake_is_found_out(old, new, said):
    assert old in GLOSSARY
    assert any(said in problem for problem in glossary_problems(GLOSSARY.replace(old, new)))


def test_terms_used_in_the_chapters_are_in_the_glossary():
    glossary = re.findall(r"^(\w[\w -]*)\n  \S", (ROOT / "book" / "glossary.md").read_text(), re.M)
    for path in (ROOT / "notebooks" / "text").glob("*.md"):
        for target in re.findall(r"\{term\}`(?:[^`<]*<([^`>]+)>|([^`<]+))`", path.read_text()):
            assert "".join(target) in glossary, (path.name, target)


def test_every_source_is_cited_and_every_citation_has_a_source():
    bib = (ROOT / "book" / "references.bib").read_text()
    keys = set(re.findall(r"@\w+\{(\w+),", bib))
    texts = [path.read_text() for path in [*(ROOT / "notebooks" / "text").glob("*.md"), *(ROOT / "book").glob("*.md")]]
    cited = {key for text in texts for group in re.findall(r"\{cite\}`([^`]+)`", text) for key in group.split(",")}
    assert cited == keys


WITHOUT_DOI = {"liu2020"}  # a post on a blog


def bib_entries(text):
    """Return the fields of each entry of a bibliography by its key."""
    return {
        key: dict(re.findall(r"^ +(\w+) *= *\{(.*?)\},?$", body, re.M))
        for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.M | re.S)
    }


def bib_problems(text):
    """Return what is wrong with the DOIs of a bibliography, as a list of sentences."""
    found = []
    for key, fields in bib_entries(text).items():
        doi, url = fields.get("doi", ""), fields.get("url", "")
        if bool(doi) == (key in WITHOUT_DOI):
            found.append(f"{key}: {'has a DOI, and is listed as without' if doi else 'has no DOI'}")
        if not url and not doi:
            found.append(f"{key}: has no address")
        if doi and not re.fullmatch(r"10\.\d{4,9}/\S+", doi):
            found.append(f"{key}: {doi} is no DOI")
        arxiv = re.fullmatch(r"https://arxiv\.org/abs/(\d{4}\.\d{4,5})", url)
        if arxiv and doi.startswith("10.48550/") and doi != f"10.48550/arXiv.{arxiv[1]}":
            found.append(f"{key}: {doi} is not that of {url}")
        if url.startswith("https://doi.org/"):
            found.append(f"{key}: {url} says again what a DOI says")
    return found


def test_every_source_has_a_doi_that_fits_its_address():
    bib = (ROOT / "book" / "references.bib").read_text()
    assert len(bib_entries(bib)) == bib.count("\n@") + 1 >= 30
    assert bib_problems(bib) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10.48550/arXiv.2411.09263", "10.48550/arXiv.2411.09264", "wang2024: 10.48550/arXiv.2411.09264 is not"),
        ("10.48550/arXiv.2411.09263", "arXiv.2411.09263", "wang2024: arXiv.2411.09263 is no DOI"),
        ("doi     = {10.48550/arXiv.2411.09263}", "note = {x}", "wang2024: has no DOI"),
        ("doi     = {10.1162/", "url = {https://doi.org/10.1162/", "dietterich1998: has no DOI"),
        ("doi     = {10.1162/", "url = {https://doi.org/10.1162/", "says again what a DOI says"),
        ("  howpublished =", "  doi = {10.1000/x},\n  howpublished =", "liu2020: has a DOI, and is listed as without"),
    ],
)
def test_a_doi_that_does_not_fit_is_found_out(old, new, said):
    bib = (ROOT / "book" / "references.bib").read_text()
    assert old in bib
    assert any(said in problem for problem in bib_problems(bib.replace(old, new)))


def commands(text):
    return [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", text, re.S)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_commands_of_the_readme_exist():
    made = [line.split()[1] for line in commands(README) if line.startswith("make ")]
    assert {"book", "test"} <= set(made)
    for target in made:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_make_alone_prints_every_target_with_its_cost():
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert all(f"make {target}" in listed for target in targets)
    assert listed.count("min") + listed.count(" s)") >= 6


def test_python_blocks_of_the_readme_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize(("name", "least"), [("README.md", 5), ("book/speed.md", 80)])
def test_numbers_of_the_readme_and_the_page_of_speed_are_those_that_are_published(name, least):
    text, numbers = (ROOT / name).read_text(), collect.published_numbers()
    assert name in collect.FILLED
    assert text.count("<!-- n: ") >= least
    assert collect.fill(text, numbers) == text, "run `make findings`"
    # The twin: each number is one that would change, and none was typed beside its name.
    assert collect.fill(text, dict.fromkeys(numbers, -12345)).count("-12") >= text.count("<!-- n: ")


@pytest.mark.parametrize("name", collect.FILLED)
def test_no_line_begins_with_the_name_of_a_number(name):
    # There Markdown begins a block of HTML, and the words behind it are no longer in the paragraph.
    assert not re.findall(r"^ *<!--.*", (ROOT / name).read_text(), re.M)


def test_the_readme_is_short_and_its_typed_cost_is_that_of_make():
    assert README.count("\n") <= 130
    minutes = re.search(r"^test:.*\((\d+) min\)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert re.search(rf"^\| `make test` \|.*\| {minutes} minutes \|$", README, re.M)


def pins(path):
    text = (ROOT / path).read_text()
    if path.endswith(".lock"):
        return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M))
    entries = yaml.safe_load(text)["dependencies"]
    flat = [e for e in entries if isinstance(e, str)] + [
        e for entry in entries if isinstance(entry, dict) for e in entry["pip"]
    ]
    return dict(
        re.match(r"([\w.-]+?)={1,2}([^=]+)$", e).groups() for e in flat if "=" in e and not e.startswith("python=")
    )


def test_conda_environment_and_lock_agree():
    conda = {("torch" if name == "pytorch" else name): version for name, version in pins("environment.yml").items()}
    lock = pins("requirements.lock")
    assert len(conda) >= 15
    assert {name: (version, lock.get(name)) for name, version in conda.items() if lock.get(name) != version} == {}


def test_every_direct_dependency_is_in_lock_and_environment():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in ("book", "test", "pretrained")]
    wanted = [entry for entries in (project["dependencies"], *extras) for entry in entries]
    names = {re.match(r"[\w.-]+", entry)[0] for entry in wanted}
    conda = {("torch" if name == "pytorch" else name) for name in pins("environment.yml")}
    assert names <= set(pins("requirements.lock"))
    assert names <= conda


def test_every_promise_of_the_merging_contract_is_named_by_a_test():
    # CONTRIBUTING lists the promises; the first lines of the test files say where each is kept.
    promises = re.findall(r"^\| (M\d+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert promises == [f"M{number}" for number in range(1, 19)]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path.name != "test_docs.py")
    assert [promise for promise in promises if not re.search(rf"\b{promise}\b", tests)] == []


def test_nothing_large_and_no_data_is_tracked():
    large = {
        name: (ROOT / name).stat().st_size
        for name in TRACKED
        if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 500_000
    }
    assert not large
    assert not [name for name in TRACKED if name.endswith((".safetensors", ".pt", ".gz", ".zip", ".npz"))]
