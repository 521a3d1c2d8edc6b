"""What members, soups and ensembles of one pool say of own and of foreign images."""

from dataclasses import dataclass, replace

import torch

from .. import ensemble, evaluate
from ..errors import ProbeError
from ..merge import greedy_soup, uniform_soup
from .evaluator import Evaluator

__all__ = []

KINDS = ("uniform soup", "greedy soup", "logit ensemble", "probability ensemble")


@dataclass
class Answer:
    """The logits of one network, or of one ensemble, on the test, the selection and the foreign images."""

    test: torch.Tensor
    selection: torch.Tensor
    foreign: list

    def divided(self, temperature):
        """Return the answer at another temperature, fitted on the selection images, which are of no use afterwards."""
        return Answer(self.test / temperature, self.selection, [logits / temperature for logits in self.foreign])


def answers_of(pool, dataset, foreign, kinds, predictions=None):
    """Return a dict of lists: the answers of the members, and one answer for each combination."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ProbeError(
            "cannot combine members", item="kinds", got=repr(unknown[0]), wanted=f"some of {', '.join(KINDS)}",
            fix="Correct the name.",
        )  # fmt: skip
    networks = Networks(pool, dataset, foreign, predictions)
    answers = {"member": networks.members}
    for kind in kinds:
        if kind == "uniform soup":
            answers[kind] = [networks.soup(uniform_soup(networks.states))]
        elif kind == "greedy soup":
            answers[kind] = [networks.greedy(answers.get("uniform soup"))]
        else:
            parts = [[member.test, member.selection, *member.foreign] for member in networks.members]
            test, selection, *others = [pooled(kind, logits) for logits in zip(*parts, strict=True)]
            answers[kind] = [Answer(test, selection, others)]
    return answers


def pooled(kind, logits):
    """Return the logits of an ensemble; of the probability ensemble, logarithms of its probabilities."""
    if kind == "logit ensemble":
        return ensemble.logit_ensemble(logits)
    return ensemble.probability_ensemble(logits).clamp_min(1e-30).log()


class Networks:
    """The members of a pool and their soups, asked about own and foreign images."""

    def __init__(self, pool, dataset, foreign, predictions):
        model, device = pool[0].config.model, dataset.test.images.device
        self.labels, self.states = dataset.selection.labels, [run.state for run in pool]
        self.home = Evaluator(model, dataset, predictions)
        self.abroad = [Evaluator(model, replace(dataset, test=split), predictions) for split in foreign]
        kept = [[run.logits["test"], run.logits["selection"][: len(self.labels)]] for run in pool]
        self.members = [Answer(test.to(device), selection.to(device), self.on_foreign(run.state))
                        for run, (test, selection) in zip(pool, kept, strict=True)]  # fmt: skip

    def on_foreign(self, state):
        return [evaluator.logits(state) for evaluator in self.abroad]

    def soup(self, state):
        """Return the answer of a soup, its BatchNorm recalibrated once for all images: as part of the weights."""
        if self.home.has_batchnorm:
            module = self.home.load(state, recalibrate=True)
            state = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
        return Answer(*self.home.logits(state, ("test", "selection")), self.on_foreign(state))

    def greedy(self, uniform=None):
        """Return the answer of the greedy soup: of one member that member's, of all the uniform soup's, if known."""
        accuracies = [evaluate.accuracy(member.selection, self.labels) for member in self.members]
        known = {id(state): value for state, value in zip(self.states, accuracies, strict=True)}

        def score(state):
            return known[id(state)] if id(state) in known else self.home.selection_accuracy(state, recalibrate=True)

        found = greedy_soup(self.states, score)
        if len(found.accepted) == 1:
            return self.members[found.accepted[0]]
        if uniform and len(found.accepted) == len(self.states):
            return uniform[0]
        return self.soup(found.state)
