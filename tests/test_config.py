import subprocess
import sys

import pytest
from conftest import tiny

from wamlib.config import TrainConfig, derive_seed, home
from wamlib.errors import ConfigError

PRINT_ID = "from wamlib.config import TrainConfig; print(TrainConfig(model='mlp', seed=3).run_id)"


def test_run_id_is_the_same_in_another_process():
    # PYTHONHASHSEED is random in each process: an id built on hash() would differ.
    ids = {
        subprocess.run([sys.executable, "-c", PRINT_ID], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert ids == {TrainConfig(model="mlp", seed=3).run_id + "\n"}


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"epochs": 3}, {"weight_decay": 0.1}, {"threads": 2}, {"shuffle_labels": True}, {"n_train": 100}],
)
def test_every_setting_changes_the_run_id(change):
    assert tiny(**change).run_id != tiny().run_id


def test_start_changes_the_run_id():
    trunk, other = tiny(seed=5), tiny(seed=6)
    assert tiny(init_seed=None, start=trunk).run_id != tiny(init_seed=None, start=other).run_id


def test_a_folder_path_is_no_part_of_the_run_id():
    assert "/" not in tiny(dataset="folder:/some/where").run_id


def test_round_trip_through_plain_values():
    config = tiny(init_seed=None, start=tiny(seed=5))
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("batch_size", 0), ("seed", -1), ("n_train", 0),
        ("peak_lr", float("nan")), ("peak_lr", "fast"), ("momentum", 1.0), ("weight_decay", -0.1),
        ("label_smoothing", 1.0),
        ("schedule", "cos"), ("augment", "rotate"), ("precision", "float16"), ("model", ""), ("dataset", 3),
        ("init_seed", None), ("start", "trunk"), ("threads", 0), ("shuffle_labels", 1),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"field '{field}'"):
        tiny(**{field: value})


def test_start_fixes_the_weights_to_begin_with():
    with pytest.raises(ConfigError, match="init_seed"):
        tiny(start=tiny(), init_seed=0)
    with pytest.raises(ConfigError, match="start"):
        tiny(start=tiny(model="linear"), init_seed=None)


def test_unknown_setting_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'learning_rate'.*peak_lr"):
        TrainConfig.from_dict({"learning_rate": 0.1})


def test_derived_seeds_do_not_collide():
    seeds = {derive_seed("order", a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_home_is_the_checkout_from_any_folder_in_it(monkeypatch, tmp_path):
    monkeypatch.delenv("WAMLIB_HOME", raising=False)
    before = home()
    (tmp_path / "wamlib").mkdir()
    (tmp_path / "wamlib" / "config.py").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert home() == tmp_path / "data" != before
    monkeypatch.setenv("WAMLIB_HOME", "/elsewhere")
    assert str(home()) == "/elsewhere"
