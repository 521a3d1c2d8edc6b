"""An interactive figure: the reader mixes two templates and watches picture, correlation and accuracy."""

import hashlib
import html
import io
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image

__all__ = ["Mixture", "mixing_figure"]

KEYS = {"members": ["alpha"], "classes": ["first", "second", "alpha"]}
PERCENT = {"members": ["accuracy"], "classes": ["recall_first", "recall_second"]}
PAGE = """\
<div class="mixing-figure" id="{id}"><style>{css}</style>
<div class="mixing-static" data-part="static"><img src="data:image/png;base64,{png}" alt="{alt}"></div>
<div class="mixing-live" data-part="live" hidden><div class="mixing-controls">
<div><label for="{id}-mixture">Mix</label><select id="{id}-mixture" data-part="mixture"
 autocomplete="off"></select></div>
<div><label for="{id}-first" data-part="first-label">Class</label><select id="{id}-first" data-part="first"
 autocomplete="off"></select></div>
<div data-part="second-box"><label for="{id}-second">Class at alpha = 1</label><select id="{id}-second"
 data-part="second" autocomplete="off"></select></div>
<div class="mixing-slider"><label for="{id}-alpha">Mixing weight alpha</label><input type="range" id="{id}-alpha"
 data-part="alpha" min="0" max="{last}" step="1" value="{middle}" autocomplete="off">
<div class="mixing-ends" aria-hidden="true"><span data-part="left-end"></span><span data-part="right-end"></span></div>
</div></div>
<p class="mixing-says" aria-live="polite" data-part="says"></p><div class="mixing-panels">
<div class="mixing-template"><p class="mixing-head" data-part="template-head"></p>
<canvas role="img" data-part="canvas"></canvas>
<p class="mixing-note">red: positive weight, blue: negative, white: 0</p></div>
<div class="mixing-bars"><p class="mixing-head">Pearson correlation with each class mean</p>
<div role="list" data-part="bars"></div><div class="mixing-row mixing-axis" aria-hidden="true"><span></span>
<span class="mixing-ends"><span>&minus;1</span><span>0</span><span>1</span></span><span></span></div>
<p class="mixing-note" data-part="omitted"></p></div>
<div class="mixing-chart"><p class="mixing-head" data-part="chart-head"></p>
<svg viewBox="0 0 280 190" aria-hidden="true" data-part="chart"></svg></div>
</div></div><script type="application/json" data-part="data">{data}</script>
<script>{js}</script></div>
"""


@dataclass(frozen=True)
class Mixture:
    """One pair of things that the reader can mix.

    Parameters
    ----------
    title : str
        What is mixed, as the reader finds it in the list: ``"two members, weight decay 0"``.
    first, second : ndarray, shape (class, channel, height, width)
        Weight rows at alpha 0 and at alpha 1, as pictures. Of kind "classes" both are those of
        the one member.
    curves : DataFrame
        Of kind "members": alpha, accuracy (percent, of the mixed model). Of kind "classes", for
        each pair of classes: first, second (class indices, first < second), alpha,
        recall_first, recall_second (percent of the test images of each class that the mixed
        row wins when it stands in place of both rows).
    kind : str
        "members": the same class of two members is mixed; "classes": two classes of one member.
    """

    title: str
    first: np.ndarray
    second: np.ndarray
    curves: pd.DataFrame
    kind: str


class MixingFigure:
    """What `mixing_figure` returns: HTML for a browser, the alt text everywhere else."""

    def __init__(self, page, alt):
        self._page, self._alt = page, alt

    def __repr__(self):
        return self._alt

    def _repr_html_(self):
        return self._page


def mixing_figure(mixtures, class_means, classes, *, static, alt, max_classes=10):
    """Let the reader drag the mixing weight between two templates.

    The page needs no server and loads nothing: pictures, numbers, style and script are in it.
    Without scripts it shows ``static``. Equal arguments give equal bytes.

    Parameters
    ----------
    mixtures : sequence of Mixture
        What the reader can choose from. All curves lie on one grid of alphas, which are the
        stops of the slider, so that no number on the page is interpolated.
    class_means : ndarray, shape (class, channel, height, width)
        Mean image of each class minus the mean of them all.
    classes : sequence of str
        Class names.
    static : Figure
        What is shown where scripts do not run.
    alt : str
        What ``static`` says, in words.
    max_classes : int
        Only the first so many classes are offered and compared with; the page says so.

    Returns
    -------
    MixingFigure
        An object that notebooks show as HTML, and other front ends as ``alt``.

    Raises
    ------
    ValueError
        If shapes, columns or grids of alphas do not fit together.
    """
    means, names = np.asarray(class_means, dtype=float), [str(name) for name in classes]
    _require(means.ndim == 4, f"class_means has shape {means.shape}, wanted (class, channel, height, width)")
    _require(len(names) == len(means), f"{len(names)} class names for {len(means)} class means")
    _require(len(mixtures), "there is nothing to mix: mixtures is empty")
    _require(alt.strip(), "the figure needs an alt text that says what it shows")
    shown = min(len(names), max_classes)
    grid, stacks, described = None, [], []
    for mixture in mixtures:
        first, second = (np.asarray(stack, dtype=float) for stack in (mixture.first, mixture.second))
        grid, numbers = _numbers(mixture, grid, shown)
        fits, same = first.shape == second.shape == means.shape, np.array_equal(first, second)
        _require(fits, f"'{mixture.title}': shapes {first.shape}, {second.shape} against {means.shape} of the means")
        _require(same or mixture.kind == "members", f"'{mixture.title}': classes of one member, but two were given")
        ends = [_index(stacks, stack[:shown]) for stack in (first, second)]
        described.append({"title": mixture.title, "kind": mixture.kind, "ends": ends, **numbers})
    colours = b64encode(matplotlib.colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3].tobytes()).decode()
    data = {
        "classes": names[:shown], "n_classes": len(names), "shape": means.shape[1:], "alphas": grid,
        "means": _index(stacks, means[:shown]), "stacks": stacks, "mixtures": described, "colours": colours,
    }  # fmt: skip
    # "<" is escaped, for a class named "</script>" would end the data.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    png, here = b64encode(_png(static)).decode(), Path(__file__)
    page = PAGE.format(
        id="mixing-" + hashlib.sha256((text + png + alt).encode()).hexdigest()[:12], png=png, data=text,
        alt=html.escape(" ".join(alt.split())), last=len(grid) - 1, middle=(len(grid) - 1) // 2,
        css=here.with_suffix(".css").read_text("utf-8"), js=here.with_suffix(".js").read_text("utf-8"),
    )  # fmt: skip
    return MixingFigure(page, alt)


def _require(holds, sentence):
    if not holds:
        raise ValueError(sentence)


def _numbers(mixture, grid, shown):
    """Return the grid of alphas and the mixture's curves on it, in percent."""
    kind, curves, where = mixture.kind, mixture.curves, f"'{mixture.title}'"
    _require(kind in KEYS, f"{where}: kind is {kind!r}, wanted one of {list(KEYS)}")
    missing = [name for name in KEYS[kind] + PERCENT[kind] if name not in curves]
    _require(not missing, f"{where}: curves lack the columns {missing}")
    lines = {"": curves} if kind == "members" else dict(iter(curves.groupby(["first", "second"])))
    found = {}
    for pair, rows in lines.items():
        rows = rows.sort_values("alpha")
        alphas = [round(float(alpha), 9) for alpha in rows.alpha]
        grid = grid or alphas
        _require(alphas == grid, f"{where} {pair}: alphas {alphas} are not those of the other curves, {grid}")
        _require(np.isfinite(rows[PERCENT[kind]]).all(axis=None), f"{where} {pair}: a value is not finite")
        found[pair] = [[round(float(value), 6) for value in rows[name]] for name in PERCENT[kind]]
    spans = bool(grid) and (grid[0], grid[-1], len(set(grid))) == (0, 1, len(grid))
    _require(spans, f"{where}: alphas are {grid}, wanted each once, from 0 to 1")
    if kind == "members":
        return grid, {"accuracy": found[""][0]}
    # A pair that the reader picks the other way round is read backwards, at 1 - alpha.
    _require(np.allclose(grid, 1 - np.array(grid[::-1])), f"{where}: alphas {grid} do not lie evenly about 0.5")
    pairs = [(i, j) for i in range(shown) for j in range(i + 1, shown)]
    absent = [pair for pair in pairs if pair not in found]
    _require(pairs and not absent, f"{where}: curves lack pairs of classes, {absent}")
    return grid, {"recalls": {f"{i},{j}": found[i, j] for i, j in pairs}}


def _png(figure):
    """Return a figure as the bytes of a PNG of 256 colours, a third of the usual size."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=144)
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def _index(stacks, pictures):
    """Return where the pictures stand among ``stacks``, as 16-bit integers with a scale each."""
    _require(np.isfinite(pictures).all(), "a picture holds a value that is not finite")
    scales = [float(f"{np.abs(picture).max() / 32767:.7g}") or 1.0 for picture in pictures]
    whole = np.round(pictures / np.reshape(scales, (-1, 1, 1, 1))).clip(-32767, 32767).astype("<i2")
    entry = {"scales": scales, "values": b64encode(whole.tobytes()).decode()}
    if entry not in stacks:  # two mixtures of the same member share its pictures
        stacks.append(entry)
    return stacks.index(entry)
