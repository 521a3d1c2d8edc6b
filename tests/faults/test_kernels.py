"""Chapters whose kernel, or whose command, is killed for real; and chapters that a cluster's worker executes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from clusters import started

EXECUTE = Path(__file__).parents[2] / "book" / "tools" / "execute.py"
pytestmark = pytest.mark.slow


def write(path, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@pytest.fixture
def chapter(tmp_path):
    """A chapter that says when its second cell has begun, and stays in it for long."""
    path = tmp_path / "chapter.ipynb"
    write(path, "n_train = 3", "from pathlib import Path\nPath('begun').touch()\nimport time\ntime.sleep(wait)")
    return path


def start(*words):
    return subprocess.Popen([sys.executable, EXECUTE, *map(str, words)], stderr=subprocess.PIPE, text=True)


def kernels(process):
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("ipykernel" in word for word in child.cmdline())]


def wait_for_cell(chapter, process):
    deadline = time.monotonic() + 60
    while not chapter.with_name("begun").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)


def with_wait(chapter, seconds):
    notebook = nbformat.read(chapter, 4)
    notebook.cells[0].source = f"n_train, wait = 3, {seconds}"
    nbformat.write(notebook, chapter)


@pytest.mark.parametrize("old", [False, True])
def test_a_kernel_that_is_killed_is_an_error_of_four_parts_and_leaves_the_old_page(old, chapter, tmp_path):
    output = tmp_path / "out.ipynb"
    if old:
        output.write_text("old")
    with_wait(chapter, 600)
    process = start(chapter, output)
    wait_for_cell(chapter, process)
    (kernel,) = kernels(process)
    kernel.kill()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in error
    assert (
        f"cannot execute a chapter: {chapter}: got a kernel that died, wanted one that lives to the last cell" in error
    )
    assert "run make again with JOBS=1" in error
    assert (output.read_text() == "old") if old else not output.exists()
    with_wait(chapter, 0)
    process = start(chapter, output)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(nbformat.read(output, 4).cells) == 2


def test_a_command_that_is_killed_leaves_no_page_and_no_kernel(chapter, tmp_path):
    with_wait(chapter, 600)
    process = start(chapter, tmp_path / "out.ipynb")
    wait_for_cell(chapter, process)
    (kernel,) = kernels(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out.ipynb").exists()
    kernel.wait(timeout=30)  # it looks now and then whether its parent is there


def test_a_notebook_that_is_not_there_is_refused(tmp_path):
    process = start(tmp_path / "no.ipynb", tmp_path / "out.ipynb")
    assert "got no such file, wanted a notebook" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_a_worker_of_a_cluster_executes_a_chapter(chapter, tmp_path):
    with_wait(chapter, 0)
    broken = tmp_path / "broken.ipynb"
    write(broken, "n_train = 1", "1 / 0")
    with started(tmp_path) as begin:
        _, address = begin("scheduler")
        begin("worker", address, "--nthreads", "1")
        good = start(chapter, tmp_path / "out.ipynb", "--dask", address)
        good.communicate(timeout=120)
        bad = start(broken, tmp_path / "no.ipynb", "--dask", address)
        error = bad.communicate(timeout=120)[1]
    assert good.returncode == 0
    assert len(nbformat.read(tmp_path / "out.ipynb", 4).cells) == 2
    assert bad.returncode == 1
    assert "cell 2: got ZeroDivisionError: division by zero, wanted no error" in error
    assert not (tmp_path / "no.ipynb").exists()
