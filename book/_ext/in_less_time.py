"""Build the book in less time: on all cores, and with one list of chapters for all pages of source code.

jupyter-book has no option for the number of processes. Three extensions do not say whether they may read pages side by
side, and then Sphinx reads one after the other. They keep nothing from page to page, so they may: the theme and the one
for LaTeX do their work before or after all reading, and sphinx-multitoc-numbering when all pages are read.
"""

import importlib
import os

SILENT = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex", "pydata_sphinx_theme")
MOST = 4  # processes: each holds a part of the pages


def setup(app):
    app.parallel = min(MOST, os.cpu_count() or 1)
    app.connect("builder-inited", _allow)
    app.connect("env-before-read-docs", _import_once)
    app.connect("env-updated", _forget_unused)
    app.connect("html-page-context", _keep_list, priority=100)  # before the theme asks for the list
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _allow(app):
    for name in SILENT:
        extension = app.extensions.get(name)
        if extension is not None and extension.parallel_read_safe is None:
            extension.parallel_read_safe = True


def _import_once(app, env, docnames):
    # Or else each process would import what the pages of the library describe, torch with it.
    if any(name.startswith("api/") for name in docnames):
        for name in importlib.import_module("wamlib").__all__:
            importlib.import_module(f"wamlib.{name}")


def _forget_unused(app, env):
    # What viewcode looked at and has no use for, like functools for what functools.cache wraps. Reading one page after
    # the other it drops these by itself, when it begins the next page.
    modules = getattr(env, "_viewcode_modules", {})
    for name in [name for name, entry in modules.items() if entry and not entry[2]]:
        del modules[name]


_lists = {}


def _keep_list(app, pagename, templatename, context, doctree):
    """Make the list of chapters once for the pages of source code in a folder, of which none is in the list."""
    if not pagename.startswith("_modules/") or "toctree" not in context:
        return
    make = context["toctree"]

    def kept(**settings):
        key = (pagename.count("/"), tuple(sorted(settings.items())))
        if key not in _lists:
            _lists[key] = make(**settings)
        return _lists[key]

    context["toctree"] = kept
