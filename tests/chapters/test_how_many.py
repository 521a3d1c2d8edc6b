"""Chapter 31: what a pool costs buys one member, and what the numbers are means of."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, random_dataset, untrained

from wamlib import evaluate, models, sweeps
from wamlib.chapters import how_many as chapter
from wamlib.chapters.sweep import given
from wamlib.pools import Pool

STARTS = ("shared start", "independent init")


@pytest.mark.parametrize(("n", "epochs", "trunk"), [(3, 4, 2), (5, 4, 1), (2, 9, 3)])
def test_a_single_member_takes_as_many_passes_as_a_pool(n, epochs, trunk):
    settings = {"n_members": n, "epochs": epochs, "trunk_epochs": trunk}
    single = chapter.equal_cost_members(["mlp"], n_replicas=2, **settings)
    assert {kind for _, kind, _ in single} == {"longer, as shared start", "longer, as independent init", "wider"}
    for start in STARTS:
        pool = sweeps.pool(start, model="mlp", **settings)
        passes = sum(config.epochs for config in {*pool, *(c.start for c in pool if c.start)})
        for replica in (0, 1):
            (member,) = single["mlp", f"longer, as {start}", replica]
            assert (member.epochs, member.start, member.model) == (passes, None, "mlp")
    (wider,) = single["mlp", "wider", 0]
    assert (wider.epochs, wider.model) == (epochs, f"mlp-x{n**0.5:.2f}")
    assert len({config.seed for members in single.values() for config in members}) == 2  # one of each replica


def test_a_wider_member_has_about_as_many_weights_as_a_pool():
    for name in ("mlp", "cnn", "resnet8"):
        sizes = [sum(p.numel() for p in models.build(m, 10, 1, (8, 8)).parameters()) for m in (name, f"{name}-x2.00")]
        assert chapter.wider(name, 2) == f"{name}-x2.00"
        assert 2.5 < sizes[1] / sizes[0] < 4.2  # the first layer reads no more pixels, so a little less
    assert chapter.wider("mlp-x2", 1.5) == "mlp-x3.00"
    assert chapter.wider("resnet18_cifar", 2) is None  # comes in one width
    single = chapter.equal_cost_members(["resnet18_cifar"], n_members=4, epochs=2, trunk_epochs=1, n_replicas=1)
    assert [kind for _, kind, _ in single] == ["longer, as shared start", "longer, as independent init"]


def test_a_pool_holds_the_members_that_other_chapters_take():
    p = given("how_many", {"dataset": "digits", "datasets": ["digits"], "many_models": ["mlp"], "n_many": 4})
    groups = chapter.runs(p)
    assert all(len(key) == len(chapter.NAMES) for key in groups)
    settings = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_eval": p.n_eval_pools}
    smaller = sweeps.pools_by_dataset({"digits": p.n_train_pools}, ["mlp"], n_members=2, **settings)
    assert all(groups[key][:2] == configs for key, configs in smaller.items())


def test_luck_is_the_calibration_error_of_labels_from_the_probabilities_themselves():
    dataset, found = random_dataset(n_test=90), {}
    for scale in (0.5, 1e6):
        pool = Pool(untrained("mlp", dataset, 1), dataset)
        logits = scale * pool.runs[0].logits["test"]
        pool.runs[0].logits["test"] = logits
        found[scale] = chapter.luck(pool).luck.item()
        again, draw = [], torch.Generator().manual_seed(0)
        for _ in range(20):
            labels = torch.multinomial(logits.softmax(1), 1, generator=draw).squeeze(1)
            again.append(evaluate.calibration_error(logits, labels))
        assert found[scale] == pytest.approx(np.mean(again))
    assert found[1e6] < 1 < found[0.5]  # who is sure and right has no luck to have


@pytest.fixture
def table():
    rows = [
        (start, replica, n, subset, kind)
        for start in STARTS
        for replica in (0, 1)
        for n in (2, 4)
        for subset in (0, 1)
        for kind in ("member", *chapter.DRAWN[1:4])
    ]
    table = pd.DataFrame(rows, columns=["start", "replica", "n_members", "subset", "combination"])
    table = table.assign(dataset="digits", model="mlp", disagreement=np.nan)
    table.loc[table.combination == "member", "disagreement"] = 12.0
    return table.assign(accuracy=np.random.default_rng(0).uniform(60, 90, len(table)))


def test_a_pool_counts_with_the_mean_over_its_subsets(table):
    averaged = chapter.averaged(table)
    wide, gap = chapter.accuracies(averaged), chapter.gaps(chapter.accuracies(averaged))
    cell = table[(table.start == STARTS[0]) & (table.replica == 1) & (table.n_members == 4)]
    means = cell.groupby("combination").accuracy.mean()
    pd.testing.assert_series_equal(wide.loc["mlp", STARTS[0], 1, 4][means.index], means, check_names=False)
    assert gap.loc["mlp", STARTS[0], 1][4] == pytest.approx(means["logit ensemble"] - means["uniform soup"])
    apart = chapter.disagreement(averaged).loc["mlp", STARTS[0], 1, 4]
    assert apart.disagreement == 12
    assert apart["soup − member"] == pytest.approx(means["uniform soup"] - means["member"])


def test_equal_cost_numbers_and_claims_are_those_of_the_table(table):
    keys = [(kind, replica) for kind in chapter.SINGLE for replica in (0, 1)]
    single = pd.DataFrame(keys, columns=["start", "replica"]).assign(dataset="digits", model="mlp", accuracy=95.0)
    wide = chapter.accuracies(chapter.averaged(table))
    equal = chapter.equal_cost(wide, single, 2)
    shown = equal.pivot_table("accuracy", "start", "what")
    assert (shown["one member, longer"] == 95).all()
    assert shown["one member, wider"].isna().to_dict() == {STARTS[0]: True, STARTS[1]: False}
    at = wide.xs(2, level="n_members")
    assert shown["uniform soup"][STARTS[1]] == pytest.approx(at["uniform soup"].xs(STARTS[1], level="start").mean())
    costs = pd.DataFrame({"model": ["mlp", "mlp-x1.41"], "mflops": [2.0, 5.0]})
    tables = {"how_many": table, "equal_cost": equal, "costs": costs, "luck": pd.DataFrame({"luck": [2.0]})}
    p = given("how_many", {"dataset": "digits", "sizes": [2, 4], "many_models": ["mlp"], "n_pool_members": 2})
    found = chapter.numbers(SimpleNamespace(p=p), tables)
    assert found["longer"] == pytest.approx(95 - at["logit ensemble"].mean())
    assert (found["wide_low"], found["wide_times"], found["n_middle"]) == (2.5, "2.5 to 2.5", 4)
    gap = chapter.gaps(wide)
    change = (gap[4] - gap[2]).xs(STARTS[0], level="start")
    assert found["gap_more"] == pytest.approx(change.mean())
    judged = chapter.claims(SimpleNamespace(p=p), tables)
    assert [row["claim"] for row in judged] == ["C9", "C9"]
    assert judged[0]["mean"] == pytest.approx(change.mean())
    p.many_models = ["resnet18_cifar"]  # of which there is no wider one
    tables["costs"] = costs.assign(model=["resnet18_cifar", "other"])
    assert chapter.numbers(SimpleNamespace(p=p), tables)["wide_times"] == "not measured"


def test_lines_are_means_over_replicas_and_a_narrow_range_has_ticks_to_read_it_by(table, tmp_path):
    averaged = chapter.averaged(table.assign(accuracy=80 + table.accuracy / 100))
    fig = chapter.error_vs_members(averaged, ["member", "logit ensemble"])
    check_drawing(fig, tmp_path)
    rows = averaged[(averaged.start == STARTS[0]) & (averaged.combination == "member")]
    means = 100 - rows.groupby("n_members").accuracy.mean()
    np.testing.assert_allclose(np.asarray(fig.axes[0].lines[0].get_ydata(), dtype=float), means)
    assert all(len(ax.get_yticks()) >= 3 for ax in fig.axes)
