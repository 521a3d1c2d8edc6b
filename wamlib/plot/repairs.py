"""What figures of repaired networks share."""

from .style import closed, facets

__all__ = []

REPAIRS = {"none": "uniform soup", "recalibrated": "uniform soup, recalibrated", "REPAIR": "REPAIR"}  # as they look
LABELS = {
    "uniform soup": "as interpolated",
    "uniform soup, recalibrated": "BatchNorm recalibrated",
    "REPAIR": "REPAIR",
}
MATCHINGS = {"none": "units as trained", "weights": "matched by weights", "activations": "matched by activations"}


@closed
def by_repair(table, x, y, **labels):
    """Draw a column by repair, with its mean and interval; rows are architectures, columns are matchings.

    Parameters
    ----------
    table : DataFrame
        Columns model, replica, matching and repair, as in `wamlib.pairs`, and those named by x and y.
    x, y : str
    **labels
        Of the axes, as for `facets`.
    """
    named = table.assign(look=table.repair.map(REPAIRS), column=table.matching.map(MATCHINGS))
    fig = facets(named, x, y, "look", list(LABELS), column_by="column", **labels)
    for text in fig.legends[0].get_texts():
        text.set_text(LABELS[text.get_text()])
    return fig
