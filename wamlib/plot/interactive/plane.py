"""An interactive figure: the reader moves a point over the plane through three members."""

import matplotlib
import numpy as np

from ..plane import BANDS, band_colours, excess
from .fragment import interactive_figure, require, select, slider

__all__ = ["plane_figure"]


def plane_figure(table, *, static, alt, letters=("A", "B", "C")):
    """Let the reader move over the plane through three members, from one measured point to the next.

    Parameters
    ----------
    table : DataFrame
        As for `error_over_plane`.
    static : Figure
        What is shown where scripts do not run.
    alt : str
        What ``static`` says, in words.
    letters : sequence of str
        Names of the three members.

    Returns
    -------
    InteractiveFigure

    Raises
    ------
    ValueError
        If the points of a plane are no grid, or a member or the soup is missing.
    """
    planes = []
    for title, part in table.groupby("start", sort=False):
        points = dict(iter(part.groupby("place", sort=False)))
        absent = [place for place in ("grid", *letters, "soup") if place not in points]
        require(not absent, f"'{title}': the table has no {absent}")
        grid = points["grid"].pivot(index="v", columns="u", values="error")
        require(grid.notna().all(axis=None), f"'{title}': the points are no whole grid")
        fixed = {place: points[place][["u", "v", "error"]].iloc[0].round(4).tolist() for place in (*letters, "soup")}
        planes.append({
            "title": title, "us": np.round(grid.columns, 4).tolist(), "vs": np.round(grid.index, 4).tolist(),
            "errors": np.round(grid.to_numpy(), 4).ravel().tolist(),
            "bands": excess(grid.to_numpy(), part).ravel().tolist(),
            "members": [fixed[letter] for letter in letters], "soup": fixed["soup"],
        })  # fmt: skip
    require(planes, "there is no plane: the table is empty")
    shape = (len(planes[0]["us"]), len(planes[0]["vs"]))
    require(all((len(p["us"]), len(p["vs"])) == shape for p in planes), "planes have grids of different sizes")
    colours = [matplotlib.colors.to_hex(colour) for colour in band_colours()]
    data = {"planes": planes, "letters": list(letters), "colours": colours, "bands": BANDS}
    body = f"""\
<div class="live-controls">{select("plane", "Three members with")}
{slider("u", "Along A to B", shape[0], shape[0] // 3, ends=False)}
{slider("v", "Towards C", shape[1], shape[1] // 3, ends=False)}</div>
<p class="live-says" aria-live="polite" data-part="says"></p><div class="live-panels">
<div class="plane-map"><div class="plane-frame"><canvas role="img" data-part="canvas"></canvas>
<svg aria-hidden="true" data-part="marks"></svg></div>
<p class="live-note">Click or drag on the map, or use the sliders. Lengths are to scale.</p></div>
<div class="plane-key"><p class="live-head">Test error above the mean of the three members (points)</p>
<div role="list" data-part="key"></div></div></div>
"""
    return interactive_figure("plane", body, data, static=static, alt=alt)
