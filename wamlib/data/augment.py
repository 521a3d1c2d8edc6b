"""Random flips and padded crops of a whole batch, on the device the batch is on."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

__all__ = ["Moves", "augment", "draw_moves", "move"]


class Moves(NamedTuple):
    """Where each image of a batch goes; None for a kind of move that is not made.

    Parameters
    ----------
    mirror : Tensor, bool, shape (sample,), or None
        Whether the image is mirrored left to right.
    offset : Tensor, int64, shape (sample, 2), or None
        Row and column at which the window is cut from the padded image.
    """

    mirror: torch.Tensor | None
    offset: torch.Tensor | None

    def take(self, begin, end):
        """Return the moves of some images."""
        return Moves(*(None if part is None else part[begin:end] for part in self))


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
    return move(images, draw_moves([len(images)], kind, images.shape[2], generator, images.device))


def draw_moves(sizes, kind, height, generator, device="cpu"):
    """Draw the moves of several batches, one after the other, and bring them to a device in one copy.

    A copy for each batch would make the host wait for the device at each step.

    Parameters
    ----------
    sizes : sequence of int
        Images in each batch.
    kind : str
        As for `augment`.
    height : int
        Of an image, pixels.
    generator : torch.Generator
        On the CPU.
    device : torch.device or str

    Returns
    -------
    Moves
        Of all images, in the order of the batches.
    """
    mirrors, offsets = [], []
    for size in sizes:
        if "flip" in kind:
            mirrors.append(torch.rand(size, generator=generator) < 0.5)
        if "crop" in kind:
            offsets.append(torch.randint(0, 2 * _pad(height) + 1, (2, size, 1), generator=generator)[:, :, 0].T)
    return Moves(*(torch.cat(parts).to(device) if parts else None for parts in (mirrors, offsets)))


def move(images, moves):
    """Return a batch of images after its moves; see `augment`."""
    if moves.mirror is not None:
        images = torch.where(moves.mirror[:, None, None, None], images.flip(3), images)
    if moves.offset is not None:
        batch, _, height, width = images.shape
        pad = _pad(height)
        rows = torch.arange(height, device=images.device) + moves.offset[:, :1]
        cols = torch.arange(width, device=images.device) + moves.offset[:, 1:]
        padded = F.pad(images, (pad, pad, pad, pad))
        sample = torch.arange(batch, device=images.device)[:, None, None]
        # Indexing (sample, row, column) with the channel last, then putting it back.
        images = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    return images


def _pad(height):
    return max(1, height // 8)
