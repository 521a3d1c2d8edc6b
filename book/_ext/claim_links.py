"""Lead from a chapter to the rows of the ledger: each "C6" in its prose, and a line under its claims.

Which chapter measured which claim stands in generated/claims.json, which book/tools/collect.py writes.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

CLAIM = re.compile(r"\bC(?:[1-9]|1\d|20)\b")
HEADING = "Claims"
NO_PROSE = (
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.title,
    nodes.reference,
    nodes.target,
    addnodes.pending_xref,
)


def setup(app):
    app.connect("builder-inited", _read)
    app.connect("doctree-read", _link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(app):
    path = Path(app.srcdir) / "generated" / "claims.json"
    app.wamlib_claims = json.loads(path.read_text()) if path.is_file() else {}


def _link(app, doctree):
    docname = app.env.docname
    if docname.startswith("notebooks/"):
        known = {claim for claims in app.wamlib_claims.values() for claim in claims}
        link_mentions(doctree, docname, known)
        add_line(doctree, docname, app.wamlib_claims.get(docname, []))


def link_mentions(doctree, docname, known):
    """Make each claim that is named in running text a link to its row of the ledger."""
    for text in list(doctree.findall(nodes.Text)):
        inside = [text.parent, *_above(text.parent)]
        if any(isinstance(node, NO_PROSE) for node in inside):
            continue
        words, last, found = str(text), 0, []
        for match in CLAIM.finditer(words):
            if match[0] in known:
                found += [nodes.Text(words[last : match.start()]), to_row(match[0], docname)]
                last = match.end()
        if found:
            found.append(nodes.Text(words[last:]))
            text.parent.replace(text, [node for node in found if node.astext()])


def _above(node):
    while node.parent is not None:
        node = node.parent
        yield node


def add_line(doctree, docname, claims):
    """Close the section on claims, or the chapter if it has none, with links to the rows of the ledger."""
    if not claims:
        return
    titles = list(doctree.findall(nodes.title))
    named = [title for title in titles if title.astext() == HEADING]
    line = nodes.paragraph(classes=["ledger-links"])
    line += nodes.Text("In the ledger: ")
    for place, claim in enumerate(claims):
        line += [nodes.Text(", " * bool(place)), to_row(claim, docname)]
    line += nodes.Text(".")
    (named or titles)[0].parent.append(line)


def to_row(claim, docname):
    """Return a link to the row of a claim, to be resolved when all pages are read."""
    link = addnodes.pending_xref(
        "",
        refdomain="std",
        reftype="ref",
        reftarget=f"claim-{claim.lower()}",
        refexplicit=True,
        refwarn=True,
        refdoc=docname,
    )
    link += nodes.inline("", claim, classes=["std", "std-ref"])
    return link
