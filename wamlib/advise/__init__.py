"""Advice on a pool of members: measure, predict what a merge would give, and say what to do and why."""

from dataclasses import dataclass

from torch import nn

from ..errors import MemberMismatchError, ProbeError
from ..merge import check_members, strip_prefixes
from .deciding import LEVEL, NOISE, OPTIONS, Decision, cochran_q, decide, soup_is_worse
from .loading import build_model, find_member, open_selection, read_member
from .measuring import ALPHAS, Measured, Pair, aligned, gain_factor, measure, with_alignment
from .report import report
from .writing import write_soup

__all__ = [
    "ALPHAS",
    "LEVEL",
    "NOISE",
    "OPTIONS",
    "Advice",
    "Decision",
    "Measured",
    "Pair",
    "advise",
    "aligned",
    "build_model",
    "cochran_q",
    "decide",
    "find_member",
    "gain_factor",
    "open_selection",
    "read_member",
    "report",
    "write_soup",
]

DOING = "cannot advise"


@dataclass(frozen=True)
class Advice:
    """What to do with a pool of members, and why.

    Parameters
    ----------
    measured : Measured
    budget : int
        Forward passes that one prediction may cost.
    recommendation : str
        One of `OPTIONS`.
    reasons : tuple of str
        Sentences.
    """

    measured: Measured
    budget: int
    recommendation: str
    reasons: tuple

    def with_budget(self, budget):
        """Return the advice that the same measurements give for another budget."""
        return Advice(self.measured, budget, *decide(self.measured, _checked_budget(budget)))

    def to_dict(self):
        """Return everything as plain values that JSON can hold; accuracies in percent, differences in points."""
        found, n = self.measured, self.measured.members.shape[1]
        members = [
            {"accuracy": accuracy, "standard_error": (accuracy * (100 - accuracy) / n) ** 0.5, "norm": norm}
            for accuracy, norm in zip(found.accuracies, found.norms, strict=True)
        ]
        options = {}
        for name in found.options:
            gain, noise = found.gain(name)
            how = "measured" if name == "logit ensemble" else "predicted"
            options[name] = {"accuracy": found.accuracy(name), "gain": gain, "standard_error": noise, "how": how}
        pairs = [{**vars(pair), "alphas": list(pair.alphas), "errors": list(pair.errors)} for pair in found.pairs]
        said = {"recommendation": self.recommendation, "reasons": list(self.reasons), "budget": self.budget}
        said |= {"n_members": len(members), "n_images": n, "members": members}
        said |= {"members_differ_p": cochran_q(found.members), "pairs": pairs, "options": options}
        said |= {"not_aligned_because": found.aligned or None, "has_batchnorm": found.has_batchnorm}
        return said | {"recalibrated": found.recalibrated}


def advise(members, model, selection, *, training_batches=None, budget=1, alphas=ALPHAS, predict=None):
    """Say what to do with trained members: a soup, a greedy soup, the ensemble, alignment first, or the best alone.

    The soup of all members is not made but predicted from the midpoints of pairs, by `gain_factor`, so that what is
    said here can be wrong, and chapter 60 of the book asks how often it is.

    Parameters
    ----------
    members : sequence of dict of str to Tensor
        State dicts of one architecture; at least two.
    model : torch.nn.Module
        Of that architecture, on the device where to compute. Left as it is.
    selection : wamlib.data.Split
        Labelled images that no member was trained on, on that device; at least two.
    training_batches : iterable of Tensor or None
        Normalised training images, to recalibrate the BatchNorm of merged networks; see
        `wamlib.merge.recalibrate_batchnorm`. A model without BatchNorm needs none.
    budget : int
        Forward passes that one prediction may cost: 1 for one network, N for the ensemble of N.
    alphas : sequence of float
        Inner points of the path between two members; 1/2 is always one of them.
    predict : callable or None
        Takes a state dict and whether to recalibrate BatchNorm, and returns its logits on the selection
        images, for those who keep predictions; None runs the model.

    Returns
    -------
    Advice

    Raises
    ------
    ProbeError
        If there are fewer than two members or images, the budget is no positive integer, an alpha does not lie
        in (0, 1), the model is no module or its output no logits for the labels there are.
    MemberMismatchError, NonFiniteMemberError
        If members do not fit each other or the model.

    References
    ----------
    Wortsman et al. (2022), Model soups, Section 4, for the error near a soup as a quadratic form.
    https://arxiv.org/abs/2203.05482
    """
    members = [strip_prefixes(member) for member in members]
    _check(members, model, selection, alphas)
    budget = _checked_budget(budget)
    training_batches = None if training_batches is None else list(training_batches)
    settings = {"training_batches": training_batches, "predict": predict}
    measured = measure(members, model, selection, alphas=alphas, **settings)
    if soup_is_worse(measured):
        measured = with_alignment(measured, members, model, selection, **settings)
    return Advice(measured, budget, *decide(measured, budget))


def _check(members, model, selection, alphas):
    """Refuse what nothing could be said about."""
    if len(members) < 2:
        fix = "Pass every checkpoint that could be merged."
        raise ProbeError(DOING, "the members", f"{len(members)}", "at least two", fix)
    if not isinstance(model, nn.Module):
        fix = "Pass the network, built."
        raise ProbeError(DOING, "the model", f"a {type(model).__name__}", "a torch.nn.Module", fix)
    if len(selection) < 2:
        fix = "Pass images that no member was trained on; a few hundred tell differences of a point."
        raise ProbeError(DOING, "the selection set", f"{len(selection)} labelled images", "at least two", fix)
    if not all(0 < alpha < 1 for alpha in alphas):
        fix = "Leave out the ends, which are the members."
        raise ProbeError(DOING, "alphas", f"{list(alphas)}", "numbers between 0 and 1", fix)
    check_members(members)
    own, first = model.state_dict(), members[0]
    differ = sorted(own.keys() ^ first.keys()) or sorted(key for key in own if own[key].shape != first[key].shape)
    if differ:
        key = differ[0]
        what = "a shape of its own" if key in own and key in first else "not in both"
        got = f"{len(differ)} key(s) that do not fit, first {key!r} ({what})"
        fix = "Pass the builder, and the number of classes, that they were trained with."
        raise MemberMismatchError(DOING, "the members", got, "the keys and shapes of the model's state dict", fix)
    logits = _first_logits(model, selection)
    if logits.dim() != 2:
        wanted, fix = "logits of shape (sample, class)", "Wrap the model so that it returns them."
        raise ProbeError(DOING, "the model", f"an output of shape {tuple(logits.shape)}", wanted, fix)
    low, high = int(selection.labels.min()), int(selection.labels.max())
    if low < 0 or high >= logits.shape[1]:
        wanted = f"0 to {logits.shape[1] - 1}, one for each logit of the model"
        raise ProbeError(DOING, "the labels", f"{low} to {high}", wanted, "Number the classes as in training.")


def _first_logits(model, selection):
    from ..evaluate import predict_logits

    try:
        return predict_logits(model, selection.take(slice(0, 2)))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:  # the model's own code
        reason = str(error).partition("\n")[0][:160]
        wanted, fix = "logits", "Do size and channels of the images fit the model?"
        raise ProbeError(DOING, "the model", f"{type(error).__name__} on the images ({reason})", wanted, fix) from error


def _checked_budget(budget):
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        fix = "Correct the argument."
        raise ProbeError(DOING, "the budget", repr(budget), "a number of forward passes, 1 or more", fix)
    return budget
