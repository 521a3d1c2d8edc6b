"""Common corruptions: images as a camera, a cable or the weather might spoil them, at five severities."""

import io

import torch
import torch.nn.functional as F

from ..config import derive_seed
from ..errors import DataError

__all__ = ["CORRUPTIONS", "corrupt"]

DOING = "cannot corrupt images"

# One number per severity, as the authors chose them for CIFAR-10, on pixels from 0 to 1.
SEVERITIES = {
    "gaussian noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
    "shot noise": (500, 250, 100, 75, 50),  # photons of a white pixel
    "impulse noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of the values that become black or white
    "speckle noise": (0.06, 0.1, 0.12, 0.16, 0.2),  # standard deviation, relative to the pixel
    "gaussian blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation, pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # share of the contrast that is left
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the largest channel of a pixel
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # size of the coarse image, relative
    "jpeg": (80, 65, 58, 50, 40),  # quality
}
CORRUPTIONS = tuple(SEVERITIES)


def corrupt(images, name, severity, seed=0):
    """Return images spoilt by one of the common corruptions of CIFAR-10-C.

    Written anew from the published definitions and their numbers for images of 32 by 32 pixels; values are rounded,
    where the authors' files cut off what is behind the point, and noise is drawn by torch.

    Parameters
    ----------
    images : Tensor, uint8, shape (sample, channel, height, width)
    name : str
        One of `CORRUPTIONS`.
    severity : int
        From 1 to 5.
    seed : int
        Fixes the noise. Gaussian, speckle and impulse noise of one seed are the same at each severity, but for their
        strength.

    Returns
    -------
    Tensor, uint8, shape (sample, channel, height, width)
        On the device of the images.

    Raises
    ------
    DataError
        If the name or the severity is unknown, or the images are no bytes.

    References
    ----------
    Hendrycks and Dietterich (2019), Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
    Sections 3 and 4.1 and Appendix B. https://arxiv.org/abs/1903.12261
    """
    _check(images, name, severity)
    strength = SEVERITIES[name][severity - 1]
    if name in BY_BYTES:
        return BY_BYTES[name](images, strength)
    pixels = images.float() / 255
    if name.endswith("noise"):
        # Drawn on the CPU, so that every device sees the same noise.
        generator = torch.Generator().manual_seed(derive_seed("corruption", name, seed))
        spoilt = BY_NOISE[name](pixels.cpu(), strength, generator).to(images.device)
    else:
        spoilt = BY_PIXELS[name](pixels, strength)
    return (255 * spoilt.clamp(0, 1)).round().byte()


def _gaussian(pixels, deviation, generator):
    return pixels + deviation * torch.randn(pixels.shape, generator=generator)


def _shot(pixels, photons, generator):
    return torch.poisson(photons * pixels, generator=generator) / photons


def _impulse(pixels, share, generator):
    hit, white = torch.rand((2, *pixels.shape), generator=generator)
    return torch.where(hit < share, (white < 0.5).float(), pixels)


def _speckle(pixels, deviation, generator):
    return pixels + deviation * pixels * torch.randn(pixels.shape, generator=generator)


def _gaussian_blur(pixels, deviation):
    reach = int(4 * deviation + 0.5)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(pixels)
    n_channels = pixels.shape[1]
    wide = F.pad(pixels, [reach] * 4, mode="replicate")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        wide = F.conv2d(wide, kernel.view(shape).expand(n_channels, -1, -1, -1), groups=n_channels)
    return wide


def _contrast(pixels, share):
    mean = pixels.mean((2, 3), keepdim=True)
    return mean + share * (pixels - mean)


def _brightness(pixels, added):
    value = pixels.amax(1, keepdim=True)  # the V of hue, saturation and value; the other two stay
    brighter = (value + added).clamp(0, 1)
    return torch.where(value > 0, pixels * brighter / value, brighter)


def _pixelate(images, share):
    from PIL import Image

    def coarse(picture):
        width, height = picture.size
        small = max(1, int(width * share)), max(1, int(height * share))
        return picture.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _by_pictures(images, coarse)


def _jpeg(images, quality):
    from PIL import Image

    def squeezed(picture):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pictures(images, squeezed)


def _by_pictures(images, change):
    """Return the images, each changed as a Pillow image: of all its channels if it is colour, else each alone."""
    import numpy as np
    from PIL import Image

    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    if arrays.shape[3] == 3:
        changed = np.stack([np.asarray(change(Image.fromarray(array))) for array in arrays])
    else:
        layers = np.moveaxis(arrays, 3, 1).reshape(-1, *arrays.shape[1:3])
        changed = np.stack([np.asarray(change(Image.fromarray(layer))) for layer in layers])
        changed = np.moveaxis(changed.reshape(len(arrays), -1, *arrays.shape[1:3]), 1, 3)
    return torch.from_numpy(changed).permute(0, 3, 1, 2).contiguous().to(images.device)


BY_NOISE = {"gaussian noise": _gaussian, "shot noise": _shot, "impulse noise": _impulse, "speckle noise": _speckle}
BY_PIXELS = {"gaussian blur": _gaussian_blur, "contrast": _contrast, "brightness": _brightness}
BY_BYTES = {"pixelate": _pixelate, "jpeg": _jpeg}


def _check(images, name, severity):
    if name not in SEVERITIES:
        raise DataError(DOING, "name", repr(name), f"one of {', '.join(CORRUPTIONS)}", "Correct the name.")
    if severity not in (1, 2, 3, 4, 5):
        raise DataError(DOING, "severity", repr(severity), "a whole number from 1 to 5", "Correct the number.")
    if images.dtype != torch.uint8 or images.dim() != 4:
        wanted = "torch.uint8 with four axes: sample, channel, height, width"
        fix = "Pass the images of a wamlib.data.Split, which are not normalised."
        raise DataError(DOING, "images", f"{images.dtype} with {images.dim()} axes", wanted, fix)
