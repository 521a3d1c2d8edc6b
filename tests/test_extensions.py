"""The smaller extensions: numbers by name, formulas without a server, and references out of a page that is alone."""

import json
import re
from types import SimpleNamespace

import pytest

pytest.importorskip("myst_nb", reason="no Sphinx: pip install -e '.[book]'")

import findings
from tiny_book import begin, build


def test_numbers_of_the_run_the_benchmarks_and_the_effects_are_there_by_name(tmp_path):
    source, results = tmp_path / "book", tmp_path / "benchmarks" / "results"
    (source / "generated").mkdir(parents=True)
    results.mkdir(parents=True)
    measured = {"numbers": {"seconds": 1.5, "n_runs": 3}, "machine": {"cores": 2}}
    (results / "a-machine.json").write_text(json.dumps(measured))
    (source / "generated" / "findings.json").write_text(json.dumps({"numbers": {"gain": 0.25, "n_runs": 7}}))
    app, config = SimpleNamespace(srcdir=source), SimpleNamespace()
    findings._read(app, config)
    named = {"seconds": 1.5, "bench_cores": 2, "gain": 0.25, "n_runs": 7}  # a run's own number before a benchmark's
    assert config.myst_substitutions == named
    (source / "generated" / "effects.json").write_text(json.dumps({"words": "none"}))
    findings._read(app, config)
    assert config.myst_substitutions == named | {"words": "none"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of a page that is built alone, as `make own` builds one."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "text").mkdir()
    (folder / "text" / "a.md").write_text(
        "(ch-a)=\n# Is it so?\n\n```{figure} x.svg\n:name: fig-a\n```\n\n$$ (eq-a)\nx\n$$\n"
    )
    text = "# Page\n\n{ref}`ch-a`, {numref}`fig-a`, {eq}`eq-a`, {doc}`a`, {ref}`ch-b`, {ref}`here <ch-b>`.\n\n"
    settings = f"elsewhere_chapters = {str(folder / 'text')!r}"
    extensions = ["sphinx.ext.mathjax", "offline_mathjax", "elsewhere"]
    code, said, out = build(begin(folder, extensions, f"{text}```{{math}}\nx^2\n```\n", settings))
    assert (code, said) == (0, "")
    return out


def test_formulas_need_no_server_and_a_sixth_of_mathjax(built):
    page, copied = (built / "index.html").read_text(), built / "_static" / "mathjax"
    assert re.findall(r'src="([^"?]*mathjax[^"?]*)', page) == ["_static/mathjax/startup.js"]
    parts = re.search(r'"load": \[([^\]]*)\]', page)[1].replace('"', "").split(", ")
    assert len(parts) == 3
    assert all((copied / f"{part}.js").is_file() for part in [*parts, "startup", "core"])
    assert sum(path.stat().st_size for path in copied.rglob("*") if path.is_file()) < 4e6


def test_a_page_alone_names_what_it_would_lead_to(built):
    page = (built / "index.html").read_text()
    assert page.count("<em>Is it so?</em>") == 4
    assert re.search(r"ch-b</span>.*>here</span>", page)  # what is nowhere keeps the words it has
