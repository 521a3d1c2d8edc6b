import json
import subprocess
import sys
from dataclasses import replace

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


CHANGES = {"seed": 1, "epochs": 3, "weight_decay": 0.1, "threads": 2, "shuffle_labels": True, "n_train": 100}
CHANGES |= {"n_eval": 100, "weights": "DEFAULT", "nesterov": True}


@pytest.mark.parametrize("field", CHANGES)
def test_every_setting_changes_the_run_id(field):
    assert tiny(**{field: CHANGES[field]}).run_id != tiny().run_id


def test_settings_that_came_later_left_the_names_of_earlier_runs_as_they_were():
    """The names that these had before there were `redraw`, `weights`, `n_eval` and `nesterov`."""
    trunk = TrainConfig(model="resnet8", seed=7, epochs=2)
    member = TrainConfig(model="resnet8", start=trunk, init_seed=None, seed=4, pixels="unit", shuffle_labels=True)
    assert TrainConfig().run_id == "fashion-mnist-cnn-s0-970cfaa589"
    assert TrainConfig(model="mlp", dataset="digits", seed=3, n_train=200).run_id == "digits-mlp-s3-33c7ebbaa7"
    assert member.run_id == "fashion-mnist-resnet8-s4-cd7f25f356"
    folder = TrainConfig(dataset="folder:cifar10-jpeg.zip", model="mlp-x0.5", init_seed=9)
    assert folder.run_id == "folder-mlp-x0.5-s0-5f0f7b3109"
    # The twins: away from their defaults they count, in the run and in its start.
    starts = [replace(trunk, n_eval=9), replace(trunk, weights="DEFAULT")]
    changed = [replace(member, n_eval=9), replace(member, redraw=("head",), init_seed=4)]
    changed += [replace(member, start=start) for start in starts]
    assert len({member.run_id, *(config.run_id for config in changed)}) == 5


def test_what_is_drawn_anew_and_by_which_seed_changes_the_run_id():
    parts, seeds = [("head",), ("stem",), ("stem", "head")], (3, 4)
    trunk = tiny(seed=5)
    ids = {tiny(start=trunk, redraw=part, init_seed=seed).run_id for part in parts for seed in seeds}
    assert len(ids | {tiny(start=trunk, init_seed=None).run_id}) == 7


def test_start_changes_the_run_id():
    trunk, other = tiny(seed=5), tiny(seed=6)
    assert tiny(init_seed=None, start=trunk).run_id != tiny(init_seed=None, start=other).run_id


def test_a_folder_path_is_no_part_of_the_run_id():
    assert "/" not in tiny(dataset="folder:/some/where").run_id


def test_round_trip_through_plain_values():
    config = tiny(init_seed=None, start=tiny(seed=5))
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_round_trip_through_json():
    """JSON has no tuples, in the run itself and in the start of its start."""
    first = tiny(seed=5, weights="DEFAULT", n_eval=20)
    second = tiny(start=first, redraw=("stem", "head"), init_seed=1)
    config = tiny(start=second, redraw=("head",), init_seed=2, n_eval=30)
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.run_id == config.run_id
    assert again.start.redraw == ("stem", "head")
    assert again.start.start.weights == "DEFAULT"


BAD_VALUES = {"epochs": (0, 1.5, True), "batch_size": (0,), "seed": (-1,), "threads": (0,), "init_seed": (None,)}
BAD_VALUES |= {"n_train": (0,), "n_eval": (0, -3, 2.5, True, "all"), "peak_lr": (float("nan"), "fast")}
BAD_VALUES |= {"momentum": (1.0,), "weight_decay": (-0.1,), "label_smoothing": (1.0,), "schedule": ("cos",)}
BAD_VALUES |= {"augment": ("rotate",), "precision": ("float16",), "model": ("",), "dataset": (3,), "start": ("trunk",)}
BAD_VALUES |= {"shuffle_labels": (1,), "nesterov": (1,), "weights": ("", 3, True)}
# The last two would be right, but without a start there is nothing to draw anew.
BAD_VALUES["redraw"] = ("head", ["head"], ("body",), ("head", "body"), None, ("head",), ("stem", "head"))


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_VALUES.items() for value in values]
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"field '{field}'"):
        tiny(**{field: value})


def test_start_fixes_the_weights_to_begin_with():
    with pytest.raises(ConfigError, match="init_seed"):
        tiny(start=tiny(), init_seed=0)
    with pytest.raises(ConfigError, match="start"):
        tiny(start=tiny(model="linear"), init_seed=None)


def test_parts_of_a_start_are_drawn_anew_by_a_seed():
    trunk = tiny(seed=5)
    assert tiny(start=trunk, redraw=("head",), init_seed=0).init_seed == 0
    for seed in (None, -1, 1.5, True):
        with pytest.raises(ConfigError, match=r"field 'init_seed'.*at least 0"):
            tiny(start=trunk, redraw=("head",), init_seed=seed)
    for parts in (["head"], ("body",), "head"):
        with pytest.raises(ConfigError, match="field 'redraw'"):
            tiny(start=trunk, redraw=parts, init_seed=0)


def test_a_member_begins_with_pretrained_weights_or_with_a_start():
    assert tiny(weights="DEFAULT", init_seed=3).weights == "DEFAULT"
    with pytest.raises(ConfigError, match=r"field 'weights'.*no start beside it"):
        tiny(weights="DEFAULT", start=tiny(seed=5), init_seed=None)
    with pytest.raises(ConfigError, match="field 'init_seed'"):  # the head is drawn
        tiny(weights="DEFAULT", init_seed=None)


def test_recipes_are_settings_by_name():
    paper = TrainConfig.recipe("paper", model="resnet8", seed=3)
    assert (paper.epochs, paper.batch_size, paper.peak_lr, paper.weight_decay) == (50, 128, 0.01, 0)
    assert (paper.model, paper.seed, paper.augment) == ("resnet8", 3, "none")
    fast = TrainConfig.recipe("fast", dataset="digits")
    assert fast.epochs <= paper.epochs / 5
    assert TrainConfig.recipe("fast", epochs=3).epochs == 3  # what is asked for has the last word
    with pytest.raises(ConfigError, match=r"'quick'.*paper, fast"):
        TrainConfig.recipe("quick")
    with pytest.raises(ConfigError, match="'learning_rate'"):
        TrainConfig.recipe("fast", learning_rate=0.1)


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
