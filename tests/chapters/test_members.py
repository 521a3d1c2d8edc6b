"""Members: their scores are those of their records, and distances agree with arithmetic."""

from dataclasses import replace

import pytest
import torch
from helpers import check_drawing, random_dataset, untrained, untrained_chapter

from wamlib.chapters import members
from wamlib.pools import Pool


def test_pairs_are_zero_apart_from_themselves():
    dataset = random_dataset()
    a, b = untrained("mlp", dataset, 2)
    table = members.pairs(Pool([a, a, b], dataset))
    assert table[["a", "b"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2]]
    assert table.distance[0] == 0
    assert table.agreement[0] == 100
    assert table.distance[1] == pytest.approx(table.distance[2])
    flat = [torch.cat([tensor.flatten().double() for tensor in run.state.values()]) for run in (a, b)]
    expected = (flat[0] - flat[1]).norm() / ((flat[0].norm() + flat[1].norm()) / 2)
    assert table.distance[1] == pytest.approx(expected.item(), rel=1e-5)


def test_the_chapter_says_what_its_tables_hold(tmp_path):
    here = untrained_chapter("members", random_dataset(), tmp_path, models=["mlp", "cnn"], n_members=2)
    tables = members.tables(here)
    assert len(tables["members"]) == 2 * 3 * 2 * 2
    assert set(tables["history"].start) == {"independent init"}
    said = members.numbers(here, tables)
    spread = tables["members"].groupby(["model", "start", "replica"]).accuracy.std().groupby(["model", "start"]).mean()
    assert said["noise"] == pytest.approx(2 * 2**0.5 * spread.median())
    assert (said["n_test"], said["n_curves"]) == (90, 4)
    apart = tables["pairs"]
    assert said["disagree_shared"] == pytest.approx(100 - apart[apart.start == "shared start"].agreement.mean())
    for fig in (members.learning_curves(tables["history"]), members.member_strip(tables["members"])):
        check_drawing(fig, tmp_path)


def test_scores_are_those_of_the_records():
    dataset = random_dataset()
    run = untrained("mlp", dataset, 1)[0]
    other = replace(run, record={**run.record, "metrics": {"test": {"accuracy": 1.0, "nll": 2.0}}})
    assert members.scores(Pool([other], dataset)).to_dict("records") == [{"accuracy": 1.0, "nll": 2.0}]
