"""Make numbers of the chapters and of the committed benchmarks, and measured effects, available as ``{{ name }}``."""

import json
from pathlib import Path


def setup(app):
    app.connect("config-inited", _read)
    return {"parallel_read_safe": True}


def _read(app, config):
    source, numbers = Path(app.srcdir), {}
    for path in sorted((source.parent / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        numbers |= result["numbers"] | {"bench_cores": result["machine"]["cores"]}
    found = json.loads((source / "generated" / "findings.json").read_text())["numbers"]
    measured = source / "generated" / "effects.json"  # which a book without the page of deviations does without
    effects = json.loads(measured.read_text()) if measured.is_file() else {}
    config.myst_substitutions = numbers | found | effects
