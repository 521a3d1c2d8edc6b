"""Make the numbers that the chapters computed available to the prose pages as ``{{ name }}``."""

import json
from pathlib import Path


def setup(app):
    app.connect("config-inited", _read)
    return {"parallel_read_safe": True}


def _read(app, config):
    path = Path(app.srcdir) / "generated" / "findings.json"
    config.myst_substitutions = json.loads(path.read_text())["numbers"]
