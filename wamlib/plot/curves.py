"""The error along the line between two members."""

from .style import closed, facets

__all__ = ["error_along_path"]


@closed
def error_along_path(table, ylabel="Test error (%)"):
    """Draw test error along the line between two members; rows are architectures, columns are starts.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, replica, alpha, error (percent), recalibrated (bool).
    ylabel : str
        What the errors are of.
    """
    names = {False: "uniform soup", True: "uniform soup, recalibrated"}
    table = table.assign(line=table.recalibrated.map(names))
    fig = facets(table, "alpha", "error", "line", list(names.values()), xlabel="Mixing weight α", ylabel=ylabel)
    for ax in fig.axes:
        ax.set_ylim(0, min(100, ax.get_ylim()[1]))
    labels = {"uniform soup": "weights as interpolated", "uniform soup, recalibrated": "BatchNorm recalibrated"}
    for text in fig.legends[0].get_texts():
        text.set_text(labels.get(text.get_text(), text.get_text()))
    return fig
