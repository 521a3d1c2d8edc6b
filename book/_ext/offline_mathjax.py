"""Ship the part of MathJax that the pages use, so that the built book needs no network.

sphinx-mathjax-offline would copy all of its 24 MB. The pages use TeX input, CommonHTML output, and formulas in words
for those who cannot see them: as the parts they are, 0.4 MB less than the usual bundle, which adds a menu.
"""

import shutil
from importlib.metadata import files
from pathlib import Path

PARTS = ("input/tex", "output/chtml", "a11y/assistive-mml")
NEEDED = ("startup.js", "core.js", *(f"{part}.js" for part in PARTS), "output/chtml/fonts", "input/tex/extensions")


def setup(app):
    app.connect("config-inited", _point_to_copy)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True}


def _source():
    for file in files("sphinx-mathjax-offline"):
        if file.name == "startup.js":
            return Path(file.locate()).parent
    raise RuntimeError("sphinx-mathjax-offline holds no startup.js; set the environment up anew with `make setup`")


def _point_to_copy(app, config):
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {"loader": {"load": list(PARTS)}}


def _copy(app, error):
    if error is None and app.builder.format == "html":
        target = Path(app.outdir) / "_static" / "mathjax"
        for name in NEEDED:
            source = _source() / name
            if source.is_dir():
                shutil.copytree(source, target / name, dirs_exist_ok=True)
            else:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)
