"""Spoilt files never crash a reader nor pass for good ones: the corpus, and a few hundred new files each time."""

import pytest
import targets
from hypothesis import HealthCheck, given, settings
from targets import TARGETS, corpus

N_EXAMPLES = 300  # `make fuzz` tries more


@pytest.fixture(scope="module", params=TARGETS, ids=lambda kind: kind.name)
def target(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp(request.param.name))


def test_valid_files_are_read(target):
    kinds = {target.check(seed) for seed in target.seeds}
    assert "read" in kinds


def test_corpus(target):
    files = corpus(target.name)
    assert len(files) >= 5
    for name, content in files.items():
        expected = "read" if name.startswith("good") else "refused"
        assert target.check(content) == expected, name


def test_spoilt_files(target):
    counts = {"read": 0, "refused": 0}

    @settings(max_examples=N_EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(target.strategy)
    def run(content):
        counts[target.check(content)] += 1

    run()
    assert counts["refused"] > N_EXAMPLES / 3  # the strategies do spoil


WRONG = {
    "another exception": lambda path: {"w": 0}["n"],
    "other keys": lambda path: targets.STATES[1],
    "other values": lambda path: {**targets.STATES[0], "w": -targets.STATES[0]["w"]},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_reader_that_is_wrong_is_found_out(wrong, tmp_path, monkeypatch):
    target = targets.Safetensors(tmp_path)
    monkeypatch.setattr(targets, "read_member", wrong)
    with pytest.raises((AssertionError, KeyError)):
        target.check(target.seeds[0])


def test_a_reader_that_takes_too_much_memory_is_found_out(tmp_path, monkeypatch):
    target = targets.Safetensors(tmp_path)
    peaks = iter([0, targets.MOST])
    monkeypatch.setattr(targets, "peak_memory", lambda: next(peaks))
    with pytest.raises(AssertionError, match="out of proportion"):
        target.check(target.seeds[0])
