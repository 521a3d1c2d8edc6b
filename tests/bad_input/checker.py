"""What a bad input must meet with: a WamlibError in four parts, or exit code 2 and its message; and nothing written."""

import contextlib
import io
import re
import shlex
import sys
import traceback
import warnings

from wamlib import errors
from wamlib.cli import main
from wamlib.errors import WamlibError

NAMES = "|".join([*errors.__all__, "SweepError"])
# "Class: doing: item: got ..., wanted ... . What to do next."
MESSAGE = re.compile(rf"(?:Notice: .*\n|left out: .*\n)*({NAMES}): .+: got .+, wanted .+\. \S.*[.?)]\n", re.S)


def listing(*folders):
    """Return what is in folders: every path, its size and when it was changed."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths]


def check_refused(call, *folders):
    """Assert that a call raises a WamlibError with four parts, and leaves the folders as they were."""
    before = listing(*folders)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = call()
    except WamlibError as error:
        caught = error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} instead of a WamlibError: {error}") from error
    else:
        raise AssertionError(f"accepted: {result!r}"[:300])
    assert all(isinstance(part, str) and part for part in (caught.doing, caught.item, caught.got, caught.wanted))
    assert re.fullmatch(r"\S.*[.?)]", caught.fix, re.S), f"no sentence that says what to do next: {caught.fix!r}"
    assert len(str(caught)) < 4000, "a message that nobody reads"
    assert listing(*folders) == before, "something was written"
    return str(caught)


def run_cli(line, monkeypatch):
    """Run the command line in this process; return its exit code and what it wrote to stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["wamlib", *shlex.split(line)])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code or 0
        except Exception:  # what Python would print, and exit with 1
            traceback.print_exc(file=err)
            code = 1
    return code, out.getvalue(), err.getvalue()


def check_refused_by_cli(line, monkeypatch, *folders):
    """Assert that a command ends with code 2 and one message, and leaves the folders as they were."""
    before = listing(*folders)
    code, out, err = run_cli(line, monkeypatch)
    check_ending(code, out, err)
    assert listing(*folders) == before, "something was written"
    return err


def check_ending(code, out, err):
    """Assert that a process ended as a user's mistake should end."""
    assert "Traceback" not in out + err, err
    assert code == 2, (code, out, err)
    usage = err.startswith("Usage: ") and "Error" in err  # typer's own, for what it could not parse
    assert usage or MESSAGE.fullmatch(err), err
