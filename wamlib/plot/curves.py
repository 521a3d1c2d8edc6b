"""Figures of error against members and along a line."""

from .style import closed, facets, log_percent

__all__ = ["error_along_path", "error_vs_members"]


@closed
def error_vs_members(table, combinations):
    """Draw test error on a logarithmic axis against the number of members; rows are architectures, columns starts.

    Parameters
    ----------
    table : DataFrame
        Columns model, start, replica, n_members, combination, accuracy (percent).
    combinations : sequence of str
        Which to draw, in the order of the legend.
    """
    table = table[table.combination.isin(combinations)].assign(error=lambda rows: 100 - rows.accuracy)
    labels = {"xlabel": "Members", "ylabel": "Test error (%)"}
    # An axis for each panel: beside a soup that guesses, differences of a point would be one line.
    fig = facets(table, "n_members", "error", "combination", combinations, sharey=False, **labels)
    for ax in fig.axes:
        log_percent([ax])
    return fig


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
