"""The workflows, the images and the launch buttons name what exists, and may do no more than they need.

No workflow and no image was run to write these tests; they read the files.
"""

import html
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml

from wamlib.errors import ConfigError

ROOT = Path(__file__).parents[1]
TRACKED = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
WORKFLOWS = {path.stem: path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
PROFILES = {"laptop", *(path.stem for path in (ROOT / "params").glob("*.yml"))}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def parse(text):
    workflow = yaml.safe_load(text)
    return workflow | {"on": workflow.pop(True)}  # what YAML 1.1 takes the word for


def steps(text):
    return [step for job in parse(text)["jobs"].values() for step in job["steps"]]


# ---- Workflows -------------------------------------------------------------------------------------------------


def workflow_problems(text):
    """Return what is wrong with a workflow, as a list of sentences."""
    workflow, found = parse(text), []
    # Both run with the rights of the repository, on behalf of whoever opens a pull request.
    found += [f"starts on {event}" for event in {"pull_request_target", "workflow_run"} & set(workflow["on"])]
    if workflow.get("permissions") != {}:
        found.append("grants permissions to every job")
    for name, job in workflow["jobs"].items():
        permissions = job.get("permissions")
        if not isinstance(permissions, dict):  # a word such as write-all, or nothing, which means the default
            found.append(f"{name}: no list of permissions")
            permissions = {}
        if not isinstance(job.get("timeout-minutes"), int):
            found.append(f"{name}: no timeout")
        if "write" in permissions.values() and any(
            "run" in step or "checkout" in step["uses"] for step in job["steps"]
        ):
            found.append(f"{name}: may write and runs code of the repository")
        for step in job["steps"]:
            found += [f"{name}: {problem}" for problem in step_problems(step)]
    return found


def step_problems(step):
    uses, run = step.get("uses", ""), step.get("run", "")
    if uses and not re.fullmatch(r"actions/[a-z-]+@v[1-9][0-9]*", uses):
        yield f"{uses} is none of GitHub's own actions at a major version"
    if uses.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
        yield "the checkout keeps a token"
    if "${{" in run:  # whose words would become part of the script; env: hands values over
        yield f"puts an expression into a script, {run.strip()[:60]!r}"
    for line in re.findall(r"\bmake +(.*)", run):
        targets = [word for word in line.split() if "=" not in word]
        yield from (f"make knows no target {target}" for target in targets if target not in TARGETS)
        profiles = re.findall(r"PROFILE=(\S+)", line)
        yield from (f"there is no profile {profile}" for profile in profiles if profile not in PROFILES)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_do_what_exists_and_may_do_no_more(name):
    assert workflow_problems(WORKFLOWS[name]) == []


GOOD = """
on: {push: }
permissions: {}
jobs:
  only:
    timeout-minutes: 5
    permissions: {contents: read}
    steps:
      - uses: actions/checkout@v6
        with: {persist-credentials: false}
      - run: make book PROFILE=smoke
"""


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("push:", "pull_request_target:", "starts on pull_request_target"),
        ("push:", "workflow_run:", "starts on workflow_run"),
        ("permissions: {}", "permissions: {contents: write}", "grants permissions to every job"),
        ("permissions: {}\n", "", "grants permissions to every job"),
        ("    timeout-minutes: 5\n", "", "only: no timeout"),
        ("    permissions: {contents: read}\n", "", "only: no list of permissions"),
        ("{contents: read}", "write-all", "only: no list of permissions"),
        ("contents: read", "contents: write", "only: may write and runs code of the repository"),
        ("checkout@v6", "checkout@main", "only: actions/checkout@main is none of"),
        ("checkout@v6", "checkout", "only: actions/checkout is none of"),
        ("actions/checkout@v6", "somebody/checkout@v6", "only: somebody/checkout@v6 is none of"),
        ("persist-credentials: false", "persist-credentials: true", "only: the checkout keeps a token"),
        ("        with: {persist-credentials: false}\n", "", "only: the checkout keeps a token"),
        (
            "make book",
            "echo ${{ github.event.pull_request.title }}; make book",
            "only: puts an expression into a script",
        ),
        ("make book", "make pamphlet", "only: make knows no target pamphlet"),
        ("PROFILE=smoke", "PROFILE=steam", "only: there is no profile steam"),
    ],
)
def test_a_bad_workflow_is_found_out(old, new, problem):
    assert workflow_problems(GOOD) == []
    assert old in GOOD
    found = workflow_problems(GOOD.replace(old, new))
    assert any(each.startswith(problem) for each in found), found


def made(name):
    return re.findall(
        r"\bmake +([a-z-]+(?: PROFILE=\w+)?)", "\n".join(step.get("run", "") for step in steps(WORKFLOWS[name]))
    )


def test_each_workflow_makes_what_it_is_there_for():
    assert set(WORKFLOWS) == {"test", "book", "preview", "weekly"}
    assert made("test") == ["setup", "test", "book PROFILE=smoke", "browser"]
    assert made("book") == ["book", "browser"]
    assert made("preview") == ["book PROFILE=smoke"]
    assert made("weekly") == ["setup", "test", "book", "audit"]
    assert set(parse(WORKFLOWS["book"])["on"]) == {"push", "workflow_dispatch"}
    assert parse(WORKFLOWS["book"])["on"]["push"] == {"branches": ["main"]}


def caches(text):
    return [step for step in steps(text) if "cache" in step.get("uses", "") or "cache" in step.get("with", {})]


def test_the_weekly_build_is_cold_and_the_others_are_not():
    assert {name for name in WORKFLOWS if caches(WORKFLOWS[name])} == {"test", "book", "preview"}


def test_trained_runs_are_kept_by_what_they_follow_from():
    (kept,) = [step["with"] for step in caches(WORKFLOWS["book"]) if step["uses"].startswith("actions/cache@")]
    patterns = re.findall(r"'([^']+)'", kept["key"])
    assert patterns == ["requirements.lock", "wamlib/**/*.py", "params/*.yml"]
    assert all(list(ROOT.glob(pattern)) for pattern in patterns)
    assert kept["key"].startswith(kept["restore-keys"])
    assert "data/runs" in kept["path"].split()


def test_only_the_published_book_is_told_where_the_repository_lives():
    told = {
        name for name, text in WORKFLOWS.items() for step in steps(text) if "WAMLIB_REPOSITORY" in step.get("env", {})
    }
    assert told == {"book"}


# ---- Images ----------------------------------------------------------------------------------------------------


def docker_problems(text):
    """Return what is wrong with a Dockerfile, as a list of sentences."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^ *#.*\n", "", text, flags=re.M)).splitlines()
    words = [line.split() for line in lines if line.strip()]
    found = []
    for first, *rest in words:
        if first == "FROM" and not re.fullmatch(r"[\w./-]+:[\w.-]+", rest[0]):
            found.append(f"{rest[0]} names no version")
        if first == "COPY":
            sources = [word for word in rest if not word.startswith("--")][:-1]
            found += [f"copies {name}, which is not there" for name in sources if not tracked(name)]
        if first == "CMD":
            command = json.loads(" ".join(rest))
            if command[0] != "make" or command[1] not in TARGETS:
                found.append(f"starts {' '.join(command)}, which is no target of make")
    users = [rest[0] for first, *rest in words if first == "USER"]
    if not users or users[-1] in ("root", "0"):
        found.append("runs as root")
    return found


def tracked(name):
    return name == "." or name in TRACKED


def test_the_image_is_made_of_what_exists_and_does_not_run_as_root():
    assert docker_problems(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.12-slim", "python", "python names no version"),
        ("reader requirements.lock", "reader requirements.txt", "copies requirements.txt, which is not there"),
        ('"make", "lab"', '"make", "coffee"', "starts make coffee, which is no target of make"),
        ("USER reader", "USER root", "runs as root"),
        ("USER reader\n", "", "runs as root"),
    ],
)
def test_a_bad_dockerfile_is_found_out(old, new, problem):
    assert old in DOCKERFILE
    assert docker_problems(DOCKERFILE.replace(old, new)) == [problem]


def not_ignored(gitignore, dockerignore):
    entries = [
        {line.strip("/").removeprefix("**/") for line in text.splitlines() if line and not line.startswith("#")}
        for text in (gitignore, dockerignore)
    ]
    return entries[0] - entries[1]


def test_what_git_ignores_is_not_sent_to_docker():
    gitignore, dockerignore = (ROOT / ".gitignore").read_text(), (ROOT / ".dockerignore").read_text()
    assert not_ignored(gitignore, dockerignore) == set()
    assert not_ignored(gitignore + "secrets/\n", dockerignore) == {"secrets"}
    assert ".git" in dockerignore.splitlines()


def test_the_development_container_uses_the_image():
    path = ROOT / ".devcontainer" / "devcontainer.json"
    container = json.loads(re.sub(r"^ *//.*\n", "", path.read_text(), flags=re.M))
    build = container["build"]
    assert (path.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (path.parent / build["context"]).resolve() == ROOT
    assert f"USER {container['remoteUser']}\n" in DOCKERFILE
    port = re.search(r"^EXPOSE (\d+)$", DOCKERFILE, re.M)[1]
    assert container["forwardPorts"] == [int(port)]
    # JupyterLab listens there.
    assert json.loads(re.search(r"echo '(\{.*\})'", DOCKERFILE)[1])["ServerApp"]["port"] == int(port)


def differences(conda, binder):
    """Return what Binder's environment has more or less than conda's, but for wamlib itself."""
    conda, binder = yaml.safe_load(conda), yaml.safe_load(binder)
    local = conda["dependencies"][-1]["pip"].pop()
    return [] if local == "-e ." and conda == binder else [conda, binder]


def test_binder_has_the_environment_of_conda_and_installs_the_package_afterwards():
    conda, binder = (ROOT / "environment.yml").read_text(), (ROOT / ".binder" / "environment.yml").read_text()
    assert differences(conda, binder) == []
    assert differences(conda, binder.replace("numpy=2", "numpy=1")) != []  # the twin: a version left behind
    assert differences(conda, conda) != []  # and the local package, which could not be found there
    after = ROOT / ".binder" / "postBuild"
    assert "pip install --no-cache-dir --no-deps -e .\n" in after.read_text()
    assert os.access(after, os.X_OK)


def pythons():
    """Return the version of Python that each file of those that publish asks for."""
    found = {"Dockerfile": re.search(r"^FROM python:([\d.]+)", DOCKERFILE, re.M)[1]}
    for path in ("environment.yml", ".binder/environment.yml"):
        found[path] = re.search(r"- python=([\d.]+)$", (ROOT / path).read_text(), re.M)[1]
    for name, text in WORKFLOWS.items():
        for job, settings in parse(text)["jobs"].items():
            for step in settings["steps"]:
                version = step.get("with", {}).get("python-version")
                matrix = settings["strategy"]["matrix"]["python"] if version == "${{ matrix.python }}" else [version]
                found |= {f"{name}/{job}/{each}": each for each in matrix if version}
    return found


def python_problems(versions, requires):
    """Return the files whose version pyproject.toml does not allow; the tests must run on the oldest that it does."""
    floor = re.fullmatch(r">=(\d+)\.(\d+)", requires).groups()
    found = []
    for name, version in versions.items():
        # A number would be 3.1 for 3.10.
        if not isinstance(version, str) or tuple(map(int, version.split("."))) < tuple(map(int, floor)):
            found.append(name)
    return found + ["test"] * (f"test/test/{'.'.join(floor)}" not in versions)


def test_versions_of_python_agree_with_pyproject():
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    found = pythons()
    assert len(found) == 10
    assert python_problems(found, requires) == []
    assert python_problems(found, ">=3.12") == [
        "book/build/3.11",
        "preview/preview/3.11",
        "test/test/3.11",
        "weekly/test/3.11",
        "weekly/book/3.11",
        "weekly/audit/3.11",
        "test",
    ]
    assert python_problems(found | {"Dockerfile": 3.12}, requires) == ["Dockerfile"]
    assert len({found[name] for name in ("Dockerfile", "environment.yml", ".binder/environment.yml")}) == 1


# ---- Launch buttons and edit links -----------------------------------------------------------------------------

EXTENSIONS = ROOT / "book" / "_ext"
ADDRESS, HUB = "https://github.com/owner/some-name.v2", "https://hub.example.org/lab"


@pytest.fixture(scope="module")
def launch():
    spec = importlib.util.spec_from_file_location("launch", EXTENSIONS / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_an_address_there_are_no_buttons(launch, monkeypatch):
    monkeypatch.delenv("WAMLIB_REPOSITORY", raising=False)
    monkeypatch.delenv("WAMLIB_JUPYTERHUB", raising=False)
    config = SimpleNamespace(html_theme_options={"extra_footer": "Code: MIT."})
    launch._configure(None, config)
    assert config.html_theme_options == {"extra_footer": "Code: MIT."}
    monkeypatch.setenv("WAMLIB_REPOSITORY", ADDRESS)  # the twin
    launch._configure(None, config)
    assert config.html_theme_options["repository_url"] == ADDRESS
    assert f"git+{ADDRESS}" in config.html_theme_options["extra_footer"]


def test_buttons_are_those_that_were_asked_for_and_never_thebe(launch):
    without, with_hub = (launch.options(ADDRESS, hub)["launch_buttons"] for hub in ("", HUB))
    assert set(without) == {"notebook_interface", "binderhub_url", "colab_url"}
    assert set(with_hub) - set(without) == {"jupyterhub_url"}
    assert with_hub["jupyterhub_url"] == HUB


@pytest.mark.parametrize(
    ("repository", "hub", "name"),
    [
        *(
            (address, "", "WAMLIB_REPOSITORY")
            for address in (
                "owner/name",
                "http://github.com/owner/name",
                "https://github.com/owner",
                "https://github.com/owner/name/",
                "https://github.com/owner/name.git",
                "https://github.com/owner/..",
                "https://github.com/owner/name/tree/x",
                "https://github.com.example.org/owner/name",
                "https://example.org/github.com/owner/name",
                "https://user@github.com/owner/name",
                "https://github.com/owner/name?a",
                "https://github.com/owner/na\nme",
                "https://github.com/owner/<script>",
                "https://github.com/ow\u00f6ner/name",
            )
        ),
        ("", HUB, "WAMLIB_REPOSITORY"),  # a hub that would be told no repository
        *(
            (ADDRESS, address, "WAMLIB_JUPYTERHUB")
            for address in (
                "hub.example.org",
                "http://hub.example.org",
                "https://hub.example.org/",
                "https://hub.example.org/?a=b",
                "https://",
                'https://hub.example.org/"onclick',
            )
        ),
    ],
)
def test_a_malformed_address_is_refused_in_four_parts(launch, repository, hub, name):
    with pytest.raises(ConfigError) as caught:
        launch.options(repository, hub)
    error = caught.value
    assert error.doing == "cannot make launch buttons and edit links"
    assert error.item == name
    assert error.got == repr(hub if name == "WAMLIB_JUPYTERHUB" else repository)
    assert error.wanted.startswith("https://")
    assert "unset it" in error.fix


def test_pages_that_are_generated_have_no_edit_button(launch):
    edit, other = {"label": "source-edit-button"}, {"label": "download-source-button"}
    for buttons, kept in (
        ([edit, other], [other]),
        ([other, {"label": "group", "buttons": [other, edit]}], [other, {"label": "group", "buttons": [other]}]),
    ):
        context = {"header_buttons": buttons}
        launch._leave_out(None, "generated/runs", "page.html", context, None)
        assert context["header_buttons"] == kept
        context = {"header_buttons": buttons}
        launch._leave_out(None, "glossary", "page.html", context, None)
        assert context["header_buttons"] == buttons


STATIC = [str(path.relative_to(EXTENSIONS.parent)) for path in EXTENSIONS.parent.glob("_[st]*/*") if path.is_file()]
PAGES = ("index", "glossary", "api/merge", "generated/runs", "notebooks/00_quickstart")


def build(folder, **address):
    """Build a book of a few empty pages with the book's own settings; return its pages."""
    source = folder / "book"
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
    config["sphinx"]["local_extensions"] = dict.fromkeys(("launch", "offline_mathjax"), str(EXTENSIONS))
    files = {"_config.yml": yaml.safe_dump(config)}
    files |= {name: (ROOT / "book" / name).read_text() for name in ("references.bib", *STATIC)}
    toc = {"format": "jb-book", "root": PAGES[0], "chapters": [{"file": page} for page in PAGES[1:]]}
    files["_toc.yml"] = yaml.safe_dump(toc, sort_keys=False)
    files |= {f"{page}.md": f"# {page}\n" for page in PAGES[:-1]}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    files[f"{PAGES[-1]}.ipynb"] = nbformat.writes(notebook)
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WAMLIB_")} | address
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(source), "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    built = source / "_build" / "html"
    if done.returncode == 0:
        check = [sys.executable, ROOT / "book" / "tools" / "check_html.py", built]
        assert subprocess.run(check, capture_output=True, text=True).stderr == ""
    pages = {page: html.unescape((built / f"{page}.html").read_text()) for page in PAGES if not done.returncode}
    return done, pages


def sources(page):
    """Return the paths in the repository that the buttons of a page lead to."""
    return re.findall(r'href="[^"]*[/=](?:(?:edit|blob)/main|lab/tree(?:/some-name\.v2)?)/([^"?&]+)', page)


@pytest.mark.slow
def test_the_buttons_of_built_pages_lead_to_tracked_files(tmp_path):
    done, pages = build(tmp_path, WAMLIB_REPOSITORY=ADDRESS, WAMLIB_JUPYTERHUB=HUB)
    assert done.returncode == 0, done.stderr
    chapter = f"{PAGES[-1]}.ipynb"
    assert {page: sources(text) for page, text in pages.items()} == {
        "index": ["book/index.md"],
        "glossary": ["book/glossary.md"],
        "api/merge": ["book/api/merge.md"],
        "generated/runs": [],
        PAGES[-1]: [chapter] * 4,  # Binder, JupyterHub, Colab, edit
    }
    assert {path for text in pages.values() for path in sources(text)} <= TRACKED
    assert not {f"book/{chapter}", "glossary.md"} & TRACKED  # the twin: the paths that a slip would give
    for start in (
        f"https://mybinder.org/v2/gh/owner/some-name.v2/main?urlpath=lab/tree/{chapter}",
        f"https://colab.research.google.com/github/owner/some-name.v2/blob/main/{chapter}",
        f"{HUB}/hub/user-redirect/git-pull?repo=",
    ):
        assert f'href="{start}' in pages[PAGES[-1]]
    assert f'href="{ADDRESS}"' in pages["generated/runs"]


@pytest.mark.slow
def test_a_book_that_is_not_told_an_address_names_none(tmp_path):
    done, pages = build(tmp_path)
    assert done.returncode == 0, done.stderr
    for text in pages.values():
        assert sources(text) == []
        assert not re.search(r"mybinder|colab|git-pull|On Colab|launch-buttons|source-edit", text)


@pytest.mark.slow
def test_a_malformed_address_stops_the_build_and_says_why(tmp_path):
    done, _ = build(tmp_path, WAMLIB_REPOSITORY="owner/name")
    assert done.returncode != 0
    assert "WAMLIB_REPOSITORY: got 'owner/name', wanted https://github.com/OWNER/NAME" in done.stdout + done.stderr
