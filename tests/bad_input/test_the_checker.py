"""The checker of bad input can fail: good input, other exceptions, thin messages and written files are found out."""

import pytest
from checker import check_ending, check_refused, check_refused_by_cli, run_cli

from wamlib import chapters, sweeps
from wamlib.config import TrainConfig
from wamlib.errors import ConfigError
from wamlib.merge import uniform_soup

GOOD_CALLS = {
    "a config": lambda: TrainConfig(epochs=3),
    "parameters": lambda: chapters.check_parameters({"n_train": None, "widths": [1, 0.5], "models": []}),
    "a shard": lambda: sweeps.read_shard("2/3"),
    "a soup of nothing but counts": lambda: uniform_soup([{}, {}]),
}


@pytest.mark.parametrize("call", GOOD_CALLS.values(), ids=GOOD_CALLS)
def test_good_calls_are_not_taken_for_refused(call):
    with pytest.raises(AssertionError, match="accepted"):
        check_refused(call)


@pytest.mark.parametrize("line", ["runs", "fetch digits", "merge --help"])
def test_good_commands_are_not_taken_for_refused(line, tmp_path, monkeypatch):
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    with pytest.raises(AssertionError):
        check_refused_by_cli(line, monkeypatch, tmp_path)
    assert run_cli(line, monkeypatch)[0] == 0


def test_another_exception_is_found_out():
    with pytest.raises(AssertionError, match="KeyError instead of a WamlibError"):
        check_refused(lambda: {}["key"])


def test_a_warning_is_found_out():
    import warnings

    with pytest.raises(AssertionError, match="UserWarning instead"):
        check_refused(lambda: warnings.warn("hm", stacklevel=1))


def test_an_error_that_does_not_say_what_to_do_is_found_out():
    def call():
        raise ConfigError("cannot", item="a", got="b", wanted="c", fix="")

    with pytest.raises(AssertionError, match="what to do next"):
        check_refused(call)


def test_a_file_that_was_written_is_found_out(tmp_path):
    def call():
        (tmp_path / "part").touch()
        raise ConfigError("cannot", item="a", got="b", wanted="c", fix="Do.")

    with pytest.raises(AssertionError, match="something was written"):
        check_refused(call, tmp_path)


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (1, "ConfigError: cannot: a: got b, wanted c. Do.\n"),
        (2, "ConfigError: cannot: a: got b, wanted c.\n"),
        (2, "ConfigError: cannot: a: got b. Do.\n"),
        (2, "KeyError: cannot: a: got b, wanted c. Do.\n"),
        (2, "Traceback\nConfigError: cannot: a: got b, wanted c. Do.\n"),
        (2, ""),
    ],
)
def test_endings_that_are_not_right_are_found_out(code, err):
    check_ending(2, "", "ConfigError: cannot: a: got b, wanted c. Do.\n")
    with pytest.raises(AssertionError):
        check_ending(code, "", err)
