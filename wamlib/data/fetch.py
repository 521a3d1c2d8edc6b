"""Bring a data set to this machine, from the nearest place that has it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..config import home
from ..errors import DataError, FetchError
from . import sources
from .fashion_mnist import find_fashion_mnist

__all__ = ["fetch"]

DOING = "cannot fetch fashion-mnist"

TINY_IMAGENET = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def fetch(name, root=None):
    """Make a data set available below ``root`` and return where it lies.

    Fashion-MNIST is taken from ``root`` if it is there, else from Debian's package
    ``dataset-fashion-mnist`` (installed, or unpacked into ``root`` without root's
    rights), else downloaded by torchvision. The others are downloaded by torchvision.

    Parameters
    ----------
    name : str
        A name that `wamlib.data.load` knows.
    root : str or Path or None
        Folder for downloaded data sets; None means ``raw`` in `wamlib.config.home`.

    Returns
    -------
    str
        The folder that now holds the data set.

    Raises
    ------
    FetchError
        If no source could be reached; the message says what each one answered.
    DataError
        If the files are there but damaged.
    """
    root = Path(root) if root is not None else home() / "raw"
    sources.title(name)  # refuses what is not known before anything is made
    if name in sources.NAMES:
        _make_folder(name, root)
    if name == "fashion-mnist":
        _fetch_fashion(root)
    elif name in ("mnist", "cifar10", "cifar100", "tiny-imagenet"):
        _download(name, root)
    return sources.read(name, root).where


def _make_folder(name, root):
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        wanted, fix = "a folder, or a place to make one", "Choose another --root, or check its permissions."
        raise FetchError(f"cannot fetch {name}", str(root), error.strerror or str(error), wanted, fix) from error


def _fetch_fashion(root):
    answers = []
    for source in (_unpack_debian, lambda root: _download("fashion-mnist", root)):
        if find_fashion_mnist(root):
            return
        try:
            source(root)
        except FetchError as error:
            answers.append(error.got)
    if not find_fashion_mnist(root):
        item, wanted = str(root / "fashion-mnist"), "Debian's package dataset-fashion-mnist or torchvision's download"
        fix = "Connect to the network and run `make data` again, or copy the four .gz files there."
        raise FetchError(DOING, item, "; ".join(answers) or "no files from any source", wanted, fix)


def _unpack_debian(root):
    """Unpack Debian's package below ``root``, with package lists of our own, so that nobody needs to be root."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        fix = "Use another source."
        raise FetchError(DOING, "Debian's package", "no apt-get on this machine", "apt-get and dpkg-deb", fix)
    with tempfile.TemporaryDirectory() as lists:
        # Without root's rights apt cannot write its own lists, and a fresh container has none.
        options = [f"-oDir::State::Lists={lists}", f"-oAPT::Sandbox::User={'root' if os.geteuid() == 0 else ''}"]
        (Path(lists) / "partial").mkdir()
        try:
            for command in (["update", "-qq"], ["download", "dataset-fashion-mnist"]):
                print(f"apt-get {' '.join(command)} ...", flush=True)
                subprocess.run(["apt-get", *options, *command], cwd=lists, check=True, capture_output=True, text=True)
            package = next(Path(lists).glob("*.deb"))
            subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True, capture_output=True, text=True)
        except (subprocess.CalledProcessError, StopIteration, OSError) as error:
            lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            got, fix = f"apt-get: {lines[-1] if lines else error}", "Use another source."
            raise FetchError(DOING, "Debian's package", got, "the package dataset-fashion-mnist", fix) from error


def _download(name, root):
    """Download with torchvision, which shows a progress bar and checks what arrives."""
    import torchvision

    kinds = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
    try:
        if name == "tiny-imagenet":
            torchvision.datasets.utils.download_and_extract_archive(
                TINY_IMAGENET, str(root / name), md5=TINY_IMAGENET_MD5
            )
        else:
            folder = root if name == "fashion-mnist" else root / name
            getattr(torchvision.datasets, kinds[name])(folder, download=True)
    except DataError:
        raise
    except Exception as error:  # URLError, RuntimeError after several mirrors, OSError for a full disk
        wanted, fix = "a reachable server", f"Connect to the network and run `wamlib fetch {name}` again."
        raise FetchError(f"cannot fetch {name}", str(root), f"torchvision's download: {error}", wanted, fix) from error
