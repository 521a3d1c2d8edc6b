"""M11 and M12, and templates."""

import copy

import numpy as np
import pytest
import torch
from helpers import bn_model, linear_state, random_dataset, untrained
from torch import nn

from wamlib import align, data, evaluate, models, probe
from wamlib.errors import MemberMismatchError, ProbeError
from wamlib.merge import recalibrate_batchnorm
from wamlib.pools import Pool

# Templates


def test_templates_are_the_rows_in_the_order_of_the_pixels():
    state = models.build("linear", 3, 2, (8, 9), seed=0).state_dict()
    pictures = probe.templates(state, (2, 8, 9))
    x = torch.randn(1, 2, 8, 9)
    logits = (pictures * x).sum((1, 2, 3)) + state["head.bias"]
    torch.testing.assert_close(models.build("linear", 3, 2, (8, 9), seed=0)(x)[0], logits, rtol=1e-4, atol=1e-5)


def test_no_layer_that_reads_the_pixels_is_an_error():
    with pytest.raises(ProbeError, match="12 columns"):
        probe.templates(linear_state(0), (3, 2, 2))


def test_template_match_agrees_with_numpy():
    generator = torch.Generator().manual_seed(0)
    rows, pictures = (torch.randn(4, 1, 5, 5, generator=generator) for _ in range(2))
    match = probe.template_match(rows, pictures)
    expected = np.corrcoef(rows.flatten(1).numpy(), pictures.flatten(1).numpy())[:4, 4:]
    np.testing.assert_allclose(match.correlation.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(match.own.numpy(), np.diag(expected), atol=1e-6)


def test_retrieval_is_all_for_the_pictures_themselves_and_none_for_a_rotation():
    pictures = torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert probe.template_match(3 * pictures + 1, pictures).retrieval == 100
    assert probe.template_match(pictures.roll(1, 0), pictures).retrieval == 0


def test_pictures_of_other_shapes_are_refused():
    with pytest.raises(ProbeError, match="shape"):
        probe.template_match(torch.zeros(3, 1, 2, 2), torch.zeros(4, 1, 2, 2))


def test_class_means_are_means_of_the_class(digits):
    means = probe.class_means(digits.train, 10, centred=False)
    zeros = digits.train.normalize(digits.train.images[digits.train.labels == 0]).double().mean(0)
    torch.testing.assert_close(means[0], zeros, rtol=0, atol=1e-6)
    centred = probe.class_means(digits.train, 10)
    assert centred.mean(0).abs().max() < 1e-10
    assert means.mean(0).abs().max() > 0.1  # the twin: uncentred means are not


def test_a_class_without_images_has_no_mean(digits):
    with pytest.raises(ProbeError, match="class 10"):
        probe.class_means(digits.train, 11)


def colour_split(n=60, channels=3, side=8):
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    return data.Split(images, torch.arange(n) % 4, torch.tensor([90.0, 120.0, 130.0]), torch.tensor([30.0, 60.0, 70.0]))


def test_class_means_of_colour_are_in_the_units_that_a_model_reads():
    split = colour_split()
    means = probe.class_means(split, 4, centred=False)
    torch.testing.assert_close(means[1], split.normalize(split.images[1::4]).double().mean(0), rtol=0, atol=1e-6)


# Effective templates


def test_effective_templates_of_a_linear_model_are_its_rows():
    model, split = models.build("linear", 4, 3, (8, 8), seed=0), colour_split()
    found = probe.effective_templates(model, split, batch_size=25)
    torch.testing.assert_close(found.pictures, probe.templates(model.state_dict(), (3, 8, 8)))
    assert found.linear_share == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
def test_effective_templates_agree_with_one_jacobian_per_image(name):
    """torch.func.vmap over images, in float64: slower, and none of the code under test."""
    from torch.func import functional_call, jacrev, vmap

    model, split = models.build(name, 4, 3, (8, 8), seed=1), colour_split()
    model.train()
    found = probe.effective_templates(model, split, batch_size=25)
    assert model.training  # left as it was
    model.double().eval()
    state = {key: value.detach() for key, value in model.state_dict().items()}
    images = split.normalize(split.images).double()
    jacobians = vmap(jacrev(lambda image: functional_call(model, state, (image[None],))[0]), chunk_size=10)(images)
    torch.testing.assert_close(found.pictures.double(), jacobians.mean(0), rtol=1e-4, atol=1e-6)
    share = jacobians.mean(0).flatten(1).square().sum(1) / jacobians.flatten(2).square().sum(2).mean(0)
    assert found.linear_share == pytest.approx(share.mean().item(), rel=1e-4)
    assert 0 < found.linear_share < 0.999  # the twin: a deep network is not linear


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_a_permutation_of_units_changes_no_effective_template(name):
    model, split = models.build(name, 4, 3, (8, 8), seed=1), colour_split()
    before, state = probe.effective_templates(model, split).pictures, model.state_dict()
    permuted = align.apply(align.random_permutation(model, seed=0), state)
    assert max((permuted[key] - state[key]).abs().max() for key in state) > 0.01
    model.load_state_dict(permuted)
    torch.testing.assert_close(probe.effective_templates(model, split).pictures, before, rtol=1e-4, atol=1e-6)


# Likeness of members


def test_cosines_know_scale_sign_and_order():
    model = models.build("mlp", 4, 3, (8, 8), seed=1)
    a = model.state_dict()
    weights = [key for key in a if key.endswith("weight")]
    assert list(probe.layer_cosines(a, a)) == weights
    for other, wanted in (({k: 3 * v for k, v in a.items()}, 1), ({k: -v for k, v in a.items()}, -1)):
        assert list(probe.layer_cosines(a, other).values()) == pytest.approx([wanted] * len(weights))
    permuted = align.apply(align.random_permutation(model, seed=0), a)
    assert max(abs(c) for c in list(probe.layer_cosines(a, permuted).values())[:-1]) < 0.2
    flat = [np.asarray(state["fc2.weight"], dtype=np.float64).ravel() for state in (a, permuted)]
    expected = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert probe.layer_cosines(a, permuted)["fc2.weight"] == pytest.approx(expected)


def test_members_of_two_architectures_are_not_compared():
    a, b = (models.build(name, 4, 3, (8, 8), seed=1).state_dict() for name in ("mlp", "mlp-x2"))
    with pytest.raises(ProbeError, match=r"fc1\.weight"):
        probe.layer_cosines(a, b)


def test_filters_of_the_first_layer_are_pictures():
    assert probe.first_layer(models.build("mlp", 4, 3, (8, 8)).state_dict(), (3, 8, 8)).shape == (512, 3, 8, 8)
    assert probe.first_layer(models.build("resnet8", 4, 3, (8, 8)).state_dict(), (3, 8, 8)).shape == (16, 3, 3, 3)
    for state in (models.build("mlp", 4, 1, (8, 8)).state_dict(), {"bias": torch.zeros(3)}):
        with pytest.raises(ProbeError, match="first layer"):
            probe.first_layer(state, (3, 8, 8))


def test_norm_and_distance_count_learnable_tensors_only():
    a = {
        "w": torch.tensor([3.0, 4.0]),
        "bn.running_var": torch.tensor([100.0]),
        "bn.num_batches_tracked": torch.tensor(9),
    }
    b = {key: torch.zeros_like(value) for key, value in a.items()}
    assert probe.weight_norm(a) == 5
    assert probe.distance(a, b) == 5


# M11: the barrier


def bump(state):
    """An error with a bump of 10 points in the middle, and ends of 1 and 3."""
    x = state["x"].item()
    return 1 + 2 * x + (10 if 0 < x < 1 else 0)


def test_barrier_is_measured_from_the_chord():
    ends = [{"x": torch.tensor(0.0)}, {"x": torch.tensor(1.0)}]
    line = probe.barrier(*ends, bump)
    assert line.height == pytest.approx(10)
    assert line.errors[0] == bump(ends[0])
    assert line.errors[-1] == bump(ends[1])


def test_a_slope_alone_is_no_barrier():
    line = probe.barrier({"x": torch.tensor(0.0)}, {"x": torch.tensor(1.0)}, lambda s: 5 * s["x"].item())
    assert line.height == 0


def test_the_ends_score_what_their_checkpoints_score(store):
    from conftest import tiny

    a, b = (store.train(tiny(model="resnet8", seed=seed)) for seed in (0, 1))
    line = probe.barrier(a.state, b.state, Pool([a, b], store.dataset(a.config)).error)
    for run, error in [(a, line.errors[0]), (b, line.errors[-1])]:
        assert error == pytest.approx(100 - run.record["metrics"]["test"]["accuracy"], abs=1e-9)


@pytest.mark.parametrize("alphas", [[0, 0.5], [0.5, 1], [], [0, 1.5, 1], [0, float("nan"), 1]])
def test_a_barrier_without_both_ends_is_refused(alphas):
    with pytest.raises(ProbeError, match="both ends"):
        probe.barrier({"x": torch.tensor(0.0)}, {"x": torch.tensor(1.0)}, bump, alphas)


def test_members_that_do_not_match_have_no_line():
    with pytest.raises(MemberMismatchError):
        probe.barrier(linear_state(0), linear_state(0, columns=5), lambda state: 0.0)


# Distance of members from their soup


def test_distance_from_the_soup_leaves_statistics_out_and_does_not_depend_on_the_scale():
    states = [run.state for run in untrained("resnet8", random_dataset(), 3, spread=0.5)]
    kept = [
        [t.double().numpy().ravel() for k, t in state.items() if "running" not in k and "num_" not in k]
        for state in states
    ]
    flat = [np.concatenate(parts) for parts in kept]
    soup = np.mean(flat, axis=0)
    expected = np.mean([np.linalg.norm(member - soup) for member in flat]) / np.linalg.norm(soup)
    assert probe.relative_distance(states) == pytest.approx(expected, rel=1e-6)
    assert probe.relative_distance(states[:1] * 2) == 0
    larger = [{key: 7 * tensor for key, tensor in state.items()} for state in states]
    assert probe.relative_distance(larger) == pytest.approx(expected, rel=1e-5)


# M12: scale


def trained(name, seed=0):
    """A model of the registry with biases and statistics that are not trivial."""
    model = models.build(name, 4, 1, (8, 8), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    recalibrate_batchnorm(model, [torch.randn(64, 1, 8, 8, generator=generator)])
    return model.double().eval()


def outputs(model, state, n=50):
    scaled = copy.deepcopy(model)
    scaled.load_state_dict(state)
    with torch.no_grad():
        return scaled(torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(5)).double())


@pytest.mark.parametrize("name", ["linear", "mlp", "cnn"])
@pytest.mark.parametrize("factor", [0.01, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("scope", ["homogeneous", "batchnorm"])
def test_homogeneous_scale_multiplies_the_logits_and_changes_no_prediction(name, factor, scope):
    model = trained(name)
    before = outputs(model, model.state_dict())
    after = outputs(model, probe.scale(model.state_dict(), factor, scope))
    depth = sum(isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) for layer in model.modules())
    torch.testing.assert_close(after, before * factor**depth, rtol=1e-6, atol=1e-12)
    assert evaluate.agreement(after, before) == 100


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet8"])
@pytest.mark.parametrize("scope", ["everything", "learnable"])
def test_other_scopes_do_not_just_multiply_the_logits(name, scope):
    # The twin: were biases and statistics no matter, these scopes would pass the test above too.
    model = trained(name)
    before = outputs(model, model.state_dict())
    after = outputs(model, probe.scale(model.state_dict(), 0.05, scope))
    assert not torch.allclose(after / after.norm(), before / before.norm(), atol=0.01)


@pytest.mark.parametrize("factor", [0.1, 3.0, 100.0])
def test_batchnorm_scale_changes_no_prediction_of_a_resnet(factor):
    model = trained("resnet8")
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-12  # at the usual eps the identity is only approximate for small factors
    before = outputs(model, model.state_dict())
    after = outputs(model, probe.scale(model.state_dict(), factor, "batchnorm"))
    torch.testing.assert_close(after, before * factor, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["densenet", "vgg_bn"])
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_batchnorm_scale_knows_what_each_batchnorm_reads(name, factor):
    # In a dense block BatchNorm reads channels of several scales at once.
    model = trained(name)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-12
    before = outputs(model, model.state_dict())
    after = outputs(model, probe.scale(model.state_dict(), factor, "batchnorm"))
    ratio = (after / before).median()
    torch.testing.assert_close(after, before * ratio, rtol=1e-4, atol=1e-7)


def test_dense_layers_without_a_bottleneck_are_followed_too():
    layers = {"conv0": nn.Conv2d(1, 4, 1, bias=False), "norm1": nn.BatchNorm2d(4)}
    layers |= {"conv1": nn.Conv2d(4, 2, 1, bias=False), "norm2": nn.BatchNorm2d(6)}
    layers |= {"conv2": nn.Conv2d(6, 2, 1, bias=False), "norm3": nn.BatchNorm2d(8)}
    state = {key: torch.ones_like(tensor) for key, tensor in nn.ModuleDict(layers).state_dict().items()}
    scaled = probe.scale(state, 3.0, "batchnorm")
    assert scaled["norm1.running_mean"].tolist() == [3] * 4
    # What norm1 read, then what conv1 added, and so on: all of them are scaled by 3, none by 9.
    assert scaled["norm2.running_mean"].tolist() == [3] * 6
    assert scaled["norm3.running_var"].tolist() == [9] * 8


def test_a_batchnorm_that_reads_nothing_known_is_refused():
    state = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 1, bias=False), "norm": nn.BatchNorm2d(7)}).state_dict()
    with pytest.raises(ProbeError, match="7 channels behind a layer of 4 units"):
        probe.scale(state, 2.0, "batchnorm")


def multiplied(state, scaled):
    return {key for key in state if not torch.equal(state[key], scaled[key])}


def test_scopes_multiply_the_tensors_that_they_name():
    state = {key: tensor + 1 for key, tensor in models.build("vit", 4, 1, (8, 8), seed=0).state_dict().items()}
    by_scope = {scope: multiplied(state, probe.scale(state, 3.0, scope)) for scope in probe.SCOPES[:5]}
    assert by_scope["everything"] == by_scope["learnable"] == set(state)
    assert by_scope["head"] == {"heads.head.weight", "heads.head.bias"}
    norms = {key for key in state if ".ln" in key}
    assert by_scope["weights and biases"] == set(state) - norms
    assert by_scope["weights"] == {key for key in state if state[key].dim() > 1}
    state = {key: tensor + 1 for key, tensor in bn_model().state_dict().items()}
    learnable = {key for key in state if "running" not in key and "num_batches" not in key}
    assert multiplied(state, probe.scale(state, 3.0, "learnable")) == learnable
    assert multiplied(state, probe.scale(state, 3.0, "weights and biases")) == {
        k for k in learnable if k[0] not in "15"
    }


def test_one_layer_is_scaled_alone_and_must_exist():
    state = models.build("vit", 4, 1, (8, 8), seed=0).state_dict()
    attention = "encoder.layers.encoder_layer_0.self_attention"
    assert attention in probe.layers(state)
    assert not [name for name in probe.layers(state) if "ln" in name or "token" in name or "pos_" in name]
    scaled = probe.scale({key: tensor + 1 for key, tensor in state.items()}, 3.0, layer=attention)
    plain = {key: tensor + 1 for key, tensor in state.items()}
    assert multiplied(plain, scaled) == {f"{attention}.in_proj_weight", f"{attention}.in_proj_bias"}
    with pytest.raises(ProbeError, match="layer"):
        probe.scale(state, 3.0, layer="nowhere")


def test_variance_is_scaled_by_the_square():
    state = trained("resnet8").state_dict()
    scaled = probe.scale(state, 3.0, "batchnorm")
    torch.testing.assert_close(scaled["bn1.running_mean"], 3 * state["bn1.running_mean"])
    torch.testing.assert_close(scaled["bn1.running_var"], 9 * state["bn1.running_var"])
    torch.testing.assert_close(scaled["bn1.weight"], state["bn1.weight"])
    assert list(scaled) == list(state)


def test_everything_scales_counters_too_and_learnable_does_not():
    state = bn_model().state_dict()
    everything, learnable = (probe.scale(state, 10, scope) for scope in ("everything", "learnable"))
    assert everything["1.num_batches_tracked"] == 10 * state["1.num_batches_tracked"]
    assert learnable["1.num_batches_tracked"] == state["1.num_batches_tracked"]
    torch.testing.assert_close(everything["1.running_var"], 10 * state["1.running_var"])
    torch.testing.assert_close(learnable["1.running_var"], state["1.running_var"])
    torch.testing.assert_close(learnable["0.weight"], 10 * state["0.weight"])


def test_overflow_shows_as_infinity():
    state = {"a.weight": torch.full((2, 2), 1e30), "a.bias": torch.zeros(2)}
    assert torch.isinf(probe.scale(state, 1e30)["a.weight"]).all()


def test_keys_sorted_by_name_are_refused():
    state = models.build("resnet8", 4, 1, (8, 8), seed=0).state_dict()
    with pytest.raises(ProbeError, match="order of the forward pass"):
        probe.scale(dict(sorted(state.items())), 2.0, "batchnorm")


@pytest.mark.parametrize(
    ("factor", "scope", "words"),
    [
        (0, "learnable", "factor"),
        (-1, "learnable", "factor"),
        (float("nan"), "learnable", "factor"),
        (2, "all", "'all'"),
    ],
)
def test_bad_arguments_are_refused(factor, scope, words):
    with pytest.raises(ProbeError, match=words):
        probe.scale(linear_state(0), factor, scope)


def test_homogeneous_is_refused_where_it_is_not_defined():
    with pytest.raises(ProbeError, match="batchnorm"):
        probe.scale(bn_model().state_dict(), 2, "homogeneous")
    layernorm = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2)).state_dict()
    with pytest.raises(ProbeError, match="a norm without"):
        probe.scale(layernorm, 2, "batchnorm")
