"""Advice: its prediction against exact quadratics and real soups, its rules one by one, and what it refuses."""

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import bn_model, random_dataset, untrained
from torch import nn

from wamlib import advise as advising
from wamlib import align, errors, evaluate, merge, models
from wamlib.advise import LEVEL, NOISE, Measured, Pair, advise, cochran_q, decide, gain_factor
from wamlib.advise.deciding import soup_is_worse


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


def built(name="mlp"):
    return models.build(name, 3, 1, (8, 8), seed=1)


# The prediction


@pytest.mark.parametrize("n", [2, 3, 7])
def test_of_a_quadratic_error_the_gain_of_the_soup_is_exact(n):
    """In numpy: any members, any matrix, any centre."""
    rng = np.random.default_rng(n)
    root, members = rng.normal(size=(6, 6)), rng.normal(size=(n, 6)) + 3

    def error(x):
        return x @ (root.T @ root) @ x + x @ root[0]

    pairs = [np.mean([error(a), error(b)]) - error((a + b) / 2) for a, b in itertools.combinations(members, 2)]
    gain = np.mean([error(m) for m in members]) - error(members.mean(0))
    assert gain_factor(n) * np.mean(pairs) == pytest.approx(gain)
    assert gain > 0.1


def test_of_another_error_it_is_not():
    members = np.array([0.0, 1.0, 5.0])
    pairs = [(a**4 + b**4) / 2 - ((a + b) / 2) ** 4 for a, b in itertools.combinations(members, 2)]
    assert abs(gain_factor(3) * np.mean(pairs) / (np.mean(members**4) - members.mean() ** 4) - 1) > 0.05


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_of_two_members_the_prediction_is_the_soup(name, dataset):
    pool = [run.state for run in untrained(name, dataset, 2, spread=0.4)]
    batches = [images for images, _ in dataset.train.batches()]
    found = advise(pool, built(name), dataset.selection, training_batches=batches)
    module = built(name)
    module.load_state_dict(merge.uniform_soup(pool))
    merge.recalibrate_batchnorm(module, batches)
    logits = evaluate.predict_logits(module, dataset.selection)
    expected = evaluate.accuracy(logits, dataset.selection.labels)
    assert 100 * found.measured.options["uniform soup"].mean().item() == pytest.approx(expected)


def test_measurements_are_those_of_numpy(dataset):
    runs = untrained("mlp", dataset, 3, spread=0.5)
    states, split = [run.state for run in runs], dataset.selection
    found = advise(states, built(), split, alphas=(0.25,)).measured
    flat = [np.concatenate([t.double().numpy().ravel() for t in state.values()]) for state in states]
    np.testing.assert_allclose(found.norms, [np.linalg.norm(f) for f in flat])
    right = np.stack([(run.logits["selection"].argmax(1) == split.labels).numpy() for run in runs])
    np.testing.assert_allclose(found.accuracies, 100 * right.mean(1))
    assert [(pair.a, pair.b) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    module = built()
    for pair in found.pairs:
        a, b = flat[pair.a], flat[pair.b]
        scale = (np.linalg.norm(a) + np.linalg.norm(b)) / 2
        assert pair.distance == pytest.approx(np.linalg.norm(a - b) / scale)
        assert pair.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert pair.alphas == (0.0, 0.25, 0.5, 1.0)
        for alpha, error in zip(pair.alphas, pair.errors, strict=True):
            module.load_state_dict(merge.interpolate(states[pair.a], states[pair.b], alpha))
            assert error == pytest.approx(100 - evaluate.accuracy(evaluate.predict_logits(module, split), split.labels))
        chord = [(1 - x) * pair.errors[0] + x * pair.errors[-1] for x in pair.alphas]
        assert pair.barrier == pytest.approx(max(0, *(np.array(pair.errors) - chord)))
        assert pair.midpoint_gain == pytest.approx(chord[2] - pair.errors[2])
        assert pair.batchnorm_shift is None
    pooled = torch.stack([run.logits["selection"] for run in runs]).double().mean(0)
    assert found.accuracy("logit ensemble") == pytest.approx(max(evaluate.accuracy(pooled, split.labels), 100 / 3))


def test_the_shift_of_batchnorm_is_what_recalibration_adds(dataset):
    pool = [run.state for run in untrained("resnet8", dataset, 2, spread=0.4)]
    batches, module = [images for images, _ in dataset.train.batches()], built("resnet8")
    pair = advise(pool, module, dataset.selection, training_batches=iter(batches)).measured.pairs[0]

    def score():
        return evaluate.accuracy(evaluate.predict_logits(module, dataset.selection), dataset.selection.labels)

    module.load_state_dict(merge.interpolate(*pool, 0.5))
    plain = score()
    merge.recalibrate_batchnorm(module, batches)
    assert pair.batchnorm_shift == pytest.approx(score() - plain)
    assert 100 - pair.errors[pair.alphas.index(0.5)] == pytest.approx(score())
    bare = advise(pool, module, dataset.selection)
    assert bare.measured.pairs[0].batchnorm_shift is None
    assert 100 - bare.measured.pairs[0].errors[pair.alphas.index(0.5)] == pytest.approx(plain)
    assert any("no training images" in reason for reason in bare.reasons)


def test_of_many_members_each_is_in_two_pairs(dataset):
    pool = [run.state for run in untrained("mlp", dataset, 7)]
    pairs = advise(pool, built(), dataset.selection, alphas=()).measured.pairs
    assert len(pairs) == 7
    assert sorted(end for pair in pairs for end in (pair.a, pair.b)) == sorted([*range(7)] * 2)


def test_the_soup_itself_is_never_made(dataset):
    pool, seen = [run.state for run in untrained("mlp", dataset, 3)], []
    soup = merge.uniform_soup(pool)

    def predict(state, recalibrate):
        seen.append(all(torch.equal(state[key], soup[key]) for key in soup))
        assert not recalibrate
        return torch.eye(3)[dataset.selection.labels]

    found = advise(pool, built(), dataset.selection, predict=predict)
    assert len(seen) == 3 + 3 * 3
    assert not any(seen)
    assert found.measured.accuracies == (100.0,) * 3


def test_the_model_is_left_as_it_was(dataset):
    model = bn_model()
    pool = [
        {k: t + 0.1 if t.is_floating_point() else t for k, t in bn_model(seed).state_dict().items()} for seed in (1, 2)
    ]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    advise(pool, model, dataset.selection, training_batches=[images for images, _ in dataset.train.batches()])
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


# Cochran's Q


def test_of_two_models_q_is_mcnemars_statistic():
    rng = np.random.default_rng(0)
    right = rng.random((2, 200)) < np.array([[0.8], [0.6]])
    b, c = (right[0] & ~right[1]).sum(), (right[1] & ~right[0]).sum()
    from scipy.stats import chi2

    assert cochran_q(torch.from_numpy(right)) == pytest.approx(chi2.sf((b - c) ** 2 / (b + c), 1))


def test_the_level_of_q_is_kept_and_a_difference_is_found():
    generator = torch.Generator().manual_seed(0)
    ps = [cochran_q(torch.rand(4, 300, generator=generator) < 0.7) for _ in range(400)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert cochran_q(torch.rand(4, 300, generator=generator) < torch.tensor([[0.7], [0.7], [0.7], [0.4]])) < 1e-6
    assert cochran_q(torch.ones(3, 10)) == 1


# The rules, one by one


def made(accuracies, soup, ensemble, aligned=None, midpoint=0.0, n=1000):
    """Measurements of members that are right on their first images, so that every difference is known."""

    def first(percent):
        return (torch.arange(n) < percent * n / 100).double()

    right = torch.stack([first(accuracy) for accuracy in accuracies])
    ends = 100 - max(accuracies)
    pairs = tuple(
        Pair(i, j, 0.1, 0.9, (0.0, 0.5, 1.0), (ends, ends - midpoint, ends), 0.0, midpoint, None)
        for i, j in itertools.combinations(range(len(accuracies)), 2)
    )
    options = {"uniform soup": first(soup), "logit ensemble": first(ensemble)}
    if aligned is not None:
        options["aligned soup"] = first(aligned)
    return Measured((1.0,) * len(accuracies), pairs, False, False, 10, right, options)


@pytest.mark.parametrize(
    ("measured", "once", "many"),
    [
        (made([80, 80, 80], soup=81, ensemble=81), "uniform soup", "uniform soup"),
        (made([80, 80, 80], soup=81, ensemble=84), "uniform soup", "logit ensemble"),
        (made([70, 80, 80], soup=81, ensemble=81), "greedy soup", "greedy soup"),
        (made([80, 80, 80], soup=20, ensemble=80, midpoint=-50), "best member", "best member"),
        (made([80, 80, 80], soup=20, ensemble=83, midpoint=-50), "best member", "logit ensemble"),
        (made([80, 80, 80], soup=20, ensemble=80, midpoint=1), "greedy soup", "greedy soup"),
        (made([80, 80, 80], soup=20, ensemble=80, aligned=81, midpoint=-50), "align first", "align first"),
        (made([80, 80, 80], soup=20, ensemble=80, aligned=70, midpoint=-50), "best member", "best member"),
    ],
)
def test_each_rule_has_its_case(measured, once, many):
    assert decide(measured, 1).recommendation == once
    assert decide(measured, 2).recommendation == once  # no ensemble of three
    assert decide(measured, 3).recommendation == many
    assert all(reason.endswith(".") for reason in decide(measured, 3).reasons)


def test_what_lies_within_noise_changes_nothing():
    n = 1000
    noise = 100 * (0.01 * 0.99 / n) ** 0.5  # of a difference of 1 %, always in one direction
    assert noise * NOISE < 1
    assert soup_is_worse(made([80] * 3, soup=79, ensemble=80))
    mixed = made([80] * 3, soup=80, ensemble=80)
    flips = torch.zeros(n, dtype=torch.float64)
    flips[:50], flips[-49:] = -1, 1  # one image fewer, with a noise of a point
    mixed.options["uniform soup"] = mixed.members[0] + flips
    assert mixed.gain("uniform soup")[0] < 0
    assert not soup_is_worse(mixed)


def test_accuracy_is_never_below_chance_nor_above_all():
    measured = made([80] * 3, soup=50, ensemble=80)
    measured.options["uniform soup"] -= 1
    assert measured.accuracy("uniform soup") == 10
    assert measured.gain("uniform soup")[0] == pytest.approx(-70)
    measured.options["uniform soup"] += 3
    assert measured.accuracy("uniform soup") == 100


def test_where_members_guess_no_gain_is_made_of_chance():
    measured = made([6] * 3, soup=5, ensemble=7)
    assert measured.gain("uniform soup")[0] == 0  # not the four points up to chance
    assert measured.accuracy("logit ensemble") == pytest.approx(7)  # measured, not predicted
    assert measured.gain("logit ensemble")[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (made([11] * 3, soup=11, ensemble=11), "No member is better than guessing (10.0 %)"),
        (made([80] * 3, soup=80, ensemble=80, n=50), "50 labelled images are few"),
    ],
)
def test_what_makes_advice_doubtful_is_said_first(measured, said):
    assert decide(measured, 1).reasons[0].startswith(said)
    assert not any("few" in reason or "guessing" in reason for reason in decide(made([80] * 3, 80, 80), 1).reasons)


def test_equal_members_have_one_accuracy():
    assert "Members have 80.0 % (" in decide(made([80] * 3, soup=80, ensemble=80), 1).reasons[0]
    assert "Members have 70.0 to 80.0 % (" in decide(made([70, 80], soup=80, ensemble=80), 1).reasons[0]


# The whole


@pytest.fixture(scope="module")
def trained(store):
    """Members with a shared start, on digits."""
    from wamlib import data, sweeps

    configs = sweeps.pool(
        "shared start", model="mlp", n_members=3, dataset="digits", n_train=600, epochs=6, trunk_epochs=3
    )
    runs = [store.train(config, device="cpu") for config in configs]
    return [run.state for run in runs], data.load("digits", n_train=600)


def network(dataset):
    return models.build("mlp", 10, 1, dataset.image_size)


def test_members_whose_units_were_reordered_are_to_be_aligned(trained):
    states, dataset = trained
    model = network(dataset)
    # Of the 449 test images: 67 selection images do not tell much.
    assert advise(states, model, dataset.test).recommendation in ("uniform soup", "greedy soup")
    moved = [states[0], *(align.apply(align.random_permutation(model, seed), s) for seed, s in enumerate(states[1:]))]
    found = advise(moved, model, dataset.test)
    assert found.recommendation == "align first"
    assert found.measured.accuracy("aligned soup") > found.measured.accuracy("uniform soup") + 20
    assert found.with_budget(3).budget == 3
    plain = advise(states, model, dataset.test)
    assert found.measured.accuracy("aligned soup") == pytest.approx(plain.measured.accuracy("uniform soup"), abs=0.5)


def test_a_model_that_cannot_be_traced_is_named_as_such(dataset):
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 20), nn.Linear(20, 3)

        def forward(self, x):
            hidden = self.a(x.flatten(1)).relu()
            return self.b(hidden if hidden.sum() > 0 else 2 * hidden)

    torch.manual_seed(0)
    split, model = dataset.selection, Untraceable()
    states = []
    for _ in range(2):  # two that are right by different units
        module = Untraceable()
        for _ in range(60):
            module.zero_grad()
            nn.functional.cross_entropy(module(split.normalize(split.images)), split.labels).backward()
            with torch.no_grad():
                for p in module.parameters():
                    p -= 0.1 * p.grad
        states.append(module.state_dict())
    found = advise(states, model, split)
    assert soup_is_worse(found.measured)
    assert "cannot trace" in found.measured.aligned
    assert "aligned soup" not in found.measured.options
    assert any("is not known" in reason for reason in found.reasons)
    assert found.to_dict()["not_aligned_because"] == found.measured.aligned


def test_the_dictionary_is_json_and_holds_the_numbers(trained):
    states, dataset = trained
    found = advise(states, network(dataset), dataset.selection)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["recommendation"] == found.recommendation
    assert said["n_images"] == len(dataset.selection)
    assert [row["accuracy"] for row in said["members"]] == list(found.measured.accuracies)
    p = found.measured.accuracies[0] / 100
    assert said["members"][0]["standard_error"] == pytest.approx(100 * np.sqrt(p * (1 - p) / len(dataset.selection)))
    assert len(said["pairs"]) == 3
    assert said["options"]["uniform soup"]["how"] == "predicted"
    assert said["members_differ_p"] == cochran_q(found.measured.members)
    assert 0 < LEVEL < 1


# What is refused


def divided_by_zero(state):
    return {key: tensor / 0 for key, tensor in state.items()}


def relabelled(split, shift):
    return replace(split, labels=split.labels + shift)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda c: c.update(members=c["members"][:1]), errors.ProbeError, "at least two"),
        (lambda c: c.update(model={}), errors.ProbeError, "a dict"),
        (lambda c: c.update(selection=c["selection"].take(slice(0, 0))), errors.ProbeError, "0 labelled images"),
        (lambda c: c.update(alphas=(0.0, 0.5)), errors.ProbeError, "between 0 and 1"),
        (lambda c: c.update(budget=0), errors.ProbeError, "forward passes"),
        (lambda c: c.update(budget=1.5), errors.ProbeError, "1.5"),
        (lambda c: c.update(model=built("cnn")), errors.MemberMismatchError, "do not fit"),
        (lambda c: c.update(model=models.build("mlp", 4, 1, (8, 8))), errors.MemberMismatchError, "shape of its own"),
        (lambda c: c.update(members=[c["members"][0], {}]), errors.MemberMismatchError, "member 1"),
        (lambda c: c["members"].append(divided_by_zero(c["members"][0])), errors.NonFiniteMemberError, "NaN"),
        (lambda c: c.update(selection=relabelled(c["selection"], 7)), errors.ProbeError, "0 to 2"),
        (lambda c: c.update(selection=relabelled(c["selection"], -1)), errors.ProbeError, "got -1"),
        (lambda c: c.update(selection=random_dataset(channels=3).selection), errors.ProbeError, "RuntimeError"),
    ],
)
def test_what_cannot_be_advised_on_is_refused(change, kind, said, dataset):
    call = {
        "members": [run.state for run in untrained("mlp", dataset, 2)],
        "model": built(),
        "selection": dataset.selection,
    }
    change(call)
    with pytest.raises(kind, match=said) as caught:
        advise(call.pop("members"), call.pop("model"), call.pop("selection"), **call)
    assert caught.value.fix


def test_an_output_that_is_no_logits_is_refused(dataset):
    model = nn.Conv2d(1, 3, 3)
    with pytest.raises(errors.ProbeError, match="shape"):
        advise([model.state_dict()] * 2, model, dataset.selection)


def test_a_report_names_everybody_and_the_next_step(trained):
    from rich.console import Console

    states, dataset = trained
    found = advise(states, network(dataset), dataset.selection)
    console = Console(width=120, record=True, file=io.StringIO())
    for part in advising.report(found, ["first.pt", "second.pt", "third.pt"]):
        console.print(part)
    text = console.export_text()
    for said in ("first.pt", "third.pt", found.recommendation, "Next: ", "A-B", "B-C", *found.reasons[0].split()[:3]):
        assert said in text


@pytest.mark.parametrize("has_batchnorm", [False, True])
def test_the_next_step_of_a_soup_with_batchnorm_is_to_recalibrate(has_batchnorm):
    measured = made([80] * 3, soup=81, ensemble=81)
    measured = Measured(**{**vars(measured), "has_batchnorm": has_batchnorm})
    last = advising.report(advising.Advice(measured, 1, "uniform soup", ()), "abc")[-1].plain
    assert last.startswith("Next: wamlib merge FILE...")
    assert ("recalibrate_batchnorm" in last) == has_batchnorm
