"""Execute one chapter: NOTEBOOK OUTPUT [PARAMS.yml]. The output appears only if every cell ran."""

import os
import sys
import tempfile
import time
from pathlib import Path

import yaml
from traitlets.config import Config

# jsonschema would build a grammar of web addresses as it is imported, which takes longer than all the rest together;
# it does without if this package is not there, and a notebook has no such addresses to be checked.
GRAMMAR = "rfc3987_syntax"
sys.modules.setdefault(GRAMMAR, None)
import papermill  # noqa: E402


def main(notebook, output, params=None):
    notebook, output = Path(notebook), Path(output)
    overrides = yaml.safe_load(Path(params).read_text()) if params else {}
    known = papermill.inspect_notebook(str(notebook))
    overrides = {name: value for name, value in overrides.items() if name in known}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.partial.ipynb")
    begin = time.perf_counter()
    print(f"  {notebook.stem}: running", flush=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(partial),
            parameters=overrides,
            cwd=str(notebook.parent),
            progress_bar=False,
            # Unix sockets: no ports, and no warning about them. Their name must be this run's own.
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{os.environ['JUPYTER_RUNTIME_DIR']}/kernel"}}),
        )
    except papermill.PapermillExecutionError as error:
        print(
            f"cannot execute a chapter: {notebook}, cell {error.exec_count}: got {error.ename}: {error.evalue}, wanted "
            f"no error. The cells so far are in {partial}; mend the chapter, or what it calls, and run make again.",
            file=sys.stderr,
        )
        return 1
    os.replace(partial, output)
    print(f"  {notebook.stem}: done in {time.perf_counter() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    # ipykernel's sockets go into a folder of this run: chapters may execute side by side.
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        # The kernel finds this in place of the grammar.
        Path(runtime, f"{GRAMMAR}.py").write_text("raise ImportError('left out: see book/tools/execute.py')\n")
        os.environ["PYTHONPATH"] = os.pathsep.join([runtime, *filter(None, [os.environ.get("PYTHONPATH")])])
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # a debugger's notice at each start of a kernel
        sys.exit(main(*sys.argv[1:]))
