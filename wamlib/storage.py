"""Where a run store keeps its files: a folder, or an object store that fsspec can reach."""

import contextlib
import json
import os
import tempfile
import time
import uuid
from pathlib import Path

from filelock import FileLock
from safetensors.torch import load, save

from .errors import ConfigError, StoreError

__all__ = ["Bucket", "Folder", "open_storage", "pack", "unpack", "write_atomically"]

UPLOAD_SECONDS = 300  # between two copies of an unfinished training to an object store


def open_storage(root):
    """Return the storage of a path, or of a URL such as ``s3://bucket/runs``.

    Raises
    ------
    ConfigError
        If it is empty, or no installed package reads such URLs.
    """
    protocol, colon, path = str(root).partition("://")
    if str(root) == "":
        wanted = "a folder, or a URL of an object store such as s3://bucket/runs"
        fix = "Correct it, or leave it out for the store of this checkout."
        raise ConfigError("cannot open a store", "its place", "an empty text", wanted, fix)
    if not colon:
        return Folder(root)
    return Folder(path) if protocol == "file" else Bucket(str(root))


def write_atomically(path, content, durable=False):
    """Write a file in one step: whoever looks finds the old content or the new, never a part.

    Parameters
    ----------
    path : Path
    content : bytes
    durable : bool
        Wait until the disk has it; else a power cut may keep the name and lose the content.
    """
    # Of this write alone: on a shared folder two machines may use one process number.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def pack(tensors, notes):
    """Return the bytes of a safetensors file with tensors and, as its metadata, notes (dict of str to str)."""
    return save(tensors, metadata=notes)


def unpack(content):
    """Return the tensors and the notes of `pack`.

    Raises
    ------
    SafetensorError
        If these are not the bytes of such a file.
    """
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__", {})


class _Storage:
    def check_writable(self):
        """Refuse a store that cannot be written to, before anything is trained for it."""
        name = f".locks/{uuid.uuid4().hex}"  # of this check alone
        self.write(name, b"can be written to")
        self.delete(name)


class Folder(_Storage):
    """Files below a folder, which several machines may share.

    Parameters
    ----------
    root : str or Path
    """

    def __init__(self, root):
        self.root = Path(root).absolute()

    def path(self, name):
        """Return where a file is."""
        return self.root / name

    def has(self, name):
        """Return whether a file is there."""
        return self.path(name).is_file()

    def missing(self, names):
        """Return those of the names that are not there."""
        return [name for name in names if not self.has(name)]

    def find(self, name):
        """Return the sorted names ``folder/name`` of all files of one name."""
        with _telling("list a store", self.root):
            # One level and no pattern: a pattern would look into every folder's list.
            there = os.scandir(self.root) if self.root.exists() else ()
            folders = sorted(entry.name for entry in there if not entry.name.startswith("."))
            return [f"{folder}/{name}" for folder in folders if self.has(f"{folder}/{name}")]

    def read(self, name):
        """Return the bytes of a file.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        StoreError
            If it cannot be read.
        """
        with _telling("read a file of a store", self.path(name), absent_is_fine=True):
            return self.path(name).read_bytes()

    def read_all(self, names):
        """Return a dict of names to bytes, without those that are not there."""
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = self.read(name)
        return found

    def write(self, name, content):
        """Write a file in one step, and durably.

        Raises
        ------
        StoreError
            If it cannot be written, as on a full or read-only disk; nothing half is left.
        """
        with _telling("keep a file of a run", self.path(name)):
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path(name), content, durable=True)

    def create(self, name, content):
        """Write a file; the lock keeps others from it."""
        self.write(name, content)

    def delete(self, name):
        """Delete a file if it is there."""
        with _telling("delete a file of a run", self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def name_of(self, stem, suffix, digest):
        """Return the name of a file of a run."""
        return f"{stem}.{suffix}"

    @contextlib.contextmanager
    def lock(self, name):
        """Let one process of all that use this folder go on at a time."""
        path = self.root / ".locks" / name
        with _telling("lock a run", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def unfinished(self, name):
        """Yield the path of a file that grows, and a function to call whenever it has grown."""
        path = self.path(name)
        with _telling("make the folder of a run", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob("*.tmp"):  # of a process that was killed; the lock is ours
                left.unlink()
        with _telling("keep an unfinished training", path):
            yield path, lambda: None


class Bucket(_Storage):
    """Objects below a URL of an object store, such as ``s3://bucket/runs``.

    An object appears whole or not at all, so no step is needed for that; locks there are none. Two processes that
    train one run do the same work, and the record that is written first stands.

    Parameters
    ----------
    url : str

    Raises
    ------
    ConfigError
        If no installed package reads such URLs.
    """

    def __init__(self, url):
        from fsspec.core import url_to_fs

        try:
            # What others have written since must be seen.
            self.files, self.prefix = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            wanted = "a folder, or a URL of an object store such as s3://bucket/runs"
            fix = "Correct it, or install what reads it: pip install 'wamlib[s3]' for s3://, gcsfs for gs://."
            raise ConfigError("cannot open a store", url, str(error), wanted, fix) from error
        self.root = url.rstrip("/")
        self.prefix = self.prefix.rstrip("/")

    def path(self, name):
        """Return the URL of an object."""
        return f"{self.root}/{name}"

    def has(self, name):
        """Return whether an object is there."""
        # Not "exists", which takes a server that does not answer for an object that is not there.
        try:
            with self._telling("look into a store", name, absent_is_fine=True):
                return self.files.info(f"{self.prefix}/{name}")["type"] == "file"
        except FileNotFoundError:
            return False

    def missing(self, names):
        """Return those of the names that are not there, by one listing in place of a question each."""
        there = set(self._list())
        return [name for name in names if name not in there]

    def find(self, name):
        """Return the sorted names ``folder/name`` of all objects of one name."""
        return sorted(found for found in self._list() if found.count("/") == 1 and found.endswith(f"/{name}"))

    def _list(self):
        with self._telling("list a store", ""):
            return [path[len(self.prefix) + 1 :] for path in self.files.find(self.prefix)]

    def read(self, name):
        """Return the bytes of an object; raises as `Folder.read` does."""
        with self._telling("read an object of a store", name, absent_is_fine=True):
            return self.files.cat_file(f"{self.prefix}/{name}")

    def read_all(self, names):
        """Return a dict of names to bytes, without those that are not there; many are read at once."""
        if not names:
            return {}
        with self._telling("read objects of a store", names[0]):
            found = self.files.cat([f"{self.prefix}/{name}" for name in names], on_error="return")
        contents = {}
        for path, content in found.items():
            if isinstance(content, FileNotFoundError):
                continue
            name = path[len(self.prefix) + 1 :]
            with self._telling("read an object of a store", name):
                if isinstance(content, Exception):
                    raise content
            contents[name] = content
        return contents

    def write(self, name, content):
        """Write an object; raises as `Folder.write` does."""
        with self._telling("keep an object of a run", name):
            self.files.pipe_file(f"{self.prefix}/{name}", content)

    def create(self, name, content):
        """Write an object unless it is there already: the first one stands."""
        with self._telling("keep an object of a run", name), contextlib.suppress(FileExistsError):
            self.files.pipe_file(f"{self.prefix}/{name}", content, mode="create")

    def delete(self, name):
        """Delete an object if it is there."""
        with self._telling("delete an object of a run", name):
            if self.has(name):
                self.files.rm_file(f"{self.prefix}/{name}")

    def name_of(self, stem, suffix, digest):
        """Return the name of an object of a run, its digest in it.

        So a record and its weights belong together even if two processes wrote both at the same time.
        """
        return f"{stem}-{digest[:16]}.{suffix}"

    @contextlib.contextmanager
    def lock(self, name):
        """Let everyone go on: see the class."""
        yield

    @contextlib.contextmanager
    def unfinished(self, name):
        """Yield a path on this machine, and a function that copies it to the store now and then."""
        with tempfile.TemporaryDirectory() as folder:
            path, last = Path(folder) / "unfinished", time.monotonic()
            with contextlib.suppress(FileNotFoundError):
                path.write_bytes(self.read(name))

            def grown():
                nonlocal last
                if time.monotonic() - last >= UPLOAD_SECONDS:
                    self.write(name, path.read_bytes())
                    last = time.monotonic()

            with _telling("keep an unfinished training", path):
                yield path, grown

    @contextlib.contextmanager
    def _telling(self, doing, name, absent_is_fine=False):
        # Each service behind fsspec has its own kinds of exception.
        with _telling(doing, self.path(name), absent_is_fine, of=Exception):
            yield


@contextlib.contextmanager
def _telling(doing, item, absent_is_fine=False, of=OSError):
    """Say in four parts what the system refused; where it may be absent, that a file is not there is no refusal."""
    try:
        yield
    except StoreError:
        raise
    except of as error:
        if absent_is_fine and isinstance(error, FileNotFoundError):
            raise
        got, wanted = f"{type(error).__name__}: {error}", "a store that can be read and written"
        fix = "Free some space, allow access, or name another store (WAMLIB_RUNS, --store); finished runs are kept, "
        raise StoreError(f"cannot {doing}", str(item), got, wanted, fix + "and the same command continues.") from error
