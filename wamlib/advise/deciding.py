"""From measurements to one recommendation, with its reasons."""

from typing import NamedTuple

import torch

from .measuring import difference, gain_factor

__all__ = ["OPTIONS", "Decision", "cochran_q", "decide", "soup_is_worse"]

OPTIONS = ("uniform soup", "greedy soup", "align first", "best member", "logit ensemble")
# Standard errors that count as a difference: of two equals one looks better by more in 1 of 6 cases. Set on the setting
# pools of chapter 60, where from 0.5 to 1 nothing changes, and with 2 both kinds of advice cost more accuracy.
NOISE = 1.0
LEVEL = 0.05  # of the test whether members differ
FEW = 100  # labelled images; fewer leave standard errors of five points and more


class Decision(NamedTuple):
    """One of `OPTIONS`, with the sentences that say why."""

    recommendation: str
    reasons: tuple


def decide(measured, budget):
    """Choose among `OPTIONS`.

    A merge of one forward pass is chosen first. If the members do not differ by more than luck, or the predicted
    uniform soup is no worse than the best of them, it is a soup: uniform, or greedy if they do differ. If the soup is
    worse: the aligned one if that is no worse; else a greedy soup, which would leave out what does not fit; else
    the best member, if no midpoint reaches it, for then a greedy soup would hold nothing else. Only then,
    and only with a budget of one pass per member, the logit ensemble is chosen where it is better by
    more than `NOISE` standard errors: what is not better is not worth N passes.

    Parameters
    ----------
    measured : wamlib.advise.Measured
    budget : int
        Forward passes that one prediction may cost.

    Returns
    -------
    Decision
    """
    n_members, right = len(measured.members), measured.members
    p, best = cochran_q(right), int(right.mean(1).argmax())
    reasons = [*_warnings(measured), _members_sentence(measured, p), _soup_sentence(measured)]
    choice, expected = "uniform soup", measured.options["uniform soup"]
    if soup_is_worse(measured):
        choice, expected = _instead(measured, p, best, reasons)
    elif p < LEVEL:
        choice, expected = "greedy soup", max(expected, right[best], key=torch.mean)
        reasons.append("Members that differ are worth choosing among: a greedy soup takes only those that help.")
    gain, noise = difference(measured.options["logit ensemble"], expected)
    said = f"The logit ensemble, at {n_members} passes, is {gain:+.1f} ± {noise:.1f} points from what to expect of that"
    if budget < n_members:
        reasons.append(f"{said}, which a budget of {budget} does not allow.")
    elif gain > NOISE * noise:
        choice = "logit ensemble"
        reasons.append(f"{said}: better by more than {NOISE:g} standard error.")
    else:
        reasons.append(f"{said}: not better by more than {NOISE:g} standard error, so not worth them.")
    if measured.has_batchnorm:
        reasons.append(_batchnorm_sentence(measured))
    return Decision(choice, tuple(reasons))


def soup_is_worse(measured):
    """Return whether the uniform soup is predicted to be worse than its members by more than noise.

    The members' mean is the measure, unless they differ by more than luck: then it is the best of them. (The best of
    equals owes its place to luck.)
    """
    gain, noise = difference(measured.options["uniform soup"], _reference(measured.members))
    return gain < -NOISE * noise


def cochran_q(right):
    """Test whether several models have the same accuracy on the same images: Cochran's Q.

    Parameters
    ----------
    right : Tensor, shape (model, image)
        1 where a model is right, 0 where it is wrong.

    Returns
    -------
    float
        The p-value, by the chi-squared distribution; 1 where all are right about the same images.

    References
    ----------
    Cochran (1950), The comparison of percentages in matched samples. https://doi.org/10.1093/biomet/37.3-4.256
    """
    right = right.double()
    k, by_model, by_image = len(right), right.sum(1), right.sum(0)
    split = (by_image * (k - by_image)).sum()
    if split == 0:
        return 1.0
    q = k * (k - 1) * (by_model - by_model.mean()).square().sum() / split
    half = torch.tensor((k - 1) / 2, dtype=torch.float64)
    return torch.special.gammaincc(half, q / 2).item()


def _reference(right):
    return right[int(right.mean(1).argmax())] if cochran_q(right) < LEVEL else right.mean(0)


def _instead(measured, p, best, reasons):
    """Return what to do where the uniform soup is worse than the members, and what to expect of it."""
    reference = _reference(measured.members)
    midpoints = [100 - pair.errors[pair.alphas.index(0.5)] for pair in measured.pairs if best in (pair.a, pair.b)]
    aligned = measured.options.get("aligned soup")
    if aligned is not None:
        gain, noise = difference(aligned, reference)
        of = "the best member" if p < LEVEL else "a member"
        said = f"With all units in the order of the first, the soup is predicted {gain:+.1f} ± {noise:.1f} points from"
        if gain >= -NOISE * noise:
            reasons.append(f"{said} {of}: they know the same things in another order.")
            return "align first", aligned
        reasons.append(f"{said} {of}: alignment alone does not mend it.")
    elif measured.aligned:
        reasons.append(f"Whether their units are only in another order is not known: {measured.aligned}.")
    if max(midpoints) >= measured.accuracies[best]:
        reasons.append("Yet a midpoint with the best member does not fall below it, so a greedy soup may gain.")
        return "greedy soup", reference
    reasons.append("No midpoint with the best member reaches it: a greedy soup would hold nothing else.")
    return "best member", reference


def _warnings(measured):
    """Return what makes all that follows doubtful."""
    n, chance = measured.members.shape[1], 1 / measured.n_classes
    if max(measured.accuracies) / 100 <= chance + 2 * (chance * (1 - chance) / n) ** 0.5:
        said = f"No member is better than guessing ({100 * chance:.1f} %) on these images, so nothing below means much"
        yield f"{said}: are they of the classes, in the order and with the normalisation of training?"
    if n < FEW:
        yield f"{n} labelled images are few: differences of several points are luck. Some hundred tell more."


def _members_sentence(measured, p):
    accuracies, n = measured.accuracies, measured.members.shape[1]
    share = sum(accuracies) / len(accuracies) / 100
    noise = 100 * (share * (1 - share) / n) ** 0.5
    verdict = "differ by more than luck" if p < LEVEL else "do not differ by more than luck"
    ends = dict.fromkeys(f"{end:.1f}" for end in (min(accuracies), max(accuracies)))
    return f"Members have {' to '.join(ends)} % (± {noise:.1f} on {n} images) and {verdict} (Cochran's Q, p = {p:.2g})."


def _soup_sentence(measured):
    n_members = len(measured.members)
    gain, noise = measured.gain("uniform soup")
    pairs = sum(pair.midpoint_gain for pair in measured.pairs) / len(measured.pairs)
    said = f"Midpoints of two are {pairs:+.1f} points from their ends; times {gain_factor(n_members):.2g}, the soup"
    return f"{said} of {n_members} is predicted at {gain:+.1f} ± {noise:.1f} points from a member."


def _batchnorm_sentence(measured):
    if not measured.recalibrated:
        said = "The model has BatchNorm, and no training images were given: midpoints have averaged statistics"
        return f"{said}, which alone can look like a collapse."
    shift = sum(pair.batchnorm_shift for pair in measured.pairs) / len(measured.pairs)
    said = f"BatchNorm of midpoints was recalibrated, which changed them by {shift:+.1f} points"
    return f"{said}: the prediction is for a soup that is recalibrated too."
