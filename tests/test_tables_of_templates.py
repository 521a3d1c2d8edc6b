"""Tables of templates against values computed in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import tiny
from test_data import make_cifar, make_tiny_imagenet

from wamlib import evaluate, probe, sweeps, tables
from wamlib.data import is_present, load
from wamlib.errors import ProbeError

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def groups(store):
    configs = sweeps.linear_members("digits", n_train=1000, n_members=6, epochs=10, weight_decays=(0.0, 0.1))
    return sweeps.run_groups(configs, store)


@pytest.fixture(scope="module")
def dataset(groups, store):
    return store.dataset(groups[0.0][0].config)


class Weights:
    """What the tables read of a run."""

    def __init__(self, weights, decay):
        self.state = {"head.weight": weights[:, :-1].float(), "head.bias": weights[:, -1].float()}
        self.config = tiny(model="linear", weight_decay=decay)


def test_the_optimum_of_another_solver_is_stationary_and_the_twin_is_not(dataset):
    from sklearn.linear_model import LogisticRegression

    images = dataset.train.normalize(dataset.train.images).flatten(1)
    images = torch.cat([images, torch.ones(len(images), 1)], 1).double().numpy()
    solver = LogisticRegression(C=1 / (len(images) * 0.1), fit_intercept=False, tol=1e-8, max_iter=2000)
    optimum = torch.from_numpy(solver.fit(images, dataset.train.labels.numpy()).coef_)
    moved = optimum + 0.1 * optimum.roll(1, 0)
    table = tables.stationarity({"optimum": [Weights(optimum, 0.1)], "moved": [Weights(moved, 0.1)]}, dataset)
    residual = table[table.combination == "member"].set_index("group").residual
    assert residual["optimum"] < 0.1  # percent
    assert residual["moved"] > 5
    assert table.confidence.between(10, 100).all()


def test_stationarity_leaves_out_what_has_no_stationary_point_and_adds_the_soup(groups, dataset):
    table = tables.stationarity(groups, dataset)
    assert set(table.group) == {0.1, sweeps.RELEASED}
    of_decay = table[table.group == 0.1]
    assert list(of_decay.combination) == ["member"] * 6 + ["uniform soup"]
    # Members of a thousand images and ten passes keep a part of their random weights; their mean has less of it.
    by = table.groupby(["group", "combination"])[["residual", "limit_correlation"]].mean()
    for group in (0.1, sweeps.RELEASED):
        assert by.residual[group, "uniform soup"] < by.residual[group, "member"]
        assert by.limit_correlation[group, "uniform soup"] > 0.95
    # Read with other pixels than those it was trained on, the released recipe is nowhere near a stationary point.
    weights = [torch.cat([r.state["head.weight"], r.state["head.bias"][:, None]], 1) for r in groups[sweeps.RELEASED]]
    wrong = tables.stationarity({"wrong": [Weights(w, 0.1) for w in weights]}, dataset)
    assert wrong.residual.min() > 2 * table[table.group == sweeps.RELEASED].residual.max()


def test_optima_reach_the_class_means_as_the_decay_grows(dataset):
    table = tables.optima(dataset, [0.1, 10.0, 1000.0])
    assert table.own.iloc[0] < 0.98
    assert (table.own.iloc[1:] > 0.995).all()  # not 1: the classes are not of one size
    assert table.accuracy.iloc[0] > table.accuracy.iloc[-1]


def test_too_few_classes_are_refused(tmp_path):
    from test_data import save_images

    for label in ("cat", "dog"):
        save_images(tmp_path / label, 20)
    pets = load(f"folder:{tmp_path}")
    run = Weights(torch.zeros(2, 3 * 64 + 1), 0.1)
    for ask in (lambda: tables.optima(pets, [0.1]), lambda: tables.class_pairs([run], pets)):
        with pytest.raises(ProbeError, match="2 classes"):
            ask()


def test_retrieval_is_compared_with_permuted_classes(groups, dataset):
    table = tables.template_matches(groups, dataset, n_permutations=199)
    true = table[table.group == 0.1]
    assert (true.p_retrieval <= 0.01).all()
    assert true.null_retrieval.between(5, 15).all()
    assert (table[table.group == sweeps.SHUFFLED].p_retrieval > 0.01).all()


def test_members_with_shuffled_labels_each_have_a_shuffle_of_their_own(groups, store):
    first, second = (store.dataset(run.config).train.labels for run in groups[sweeps.SHUFFLED][:2])
    assert (first == second).double().mean() < 0.3
    assert (first == store.dataset(groups[0.0][0].config).train.labels).double().mean() < 0.3


def test_a_pair_of_rows_scores_as_counted_by_hand(groups, dataset):
    run = groups[0.1][0]
    table = tables.class_pairs([run], dataset).set_index(["first", "second"])
    assert len(table) == 45
    x = np.asarray(dataset.test.normalize(dataset.test.images).flatten(1), dtype=np.float64)
    w, b = (np.asarray(run.state[f"head.{name}"], dtype=np.float64) for name in ("weight", "bias"))
    y = np.asarray(dataset.test.labels)
    i, j = 3, 8
    rest = [k for k in range(10) if k not in (i, j)]
    apart_from_both = ~np.isin(y, [i, j])
    wins = (x @ (w[i] + w[j]) + b[i] + b[j]) / 2 > (x @ w[rest].T + b[rest]).max(1)
    recalls = [100 * wins[y == k].mean() for k in (i, j)]
    row = table.loc[("3", "8")]
    assert row.lower_recall == pytest.approx(min(recalls))
    assert row.mean_recall == pytest.approx(np.mean(recalls))
    assert row.other_recall == pytest.approx(100 * wins[apart_from_both].mean())
    means = probe.class_means(dataset.train, 10).flatten(1).numpy()
    assert row.own == pytest.approx(np.corrcoef(w[i] + w[j], means[i] + means[j])[0, 1], abs=1e-5)
    separate = (x @ w.T + b).argmax(1)[(y == i) | (y == j)]
    assert row.separate_recall == pytest.approx(100 * np.isin(separate, [i, j]).mean())
    apart = [means[k] + means[m] for k in rest for m in rest if k < m]
    assert row.null == pytest.approx(np.mean([np.corrcoef(w[i] + w[j], one)[0, 1] for one in apart]), abs=1e-5)


def test_mixtures_of_classes_begin_with_one_and_end_with_the_other(groups, dataset):
    table = tables.class_mixtures(groups[0.1][0], dataset, [0.0, 0.5, 1.0], n_classes=4)
    assert len(table) == 6 * 3
    ends = table.groupby("alpha")[["recall_first", "recall_second"]].mean()
    assert ends.recall_first[0.0] > ends.recall_first[0.5] > ends.recall_first[1.0]
    assert ends.recall_second[1.0] > ends.recall_second[0.5] > ends.recall_second[0.0]
    middle = table[table.alpha == 0.5].set_index(["first", "second"])
    pairs = tables.class_pairs(groups[0.1][:1], dataset).set_index(["first", "second"])
    assert middle.loc[(0, 1)].mean() != 0
    both = (middle.recall_first[0, 1] + middle.recall_second[0, 1]) / 2
    assert both == pytest.approx(pairs.mean_recall["0", "1"])


@pytest.mark.parametrize("group", [0.1, sweeps.RELEASED])
def test_mixtures_of_members_have_the_members_at_their_ends(groups, dataset, group):
    a, b = groups[group][:2]
    table = tables.member_mixtures(a, b, dataset, [0.0, 0.5, 1.0])
    ends = [run.record["metrics"]["test"]["accuracy"] for run in (a, b)]
    assert [table.accuracy[0], table.accuracy[2]] == pytest.approx(ends)


def test_a_linear_soup_is_its_logit_ensemble_whatever_the_rows_look_like(groups, dataset):
    table = tables.linear_soups(groups, dataset, [1, 2, 3, 6, 9])
    assert set(table.n_members) == {1, 2, 3, 6}  # nine members there are not
    assert (table.difference < 1e-5).all()
    assert (table.accuracy == table.ensemble_accuracy).all()
    assert list(table.groupby("n_members").subset.nunique()) == [6, 3, 2, 1]
    # Members of the released recipe read other pixels than the rest: their accuracy is that of their record.
    for group, runs in groups.items():
        alone = table[(table.group == group) & (table.n_members == 1)].accuracy
        assert list(alone) == pytest.approx([run.record["metrics"]["test"]["accuracy"] for run in runs][: len(alone)])


def test_a_soup_of_anything_with_a_relu_is_not_its_ensemble(store):
    """The twin of the identity."""
    runs = [store.train(tiny(seed=seed, init_seed=seed)) for seed in (0, 1)]
    digits = store.dataset(runs[0].config)
    evaluator = tables.Evaluator("mlp", digits)
    from wamlib.merge import uniform_soup

    soup = evaluator.logits(uniform_soup([run.state for run in runs]))
    ensemble = torch.stack([run.logits["test"] for run in runs]).mean(0)
    assert (soup - ensemble).abs().max() > 0.1


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_a_permuted_pair_keeps_structure_and_function_and_loses_its_cosine(store, model):
    pair = [store.train(tiny(model=model, seed=seed, epochs=3)) for seed in (0, 1)]
    digits = store.dataset(pair[0].config)
    plain, permuted = tables.structure(pair, digits, n_images=200, n_gradients=50, permute=True).itertuples()
    assert (plain.permuted, permuted.permuted) == (False, True)
    for column in ("own", "null", "likeness", "retrieval", "linear_share", "member_accuracy"):
        assert getattr(permuted, column) == pytest.approx(getattr(plain, column), rel=1e-3, abs=1e-4), column
    assert permuted.agreement == 100
    assert abs(permuted.cosine) < plain.cosine - 0.2
    assert permuted.gain < plain.gain - 5
    assert len(tables.structure(pair, digits, n_images=50, n_gradients=20)) == 1


def test_structure_of_a_member_with_itself(store):
    run = store.train(tiny(model="mlp"))
    row = tables.structure([run, run], store.dataset(run.config), n_gradients=30).iloc[0]
    assert (row.likeness, row.cosine, row.gain) == pytest.approx((1, 1, 0), abs=1e-6)
    assert row.soup_own == pytest.approx(row.own, abs=1e-6)


def test_layers_are_numbered_in_their_order(store):
    pair = [store.train(tiny(model="mlp", seed=seed)) for seed in (0, 1)]
    table = tables.layer_similarity(pair)
    assert list(table.layer) == ["fc1.weight", "fc2.weight", "fc3.weight", "head.weight"]
    assert list(table.depth) == [1, 2, 3, 4]


def test_members_that_read_unit_pixels_are_evaluated_on_them(groups, dataset, store):
    run = groups[sweeps.RELEASED][0]
    unit = tables.evaluator.as_read_by(run, dataset)
    assert unit.test.normalize(unit.test.images).max() == 1
    evaluator = tables.Evaluator("linear", unit)
    assert 100 - evaluator.error(run.state) == pytest.approx(run.record["metrics"]["test"]["accuracy"])
    assert tables.evaluator.as_read_by(groups[0.0][0], dataset) is dataset
    # The twin: on normalised pixels the same weights give other logits.
    wrong = tables.Evaluator("linear", dataset).logits(run.state)
    assert evaluate.agreement(wrong, run.logits["test"]) < 100


@pytest.mark.parametrize("name", ["cifar100", "tiny-imagenet"])
def test_the_data_sets_of_the_paper_run_by_name(name, tmp_path, monkeypatch):
    """A handful of files in the official format, through the parameters of params/gpu.yml."""
    monkeypatch.setenv("WAMLIB_HOME", str(tmp_path))
    from wamlib.runs import RunStore

    settings = yaml.safe_load((tables_root() / "params" / "gpu.yml").read_text())
    assert name in settings["datasets"]
    assert not is_present(name)
    make = {"cifar100": lambda root: make_cifar(root, "cifar100", monkeypatch), "tiny-imagenet": make_tiny_imagenet}
    make[name](tmp_path / "raw")
    assert is_present(name)
    images = load(name)
    members = sweeps.linear_members(name, n_train=settings["n_train"], n_members=2, epochs=1, weight_decays=(0.0,))
    store = RunStore()
    runs = {group: [store.train(config) for config in configs] for group, configs in members.items()}
    table = tables.template_matches(runs, images, n_permutations=9)
    assert len(table) == 6
    assert table[["own", "raw", "null", "retrieval"]].notna().all().all()
    assert {config.dataset for config in sweeps.book(**settings)} >= {name}
    assert isinstance(tables.linear_soups(runs, images, [2]), pd.DataFrame)


def tables_root():
    from pathlib import Path

    return Path(__file__).parents[1]
