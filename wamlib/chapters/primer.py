"""What is a merge? Two weights, whose landscape can be drawn."""

from .. import probe

STARTS = {"shared": "shared start", "independent": "independent init"}


def runs(p):
    """Nothing that takes longer than the page."""
    return {}


def numbers(here, lines, losses, test):
    """What the prose says of the lines, of the losses of members and soup, and of the test points."""
    found = {"zero": (test**2).mean(), "n_test": len(test)}
    for short, pair in STARTS.items():
        line = lines[lines.pair == pair]
        found[f"soup_{short}"], found[f"members_{short}"] = losses.soup[pair], losses.members[pair]
        found[f"barrier_{short}"] = probe.barrier_height(line.alpha.tolist(), line.loss.tolist())
    return found


def loss_landscape(surface, lines):
    """Draw a map of the loss with the lines between pairs of members, and the loss along these lines.

    Parameters
    ----------
    surface : DataFrame
        Columns w1, w2 (the two weights, on a whole grid) and loss (at least 0).
    lines : DataFrame
        Columns pair (a kind of start), alpha (mixing weight; 0, 0.5 and 1 are among them), w1, w2 and loss.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    from ..plot.style import KINDS, LOOKS

    fig, (chart, along) = plt.subplots(
        1, 2, figsize=(8.6, 3.9), layout="constrained", gridspec_kw={"width_ratios": [1, 1.1]}
    )
    grid = surface.pivot(index="w2", columns="w1", values="loss")
    # Each level is twice the last: the floor of the valley and the hills are both to be seen.
    levels = [0, *np.geomspace(0.01, 5, 10)]
    filled = chart.contourf(grid.columns, grid.index, grid, levels=levels, cmap="viridis_r", extend="max")
    filled.set_edgecolor("face")  # else hairlines show between the bands
    chart.set(xlabel="First weight", ylabel="Second weight", aspect="equal")
    chart.grid(False)
    for pair, line in lines.groupby("pair", sort=False):
        colour, _ = KINDS[pair]
        dash = "-" if pair == "shared start" else (0, (5, 1.5))
        chart.plot(line.w1, line.w2, color="white", linewidth=3.2)
        chart.plot(line.w1, line.w2, color=colour, linestyle=dash)
        along.plot(line.alpha, line.loss, color=colour, linestyle=dash, label=pair)
        ends, middle = line[line.alpha.isin([0.0, 1.0])], line[line.alpha == 0.5]
        member, soup = LOOKS["member"], LOOKS["uniform soup"]
        for ax, x, y in ((chart, "w1", "w2"), (along, "alpha", "loss")):
            ax.plot(
                ends[x], ends[y], linestyle="", marker=member[1], color=member[0], markeredgecolor="white", markersize=8
            )
            ax.plot(
                middle[x], middle[y], linestyle="", marker=soup[1], color=soup[0], markeredgecolor="white", markersize=9
            )
    along.plot([], [], linestyle="", marker=soup[1], color=soup[0], markersize=8, label="soup of the two")
    along.set(xlabel="Mixing weight α", ylabel="Loss")
    fig.legend(loc="outside lower center", ncols=3)
    plt.close(fig)
    return fig
