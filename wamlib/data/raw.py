"""What every reader returns: arrays of bytes, labels and class names."""

from dataclasses import dataclass

import torch

__all__ = ["Raw", "channels_first"]


@dataclass
class Raw:
    """What a reader returns: training bytes, test bytes where the data set has them, class names."""

    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor | None
    test_labels: torch.Tensor | None
    classes: tuple[str, ...]
    where: str


def channels_first(pixels):
    """Return images with their channels, if they have any, moved before height and width."""
    pixels = torch.as_tensor(pixels)
    return pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
