"""Second order at the soup, against gaps that are known exactly and differences in float64."""

import copy

import pytest
import torch
from helpers import bn_model, random_dataset, untrained

from wamlib import models, probe
from wamlib.errors import ProbeError
from wamlib.merge import uniform_soup

STEPS = (None, 0.02, 0.5, 1.0)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset()


def prepared(name, dataset, n=3, spread=0.1, n_images=20):
    """A model in float64, members of it and normalised images."""
    runs = untrained(name, dataset, n, spread)
    model = models.build(name, 3, 1, (8, 8)).double()
    members = [{k: t.double() if t.is_floating_point() else t for k, t in run.state.items()} for run in runs]
    model.load_state_dict(members[0])
    return model, members, dataset.test.normalize(dataset.test.images[:n_images]).double()


def logits(model, state, images):
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval()(images)


def gap(model, members, images):
    """Logit ensemble minus soup, measured."""
    pooled = torch.stack([logits(model, member, images) for member in members]).mean(0)
    return pooled - logits(model, uniform_soup(members), images)


def unexplained(predicted, found):
    return ((predicted - found).square().sum() / found.square().sum()).item()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n", [2, 3])
def test_of_a_product_of_two_weights_second_order_is_all_there_is(step, n, dataset):
    model, members, images = prepared("deep_linear", dataset, n, spread=1.0)
    found = gap(model, members, images)
    assert found.abs().max() > 0.1
    predicted = probe.second_order_gap(model, members, images, step)
    torch.testing.assert_close(predicted, found, rtol=1e-8, atol=1e-9)


def test_one_layer_has_no_gap_and_no_curvature(dataset):
    model, members, images = prepared("linear", dataset, spread=1.0)
    for step in STEPS:
        assert probe.second_order_gap(model, members, images, step).abs().max() < 1e-9


@pytest.mark.parametrize("step", STEPS)
def test_a_smooth_network_is_predicted_where_its_members_are_near(step, dataset):
    shares = []
    for spread in (0.04, 0.02):
        model, members, images = prepared("vit", dataset, spread=spread)
        shares.append(unexplained(probe.second_order_gap(model, members, images, step), gap(model, members, images)))
    assert shares[0] < 0.05
    assert shares[1] < 0.4 * shares[0]  # what is left is of higher order


@pytest.mark.parametrize("name", ["vit", "mlp", "cnn", "vgg_bn", "resnet8", "densenet"])
def test_the_derivative_is_the_limit_of_differences_of_the_network_itself(name, dataset):
    """Torch's own norms, differentiated twice, would give something else without a word."""
    model, members, images = prepared(name, dataset, spread=0.3)
    soup, h, bends = uniform_soup(members), 2e-5, []
    wide = [key for key in soup if soup[key].is_floating_point()]
    for member in members:
        ends = [soup | {key: soup[key] + way * (member[key] - soup[key]) for key in wide} for way in (h, -h)]
        bends.append((sum(logits(model, end, images) for end in ends) - 2 * logits(model, soup, images)) / h**2)
    expected = sum(bends) / (2 * len(bends))
    found = probe.second_order_gap(model, members, images)
    # A unit that switches within the tiny step is seen by the difference and not by the derivative: most images, then.
    wrong = (found - expected).abs().amax(1) > 1e-3 * expected.abs().max()
    assert wrong.double().mean() <= 0.1
    assert expected.abs().max() > 1e-3


def test_a_relu_networks_derivative_misses_the_units_that_switch(dataset):
    model, members, images = prepared("mlp", dataset, spread=0.5)
    found = gap(model, members, images)
    at_the_soup, half_way = (unexplained(probe.second_order_gap(model, members, images, s), found) for s in (None, 0.5))
    assert half_way < 0.5
    assert half_way < 0.6 * at_the_soup
    # The twin: of the same network without its kinks the two say the same.
    for depth in (1, 2, 3):
        setattr(model, f"relu{depth}", torch.nn.Identity())
    found = gap(model, members, images)
    without = [unexplained(probe.second_order_gap(model, members, images, step), found) for step in (None, 0.02)]
    assert without[0] == pytest.approx(without[1], rel=1e-2)


def test_copies_have_no_gap(dataset):
    model, members, images = prepared("resnet8", dataset, n=1)
    for pool in (members, members * 3):
        for step in STEPS:
            assert probe.second_order_gap(model, pool, images, step).abs().max() < 1e-8


def test_the_order_of_the_members_does_not_matter(dataset):
    model, members, images = prepared("resnet8", dataset)
    for step in (None, 0.5):
        a, b = (probe.second_order_gap(model, pool, images, step) for pool in (members, members[::-1]))
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_variance_that_would_fall_below_zero_is_taken_for_zero():
    model, images = bn_model(), torch.randn(10, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    state = model.state_dict()
    members = [{**state, "1.running_var": torch.full((4,), value)} for value in (0.1, 0.1, 10.0)]
    assert 2 * 3.4 - 10 < 0  # the far side of the third
    far = probe.second_order_gap(model, members, images, 1.0)
    assert far.isfinite().all()
    assert far.abs().max() > 0


@pytest.mark.parametrize("step", [0, 0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_step_that_leads_nowhere_or_too_far_is_refused(step):
    model = bn_model()
    with pytest.raises(ProbeError, match=r"step.*wanted a number in \(0, 1\], or None"):
        probe.second_order_gap(model, [model.state_dict()], torch.zeros(2, 1, 6, 6), step)


@pytest.mark.parametrize("step", [None, 0.5])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(step, training, dataset):
    model, members, images = prepared("resnet8", dataset)
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    pools = copy.deepcopy(members)
    found = probe.second_order_gap(model, members, images, step)
    assert all(module.training == training for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    torch.testing.assert_close(members, pools, rtol=0, atol=0)
    assert type(model.bn1) is torch.nn.BatchNorm2d  # in the copy it was replaced
    # Eval mode, whatever mode it is in.
    torch.testing.assert_close(found, probe.second_order_gap(model.eval(), members, images, step))


def test_attention_is_as_fast_as_before_afterwards(dataset):
    model, members, images = prepared("vit", dataset)
    assert torch.backends.mha.get_fastpath_enabled()
    probe.second_order_gap(model, members, images[:3])
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(AssertionError, match="Wrong image height"):
        probe.second_order_gap(model, members, images[:, :, :5])
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_images_decide_what_it_is_computed_in(dataset):
    model, members, images = prepared("mlp", dataset)
    narrow = [{key: tensor.float() for key, tensor in member.items()} for member in members]
    for step in (None, 0.5):
        wide = probe.second_order_gap(model, members, images, step)
        assert wide.dtype == torch.float64
        single = probe.second_order_gap(copy.deepcopy(model).float(), narrow, images.float(), step)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), wide, rtol=1e-3, atol=1e-4)
        assert probe.second_order_gap(model, narrow, images, step).dtype == torch.float64
