"""A reader's own images and checkpoints: two chapters executed on them, for real; and what is wrong is said in time."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from wamlib import data, models, sweeps

ROOT = Path(__file__).parents[1]
SHAPE = 3, 1, (10, 12)  # classes, channels, pixels: none of them as in the book's own data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pictures/ in class folders and three checkpoints that were trained on its train/ for seconds."""
    from sklearn.datasets import load_digits

    folder, bunch = tmp_path_factory.mktemp("reader"), load_digits()
    for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        if label < 3:
            place = folder / "pictures" / ("train" if index % 3 else "test") / f"kind-{label}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15.9).astype("uint8")).resize((12, 10)).save(place / f"{index}.png")
    train = data.load(f"folder:{folder / 'pictures'}").train
    trunk = learn(models.build("cnn", *SHAPE, seed=0), train, seed=0)
    states = [learn(copy.deepcopy(trunk), train, seed).state_dict() for seed in (1, 2, 3)]
    save_file(states[0], folder / "mine-a.safetensors")
    save_file(states[1], folder / "mine-b.safetensors")
    torch.save(states[2], folder / "mine-c.pt")
    save_file(models.build("cnn", 4, 1, (10, 12)).state_dict(), folder / "four-classes.safetensors")
    save_file(models.build("mlp", *SHAPE).state_dict(), folder / "other-keys.safetensors")
    (folder / "empty" / "kind").mkdir(parents=True)
    return folder


def learn(model, train, seed, steps=30):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.train().parameters(), 0.05, momentum=0.9)
    for _ in range(steps):
        index = torch.randint(len(train), (32,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(train.normalize(train.images[index])), train.labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def own(folder, notebook, out, **settings):
    (folder / "mine.yml").write_text(json.dumps(settings))  # which is YAML too
    words = [sys.executable, ROOT / "book" / "tools" / "own.py", notebook, "mine.yml", out]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(out), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env["WAMLIB_HOME"] = str(folder / "data")
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


def said(path):
    """Return all that a notebook printed, showed or glued, as one text."""
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    glued = {}
    for output in outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        glued[name] = next((str(v) for k, v in output.get("data", {}).items() if k.endswith("text/plain")), None)
    return str(outputs), glued


MEMBERS = ["mine-a.safetensors", "mine-b.safetensors", "mine-c.pt"]


@pytest.mark.slow
def test_own_checkpoints_end_as_a_notebook_a_page_and_a_soup(folder, tmp_path):
    settings = {"members": MEMBERS, "model": "cnn", "dataset": "folder:pictures", "output": "soup.safetensors"}
    done = own(folder, "61_your_own", tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    text, glued = said(tmp_path / "61_your_own" / "61_your_own.ipynb")
    assert all(name in text for name in MEMBERS)
    assert "member-0.safetensors" not in text
    assert (glued["whose"], glued["data"], glued["n_members"]) == ("'3 networks of yours'", "'pictures'", "3")
    assert float(glued["chance"]) == pytest.approx(100 / 3)
    page = (tmp_path / "61_your_own" / "html" / "61_your_own.html").read_text()
    assert "3 networks of yours" in page
    assert "Which should I use on Monday?" in page  # a reference to a chapter that is not there
    assert "{glue:" not in page
    with safe_open(folder / "soup.safetensors", "pt") as file:
        assert set(file.keys()) == set(models.build("cnn", *SHAPE).state_dict())
        assert [Path(entry["file"]).name for entry in json.loads(file.metadata()["wamlib"])["inputs"]] == MEMBERS


@pytest.mark.slow
def test_own_images_run_through_the_quickstart(folder, tmp_path):
    done = own(folder, "00_quickstart", tmp_path, dataset="folder:pictures", n_train=600, epochs=3, trunk_epochs=2)
    assert done.returncode == 0, done.stderr
    _, glued = said(tmp_path / "00_quickstart" / "00_quickstart.ipynb")
    n_test = len(data.load(f"folder:{folder / 'pictures'}").test)
    assert (glued["data"], glued["n_classes"], glued["size"]) == ("'pictures'", "3", "'10 × 12'")
    assert int(glued["n_test"]) == n_test
    page = re.sub("<[^>]*>", "", (tmp_path / "00_quickstart" / "html" / "00_quickstart.html").read_text())
    page = " ".join(page.split())  # prose is wrapped
    assert "pictures of 3 kinds, 10 × 12 pixels" in page


WRONG = {
    "no such parameter": ({"member": MEMBERS}, "perhaps 'members'"),
    "no such folder": ({"dataset": "folder:nowhere"}, "DataError: cannot load folder:nowhere: nowhere: got no such"),
    "no classes": ({"dataset": "folder:empty"}, "got no images in class folders"),
    "no such file": (
        {"members": ["nowhere.pt"]},
        "CheckpointError: cannot read a member: nowhere.pt: got no such",
    ),
    "other classes": ({"members": [MEMBERS[0], "four-classes.safetensors"]}, "MemberMismatchError: "),
    "other keys": ({"members": [MEMBERS[0], "other-keys.safetensors"]}, "MemberMismatchError: "),
    "other architecture": ({"model": "mlp"}, "the keys and shapes of the model's state dict"),
    "no function": ({"model": "nowhere:net"}, "ConfigError: cannot build a model"),
    "one member": ({"members": MEMBERS[:1]}, "got 1, wanted at least two"),
    "no number": ({"mean": "grey"}, "ConfigError: cannot normalise the images"),
    "budget": ({"budget": 0}, "parameter 'budget'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_four_parts_and_leaves_no_half_notebook(name, folder, tmp_path):
    changes, words = WRONG[name]
    good = {"members": MEMBERS, "model": "cnn", "dataset": "folder:pictures"}
    done = own(folder, "61_your_own", tmp_path, **good | changes)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert all(part in done.stderr for part in (": got ", ", wanted "))
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ipynb"))
    assert not list(tmp_path.rglob("*.html"))


def test_a_chapter_that_is_not_there_is_refused_with_those_that_are(folder, tmp_path):
    done = own(folder, "62_nothing", tmp_path)
    assert done.returncode == 2
    assert "61_your_own" in done.stderr


def test_a_small_folder_is_passed_over_more_often_and_another_is_not(folder, tmp_path):
    name = f"folder:{folder / 'pictures'}"
    size = len(data.load(name).train)
    assert data.training_size(name) == size
    assert sweeps.fit_passes(name, 10 * size, 4, 2) == (None, 40, 20)
    assert sweeps.fit_passes(name, size, 4, 2) == (size, 4, 2)
    assert sweeps.fit_passes("folder:nowhere", 600, 4, 2) == (600, 4, 2)
    assert data.training_size("fashion-mnist") is None
    undivided = f"folder:{folder / 'pictures' / 'train'}"
    assert data.training_size(undivided) == len(data.load(undivided).train)
