"""Settings that cannot be: of configs, recipes, shards, and parameters of chapters and sweeps."""

import math

import pytest
from checker import check_refused

from wamlib import chapters, sweeps
from wamlib.config import TrainConfig

NAN, INF = math.nan, math.inf
CONFIGS = {
    "no epochs": {"epochs": 0},
    "negative epochs": {"epochs": -1},
    "half an epoch": {"epochs": 1.5},
    "epochs as text": {"epochs": "4"},
    "epochs that are true": {"epochs": True},
    "no batch": {"batch_size": 0},
    "a batch that is none": {"batch_size": None},
    "no threads": {"threads": 0},
    "a negative seed": {"seed": -1},
    "a seed with a point": {"seed": 1.0},
    "a split seed of text": {"split_seed": "0"},
    "a start seed that is true": {"init_seed": True},
    "no start seed": {"init_seed": None},
    "no training images": {"n_train": 0},
    "negative training images": {"n_train": -5},
    "training images in a list": {"n_train": [5]},
    "no test images": {"n_eval": 0},
    "a rate that is NaN": {"peak_lr": NAN},
    "an infinite rate": {"peak_lr": INF},
    "a negative rate": {"peak_lr": -0.1},
    "a rate of text": {"peak_lr": "0.1"},
    "a rate that is true": {"peak_lr": True},
    "a rate too large for a float": {"peak_lr": 10**400},
    "a complex rate": {"peak_lr": 1j},
    "a negative warm-up": {"warmup_epochs": -1},
    "momentum of one": {"momentum": 1},
    "momentum that is NaN": {"momentum": NAN},
    "a negative decay": {"weight_decay": -1e-4},
    "a decay in a list": {"weight_decay": [0.1]},
    "labels smoothed away": {"label_smoothing": 1.0},
    "an unknown schedule": {"schedule": "cosinus"},
    "a schedule that is none": {"schedule": None},
    "a schedule in a list": {"schedule": ["cosine"]},
    "an unknown augmentation": {"augment": "rotate"},
    "an unknown precision": {"precision": "float16"},
    "unknown pixels": {"pixels": "raw"},
    "nesterov as a number": {"nesterov": 1},
    "shuffled labels as text": {"shuffle_labels": "no"},
    "an empty data set": {"dataset": ""},
    "a data set that is a number": {"dataset": 5},
    "an empty model": {"model": ""},
    "a model that is none": {"model": None},
    "weights without a name": {"weights": ""},
    "weights as a number": {"weights": 1},
    "layers to redraw without a start": {"redraw": ("head",)},
    "an unknown layer to redraw": {"redraw": ("body",)},
    "layers to redraw in a nested list": {"redraw": [["head"]]},
    "layers to redraw as text": {"redraw": "head"},
    "layers to redraw that are a number": {"redraw": 3},
    "a start that is text": {"start": "digits-mlp"},
    "a start that is a list": {"start": []},
    "a start and a start seed": {"start": {}},
    "a start of another model": {"start": {"model": "mlp"}, "init_seed": None},
    "a start with an unknown field": {"start": {"epoch": 3}, "init_seed": None},
    "a start whose start is wrong": {"start": {"start": {"epochs": 0}, "init_seed": None}, "init_seed": None},
    "weights beside a start": {"start": {}, "init_seed": None, "weights": "DEFAULT"},
    "an unknown field": {"learning_rate": 0.1},
    "a field that is a number": {3: 0.1},
    "fields of several kinds": {3: 0.1, "lr": 1},
}


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_config(settings):
    check_refused(lambda: TrainConfig.from_dict(settings))


OTHER_FORMS = {
    "a config from a list": lambda: TrainConfig.from_dict(["epochs"]),
    "a config from nothing": lambda: TrainConfig.from_dict(None),
    "a config from text": lambda: TrainConfig.from_dict("epochs"),
    "an unknown recipe": lambda: TrainConfig.recipe("quick"),
    "a recipe in a list": lambda: TrainConfig.recipe(["fast"]),
    "a recipe with an unknown setting": lambda: TrainConfig.recipe("fast", lr=0.1),
    "a recipe with a wrong setting": lambda: TrainConfig.recipe("paper", epochs=0),
    "a start that is itself wrong": lambda: TrainConfig(start=TrainConfig(dataset="digits"), init_seed=None),
    "share 0": lambda: sweeps.shard([], 0, 2),
    "a share past the last": lambda: sweeps.shard([], 3, 2),
    "a share that is true": lambda: sweeps.shard([], True, 2),
    "a share of text": lambda: sweeps.shard([], "1", "2"),
    "a share of none": lambda: sweeps.shard([], 1, None),
    "a pool of an unknown start": lambda: sweeps.pool("middle", model="mlp"),
    "a pool whose trunk is all": lambda: sweeps.pool("shared start", model="mlp", epochs=2, trunk_epochs=2),
    "a sweep of an unknown name": lambda: chapters.all_runs({"n_member": 3}),
    "a sweep of a chapter that is none": lambda: chapters.all_runs(chapters=["membres"]),
    "parameters of a chapter that is none": lambda: chapters.defaults("membres"),
    "a sweep of a word for a list": lambda: chapters.all_runs({"models": "mlp"}),
}
SHARDS = ("", "1", "1/", "/2", "0/2", "3/2", "1/2/3", "a/b", "-1/2", "1.0/2", " 1/2", "1\u00b2/2", "1/0")
OTHER_FORMS |= {f"the shard {text!r}": lambda text=text: sweeps.read_shard(text) for text in SHARDS}


@pytest.mark.parametrize("call", OTHER_FORMS.values(), ids=OTHER_FORMS)
def test_other_forms(call):
    check_refused(call)


PARAMETERS = {
    "a misspelt name": ({"n_trian": 100}, "perhaps 'n_train'"),
    "a misspelt name of a chapter": ({"severites": [1]}, "perhaps 'severities'"),
    "a name like no other": ({"zzz": 1}, "one of alphas, "),
    "a name that is a number": ({1: 1}, "name 1"),
    "a name that is nothing": ({None: 1}, "name None"),
    "an empty name": ({"": 1}, "name ''"),
    "a count of text": ({"n_train": "100"}, "'100'"),
    "a count with a point": ({"n_members": 3.0}, "3.0"),
    "a count that is true": ({"n_members": True}, "True"),
    "a count of a list": ({"epochs": [4]}, "[4]"),
    "no epochs": ({"epochs": 0}, "got 0"),
    "a negative count": ({"n_train": -1}, "got -1"),
    "a count beyond all": ({"n_images": 10**400}, "whole number"),
    "a count that is nothing": ({"n_members": None}, "None"),
    "a list that is text": ({"models": "mlp"}, "wanted a list"),
    "a list that is text of a list": ({"widths": "[1, 2]"}, "wanted a list"),
    "a list that is nothing": ({"datasets": None}, "wanted a list"),
    "a list that is a mapping": ({"models": {"mlp": 1}}, "wanted a list"),
    "a list in a list": ({"models": [["mlp"]]}, "['mlp']"),
    "a number among names": ({"models": ["mlp", 3]}, "got 3"),
    "text among numbers": ({"widths": [1, "2"]}, "'2'"),
    "truth among numbers": ({"alphas": [0, True]}, "True"),
    "a point among counts": ({"sizes": [2, 3.5]}, "3.5"),
    "an infinite width": ({"widths": [INF]}, "inf"),
    "a width of zero": ({"widths": [0]}, "got 0"),
    "a width of a model that has none": ({"wide_models": ["linear"], "widths": [2]}, "linear-x2"),
    "a factor that is NaN": ({"factors": [1.0, NAN]}, "nan"),
    "a negative factor": ({"few_factors": [-1.0]}, "-1.0"),
    "a mixing weight beyond the ends": ({"alphas": [0, 1.5]}, "1.5"),
    "a mixing weight that is NaN": ({"line": [NAN]}, "nan"),
    "a severity of six": ({"severities": [6]}, "got 6"),
    "a severity of zero": ({"severities": [0]}, "got 0"),
    "a negative budget": ({"budgets": [-2]}, "-2"),
    "an empty model": ({"models": [""]}, "''"),
    "an unknown model": ({"models": ["resnet"]}, "'resnet'"),
    "an unknown model of a chapter": ({"attack_models": ["lenet"]}, "'lenet'"),
    "a model with a width that is none": ({"models": ["mlp-xx"]}, "'mlp-xx'"),
    "a model with half a width": ({"toy_model": "mlp-x"}, "'mlp-x'"),
    "an unknown data set": ({"dataset": "fashion_mnist"}, "'fashion_mnist'"),
    "an unknown data set among others": ({"datasets": ["digits", "cifar"]}, "'cifar'"),
    "photographs to train on": ({"datasets": ["photographs"]}, "'photographs'"),
    "a folder without a path": ({"datasets": ["folder:"]}, "'folder:'"),
    "an unknown corruption": ({"corruptions": ["fog"]}, "'fog'"),
    "a profile with a path": ({"profile": "../elsewhere"}, "'../elsewhere'"),
    "a profile of blanks": ({"profile": "  "}, "'  '"),
}


@pytest.mark.parametrize(("settings", "said"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters(settings, said):
    assert said in check_refused(lambda: chapters.check_parameters(settings))


@pytest.mark.parametrize("settings", [None, [], "n_train: 3", [("n_train", 3)]], ids=repr)
def test_parameters_that_are_no_mapping(settings):
    check_refused(lambda: chapters.check_parameters(settings))
