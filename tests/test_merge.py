"""The merging contract: M1, M2, M3, M5, M6, M9. Each promise has a twin that a wrong implementation fails."""

import pytest
import torch
from helpers import bn_model, linear_state, reference_mean
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from wamlib.errors import MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import greedy_soup, interpolate, recalibrate_batchnorm, uniform_soup


def members(n, dtype=torch.float32):
    return [linear_state(seed, dtype=dtype) for seed in range(n)]


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# M1: identities


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mean_of_copies_is_the_model(n, dtype):
    member = linear_state(0, dtype=dtype)
    assert_same(uniform_soup([member] * n), member)


def test_one_hot_weights_give_that_member():
    pool = members(3)
    assert_same(uniform_soup(pool, weights=[0, 1, 0]), pool[1])
    assert_same(interpolate(pool[0], pool[1], 0), pool[0])
    assert_same(interpolate(pool[0], pool[1], 1), pool[1])


def test_weights_that_sum_to_zero_are_refused():
    for weights in ([1, -1], [0, 0], [0.1 + 0.2, -0.3]):
        with pytest.raises(MergeError, match="sum"):
            uniform_soup(members(2), weights=weights)
    uniform_soup(members(2), weights=[2, -1])  # the twin: a negative weight alone is fine


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, float("nan")], [1, float("inf")]])
def test_unusable_weights_are_refused(weights):
    with pytest.raises(MergeError, match="weights"):
        uniform_soup(members(2), weights=weights)


def test_no_member_is_refused():
    for merge in (uniform_soup, lambda m: greedy_soup(m, score=lambda state: 0)):
        with pytest.raises(MergeError, match="no member"):
            merge([])


def test_members_are_left_alone():
    pool = members(2)
    copies = [{key: value.clone() for key, value in member.items()} for member in pool]
    soup = uniform_soup(pool)
    soup["weight"].zero_()
    single = uniform_soup(pool[:1])
    single["bias"].zero_()
    assert_same(pool, copies)


# M2: precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_64_members_are_averaged_to_one_rounding(dtype):
    pool = [{"w": 1 + 0.01 * linear_state(seed, 50, 50)["weight"].to(dtype)} for seed in range(64)]
    expected = torch.from_numpy(reference_mean(pool)["w"])
    error = (uniform_soup(pool)["w"].double() - expected).abs() / expected.abs()
    ulp = torch.finfo(dtype).eps
    assert error.max() <= ulp
    running = torch.zeros_like(pool[0]["w"])
    for member in pool:
        running += member["w"]
    naive = ((running / 64).double() - expected).abs() / expected.abs()
    assert naive.max() > ulp  # the twin: adding up in the members' own dtype is worse


def test_agrees_with_torch_swa():
    torch.manual_seed(0)
    models = [nn.Linear(4, 3) for _ in range(5)]
    averaged = AveragedModel(models[0])
    for model in models:
        averaged.update_parameters(model)
    soup = uniform_soup([model.state_dict() for model in models])
    torch.testing.assert_close(soup, dict(averaged.module.state_dict()), rtol=0, atol=1e-6)


# M3: what is not averaged


def test_integers_and_booleans_are_copied_from_the_first_member():
    pool = [
        {"w": torch.tensor([float(i)]), "steps": torch.tensor(7 + i), "mask": torch.tensor([i == 0])} for i in range(3)
    ]
    soup = uniform_soup(pool)
    assert soup["steps"].dtype == torch.int64
    assert soup["steps"].item() == 7
    assert soup["mask"].tolist() == [True]
    assert soup["w"].item() == 1.0
    assert soup["steps"] is not pool[0]["steps"]


def test_averaged_running_variances_stay_positive():
    pool = [bn_model(seed).state_dict() for seed in range(4)]
    soup = uniform_soup(pool)
    variances = [value for key, value in soup.items() if key.endswith("running_var")]
    assert len(variances) == 2
    assert all((value > 0).all() for value in variances)


# M5: misfits


def changed(**changes):
    return {**linear_state(1), **changes}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (changed(weight=torch.zeros(3, 5)), ["'weight'", "member 1", "(3, 5)", "(3, 4)"]),
        (changed(weight=torch.zeros(1, 4)), ["'weight'", "(1, 4)"]),  # would broadcast
        (changed(bias=torch.zeros(3, dtype=torch.float64)), ["'bias'", "member 1", "float64", "float32"]),
        (changed(extra=torch.zeros(1)), ["member 1", "'extra'"]),
        ({"weight": torch.zeros(3, 4)}, ["member 1", "lacks", "'bias'"]),
    ],
)
@pytest.mark.parametrize("merge", [uniform_soup, lambda pool: greedy_soup(pool, lambda state: 0.0)])
def test_misfits_are_refused_with_member_and_key(bad, words, merge):
    with pytest.raises(MemberMismatchError) as caught:
        merge([linear_state(0), bad, linear_state(2)])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_members_are_refused_by_name(value):
    bad = linear_state(1)
    bad["bias"][2] = value
    with pytest.raises(NonFiniteMemberError, match=r"'bias'.*member 1"):
        uniform_soup([linear_state(0), bad])


# M6: greedy soup


def greedy_reference(values, score):
    """Recipe 1 of Wortsman et al. for members that are single numbers."""
    order = sorted(range(len(values)), key=lambda i: score(values[i]), reverse=True)
    kept = [order[0]]
    for i in order[1:]:
        if score(sum(values[j] for j in [*kept, i]) / (len(kept) + 1)) >= score(
            sum(values[j] for j in kept) / len(kept)
        ):
            kept.append(i)
    return kept


@pytest.mark.parametrize("values", [[4.0, 0.5, -1.0, 2.0], [1.0, 1.0], [3.0], [0.3, -0.2, 5.0, -0.25, 0.1]])
def test_greedy_soup_is_the_published_algorithm(values):
    def score(x):
        return -abs(x)  # the best model is 0

    soup = greedy_soup([{"x": torch.tensor(v, dtype=torch.float64)} for v in values], lambda s: score(s["x"].item()))
    kept = greedy_reference(values, score)
    assert soup.accepted == kept
    assert soup.state["x"].item() == pytest.approx(sum(values[i] for i in kept) / len(kept))
    assert soup.scores == [score(v) for v in values]
    assert soup.score == pytest.approx(score(soup.state["x"].item()))


def test_greedy_soup_is_a_uniform_mean_and_not_one_by_halves():
    # The released code merges (soup + new) / 2, which would weight these 1/4, 1/4, 1/2.
    pool = [{"x": torch.tensor(v)} for v in (1.0, 1.0, 4.0)]
    assert greedy_soup(pool, lambda state: 0.0).state["x"].item() == 2.0


def test_greedy_soup_takes_an_equal_score_and_rejects_a_fall():
    pool = [{"x": torch.tensor(v)} for v in (0.0, 1.0)]
    assert greedy_soup(pool, lambda state: 0.0).accepted == [0, 1]
    assert greedy_soup(pool, lambda state: -state["x"].item()).accepted == [0]


def test_greedy_soup_refuses_a_score_that_is_nan():
    with pytest.raises(MergeError, match="NaN"):
        greedy_soup(members(2), lambda state: float("nan"))


# M9: recalibration


def images(n, seed=0):
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def statistics(model):
    return {key: value.clone() for key, value in model.state_dict().items() if "running" in key}


def test_first_layer_statistics_are_those_of_all_images():
    model, x = bn_model(), images(64)
    recalibrate_batchnorm(model, x.split(10))
    with torch.no_grad():
        inputs = model[0](x).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean.double(), inputs.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model[1].running_var.double(), inputs.var(1), rtol=1e-5, atol=1e-5)


def test_order_of_images_does_not_matter_to_the_first_layer():
    # Sorted by brightness, each batch has little variance of its own; the total has not.
    x = images(64) + torch.linspace(-20, 20, 64)[:, None, None, None]
    a, b, torchs = bn_model(), bn_model(), bn_model()
    recalibrate_batchnorm(a, x.split(8))
    recalibrate_batchnorm(b, x[torch.randperm(64)].split(8))
    torch.testing.assert_close(a[1].running_var, b[1].running_var, rtol=1e-4, atol=1e-4)
    update_bn(x.split(8), torchs)
    assert torchs[1].running_var.sum() < 0.5 * a[1].running_var.sum()  # the twin: torch's update_bn loses it


def test_a_short_last_batch_does_not_count_for_more():
    x = images(100)
    odd = torch.cat([x, torch.full((2, 1, 6, 6), 1000.0)])
    a, torchs = bn_model(), bn_model()
    recalibrate_batchnorm(a, odd.split(100))
    with torch.no_grad():
        expected = a[0](odd).mean((0, 2, 3))
    torch.testing.assert_close(a[1].running_mean, expected, rtol=1e-4, atol=1e-4)
    update_bn(odd.split(100), torchs)  # the twin: torch weights the 2 like the 100
    assert ((torchs[1].running_mean - expected).abs() > 10 * expected.abs() * 0.1).any()


def test_one_batch_gives_what_torch_gives():
    a, torchs = bn_model(), bn_model()
    recalibrate_batchnorm(a, [images(50)])
    update_bn([images(50)], torchs)
    torch.testing.assert_close(statistics(a), statistics(torchs), rtol=1e-5, atol=1e-6)


def test_dropout_stays_off_and_modes_come_back():
    model, plain = bn_model(dropout=0.9), bn_model(dropout=0.0)
    model.train()
    model[3].eval()
    recalibrate_batchnorm(model, images(64).split(16))
    recalibrate_batchnorm(plain, images(64).split(16))
    torch.testing.assert_close(statistics(model), statistics(plain), rtol=0, atol=0)
    assert model[1].training
    assert not model[3].training


def test_dropout_would_have_changed_the_statistics():
    # The twin: with dropout on, as update_bn leaves it, the second layer sees other activations.
    model, plain = bn_model(dropout=0.9), bn_model(dropout=0.0)
    update_bn(images(64).split(16), model)
    update_bn(images(64).split(16), plain)
    assert not torch.allclose(model[5].running_var, plain[5].running_var, rtol=0.2)


def test_weights_are_not_touched():
    model = bn_model()
    before = {key: value.clone() for key, value in model.named_parameters()}
    recalibrate_batchnorm(model, images(32).split(8))
    assert_same(
        {key: value.detach() for key, value in model.named_parameters()}, {k: v.detach() for k, v in before.items()}
    )
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "no batch"),
        ([images(8), images(1)], "batch 1.*1 image"),
        ([(images(8), torch.zeros(8))], "batch 0.*tuple"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(batches, words):
    model = bn_model()
    before = dict(model.state_dict())
    before = {key: value.clone() for key, value in before.items()}
    with pytest.raises(MergeError, match=words):
        recalibrate_batchnorm(model, batches)
    assert_same(dict(model.state_dict()), before)
    assert not any(layer._forward_pre_hooks for layer in model)


def test_a_model_without_batchnorm_is_returned_as_it_is():
    model = nn.Linear(2, 2)
    assert recalibrate_batchnorm(model, iter([])) is model


# What a run of mutmut found no test for


def test_two_values_have_the_unbiased_variance_and_batches_are_counted():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(1))
    recalibrate_batchnorm(model, [torch.tensor([[1.0], [4.0]])])
    assert model[0].running_mean.item() == 2.5
    assert model[0].running_var.item() == 4.5  # 2 * 1.5 ** 2 / (2 - 1)
    assert model[0].num_batches_tracked.item() == 1
    recalibrate_batchnorm(model, [torch.zeros(2, 1)] * 3)
    assert model[0].num_batches_tracked.item() == 3


@pytest.mark.parametrize(("nan_at", "named"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1)])
def test_a_score_that_is_nan_is_named_by_the_member_that_was_tried(nan_at, named):
    # Members score 2, 1 and 3 on their own, so the third comes first and the others are tried after it.
    values = iter([float("nan") if i == nan_at else value for i, value in enumerate([2.0, 1.0, 3.0, 9.0, 9.0])])
    with pytest.raises(MergeError) as caught:
        greedy_soup([linear_state(seed) for seed in range(3)], lambda state: next(values))
    assert caught.value.item == f"the score when member {named} was tried"
    assert caught.value.got == "NaN"
    assert "score function" in caught.value.fix


def test_refused_weights_and_batches_say_what_they_are():
    members = [linear_state(seed) for seed in range(2)]
    for weights, got, wanted in [
        ([1.0], "1 weights", "2, one per member"),
        ([1.0, float("nan")], "[1.0, nan]", "finite numbers"),
        ([1.0, -1.0], "[1.0, -1.0], whose sum is 0", "a sum that is not 0"),
    ]:
        with pytest.raises(MergeError) as caught:
            uniform_soup(members, weights)
        assert (caught.value.got, caught.value.wanted) == (got, wanted)
        assert (caught.value.doing, caught.value.item) == ("cannot merge", "weights")
        assert caught.value.fix == "Correct the weights."
    for batches, item, got in [
        ([], "batch 0", "no batch"),
        ([torch.zeros(1, 1, 6, 6)], "batch 0", "a batch of 1 image(s)"),
    ]:
        with pytest.raises(MergeError) as caught:
            recalibrate_batchnorm(bn_model(), batches)
        assert (caught.value.item, caught.value.got) == (item, got)
        assert caught.value.wanted == "tensors of at least 2 images"
        assert "drop a last batch of one image" in caught.value.fix
