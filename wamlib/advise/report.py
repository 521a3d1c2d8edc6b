"""Advice as text."""

__all__ = ["report"]


def report(advice, names):
    """Return advice as things that `rich.console.Console.print` shows, one after the other.

    Parameters
    ----------
    advice : Advice
    names : sequence of str
        What to call the members.

    Returns
    -------
    list
        Tables and text.
    """
    from rich.table import Table
    from rich.text import Text

    found = advice.to_dict()
    title = f"{found['n_images']} selection images; ± is one standard error"
    members = Table("", "member", "accuracy (%)", "±", "norm", title=title)
    for index, (name, row) in enumerate(zip(names, found["members"], strict=True)):
        numbers = (f"{row[column]:.1f}" for column in ("accuracy", "standard_error", "norm"))
        members.add_row(_letter(index), str(name), *numbers)
    alphas = found["pairs"][0]["alphas"]
    columns = ["pair", "distance", "cosine", *(f"{alpha:g}" for alpha in alphas), "barrier", "midpoint gain"]
    pairs = Table(*columns, padding=0, title="error (%) from one to the other; barrier and gain in points")
    for column in pairs.columns:
        column.overflow = "fold"  # a narrow terminal shows all of it
    for row in found["pairs"]:
        numbers = [f"{row['distance']:.3f}", f"{row['cosine']:.3f}", *(f"{error:.1f}" for error in row["errors"])]
        numbers += [f"{row['barrier']:.1f}", f"{row['midpoint_gain']:+.1f}"]
        pairs.add_row(f"{_letter(row['a'])}-{_letter(row['b'])}", *numbers)
    options = Table("option", "accuracy (%)", "over a member", "±", "how", title="what to expect")
    for name, row in found["options"].items():
        numbers = f"{row['accuracy']:.1f}", f"{row['gain']:+.1f}", f"{row['standard_error']:.1f}"
        options.add_row(name, *numbers, row["how"])
    passes = "1 forward pass" if advice.budget == 1 else f"{advice.budget} forward passes"
    lines = [f"Recommended, at {passes}: {advice.recommendation}", *(f"- {reason}" for reason in advice.reasons)]
    lines.append(f"Next: {_next_step(advice.recommendation, found['has_batchnorm'])}")
    return [members, pairs, options, *(Text(line) for line in lines)]


def _letter(index):
    return chr(65 + index) if index < 26 else str(index)


def _next_step(recommendation, has_batchnorm):
    last = ", then wamlib.merge.recalibrate_batchnorm" if has_batchnorm else ""
    return {
        "uniform soup": f"wamlib merge FILE... -o soup.safetensors{last}",
        "greedy soup": "wamlib.merge.greedy_soup, with the accuracy on these images as its score",
        "align first": f"wamlib.align.permutation and .apply on all members but the first, then a soup{last}",
        "best member": "take it as it is",
        "logit ensemble": "wamlib.ensemble.logit_ensemble, on the logits of all members",
    }[recommendation]
