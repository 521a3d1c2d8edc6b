"""Foreign images look as if they came from the data set, and are still foreign."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import random_dataset, random_split
from PIL import Image

from wamlib import data
from wamlib.data import as_if_from, photographs
from wamlib.errors import DataError


def test_colour_becomes_grey_as_pillow_makes_it():
    split, grey = random_split(channels=3), random_dataset()
    found = as_if_from(split, grey)
    for image, expected in zip(found.images, split.images, strict=True):
        by_pillow = np.asarray(Image.fromarray(expected.permute(1, 2, 0).numpy()).convert("L"), dtype=int)
        assert np.abs(image[0].int().numpy() - by_pillow).max() <= 1  # Pillow cuts where we round
    assert found.images.dtype == torch.uint8


def test_grey_becomes_colour_and_equal_channels_stay_what_they_are():
    split = random_split()
    found = as_if_from(split, random_dataset(channels=3))
    assert torch.equal(found.images, split.images.expand(-1, 3, -1, -1))
    assert torch.equal(as_if_from(found, random_dataset()).images, split.images)
    assert torch.equal(as_if_from(split, random_dataset()).images, split.images)


def test_sizes_are_changed_with_pillows_bilinear_filter():
    split = random_split(side=20)
    found = as_if_from(split, random_dataset()).images
    assert found.shape == (40, 1, 8, 8)
    for image, original in zip(found, split.images, strict=True):
        expected = Image.fromarray(original[0].numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        assert np.abs(image[0].int().numpy() - np.asarray(expected, dtype=int)).max() <= 1
    # Without averaging, a picture of every other row would turn black or white.
    stripes = replace(split, images=(torch.arange(20) % 2 * 255).byte().expand(1, 1, 20, 20), labels=split.labels[:1])
    assert as_if_from(stripes, random_dataset()).images.float().std() < 40


def test_normalisation_is_that_of_the_own_images_and_no_class_is_right():
    dataset = random_dataset()
    own = replace(dataset, test=replace(dataset.test, mean=torch.tensor([10.0]), std=torch.tensor([5.0])))
    split = random_split(seed=9)
    found = as_if_from(split, own)
    assert (found.mean, found.std) == (10, 5)
    assert set(found.labels.tolist()) == {-1}
    assert len(found) == 40
    with pytest.raises(DataError, match="channels: got 2, wanted 1"):
        as_if_from(replace(split, images=split.images.expand(-1, 2, -1, -1)), own)


def test_patches_are_cut_from_the_photographs_side_by_side():
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    patches = photographs((28, 30))
    assert patches.shape == (2 * (427 // 28) * (640 // 30), 3, 28, 30)
    np.testing.assert_array_equal(patches[0].permute(1, 2, 0), pictures[0][:28, :30])
    np.testing.assert_array_equal(patches[22].permute(1, 2, 0), pictures[0][28:56, 30:60])
    np.testing.assert_array_equal(patches[315].permute(1, 2, 0), pictures[1][:28, :30])
    few = photographs((28, 30), 10)
    assert len(few) == 10
    assert torch.equal(few[5], patches[315])  # of both photographs
    assert torch.equal(photographs((28, 30), 5000), patches)
    with pytest.raises(DataError, match="got 500 by 30 pixels, wanted at most 427 by 640"):
        photographs((500, 30))


def test_foreign_images_are_of_those_data_sets_that_are_here_and_not_of_the_own(tmp_path):
    digits = data.load("digits", n_train=200)
    found = data.foreign(["photographs", "digits", "cifar10"], digits, 50, tmp_path)
    assert list(found) == ["photographs"]
    assert found["photographs"].images.shape == (50, 1, 8, 8)
    other = random_dataset(channels=3)
    assert len(data.foreign(["digits"], other, 30)["digits"]) == 30
    again = data.foreign(["digits"], other, 30)["digits"]
    assert torch.equal(again.images, as_if_from(data.load("digits", n_train=1, n_eval=30).test, other).images)


def test_no_foreign_images_are_an_error_and_so_is_an_unknown_name(tmp_path):
    digits = data.load("digits", n_train=200)
    with pytest.raises(DataError, match=r"none is here.*Add 'photographs'"):
        data.foreign(["digits", "cifar10"], digits, 50, tmp_path)
    with pytest.raises(DataError, match="name 'cats'"):
        data.foreign(["cats"], digits, 50, tmp_path)
