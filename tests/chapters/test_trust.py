"""Chapter 50: trust against the same numbers, computed from logits one by one."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, random_split, untrained, untrained_chapter

from wamlib import evaluate, merge, models, probe
from wamlib.chapters import trust as chapter
from wamlib.errors import DataError, ProbeError
from wamlib.pools import Pool
from wamlib.stats import paired_difference

EVERY = ("uniform soup", "greedy soup", "logit ensemble", "probability ensemble")

FOREIGN = {"cats": random_split(30, seed=7), "dogs": random_split(25, seed=8)}


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(n_train=120, n_test=100)


@pytest.fixture(scope="module", params=["mlp", "resnet8"])
def pool(request, dataset):
    return Pool(untrained(request.param, dataset, spread=0.3), dataset)


def member(pool, state):
    module = models.build(pool.model, 3, 1, (8, 8))
    module.load_state_dict(state)
    return module.eval()


def soup_of(pool, chosen=None):
    """A module with the weights of the soup, recalibrated."""
    module, train = (
        member(pool, merge.uniform_soup([pool.states[i] for i in chosen or range(len(pool))])),
        pool.dataset.train,
    )
    if pool.has_batchnorm:
        merge.recalibrate_batchnorm(module, [train.normalize(train.images)])
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
    expected = {
        ("nll", 0, "", ""): evaluate.nll(test, labels),
        ("accuracy", 0, "", ""): evaluate.accuracy(test, labels),
        ("calibration error", 0, "", ""): evaluate.calibration_error(test, labels),
        ("error area", 0, "", ""): curve.area,
        ("excess error area", 0, "", ""): curve.excess_area,
        ("selective error", 35, "", ""): curve.error[34].item(),
        ("selective error", 100, "", ""): 100 - evaluate.accuracy(test, labels),
    }
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
    table = chapter.trust_in(pool, EVERY, FOREIGN)
    soup = soup_of(pool)
    splits = [dataset.test, dataset.selection, *FOREIGN.values()]
    one = [eval_logits(soup, split) for split in splits]
    check(cells(table, "uniform soup", temperature), one[0], one[1], one[2:], dataset, temperature)
    each = [
        torch.stack([eval_logits(member(pool, state), split).double() for state in pool.states]) for split in splits
    ]
    mean = [part.mean(0) for part in each]
    check(cells(table, "logit ensemble", temperature), mean[0], mean[1], mean[2:], dataset, temperature)
    logs = [part.softmax(2).mean(0).log() for part in each]
    row = cells(table, "probability ensemble", temperature)
    check(row, logs[0], logs[1], logs[2:], dataset, temperature, ["maximum probability"])
    assert set(row.xs("AUROC").index.get_level_values("score")) == {"maximum probability"}


@pytest.mark.parametrize("temperature", ["raw", "refitted"])
def test_a_member_row_is_the_mean_over_members_each_at_its_own_temperature(pool, dataset, temperature):
    row = cells(chapter.trust_in(pool, [], FOREIGN), "member", temperature)
    singles = [Pool([run], dataset) for run in pool.runs]
    alone = [cells(chapter.trust_in(single, [], FOREIGN), "member", temperature) for single in singles]
    for key in row.index[~row.index.get_level_values("measure").isin(chapter.BINS)]:
        assert row[key] == pytest.approx(np.mean([one[key] for one in alone]))
    splits = [dataset.test, dataset.selection, *FOREIGN.values()]
    logits = [eval_logits(member(pool, pool.states[0]), split) for split in splits]
    check(alone[0], logits[0], logits[1], logits[2:], dataset, temperature)


def test_bins_give_the_calibration_error_back(pool):
    table = chapter.trust_in(pool, EVERY, {})
    for name in ("uniform soup", "logit ensemble"):
        for temperature in ("raw", "refitted"):
            row = cells(table, name, temperature)
            bins = row[list(chapter.BINS)].unstack("measure")
            gap = (bins.share / 100 * (bins["bin accuracy"] - bins.confidence).abs()).sum()
            assert gap == pytest.approx(row["calibration error", 0, "", ""])
    assert table.value.notna().all()  # bins without an image are left out
    members = cells(table, "member")
    assert members["share"].sum() == pytest.approx(100)
    assert not set(table.measure) & {"AUROC", "false positives"}


def test_a_refitted_temperature_does_what_it_is_fitted_for(pool):
    """The labels are random: the right confidence is that of guessing, and a network is far too sure."""
    table = chapter.trust_in(pool, ["uniform soup"], {})
    raw, refitted = (cells(table, "uniform soup", label)["nll", 0, "", ""] for label in ("raw", "refitted"))
    assert refitted < raw
    assert refitted == pytest.approx(np.log(3), abs=0.1)


def test_luck_is_what_a_calibrated_network_would_show(pool):
    row = cells(chapter.trust_in(pool, [], {}), "member", "refitted")
    assert 1 < row["calibration error by luck", 0, "", ""] < 15
    many = random_dataset(n_train=120, n_test=2000)
    single = Pool(untrained(pool.model, many, n=1), many)
    fewer = cells(chapter.trust_in(single, [], {}), "member", "refitted")
    assert fewer["calibration error by luck", 0, "", ""] < row["calibration error by luck", 0, "", ""]


@pytest.mark.parametrize(("trials", "n_accepted"), [([-1, -1], 1), ([101, -1], 2), ([101, 102], 3)])
def test_greedy_soups_are_a_member_a_part_of_the_pool_or_all_of_it(trials, n_accepted, dataset, monkeypatch):
    pool, asked = Pool(untrained("resnet8", dataset, spread=0.3), dataset), []

    def scored(self, state, split, *, recalibrate):
        assert recalibrate
        asked.append(state)
        return trials[len(asked) - 1]

    monkeypatch.setattr(Pool, "accuracy", scored)
    alone = [evaluate.accuracy(run.logits["selection"], dataset.selection.labels) for run in pool.runs]
    ranked = sorted(range(3), key=lambda i: -alone[i])
    one = member(pool, pool.states[ranked[0]]) if n_accepted == 1 else soup_of(pool, ranked[:n_accepted])
    expected = evaluate.nll(eval_logits(one, dataset.test), dataset.test.labels)
    for kinds in (["greedy soup"], ["uniform soup", "greedy soup"]):
        asked.clear()
        found = cells(chapter.trust_in(pool, kinds, {}), "greedy soup")
        assert found["nll", 0, "", ""] == pytest.approx(expected, abs=1e-3)
        assert len(asked) == 2  # members are judged by the logits that are there


def test_an_unknown_combination_is_refused(pool):
    with pytest.raises(ProbeError, match="kinds: got 'stew', wanted some of 'uniform soup'"):
        chapter.trust_in(pool, ["uniform soup", "stew"], {})


def test_foreign_images_are_found_by_their_names(pool, dataset):
    named = {"foreign": ["photographs"], "n_foreign": 30}
    found = chapter.trust(pool, kinds=["logit ensemble"], **named)
    assert set(found.images) == {"", "photographs"}
    assert set(chapter.image_statistics(pool, **named).images) == {"photographs"}
    with pytest.raises(DataError, match="none is here"):
        chapter.trust(pool, kinds=[], foreign=["folder:nowhere"], n_foreign=30)


def test_statistics_of_images_are_those_of_numpy(dataset):
    found = chapter.statistics_of(dataset, FOREIGN).set_index(["images", "statistic"])
    as_numbers = [np.asarray(s.images, dtype=float)[:, 0] for s in (dataset.train, dataset.test, FOREIGN["cats"])]
    for name, of in (
        ("mean pixel", lambda x: x.mean((1, 2))),
        ("roughness", lambda x: np.abs(np.diff(x, axis=2)).mean((1, 2))),
    ):
        train, own, other = (of(part) for part in as_numbers)
        scores = [-np.abs(part - train.mean()) for part in (own, other)]
        chance = np.mean(scores[0][:, None] > scores[1][None]) + np.mean(scores[0][:, None] == scores[1][None]) / 2
        assert found.AUROC["cats", name] == pytest.approx(100 * chance)


def test_black_images_are_told_by_their_mean_pixel_and_stripes_only_by_roughness(dataset):
    black = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    stripes = (torch.arange(8) % 2 * 255).byte().expand(20, 1, 8, 8)
    ones = {name: random_split(20) for name in ("black", "stripes")}
    foreign = {
        name: type(split)(images, split.labels, split.mean, split.std)
        for (name, split), images in zip(ones.items(), (black, stripes), strict=True)
    }
    found = chapter.statistics_of(dataset, foreign).set_index(["images", "statistic"]).AUROC
    assert found["black", "mean pixel"] == 100
    assert found["stripes", "roughness"] == 100
    assert found["stripes", "mean pixel"] < 50  # nearer to the mean than own images are


def test_words_follow_from_intervals():
    numbers = {"a": [1.0, 1.1, 0.9], "b": [2.0, 2.1, 2.0], "c": [1.0, 3.0, 0.5]}
    table = pd.DataFrame({(measure, name): numbers[name] for measure in ("loss", "gain") for name in numbers})
    found = chapter.judged_differences(table, [("a", "b"), ("b", "a"), ("a", "c")], {"loss": "lower", "gain": "higher"})
    assert found.verdict.tolist() == ["better", "worse", "undecided", "worse", "better", "undecided"]
    assert found.difference.tolist()[:2] == ["a − b", "b − a"]
    assert (found.low <= found["mean"]).all()
    # One replica has no interval, and so decides nothing.
    single = chapter.judged_differences(table[:1], [("a", "b")], {"loss": "lower"})
    assert single.verdict.tolist() == ["undecided"]
    with pytest.raises(ProbeError, match="loss: got 'less', wanted 'lower' or 'higher'"):
        chapter.judged_differences(table, [("a", "b")], {"loss": "less"})


# What follows from the tables


@pytest.mark.parametrize("names", [["mlp", "resnet8"], ["cnn"]])
def test_every_list_of_architectures_has_its_sentences(names, dataset, tmp_path):
    settings = {"pool_models": names, "n_pool_members": 2, "foreign_datasets": ["digits", "photographs"]}
    here = untrained_chapter("trust", dataset, tmp_path, **settings, n_foreign=20)
    tables = chapter.tables(here)
    assert set(tables["statistics"].images) == {"photographs"}  # the data set itself is not foreign
    said = chapter.numbers(here, tables)
    assert "nan" not in " ".join(text for text in said.values() if isinstance(text, str))
    assert (said["unsure_bare_text"] == "(not measured)") == (names != ["cnn"])
    assert (said["ece_rest_text"] == "(not measured)") == (names == ["cnn"])
    assert {path.stem for path in tmp_path.glob("*.csv")} == {
        "trust",
        "reliability",
        "selective_error",
        "trust_differences",
    }
    assert list(chapter.in_words(tables["trust"]).index)[:2] == ["member", "uniform soup"]
    words = chapter.differences_in_words(tables["differences"])
    assert words.shape == (6, len(chapter.PAIRS))
    assert words.iloc[0, 0].endswith(tables["differences"].verdict.iloc[0])


# Figures


def grid(**columns):
    table = pd.DataFrame(itertools.product(*columns.values()), columns=list(columns))
    return table.assign(value=np.random.default_rng(0).uniform(10, 90, len(table)), temperature="refitted")


POOLS = {"model": ["mlp", "vit"], "replica": [0, 1, 2]}
TWO = ["member", "uniform soup"]
BINNED = grid(**POOLS, combination=[*TWO, "logit ensemble"], at=[0, 5, 10], measure=list(chapter.BINS))
BINNED.loc[(BINNED.measure == "share") & (BINNED["at"] == 5), "value"] = 0.5  # too few to be drawn
BINNED = pd.concat([BINNED.assign(temperature="raw", value=BINNED.value / 2 + 5), BINNED])
COVERED = grid(**POOLS, combination=TWO, at=[10, 50, 100]).assign(measure="selective error")
FOUND = grid(images=["cats", "dogs"], **POOLS, combination=TWO)
STATISTICS = pd.DataFrame(
    {
        "images": ["cats", "cats", "dogs", "dogs"],
        "statistic": ["mean pixel", "roughness"] * 2,
        "AUROC": [40.0, 60.0, 70.0, 55.0],
    }
)
DRAWN = {
    "reliability_diagram": lambda keep: chapter.reliability_diagram(keep(BINNED), [*TWO, "logit ensemble"]),
    "error_vs_coverage": lambda keep: chapter.error_vs_coverage(keep(COVERED), TWO),
    "detection_marks": lambda keep: chapter.detection_marks(keep(FOUND), STATISTICS, TWO),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_drawn_also_of_one_replica_which_has_no_interval(name, tmp_path):
    fig = DRAWN[name](lambda table: table)
    check_drawing(fig, tmp_path)
    assert "(%)" in " ".join(ax.get_xlabel() + ax.get_ylabel() for ax in fig.axes)
    check_drawing(DRAWN[name](lambda table: table[table.replica == 0]), tmp_path)


def test_bins_of_all_pools_are_weighted_by_their_images_and_small_ones_left_out():
    fig = chapter.reliability_diagram(BINNED, [*TWO, "logit ensemble"])
    part = BINNED[(BINNED.combination == "uniform soup") & (BINNED.temperature == "refitted")]
    wide = part.pivot_table("value", ["model", "replica", "at"], "measure").query("share > 1")
    ax = fig.axes[4]  # the second row, the second column
    for line, names in zip([*ax.lines[:2], ax.lines[3]], [["mlp"], ["vit"], ["mlp", "vit"]], strict=True):
        means = [
            (np.average(rows.confidence, weights=rows.share), np.average(rows["bin accuracy"], weights=rows.share))
            for _, rows in wide.loc[names].groupby("at")
        ]
        np.testing.assert_allclose(np.column_stack(line.get_data()), means)
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], wide.groupby("at").share.mean())


def test_error_against_coverage_is_shown_beside_its_difference_from_a_member():
    fig = chapter.error_vs_coverage(COVERED, TWO)
    mean = COVERED.groupby(["combination", "at"]).value.mean()
    for ax, taken in zip(fig.axes, (0, mean["member"]), strict=True):
        for line, name in zip(ax.lines, TWO, strict=True):
            np.testing.assert_allclose(line.get_ydata(), mean[name] - taken)
    assert len(fig.axes[1].collections) == 1  # a band for all but the member
    wide = COVERED.groupby(["at", "replica", "combination"]).value.mean().unstack()
    ends = [paired_difference(part["uniform soup"], part["member"])[1:3] for _, part in wide.groupby("at")]
    band = fig.axes[1].collections[0].get_paths()[0].vertices[:, 1]
    assert np.abs(band).max() == pytest.approx(np.abs(ends).max())


def test_detections_stand_beside_what_needs_no_network():
    fig = chapter.detection_marks(FOUND, STATISTICS, TWO)
    for ax, (images, part) in zip(fig.axes, FOUND.groupby("images", sort=False), strict=True):
        assert ax.get_title() == f"against {images}"
        for container, name in zip(ax.containers, TWO, strict=True):
            means = part[part.combination == name].groupby("model", sort=False).value.mean()
            np.testing.assert_allclose(np.asarray(container.lines[0].get_xdata(), dtype=float), means)
        lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines if "alone" in line.get_label()}
        known = STATISTICS[STATISTICS.images == images].set_index("statistic").AUROC
        assert lines == {f"{name} alone": value for name, value in known.items()}
