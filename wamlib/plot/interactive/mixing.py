"""An interactive figure: the reader mixes two templates and watches picture, correlation and accuracy."""

from base64 import b64encode
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd

from .fragment import interactive_figure, require, select, slider

__all__ = ["Mixture", "mixing_figure"]

KEYS = {"members": ["alpha"], "classes": ["first", "second", "alpha"]}
PERCENT = {"members": ["accuracy"], "classes": ["recall_first", "recall_second"]}


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
    InteractiveFigure
        An object that notebooks show as HTML, and other front ends as ``alt``.

    Raises
    ------
    ValueError
        If shapes, columns or grids of alphas do not fit together.
    """
    means, names = np.asarray(class_means, dtype=float), [str(name) for name in classes]
    require(means.ndim == 4, f"class_means has shape {means.shape}, wanted (class, channel, height, width)")
    require(len(names) == len(means), f"{len(names)} class names for {len(means)} class means")
    require(len(mixtures), "there is nothing to mix: mixtures is empty")
    shown = min(len(names), max_classes)
    grid, stacks, described = None, [], []
    for mixture in mixtures:
        first, second = (np.asarray(stack, dtype=float) for stack in (mixture.first, mixture.second))
        grid, numbers = _numbers(mixture, grid, shown)
        fits, same = first.shape == second.shape == means.shape, np.array_equal(first, second)
        require(fits, f"'{mixture.title}': shapes {first.shape}, {second.shape} against {means.shape} of the means")
        require(same or mixture.kind == "members", f"'{mixture.title}': classes of one member, but two were given")
        ends = [_index(stacks, stack[:shown]) for stack in (first, second)]
        described.append({"title": mixture.title, "kind": mixture.kind, "ends": ends, **numbers})
    colours = b64encode(matplotlib.colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3].tobytes()).decode()
    data = {
        "classes": names[:shown], "n_classes": len(names), "shape": means.shape[1:], "alphas": grid,
        "means": _index(stacks, means[:shown]), "stacks": stacks, "mixtures": described, "colours": colours,
    }  # fmt: skip
    return interactive_figure("mixing", _body(len(grid)), data, static=static, alt=alt)


def _body(stops):
    return f"""\
<div class="live-controls">{select("mixture", "Mix")}{select("first", "Class")}{select("second", "Class at alpha = 1")}
{slider("alpha", "Mixing weight alpha", stops, (stops - 1) // 2)}</div>
<p class="live-says" aria-live="polite" data-part="says"></p><div class="live-panels">
<div class="mixing-template"><p class="live-head" data-part="template-head"></p>
<canvas role="img" data-part="canvas"></canvas>
<p class="live-note">red: positive weight, blue: negative, white: 0</p></div>
<div class="mixing-bars"><p class="live-head">Pearson correlation with each class mean</p>
<div role="list" data-part="bars"></div><div class="mixing-row mixing-axis" aria-hidden="true"><span></span>
<span class="live-ends"><span>&minus;1</span><span>0</span><span>1</span></span><span></span></div>
<p class="live-note" data-part="omitted"></p></div>
<div class="mixing-chart"><p class="live-head" data-part="chart-head"></p>
<svg viewBox="0 0 280 190" aria-hidden="true" data-part="chart"></svg></div></div>
"""


def _numbers(mixture, grid, shown):
    """Return the grid of alphas and the mixture's curves on it, in percent."""
    kind, curves, where = mixture.kind, mixture.curves, f"'{mixture.title}'"
    require(kind in KEYS, f"{where}: kind is {kind!r}, wanted one of {list(KEYS)}")
    missing = [name for name in KEYS[kind] + PERCENT[kind] if name not in curves]
    require(not missing, f"{where}: curves lack the columns {missing}")
    lines = {"": curves} if kind == "members" else dict(iter(curves.groupby(["first", "second"])))
    found = {}
    for pair, rows in lines.items():
        rows = rows.sort_values("alpha")
        alphas = [round(float(alpha), 9) for alpha in rows.alpha]
        grid = grid or alphas
        require(alphas == grid, f"{where} {pair}: alphas {alphas} are not those of the other curves, {grid}")
        require(np.isfinite(rows[PERCENT[kind]]).all(axis=None), f"{where} {pair}: a value is not finite")
        found[pair] = [[round(float(value), 6) for value in rows[name]] for name in PERCENT[kind]]
    spans = bool(grid) and (grid[0], grid[-1], len(set(grid))) == (0, 1, len(grid))
    require(spans, f"{where}: alphas are {grid}, wanted each once, from 0 to 1")
    if kind == "members":
        return grid, {"accuracy": found[""][0]}
    # A pair that the reader picks the other way round is read backwards, at 1 - alpha.
    require(np.allclose(grid, 1 - np.array(grid[::-1])), f"{where}: alphas {grid} do not lie evenly about 0.5")
    pairs = [(i, j) for i in range(shown) for j in range(i + 1, shown)]
    absent = [pair for pair in pairs if pair not in found]
    require(pairs and not absent, f"{where}: curves lack pairs of classes, {absent}")
    return grid, {"recalls": {f"{i},{j}": found[i, j] for i, j in pairs}}


def _index(stacks, pictures):
    """Return where the pictures stand among ``stacks``, as 16-bit integers with a scale each."""
    require(np.isfinite(pictures).all(), "a picture holds a value that is not finite")
    scales = [float(f"{np.abs(picture).max() / 32767:.7g}") or 1.0 for picture in pictures]
    whole = np.round(pictures / np.reshape(scales, (-1, 1, 1, 1))).clip(-32767, 32767).astype("<i2")
    entry = {"scales": scales, "values": b64encode(whole.tobytes()).decode()}
    if entry not in stacks:  # two mixtures of the same member share its pictures
        stacks.append(entry)
    return stacks.index(entry)
