"""Decoded images kept on disk: quick where they serve, and never a reason for wrong images or for a failure."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from test_data import make_tiny_imagenet, save_images

from wamlib.data import dataset, decoded, load, sources
from wamlib.errors import DataError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def low(monkeypatch):
    """Lower the number of images from which on they are kept, so that the tests need few."""
    monkeypatch.setattr(decoded, "MIN_IMAGES", 20)


@pytest.fixture
def root(tmp_path, low):
    """A data root with one set of images in each form."""
    for name in ("cat", "dog"):
        save_images(tmp_path / "pets" / name, 15)
    for path in list((tmp_path / "pets").rglob("*.png")):  # a format whose size does not depend on the pixels
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    pack(tmp_path)
    make_tiny_imagenet(tmp_path)
    return tmp_path


def pack(root):
    shutil.make_archive(root / "zipped", "zip", root, "pets")


def fresh(name, root):
    """Load as a new process would."""
    dataset._load.cache_clear()
    return load(name, root)


def kept(root):
    """Return what is kept, but for the locks."""
    return sorted(path for path in (root / ".decoded").glob("*") if path.suffix != ".lock")


def no_decoder(monkeypatch):
    def decode(*_):
        raise AssertionError("images were decoded")

    monkeypatch.setattr(decoded, "decode", decode)


NAMES = ("folder:pets", "folder:zipped.zip", "tiny-imagenet")


@pytest.mark.parametrize("name", NAMES)
def test_the_second_load_gives_equal_images_without_decoding(root, monkeypatch, name):
    first = fresh(name, root)
    assert len(kept(root)) == 1
    with monkeypatch.context() as patch:
        no_decoder(patch)
        second = fresh(name, root)
    assert second.split_hash == first.split_hash
    for split in ("train", "selection", "test"):
        for field in ("images", "labels", "mean", "std"):
            assert torch.equal(getattr(getattr(second, split), field), getattr(getattr(first, split), field))
    shutil.rmtree(root / ".decoded")  # the twin: without what was kept, the decoder is needed
    no_decoder(monkeypatch)
    with pytest.raises(AssertionError, match="were decoded"):
        fresh(name, root)


def test_grey_images_come_back_with_one_channel(tmp_path, low):
    for name in ("a", "b"):
        save_images(tmp_path / "grey" / name, 12, mode="L")
    assert fresh("folder:grey", tmp_path).split_hash == fresh("folder:grey", tmp_path).split_hash
    assert fresh("folder:grey", tmp_path).in_channels == 1
    assert kept(tmp_path)


def test_small_sets_are_not_kept(root, monkeypatch):
    monkeypatch.setattr(decoded, "MIN_IMAGES", 31)
    fresh("folder:pets", root)
    assert not (root / ".decoded").exists()
    monkeypatch.setattr(decoded, "MIN_IMAGES", 30)
    fresh("folder:pets", root)
    assert kept(root)


def change(path):
    """Change an image and keep its size."""
    size = path.stat().st_size
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert path.stat().st_size == size


def test_a_changed_image_in_a_folder_is_seen(root):
    before, path = fresh("folder:pets", root), root / "pets" / "dog" / "003.bmp"
    old, stamp = kept(root), path.stat().st_mtime_ns
    change(path)
    os.utime(path, ns=(stamp + 1, stamp + 1))
    after = fresh("folder:pets", root)
    assert after.split_hash != before.split_hash
    assert len(kept(root)) == 1  # what was kept of the old images is gone
    assert kept(root) != old


def test_a_changed_image_in_a_zip_is_seen_and_a_new_date_is_not(root, monkeypatch):
    name, path = "folder:zipped.zip", root / "zipped.zip"
    before, old, stat = fresh(name, root), kept(root), path.stat()
    change(root / "pets" / "dog" / "003.bmp")
    pack(root)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))  # the date says nothing
    after = fresh(name, root)
    assert after.split_hash != before.split_hash
    assert len(kept(root)) == 1
    assert kept(root) != old
    os.utime(path, ns=(1, 1))
    no_decoder(monkeypatch)
    assert fresh(name, root).split_hash == after.split_hash


def test_a_renamed_image_is_seen_and_other_sets_stay(root):
    for name in NAMES:
        fresh(name, root)
    others = [path for path in kept(root) if not path.name.startswith("pets-")]
    (root / "pets" / "dog" / "003.bmp").rename(root / "pets" / "cat" / "999.bmp")
    pets = fresh("folder:pets", root)
    assert sum(int((getattr(pets, split).labels == 0).sum()) for split in ("train", "selection", "test")) == 16
    assert len(kept(root)) == 3
    assert set(others) <= set(kept(root))


def spoil(change):
    return lambda path: np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:64]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(path.read_bytes().replace(b"descr", b"\0\0\0\0\0")),
        lambda path: path.write_bytes(path.read_bytes().replace(b"(30,", b"(((,")),
        spoil(lambda pixels: pixels[:-1]),
        spoil(lambda pixels: pixels.reshape(30, -1)),
        spoil(lambda pixels: pixels.astype(np.float32)),
        spoil(np.asfortranarray),
        lambda path: path.write_bytes(path.read_bytes()[:-50] + b"!" + path.read_bytes()[-49:]),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=[
        "short",
        "header",
        "empty",
        "garbage",
        "key",
        "shape",
        "fewer",
        "flat",
        "float",
        "fortran",
        "flipped",
        "folder",
    ],
)
def test_what_is_kept_but_not_whole_is_made_anew(root, damage):
    expected = fresh("folder:pets", root).split_hash
    (path,) = kept(root)
    good = path.read_bytes()
    damage(path)
    assert fresh("folder:pets", root).split_hash == expected
    if path.is_file():
        assert path.read_bytes() == good


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("content", [b"BM no image", None], ids=["damaged", "other size"])
def test_a_damaged_image_is_an_error_and_nothing_is_kept(root, name, content):
    path = root / "pets" / "dog" / "003.bmp"
    path.write_bytes(content) if content else Image.new("RGB", (9, 8)).save(path)
    pack(root)
    for _ in range(2):
        with pytest.raises(DataError, match=r"dog/003\.bmp"):
            fresh(name, root)
    assert kept(root) == []


def test_an_image_damaged_later_is_an_error_and_the_twin_of_the_whole_one_is_gone(root):
    fresh("folder:zipped.zip", root)
    (root / "pets" / "dog" / "003.bmp").write_bytes(b"BM no image")
    pack(root)
    with pytest.raises(DataError, match=r"dog/003\.bmp"):
        fresh("folder:zipped.zip", root)


def test_a_damaged_byte_inside_an_archive_is_an_error(root):
    path = root / "zipped.zip"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("pets/dog/003.bmp")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + 20] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"dog/003\.bmp"):
        fresh("folder:zipped.zip", root)
    assert kept(root) == []


def test_loaded_images_do_not_depend_on_the_file_any_more(root):
    for name in NAMES:
        fresh(name, root)
        loaded = fresh(name, root)  # from the file
        before = {split: getattr(loaded, split).images.clone() for split in ("train", "selection", "test")}
        for path in kept(root):
            path.write_bytes(bytes(path.stat().st_size))
        for split, images in before.items():
            assert torch.equal(getattr(loaded, split).images, images)


# A place that cannot be written to


def test_a_file_in_the_place_of_the_folder_costs_nothing_but_time(root):
    (root / ".decoded").write_text("in the way")
    assert fresh("folder:pets", root).split_hash == fresh("folder:pets", root).split_hash
    assert (root / ".decoded").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_root_costs_nothing_but_time(root):
    root.chmod(0o555)
    try:
        assert len(fresh("folder:pets", root).test) > 0
        assert kept(root) == []
    finally:
        root.chmod(0o755)


@pytest.mark.parametrize("broken", ["mkdir", "open", "replace"])
def test_a_disk_that_refuses_costs_nothing_but_time(root, monkeypatch, broken):
    def refuse(*_, **__):
        raise PermissionError(13, "read-only")

    target = {"mkdir": (Path, "mkdir"), "open": (decoded.np, "save"), "replace": (decoded.os, "replace")}[broken]
    monkeypatch.setattr(*target, refuse)
    assert len(fresh("folder:pets", root).test) > 0
    assert kept(root) == []


def run(root, *lines):
    """Start a process that loads the zip after some lines of its own."""
    first = "import numpy as np, resource, time", "from wamlib.data import decoded, load", "decoded.MIN_IMAGES = 20"
    code = "\n".join([*first, *lines, f"print(load('folder:zipped.zip', {str(root)!r}).split_hash)"])
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_full_disk_costs_nothing_but_time(root):
    # A limit on the size of files fails a write in its middle, as a full disk does.
    process = run(root, "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert kept(root) == []
    assert said.strip() == fresh("folder:zipped.zip", root).split_hash
    assert len(kept(root)) == 1  # the twin: without the limit it is kept


# Several processes


def test_a_killed_writer_leaves_nothing_that_is_read(root):
    process = run(
        root,
        "def half(file, pixels):",
        "    file.write(b'half a file')",
        "    file.flush()",
        "    print('half', flush=True)",
        "    time.sleep(99)",
        "np.save = half",
    )
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert [path.suffix for path in kept(root)] == [".part"]
    loaded = fresh("folder:zipped.zip", root)
    assert loaded.split_hash == load(f"folder:{root / 'pets'}", root / "elsewhere").split_hash
    assert [path.suffix for path in kept(root)] == [".npy"]  # and the remains are gone


def test_of_several_readers_one_decodes_and_the_others_wait(root, monkeypatch):
    calls, decode = [], decoded.decode

    def slow(*words):
        calls.append(words)
        time.sleep(0.3)
        return decode(*words)

    monkeypatch.setattr(decoded, "decode", slow)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: sources.read("folder:pets", root).images, range(4)))
    assert len(calls) == 1
    assert all(torch.equal(result, results[0]) for result in results)


def test_nobody_waits_for_ever(root, monkeypatch):
    monkeypatch.setattr(decoded, "PATIENCE", 0.1)
    fresh("folder:pets", root)
    (lock,) = (root / ".decoded").glob("*.lock")
    shutil.rmtree(root / ".decoded")
    (root / ".decoded").mkdir()
    with FileLock(lock):
        assert len(fresh("folder:pets", root).test) > 0
        assert kept(root) == []
