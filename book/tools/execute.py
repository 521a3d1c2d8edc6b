"""Execute one chapter: NOTEBOOK OUTPUT [PARAMS.yml] [--dask ADDRESS]. The output appears only if every cell ran.

What stands in PARAMS.yml was checked by `wamlib sweep`, which goes before every chapter; to check it here again would
cost seconds, for it needs torch.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml
from traitlets.config import Config

from wamlib import errors
from wamlib.errors import ConfigError, EvidenceError, WamlibError

PUBLISHED = "published"  # the profile that trains nothing, see wamlib.chapters
EXPERIMENTS = Path(__file__).parents[2] / "data" / "evidence" / "experiments.json"

# jsonschema would build a grammar of web addresses as it is imported, which takes longer than all the rest together;
# it does without if this package is not there, and a notebook has no such addresses to be checked.
GRAMMAR = "rfc3987_syntax"
sys.modules.setdefault(GRAMMAR, None)
import papermill  # noqa: E402
from nbclient.exceptions import DeadKernelError  # noqa: E402


def main(notebook, output, params=None):
    if not notebook.is_file():
        raise ConfigError(
            "cannot execute a chapter",
            item=str(notebook),
            got="no such file",
            wanted="a notebook",
            fix="Correct the path; notebooks/ lists them.",
        )
    overrides = (yaml.safe_load(params.read_text()) or {}) if params else {}
    known = papermill.inspect_notebook(str(notebook))
    overrides = {name: value for name, value in overrides.items() if name in known}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.partial.ipynb")
    experiments = recorded(notebook) if overrides.get("profile") == PUBLISHED else None
    begin = time.perf_counter()
    print(f"  {notebook.stem}: running", flush=True)
    try:
        papermill.execute_notebook(
            str(notebook) if experiments is None else str(without_experiments(notebook, partial)),
            str(partial),
            parameters=overrides,
            cwd=str(notebook.parent),
            progress_bar=False,
            # Unix sockets: no ports, and no warning about them. Their name must be this run's own.
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{os.environ['JUPYTER_RUNTIME_DIR']}/kernel"}}),
        )
    except papermill.PapermillExecutionError as error:
        if error.ename in errors.__all__:  # its four parts say all; half a notebook would not say more
            partial.unlink(missing_ok=True)
            print(f"{error.ename}: {error.evalue} ({notebook}, cell {error.exec_count})", file=sys.stderr)
            return 2
        print(
            f"cannot execute a chapter: {notebook}, cell {error.exec_count}: got {error.ename}: {error.evalue}, wanted "
            f"no error. The cells so far are in {partial}; mend the chapter, or what it calls, and run make again.",
            file=sys.stderr,
        )
        return 1
    except DeadKernelError:
        print(
            f"cannot execute a chapter: {notebook}: got a kernel that died, wanted one that lives to the last cell. "
            f"The cells so far are in {partial}. Perhaps memory ran out: run make again with JOBS=1. Finished members "
            "and kept predictions are there.",
            file=sys.stderr,
        )
        return 1
    if experiments is not None:
        fill_in(partial, experiments)
    os.replace(partial, output)
    print(f"  {notebook.stem}: done in {time.perf_counter() - begin:.0f} s", flush=True)
    return 0


def recorded(notebook):
    """Return the published outputs of a chapter's experiments, by the digest of each cell's source."""
    kept = json.loads(EXPERIMENTS.read_text("utf-8")) if EXPERIMENTS.is_file() else {}
    outputs = kept.get(notebook.stem, {})
    for cell in experiments_of(nbformat.read(notebook, as_version=4)):
        if digest(cell) not in outputs:
            raise EvidenceError(
                "cannot draw a chapter from published records",
                item=f"{notebook}, the cell tagged 'experiment'",
                got=f"no output of this cell in {EXPERIMENTS}",
                wanted="one",
                fix="Run `make book`, which executes the cell, and `make findings` to publish what it says.",
            )
    return outputs


def experiments_of(book):
    """Return the cells that need trained networks."""
    return [cell for cell in book.cells if "experiment" in cell.metadata.get("tags", [])]


def digest(cell):
    return hashlib.sha256(cell.source.encode()).hexdigest()[:12]


def without_experiments(notebook, partial):
    """Write a copy of a notebook whose experiments are not executed, and return its path."""
    book = nbformat.read(notebook, as_version=4)
    for cell in experiments_of(book):
        cell.metadata.tags.append("skip-execution")
    copy = partial.with_suffix(".input.ipynb")
    nbformat.write(book, copy)
    return copy


def fill_in(path, outputs):
    """Put the published outputs behind the experiments of an executed notebook."""
    book = nbformat.read(path, as_version=4)
    for cell in experiments_of(book):
        cell.metadata.tags.remove("skip-execution")
        cell.outputs = [nbformat.from_dict(output) for output in outputs[digest(cell)]]
    nbformat.write(book, path)
    path.with_suffix(".input.ipynb").unlink()


def execute_here(notebook, output, params):
    """Execute with a folder of its own for ipykernel's sockets: chapters may execute side by side."""
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        # The kernel finds this in place of the grammar.
        Path(runtime, f"{GRAMMAR}.py").write_text("raise ImportError('left out: see book/tools/execute.py')\n")
        os.environ["PYTHONPATH"] = os.pathsep.join([runtime, *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger's notice at each start of a kernel
        return main(notebook, output, params)


def execute_there(address, words):
    """Have a worker of a cluster, which sees this folder under the same path, execute it."""
    from wamlib.sweeps import cluster

    settings = {name: value for name, value in os.environ.items() if name.startswith(("WAMLIB_", "OMP_", "AWS_"))}
    with cluster(address) as executor:
        done = executor.submit(call, [os.path.abspath(__file__), *words], os.getcwd(), settings).result()
    sys.stdout.write(done[1])
    sys.stderr.write(done[2])
    return done[0]


def call(words, folder, settings):
    """Return the exit code and the output of this script, run by a worker in a process of its own."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("params", nargs="?", type=Path)
    parser.add_argument("--dask", help="address of a scheduler whose workers share this folder")
    given = parser.parse_args()
    files = [given.notebook, given.output, given.params]
    try:
        if given.dask:
            sys.exit(execute_there(given.dask, [str(path) for path in files if path is not None]))
        sys.exit(execute_here(*files))
    except WamlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)
