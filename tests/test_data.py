"""Loaders on a handful of real files in each format, and every kind of bad input."""

import gzip
import hashlib
import pickle
import shutil
import struct
import sys
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from wamlib import data
from wamlib.data import augment, draw_moves, fashion_mnist, fetch, load, move
from wamlib.errors import DataError, FetchError

# The package's names `fetch` and `augment` are functions; this is the module behind the first.
fetch_module = sys.modules["wamlib.data.fetch"]
RNG = np.random.default_rng(0)


def save_images(folder, n, size=(8, 8), mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        pixels = RNG.integers(0, 256, (*size[::-1], 3) if mode == "RGB" else size[::-1], dtype=np.uint8)
        Image.fromarray(pixels, mode if mode == "L" else None).save(folder / f"{index:03}.png")


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        save_images(tmp_path / "pets" / name, 15)
    return tmp_path / "pets"


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Four tiny files in Fashion-MNIST's format, with the checksums that go with them."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    digests = {}
    for stem, n in [("train", 60), ("t10k", 20)]:
        images = struct.pack(">IIII", 0x803, n, 8, 8) + RNG.integers(0, 256, n * 64, dtype=np.uint8).tobytes()
        labels = struct.pack(">II", 0x801, n) + bytes(i % 10 for i in range(n))
        for part, content in [("images-idx3", images), ("labels-idx1", labels)]:
            name = f"{stem}-{part}-ubyte"
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            digests[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fashion_mnist, "SHA256", {name: digests[name] for name in fashion_mnist.SHA256})
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    data.dataset._load.cache_clear()
    return folder


def make_mnist(root):
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, n in [("train", 60), ("t10k", 20)]:
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, n, 28, 28) + bytes(n * 784))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, n) + bytes(i % 10 for i in range(n)))


def make_cifar(root, name, monkeypatch):
    """Write cifar10 or cifar100 with 200 training and 20 test images, and return the two batches."""
    import torchvision

    cls = getattr(torchvision.datasets, name.upper())
    base = root / name / cls.base_folder
    base.mkdir(parents=True)
    n_classes = int(name.removeprefix("cifar"))

    def batch(n):
        pixels, labels = RNG.integers(0, 256, (n, 3072), dtype=np.uint8), [i % n_classes for i in range(n)]
        fine = {"fine_labels": labels, "coarse_labels": [0] * n}  # CIFAR-100 has both
        return {"data": pixels, **({"labels": labels} if n_classes == 10 else fine)}

    meta = {cls.meta["key"]: [f"class {i}" for i in range(n_classes)]}
    files = {cls.train_list[0][0]: batch(200), cls.test_list[0][0]: batch(20), cls.meta["filename"]: meta}
    for file, content in files.items():
        (base / file).write_bytes(pickle.dumps(content))
    # The checksums of the official files are not those of these.
    monkeypatch.setattr(cls, "train_list", [[cls.train_list[0][0], None]])
    monkeypatch.setattr(cls, "test_list", [[cls.test_list[0][0], None]])
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": None})
    return list(files.values())[:2]


def make_tiny_imagenet(root):
    """Write two classes of twelve training images and four validation images, and return the folder."""
    base = root / "tiny-imagenet" / "tiny-imagenet-200"
    wnids = ["n02", "n01"]
    for wnid in wnids:
        save_images(base / "train" / wnid / "images", 12, (64, 64))
        for path in (base / "train" / wnid / "images").iterdir():
            path.rename(path.with_suffix(".JPEG"))
    save_images(base / "val" / "images", 4, (64, 64))
    names = sorted(path.name for path in (base / "val" / "images").iterdir())
    (base / "wnids.txt").write_text("\n".join(wnids))
    (base / "words.txt").write_text("n01\tfish, pisces\nn02\tbird\nn03\tother\n")
    notes = [f"{name}\t{wnids[i % 2]}\t0\t0\t9\t9" for i, name in enumerate(names)]
    (base / "val" / "val_annotations.txt").write_text("\n".join(notes))
    return base


# Splits


def test_digits_are_three_disjoint_splits():
    digits = load("digits")
    parts = [digits.train, digits.selection, digits.test]
    assert sum(len(part) for part in parts) == 1797
    pictures = [{image.numpy().tobytes() for image in part.images} for part in parts]
    assert not pictures[0] & pictures[1]
    assert not pictures[0] & pictures[2]
    assert not pictures[1] & pictures[2]
    assert digits.train.images.dtype == torch.uint8
    assert (digits.in_channels, digits.image_size) == (1, (8, 8))


def test_split_hash_tells_splits_apart():
    hashes = [
        load("digits", split_seed=seed, n_train=n).split_hash for seed, n in [(0, 100), (0, 100), (1, 100), (0, 101)]
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_fewer_training_images_leave_the_other_splits_alone():
    small, large = load("digits", n_train=50), load("digits", n_train=500)
    torch.testing.assert_close(small.test.images, large.test.images)
    torch.testing.assert_close(small.selection.images, large.selection.images)
    torch.testing.assert_close(small.train.images, large.train.images[:50])


def labelled(split):
    return {image.numpy().tobytes(): int(label) for image, label in zip(split.images, split.labels, strict=True)}


@pytest.mark.parametrize(("n_eval", "n_test", "n_selection"), [(90, 90, 30), (10, 10, 3), (2, 2, 1), (1, 1, 1)])
def test_of_the_other_images_as_many_are_kept_as_asked_for_and_a_third_for_selection(n_eval, n_test, n_selection):
    part, whole = (load("digits", n_train=50, n_eval=n) for n in (n_eval, None))
    assert (len(part.test), len(part.selection), len(part.train)) == (n_test, n_selection, 50)
    torch.testing.assert_close(part.train.images, whole.train.images)
    torch.testing.assert_close(part.selection.images, whole.selection.images[:n_selection])
    for split in ("test", "selection"):
        some, known = labelled(getattr(part, split)), labelled(getattr(whole, split))
        assert some.items() <= known.items()  # of the same role, and with its own label
    assert torch.equal(part.test.mean, whole.test.mean)
    assert part.split_hash != whole.split_hash


def test_all_images_are_kept_where_more_are_asked_for_than_there_are():
    whole, none, more = (load("digits", n_train=50, n_eval=n) for n in (450, None, 10_000))
    assert len(whole.test) == len(none.test) == len(more.test) == 449
    assert len(none.selection) == len(more.selection) == 67
    assert sorted(map(int, more.test.labels)) == sorted(map(int, none.test.labels))


def test_images_that_are_kept_are_drawn_by_the_seed():
    a, b, other = (load("digits", n_train=50, n_eval=60, split_seed=seed) for seed in (0, 0, 1))
    data.dataset._load.cache_clear()
    again = load("digits", n_train=50, n_eval=60)
    larger = load("digits", n_train=60, n_eval=60)
    assert a.split_hash == b.split_hash == again.split_hash != other.split_hash
    assert torch.equal(a.test.images, again.test.images)
    assert torch.equal(a.test.images, larger.test.images)  # whatever is trained on
    assert not torch.equal(a.test.images, other.test.images)


def test_test_images_that_come_class_by_class_are_mixed(monkeypatch):
    """The order of official test images may be by class: the first of them are then no sample."""
    images, labels = torch.zeros(60, 1, 8, 8, dtype=torch.uint8), torch.arange(60) // 20
    ordered = data.raw.Raw(images, labels, images, labels, ("a", "b", "c"), "sorted")
    monkeypatch.setattr(data.sources, "read", lambda source, root: ordered)
    data.dataset._load.cache_clear()
    whole, part = (load("digits", n_eval=n) for n in (None, 20))
    data.dataset._load.cache_clear()
    assert len(whole.test.labels[:20].unique()) == 1  # the twin: the first twenty are of one class
    assert len(part.test.labels) == 20
    assert part.test.labels.bincount(minlength=3).min() >= 3


def test_normalisation_comes_from_the_training_images_alone():
    digits = load("digits", n_train=300)
    normal = digits.train.normalize(digits.train.images)
    assert normal.mean().abs() < 1e-5
    assert abs(normal.std() - 1) < 1e-3
    assert digits.test.normalize(digits.test.images).mean().abs() > 1e-5


def test_batches_cover_a_split_in_order():
    split = load("digits", n_train=100).train
    images, labels = zip(*split.batches(30), strict=True)
    assert [len(batch) for batch in images] == [30, 30, 30, 10]
    torch.testing.assert_close(torch.cat(labels), split.labels)
    torch.testing.assert_close(torch.cat(images), split.normalize(split.images))


def test_shuffled_labels_keep_their_counts_and_lose_their_images():
    digits = load("digits", n_train=500)
    shuffled = digits.with_shuffled_labels(0)
    assert shuffled.train.labels.bincount().tolist() == digits.train.labels.bincount().tolist()
    assert (shuffled.train.labels == digits.train.labels).double().mean() < 0.3
    assert shuffled.test is digits.test


# Sources


def test_fashion_mnist_from_its_own_format(fashion):
    loaded = load("fashion-mnist", fashion.parent)
    assert (len(loaded.train) + len(loaded.selection), len(loaded.test)) == (60, 20)
    assert loaded.classes[0] == "T-shirt"
    raw = gzip.decompress((fashion / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert loaded.test.images.numpy().tobytes() == raw[16:]


def test_fashion_mnist_unpacked_files_serve_too(fashion):
    for path in list(fashion.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(load("fashion-mnist", fashion.parent).test) == 20


def test_mnist_from_its_own_format(tmp_path):
    make_mnist(tmp_path)
    loaded = load("mnist", tmp_path)
    assert loaded.test.images.shape == (20, 1, 28, 28)


def labels_of(split):
    """Return the label of each image, looked up by the bytes of the image."""
    return dict(zip((image.numpy().tobytes() for image in split.images), split.labels.tolist(), strict=True))


@pytest.mark.parametrize(("name", "n_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_from_its_own_format(tmp_path, monkeypatch, name, n_classes):
    train, test = make_cifar(tmp_path, name, monkeypatch)
    loaded = load(name, tmp_path)
    assert loaded.classes == tuple(f"class {i}" for i in range(n_classes))
    assert loaded.train.images.shape == (190, 3, 32, 32)
    np.testing.assert_array_equal(loaded.test.images.numpy(), test["data"].reshape(20, 3, 32, 32))
    assert loaded.test.labels.tolist() == [i % n_classes for i in range(20)]
    expected = {image.tobytes(): i % n_classes for i, image in enumerate(train["data"])}
    assert labels_of(loaded.train).items() <= expected.items()


def test_tiny_imagenet_from_its_own_format(tmp_path):
    base = make_tiny_imagenet(tmp_path)
    loaded = load("tiny-imagenet", tmp_path)
    assert loaded.classes == ("fish", "bird")  # in the order of n01, n02
    assert loaded.train.images.shape == (23, 3, 64, 64)
    assert loaded.test.images.shape == (4, 3, 64, 64)
    assert loaded.test.labels.tolist() == [1, 0, 1, 0]
    expected = {}
    for path in base.glob("train/*/images/*.JPEG"):
        pixels = np.asarray(Image.open(path)).transpose(2, 0, 1)
        expected[pixels.tobytes()] = ["n01", "n02"].index(path.parts[-3])
    assert labels_of(loaded.train).items() <= expected.items()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda base: (base / "words.txt").unlink(), "words.txt"),
        (lambda base: shutil.rmtree(base / "train"), "no images"),
        (lambda base: (base / "val" / "images" / "001.png").unlink(), "001.png"),
        (lambda base: (base / "wnids.txt").write_text("n01"), "n02 000.png"),
        (lambda base: (base / "val" / "images" / "001.png").write_bytes(b"no image"), "val/images/001.png"),
    ],
    ids=["no words", "no training images", "no test image", "unknown class", "damaged image"],
)
def test_a_tiny_imagenet_that_is_not_whole_is_refused(tmp_path, damage, said):
    damage(make_tiny_imagenet(tmp_path))
    message = refused("tiny-imagenet", tmp_path)
    assert said in message
    assert str(tmp_path) in message


def test_a_folder_of_class_folders(folder):
    pets = load(f"folder:{folder}")
    assert pets.classes == ("cat", "dog")
    assert sum(len(part) for part in (pets.train, pets.selection, pets.test)) == 30
    assert pets.train.images.shape[1:] == (3, 8, 8)


def test_a_folder_with_train_and_test(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "split" / "train")
    shutil.copytree(folder, tmp_path / "split" / "test")
    pets = load(f"folder:{tmp_path / 'split'}")
    assert len(pets.test) == 30
    assert len(pets.train) + len(pets.selection) == 30


def test_a_zip_serves_as_a_folder(tmp_path, folder):
    shutil.make_archive(tmp_path / "pets-zip", "zip", tmp_path, "pets")
    zipped, plain = load(f"folder:{tmp_path / 'pets-zip.zip'}"), load(f"folder:{folder}")
    assert zipped.split_hash == plain.split_hash


def test_grey_images_have_one_channel(tmp_path):
    for name in ("a", "b"):
        save_images(tmp_path / "grey" / name, 12, mode="L")
    assert load(f"folder:{tmp_path / 'grey'}").in_channels == 1


# Bad input: path, what was wrong, what to do


def refused(name, root=None):
    with pytest.raises(DataError) as caught:
        load(name, root)
    return str(caught.value)


def test_unknown_name_lists_the_known_ones():
    assert "fashion-mnist" in refused("fashion_mnist")


def test_missing_data_say_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    assert "make data" in refused("fashion-mnist", tmp_path)
    for name in ("mnist", "cifar10", "cifar100", "tiny-imagenet"):
        message = refused(name, tmp_path)
        assert f"wamlib fetch {name}" in message
        assert str(tmp_path) in message


def test_a_truncated_file_is_named(fashion):
    path = fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused("fashion-mnist", fashion.parent)
    assert str(path) in message
    assert "damaged gzip" in message
    assert "Delete" in message


def test_a_changed_byte_is_caught(fashion):
    path = fashion / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    message = refused("fashion-mnist", fashion.parent)
    assert str(path) in message
    assert "sha256" in message


def test_a_file_that_is_no_gzip_is_named(fashion):
    (fashion / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>")
    assert "t10k-labels" in refused("fashion-mnist", fashion.parent)


def test_missing_folder(tmp_path):
    assert "no such folder" in refused(f"folder:{tmp_path / 'nope'}")


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nonsense")
    assert "no zip archive" in refused(f"folder:{tmp_path / 'x.zip'}")


def test_no_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    assert "no images" in refused(f"folder:{tmp_path}")


def test_one_class(folder):
    shutil.rmtree(folder / "dog")
    assert "one class, 'cat'" in refused(f"folder:{folder}")


def test_too_few_images(tmp_path):
    for name in ("a", "b"):
        save_images(tmp_path / "few" / name, 3)
    assert "6 images" in refused(f"folder:{tmp_path / 'few'}")


def test_unequal_sizes_name_the_image(folder):
    save_images(folder / "dog", 1, size=(9, 8))
    message = refused(f"folder:{folder}")
    assert "dog/000.png" in message
    assert "9 x 8" in message
    assert "8 x 8" in message


def test_a_truncated_image_is_named(folder):
    path = folder / "cat" / "003.png"
    path.write_bytes(path.read_bytes()[:60])
    assert "cat/003.png" in refused(f"folder:{folder}")


def test_a_truncated_image_in_a_zip_is_named(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            content = path.read_bytes()
            archive.writestr(str(path.relative_to(folder)), content[:50] if "dog/007" in str(path) else content)
    assert "dog/007.png" in refused(f"folder:{tmp_path / 'bad.zip'}")


def test_an_encrypted_archive_names_the_image(tmp_path, folder):
    path = tmp_path / "pets.zip"
    shutil.make_archive(path.with_suffix(""), "zip", folder)
    content = bytearray(path.read_bytes())
    begin = content.index(b"cat/004.png", content.index(b"PK\x01\x02")) - 46  # its entry in the central directory
    content[begin + 8] |= 1  # the flag that says so
    path.write_bytes(content)
    message = refused(f"folder:{path}")
    assert f"{path}/cat/004.png: got a file that does not decode" in message
    assert "encrypted" in message


def test_a_class_only_in_test_is_refused(tmp_path, folder):
    shutil.copytree(folder, tmp_path / "split" / "train")
    shutil.copytree(folder / "cat", tmp_path / "split" / "test" / "horse")
    assert "'horse'" in refused(f"folder:{tmp_path / 'split'}")


def test_too_many_training_images_are_refused():
    with pytest.raises(DataError, match="at most"):
        load("digits", n_train=5000)


# Fetching


def no_network(*args, **kwargs):
    raise urllib.error.URLError("no such host")


def test_fetch_takes_what_is_there(fashion, monkeypatch):
    monkeypatch.setattr(fetch_module, "_unpack_debian", no_network)
    assert fetch("fashion-mnist", fashion.parent) == str(fashion)


def test_fetch_without_a_network_says_what_each_source_answered(tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "nowhere")
    monkeypatch.setattr(fetch_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    with pytest.raises(FetchError) as caught:
        fetch("fashion-mnist", tmp_path)
    assert "no apt-get" in str(caught.value)
    assert "no such host" in str(caught.value)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    with pytest.raises(FetchError, match=r"wamlib fetch cifar10"):
        fetch("cifar10", tmp_path)


def test_fetch_refuses_damaged_files(fashion, monkeypatch):
    monkeypatch.setattr(fetch_module, "_unpack_debian", no_network)
    path = fashion / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="damaged"):
        fetch("fashion-mnist", fashion.parent)


# Augmentation


def test_flip_mirrors_about_half_and_nothing_else(generator):
    images = torch.randint(0, 256, (400, 1, 6, 6), dtype=torch.uint8)
    flipped = augment(images, "flip", generator)
    same = (flipped == images).all((1, 2, 3))
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    assert (same | mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_crop_shifts_by_at_most_an_eighth(generator):
    images = torch.zeros(200, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 8, 8] = 255
    cropped = augment(images, "crop", generator)
    assert cropped.shape == images.shape
    assert cropped.dtype == torch.uint8
    places = cropped[:, 0].nonzero()[:, 1:]
    assert (places >= 6).all()
    assert (places <= 10).all()
    assert len(places.unique(dim=0)) > 15


@pytest.mark.parametrize("kind", ["none", "flip", "crop", "flip-crop"])
def test_moves_drawn_for_an_epoch_are_those_drawn_batch_by_batch(kind):
    images = torch.randint(0, 256, (50, 3, 9, 9), dtype=torch.uint8)
    sizes, generator = [20, 20, 10], torch.Generator().manual_seed(1)
    moves = draw_moves(sizes, kind, 9, torch.Generator().manual_seed(1))
    seen = 0
    for size in sizes:
        batch = images[seen : seen + size]
        assert torch.equal(move(batch, moves.take(seen, seen + size)), augment(batch, kind, generator))
        seen += size


def test_augmentation_is_fixed_by_its_generator():
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
    a, b, c = (augment(images, "flip-crop", torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(augment(images, "none", torch.Generator()), images)
