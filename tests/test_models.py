import pytest
import torch

from wamlib import models
from wamlib.errors import ConfigError


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (1, (28, 28)), (3, (32, 32)), (3, (24, 40))])
def test_every_model_takes_every_image_size(name, channels, size):
    model = models.build(name, 7, channels, size, seed=0)
    assert model(torch.randn(2, channels, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", models.NAMES)
def test_seed_fixes_the_weights_and_nothing_else(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    states = [models.build(name, 3, 1, (8, 8), seed=seed).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", models.NAMES)
def test_head_gives_the_logits(name):
    model = models.build(name, 5, 1, (8, 8), seed=0).eval()
    caught = []
    models.head(model).register_forward_hook(lambda layer, inputs, output: caught.append(output))
    logits = model(torch.randn(4, 1, 8, 8))
    torch.testing.assert_close(caught[0], logits)


def test_pool_before_relu_is_relu_before_pool():
    x = torch.randn(2, 3, 8, 8)
    pool = torch.nn.MaxPool2d(2)
    torch.testing.assert_close(pool(x.relu()), pool(x).relu(), rtol=0, atol=0)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'resnet'.*resnet8"):
        models.build("resnet", 10, 1, (28, 28))


def test_images_too_small_are_refused():
    with pytest.raises(ConfigError, match="4 x 8"):
        models.build("cnn", 10, 1, (4, 8))


def test_a_model_without_a_linear_layer_has_no_head():
    with pytest.raises(ConfigError, match="head"):
        models.head(torch.nn.Conv2d(1, 1, 1))


def test_registry_is_open():
    @models.register("flat-test")
    def _flat(n_classes, in_channels, image_size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(n_classes))

    assert models.build("flat-test", 2, 1, (8, 8))(torch.randn(1, 1, 8, 8)).shape == (1, 2)
