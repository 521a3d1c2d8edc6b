"""Execute a chapter on a reader's own files: NOTEBOOK PARAMS.yml [OUT]. Writes it as a notebook and as pages to open.

NOTEBOOK is a name such as 61_your_own. Relative paths in PARAMS.yml are those from the working directory; what a
chapter does not know is left out for it, so that one file serves several. OUT is book/_build/own unless given.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from wamlib import advise, chapters, data
from wamlib.errors import ConfigError, WamlibError

ROOT = Path(__file__).parents[2]
CHAPTERS = ROOT / "notebooks"
PAGES = ("glossary.md", "bibliography.md", "references.bib")  # what every chapter refers to


def main(name, params, out):
    notebook = CHAPTERS / f"{name.removesuffix('.ipynb')}.ipynb"
    if not notebook.is_file() or notebook.parent != CHAPTERS:
        raise ConfigError(
            "cannot execute a chapter",
            item=f"NOTEBOOK={name}",
            got="no such chapter",
            wanted=f"one of {', '.join(sorted(path.stem for path in CHAPTERS.glob('*.ipynb')))}",
            fix="Correct the name.",
        )
    settings = absolute({"profile": "own"} | chapters.read_parameters(params))
    folder = out / notebook.stem
    # What a run before this one made must not be taken for this one's.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "parameters.yml").write_text(yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
    executed = folder / notebook.name
    words = [ROOT / "book" / "tools" / "execute.py", notebook, executed, folder / "parameters.yml"]
    # A function of the reader's own, package.module:function, is found from where the command was given.
    paths = os.pathsep.join([os.getcwd(), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = subprocess.run([sys.executable, *words], env={**os.environ, "PYTHONPATH": paths}).returncode
    if code == 0:
        code = build(executed, folder)
    if code:
        return code
    print(f"notebook  {shown(executed)}\npage      {shown(folder / 'html' / f'{notebook.stem}.html')}")
    return 0


def absolute(settings):
    """Return parameters with paths that mean the same from notebooks/, having refused those that lead nowhere."""
    settings = dict(settings)
    dataset = settings.get("dataset")
    if dataset is not None and not data.is_present(dataset):
        data.load(dataset)  # says what is missing, and where it was looked for
    if dataset is not None and dataset.startswith("folder:"):
        place = Path(dataset.removeprefix("folder:")).expanduser()
        settings["dataset"] = f"folder:{place.absolute()}" if place.exists() else dataset  # else below the data root
    if settings.get("members"):
        settings["members"] = [str(advise.find_member(member).absolute()) for member in settings["members"]]
    if settings.get("output"):
        settings["output"] = str(Path(settings["output"]).expanduser().absolute())
    return settings


def build(executed, folder):
    """Build the chapter, the glossary and the bibliography as a small book; return the exit code."""
    source = folder / ".source"
    source.mkdir()
    for page in PAGES:
        shutil.copy2(ROOT / "book" / page, source)
    shutil.copytree(ROOT / "book" / "_static", source / "_static")
    shutil.copytree(ROOT / "book" / "_ext", source / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(executed, source)
    config = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
    config["sphinx"]["local_extensions"] = {"offline_mathjax": "_ext", "elsewhere": "_ext"}
    config["sphinx"]["config"]["elsewhere_chapters"] = str(CHAPTERS / "text")
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    chapters = [{"file": Path(page).stem} for page in PAGES if page.endswith(".md")]
    toc = {"format": "jb-book", "root": executed.stem, "chapters": chapters}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "-q", "--path-output", source]
    done = subprocess.run(command, capture_output=True, text=True)
    built = source / "_build" / "html"
    if done.returncode or not (built / f"{executed.stem}.html").is_file():
        print(
            f"cannot build the page of {executed.stem}: got exit code {done.returncode} of Jupyter Book ("
            f"{(done.stderr or done.stdout).strip()[-600:]}), wanted a page. The executed notebook is whole: "
            f"{shown(executed)}.",
            file=sys.stderr,
        )
        return 1
    built.rename(folder / "html")
    shutil.rmtree(source)
    return 0


def shown(path):
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook")
    parser.add_argument("params", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "book" / "_build" / "own")
    given = parser.parse_args()
    try:
        sys.exit(main(given.notebook, given.params, given.out.absolute()))
    except WamlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
