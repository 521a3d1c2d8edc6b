"""Common corruptions against their definitions, written out in numpy, scipy and by hand."""

import numpy as np
import pytest
import torch
from helpers import random_split
from scipy.ndimage import gaussian_filter
from scipy.stats import binom, norm, poisson

from wamlib.data import CORRUPTIONS, corrupt
from wamlib.errors import DataError

# Hendrycks and Dietterich (2019), the published settings for CIFAR-10-C.
BLUR = [0.4, 0.6, 0.7, 0.8, 1.0]
CONTRAST = [0.75, 0.5, 0.4, 0.3, 0.15]
BRIGHT = [0.05, 0.1, 0.15, 0.2, 0.3]
COARSE = [0.95, 0.9, 0.85, 0.75, 0.65]


def smooth(channels=3, side=32, n=6):
    """Pictures that are not noise: sums of slow waves."""
    generator = np.random.default_rng(0)
    grid = np.arange(side) / side
    waves = [
        np.add.outer(np.sin(a * grid + b), np.cos(c * grid)) for a, b, c in generator.uniform(1, 9, (n * channels, 3))
    ]
    pictures = 127 + 60 * np.stack(waves).reshape(n, channels, side, side)
    return torch.from_numpy(pictures.clip(0, 255).round().astype(np.uint8))


def near(found, pixels):
    """Bytes are values between 0 and 1 times 255, rounded; halves, which are many at some severities, either way."""
    assert np.abs(np.asarray(found, dtype=float) - 255 * np.clip(pixels, 0, 1)).max() <= 0.501


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_bytes_of_the_same_shape_come_out_and_severity_is_distance(name, channels):
    images = smooth(channels)
    spoilt = [corrupt(images, name, severity) for severity in range(1, 6)]
    assert all(one.dtype == torch.uint8 and one.shape == images.shape for one in spoilt)
    distance = [(one.double() - images.double()).square().mean().item() for one in spoilt]
    assert distance == sorted(distance)
    assert 0 < distance[0] < distance[-1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_images_and_only_noise_heeds_it(name):
    images = smooth()
    before = images.clone()
    once, again, other = (corrupt(images, name, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert torch.equal(once, other) != name.endswith("noise")
    assert torch.equal(images, before)


@pytest.mark.parametrize("severity", range(1, 6))
def test_blur_contrast_and_brightness_are_their_formulas(severity):
    images = smooth()
    x = np.asarray(images, dtype=np.float64) / 255
    blurred = np.stack(
        [[gaussian_filter(c, BLUR[severity - 1], mode="nearest", truncate=4.0) for c in one] for one in x]
    )
    near(corrupt(images, "gaussian blur", severity), blurred)
    mean = x.mean((2, 3), keepdims=True)
    near(corrupt(images, "contrast", severity), mean + CONTRAST[severity - 1] * (x - mean))


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_brightness_is_added_to_the_value_of_a_colour_and_to_a_grey(severity):
    import colorsys

    colour, added = random_split(2, 3, 6).images, BRIGHT[severity - 1]
    colour[0, :, 0, 0] = 0  # black has no hue and becomes grey
    expected = np.zeros(colour.shape)
    for n, i, j in np.ndindex(2, 6, 6):
        h, s, v = colorsys.rgb_to_hsv(*(np.asarray(colour[n, :, i, j]) / 255))
        expected[n, :, i, j] = colorsys.hsv_to_rgb(h, s, min(1, v + added))
    near(corrupt(colour, "brightness", severity), expected)
    grey = random_split(5, 1, 8).images
    near(corrupt(grey, "brightness", severity), np.asarray(grey) / 255 + added)


def box(n_in, n_out):
    """The matrix of a box filter: the pixels whose centres a new pixel covers, or the nearest where it grows."""
    scale = n_in / n_out
    half = max(scale, 1) / 2
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        offset = np.arange(n_in) + 0.5 - (i + 0.5) * scale
        matrix[i] = (offset > -half) & (offset <= half)
    return matrix / matrix.sum(1, keepdims=True)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("severity", range(1, 6))
def test_pixelate_is_a_box_filter_down_and_up(severity, channels):
    images = smooth(channels, side=20)
    small = int(20 * COARSE[severity - 1])
    changed = np.asarray(images, dtype=np.float64)
    for matrix in (box(20, small), box(small, 20)):
        for pass_ in (lambda x, m=matrix: x @ m.T, lambda x, m=matrix: m @ x):  # along the rows first, as Pillow does
            changed = np.floor(pass_(changed) + 0.5 + 1e-9)
    np.testing.assert_array_equal(corrupt(images, "pixelate", severity), changed)


def test_jpeg_quality_is_pillows():
    import io

    from PIL import Image

    images = smooth(3)
    file = io.BytesIO()
    Image.fromarray(images[2].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=58)
    expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
    np.testing.assert_array_equal(corrupt(images, "jpeg", 3)[2], expected)


def flat(value, n=40, side=32):
    return torch.full((n, 1, side, side), value, dtype=torch.uint8)


@pytest.mark.parametrize(("severity", "deviation", "relative"), [(1, 0.04, 0.06), (3, 0.08, 0.12), (5, 0.10, 0.2)])
def test_noise_has_the_spread_that_is_published(severity, deviation, relative):
    grey = flat(128)
    found = corrupt(grey, "gaussian noise", severity).double()
    assert found.mean().item() == pytest.approx(128, abs=0.5)
    assert found.std().item() == pytest.approx(255 * deviation, rel=0.02)
    found = corrupt(grey, "speckle noise", severity).double()
    assert found.mean().item() == pytest.approx(128, abs=0.5)
    assert found.std().item() == pytest.approx(128 * relative, rel=0.02)
    assert torch.equal(corrupt(flat(0), "speckle noise", severity), flat(0))  # of a black pixel nothing is left


@pytest.mark.parametrize(("severity", "photons", "share"), [(1, 500, 0.01), (3, 100, 0.03), (5, 50, 0.07)])
def test_shot_noise_counts_photons_and_impulses_are_black_or_white(severity, photons, share):
    grey = flat(51)
    found = corrupt(grey, "shot noise", severity).double()
    assert found.mean().item() == pytest.approx(51, abs=1)
    assert found.std().item() == pytest.approx(255 * poisson(0.2 * photons).std() / photons, rel=0.03)
    found = corrupt(grey, "impulse noise", severity)
    n, white, black = found.numel(), (found == 255).sum().item(), (found == 0).sum().item()
    assert ((found == 51) | (found == 255) | (found == 0)).all()
    low, high = binom(n, share / 2).ppf(norm.cdf([-4, 4]))
    assert low <= white <= high
    assert low <= black <= high


def test_impulses_hit_channels_one_by_one():
    found = corrupt(torch.full((20, 3, 32, 32), 99, dtype=torch.uint8), "impulse noise", 5) != 99
    assert (found.any(1) & ~found.all(1)).any()


def test_noise_of_one_seed_is_the_same_at_each_severity_but_for_its_strength():
    one, two = (corrupt(flat(128), "gaussian noise", severity).double() - 128 for severity in (1, 3))
    assert np.corrcoef(one.flatten(), two.flatten())[0, 1] > 0.99


def test_small_pictures_can_be_blurred():
    assert corrupt(smooth(1, side=3), "gaussian blur", 5).shape == (6, 1, 3, 3)


@pytest.mark.parametrize(
    ("images", "name", "severity", "said"),
    [
        (flat(1), "fog", 1, "name: got 'fog', wanted one of gaussian noise"),
        (flat(1), "contrast", 0, "severity: got 0, wanted a whole number from 1 to 5"),
        (flat(1), "contrast", 2.5, "severity: got 2.5"),
        (flat(1).float(), "contrast", 1, "images: got torch.float32"),
        (flat(1)[0], "contrast", 1, "with 3 axes, wanted torch.uint8 with four axes"),
    ],
)
def test_what_is_no_corruption_is_refused(images, name, severity, said):
    with pytest.raises(DataError, match=said):
        corrupt(images, name, severity)
