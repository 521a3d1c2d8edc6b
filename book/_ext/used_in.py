"""API links both ways: each entry lists the chapters that use it, and names in code lead to their entry.

A chapter uses what its notebook names, in code or prose, and what its module in wamlib/chapters names.

Written after a trial of sphinx-codeautolink 0.20, which ends with an IndexError at the sections that MyST-NB and
sphinx-exercise make without a title.
"""

import ast
import functools
import importlib.util
import json
import re
from pathlib import Path

from sphinx.util import logging

PACKAGE, CHAPTERS = "wamlib", "wamlib.chapters"
PLACE = Path(__file__).parents[2] / "wamlib" / "chapters"
GIVEN = {"pool": "wamlib.pools.Pool"}  # what measures of chapters are given, by the name of the argument
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
    return _with_classes(found)


def names_behind(names):
    """Return the names of the library that the modules of chapters use, of those chapters that are among some names."""
    found = []
    for chapter in dict.fromkeys(name.split(".")[2] for name in names if name.startswith(f"{CHAPTERS}.")):
        place = PLACE / chapter
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            package = f"{CHAPTERS}.{chapter}" if place.is_dir() else CHAPTERS
            found += names_in_code(path.read_text("utf-8"), package, GIVEN) if path.is_file() else []
    return [name for name in _with_classes(found) if not name.startswith(CHAPTERS)]


def _with_classes(names):
    parts = [name.split(".") for name in names]
    return list(dict.fromkeys(".".join(p[:n]) for p in parts for n in range(3, len(p) + 1)))


def names_in_code(source, package=None, given=None):
    """Return the dotted names in a piece of code, each as long as it is written: those it imports or spells out.

    ``package`` is what relative imports start from. ``given`` maps the names of arguments to what they always are.
    """
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a cell that shows a mistake
        return []
    known, found = {PACKAGE: PACKAGE, **(given or {})}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.split(".")[0] == PACKAGE:
                brought = {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
                known |= brought
                found += [name for name in brought.values() if name.count(".") > 1]
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    outer = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in inner)
    return list(dict.fromkeys([*found, *filter(None, (_spelled(node, known) for node in outer))]))


def _spelled(node, known):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    name = isinstance(node, ast.Name) and known.get(node.id)
    return ".".join([name, *reversed(parts)]) if name else ""


def used_in(chapters):
    """Turn ``{chapter: names}`` into ``{name: chapters}``."""
    names = sorted({name for used in chapters.values() for name in used})
    return {name: [chapter for chapter, used in chapters.items() if name in used] for name in names}


def thing_of(name):
    """Return what a name of the library stands for, or None if nothing there has it."""
    parts = name.split(".")
    for n in range(2, len(parts) + 1):  # of a module inside a module only the import knows
        try:
            return functools.reduce(getattr, parts[n:], importlib.import_module(".".join(parts[:n])))
        except (ImportError, AttributeError):
            continue
    return None


def line(chapters):
    """Return the field that an entry gets, as reStructuredText; Sphinx puts the titles in."""
    return f":Used in: {', '.join(f':doc:`/{chapter}`' for chapter in chapters)}"


def _read_chapters(app, env, added, changed, removed):
    """Read the chapters of this build, and name the API pages whose entries changed with them."""
    before, chapters, behind = getattr(env, "wamlib_used_in", {}), {}, {}
    for chapter in sorted(name for name in env.found_docs if name.startswith("notebooks/")):
        path = Path(env.doc2path(chapter))
        if path.suffix == ".ipynb":
            chapters[chapter] = names_used(json.loads(path.read_text("utf-8")))
            behind[chapter] = [*chapters[chapter], *names_behind(chapters[chapter])]
    env.wamlib_named_in = used_in(chapters)
    now = env.wamlib_used_in = used_in(behind)
    modules = {name.split(".")[1] for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
    return sorted({f"api/{module}" for module in modules} & env.found_docs)


def _list_chapters(app, what, name, thing, options, lines):
    if chapters := app.env.wamlib_used_in.get(name):
        lines += ["", line(chapters), ""]


def _check(app, env):
    # Constants have no entry. To look for one costs an import of the library, so each is looked for once.
    known, seen = env.domains["py"].objects, getattr(env, "wamlib_seen", set())
    # What a module names that is not there, its tests say.
    for name, chapters in env.wamlib_named_in.items():
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
