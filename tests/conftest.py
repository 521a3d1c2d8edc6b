"""Fixtures: small real data and small real members, trained once per session."""

import os
import shutil

import pytest
import torch
from hypothesis import settings

from wamlib.config import TrainConfig
from wamlib.runs import RunStore

# Figures are drawn without a screen.
os.environ.setdefault("MPLBACKEND", "agg")

# A slow machine is no failure: tests say what is right, benchmarks/ says how fast.
settings.register_profile("wamlib", deadline=None)
settings.load_profile("wamlib")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def tiny(**changes):
    """Return a config that trains in a fraction of a second on scikit-learn's digits."""
    settings = {"dataset": "digits", "n_train": 200, "model": "mlp", "epochs": 2, "batch_size": 32, **changes}
    return TrainConfig(**settings)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A run store that the tests of one worker share."""
    return RunStore(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def digits():
    from wamlib import data

    return data.load("digits", n_train=200)


@pytest.fixture(scope="session")
def chromium():
    """Return the path of Chromium, or skip what needs it."""
    pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]'")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no browser to try the pages in: install Chromium (apt-get install chromium)")
    return path


# Of one module, not of the session: while Playwright runs, no other test of its process may start an event loop.
@pytest.fixture(scope="module")
def browser(chromium):
    """Start Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as run:
        started = run.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def show(browser, tmp_path):
    """Return a function that opens figures as one page, which must neither complain nor load anything."""
    contexts, complaints = [], []

    def opened(*figures, width=1000, **settings):
        path = tmp_path / "page.html"
        body = "\n".join(each._repr_html_() for each in figures)
        head = (
            '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>x</title>'
        )
        path.write_text(f"{head}<body>{body}", "utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("data:") or complaints.append(request.url))
        page.goto(path.as_uri())
        assert complaints.pop(0) == path.as_uri()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
