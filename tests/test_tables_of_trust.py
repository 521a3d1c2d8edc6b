"""Tables of trust against the same numbers, computed from logits one by one."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import eval_logits, random_dataset, random_split, untrained

from wamlib import evaluate, merge, models, probe, tables
from wamlib.errors import ProbeError
from wamlib.predictions import Predictions

FOREIGN = {"cats": random_split(30, seed=7), "dogs": random_split(25, seed=8)}


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_train=120, n_test=100)


@pytest.fixture(scope="module", params=["mlp", "resnet8"])
def pool(request, dataset):
    return untrained(request.param, dataset, spread=0.3)


def soup_of(pool, dataset, chosen=None):
    """A module with the weights of the soup, recalibrated."""
    module = models.build(pool[0].config.model, 3, 1, (8, 8))
    module.load_state_dict(merge.uniform_soup([pool[i].state for i in chosen or range(len(pool))]))
    if any(key.endswith("running_mean") for key in module.state_dict()):
        merge.recalibrate_batchnorm(module, [dataset.train.normalize(dataset.train.images)])
    return module.eval()


def member(run):
    module = models.build(run.config.model, 3, 1, (8, 8))
    module.load_state_dict(run.state)
    return module.eval()


def cells(table, combination, temperature="raw"):
    rows = table[(table.combination == combination) & (table.temperature == temperature)]
    return rows.set_index(["measure", "at", "images", "score"]).value


def check(row, test, selection, foreign, dataset, temperature, scores=probe.SCORES):
    if temperature == "refitted":
        t = evaluate.fit_temperature(selection, dataset.selection.labels)
        test, foreign = test / t, [logits / t for logits in foreign]
    labels = dataset.test.labels
    curve = probe.risk_coverage(test, labels)
    expected = {("nll", 0, "", ""): evaluate.nll(test, labels),
                ("accuracy", 0, "", ""): evaluate.accuracy(test, labels),
                ("calibration error", 0, "", ""): evaluate.calibration_error(test, labels),
                ("error area", 0, "", ""): curve.area, ("excess error area", 0, "", ""): curve.excess_area,
                ("selective error", 35, "", ""): curve.error[34].item(),
                ("selective error", 100, "", ""): 100 - evaluate.accuracy(test, labels)}  # fmt: skip
    for title, logits in zip(FOREIGN, foreign, strict=True):
        for score in scores:
            found = probe.detection(*(probe.detection_scores(part, score) for part in (test, logits)))
            expected["AUROC", 0, title, score] = found.auroc
            expected["false positives", 0, title, score] = found.false_positives
    for key, value in expected.items():
        # A rank may change places with the next where convolutions round otherwise for other batches.
        assert row[key] == pytest.approx(value, abs=1.5 if key[0] in ("AUROC", "false positives") else 0.05), key
    return expected


@pytest.mark.parametrize("temperature", ["raw", "refitted"])
def test_soup_and_ensembles_are_measured_like_single_networks(pool, dataset, temperature):
    table = tables.trust(pool, dataset, FOREIGN)
    soup = soup_of(pool, dataset)
    splits = [dataset.test, dataset.selection, *FOREIGN.values()]
    one = [eval_logits(soup, split) for split in splits]
    check(cells(table, "uniform soup", temperature), one[0], one[1], one[2:], dataset, temperature)
    each = [torch.stack([eval_logits(member(run), split).double() for run in pool]) for split in splits]
    mean = [part.mean(0) for part in each]
    check(cells(table, "logit ensemble", temperature), mean[0], mean[1], mean[2:], dataset, temperature)
    logs = [part.softmax(2).mean(0).log() for part in each]
    row = cells(table, "probability ensemble", temperature)
    check(row, logs[0], logs[1], logs[2:], dataset, temperature, ["maximum probability"])
    assert set(row.xs("AUROC").index.get_level_values("score")) == {"maximum probability"}


@pytest.mark.parametrize("temperature", ["raw", "refitted"])
def test_a_member_row_is_the_mean_over_members_each_at_its_own_temperature(pool, dataset, temperature):
    row = cells(tables.trust(pool, dataset, FOREIGN, []), "member", temperature)
    alone = [cells(tables.trust([run], dataset, FOREIGN, []), "member", temperature) for run in pool]
    names = {"confidence", "bin accuracy", "share"}
    for key in row.index[~row.index.get_level_values("measure").isin(names)]:
        assert row[key] == pytest.approx(np.mean([one[key] for one in alone]))
    splits = [dataset.test, dataset.selection, *FOREIGN.values()]
    logits = [eval_logits(member(pool[0]), split) for split in splits]
    check(alone[0], logits[0], logits[1], logits[2:], dataset, temperature)


def test_bins_give_the_calibration_error_back(pool, dataset):
    table = tables.trust(pool, dataset, {})
    for name in ("uniform soup", "logit ensemble"):
        for temperature in ("raw", "refitted"):
            row = cells(table, name, temperature)
            bins = row[["confidence", "bin accuracy", "share"]].unstack("measure")
            gap = (bins.share / 100 * (bins["bin accuracy"] - bins.confidence).abs()).sum()
            assert gap == pytest.approx(row["calibration error", 0, "", ""])
    assert table.value.notna().all()  # bins without an image are left out
    members = cells(table, "member")
    assert members["share"].sum() == pytest.approx(100)
    assert not set(table.measure) & {"AUROC", "false positives"}


def test_a_refitted_temperature_does_what_it_is_fitted_for(pool, dataset):
    """The labels are random: the right confidence is that of guessing, and a network is far too sure."""
    table = tables.trust(pool, dataset, {}, ["uniform soup"])
    raw, refitted = (cells(table, "uniform soup", label)["nll", 0, "", ""] for label in ("raw", "refitted"))
    assert refitted < raw
    assert refitted == pytest.approx(np.log(3), abs=0.1)


def test_luck_is_what_a_calibrated_network_would_show(pool, dataset):
    row = cells(tables.trust(pool, dataset, {}, []), "member", "refitted")
    assert 1 < row["calibration error by luck", 0, "", ""] < 15
    many = random_dataset(n_train=120, n_test=2000)
    runs = untrained(pool[0].config.model, many, n=1)
    fewer = cells(tables.trust(runs, many, {}, []), "member", "refitted")
    assert fewer["calibration error by luck", 0, "", ""] < row["calibration error by luck", 0, "", ""]


@pytest.mark.parametrize(("trials", "n_accepted"), [([-1, -1], 1), ([101, -1], 2), ([101, 102], 3)])
def test_greedy_soups_are_a_member_a_part_of_the_pool_or_all_of_it(trials, n_accepted, dataset, monkeypatch):
    pool, asked = untrained("resnet8", dataset, spread=0.3), []

    def scored(self, state, *, recalibrate=False):
        assert recalibrate
        asked.append(state)
        return trials[len(asked) - 1]

    monkeypatch.setattr(tables.evaluator.Evaluator, "selection_accuracy", scored)
    ranked = sorted(range(3), key=lambda i: -evaluate.accuracy(pool[i].logits["selection"], dataset.selection.labels))
    one = member(pool[ranked[0]]) if n_accepted == 1 else soup_of(pool, dataset, ranked[:n_accepted])
    expected = evaluate.nll(eval_logits(one, dataset.test), dataset.test.labels)
    for kinds in (["greedy soup"], ["uniform soup", "greedy soup"]):
        asked.clear()
        found = cells(tables.trust(pool, dataset, {}, kinds), "greedy soup")
        assert found["nll", 0, "", ""] == pytest.approx(expected, abs=1e-3)
        assert len(asked) == 2  # members are judged by the logits that are there


def test_an_unknown_combination_is_refused(pool, dataset):
    with pytest.raises(ProbeError, match="kinds: got 'stew', wanted some of uniform soup"):
        tables.trust(pool, dataset, {}, ["uniform soup", "stew"])


def test_a_kept_table_is_the_table_and_other_foreign_images_make_another(pool, dataset, tmp_path):
    kept = Predictions(tmp_path)
    first = tables.trust(pool, dataset, {"cats": FOREIGN["cats"]}, ["logit ensemble"], predictions=kept)
    again = tables.trust(pool, dataset, {"cats": FOREIGN["cats"]}, ["logit ensemble"], predictions=kept)
    pd.testing.assert_frame_equal(first, again, check_dtype=False)
    pd.testing.assert_frame_equal(tables.trust(pool, dataset, {"cats": FOREIGN["cats"]}, ["logit ensemble"]), first)
    other = tables.trust(pool, dataset, {"cats": FOREIGN["dogs"]}, ["logit ensemble"], predictions=kept)
    assert not first[first.measure == "AUROC"].value.equals(other[other.measure == "AUROC"].value)


def test_statistics_of_images_are_those_of_numpy(dataset):
    found = tables.image_statistics(dataset, FOREIGN).set_index(["images", "statistic"])
    as_numbers = [np.asarray(s.images, dtype=float)[:, 0] for s in (dataset.train, dataset.test, FOREIGN["cats"])]
    for name, of in (("mean pixel", lambda x: x.mean((1, 2))),
                     ("roughness", lambda x: np.abs(np.diff(x, axis=2)).mean((1, 2)))):  # fmt: skip
        train, own, other = (of(part) for part in as_numbers)
        scores = [-np.abs(part - train.mean()) for part in (own, other)]
        chance = np.mean(scores[0][:, None] > scores[1][None]) + np.mean(scores[0][:, None] == scores[1][None]) / 2
        assert found.AUROC["cats", name] == pytest.approx(100 * chance)


def test_black_images_are_told_by_their_mean_pixel_and_stripes_only_by_roughness(dataset):
    black = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    stripes = (torch.arange(8) % 2 * 255).byte().expand(20, 1, 8, 8)
    ones = {name: random_split(20) for name in ("black", "stripes")}
    foreign = {name: type(split)(images, split.labels, split.mean, split.std)
               for (name, split), images in zip(ones.items(), (black, stripes), strict=True)}  # fmt: skip
    found = tables.image_statistics(dataset, foreign).set_index(["images", "statistic"]).AUROC
    assert found["black", "mean pixel"] == 100
    assert found["stripes", "roughness"] == 100
    assert found["stripes", "mean pixel"] < 50  # nearer to the mean than own images are


def test_words_follow_from_intervals():
    numbers = {"a": [1.0, 1.1, 0.9], "b": [2.0, 2.1, 2.0], "c": [1.0, 3.0, 0.5]}
    table = pd.DataFrame({(measure, name): numbers[name] for measure in ("loss", "gain") for name in numbers})
    found = tables.judged_differences(table, [("a", "b"), ("b", "a"), ("a", "c")], {"loss": "lower", "gain": "higher"})
    assert found.verdict.tolist() == ["better", "worse", "undecided", "worse", "better", "undecided"]
    assert found.difference.tolist()[:2] == ["a − b", "b − a"]
    assert (found.low <= found["mean"]).all()
    # One replica has no interval, and so decides nothing.
    single = tables.judged_differences(table[:1], [("a", "b")], {"loss": "lower"})
    assert single.verdict.tolist() == ["undecided"]
    with pytest.raises(ProbeError, match="loss: got 'less', wanted 'lower' or 'higher'"):
        tables.judged_differences(table, [("a", "b")], {"loss": "less"})
