"""What a name stands for: which files, whether they are here, and how they are called in a figure."""

import shutil
import subprocess
import sys

import pytest
from test_data import make_cifar, make_mnist, make_tiny_imagenet, save_images

from wamlib.data import fashion_mnist, is_present, load, sources, title
from wamlib.errors import DataError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with pets/ in it, inside a checkout that has notebooks/; the data root of this machine is far."""
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path / "data"))
    (tmp_path / "notebooks").mkdir()
    make_pets(tmp_path / "data" / "raw")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "raw"


def make_pets(folder):
    for name in ("cat", "dog"):
        save_images(folder / "pets" / name, 15)


# Relative paths


def test_a_relative_path_means_the_same_file_in_a_notebook_and_on_the_command_line(root, monkeypatch):
    here = load("folder:pets")
    monkeypatch.chdir("notebooks")
    there = load("folder:pets")
    assert here.split_hash == there.split_hash == load(f"folder:{root / 'pets'}").split_hash
    assert here.name == there.name == "folder:pets"
    assert load("folder:pets", root).split_hash == here.split_hash


def test_a_relative_root_is_that_of_the_working_directory(root, monkeypatch):
    make_pets(root.parents[1] / "notebooks" / "raw")
    monkeypatch.chdir("data")
    below_data = load("folder:pets", "raw")
    monkeypatch.chdir("../notebooks")
    assert load("folder:pets", "raw").split_hash != below_data.split_hash


def test_the_working_directory_comes_before_the_data_root(root, monkeypatch):
    below_root = load("folder:pets")
    make_pets(root.parents[1] / "notebooks")
    monkeypatch.chdir("notebooks")
    # The same words mean another folder now, in the same process.
    assert load("folder:pets").split_hash != below_root.split_hash
    assert load("folder:../data/raw/pets").split_hash == below_root.split_hash


def test_a_path_that_leads_nowhere_names_both_places(root):
    with pytest.raises(DataError, match="no such folder") as caught:
        load("folder:birds")
    assert str(root.parents[1] / "birds") in str(caught.value)
    assert str(root / "birds") in str(caught.value)
    with pytest.raises(DataError) as caught:
        load("folder:/nowhere/birds")
    assert str(root) not in str(caught.value)  # an absolute path has one place


# Presence


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mnist", lambda root, _: make_mnist(root)),
        ("cifar10", lambda root, patch: make_cifar(root, "cifar10", patch)),
        ("cifar100", lambda root, patch: make_cifar(root, "cifar100", patch)),
        ("tiny-imagenet", lambda root, _: make_tiny_imagenet(root)),
        ("folder:birds", lambda root, _: shutil.copytree(root / "pets", root / "birds")),
        ("folder:pets.zip", lambda root, _: shutil.make_archive(root / "pets", "zip", root, "pets")),
    ],
)
def test_a_data_set_is_present_when_it_can_be_loaded(root, monkeypatch, name, make):
    assert is_present(name) is False
    with pytest.raises(DataError):
        load(name)
    make(root, monkeypatch)
    assert is_present(name) is True
    assert is_present(name, root) is True
    assert is_present(name, root.parent / "other") is False
    load(name)


def test_fashion_mnist_is_present_with_all_four_files(root):
    assert not is_present("fashion-mnist")
    (root / "fashion-mnist").mkdir()
    for stem in fashion_mnist.SHA256:
        assert not is_present("fashion-mnist")
        (root / "fashion-mnist" / f"{stem}.gz").touch()
    assert is_present("fashion-mnist")


def test_digits_are_always_present(tmp_path):
    assert is_present("digits", tmp_path / "nowhere")


def test_looking_for_files_does_not_import_what_would_read_them(root):
    code = f"import sys; from wamlib import data; [data.is_present(name, {str(root)!r}) for name in {sources.NAMES}]"
    code += "; print({'torchvision', 'sklearn', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Titles


def test_every_data_set_has_the_title_its_authors_gave_it():
    titles = ["digits", "Fashion-MNIST", "MNIST", "CIFAR-10", "CIFAR-100", "Tiny ImageNet"]
    assert [title(name) for name in sources.NAMES] == titles


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pets", "pets"),
        ("a/pets/", "pets"),
        ("/a/b/pets.zip", "pets"),
        ("PETS.ZIP", "PETS"),
        ("pets.v2", "pets.v2"),  # no suffix of a folder
        ("pets/.", "pets"),
        ("cifar10-jpeg.zip", "CIFAR-10 (JPEG q75)"),
        ("/a/cifar10-jpeg", "CIFAR-10 (JPEG q75)"),
        ("cifar10-jpeg/pets", "pets"),
    ],
)
def test_a_folder_is_called_after_itself_and_lossy_images_are_called_lossy(path, expected):
    assert title(f"folder:{path}") == expected


@pytest.mark.parametrize("ask", [is_present, title, load])
def test_unknown_names_get_one_and_the_same_error(ask):
    with pytest.raises(DataError) as caught:
        ask("fashion_mnist")
    assert caught.value.item == "name 'fashion_mnist'"
    assert "tiny-imagenet, or folder:PATH" in caught.value.wanted
