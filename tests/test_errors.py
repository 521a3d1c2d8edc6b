import pickle

import pytest

from wamlib import errors

CASES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", CASES)
def test_message_has_four_parts(kind):
    error = kind("cannot read", item="a.csv", got="3 rows", wanted="4", fix="Add one.")
    assert str(error) == "cannot read: a.csv: got 3 rows, wanted 4. Add one."


@pytest.mark.parametrize("kind", CASES)
def test_survives_the_way_back_from_a_worker(kind):
    error = kind("cannot read", item="a.csv", got="3 rows", wanted="4", fix="Add one.")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.fix == error.fix


@pytest.mark.parametrize("kind", CASES)
def test_a_notebook_shows_the_four_parts_and_no_way_through_the_package(kind):
    error = kind("cannot read", item="a.csv", got="3 rows", wanted="4", fix="Add one.")
    shown = error._render_traceback_()
    assert shown[0] == f"{kind.__name__}: cannot read"
    assert [line.split(maxsplit=1)[1] for line in shown[1:]] == ["a.csv", "3 rows", "4", "Add one."]
