"""Public functions called with what they cannot use: members, weights, scores and logits of the wrong kind."""

import math

import pytest
import torch
from checker import check_refused
from helpers import bn_model, linear_state, random_split

from wamlib import ensemble, merge, models, probe

NAN, INF = math.nan, math.inf
A, B = linear_state(0), linear_state(1)
BASE, HALF = linear_state(2), torch.zeros(2, dtype=torch.half)
LOGITS, LABELS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
SPLIT = random_split(6)
PIXELS = SPLIT.normalize(SPLIT.images)


def bent(**changes):
    return {**A, **changes}


MERGES = {
    "no members": lambda: merge.uniform_soup([]),
    "members that are nothing": lambda: merge.uniform_soup(None),
    "members that are one state dict": lambda: merge.uniform_soup(A),
    "members that are modules": lambda: merge.uniform_soup([NET, NET]),
    "members that are files": lambda: merge.uniform_soup(["a.safetensors", "b.safetensors"]),
    "members in a list more": lambda: merge.uniform_soup([[A, B]]),
    "a member that is nothing": lambda: merge.uniform_soup([A, None]),
    "a member of arrays": lambda: merge.uniform_soup([{"w": A["weight"].numpy()}] * 2),
    "a member of members": lambda: merge.uniform_soup([{"model": A}, {"model": B}]),
    "keys that are numbers": lambda: merge.uniform_soup([{0: A["weight"]}] * 2),
    "other keys": lambda: merge.uniform_soup([A, {"weight": A["weight"]}]),
    "other shapes": lambda: merge.uniform_soup([A, linear_state(1, rows=4)]),
    "other dtypes": lambda: merge.uniform_soup([A, linear_state(1, dtype=torch.float64)]),
    "NaN": lambda: merge.uniform_soup([A, bent(bias=torch.full((3,), NAN))]),
    "infinity": lambda: merge.uniform_soup([A, bent(bias=torch.full((3,), -INF))]),
    "too few weights": lambda: merge.uniform_soup([A, B], [1]),
    "weights of text": lambda: merge.uniform_soup([A, B], ["a", "b"]),
    "a weight for all": lambda: merge.uniform_soup([A, B], 0.5),
    "weights that are nothing": lambda: merge.uniform_soup([A, B], [None, 1]),
    "weights in lists": lambda: merge.uniform_soup([A, B], [[1], [1]]),
    "weights that are NaN": lambda: merge.uniform_soup([A, B], [NAN, 1]),
    "weights that are complex": lambda: merge.uniform_soup([A, B], [1j, 1]),
    "weights that sum to 0": lambda: merge.uniform_soup([A, B], [1, -1]),
    "weights too large for a float": lambda: merge.uniform_soup([A, B], [10**400, 1]),
    "a soup beyond float16": lambda: merge.uniform_soup([{"w": HALF + 6e4}, {"w": HALF}], [3, -2]),
    "an alpha that is NaN": lambda: merge.interpolate(A, B, NAN),
    "an alpha of text": lambda: merge.interpolate(A, B, "0.5"),
    "an alpha that is nothing": lambda: merge.interpolate(A, B, None),
    "an arc to infinity": lambda: merge.slerp(A, B, INF),
    "an arc of text": lambda: merge.slerp(A, B, "0.5"),
    "an arc of an unknown scope": lambda: merge.slerp(A, B, 0.5, scope="layer"),
    "a scale that is NaN": lambda: merge.task_arithmetic(BASE, [A, B], NAN),
    "a scale of text": lambda: merge.task_arithmetic(BASE, [A, B], "1"),
    "a scale that is nothing": lambda: merge.task_arithmetic(BASE, [A, B], None),
    "a scale beyond all": lambda: merge.task_arithmetic(BASE, [A, B], 1e300),
    "a base that is nothing": lambda: merge.task_arithmetic(None, [A, B]),
    "a base of other shapes": lambda: merge.task_arithmetic(linear_state(2, rows=4), [A, B]),
    "a base of NaN": lambda: merge.ties(bent(bias=torch.full((3,), NAN)), [A, B], 0.5),
    "base and members exchanged": lambda: merge.ties([A, B], BASE, 0.5),
    "a density above 1": lambda: merge.ties(BASE, [A, B], 1.01),
    "a density that is NaN": lambda: merge.ties(BASE, [A, B], NAN),
    "a density of text": lambda: merge.ties(BASE, [A, B], "0.5"),
    "a density that is nothing": lambda: merge.dare(BASE, [A, B], None, 0),
    "ties of an unknown scope": lambda: merge.ties(BASE, [A, B], 0.5, scope=None),
    "dare of density 0": lambda: merge.dare(BASE, [A, B], 0, 0),
    "a seed that is nothing": lambda: merge.dare(BASE, [A, B], 0.5, None),
    "a seed with a point": lambda: merge.dare(BASE, [A, B], 0.5, 1.5),
    "a stock of one": lambda: merge.model_stock(BASE, [A]),
    "scores that are NaN": lambda: merge.greedy_soup([A, B], lambda state: NAN),
    "scores of text": lambda: merge.greedy_soup([A, B], lambda state: "good"),
    "scores that are nothing": lambda: merge.greedy_soup([A, B], lambda state: None),
    "a greedy soup of none": lambda: merge.greedy_soup([], lambda state: 1),
    "an average with a decay of 1": lambda: merge.RunningAverage(1.0),
    "an average with a decay that is NaN": lambda: merge.RunningAverage(NAN),
    "an average of each image": lambda: merge.RunningAverage(every="image"),
    "an average of nothing": lambda: merge.RunningAverage().state(),
    "an average of text": lambda: merge.RunningAverage().update("weights"),
    "an average of other shapes": lambda: merge.RunningAverage().update(A).update(linear_state(1, rows=4)),
    "BatchNorm without batches": lambda: merge.recalibrate_batchnorm(bn_model(), []),
    "BatchNorm with labels": lambda: merge.recalibrate_batchnorm(bn_model(), [(PIXELS, LABELS)]),
    "BatchNorm of one image": lambda: merge.recalibrate_batchnorm(bn_model(), [torch.zeros(1, 1, 6, 6)]),
    "Fisher of other members": lambda: merge.fisher([A, B], [A]),
    "Fisher of negative values": lambda: merge.fisher([A, B], [bent(bias=-torch.ones(3))] * 2),
    "a learned soup without batches": lambda: merge.learned_soup([A, B], NET, []),
    "a learned soup of no epochs": lambda: merge.learned_soup([A, B], NET, [(PIXELS, LABELS)], epochs=0),
    "a learned soup of another model": lambda: merge.learned_soup([A, B], NET, [(PIXELS, LABELS)]),
    "files that are none": lambda: merge.merge_files([], "out.safetensors"),
    "files that are one": lambda: merge.merge_files("a.safetensors", "out.safetensors"),
    "files that are nothing": lambda: merge.merge_files(None, "out.safetensors"),
    "files that are members": lambda: merge.merge_files([A, B], "out.safetensors"),
    "an output that is nothing": lambda: merge.merge_files(["a.safetensors"], None),
    "no threads": lambda: merge.merge_files(["a.safetensors"], "out.safetensors", n_threads=-1),
    "a method that is a function": lambda: merge.merge_files(["a.safetensors"], "out.safetensors", merge.ties),
    "a method in a list": lambda: merge.merge_files(["a.safetensors"], "out.safetensors", ["ties"]),
}

ENSEMBLES = {
    "no models": lambda: ensemble.LogitEnsemble([]),
    "no logits": lambda: ensemble.logit_ensemble([]),
    "logits of other images": lambda: ensemble.logit_ensemble([LOGITS, LOGITS[:4]]),
    "logits of text": lambda: ensemble.logit_ensemble(["a", "b"]),
    "probabilities of none": lambda: ensemble.probability_ensemble([]),
    "an unknown head": lambda: ensemble.feature_ensemble([LOGITS], [(torch.ones(2, 3), torch.ones(2))], head="last"),
    "heads of other members": lambda: ensemble.feature_ensemble([LOGITS] * 2, [(torch.ones(2, 3), torch.ones(2))]),
    "heads of other features": lambda: ensemble.feature_ensemble([LOGITS], [(torch.ones(2, 4), torch.ones(2))]),
}

PROBES = {
    "a barrier without an end": lambda: probe.barrier_height([0, 0.5], [1, 2]),
    "a barrier of too few errors": lambda: probe.barrier_height([0, 0.5, 1], [1, 2]),
    "a barrier beyond the ends": lambda: probe.barrier_height([0, 1, 2], [1, 2, 3]),
    "a barrier of text": lambda: probe.barrier_height(["zero", "one"], [1, 2]),
    "a barrier of NaN": lambda: probe.barrier_height([0, NAN, 1], [1, 2, 3]),
    "a barrier of errors that are NaN": lambda: probe.barrier_height([0, 0.5, 1], [1, NAN, 3]),
    "a factor of 0": lambda: probe.scale(A, 0),
    "a factor that is NaN": lambda: probe.scale(A, NAN),
    "a factor of text": lambda: probe.scale(A, "2"),
    "a factor that is nothing": lambda: probe.scale(A, None),
    "an unknown scope": lambda: probe.scale(A, 2, scope="all"),
    "an unknown layer": lambda: probe.scale(A, 2, layer="head"),
    "an attack of an unknown kind": lambda: probe.attack(NET, SPLIT, budget=8, kind="magic"),
    "an attack without a budget": lambda: probe.attack(NET, SPLIT, budget=0),
    "an attack of NaN": lambda: probe.attack(NET, SPLIT, budget=NAN),
    "an attack of text": lambda: probe.attack(NET, SPLIT, budget="8"),
    "an attack of no steps": lambda: probe.attack(NET, SPLIT, budget=8, n_steps=0),
    "an attack at temperature 0": lambda: probe.attack(NET, SPLIT, budget=8, temperature=0),
    "confidence without labels": lambda: probe.reliability(LOGITS, LABELS[:0]),
    "confidence with other labels": lambda: probe.reliability(LOGITS, LABELS[:3]),
    "confidence in no bins": lambda: probe.reliability(LOGITS, LABELS, n_bins=0),
    "risk without images": lambda: probe.risk_coverage(LOGITS[:0], LABELS[:0]),
    "an unknown score": lambda: probe.detection_scores(LOGITS, "entropy"),
    "a detection of none": lambda: probe.detection(LOGITS[:0, 0], LOGITS[:, 0]),
    "a detection of NaN": lambda: probe.detection(LOGITS[:, 0] * NAN, LOGITS[:, 0]),
    "flips of other images": lambda: probe.flip_rate(LOGITS, LOGITS[None, :3]),
    "flips without draws": lambda: probe.flip_rate(LOGITS, LOGITS),
    "a spread of one draw": lambda: probe.logit_spread(LOGITS[None]),
    "a spread at temperature 0": lambda: probe.logit_spread(torch.stack([LOGITS, LOGITS]), 0),
    "templates of other images": lambda: probe.templates(A, (3, 32, 32)),
    "a match of other pictures": lambda: probe.template_match(torch.ones(3, 4), torch.ones(3, 5)),
    "the first layer for other images": lambda: probe.first_layer(A, (3, 32, 32)),
    "norms of other layers": lambda: probe.rescale_to(A, {"weight": 1.0}),
    "norms that are negative": lambda: probe.rescale_to(A, dict.fromkeys(probe.layer_norms(A), -1.0)),
    "a Hessian without images": lambda: probe.top_hessian_eigenvalue(NET, PIXELS[:0], LABELS[:0]),
    "a Lipschitz constant in no steps": lambda: probe.local_lipschitz(NET, PIXELS, n_iterations=0),
    "a Lipschitz constant at temperature 0": lambda: probe.local_lipschitz(NET, PIXELS, temperature=0),
}

MODELS = {
    "an unknown model": lambda: models.build("lenet", 10, 1, (8, 8)),
    "an empty model": lambda: models.build("", 10, 1, (8, 8)),
    "a model that is nothing": lambda: models.build(None, 10, 1, (8, 8)),
    "a width of 0": lambda: models.build("mlp-x0", 10, 1, (8, 8)),
    "a width that is NaN": lambda: models.build("mlp-xnan", 10, 1, (8, 8)),
    "a width of a word": lambda: models.build("mlp-xwide", 10, 1, (8, 8)),
    "no width behind the x": lambda: models.build("mlp-x", 10, 1, (8, 8)),
    "a width for a model without": lambda: models.build("linear-x2", 10, 1, (8, 8)),
    "images that are too small": lambda: models.build("cnn", 10, 1, (4, 4)),
    "weights for a model without": lambda: models.build("mlp", 10, 1, (8, 8), weights="DEFAULT"),
}


@pytest.mark.parametrize("call", MERGES.values(), ids=MERGES)
def test_merge(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused(call, tmp_path)


@pytest.mark.parametrize("call", ENSEMBLES.values(), ids=ENSEMBLES)
def test_ensemble(call):
    check_refused(call)


@pytest.mark.parametrize("call", PROBES.values(), ids=PROBES)
def test_probe(call):
    check_refused(call)


@pytest.mark.parametrize("call", MODELS.values(), ids=MODELS)
def test_model(call):
    check_refused(call)
