"""API links both ways: each entry lists the chapters that use it, and names in code lead to their entry.

Written after a trial of sphinx-codeautolink 0.20, which ends with an IndexError at the sections that MyST-NB and
sphinx-exercise make without a title.
"""

import ast
import importlib
import json
import re
from pathlib import Path

from sphinx.util import logging

PACKAGE = "wamlib"
ROLE = re.compile(r"\{py:\w+\}`(?:[^`<]*<)?~?(wamlib(?:\.\w+)+)>?`")
# A dotted name as Pygments marks it up.
DOTTED = re.compile(r'<span class="n">wamlib</span>(?:<span class="o">\.</span><span class="n">\w+</span>)+')
logger = logging.getLogger(__name__)


def setup(app):
    app.connect("env-get-outdated", _read_chapters)
    # Napoleon, with priority 500, makes field lists of the docstring; the line becomes a field of the last of them.
    app.connect("autodoc-process-docstring", _list_chapters, priority=600)
    app.connect("env-check-consistency", _check)
    app.connect("html-page-context", _link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def names_used(notebook):
    """Return the names of the library that a notebook's code cells use and its prose points to, in order.

    ``wamlib.config.TrainConfig.recipe`` stands for itself and for ``wamlib.config.TrainConfig``.
    """
    found = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        found += names_in_code(source) if cell["cell_type"] == "code" else ROLE.findall(source)
    parts = [name.split(".") for name in found]
    return list(dict.fromkeys(".".join(p[:n]) for p in parts for n in range(3, len(p) + 1)))


def names_in_code(source):
    """Return the dotted names in a cell, each as long as it is written: those it imports, and those it spells out."""
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a cell that shows a mistake
        return []
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            found += [name for name in [_spelled(node)] if name]
    return found


def _spelled(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) and node.id == PACKAGE else ""


def used_in(chapters):
    """Turn ``{chapter: names}`` into ``{name: chapters}``."""
    names = sorted({name for used in chapters.values() for name in used})
    return {name: [chapter for chapter, used in chapters.items() if name in used] for name in names}


def thing_of(name):
    """Return what a name of the library stands for, or None if nothing there has it."""
    _, module, *path = name.split(".")
    try:
        thing = importlib.import_module(f"{PACKAGE}.{module}")
        for attribute in path:
            thing = getattr(thing, attribute)
    except (ImportError, AttributeError):
        return None
    return thing


def line(chapters):
    """Return the field that an entry gets, as reStructuredText; Sphinx puts the titles in."""
    return f":Used in: {', '.join(f':doc:`/{chapter}`' for chapter in chapters)}"


def _read_chapters(app, env, added, changed, removed):
    """Read the chapters of this build, and name the API pages whose entries changed with them."""
    before, chapters = getattr(env, "wamlib_used_in", {}), {}
    for chapter in sorted(name for name in env.found_docs if name.startswith("notebooks/")):
        path = Path(env.doc2path(chapter))
        if path.suffix == ".ipynb":
            chapters[chapter] = names_used(json.loads(path.read_text("utf-8")))
    now = env.wamlib_used_in = used_in(chapters)
    modules = {name.split(".")[1] for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
    return sorted({f"api/{module}" for module in modules} & env.found_docs)


def _list_chapters(app, what, name, thing, options, lines):
    if chapters := app.env.wamlib_used_in.get(name):
        lines += ["", line(chapters), ""]


def _check(app, env):
    # Constants have no entry. To look for one costs an import of the library, so each is looked for once.
    known, seen = env.domains["py"].objects, getattr(env, "wamlib_seen", set())
    for name, chapters in env.wamlib_used_in.items():
        if name in known or name in seen:
            continue
        if thing_of(name) is None:
            logger.warning("uses %s, which is not in the library", name, location=chapters[0])
        else:
            seen.add(name)
    env.wamlib_seen = seen


def _link_names(app, pagename, templatename, context, doctree):
    if context.get("body") and not pagename.startswith("_modules/"):
        known = app.env.domains["py"].objects
        context["body"] = link_names(context["body"], lambda name: _address(app, pagename, known.get(name)))


def _address(app, pagename, entry):
    return f"{app.builder.get_relative_uri(pagename, entry.docname)}#{entry.node_id}" if entry else None


def link_names(body, address):
    """Return a page whose dotted names are links, as far as ``address`` has one for the name or a part of it."""

    def link(match):
        parts = re.split(r'(?=<span class="o">)', match[0])
        names = re.sub(r"<[^>]*>", "", match[0]).split(".")
        for n in range(len(parts), 1, -1):
            if url := address(".".join(names[:n])):
                return f'<a class="api-name" href="{url}">{"".join(parts[:n])}</a>{"".join(parts[n:])}'
        return match[0]

    return DOTTED.sub(link, body)
