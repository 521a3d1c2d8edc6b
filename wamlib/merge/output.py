"""A safetensors file that appears under its name when it is whole, and not before."""

import errno
import json
import math
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

from .entries import DTYPES, as_bytes, refuse_file

__all__ = ["Output", "output"]

NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Output:
    """A file under way.

    Parameters
    ----------
    file : int
        Descriptor, open for writing.
    entries : dict of str to Entry
        Names, dtypes and shapes of the tensors, in the order in which they shall be read.
    metadata : dict of str to str
        May be replaced at the end by one of the same length.
    """

    def __init__(self, file, entries, metadata):
        self.file = file
        # Wide dtypes first, as the format's own writer does: then every tensor is aligned.
        keys = sorted(entries, key=lambda key: -entries[key].dtype.itemsize)
        self._tensors, end = {}, 0
        self.places = {}  # key -> first byte, counted from the end of the header
        for key in keys:
            dtype, shape = entries[key].dtype, list(entries[key].shape)
            self.places[key], end = end, end + math.prod(shape) * dtype.itemsize
            self._tensors[key] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [self.places[key], end]}
        self._origin = len(self._header(metadata))
        self.size = self._origin + end

    def _header(self, metadata):
        text = json.dumps({"__metadata__": metadata, **self._tensors}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def reserve(self):
        """Take the room on the disk, so that a full one is found out before the work is done."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self.file, 0, self.size)
        else:
            os.truncate(self.file, self.size)

    def write(self, key, start, values):
        """Write values of a tensor from this one on; may be called in several threads."""
        self._put(as_bytes(values.contiguous()), self._origin + self.places[key] + start * values.dtype.itemsize)

    def finish(self, metadata):
        """Write the header, and wait until all is on the disk."""
        header = self._header(metadata)
        if len(header) != self._origin:
            raise ValueError("the metadata grew after its place was laid out")
        self._put(memoryview(header), 0)
        os.fsync(self.file)

    def _put(self, buffer, at):
        while buffer:
            n = os.pwrite(self.file, buffer, at)
            buffer, at = buffer[n:], at + n


@contextmanager
def output(path, entries, metadata):
    """Open a file for writing that takes the place of ``path`` when the block ends without an error.

    Where the system can, the file has no name until then, so that a process that is killed
    leaves nothing behind; elsewhere a hidden file of another name stays.

    Raises
    ------
    CheckpointError
        If the file cannot be written, for want of space, of a folder or of permission.
    """
    path = Path(os.path.realpath(path))
    folder, name = path.parent, path.parent / f".{path.name}.{uuid.uuid4().hex}"
    named = False
    try:
        try:
            file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
        except (AttributeError, OSError) as error:
            # Some file systems know no file without a name, and say so in one of these ways.
            if getattr(error, "errno", None) not in (None, errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                raise
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            named = True
        try:
            out = Output(file, entries, metadata)
            out.reserve()
            yield out
            if not named:
                named = True
                # With a folder given, link follows the symbolic link, which is how a file gets its first name.
                where = os.open(folder, os.O_RDONLY)
                try:
                    os.link(f"/proc/self/fd/{file}", name, src_dir_fd=where, follow_symlinks=True)
                finally:
                    os.close(where)
            os.replace(name, path)
            named = False
        finally:
            os.close(file)
            if named:
                name.unlink(missing_ok=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        first = "Free some space or choose another disk" if full else "Check the folder and its permissions"
        fix = f"{first}, and merge again; nothing was written."
        got, wanted = error.strerror or str(error), "a file that can be written as a whole"
        refuse_file(path, got, wanted, fix, "cannot write a merged checkpoint")
