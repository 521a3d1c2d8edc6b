import subprocess
import sys

import pytest
import torch
from torch import nn

from wamlib import merge, models
from wamlib.errors import ConfigError

WITH_WIDTH = [name for name in models.SMALL if name != "linear"]
SIZES = [(1, (8, 8)), (1, (28, 28)), (3, (32, 32)), (3, (24, 40))]


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [(name, *size) for name in models.SMALL for size in SIZES if name != "vit" or size[1][0] == size[1][1]],
)
def test_every_small_model_takes_every_image_size(name, channels, size):
    model = models.build(name, 7, channels, size, seed=0)
    assert model(torch.randn(2, channels, *size)).shape == (2, 7)


def test_a_vision_transformer_refuses_images_that_are_not_square():
    with pytest.raises(ConfigError, match="24 x 40 pixels, wanted a square image"):
        models.build("vit", 7, 3, (24, 40))


@pytest.mark.parametrize("name", models.SMALL)
def test_seed_fixes_the_weights_and_nothing_else(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    states = [models.build(name, 3, 1, (8, 8), seed=seed).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", models.SMALL)
def test_head_gives_the_logits(name):
    model = models.build(name, 5, 1, (8, 8), seed=0).eval()
    caught = []
    models.head(model).register_forward_hook(lambda layer, inputs, output: caught.append(output))
    logits = model(torch.randn(4, 1, 8, 8))
    torch.testing.assert_close(caught[0], logits)


@pytest.mark.parametrize("name", models.SMALL)
def test_stem_reads_the_image(name):
    model = models.build(name, 5, 3, (8, 8), seed=0).eval()
    caught = []
    models.stem(model).register_forward_hook(lambda layer, inputs, output: caught.append(inputs[0]))
    x = torch.randn(4, 3, 8, 8)
    model(x)
    assert torch.equal(caught[0].flatten(), x.flatten())


@pytest.mark.parametrize("parts", [(), ("stem",), ("head",), ("stem", "head")])
@pytest.mark.parametrize("name", models.SMALL)
def test_redraw_takes_the_named_layers_of_the_other_model_and_nothing_else(name, parts):
    model, other = (models.build(name, 5, 1, (8, 8), seed=seed) for seed in (0, 1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = [{"stem": models.stem, "head": models.head}[part](model) for part in parts]
    drawn = {f"{path}.{key}" for path, layer in model.named_modules() if layer in layers for key in layer.state_dict()}
    assert models.redraw(model, parts, other) is model
    for key, value in model.state_dict().items():
        assert torch.equal(value, (other.state_dict() if key in drawn else before)[key]), key
    # A bias may start at zero in both.
    assert all(not torch.equal(before[key], other.state_dict()[key]) for key in drawn if key.endswith(".weight"))
    assert bool(drawn) == bool(parts)


def n_parameters(name):
    return sum(p.numel() for p in models.build(name, 10, 1, (16, 16)).parameters())


@pytest.mark.parametrize("name", WITH_WIDTH)
def test_width_is_a_factor_on_the_units(name):
    sizes = [n_parameters(name + width) for width in ("-x0.01", "-x0.5", "", "-x1", "-x2")]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] < sizes[4]
    twice, once = (models.head(models.build(name + width, 10, 1, (16, 16))).in_features for width in ("-x2", ""))
    assert twice == 2 * once


def test_a_width_where_there_is_none_or_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match=r"'linear-x2': got width 2\.0 for a model that has none"):
        models.build("linear-x2", 10, 1, (8, 8))
    for width in ("wide", "0", "-1", "inf"):
        with pytest.raises(ConfigError, match=f"the width {width!r}"):
            models.build(f"mlp-x{width}", 10, 1, (8, 8))


@pytest.mark.parametrize("name", models.SMALL)
def test_weights_are_refused_by_a_model_that_has_none(name):
    with pytest.raises(ConfigError, match="weights 'DEFAULT' for a model that has none"):
        models.build(name, 10, 1, (8, 8), weights="DEFAULT")


def with_statistics(model, channels, side):
    """Give BatchNorm layers statistics that are not the initial ones."""
    with torch.no_grad():
        model.train()(torch.randn(8, channels, side, side) * 2 + 1)
    return model.eval()


@pytest.mark.parametrize("name", [*models.SMALL, "resnet18_cifar", "efficientnet_lite0"])
def test_a_soup_of_copies_is_the_model_and_its_batchnorm_can_be_recalibrated(name):
    torch.manual_seed(0)
    model = with_statistics(models.build(name, 5, 3, (16, 16)), 3, 16)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    soup = merge.uniform_soup([state, state])
    torch.testing.assert_close(soup, state, rtol=0, atol=0)

    x = torch.randn(8, 3, 16, 16)
    model.load_state_dict(soup)
    merge.recalibrate_batchnorm(model, [x])
    norms = [key for key, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    assert {key.rpartition(".")[0] for key in changed} == set(norms)
    if norms:  # the first one stands behind the stem
        with torch.no_grad():
            expected = models.stem(model)(x).mean(dim=(0, 2, 3))
        torch.testing.assert_close(model.get_submodule(norms[0]).running_mean, expected, rtol=1e-4, atol=1e-5)


def test_pool_before_relu_is_relu_before_pool():
    x = torch.randn(2, 3, 8, 8)
    pool = torch.nn.MaxPool2d(2)
    torch.testing.assert_close(pool(x.relu()), pool(x).relu(), rtol=0, atol=0)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="name 'resnet'") as caught:
        models.build("resnet", 10, 1, (28, 28))
    assert set(models.NAMES) <= set(caught.value.wanted.removeprefix("one of ").split(", "))


def test_images_too_small_are_refused():
    with pytest.raises(ConfigError, match="4 x 8"):
        models.build("cnn", 10, 1, (4, 8))


def test_a_model_without_a_linear_layer_has_no_head():
    with pytest.raises(ConfigError, match="head"):
        models.head(torch.nn.Conv2d(1, 1, 1))


def test_names_are_listed_once_and_all_can_be_built():
    assert len(set(models.NAMES)) == len(models.NAMES)
    assert set(models.NAMES) == {*models.SMALL, *models.PUBLISHED, "efficientnet_lite0"}
    with torch.device("meta"):
        assert all(models.head(models.build(name, 3, 3, (32, 32))).out_features == 3 for name in models.NAMES)


@pytest.mark.parametrize("name", models.NAMES)
def test_what_a_name_says_is_what_the_network_has(name):
    from torchvision.models.resnet import BasicBlock, Bottleneck
    from torchvision.models.vision_transformer import EncoderBlock

    with torch.device("meta"):
        layers = list(models.build(name, 3, 3, (32, 32)).modules())

    def has(*kinds):
        return any(isinstance(layer, kinds) for layer in layers)

    kind = "vit" if has(nn.MultiheadAttention) else "cnn" if has(nn.Conv2d) else "mlp" if has(nn.ReLU) else "linear"
    dropout = any(layer.p > 0 for layer in layers if isinstance(layer, nn.Dropout))
    residual = has(BasicBlock, Bottleneck, EncoderBlock, models.lite0.Block)
    facts = models.facts(name)
    assert facts == (kind, models.family(name), has(nn.BatchNorm2d), dropout, residual)
    assert models.kind(name) == kind
    assert facts.family in name


def test_the_kind_of_a_name_with_a_width_of_another_package_and_of_none():
    assert [models.kind(name) for name in ("resnet8-x2", "vgg16", "my.package:function")] == ["cnn", "cnn", "other"]
    assert [models.family(name) for name in ("resnet8-x2", "resnet50_cifar", "vgg11_bn")] == ["resnet", "resnet", "vgg"]
    for name in ("resnet", "linear-x2", "vit-xwide"):
        with pytest.raises(ConfigError, match=f"name '{name}'"):
            models.kind(name)


def test_the_names_do_not_wait_for_torchvision():
    code = "import sys, wamlib.models; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_registry_is_open():
    @models.register("flat-test")
    def _flat(n_classes, in_channels, image_size):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(n_classes))

    assert models.build("flat-test", 2, 1, (8, 8))(torch.randn(1, 1, 8, 8)).shape == (1, 2)
    assert models.facts("flat-test") == ("other", "other", None, None, None)
