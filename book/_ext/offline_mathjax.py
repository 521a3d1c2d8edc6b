"""Ship the part of MathJax that the pages use, so that the built book needs no network.

sphinx-mathjax-offline would copy all of its 24 MB; the pages use TeX input and CommonHTML output.
"""

import shutil
from importlib.metadata import files
from pathlib import Path

NEEDED = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")


def setup(app):
    app.connect("builder-inited", _point_to_copy)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True}


def _source():
    for file in files("sphinx-mathjax-offline"):
        if file.name == "tex-chtml.js":
            return Path(file.locate()).parent
    raise RuntimeError("sphinx-mathjax-offline holds no tex-chtml.js; set the environment up anew with `make setup`")


def _point_to_copy(app):
    app.config.mathjax_path = "mathjax/tex-chtml.js"


def _copy(app, error):
    if error is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        for name in NEEDED:
            source = _source() / name
            if source.is_dir():
                shutil.copytree(source, target / name, dirs_exist_ok=True)
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)
