"""Chapter 40: what a scale factor does to members, soups and ensembles, against networks scaled by hand."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import check_drawing, eval_logits, random_dataset, untrained, untrained_chapter

from wamlib import evaluate, merge, models, probe
from wamlib.chapters import magnitude as chapter
from wamlib.errors import ProbeError
from wamlib.pools import Pool

KINDS = ["member", "uniform soup", "greedy soup", "logit ensemble", "probability ensemble"]
DATASET = random_dataset(n_test=100)
LABELS = DATASET.test.labels


def pool_of(name, n=2, **settings):
    return Pool(untrained(name, DATASET, n, **settings), DATASET)


def scales(pool, factors, scopes, n_images=100):
    return chapter.scales(pool, factors=factors, scopes=scopes, n_images=n_images)


def logits(name, state, split=DATASET.test, *, recalibrate=False):
    module = models.build(name, 3, 1, (8, 8))
    module.load_state_dict(state)
    if recalibrate:
        merge.recalibrate_batchnorm(module, [batch for batch, _ in DATASET.train.batches()])
    return eval_logits(module, split)


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_numbers_are_those_of_networks_scaled_by_hand():
    pool = pool_of("mlp", spread=0.3)
    table = scales(pool, [1.0, 4.0], ["learnable"], 60)
    assert list(table.combination) == KINDS * 2
    split = DATASET.test.take(slice(0, 60))
    every = [*pool.states, pool.soup()]
    by_hand = [logits("mlp", {key: 4 * t for key, t in state.items()}, split) for state in every]
    pooled = torch.stack(by_hand[:2]).mean(0)
    for combination, networks in (("member", by_hand[:2]), ("uniform soup", by_hand[2:]), ("logit ensemble", [pooled])):
        row = one(table, c=4.0, combination=combination)
        for name in ("accuracy", "nll"):
            values = [getattr(evaluate, name)(network, split.labels) for network in networks]
            assert row[name] == pytest.approx(np.mean(values), rel=1e-4), (combination, name)
    same = [evaluate.agreement(a, logits("mlp", b, split)) for a, b in zip(by_hand, pool.states)]
    assert one(table, c=4.0, combination="member").agreement == pytest.approx(np.mean(same))
    assert (table[table.c == 1].agreement == 100).all()
    assert (table.finite == 100).all()


def test_soups_are_recalibrated_before_they_are_scaled():
    pool = pool_of("resnet8")
    row = one(scales(pool, [1.0], ["everything"]), combination="uniform soup")
    right, wrong = (logits("resnet8", pool.soup(), recalibrate=flag) for flag in (True, False))
    assert row.nll == pytest.approx(evaluate.nll(right, LABELS), rel=1e-4)
    assert row.nll != pytest.approx(evaluate.nll(wrong, LABELS), rel=1e-2)


def test_coherently_nothing_changes_and_everything_breaks_batchnorm():
    table = scales(pool_of("densenet"), [1.0, 10.0], ["everything", "batchnorm"])
    assert (table[table.scope == "batchnorm"].agreement > 98).all()
    assert (table[(table.scope == "everything") & (table.c == 10)].agreement < 90).any()  # the twin


def test_the_head_alone_is_what_the_scaled_state_dict_gives():
    pool = pool_of("mlp")
    row = one(scales(pool, [3.0], ["head"]), combination="uniform soup")
    expected = logits("mlp", probe.scale(pool.soup(), 3.0, "head"))
    assert row.nll == pytest.approx(evaluate.nll(expected, LABELS))
    assert row.agreement == 100


def test_scopes_that_multiply_the_same_tensors_have_the_same_rows():
    table = scales(pool_of("mlp"), [0.5, 1.0], ["everything", "learnable", "weights"])
    parts = [part.drop(columns="scope").reset_index(drop=True) for _, part in table.groupby("scope", sort=False)]
    pd.testing.assert_frame_equal(*parts[:2])
    assert not parts[0].equals(parts[2])  # the twin


def test_a_scope_that_an_architecture_does_not_have_is_left_out_and_mistakes_are_refused():
    assert set(scales(pool_of("vit"), [2.0], ["batchnorm", "learnable"]).scope) == {"learnable"}
    for factor, scope, word in ((2.0, "batch norm", "scope"), (-1.0, "batchnorm", "factor")):
        with pytest.raises(ProbeError, match=word):
            scales(pool_of("mlp"), [factor], [scope])


def test_overflow_is_shown_as_such():
    table = scales(pool_of("mlp"), [1.0, 1e30], ["everything"])
    blown = table[table.c == 1e30]
    assert len(blown) == len(KINDS)
    assert (blown.finite < 100).all()
    assert blown[["nll", "entropy", "margin"]].isna().all(axis=None)
    assert (blown[["accuracy", "agreement"]].max(axis=1) <= blown.finite).all()  # undefined is not right


def test_one_layer_at_a_time():
    pool = pool_of("mlp")
    table = chapter.layer_scales(pool, factors=[0.1, 1.0], n_images=100)
    assert list(table.layer.unique()) == ["fc1", "fc2", "fc3", "head"]
    assert (table[(table.c == 1) | (table.layer == "head")]["drop"] == 0).all()
    state = dict(pool.states[0])
    scaled = state | {key: 0.1 * state[key] for key in ("fc2.weight", "fc2.bias")}
    before, after = (evaluate.accuracy(logits("mlp", s), LABELS) for s in (state, scaled))
    assert one(table, layer="fc2", c=0.1, combination="member")["drop"] == pytest.approx(before - after)


def test_the_released_way_is_saved_by_the_statistics_of_each_batch():
    pool = pool_of("resnet8")
    table = chapter.released_scales(pool, factors=[1.0, 100.0], n_images=100)
    before, after = (part.set_index("combination").accuracy for _, part in table.groupby("c"))
    assert set(before.index) == {"member", "uniform soup", "logit ensemble"}
    assert abs(before - after).max() < 5
    module, found = models.build("resnet8", 3, 1, (8, 8)), []
    for state in pool.states:
        module.load_state_dict(state)
        with torch.no_grad():
            read = [module.train()(batch) for batch in DATASET.test.normalize(DATASET.test.images).split(64)]
        found.append(evaluate.accuracy(torch.cat(read), LABELS))
    assert before["member"] == pytest.approx(np.mean(found))


@pytest.mark.parametrize("name", ["mlp", "resnet8"])
def test_one_scaled_member_is_a_larger_share(name):
    pool = pool_of(name, 3, spread=0.3)
    table = chapter.one_member_scaled(pool, factors=[0.5, 1.0, 100.0], n_images=100)
    assert list(table.share) == pytest.approx([0.2, 1 / 3, 100 / 102])
    assert (table.difference < 1e-6).all()
    assert one(table, c=1.0).agreement == 100
    weighted = logits(name, merge.uniform_soup(pool.states, weights=[0.2, 0.4, 0.4]), recalibrate=True)
    assert one(table, c=0.5).weighted == pytest.approx(evaluate.accuracy(weighted, LABELS))
    assert one(table, c=0.5).agreement > 95  # biases alone feel the scale of the whole


def test_greedy_soups_count_scaled_members_only():
    pool = pool_of("resnet8", 3, spread=0.01)
    labels = DATASET.selection.labels
    table = chapter.greedy_soups_of_scaled(pool, factors=[1.0, 1e4])
    assert list(table.protocol) == ["corrected", "released"] * 2
    assert (table.offered == 2).all()
    assert table.accepted.between(0, 2).all()
    best = max(range(3), key=lambda i: evaluate.accuracy(pool.runs[i].logits["selection"], labels))
    members = [pool.states[best], *(state for i, state in enumerate(pool.states) if i != best)]

    def score(state):
        return evaluate.accuracy(logits("resnet8", state, DATASET.selection, recalibrate=True), labels)

    by_hand = merge.greedy_soup(members, score)
    assert one(table, c=1.0, protocol="corrected").accepted == len(set(by_hand.accepted) - {0})


# What follows from the tables


@pytest.mark.parametrize(("names", "chosen"), [(["mlp", "resnet8"], ["resnet8", "vit"]), (["vit"], ["cnn"])])
def test_every_list_of_architectures_has_its_claims_and_its_sentences(names, chosen, tmp_path):
    settings = {"pool_models": names, "protocol_models": chosen, "n_pool_members": 2, "n_scaled_images": 30}
    here = untrained_chapter("magnitude", DATASET, tmp_path, **settings, factors=[1.0, 10.0], few_factors=[10.0])
    tables = chapter.tables(here)
    assert list(tables["shares"].model.unique()) == ([name for name in chosen if name in names] or names)
    found = {row["claim"] for row in chapter.claims(here, tables)}
    assert found == ({"C14", "C15", "C20"} if names == ["vit"] else {"C14", "C15", "C19", "C20"})
    said = chapter.numbers(here, tables)
    assert "nan" not in " ".join(text for text in said.values() if isinstance(text, str))
    assert said["ten_vit_text"] == "(not measured)" or "vit" in names
    assert len(chapter.drops_by_scope(tables["scale"], here.p)) == len(names)


def test_a_drop_is_relative_and_the_soups_is_set_against_its_own_members():
    rows = itertools.product(["member", "uniform soup"], [0.5, 1.0, 2.0])
    scale = pd.DataFrame(rows, columns=["combination", "c"]).assign(scope="learnable", model="mlp", replica=0)
    scale["accuracy"] = [40.0, 80, 60, 30, 60, 60]
    tables = {"scale": scale, "released": scale.drop(columns="scope").assign(accuracy=50.0)}
    less = chapter.soup_minus_member(tables)
    assert less["learnable", "mlp", 0] == pytest.approx((50 + 0) / 2 - (50 + 25) / 2)
    assert less["released code", "mlp", 0] == 0


# Figures


def grid(**columns):
    table = pd.DataFrame(itertools.product(*columns.values()), columns=list(columns))
    return table.assign(accuracy=np.random.default_rng(0).uniform(10, 90, len(table)))


SCALE = grid(
    model=["mlp", "vit"],
    scope=["learnable", "batchnorm"],
    replica=[0, 1],
    combination=["member", "uniform soup", "logit ensemble"],
    c=[0.1, 1.0, 10.0],
)
SCALE = SCALE[(SCALE.model == "mlp") | (SCALE.scope == "learnable")]
SCALE = SCALE.assign(nll=1.0 + SCALE.c, agreement=90.0, entropy=1.0, finite=100.0)
SCALE.loc[(SCALE.c == 10) & (SCALE.model == "mlp"), ["nll", "finite"]] = math.nan, 50.0
LEARNABLE = SCALE[SCALE.scope == "learnable"]
LAYERS = grid(model=["mlp", "vit", "cnn", "vgg", "resnet8"], replica=[0, 1], depth=[1, 2, 3], c=[0.5, 2.0])
LAYERS = LAYERS.rename(columns={"accuracy": "drop"})
SHARES = grid(model=["mlp", "vit"], replica=[0, 1], share=[0.1, 0.9])
SHARES = SHARES.assign(weighted=SHARES.accuracy[::-1].to_numpy())


def test_scale_curves_mark_overflow_and_say_where_a_scope_is_not_defined(tmp_path):
    fig = chapter.scale_curves(SCALE)
    check_drawing(fig, tmp_path)
    assert fig.get_size_inches()[1] < 5
    crosses = [
        line for ax in fig.axes for line in ax.lines if line.get_marker() == "x" and line.get_linestyle() == "None"
    ]
    assert {x for line in crosses for x in line.get_xdata()} == {10.0}
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["not defined"]
    assert [ax.get_title() for ax in fig.axes[:2]] == ["learnable", "coherent"]
    assert "accuracy (%)" in fig.axes[0].get_ylabel()
    for table, marked in ((SCALE, True), (SCALE.assign(finite=100.0), False)):
        texts = [text.get_text() for text in chapter.scale_curves(table).legends[0].get_texts()]
        assert ("some logits overflow" in texts) == marked


def test_quantities_that_overflow_are_marked_at_the_edge(tmp_path):
    fig = chapter.scale_quantities(LEARNABLE, {"agreement": "Agreement (%)", "nll": "NLL (nats)"})
    check_drawing(fig, tmp_path)
    marked = [[line.get_label() for line in ax.lines].count("some logits overflow") > 0 for ax in fig.axes]
    assert marked == [False, True, False, False]
    assert [ax.get_title() for ax in fig.axes[:2]] == ["Agreement (%)", "NLL (nats)"]


def test_heat_maps_show_the_mean_over_replicas(tmp_path):
    fig = chapter.layer_heat_maps(LAYERS)
    check_drawing(fig, tmp_path)
    wide = LAYERS[LAYERS.model == "mlp"].pivot_table("drop", "depth", "c")
    assert np.allclose(fig.axes[0].images[0].get_array(), wide)
    assert [text.get_text() for text in fig.axes[0].texts] == [str(round(drop)) for drop in wide.to_numpy().ravel()]


def test_shares_draw_the_average_as_a_line_and_the_soups_as_marks(tmp_path):
    fig = chapter.share_curves(SHARES)
    check_drawing(fig, tmp_path)
    mlp = SHARES[SHARES.model == "mlp"].groupby("share")
    assert np.allclose(fig.axes[0].lines[0].get_ydata(), mlp.weighted.mean())
    assert np.allclose(fig.axes[0].containers[0].lines[0].get_ydata(), mlp.accuracy.mean())
    assert "(%)" in fig.axes[0].get_ylabel()


def test_the_figure_to_play_with_has_a_choice_of_scopes_by_their_names_in_the_text():
    figure = chapter.scale_yourself(SCALE, chapter.scale_curves(LEARNABLE), alt="words")
    assert "coherent" in figure._repr_html_()
