"""Records: kept by all they follow from, published as small tables, added up, and never taken for others."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from wamlib import evidence, packed, reach
from wamlib.chapters import members
from wamlib.errors import EvidenceError
from wamlib.evidence import Evidence, Published, publish, read_record

ROWS = pd.DataFrame(
    {
        "kind": ["member", "=soup", "", None],
        "n": [1, 2, 3, 4],
        "right": [True, False, True, True],
        "accuracy": [90.123456, math.nan, 88.0, 1e-12],
        "whole": [1.0, 100.0, -3.0, 0.0],
        "group": [0.5, "shuffled labels", 10.0, "released"],
        "digit": ["0", "1", "2", "3"],
    }
)


def runs(*ids, weights="w", images="i"):
    record = {"checkpoint_sha256": weights, "split_hash": images}
    return [SimpleNamespace(config=SimpleNamespace(run_id=name), record=record) for name in ids]


class Counted:
    """A computation that counts how often it is asked for."""

    def __init__(self, rows=ROWS):
        self.rows, self.n = rows, 0

    def __call__(self):
        self.n += 1
        return self.rows


def test_what_is_there_is_read_to_the_last_bit(tmp_path):
    compute, store = Counted(), Evidence(tmp_path)
    first = store.get(members.scores, runs("a", "b"), {"n": 3}, compute)
    again = Evidence(tmp_path).get(members.scores, runs("a", "b"), {"n": 3}, compute)
    assert compute.n == 1
    pd.testing.assert_frame_equal(first.rows, again.rows, check_exact=True)
    pd.testing.assert_frame_equal(first.rows, ROWS, check_exact=True)
    assert (first.measure, first.runs, first.arguments) == ("members.scores", ["a", "b"], {"n": 3})
    assert {"machine", "versions", "code", "day"} == set(first.made)
    assert next(read_record(path) for path in store.used).name == first.name


def test_whatever_a_record_follows_from_makes_it_another(tmp_path, monkeypatch):
    compute = Counted()

    def ask(measure=members.scores, pool=None, **arguments):
        Evidence(tmp_path).get(measure, pool or runs("a", "b"), arguments, compute)
        return compute.n

    assert [ask(), ask()] == [1, 1]
    changes = [
        {"measure": members.pairs},
        {"pool": runs("b", "a")},
        {"pool": runs("a")},
        {"pool": runs("a", "b", weights="other")},
        {"pool": runs("a", "b", images="other")},
        {"n": 3},
        {"n": 4},
    ]
    assert [ask(**change) for change in changes] == list(range(2, 9))
    assert {ask(**change) for change in changes} == {8}
    monkeypatch.setattr(reach, "version", lambda measure: "another")
    assert ask() == 9


def test_a_damaged_record_is_measured_again(tmp_path):
    compute = Counted()
    store = Evidence(tmp_path)
    store.get(members.scores, runs("a"), {}, compute)
    (path,) = store.used
    whole = path.read_bytes()
    for spoilt in (whole[:-7], whole.replace(b"88.0", b"89.0"), b""):
        path.write_bytes(spoilt)
        assert read_record(path) is None
        store.get(members.scores, runs("a"), {}, compute)
    assert compute.n == 4
    assert path.read_bytes() == whole


def records(tmp_path, *pools, measure=members.scores, rows=ROWS):
    store = Evidence(tmp_path / "store")
    return [store.get(measure, pool, {"n": 3}, Counted(rows)) for pool in pools]


def test_published_records_are_read_back(tmp_path):
    publish(records(tmp_path, runs("a", "b"), runs("c")), tmp_path / "out")
    found = Published(tmp_path / "out").get(members.scores, ["c"], {"n": 3})
    pd.testing.assert_frame_equal(found.rows, ROWS, check_exact=True)  # to the last bit
    assert found.images == records(tmp_path, runs("c"))[0].images
    assert found.made["versions"]["wamlib"]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["made.json", "members.scores.csv", "records.csv"]


def test_records_add_up_and_the_order_of_publishing_does_not_matter(tmp_path):
    one, two, three = records(tmp_path, runs("a"), runs("b"), runs("c"))
    publish([one], tmp_path / "x")
    publish([three, two], tmp_path / "x")
    publish([two, one, three], tmp_path / "y")
    for path in (tmp_path / "x").glob("*.csv"):
        assert path.read_bytes() == (tmp_path / "y" / path.name).read_bytes()
    # The same measure of the same pool, made anew elsewhere, takes the place of the old one.
    newer = replace(two, columns={"n": [7]}, weights="other")
    publish([newer], tmp_path / "x")
    found = Published(tmp_path / "x")
    assert found.get(members.scores, ["b"], {"n": 3}).rows.n.tolist() == [7]
    assert found.get(members.scores, ["a"], {"n": 3}).rows.n.tolist() == [1, 2, 3, 4]


def test_what_other_code_made_goes_when_its_measure_is_published_again(tmp_path):
    one, two = records(tmp_path, runs("a"), runs("b"))
    (other,) = records(tmp_path, runs("a"), measure=members.pairs)
    publish([replace(one, version="older"), other], tmp_path / "out")
    publish([two], tmp_path / "out")
    with pytest.raises(EvidenceError, match="got no record"):
        Published(tmp_path / "out").get(members.scores, ["a"], {"n": 3})
    assert len(Published(tmp_path / "out").get(members.scores, ["b"], {"n": 3}).rows) == 4
    assert len(Published(tmp_path / "out").get(members.pairs, ["a"], {"n": 3}).rows) == 4
    publish([two], tmp_path / "out", whole=True)  # nobody asks for pairs
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*.csv")) == ["members.scores.csv"]
    with pytest.raises(EvidenceError, match="got no record"):
        Published(tmp_path / "out").get(members.pairs, ["a"], {"n": 3})


def test_a_record_that_is_missing_or_of_other_code_is_refused(tmp_path, monkeypatch):
    publish(records(tmp_path, runs("a")), tmp_path / "out")
    published = Published(tmp_path / "out")
    assert len(published.get(members.scores, ["a"], {"n": 3}).rows) == 4
    for pool, arguments in ((["b"], {"n": 3}), (["a"], {"n": 4}), (["a"], {})):
        with pytest.raises(EvidenceError, match=r"got no record .* Run `make book`"):
            published.get(members.scores, pool, arguments)
    with pytest.raises(EvidenceError, match="got no record"):
        Published(tmp_path / "nowhere").get(members.scores, ["a"], {"n": 3})
    monkeypatch.setattr(reach, "version", lambda measure: "another")
    with pytest.raises(EvidenceError, match="wanted version another"):
        published.get(members.scores, ["a"], {"n": 3})


def test_published_tables_are_small(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "LARGEST", 3_000)
    rows = pd.DataFrame({"x": np.arange(300) / 7})
    many = records(tmp_path, *(runs(name) for name in "abcde"), rows=rows.head(90))
    publish(many, tmp_path / "out")
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("members.scores*.csv")]
    assert len(sizes) > 1
    assert max(sizes) <= 3_000
    for record in many:
        found = Published(tmp_path / "out").get(members.scores, record.runs, {"n": 3})
        assert found.rows.x.tolist() == record.rows.x.tolist()
    publish(many[:1], tmp_path / "out")  # again, beside the others
    assert len(Published(tmp_path / "out").get(members.scores, ["e"], {"n": 3}).rows) == 90
    with pytest.raises(EvidenceError, match=r"wanted at most 3,000"):
        publish(records(tmp_path, runs("large"), rows=rows), tmp_path / "out")


def test_records_are_found_in_any_order_of_arguments(tmp_path):
    compute, store = Counted(), Evidence(tmp_path)
    store.get(members.scores, [], {"a": 1, "b": [2]}, compute)
    store.get(members.scores, [], json.loads('{"b": [2], "a": 1}'), compute)
    assert compute.n == 1


def test_pictures_fit_into_tables():
    picture = np.random.default_rng(0).normal(size=(3, 28, 28))
    found = packed.unpack(packed.pack(picture))
    assert found.shape == (3, 28, 28)
    np.testing.assert_allclose(found, picture, rtol=1e-3, atol=1e-4)
    assert packed.unpack(packed.pack(2.5)) == 2.5
    assert packed.pack(picture) == packed.pack(picture.astype(np.float32))
