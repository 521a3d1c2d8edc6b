"""A pool: members that were trained together, the images they are judged on, and what can be made of them."""

import copy
from dataclasses import replace
from functools import cached_property

import torch

from . import data, ensemble, evaluate, models
from .errors import ProbeError
from .merge import greedy_soup, recalibrate_batchnorm, uniform_soup
from .predictions import fingerprint
from .train import pick_device

__all__ = ["ENSEMBLES", "N_RECALIBRATION", "N_SELECTION", "Pool", "combine"]

N_SELECTION = 1_000  # selection images that greedy soups are chosen and temperatures are fitted on, unless said
N_RECALIBRATION = 1_000  # training images that BatchNorm is recalibrated on; chapter 36 shows that fewer would do
ENSEMBLES = ("logit ensemble", "probability ensemble")


class Pool:
    """The runs of one pool and their data set.

    Parameters
    ----------
    runs : sequence of Run
        Members of one architecture, on the same images.
    dataset : wamlib.data.Dataset or None
        None loads the one that the first run's config names.
    n_test, n_selection : int or None
        Use only the first so many test and selection images; None means all.
    predictions : wamlib.predictions.Predictions or None
        Where logits and features are kept for other pools and processes; None keeps them in this pool only.
    device : str or torch.device
        Where networks are evaluated: "auto" takes CUDA, else MPS, else the CPU.

    Attributes
    ----------
    runs, dataset, model
        As given, and the name of the architecture.
    """

    def __init__(self, runs, dataset=None, *, n_test=None, n_selection=None, predictions=None, device="auto"):
        self.runs, self.predictions = list(runs), predictions
        self.model = self.runs[0].config.model
        if dataset is None:
            dataset = images_of(self.runs[0].config)
            for run in self.runs:
                run.check_images(dataset)  # a folder may hold other images than when they were trained
        cut = {
            name: getattr(dataset, name).take(slice(0, n))
            for name, n in (("test", n_test), ("selection", n_selection))
            if n is not None
        }
        self.dataset = replace(dataset, **cut).to(pick_device(device))
        self._memory = {}

    def __len__(self):
        return len(self.runs)

    def first(self, n=None, *, n_test=None, n_selection=None):
        """Return the pool of the first n members, on the first test and selection images; None leaves all."""
        few = {"n_test": n_test, "n_selection": n_selection}
        return Pool(self.runs[:n], self.dataset, **few, predictions=self.predictions, device=self.device)

    @property
    def device(self):
        """Where networks are evaluated."""
        return self.dataset.test.images.device

    @cached_property
    def states(self):
        """The weights of the members, a list of state dicts."""
        return [run.state for run in self.runs]

    @cached_property
    def module(self):
        """The one network that all weights are loaded into."""
        module = models.build(self.model, len(self.dataset.classes), self.dataset.in_channels, self.dataset.image_size)
        return module.to(self.device, memory_format=torch.channels_last)

    @cached_property
    def has_batchnorm(self):
        """Whether there are statistics to recalibrate."""
        return any(key.endswith("running_mean") for key in self.module.state_dict())

    # ---- Networks ----------------------------------------------------------------------------------------------------

    def load(self, state, *, recalibrate=False):
        """Return the network with these weights, BatchNorm recalibrated on training images if asked.

        It is the same network at every call, so that what it was before is gone; see `map` for copies.
        """
        self.module.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(self.module, self.training_batches())
        return self.module

    def recalibrated(self, state):
        """Return a state dict with BatchNorm recalibrated, in the order of the forward pass."""
        found = self.load(state, recalibrate=self.has_batchnorm).state_dict()
        return {key: tensor.detach().clone() for key, tensor in found.items()}

    def training_batches(self, n_images=N_RECALIBRATION):
        """Return the first training images, normalised, in batches of at least two."""
        images = self.dataset.train.take(slice(0, n_images)).batches()
        return [batch for batch, _ in images if len(batch) > 1]

    def soup(self, members=None):
        """Return the uniform soup of all members, or of those at some positions, as a state dict; not recalibrated."""
        return uniform_soup(self.states if members is None else [self.states[i] for i in members])

    def greedy(self, members=None, *, choose=greedy_soup, recalibrate=True, as_they_stand=False):
        """Return a greedy soup, chosen by accuracy on the selection images.

        Parameters
        ----------
        members : sequence of int or None
            Positions of the members that are offered; None means all.
        choose : callable
            Takes members and a score, as `wamlib.merge.greedy_soup`.
        recalibrate : bool
            Whether BatchNorm of every candidate is recalibrated before it is scored.
        as_they_stand : bool
            Whether single members are scored without recalibration, by the logits that their runs keep.

        Returns
        -------
        wamlib.merge.Soup
            Its ``accepted`` counts within ``members``. Its state is not recalibrated; a soup of one is that member.
        """
        positions = list(range(len(self)) if members is None else members)
        offered = [self.states[i] for i in positions]

        def score(state):
            if as_they_stand:
                for position, member in zip(positions, offered, strict=True):
                    if state is member:
                        return evaluate.accuracy(self.recorded("selection")[position], self.dataset.selection.labels)
            return self.accuracy(state, "selection", recalibrate=recalibrate)

        return choose(offered, score)

    def networks(self, kinds=("uniform soup",), *, as_they_stand=False):
        """Return the weights of the members and of soups by name, BatchNorm of the soups recalibrated.

        Parameters
        ----------
        kinds : sequence of str
            Of "uniform soup" and "greedy soup". A greedy soup of one member is that member as it stands; one of all
            members is the uniform soup itself, the same object, if that was asked for before.
        as_they_stand : bool
            As for `greedy`.

        Returns
        -------
        dict of str to dict
            "member 0", "member 1", ..., then the kinds.
        """
        found = {f"member {index}": state for index, state in enumerate(self.states)}
        for kind in kinds:
            if kind == "uniform soup":
                found[kind] = self.recalibrated(self.soup())
            elif kind == "greedy soup":
                greedy = self.greedy(as_they_stand=as_they_stand)
                if len(greedy.accepted) == 1:
                    found[kind] = self.states[greedy.accepted[0]]
                elif len(greedy.accepted) == len(self) and "uniform soup" in found:
                    found[kind] = found["uniform soup"]
                else:
                    found[kind] = self.recalibrated(greedy.state)
            else:
                raise ProbeError(
                    "cannot make a network of a pool",
                    item="kinds",
                    got=repr(kind),
                    wanted="some of 'uniform soup', 'greedy soup'",
                    fix="Correct the name.",
                )
        return found

    def map(self, function, states):
        """Return what a function says of networks, by name.

        Parameters
        ----------
        function : callable
            Takes a network of its own with the weights loaded.
        states : dict of str to dict
            As `networks` returns them.

        Returns
        -------
        dict
        """
        return {name: function(copy.deepcopy(self.load(state))) for name, state in states.items()}

    # ---- Predictions -------------------------------------------------------------------------------------------------

    def recorded(self, split="test"):
        """Return the logits of the members that their runs keep, each of shape (sample, class)."""
        n = len(getattr(self.dataset, split))
        return [run.logits[split][:n].to(self.device) for run in self.runs]

    def logits(self, state, split="test", *, recalibrate=False):
        """Return the logits of a state dict, shape (sample, class).

        Parameters
        ----------
        state : dict of str to Tensor
        split : str or wamlib.data.Split, or tuple of them
            "test", "selection" or "train", or other images; of several a tuple is returned.
        recalibrate : bool
            Whether BatchNorm is recalibrated on training images before.
        """
        return self._predict(evaluate.predict_logits, state, split, recalibrate)

    def features(self, state, split="test", *, recalibrate=False):
        """Return what the head reads, shape (sample, feature); arguments as for `logits`."""
        return self._predict(evaluate.predict_features, state, split, recalibrate)

    def ensemble(self, kind="logit ensemble", split="test", members=None):
        """Return the logits of an ensemble of the members as their runs keep them; see `combine` for the kinds."""
        found = self.recorded(split)
        return combine(found if members is None else [found[i] for i in members], kind)

    def head(self, state):
        """Return the (weight, bias) of the classifier in a state dict."""
        layer = models.head(self.load(state))
        return layer.weight.detach().clone(), layer.bias.detach().clone()

    def accuracy(self, state, split="test", *, recalibrate=False):
        """Return the accuracy of a state dict, in percent."""
        logits = self.logits(state, split, recalibrate=recalibrate)
        return evaluate.accuracy(logits, getattr(self.dataset, split).labels)

    def error(self, state, split="test", *, recalibrate=False):
        """Return the error of a state dict, in percent."""
        return 100 - self.accuracy(state, split, recalibrate=recalibrate)

    def _predict(self, predict, state, split, recalibrate):
        recalibrate, weights = recalibrate and self.has_batchnorm, fingerprint(state)
        loaded = []

        def compute(images):
            if not loaded:  # once for all splits, and only if needed
                loaded.append(self.load(state, recalibrate=recalibrate))
            return predict(loaded[0], images)

        def look_up(one):
            images = getattr(self.dataset, one) if isinstance(one, str) else one
            key = [predict.__name__, self.model, weights, self._read(images), self.device.type]
            key += [N_RECALIBRATION, self._read(self.dataset.train, N_RECALIBRATION)] if recalibrate else []
            return self.keep(key, lambda: compute(images))

        return tuple(look_up(one) for one in split) if isinstance(split, tuple) else look_up(split)

    def keep(self, key, compute):
        """Return a tensor that follows from ``key``, computed once; see `wamlib.predictions.Predictions`."""
        if self.predictions is not None:
            return self.predictions.get(key, compute).to(self.device)
        if tuple(key) not in self._memory:
            self._memory[tuple(key)] = compute()
        return self._memory[tuple(key)]

    def _read(self, split, n_images=None):
        """Return the fingerprint of the images of a split as a model reads them; images do not change under a pool."""
        place = "read", id(split.images), n_images
        if place not in self._memory:
            # The split stands beside its fingerprint, so that no other can come to its place in memory.
            read = {"images": split.images[:n_images], "mean": split.mean, "std": split.std}
            self._memory[place] = fingerprint(read), split
        return self._memory[place][0]


def combine(logits, kind):
    """Return the logits of an ensemble of networks.

    Parameters
    ----------
    logits : sequence of Tensor, shape (sample, class)
    kind : str
        Of `ENSEMBLES`. Of a probability ensemble the logarithms of its probabilities are returned.

    Returns
    -------
    Tensor, shape (sample, class)

    Raises
    ------
    ProbeError
        If the kind is unknown.
    """
    if kind == "logit ensemble":
        return ensemble.logit_ensemble(logits)
    if kind == "probability ensemble":
        return ensemble.probability_ensemble(logits).clamp_min(1e-30).log()
    raise ProbeError(
        "cannot combine members",
        item="kind",
        got=repr(kind),
        wanted=f"one of {', '.join(ENSEMBLES)}",
        fix="Correct the name.",
    )


def images_of(config):
    """Return the data set that a config names, normalised as its model reads it."""
    dataset = data.load(config.dataset, n_train=config.n_train, n_eval=config.n_eval, split_seed=config.split_seed)
    return dataset.with_unit_pixels() if config.pixels == "unit" else dataset
