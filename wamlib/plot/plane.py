"""Figures of the error over the plane through three members."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch

from .style import LOOKS, closed

__all__ = ["error_over_plane"]

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
                name, (point.u, point.v), (6, 5), textcoords="offset points", fontsize=9, fontweight="bold",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            )  # fmt: skip
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
        handles=handles, title="Test error above the mean of the three members (points)",
        loc="outside lower center", ncols=len(handles),
    )  # fmt: skip
    return fig
