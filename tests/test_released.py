"""The released code's defects do what they are said to do, and nothing else in the package does (M6, M17)."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import bn_model, eval_logits, random_dataset, random_split, untrained
from test_layers import PACKAGE, imported

from wamlib import evaluate, models, released
from wamlib.config import derive_seed
from wamlib.errors import ConfigError
from wamlib.merge import greedy_soup
from wamlib.pools import Pool

# D1: training mode


def hand_loop(model, split, seed, sizes):
    """Batch after batch in training mode, features caught in front of the head."""
    model, begin, found = copy.deepcopy(model).train(), 0, []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("released evaluation", seed))
        for size in sizes:
            features = model[:-1](split.normalize(split.images[begin : begin + size]))
            found.append((model[-1](features), features))
            begin += size
    return [torch.cat(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize(("n", "sizes"), [(128, [64, 64]), (130, [64, 64, 2]), (129, [64, 65]), (20, [20])])
def test_training_mode_is_a_plain_loop_that_nobody_put_into_eval_mode(n, sizes):
    model, split = bn_model(dropout=0.5), random_split(n)
    found = released.train_mode_outputs(model, split, seed=3)
    for ours, theirs in zip(found, hand_loop(model, split, 3, sizes), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert found[0].shape == (n, 3)
    assert found[1].shape == (n, 5)


def test_batchnorm_takes_the_statistics_of_each_test_batch():
    """In float64 numpy: convolutions from torch, the normalisation by hand."""
    model, split = bn_model(), random_split(100)
    expected = []
    for images in split.images.split(64):
        x = split.normalize(images).double()
        for conv, norm in ((model[0], model[1]), (model[4], model[5])):
            x = F.conv2d(x, conv.weight.double(), conv.bias.double(), padding=conv.padding).detach().numpy()
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            gain, shift = (p.detach().double().numpy()[:, None, None] for p in (norm.weight, norm.bias))
            x = torch.from_numpy(np.maximum(0, (x - mean) / np.sqrt(var + norm.eps) * gain + shift))
        expected.append(x.mean((2, 3)))
    features = released.train_mode_outputs(model, split, seed=0)[1]
    torch.testing.assert_close(features.double(), torch.cat(expected), rtol=1e-4, atol=1e-5)
    running = evaluate.predict_features(model, split)
    assert (running - features).abs().max() > 0.05  # the twin: not the running ones


def test_dropout_stays_on_and_is_seeded():
    model, split = models.build("cnn", 3, 1, (8, 8), seed=0), random_split()
    logits = [released.train_mode_outputs(model, split, seed=seed)[0] for seed in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)
    assert not torch.allclose(logits[0], eval_logits(model, split), atol=1e-3)
    features = released.train_mode_outputs(model, split, seed=0)[1]
    zeros = (features == 0).double().mean() - (evaluate.predict_features(model, split) == 0).double().mean()
    assert zeros > 0.15  # half of those that were not zero before


def test_the_model_and_the_global_generator_are_left_as_they_were():
    model, split = bn_model(dropout=0.5), random_split()
    model[3].train()  # neither all one mode nor all the other
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    logits = released.train_mode_outputs(model, split, seed=0)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(released.train_mode_outputs(model, split, seed=0)[0], logits)  # nor does it have any say
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert not model[-1]._forward_pre_hooks


@pytest.mark.parametrize("name", ["linear", "mlp", "vit"])
def test_without_dropout_and_batchnorm_the_mode_changes_nothing(name):
    model, split = models.build(name, 3, 1, (8, 8), seed=0), random_split(130)
    logits, features = released.train_mode_outputs(model, split, seed=0)
    torch.testing.assert_close(logits, eval_logits(model, split), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, evaluate.predict_features(model, split), rtol=1e-4, atol=1e-5)


# D4: the normalisation of another data set

MEANS = {10: (0.4914, 0.4822, 0.4465), 100: (0.5071, 0.4867, 0.4408)}
STDS = {10: (0.2023, 0.1994, 0.2010), 100: (0.2675, 0.2565, 0.2761)}


def test_images_of_cifar10_are_normalised_by_the_numbers_of_cifar100():
    split = replace(random_split(channels=3), mean=255 * torch.tensor(MEANS[10]), std=255 * torch.tensor(STDS[10]))
    other = released.with_other_normalisation(split)
    by_hand = (split.images.double().numpy() / 255 - np.array(MEANS[100])[:, None, None]) / np.array(STDS[100])[
        :, None, None
    ]
    np.testing.assert_allclose(other.normalize(other.images).numpy(), by_hand, rtol=1e-5, atol=1e-5)
    assert (split.normalize(split.images) - other.normalize(other.images)).abs().max() > 0.2  # the twin
    assert torch.equal(other.images, split.images)
    assert torch.equal(other.labels, split.labels)


def test_grey_images_get_the_mean_of_the_channels_in_units_of_their_own():
    split = random_split()
    ours, theirs = split.normalize(split.images), released.with_other_normalisation(split)
    ratio = np.mean(np.array(STDS[10]) / np.array(STDS[100]))
    shift = np.mean((np.array(MEANS[10]) - np.array(MEANS[100])) / np.array(STDS[100]))
    np.testing.assert_allclose(theirs.normalize(split.images).numpy(), ours.numpy() * ratio + shift, atol=1e-5)


def test_another_normalisation_is_that_of_the_data_sets_own_spread():
    """A data set that is twice as bright and has twice the contrast is changed alike."""
    split = random_split(channels=3)
    doubled = replace(split, mean=2 * split.mean, std=2 * split.std)
    a, b = (released.with_other_normalisation(one) for one in (split, doubled))
    torch.testing.assert_close(b.mean, 2 * a.mean)
    torch.testing.assert_close(b.std, 2 * a.std)


# D3: features without the last norm


def test_features_before_the_norm_are_those_of_the_class_token():
    model, split = models.build("vit", 3, 1, (8, 8), seed=0).eval(), random_split()
    with torch.no_grad():
        x = model._process_input(split.normalize(split.images))
        x = torch.cat([model.class_token.expand(len(x), -1, -1), x], 1) + model.encoder.pos_embedding
        by_hand = model.encoder.layers(x)[:, 0]
    features = released.features_before_norm(model, split)
    torch.testing.assert_close(features, by_hand, rtol=1e-4, atol=1e-5)
    right = evaluate.predict_features(model, split)
    torch.testing.assert_close(model.encoder.ln(features), right, rtol=1e-4, atol=1e-5)
    assert (features - right).abs().max() > 0.1  # the twin: with the norm they are others
    assert not model.encoder.ln._forward_pre_hooks


def test_features_before_the_norm_are_those_of_eval_mode():
    model, split = models.build("vit", 3, 1, (8, 8), seed=0), random_split()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    a, b = (released.features_before_norm(model.train(mode), split) for mode in (True, False))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cnn", "resnet8", "mlp"])
def test_a_network_without_that_norm_is_refused(name):
    with pytest.raises(ConfigError, match=r"no encoder\.ln"):
        released.features_before_norm(models.build(name, 3, 1, (8, 8)), random_split())


# D7: selection on training images


def pictures(split):
    return [image.numpy().tobytes() for image in split.images]


def labelled(split):
    return {picture: int(label) for picture, label in zip(pictures(split), split.labels, strict=True)}


def test_nine_in_ten_of_the_leaked_selection_are_training_images():
    dataset = random_dataset(900, 100, 50)
    leaked = released.leaked_selection(dataset, 0)
    parts = {name: set(pictures(getattr(dataset, name))) for name in ("train", "selection", "test")}
    assert not parts["train"] & parts["selection"]  # the twin: the book's own share nothing (M6)
    found = pictures(leaked)
    assert len(set(found)) == len(found) == 100  # a ninth of the training images, none twice
    assert [sum(p in parts[name] for p in found) for name in ("train", "selection", "test")] == [90, 10, 0]
    known = labelled(dataset.train) | labelled(dataset.selection)
    assert all(known[picture] == label for picture, label in labelled(leaked).items())
    assert torch.equal(leaked.mean, dataset.train.mean)
    assert torch.equal(leaked.std, dataset.train.std)


@pytest.mark.parametrize(
    ("n_train", "n_selection", "size"),
    [(900, 100, 100), (4_500, 500, 500), (900, 10, 50), (900, 2, 10), (900, 1, 10), (40, 5, 10), (20, 2, 10)],
)
def test_the_share_is_nine_tenths_however_few_images_there_are(n_train, n_selection, size):
    dataset = random_dataset(n_train, n_selection, 5)
    found, trained = pictures(released.leaked_selection(dataset, 0)), set(pictures(dataset.train))
    assert len(found) == size
    assert sum(picture in trained for picture in found) == 0.9 * size


def test_which_images_leak_is_seeded():
    dataset = random_dataset(900, 100, 5)
    a, b, c = (pictures(released.leaked_selection(dataset, seed)) for seed in (0, 0, 1))
    assert a == b
    assert set(a) != set(c)


# D8: a greedy soup by halves


def points(*places):
    return [{"w": torch.tensor([x]), "head": torch.tensor([[10 * x]])} for x in places]


def near(target):
    return lambda state: -abs(state["w"].item() - target)


def test_the_soup_by_halves_takes_the_steps_of_a_hand_made_trace():
    """Scores -2, -2, -1: begin with the third. 0.5 is further off, 2.5 nearer, and then 1.75 nearer still."""
    members = points(0.0, 4.0, 1.0)
    soup = released.greedy_soup_by_halves(members, near(2))
    assert soup.accepted == [2, 1, 2]
    assert soup.scores == [-2, -2, -1]
    assert soup.state["w"].item() == 1.75
    assert soup.state["head"].item() == 17.5
    assert soup.score == -0.25
    published = greedy_soup(members, near(2))  # the twin: sorted, each once, all alike (M6)
    assert published.accepted == [2, 1]
    assert published.state["w"].item() == 2.5


def test_early_members_count_for_ever_less():
    soup = released.greedy_soup_by_halves(points(0.0, 0.0, 0.0, 16.0), lambda state: 0.0)
    assert soup.accepted == [0, 0, 1, 2, 3]  # a score that does not fall is accepted
    assert soup.state["w"].item() == 8.0
    first = released.greedy_soup_by_halves(points(16.0, 0.0, 0.0, 0.0), lambda state: 0.0)
    assert first.state["w"].item() == 2.0
    assert greedy_soup(points(16.0, 0.0, 0.0, 0.0), lambda state: 0.0).state["w"].item() == 4.0


def test_where_every_step_is_worse_the_best_member_is_left():
    members = points(0.0, 1.0, -1.0)
    soup = released.greedy_soup_by_halves(members, near(0))
    assert soup.accepted == [0, 0]  # itself, once more
    assert soup.state["w"].item() == 0.0
    assert [member["w"].item() for member in members] == [0, 1, -1]  # members are not changed


def test_the_soup_by_halves_differs_on_networks_too():
    dataset = random_dataset()
    runs, module = untrained("mlp", dataset, 3, spread=0.3), models.build("mlp", 3, 1, (8, 8))
    target = torch.stack([run.logits["selection"] for run in runs]).mean(0)

    def score(state):
        module.load_state_dict(state)
        return -(eval_logits(module, dataset.selection) - target).square().mean().item()

    members = [run.state for run in runs]
    ours, theirs = greedy_soup(members, score), released.greedy_soup_by_halves(members, score)
    assert ours.scores == theirs.scores
    assert len(ours.accepted) > 1
    assert (ours.state["head.weight"] - theirs.state["head.weight"]).abs().max() > 0.01


# Nothing else does any of this


def importers(name):
    paths = {path.relative_to(PACKAGE): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
    return {path.as_posix() for path, source in paths.items() if name in imported(source, len(path.parts))}


def test_only_the_experiments_on_protocols_import_the_released_evaluation():
    assert importers("released") == {"chapters/magnitude.py", "chapters/protocols.py"}
    assert len(importers("evaluate")) > 5  # the twin: what is imported is seen


def test_scores_do_not_depend_on_the_mode_that_a_network_was_left_in():
    dataset = random_dataset()
    for name, mode in itertools.product(["cnn", "resnet8"], [True, False]):
        (run,) = untrained(name, dataset, 1)
        pool = Pool([run], dataset)
        pool.module.train(mode)
        torch.testing.assert_close(pool.logits(run.state), run.logits["test"], rtol=1e-4, atol=1e-5)
        in_training = released.train_mode_outputs(pool.load(run.state), dataset.test, seed=0)[0]
        assert not torch.allclose(in_training, run.logits["test"], atol=1e-2)  # the twin
