"""Tables of stability against values that are computed network by network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import eval_logits, random_dataset, untrained

from wamlib import data, evaluate, merge, models, probe, tables
from wamlib.errors import ProbeError
from wamlib.predictions import Predictions


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_test=60)


def module(name, state):
    built = models.build(name, 3, 1, (8, 8))
    built.load_state_dict(state)
    return built.eval()


def soup(pool, dataset):
    built = module(pool[0].config.model, merge.uniform_soup([run.state for run in pool]))
    evaluator = tables.Evaluator(pool[0].config.model, dataset)
    merge.recalibrate_batchnorm(built, evaluator.training_batches())
    return built.eval()


def spoilt(split, *settings):
    return replace(split, images=data.corrupt(split.images, *settings))


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_flips_are_those_of_each_network_and_of_pooled_logits(name, dataset):
    pool = untrained(name, dataset, 3, spread=0.3)
    table = tables.corruption_flips(pool, dataset, ["gaussian noise", "contrast"], [2, 5], n_images=50)
    assert len(table) == 2 * 2 * 3
    split = dataset.test.take(slice(0, 50))
    built = [module(name, run.state) for run in pool]
    for corruption, severity in (("gaussian noise", 5), ("contrast", 2)):
        noisy = spoilt(split, corruption, severity)
        rows = table[(table.corruption == corruption) & (table.severity == severity)].set_index("combination")
        pairs = [(eval_logits(one, split), eval_logits(one, noisy)) for one in built]
        pooled = tuple(sum(pair[i].double() for pair in pairs) / 3 for i in (0, 1))
        found = {"member": pairs, "logit ensemble": [pooled]}
        found["uniform soup"] = [tuple(eval_logits(soup(pool, dataset), one) for one in (split, noisy))]
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
def test_accuracy_under_attack_is_that_of_the_attacked_images(name, dataset):
    pool = untrained(name, dataset, 2, spread=0.3)
    table = tables.attack_accuracy(pool, dataset, [0, 10], n_images=40, n_steps=3)
    table = table.set_index(["kind", "combination", "budget"]).accuracy
    split, held_out = dataset.test.take(slice(0, 40)), dataset.selection
    network = soup(pool, dataset)
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
def test_stability_of_every_network_is_what_the_probes_say(name, dataset):
    pool = untrained(name, dataset, 2, spread=0.3)
    factors = {"learnable": [1.0, 2.0]}
    table = tables.stability(pool, dataset, factors, n_images=40, n_draws=3, severity=4, n_jacobians=5)
    assert set(table[table.c == 1].network) == {"member 0", "member 1", "uniform soup", "logit ensemble"}
    assert set(table[table.c == 2].network) == {"member 0", "uniform soup"}
    assert dict(zip(table.network, table.combination, strict=True))["member 1"] == "member"
    split, held_out = dataset.test.take(slice(0, 40)), dataset.selection
    states = {"member 0": pool[0].state, "uniform soup": soup(pool, dataset).state_dict()}
    for (c, network), row in table.set_index(["c", "network"]).iterrows():
        if network not in states:
            continue
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
def test_coherent_scale_changes_no_matched_number_and_incoherent_scale_does(name, dataset):
    pool = untrained(name, dataset, 2, spread=0.3)
    table = tables.stability(pool, dataset, {"batchnorm": [1.0, 4.0], "learnable": [0.25]}, n_images=40)
    member = table[table.network == "member 0"].set_index("c")
    for column in ("accuracy", "flip_rate", "lipschitz", "spread"):
        assert member[column][4.0] == pytest.approx(member[column][1.0], rel=1e-2)
    assert member.plain_lipschitz[4.0] > 3 * member.plain_lipschitz[1.0]
    assert abs(np.log(member.lipschitz[0.25] / member.lipschitz[1.0])) > 0.05


def test_scopes_that_are_not_defined_are_left_out_and_unknown_ones_refused(dataset):
    pool = untrained("vit", dataset, 2)
    table = tables.stability(pool, dataset, {"learnable": [1.0], "batchnorm": [2.0]}, n_images=20, n_jacobians=2)
    assert set(table.scope) == {"learnable"}
    with pytest.raises(ProbeError, match="scope: got 'weigths'"):
        tables.stability(pool, dataset, {"weigths": [1.0]})


def test_what_overflows_is_named_and_not_dropped(dataset):
    pool = untrained("mlp", dataset, 2)
    row = tables.stability(pool, dataset, {"learnable": [1e12]}, n_images=20, n_jacobians=2).iloc[0]
    assert row.finite == 0
    assert row.accuracy == 0
    assert row.flip_rate == 100
    assert row[["temperature", "lipschitz", "spread", "plain_lipschitz", "plain_spread"]].isna().all()


def test_kept_tables_are_those_of_a_new_computation(dataset, tmp_path):
    pool, store = untrained("mlp", dataset, 2), Predictions(tmp_path)
    for table in (
        lambda **more: tables.corruption_flips(pool, dataset, ["contrast"], [1], 20, **more),
        lambda **more: tables.attack_accuracy(pool, dataset, [4], n_images=20, **more),
        lambda **more: tables.stability(pool, dataset, {"learnable": [1.0, 2.0]}, n_images=20, **more),
    ):
        expected = table()
        for _ in range(2):
            pd.testing.assert_frame_equal(table(predictions=store), expected)
