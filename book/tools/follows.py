"""Say what each chapter has to be executed for: ``follows.py PROFILE`` writes a digest for each into OUT.

A digest covers the notebook, the parameters, and the code that the chapter runs: its module and what that imports, as
far as it is code, without comments and docstrings. A file is written only if its digest changes, so that make executes
a chapter for a change of what it does, and for no other. ``sweep`` is the same for the training that all share.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # so that this is done before, and without, an installation

from wamlib import reach  # noqa: E402

OUT = ROOT / "book" / "_build" / "follows"


def main(profile):
    params = ROOT / "params" / f"{profile}.yml"
    settings = params.read_text("utf-8") if params.is_file() else ""
    notebooks = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    everything = [digests(path) for path in notebooks.values()]
    for stem, path in notebooks.items():
        published = evidence() if profile == "published" else []
        write(f"{stem}-{profile}", [settings, cells(path), *digests(path), *published])
    cell = [source for path in notebooks.values() for tags, source in cells(path) if "parameters" in tags]
    write(f"sweep-{profile}", [settings, cell, everything])
    return 0


def cells(notebook):
    """Return the tags and the source of each cell."""
    found = json.loads(notebook.read_text("utf-8"))["cells"]
    return [[cell["metadata"].get("tags", []), "".join(cell["source"])] for cell in found]


def digests(notebook):
    """Return the digests of all modules that a chapter imports: through its own, and in its notebook."""
    name = f"wamlib.chapters.{notebook.stem.partition('_')[2]}"
    code = "\n".join(source for _, source in cells(notebook))
    used = {f"wamlib.{module}" for module in re.findall(r"\bwamlib\.(\w+)", code)}
    names = {"wamlib.chapters.chapter", name, *(module for module in used if reach.path_of(module))}
    found = {key: value for module in sorted(names) for key, value in reach.imports(module).items()}
    # Of a chapter that is a folder, everything in it, for its notebook may import a part.
    for path in sorted((reach.PACKAGE / "chapters" / notebook.stem.partition("_")[2]).glob("*.py")):
        found |= reach.imports(f"{name}.{path.stem}") if path.stem != "__init__" else {}
    # Scripts and styles stand beside the modules that read them.
    beside = {path for module in found for path in reach.path_of(module).parent.glob("*.*")}
    for path in (path for path in beside if path.suffix in (".js", ".css", ".mplstyle")):
        found[str(path.relative_to(ROOT))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sorted(found.items())


def evidence():
    """Return the digests of the published tables; which of them a chapter is drawn from is not known beforehand."""
    files = sorted((ROOT / "data" / "evidence").glob("*"))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def write(name, content):
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = OUT / name
    if not path.is_file() or path.read_text() != digest:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(digest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
