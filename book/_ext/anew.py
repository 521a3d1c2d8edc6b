"""Write pages anew when what makes them has changed.

Sphinx looks at the texts, the settings and the templates, but not at the book's own extensions; sphinx.ext.viewcode
looks at nothing but the module whose source a page shows. Neither has a setting for it.
"""

import hashlib
from pathlib import Path

EXTENSIONS = Path(__file__).parent


def setup(app):
    # A setting that changes with the extensions.
    code = b"".join(path.read_bytes() for path in sorted(EXTENSIONS.glob("*.py")))
    app.add_config_value("made_by", hashlib.sha256(code).hexdigest(), "html")
    app.connect("builder-inited", _forget_sources)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _forget_sources(app):
    book = Path(app.srcdir)
    makers = [*EXTENSIONS.glob("*.py"), *book.glob("_templates/*.html"), *book.glob("_config.yml")]
    changed = max(path.stat().st_mtime for path in makers)
    for page in (Path(app.outdir) / "_modules").rglob("*.html"):
        if page.stat().st_mtime < changed:
            page.unlink()
