"""For a page that is built alone: references to the rest of the book become the titles they lead to, without a link."""

import re
from pathlib import Path

from docutils import nodes


def setup(app):
    app.add_config_value("elsewhere_chapters", "", "env", types=[str])  # folder of the chapters' texts
    app.connect("missing-reference", _title)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _title(app, env, node, content):
    if node.get("refdomain") == "py" or node.get("refexplicit"):
        return content
    title = chapter_of(app.config.elsewhere_chapters, node["reftarget"].rpartition("/")[2])
    return nodes.emphasis(title, title) if title else content


def chapter_of(folder, target):
    """Return the title of the chapter that has a label, an equation or a figure of this name, or is called so."""
    for path in sorted(Path(folder).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        mark = rf"^\({re.escape(target)}\)=|^:name: {re.escape(target)}$|^\$\$ \({re.escape(target)}\)"
        if path.stem == target or re.search(mark, text, re.M):
            return re.search(r"^# (.+)", text, re.M)[1]
    return None
