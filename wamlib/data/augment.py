"""Random flips and padded crops of a whole batch, on the device the batch is on."""

import torch
import torch.nn.functional as F

__all__ = ["augment"]


def augment(images, kind, generator):
    """Return randomly flipped and shifted copies of a batch of images.

    Parameters
    ----------
    images : Tensor, shape (batch, channel, height, width)
        Any dtype and device.
    kind : {"none", "flip", "crop", "flip-crop"}
        "flip" mirrors half of the images left to right; "crop" pads with zeros by
        an eighth of the side and cuts a window of the old size at a random place.
    generator : torch.Generator
        On the CPU; the only source of randomness.

    Returns
    -------
    Tensor
        Same shape, dtype and device.
    """
    batch, _, height, width = images.shape
    if "flip" in kind:
        mirror = torch.rand(batch, generator=generator) < 0.5
        images = torch.where(mirror.to(images.device)[:, None, None, None], images.flip(3), images)
    if "crop" in kind:
        pad = max(1, height // 8)
        offset = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator).to(images.device)
        rows = torch.arange(height, device=images.device) + offset[0]
        cols = torch.arange(width, device=images.device) + offset[1]
        padded = F.pad(images, (pad, pad, pad, pad))
        sample = torch.arange(batch, device=images.device)[:, None, None]
        # Indexing (sample, row, column) with the channel last, then putting it back.
        images = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    return images
