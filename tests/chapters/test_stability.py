"""Chapter 41: stability against values that are computed network by network."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, untrained, untrained_chapter

from wamlib import data, evaluate, merge, models, probe
from wamlib.chapters import stability as chapter
from wamlib.errors import ProbeError
from wamlib.pools import Pool
from wamlib.stats import mean_interval

DATASET = random_dataset(n_test=60)


def pool_of(name, n=2, **settings):
    return Pool(untrained(name, DATASET, n, **settings), DATASET)


def stability(pool, factors, n_images=40, n_jacobians=5, **settings):
    return chapter.stability(pool, factors=factors, n_images=n_images, n_jacobians=n_jacobians, **settings)


def module(name, state):
    built = models.build(name, 3, 1, (8, 8))
    built.load_state_dict(state)
    return built.eval()


def soup(pool):
    built = module(pool.model, pool.soup())
    merge.recalibrate_batchnorm(built, pool.training_batches())
    return built.eval()


def spoilt(split, *settings):
    return replace(split, images=data.corrupt(split.images, *settings))


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_flips_are_those_of_each_network_and_of_pooled_logits(name):
    pool = pool_of(name, 3, spread=0.3)
    corruptions = ["gaussian noise", "contrast"]
    table = chapter.corruption_flips(pool, corruptions=corruptions, severities=[2, 5], n_images=50)
    assert len(table) == 2 * 2 * 3
    split = DATASET.test.take(slice(0, 50))
    built = [module(name, state) for state in pool.states]
    for corruption, severity in (("gaussian noise", 5), ("contrast", 2)):
        noisy = spoilt(split, corruption, severity)
        rows = table[(table.corruption == corruption) & (table.severity == severity)].set_index("combination")
        pairs = [(eval_logits(one, split), eval_logits(one, noisy)) for one in built]
        pooled = tuple(sum(pair[i].double() for pair in pairs) / 3 for i in (0, 1))
        found = {"member": pairs, "logit ensemble": [pooled]}
        found["uniform soup"] = [tuple(eval_logits(soup(pool), one) for one in (split, noisy))]
        for combination, several in found.items():
            flips = [100 * (a.argmax(1) != b.argmax(1)).double().mean().item() for a, b in several]
            right = [100 * (b.argmax(1) == split.labels).double().mean().item() for _, b in several]
            clean = [100 * (a.argmax(1) == split.labels).double().mean().item() for a, _ in several]
            row = rows.loc[combination]
            # An image whose two best logits are alike may fall to either side.
            assert row.flip_rate == pytest.approx(np.mean(flips), abs=2)
            assert row.accuracy == pytest.approx(np.mean(right), abs=2)
            assert row.clean_accuracy == pytest.approx(np.mean(clean), abs=2)


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_accuracy_under_attack_is_that_of_the_attacked_images(name):
    pool = pool_of(name, spread=0.3)
    table = chapter.attack_accuracy(pool, budgets=[0, 10], n_images=40, n_steps=3)
    table = table.set_index(["kind", "combination", "budget"]).accuracy
    split, held_out = DATASET.test.take(slice(0, 40)), DATASET.selection
    network = soup(pool)
    temperature = evaluate.fit_temperature(eval_logits(network, held_out), held_out.labels)
    for kind in ("fgsm", "pgd"):
        moved = probe.attack(network, split, budget=10, kind=kind, temperature=temperature, n_steps=3)
        expected = evaluate.accuracy(eval_logits(network, replace(split, images=moved)), split.labels)
        assert table[kind, "uniform soup", 10] == pytest.approx(expected, abs=2.6)
        clean = evaluate.accuracy(eval_logits(network, split), split.labels)
        assert table[kind, "uniform soup", 0] == pytest.approx(clean, abs=2.6)
        for combination in ("member", "logit ensemble"):
            assert table[kind, combination, 10] < table[kind, combination, 0]


@pytest.mark.parametrize("name", ["cnn", "resnet8"])
def test_stability_of_every_network_is_what_the_probes_say(name):
    pool = pool_of(name, spread=0.3)
    table = stability(pool, {"learnable": [1.0, 2.0]}, n_draws=3, severity=4)
    assert set(table[table.c == 1].network) == {"member 0", "member 1", "uniform soup", "logit ensemble"}
    assert set(table[table.c == 2].network) == {"member 0", "uniform soup"}
    assert dict(zip(table.network, table.combination, strict=True))["member 1"] == "member"
    split, held_out = DATASET.test.take(slice(0, 40)), DATASET.selection
    states = {"member 0": pool.states[0], "uniform soup": soup(pool).state_dict()}
    for (c, network), row in table[table.network.isin(states)].set_index(["c", "network"]).iterrows():
        built = module(name, probe.scale(states[network], c))
        noisy = torch.stack([eval_logits(built, spoilt(split, "gaussian noise", 4, seed)) for seed in range(3)])
        temperature = evaluate.fit_temperature(eval_logits(built, held_out), held_out.labels)
        steep = probe.local_lipschitz(built, split.normalize(split.images[:5]), n_iterations=5).mean().item()
        assert row.temperature == pytest.approx(temperature, rel=1e-2)
        assert row.plain_lipschitz == pytest.approx(steep, rel=1e-3)
        assert row.lipschitz == pytest.approx(steep / temperature, rel=1e-2)
        assert row.plain_spread == pytest.approx(probe.logit_spread(noisy), rel=1e-3)
        assert row.spread == pytest.approx(probe.logit_spread(noisy) / temperature, rel=1e-2)
        assert row.flip_rate == pytest.approx(probe.flip_rate(eval_logits(built, split), noisy), abs=1)
        assert row.accuracy == pytest.approx(evaluate.accuracy(eval_logits(built, split), split.labels), abs=2.6)
        assert row.finite == 100


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_coherent_scale_changes_no_matched_number_and_incoherent_scale_does(name):
    table = stability(pool_of(name, spread=0.3), {"batchnorm": [1.0, 4.0], "learnable": [0.25]}, n_jacobians=24)
    member = table[table.network == "member 0"].set_index("c")
    for column in ("accuracy", "flip_rate", "lipschitz", "spread"):
        assert member[column][4.0] == pytest.approx(member[column][1.0], rel=1e-2)
    assert member.plain_lipschitz[4.0] > 3 * member.plain_lipschitz[1.0]
    assert abs(np.log(member.lipschitz[0.25] / member.lipschitz[1.0])) > 0.05


def test_scopes_that_are_not_defined_are_left_out_and_unknown_ones_refused():
    pool = pool_of("vit")
    assert set(stability(pool, {"learnable": [1.0], "batchnorm": [2.0]}, 20, 2).scope) == {"learnable"}
    with pytest.raises(ProbeError, match="scope: got 'weigths'"):
        stability(pool, {"weigths": [1.0]})


def test_what_overflows_is_named_and_not_dropped():
    row = stability(pool_of("mlp"), {"learnable": [1e12]}, 20, 2).iloc[0]
    assert row.finite == 0
    assert row.accuracy == 0
    assert row.flip_rate == 100
    assert row[["temperature", "lipschitz", "spread", "plain_lipschitz", "plain_spread"]].isna().all()


# What follows from the tables


@pytest.mark.parametrize(("names", "chosen"), [(["mlp", "resnet8"], ["resnet8", "vit"]), (["vit"], ["mlp"])])
def test_every_list_of_architectures_has_its_claims_and_its_sentences(names, chosen, tmp_path):
    settings = {"pool_models": names, "attack_models": chosen, "n_pool_members": 2, "noise_factors": [1.0, 1.5]}
    settings |= {"corruptions": ["contrast"], "severities": [1], "n_noisy": 20, "n_jacobians": 2}
    here = untrained_chapter("stability", DATASET, tmp_path, **settings, n_attacked=10, budgets=[8])
    tables = chapter.tables(here)
    assert list(tables["attacks"].model.unique()) == ([name for name in chosen if name in names] or names)
    found = chapter.claims(here, tables)
    assert {row["protocol"] for row in found} == ({"released"} if names == ["vit"] else {"released", "corrected"})
    said = chapter.numbers(here, tables)
    assert "nan" not in " ".join(text for text in said.values() if isinstance(text, str))
    assert said["plain_mlp_text"] == "(not measured)" or "mlp" in names
    assert all(text.count("[") == 1 for text in chapter.difference_table(tables).to_numpy().ravel())


def test_a_network_that_lost_half_of_its_accuracy_in_one_pool_does_not_work():
    rows = itertools.product([0, 1], ["member 0", "uniform soup"], [1.0, 4.0])
    table = pd.DataFrame(rows, columns=["replica", "network", "c"]).assign(scope="everything", model="mlp")
    table = table.assign(accuracy=80.0, flip_rate=10.0 + table.c, lipschitz=table.c, plain_lipschitz=1.0, spread=2.0)
    found = chapter.against_one(table)
    assert found.works.all()
    assert list(found[found.c == 4].change.unique()) == [3]
    assert list(found[found.c == 4].lipschitz_ratio.unique()) == [4]
    table.loc[(table.replica == 1) & (table.network == "member 0") & (table.c == 4), "accuracy"] = 39.0
    found = chapter.against_one(table)
    assert found.works.tolist() == (found.c == 1).tolist()


# Figures


def grid(value, **columns):
    table = pd.DataFrame(itertools.product(*columns.values()), columns=list(columns))
    return table.assign(**{value: np.random.default_rng(0).uniform(10, 90, len(table))})


POOLS = {"model": ["mlp", "vit"], "replica": [0, 1, 2], "combination": list(chapter.COMBINATIONS)}
FLIPS = grid("flip_rate", corruption=["contrast", "gaussian noise"], severity=[1, 3], **POOLS)
ATTACKS = grid("accuracy", kind=["fgsm", "pgd"], budget=[0, 4], **POOLS)
SHAKEN = grid(
    "flip_rate",
    scope=["batchnorm", "learnable"],
    c=[0.5, 1.0, 4.0],
    model=["mlp", "vit"],
    replica=[0, 1, 2],
    network=[0, 1],
)
SHAKEN = SHAKEN.assign(ratio=lambda rows: rows.flip_rate * rows.c**6)
SHAKEN = SHAKEN[(SHAKEN.model != "vit") | (SHAKEN.scope != "batchnorm")]
COLUMNS = {"flip_rate": "Changed (%)", "ratio": "Lipschitz (c = 1 is 1)"}


def points(container):
    """Return the values of an `errorbar`."""
    return tuple(np.asarray(values, dtype=float) for values in container.lines[0].get_data())


def test_flips_are_means_over_architectures_and_intervals_over_replicas(tmp_path):
    fig = chapter.flips_by_severity(FLIPS)
    check_drawing(fig, tmp_path)
    assert [ax.get_title() for ax in fig.axes] == ["Contrast", "Gaussian noise"]
    assert "(%)" in fig.axes[0].get_ylabel()
    for ax, (_, part) in zip(fig.axes, FLIPS.groupby("corruption"), strict=True):
        for container, name in zip(ax.containers, chapter.COMBINATIONS, strict=True):
            pools = part[part.combination == name].groupby(["severity", "replica"]).flip_rate.mean()
            expected = [mean_interval(values) for _, values in pools.groupby("severity")]
            x, y = points(container)
            np.testing.assert_allclose(x, [1, 3], atol=0.1)
            np.testing.assert_allclose(y, [one.mean for one in expected])
            spans = [np.ptp(bar[:, 1]) for bar in container.lines[2][0].get_segments()]
            np.testing.assert_allclose(spans, [one.high - one.low for one in expected])


def test_attacks_have_a_row_for_each_kind_and_a_column_for_each_architecture(tmp_path):
    fig = chapter.attack_curves(ATTACKS)
    check_drawing(fig, tmp_path)
    assert [ax.get_title() for ax in fig.axes] == ["MLP", "ViT", "", ""]
    assert [ax.get_ylabel()[:4].strip() for ax in fig.axes] == ["FGSM", "", "PGD", ""]
    part = ATTACKS.query("kind == 'pgd' and model == 'vit' and combination == 'uniform soup'")
    np.testing.assert_allclose(points(fig.axes[3].containers[1])[1], part.groupby("budget").accuracy.mean())


def test_stability_has_gaps_where_nothing_was_measured_and_ratios_on_a_logarithmic_axis(tmp_path):
    table = SHAKEN.assign(ratio=SHAKEN.ratio.where(SHAKEN.c > 0.5))
    fig = chapter.stability_vs_scale(table, COLUMNS)
    check_drawing(fig, tmp_path)
    axes = fig.axes
    assert [ax.get_title(loc="left") for ax in axes] == ["coherent", "", "weights and biases", ""]
    assert [ax.get_yscale() for ax in axes] == ["linear", "log"] * 2
    assert [len(ax.containers) for ax in axes] == [1, 1, 2, 2]  # the ViT has no coherent scale
    part = table[(table.scope == "learnable") & (table.model == "vit")]
    x, y = points(axes[3].containers[1])
    assert x.tolist() == [1, 4]
    of_replicas = np.log(part.groupby(["c", "replica"]).ratio.mean())
    np.testing.assert_allclose(y, np.exp(of_replicas.groupby("c").mean().loc[[1, 4]]))
    assert axes[2].get_ylim()[0] == 0


def test_narrow_ratios_have_plain_numbers_at_their_ticks():
    table = SHAKEN.assign(ratio=np.linspace(0.3, 12, len(SHAKEN)))
    ax = chapter.stability_vs_scale(table, COLUMNS).axes[1]
    assert {"1", "2", "5", "10"} <= {label.get_text() for label in ax.get_yticklabels()}
