"""Build the book in less time: read and write its pages on all cores, for which jupyter-book has no option."""

import importlib
import os

MOST = 4  # processes: each holds a part of the pages


def setup(app):
    app.parallel = min(MOST, os.cpu_count() or 1)
    app.connect("builder-inited", _allow)
    app.connect("env-before-read-docs", _import_once)
    app.connect("env-updated", _forget_unused)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _allow(app):
    # It does not say whether pages may be read side by side, and then none are. It does its work when all are read.
    numbering = app.extensions.get("sphinx_multitoc_numbering")  # which sphinx-external-toc brings
    if numbering is not None and numbering.parallel_read_safe is None:
        numbering.parallel_read_safe = True


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
