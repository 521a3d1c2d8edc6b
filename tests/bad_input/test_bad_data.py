"""Data sets that are missing, damaged or not fit to train on: each is refused by name, and nothing is written."""

import gzip
import io
import shutil
import struct
import zipfile

import pytest
from checker import check_refused
from PIL import Image
from test_data import fashion, save_images  # noqa: F401 - a fixture

from wamlib import data
from wamlib.config import TrainConfig
from wamlib.runs import RunStore


def pets(root, n=15, size=(8, 8)):
    for name in ("cat", "dog"):
        save_images(root / "pets" / name, n, size)
    return root / "pets"


def packed(root, change=lambda name, content: (name, content), **options):
    """Write pets.zip, each of its files changed: to another name, other content, or None to leave it out."""
    folder = pets(root)
    with zipfile.ZipFile(root / "pets.zip", "w", **options) as archive:
        for path in sorted(folder.rglob("*.png")):
            changed = change(path.relative_to(folder).as_posix(), path.read_bytes())
            if changed is not None:
                archive.writestr(*changed)
    shutil.rmtree(folder)
    return root / "pets.zip"


def image(mode, size=(8, 8), kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def with_file(root, name, content):
    path = pets(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.parents[1]


def with_bytes(root, content):
    (root / "pets.zip").write_bytes(content)
    return root / "pets.zip"


def cut(path, n):
    path.write_bytes(path.read_bytes()[:n])
    return path


def damaged_entry(root):
    path = packed(root)
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT") + 8
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    return path


def claiming(root, width, height):
    """A picture whose header claims another size: its checksum is right, its pixels are not there."""
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    png += struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return with_file(root, "cat/000.png", png)


def empty_folder(root):
    (root / "pets").mkdir()
    return root / "pets"


def one_class(root):
    folder = pets(root)
    shutil.rmtree(folder / "dog")
    return folder


def flat(root):
    save_images(root / "pets", 30)
    return root / "pets"


def split(root, **counts):
    for part, n in counts.items():
        for name in ("cat", "dog"):
            save_images(root / "pets" / part / name, n)
    return root / "pets"


def class_without_training_images(root):
    folder = split(root, train=15, test=5)
    save_images(folder / "test" / "bird", 3)
    return folder


def a_link_to_nothing(root):
    folder = pets(root)
    for path in (folder / "dog").iterdir():
        path.unlink()
    (folder / "dog" / "0.png").symlink_to("nowhere.png")
    return folder


FOLDERS = {
    "missing": lambda root: root / "pets",
    "empty": empty_folder,
    "no class folders": flat,
    "one class": one_class,
    "a link to nothing": a_link_to_nothing,
    "too few images": lambda root: pets(root, 3),
    "one class in place of all": lambda root: pets(root) / "cat",
    "a file": lambda root: with_file(root, "cat/notes.txt", b"hello") / "cat" / "notes.txt",
    "an image instead of a folder": lambda root: pets(root) / "cat" / "000.png",
    "a class only in test": class_without_training_images,
    "only test images": lambda root: split(root, test=15),
    "text named .png": lambda root: with_file(root, "cat/000.png", b"this is a cat"),
    "an empty image": lambda root: with_file(root, "cat/000.png", b""),
    "half an image": lambda root: (cut(pets(root) / "cat" / "000.png", 60), root / "pets")[1],
    "an image of another size": lambda root: with_file(root, "dog/000.png", image("RGB", (9, 8))),
    "an image of no size": lambda root: claiming(root, 0, 0),
    "an image of no height": lambda root: claiming(root, 8, 0),
    "an image that claims billions of pixels": lambda root: claiming(root, 2**31 - 1, 2**31 - 1),
    "an image in CMYK of another size": lambda root: with_file(root, "dog/000.jpg", image("CMYK", (4, 4), "JPEG")),
    "a folder named like an image": lambda root: (pets(root, 3) / "cat" / "x.png").mkdir() or root / "pets",
    "a zip of nothing": lambda root: with_bytes(root, b""),
    "a zip that is text": lambda root: with_bytes(root, b"these are pets"),
    "a zip with no file": lambda root: with_bytes(root, b"PK\5\6" + b"\0" * 18),
    "a zip that is gzip": lambda root: with_bytes(root, gzip.compress(b"pets" * 100)),
    "a zip cut in the middle": lambda root: cut(packed(root), 3000),
    "a zip cut at its end": lambda root: cut(packed(root), -1),
    "a zip with a damaged image": damaged_entry,
    "a zip of paths out of it": lambda root: packed(root, lambda name, content: (f"../../{name}", content)),
    "a zip of absolute paths": lambda root: packed(root, lambda name, content: (f"/tmp/up/{name}", content)),
    "a zip of paths of Windows": lambda root: packed(root, lambda name, content: (name.replace("/", "\\"), content)),
    "a zip without images": lambda root: packed(root, lambda name, content: (name + ".txt", content)),
    "a zip of one class": lambda root: packed(root, lambda name, content: (name, content) if "cat" in name else None),
    "a zip of text named .png": lambda root: packed(root, lambda name, content: (name, b"meow")),
    "a zip of zips": lambda root: packed(root, lambda name, content: (name.replace(".png", ".zip"), content)),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_folder(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    root = tmp_path / "raw"
    message = check_refused(lambda: data.load(f"folder:{path}", root), tmp_path)
    assert str(path).rpartition("/")[2] in message


GOOD = {
    "a folder": pets,
    "a zip": packed,
    "one image of a class": lambda root: (pets(root, 30), save_images(root / "pets" / "bird", 1))[0],
    "grey and colour": lambda root: with_file(root, "dog/000.png", image("L")),
    "an image with transparency": lambda root: with_file(root, "dog/000.png", image("RGBA")),
    "notes beside the images": lambda root: with_file(root, "dog/notes.txt", b"woof"),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_folders_without_the_mistake_are_read(make, tmp_path):
    path = make(tmp_path)
    with pytest.raises(AssertionError, match="accepted"):
        check_refused(lambda: data.load(f"folder:{path}", tmp_path / "raw"))


ASKED = {
    "more images than there are": {"n_train": 1_282},
    "no images": {"n_train": 0},
    "negative images": {"n_train": -1},
    "images with a point": {"n_train": 100.5},
    "images as text": {"n_train": "100"},
    "no test images": {"n_eval": 0},
    "negative test images": {"n_eval": -3},
    "test images that are true": {"n_eval": True},
    "a device that is none": {"device": "gpu"},
    "a negative seed": {"split_seed": -1},
    "a seed that is none": {"split_seed": None},
    "a seed in a list": {"split_seed": [0]},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_size(asked, tmp_path):
    check_refused(lambda: data.load("digits", tmp_path, **asked), tmp_path)


NAMES = ["", "digit", "Digits", "digits ", "folder", "folder:", "FOLDER:pets", "../digits", None, 3, ["digits"]]


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("ask", [data.load, data.is_present, data.title])
def test_name(name, ask):
    check_refused(lambda: ask(name))


@pytest.mark.parametrize("path", ["\0", 300 * "x"], ids=["a zero byte", "too long"])
def test_path_that_no_file_can_have(path, tmp_path):
    check_refused(lambda: data.load(f"folder:{path}", tmp_path), tmp_path)
    assert not data.is_present(f"folder:{path}", tmp_path)


def test_a_run_of_a_data_set_that_is_not_here(tmp_path):
    store = RunStore(tmp_path / "runs", tmp_path / "raw")
    check_refused(lambda: store.dataset(TrainConfig(dataset="cifar10")), tmp_path)


def idx(magic, *shape, n=None):
    n_values = 1
    for side in shape:
        n_values *= side
    return struct.pack(f">I{len(shape)}I", magic, *shape) + bytes(n_values if n is None else n)


IDX = {
    "empty": b"",
    "three bytes": b"\0\0\x08",
    "another magic": idx(0x903, 60, 8, 8),
    "labels for images": idx(0x801, 60),
    "shorter than it says": idx(0x803, 60, 8, 8, n=100),
    "longer than it says": idx(0x803, 60, 8, 8, n=4000),
    "images of no size": idx(0x803, 60, 0, 0),
    "terabytes": idx(0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1, n=10),
}


@pytest.mark.parametrize("content", IDX.values(), ids=IDX)
@pytest.mark.parametrize("packing", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_idx_file(content, packing, fashion, tmp_path):  # noqa: F811
    path = fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(packing(content))
    message = check_refused(lambda: data.load("fashion-mnist", tmp_path), tmp_path)
    assert str(path) in message


def test_idx_files_that_are_whole_are_read(fashion, tmp_path):  # noqa: F811
    with pytest.raises(AssertionError, match="accepted"):
        check_refused(lambda: data.load("fashion-mnist", tmp_path))
