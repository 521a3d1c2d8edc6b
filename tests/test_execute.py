"""Where nothing is trained, experiments are not executed: what they printed when they were is put behind them."""

import json

import execute
import nbformat
import pytest

from wamlib.errors import EvidenceError


def cell(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A chapter whose experiment cannot be executed here, and what it printed elsewhere."""
    experiment = cell("print(nowhere)", "experiment")
    cells = [cell('profile = "laptop"', "parameters"), experiment, cell("print(profile)")]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "10_toy.ipynb")
    printed = [nbformat.v4.new_output("stream", text="accuracy 90 %\n")]
    (tmp_path / "experiments.json").write_text(json.dumps({"10_toy": {execute.digest(experiment): printed}}))
    monkeypatch.setattr(execute, "EXPERIMENTS", tmp_path / "experiments.json")
    (tmp_path / "published.yml").write_text("{profile: published, of_another_chapter: 3}")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir()
    return tmp_path / "10_toy.ipynb"


@pytest.mark.slow
def test_experiments_get_their_published_outputs_and_the_rest_is_executed(notebook, tmp_path):
    assert execute.main(notebook, tmp_path / "out" / "10_toy.ipynb", tmp_path / "published.yml") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["10_toy.ipynb"]
    cells = {c.source: c for c in nbformat.read(tmp_path / "out" / "10_toy.ipynb", 4).cells}
    assert [output.text for output in cells["print(nowhere)"].outputs] == ["accuracy 90 %\n"]
    assert cells["print(nowhere)"].metadata.tags == ["experiment"]
    assert [output.text for output in cells["print(profile)"].outputs] == ["published\n"]


@pytest.mark.parametrize("lost", ["the file", "the chapter", "the cell as it is now"])
def test_an_experiment_without_its_output_is_refused_before_anything_is_executed(notebook, tmp_path, lost):
    if lost == "the file":
        execute.EXPERIMENTS.unlink()
    elif lost == "the chapter":
        execute.EXPERIMENTS.write_text("{}")
    else:
        notebook.write_text(notebook.read_text().replace("print(nowhere)", "print(nowhere, 1)"))
    with pytest.raises(EvidenceError, match="make findings"):
        execute.main(notebook, tmp_path / "out.ipynb", tmp_path / "published.yml")
    assert not (tmp_path / "out.ipynb").exists()
