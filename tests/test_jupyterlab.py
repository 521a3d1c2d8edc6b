"""JupyterLab on a copy of the repository: saving one file of a pair writes the other."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "00_quickstart"


@pytest.fixture
def lab(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy2(ROOT / "jupytext.toml", tmp_path)
    log = (tmp_path / "log").open("w")
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    settings = [f"--ServerApp.root_dir={tmp_path}", "--IdentityProvider.token=secret"]
    process = subprocess.Popen([*command, *settings], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/lab", (tmp_path / "log").read_text())):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield tmp_path, f"http://127.0.0.1:{found[1]}/api/contents/"
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def call(url, method="GET", body=None):
    request = urllib.request.Request(
        url,
        method=method,
        data=body and json.dumps(body).encode(),
        headers={"Authorization": "token secret", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edited", "other"),
    [
        (f"notebooks/{NAME}.ipynb", f"notebooks/text/{NAME}.md"),
        (f"notebooks/text/{NAME}.md", f"notebooks/{NAME}.ipynb"),
    ],
)
def test_saving_one_file_of_a_pair_writes_the_other(lab, edited, other):
    folder, contents = lab
    model = call(f"{contents}{edited}?type=notebook&content=1")
    cell = next(c for c in model["content"]["cells"] if "## Two networks" in c["source"])
    cell["source"] = cell["source"].replace("## Two networks", "## Two networks, edited by a reader")
    assert "edited by a reader" not in (folder / other).read_text()
    call(f"{contents}{edited}", "PUT", {"type": "notebook", "format": "json", "content": model["content"]})
    for name in (edited, other):
        assert "edited by a reader" in (folder / name).read_text()
    # Nothing but that line changed: the version of whoever saved is not written down.
    before = (ROOT / "notebooks" / "text" / f"{NAME}.md").read_text()
    after = (folder / "notebooks" / "text" / f"{NAME}.md").read_text()
    assert after == before.replace("## Two networks", "## Two networks, edited by a reader")
