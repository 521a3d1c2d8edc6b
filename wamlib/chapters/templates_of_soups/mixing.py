"""An interactive figure: the reader mixes two templates and watches picture, correlation and accuracy."""

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from ...plot.interactive.fragment import interactive_figure, require, select, slider

__all__ = ["Mixture", "mixing_figure"]

KEYS = {"members": ["alpha"], "classes": ["first", "second", "alpha"]}
PERCENT = {"members": ["accuracy"], "classes": ["recall_first", "recall_second"]}


@dataclass(frozen=True)
class Mixture:
    """One pair of things that the reader can mix.

    Of kind "members" the same class of two members: ``first`` and ``second`` are their rows as pictures (class,
    channel, height, width), curves has alpha and accuracy (%). Of kind "classes" two classes of one member, whose rows
    are both ``first`` and ``second``: curves has, for each pair first < second, alpha, recall_first and recall_second.
    """

    title: str
    first: np.ndarray
    second: np.ndarray
    curves: pd.DataFrame
    kind: str


def mixing_figure(mixtures, class_means, classes, *, static, alt, max_classes=10):
    """Let the reader drag the mixing weight between two templates; the page needs no server and loads nothing.

    All curves lie on one grid of alphas, the stops of the slider, so that no number on the page is interpolated. Only
    the first ``max_classes`` are offered and compared with; the page says so. Where scripts do not run ``static``
    stands, and ``alt`` says it in words. Equal arguments give equal bytes; what does not fit together is a ValueError.
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
        "classes": names[:shown],
        "n_classes": len(names),
        "shape": means.shape[1:],
        "alphas": grid,
        "means": _index(stacks, means[:shown]),
        "stacks": stacks,
        "mixtures": described,
        "colours": colours,
    }
    return interactive_figure("mixing", _body(len(grid)), data, static=static, alt=alt, folder=Path(__file__).parent)


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
