"""Chapter 21: means of weight rows against counts by hand, and soups against ensembles."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny
from helpers import check_drawing, random_dataset
from test_data import save_images

from wamlib import probe, sweeps
from wamlib.chapters import templates_of_soups as chapter
from wamlib.data import load
from wamlib.errors import ProbeError
from wamlib.pools import Pool

from .test_templates import N_TRUE, Weights, linear_chapter


@pytest.fixture(scope="module")
def pools(store):
    groups = sweeps.linear_members("digits", n_train=1000, n_members=N_TRUE, epochs=10, weight_decays=(0.0, 0.1))
    return {group: Pool([store.train(config) for config in configs]) for group, configs in groups.items()}


def test_a_pair_of_rows_scores_as_counted_by_hand(pools):
    pool, state = pools[0.1], pools[0.1].states[0]
    table = chapter.class_pairs(Pool(pool.runs[:1], pool.dataset)).set_index(["first", "second"])
    assert len(table) == 45
    test = pool.dataset.test
    x = np.asarray(test.normalize(test.images).flatten(1), dtype=np.float64)
    w, b = (np.asarray(state[f"head.{name}"], dtype=np.float64) for name in ("weight", "bias"))
    y = np.asarray(test.labels)
    i, j = 3, 8
    rest = [k for k in range(10) if k not in (i, j)]
    apart_from_both = ~np.isin(y, [i, j])
    wins = (x @ (w[i] + w[j]) + b[i] + b[j]) / 2 > (x @ w[rest].T + b[rest]).max(1)
    recalls = [100 * wins[y == k].mean() for k in (i, j)]
    row = table.loc[("3", "8")]
    assert row.lower_recall == pytest.approx(min(recalls))
    assert row.mean_recall == pytest.approx(np.mean(recalls))
    assert row.other_recall == pytest.approx(100 * wins[apart_from_both].mean())
    means = probe.class_means(pool.dataset.train, 10).flatten(1).numpy()
    assert row.own == pytest.approx(np.corrcoef(w[i] + w[j], means[i] + means[j])[0, 1], abs=1e-5)
    separate = (x @ w.T + b).argmax(1)[(y == i) | (y == j)]
    assert row.separate_recall == pytest.approx(100 * np.isin(separate, [i, j]).mean())
    apart = [means[k] + means[m] for k in rest for m in rest if k < m]
    assert row["null"] == pytest.approx(np.mean([np.corrcoef(w[i] + w[j], one)[0, 1] for one in apart]), abs=1e-5)


def test_two_classes_have_no_pairs_to_compare_with(tmp_path):
    for label in ("cat", "dog"):
        save_images(tmp_path / label, 20)
    with pytest.raises(ProbeError, match="2 classes"):
        chapter.class_pairs(Pool([Weights(torch.zeros(2, 3 * 64 + 1))], load(f"folder:{tmp_path}")))


def test_mixtures_of_classes_begin_with_one_and_end_with_the_other(pools):
    table = chapter.class_mixtures(pools[0.1], alphas=[0.0, 0.5, 1.0], n_classes=4)
    assert len(table) == 6 * 3
    ends = table.groupby("alpha")[["recall_first", "recall_second"]].mean()
    assert ends.recall_first[0.0] > ends.recall_first[0.5] > ends.recall_first[1.0]
    assert ends.recall_second[1.0] > ends.recall_second[0.5] > ends.recall_second[0.0]
    middle = table[table.alpha == 0.5].set_index(["first", "second"])
    pairs = chapter.class_pairs(Pool(pools[0.1].runs[:1])).set_index(["first", "second"])
    both = (middle.recall_first[0, 1] + middle.recall_second[0, 1]) / 2
    assert both == pytest.approx(pairs.mean_recall["0", "1"])


@pytest.mark.parametrize("group", [0.1, sweeps.RELEASED])
def test_mixtures_of_members_have_the_members_at_their_ends(pools, group):
    table = chapter.member_mixtures(pools[group], alphas=[0.0, 0.5, 1.0])
    ends = [run.record["metrics"]["test"]["accuracy"] for run in pools[group].runs[:2]]
    assert [table.accuracy[0], table.accuracy[2]] == pytest.approx(ends)


@pytest.mark.parametrize("group", [0.0, sweeps.RELEASED, sweeps.SHUFFLED])
def test_a_linear_soup_is_its_logit_ensemble_whatever_the_rows_look_like(pools, group):
    pool = pools[group]
    table = chapter.linear_soups(pool, sizes=[1, 2, 3, 6, 9])
    counts = {n: len(pool) // n for n in (1, 2, 3, 6) if n <= len(pool)}  # nine members there are not
    assert dict(table.groupby("n_members").subset.nunique()) == counts
    assert (table.difference < 1e-5).all()
    assert (table.accuracy == table.ensemble_accuracy).all()
    # Members of the released recipe read other pixels than the rest: their accuracy is that of their record.
    alone = table[table.n_members == 1]
    assert list(alone.accuracy) == pytest.approx([run.record["metrics"]["test"]["accuracy"] for run in pool.runs])
    pairs = table[table.n_members == 2]
    assert list(pairs.member_own) == pytest.approx(alone.own.to_numpy()[: 2 * len(pairs)].reshape(-1, 2).mean(1))


def test_a_soup_of_anything_with_a_relu_is_not_its_ensemble(store):
    """The twin of the identity."""
    pool = Pool([store.train(tiny(seed=seed, init_seed=seed)) for seed in (0, 1)])
    assert (pool.logits(pool.soup()) - pool.ensemble()).abs().max() > 0.1


# ---- The chapter -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chapter")
    here = linear_chapter("templates_of_soups", random_dataset(n_classes=5), folder, linear_sizes=[1, 2, 9], n_linear=6)
    return here, chapter.tables(here)


def test_the_chapter_measures_what_it_says(at_work):
    here, tables = at_work
    pairs, soups = tables["class_pairs"], tables["linear_soups"]
    assert list(pairs.columns)[-2:] == ["dataset", "protocol"]
    assert list(dict.fromkeys(pairs.protocol)) == ["released", "corrected"]
    assert list(dict.fromkeys(soups.group)) == list(chapter.KEPT)
    assert set(soups.n_members) == {1, 2}
    decays = {group: runs for (_, group), runs in here._finished.items() if not isinstance(group, str)}
    by_decay = {
        group: np.mean([run.record["metrics"]["selection"]["accuracy"] for run in runs])
        for group, runs in decays.items()
    }
    held_out = here.rows(chapter.selection_accuracy, here.groups_where(group=list(by_decay)))
    assert by_decay[chapter.best_decay(held_out)] == max(by_decay.values())
    numbers = chapter.numbers(here, tables)
    assert (numbers["n_claim"], numbers["n_subsets"], numbers["half"]) == (2, 3, 2)
    assert all(np.isfinite(value) for value in numbers.values() if not isinstance(value, str))
    verdicts = here.judge(chapter.claims(here, tables))
    assert list(verdicts.claim) == ["C3", "C4"]
    judged = pd.read_csv(here.folder / "claims_21.csv")
    assert judged.verdict[judged.measure.str.startswith("largest difference")].item() == "holds"


def test_a_pair_is_served_if_either_class_is_won_more_than_the_others():
    pairs = pd.DataFrame(
        {
            "dataset": "x",
            "protocol": "released",
            "seed": 0,
            "own": 0.5,
            "null": 0.0,
            "lower_recall": [30.0, 10.0, 20.0],
            "other_recall": [20.0, 20.0, 20.0],
            "mean_recall": 50.0,
            "separate_recall": 90.0,
        }
    )
    assert chapter.by_seed(pairs).both.item() == pytest.approx(100 / 3)


def test_pictures_are_drawn_and_can_be_played_with(at_work, tmp_path):
    _, tables = at_work
    fig = chapter.mean_rows(tables)
    check_drawing(fig, tmp_path, units=False)
    assert [ax.get_title() for ax in fig.axes[:2]] == ["a\n+ c", "b\n+ d"]
    page = chapter.mix(tables)._repr_html_()
    assert page.count("two members, decay 0") == 2
    assert "two classes of one member, decay 0.1" in page


SOUPS = pd.DataFrame(
    [
        (dataset, group, n, subset, 0.01 * subset, 0.1 * subset)
        for dataset in ("a", "b")
        for group in (0.0, sweeps.RELEASED)
        for n in (1, 5)
        for subset in range(5 // n)
    ],
    columns=["dataset", "group", "n_members", "subset", "own_change", "accuracy_change"],
)


def test_a_subset_without_replicas_has_no_interval(tmp_path):
    fig = chapter.rows_vs_members(SOUPS)
    check_drawing(fig, tmp_path)
    bars = fig.axes[0].containers[0].lines[2][0].get_segments()
    spans = [abs(high - low) for (_, low), (_, high) in bars]
    assert min(spans[:-1]) > 0
    assert spans[-1] == 0  # one soup of five
