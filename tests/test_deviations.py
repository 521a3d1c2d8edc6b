"""The page of deviations: every effect is measured in a run, or said not to be."""

import functools
import re
import shutil
from pathlib import Path

import deviations
import pandas as pd
import pytest

from wamlib.models import kind as kind_of

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "data" / "results" / "edition"
PAGE = (ROOT / "book" / "deviations.md").read_text()
SAID = re.compile(r"[Ee]ffect not measured|[Cc]ause unknown|None on ")


@functools.cache
def published():
    return deviations.effects(PUBLISHED)


def sections(page):
    """Return the text of each deviation by its target."""
    return dict(re.findall(r"^\((deviation-[\w-]+)\)=\n### (.*?)(?=^\(deviation|\Z)", page, re.M | re.S))


def problems(page, known):
    """Return what is wrong with the page, as a list of sentences."""
    found = []
    for name, text in sections(page).items():
        parts = re.findall(r"^\*\*(There|Here, and why|In numbers)\.\*\* \S", text, re.M)
        if parts != ["There", "Here, and why", "In numbers"]:
            found.append(f"{name} has {parts}")
        effect = text.partition("**In numbers.**")[2]
        if not SAID.search(effect) and "{{" not in effect:
            found.append(f"{name} has no effect")
    asked = re.findall(r"\{\{ (effect_\w+) \}\}", page)
    found += [f"asks for {name}" for name in asked if name not in known]
    found += [f"leaves {name} out" for name in known if name not in asked]
    found += [f"types {number}" for number in re.findall(r"[-+]?\d+\.\d+(?= points| %)", page)]
    return found


def test_every_deviation_has_its_parts_and_every_effect_its_place():
    known = published()
    assert len(sections(PAGE)) >= 20
    assert {f"deviation-d{n}" for n in range(1, 10)} <= set(sections(PAGE))
    assert problems(PAGE, known) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ effect_d4 }}", "It is small.", "leaves effect_d4 out"),
        ("{{ effect_d4 }}", "It is small.", "deviation-d4 has no effect"),
        ("{{ effect_d4 }}", "{{ effect_d44 }}", "asks for effect_d44"),
        ("**There.** Images are", "Images are", "deviation-d4 has ['Here, and why', 'In numbers']"),
        ("{{ effect_d4 }}", "{{ effect_d4 }} It is 3.5 points.", "types 3.5"),
    ],
)
def test_a_page_that_lacks_something_is_found_out(old, new, said):
    assert old in PAGE
    assert said in problems(PAGE.replace(old, new), published())


def test_effects_of_the_published_run_are_all_measured_and_numbers():
    for name, text in published().items():
        assert text != deviations.NOTHING, name
        assert "nan" not in text, name
        assert re.search(r"\d\.\d", text), name


STEPS = ["corrected", "D5", "D2, D9", "D6", "D4", "D1", "D3", "D7", "D8"]
KINDS = ["member", "uniform soup", "logit ensemble", "feature ensemble, first head", "greedy soup"]


def protocol(models=("cnn", "vit"), replicas=3, steps=STEPS):
    """Return steps at which nothing happens, but for D1: there the ensemble of the ViT gains 2 points, of the CNN 1."""
    rows = [
        {
            "model": model,
            "replica": replica,
            "step": step,
            "combination": kind,
            "accuracy": 80 + replica + (kind == "logit ensemble" and place >= 5) * (1 + (kind_of(model) == "vit")),
        }
        for model in models
        for replica in range(replicas)
        for place, step in enumerate(steps)
        for kind in KINDS
    ]
    return pd.DataFrame(rows)


def save(folder, **tables):
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return deviations.effects(folder)


def modes(**gaps):
    return pd.DataFrame(
        [
            {"model": "cnn", "replica": replica, "n_members": 3, "mode": mode, "gap": gap}
            for replica in range(3)
            for mode, gap in gaps.items()
        ]
    )


def test_an_effect_is_the_change_at_its_step(tmp_path):
    found = save(tmp_path, protocol_steps=protocol(), train_mode=modes(eval=1.0, train=1.5))
    assert "CNN +1.0 [+1.0, +1.0]; ViT +2.0 [+2.0, +2.0]" in found["effect_d1"]
    assert "otherwise sound: CNN +0.5 [+0.5, +0.5]" in found["effect_d1"]
    assert "member's accuracy, in points: CNN +0.0" in found["effect_d4"]
    # Members that begin from weights of their own belong to D9, others to D2; features before the norm to the ViT.
    assert ("CNN" in found["effect_d9"], "ViT" in found["effect_d9"]) == (True, False)
    assert ("CNN" in found["effect_d2"], "ViT" in found["effect_d2"]) == (False, True)
    assert "CNN" not in found["effect_d3"]
    # The twin: the same step in other tables is another number.
    other = protocol()
    other.loc[other.combination == "uniform soup", "accuracy"] -= (other.step == "D1") * 1.0
    assert "CNN +2.0" in save(tmp_path, protocol_steps=other)["effect_d1"]


def test_architectures_are_told_by_their_kind_whatever_their_names(tmp_path):
    found = save(tmp_path, protocol_steps=protocol(models=["mlp-x2", "vgg16", "resnet18_cifar", "vit_b_16_cifar"]))
    assert [("mlp-x2" in found[f"effect_{name}"]) for name in ("d9", "d2", "d3")] == [True, False, False]
    assert [("resnet18_cifar" in found[f"effect_{name}"]) for name in ("d9", "d2", "d3")] == [False, True, False]
    assert [("vit_b_16_cifar" in found[f"effect_{name}"]) for name in ("d9", "d2", "d3")] == [False, True, True]


@pytest.mark.parametrize(
    ("tables", "missing"),
    [
        ({}, "d1"),
        ({"protocol_steps": protocol(models=["vit"])}, "d9"),
        ({"protocol_steps": protocol(models=["cnn"])}, "d3"),
        ({"protocol_steps": protocol(steps=STEPS[:7])}, "d8"),
        ({"train_mode": modes(eval=1.0)}, "d1"),
    ],
)
def test_what_a_run_lacks_is_said_to_be_unmeasured(tmp_path, tables, missing):
    found = save(tmp_path, **tables)
    assert found[f"effect_{missing}"] == deviations.NOTHING
    assert set(found) == set(published())


def test_one_replica_has_no_interval(tmp_path):
    found = save(tmp_path, protocol_steps=protocol(replicas=1))
    assert "ViT +0.0 (one replica, no interval)" in found["effect_d6"]
    assert not any("nan" in text for text in found.values())


def test_effects_do_without_a_data_set(tmp_path):
    for path in PUBLISHED.glob("*.csv"):
        shutil.copy2(path, tmp_path)
    table = pd.read_csv(tmp_path / "architectures.csv")
    assert "CIFAR-10" in deviations.effects(tmp_path)["effect_data_sets"]
    found = save(tmp_path, architectures=table[table.dataset == "Fashion-MNIST"])["effect_data_sets"]
    assert "Fashion-MNIST" in found
    assert "CIFAR-10" not in found
