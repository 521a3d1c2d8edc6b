"""Interactive figures are fragments of HTML: data, style, script and a static picture, all in one piece."""

import hashlib
import html
import io
import json
from base64 import b64encode
from pathlib import Path

from PIL import Image

__all__ = []

HERE = Path(__file__).parent
PAGE = """\
<div class="live-figure {kind}-figure" data-interactive="{kind}" id="{id}"><style>{css}</style>
<div class="live-static" data-part="static"><img src="data:image/png;base64,{png}" alt="{alt}"></div>
<div data-part="live" hidden>{body}</div><script type="application/json" data-part="data">{data}</script>
<script>{js}</script></div>
"""


class InteractiveFigure:
    """HTML for a browser, the alt text everywhere else."""

    def __init__(self, page, alt):
        self._page, self._alt = page, alt

    def __repr__(self):
        return self._alt

    def _repr_html_(self):
        return self._page


def interactive_figure(kind, body, data, *, static, alt, folder=HERE):
    """Assemble the fragment of one kind of figure; ``{id}`` in its body is an id of its own.

    Its script and style, ``<kind>.js`` and ``<kind>.css``, lie in ``folder``, beside the code that knows them. Equal
    arguments give equal bytes. Where scripts do not run, ``static`` stands.
    """
    require(alt.strip(), "the figure needs an alt text that says what it shows")
    # "<" is escaped, for a name like "</script>" would end the data.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    png = b64encode(_png(static)).decode()
    name = f"{kind}-" + hashlib.sha256((text + png + alt).encode()).hexdigest()[:12]
    words = html.escape(" ".join(alt.split()))
    page = PAGE.format(
        kind=kind,
        id=name,
        body=body.replace("{id}", name),
        png=png,
        data=text,
        alt=words,
        css=_both(kind, "css", folder),
        js=script(kind, folder),
    )
    return InteractiveFigure(page, alt)


def script(kind, folder=HERE):
    """Return the script of one kind of figure. `book/tools/check_scripts.py` knows it, and no other."""
    return f'(() => {{\n"use strict";\n{_both(kind, "js", folder)}}})();'


def _both(kind, suffix, folder):
    files = HERE / f"fragment.{suffix}", Path(folder) / f"{kind}.{suffix}"
    return "".join(path.read_text("utf-8") for path in files)


def require(holds, sentence):
    """Refuse arguments that do not fit together."""
    if not holds:
        raise ValueError(sentence)


def select(part, label):
    """Return a labelled list of options, which the script fills."""
    return (
        f'<div data-part="{part}-box"><label for="{{id}}-{part}" data-part="{part}-label">{html.escape(label)}'
        f'</label><select id="{{id}}-{part}" data-part="{part}" autocomplete="off"></select></div>'
    )


def slider(part, label, stops, at, ends=True):
    """Return a labelled slider with so many stops, and room for the words at its ends."""
    words = (
        (
            '<div class="live-ends" aria-hidden="true"><span data-part="left-end"></span>'
            '<span data-part="right-end"></span></div>'
        )
        if ends
        else ""
    )
    return (
        f'<div class="live-slider"><label for="{{id}}-{part}">{html.escape(label)}</label>'
        f'<input type="range" id="{{id}}-{part}" data-part="{part}" min="0" max="{stops - 1}" step="1" value="{at}"'
        f' autocomplete="off">{words}</div>'
    )


def _png(figure):
    """Return a figure as the bytes of a PNG of 256 colours, a third of the usual size."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=144)
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()
