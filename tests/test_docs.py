"""The words around the code say what is there."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import wamlib

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_every_module_has_its_page():
    pages = {path.stem for path in (ROOT / "book" / "api").glob("*.md")} - {"index"}
    assert pages == set(wamlib.__all__)
    toc = (ROOT / "book" / "_toc.yml").read_text()
    assert all(f"api/{page}" in toc for page in pages)


@pytest.mark.parametrize("name", wamlib.__all__)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(f"wamlib.{name}")
    for public in module.__all__:
        thing = getattr(module, public)
        assert not callable(thing) or thing.__doc__, f"{name}.{public}"


def test_code_names_in_the_glossary_exist():
    names = re.findall(r"`(wamlib\.\w+)(?:\.(\w+))?`", (ROOT / "book" / "glossary.md").read_text())
    assert len(names) > 15
    for module, attribute in names:
        assert not attribute or hasattr(importlib.import_module(module), attribute), (module, attribute)


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
    assert bib.count("url ") == len(keys)


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


def test_numbers_of_the_readme_are_those_of_the_published_run():
    import sys

    sys.path.insert(0, str(ROOT / "book" / "tools"))
    from collect import fill, published_numbers

    numbers = published_numbers()
    assert README.count("<!-- n: ") >= 5
    assert fill(README, numbers) == README, "run `make findings`"
    assert fill(README, dict.fromkeys(numbers, -12345)) != README  # the twin: a typed number would stay


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
