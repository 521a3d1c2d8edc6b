"""At the end of a chapter, the tables behind its figures as CSV, and the chapter as a notebook.

What a chapter saved stands in ``chapter_NN.json`` beside its tables; the profile is that of its code cells, where one
that papermill set replaces the default. A table that is named and is not there is a warning, which stops the build.
"""

import ast
import json
import shutil
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.util import logging

from wamlib.config import home

logger = logging.getLogger(__name__)
FOLDER = "_data"  # below the built pages


def setup(app):
    app.add_config_value("downloads_tables", "", "env", types=[str])  # by default data/tables
    app.connect("doctree-read", _append)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}


def profile_of(notebook):
    """Return the profile that a chapter was executed with."""
    found = "laptop"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            code = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
            for node in ast.walk(ast.parse(code)):
                match node:
                    case ast.Assign(targets=[ast.Name("profile")], value=ast.Constant(str() as value)):
                        found = value
    return found


def saved(folder, stem):
    """Return the names of the tables that a chapter saved, in order; none where it wrote nothing about itself."""
    path = folder / f"chapter_{stem.partition('_')[0]}.json"
    return json.loads(path.read_text("utf-8"))["tables"] if path.is_file() else []


def _append(app, doctree):
    env = app.env
    source = Path(env.doc2path(env.docname))
    if source.suffix != ".ipynb":
        return
    profile = profile_of(nbformat.read(source, as_version=4))
    folder = Path(app.config.downloads_tables or home() / "tables") / profile
    names = saved(folder, source.stem)
    offered = env.metadata[env.docname]["downloads"] = []
    line = nodes.paragraph("", "", nodes.strong("", "Data: "), classes=["downloads"])
    for index, name in enumerate(names):
        path = folder / f"{name}.csv"
        if not path.is_file():
            logger.warning(
                "cannot offer a table: %s: got no such file, wanted what the chapter saved. Execute the chapter again.",
                path.name,
                location=env.docname,
                type="downloads",
            )
            continue
        env.note_dependency(str(path))
        rows = sum(1 for _ in path.open(encoding="utf-8")) - 1
        line += nodes.Text(", " if index else "")
        line += _link(env, f"{FOLDER}/{profile}/{path.name}", path.name)
        line += nodes.Text(f" ({rows:,} {'row' if rows == 1 else 'rows'})")
        offered.append(str(path))
    if not names:
        line.clear()
    line += nodes.strong("", ". Notebook: " if names else "Notebook: ")
    line += _link(env, f"_sources/{env.docname}.ipynb", source.name)
    line += nodes.Text(", with its outputs.")
    next(doctree.findall(nodes.section)).append(line)


def _link(env, target, name):
    up = "../" * env.docname.count("/")
    return nodes.reference("", name, refuri=up + target, internal=True)


def _copy(app, error):
    if error is not None or app.builder.format != "html":
        return
    for metadata in app.env.metadata.values():
        for text in metadata.get("downloads", []):
            target = Path(app.outdir) / FOLDER / Path(text).parent.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(text, target)
