"""Claims: tables of measurements in, verdicts out. No verdict is typed."""

import math

import pandas as pd

from .errors import ProbeError
from .stats import mean_interval, replicas_needed

__all__ = ["CLAIMS", "VERDICTS", "ledger", "measure"]

# The worst verdict of several measures is the verdict of all.
VERDICTS = ("does not hold", "undecided", "holds")
ONLY_RELEASED = "holds only under the released protocol"
PROTOCOLS = ("released", "corrected")

# Number: the claim in one sentence, where it comes from, and the control that could kill it.
CLAIMS = {
    "C1": (
        "The rows of a linear classifier look like the means of their classes.",
        "paper, perspective 1",
        "class means dealt to the wrong classes; members trained on shuffled labels",
    ),
    "C2": (
        "How much they do depends on weight decay, and the paper's setting pays for it with accuracy.",
        "this book",
        "weight decays from 0 to where the rows reach the limit that theory names",
    ),
    "C3": (
        "The mean of the rows of two classes is a template of both.",
        "paper, perspective 1",
        "the same with a third class, which is in neither row",
    ),
    "C4": (
        "The mean of the rows of several members keeps likeness and accuracy, and is the logit ensemble.",
        "this book, the step that the paper leaves out",
        "the single member",
    ),
    "C5": (
        "Structure in the weights is enough: members whose weights are structured merge.",
        "the strong reading of the paper, perspective 1",
        "members that are as structured and share no start; units put into another order",
    ),
    "C6": (
        "The logit ensemble is more accurate than the soup of the same members, in most cells.",
        "paper, perspective 2",
        "eval mode, a shared start and recalibrated BatchNorm for both",
    ),
    "C7": (
        "The gap between logit ensemble and soup grows with the difficulty of the task.",
        "paper, perspective 2",
        "architectures and replicas as cells of their own",
    ),
    "C8": (
        "CNNs merge better than ViTs.",
        "paper, perspective 2",
        "everything shared, stem and head too; members at equal distance",
    ),
    "C9": (
        "The gap between logit ensemble and soup grows with the number of members.",
        "this book",
        "many subsets of each size instead of the first members",
    ),
    "C10": (
        "Averaging features is as good as averaging logits.",
        "paper, perspective 2: its ensembles of features",
        "the first head, the averaged head, each member's own",
    ),
    "C11": (
        "Soup and logit ensemble agree for one layer, differ by cross terms for two, and ever more with distance.",
        "paper, perspective 2",
        "the formula for the cross terms, in float64",
    ),
    "C12": (
        "Second derivatives at the soup predict the gap between logit ensemble and soup.",
        "this book, after the expansion in Wortsman et al. (2022), Section 4",
        "a second difference over half the way",
    ),
    "C13": (
        "Networks left in training mode widen the gap between logit ensemble and soup.",
        "this book",
        "the same pools in eval mode",
    ),
    "C14": (
        "A soup bears a change of scale better than a member.",
        "paper, perspective 3",
        "the drop of a member of the same pool, at the same c",
    ),
    "C15": (
        "A change of scale hurts by mismatch between tensors, not by size.",
        "this book",
        "the same c on all layers with biases and BatchNorm statistics to match",
    ),
    "C16": (
        "Larger weights make predictions less stable.",
        "paper, perspective 3",
        "logits brought to their best temperature before anything is compared",
    ),
    "C17": (
        "Averaging shrinks weights, and the deviations by the square root of the number of members.",
        "paper, perspective 3",
        "members that share no start, whose deviations have nothing in common",
    ),
    "C18": (
        "Shrinking is why averaging helps.",
        "paper, perspective 3",
        "a member shrunk to the soup's norms; the soup restored to the members' norms",
    ),
    "C19": (
        "A soup with one member scaled by c is more robust than the weighted average that it is.",
        "paper, perspective 3",
        "the weighted average that gives this member the share c/(c+N-1)",
    ),
    "C20": (
        "Greedy soups bear scaled members because they do not take them.",
        "this book",
        "how many of the candidates that hold a scaled member are taken",
    ),
}


def measure(
    claim, name, values, *, bound, side="above", unit="", dataset="", protocol="corrected", note="", premise=False
):
    """Judge one measurement of a claim.

    Parameters
    ----------
    claim : str
        A key of `CLAIMS`.
    name : str
        What was measured, as a reader of the ledger would say it.
    values : array_like, shape (replica,)
        One number per independent replica.
    bound : float
        What the claim says the mean is above, or below.
    side : {"above", "below"}
        On which side of the bound.
    unit : str
        Unit of the values.
    dataset : str
        Where it was measured, as the ledger shows it.
    protocol : {"released", "corrected"}
        As the paper's code does it, or as this book does.
    note : str
        What the reader should know beside it, such as the architecture.
    premise : bool
        The claim is about cases in which this holds; where it does not, nothing was tested.

    Returns
    -------
    dict
        claim, dataset, protocol, measure, note, unit, premise, side, bound, mean, low, high
        (95 % interval over replicas), n, verdict (of `VERDICTS`) and n_needed: replicas that
        would decide it at the spread found, 0 where it is decided.

    Raises
    ------
    ProbeError
        If the claim, the side or the protocol is unknown, or a value is no number.
    """
    words = ("claim", claim, CLAIMS), ("side", side, ("above", "below")), ("protocol", protocol, PROTOCOLS)
    for item, got, known in words:
        if got not in known:
            fix = "Correct the argument."
            raise ProbeError("cannot judge a claim", item, repr(got), f"one of {', '.join(known)}", fix)
    values = [float(value) for value in values]
    if not values or not all(math.isfinite(value) for value in values):
        fix = "Look at the table they come from."
        raise ProbeError("cannot judge a claim", f"{claim}, {name}", f"{values}", "one finite number per replica", fix)
    mean, low, high, n = mean_interval(values)
    inside, outside = (low > bound, high < bound) if side == "above" else (high < bound, low > bound)
    verdict = "holds" if inside else "does not hold" if outside else "undecided"
    needed = replicas_needed(values, bound) if verdict == "undecided" else 0
    row = {"claim": claim, "dataset": dataset, "protocol": protocol, "measure": name, "note": note, "unit": unit}
    row |= {"premise": premise, "side": side, "bound": bound, "mean": mean, "low": low, "high": high, "n": n}
    return row | {"verdict": verdict, "n_needed": needed}


def ledger(table):
    """Return one verdict for each claim and data set.

    A claim holds under a protocol if each of its measures does, and does not hold if one does
    not; where a premise is not met it is undecided. Where both protocols were measured, the
    corrected one decides, and a claim that only the released one supports is named as such.

    Parameters
    ----------
    table : DataFrame
        One row per measurement, as `measure` returns them, of one chapter or of several.

    Returns
    -------
    DataFrame
        Columns claim, statement, source, control, dataset, released and corrected (verdict under
        each protocol, empty if not measured), verdict, and n_needed: the most replicas that
        an undecided measure of the deciding protocol asks for.
    """
    rows = []
    for (claim, dataset), group in table.groupby(["claim", "dataset"], sort=False):
        by_protocol = {protocol: _together(part) for protocol, part in group.groupby("protocol", sort=False)}
        verdict = by_protocol.get("corrected", by_protocol.get("released"))
        if verdict == "does not hold" and by_protocol.get("released") == "holds":
            verdict = ONLY_RELEASED
        deciding = group[group.protocol == ("corrected" if "corrected" in by_protocol else "released")]
        statement, source, control = CLAIMS[claim]
        row = {"claim": claim, "statement": statement, "source": source, "control": control, "dataset": dataset}
        row |= {protocol: by_protocol.get(protocol, "") for protocol in PROTOCOLS}
        needed = int(deciding.n_needed.max()) if verdict == "undecided" else 0
        rows.append(row | {"verdict": verdict, "n_needed": needed})
    return pd.DataFrame(rows)


def _together(measures):
    """Return the verdict of all measures of one claim under one protocol."""
    if (measures.verdict[measures.premise] != "holds").any():
        return "undecided"
    return min(measures.verdict[~measures.premise], key=VERDICTS.index)
