"""The error over the plane through three members, as a map and as a figure that a reader moves about in."""

import itertools
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from ...plot.interactive.fragment import interactive_figure, require, select, slider
from ...plot.style import LOOKS, closed

__all__ = ["error_over_plane", "plane_figure"]

BANDS = [0, 1, 2, 5, 10, 20, 40]  # points above the mean of the three members; below, between and above


def band_colours():
    """Return one colour for each band, from light (no worse than the members) to dark."""
    return plt.get_cmap("viridis_r")(np.linspace(0.02, 1, len(BANDS) + 1))


def excess(errors, rows):
    """Return the band that each error falls into, seen from the mean error of the three members of a plane."""
    members = rows[rows.place.isin(["A", "B", "C"])].error.mean()
    return np.digitize(np.asarray(errors) - members, BANDS)


@closed
def error_over_plane(table):
    """Draw bands of the test error over the plane through three members; columns are starts.

    Parameters
    ----------
    table : DataFrame
        Columns start, place ("grid", "A", "B", "C" or "soup"), u, v (coordinates in the plane: member A is the
        origin, B lies at u = 1) and error (percent). The points of the grid are complete.
    """
    starts = list(dict.fromkeys(table.start))
    fig, axes = plt.subplots(1, len(starts), figsize=(3.1 * len(starts), 3.6), layout="constrained", squeeze=False)
    colours, used = band_colours(), set()
    for ax, start in zip(axes.flat, starts):
        rows = table[table.start == start]
        grid = rows[rows.place == "grid"].pivot(index="v", columns="u", values="error")
        bands = excess(grid.to_numpy(), rows)
        used |= set(bands.ravel().tolist())
        half_u, half_v = np.diff(grid.columns)[0] / 2, np.diff(grid.index)[0] / 2
        extent = (grid.columns[0] - half_u, grid.columns[-1] + half_u, grid.index[0] - half_v, grid.index[-1] + half_v)
        norm = BoundaryNorm(np.arange(len(colours) + 1) - 0.5, len(colours))
        ax.imshow(bands, origin="lower", extent=extent, cmap=ListedColormap(colours), norm=norm, interpolation="none")
        corners = rows.set_index("place").loc[["A", "B", "C", "A"]]
        ax.plot(corners.u, corners.v, color="white", linestyle="--", linewidth=1)
        for name in ("A", "B", "C", "soup"):
            point = rows[rows.place == name].iloc[0]
            colour, marker, _ = LOOKS["uniform soup" if name == "soup" else "member"]
            ax.plot(point.u, point.v, marker=marker, color=colour, markeredgecolor="white", markersize=8)
            ax.annotate(
                name,
                (point.u, point.v),
                (6, 5),
                textcoords="offset points",
                fontsize=9,
                fontweight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            )
        ax.set(title=start, xlabel="Along A to B")
        ax.grid(False)
    axes[0, 0].set_ylabel("Towards C")
    names = [
        f"below {BANDS[0]}",
        *(f"{low} to {high}" for low, high in itertools.pairwise(BANDS)),
        f"above {BANDS[-1]}",
    ]
    handles = [Patch(color=colours[k], label=names[k]) for k in sorted(used)]
    fig.legend(
        handles=handles,
        title="Test error above the mean of the three members (points)",
        loc="outside lower center",
        ncols=len(handles),
    )
    return fig


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
        planes.append(
            {
                "title": title,
                "us": np.round(grid.columns, 4).tolist(),
                "vs": np.round(grid.index, 4).tolist(),
                "errors": np.round(grid.to_numpy(), 4).ravel().tolist(),
                "bands": excess(grid.to_numpy(), part).ravel().tolist(),
                "members": [fixed[letter] for letter in letters],
                "soup": fixed["soup"],
            }
        )
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
    return interactive_figure("plane", body, data, static=static, alt=alt, folder=Path(__file__).parent)
