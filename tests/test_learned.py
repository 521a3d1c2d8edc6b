"""The learned soup: D11 and the recipe of its paper, each promise with a twin that fails."""

import pytest
import torch
import torch.nn.functional as F
from helpers import bn_model, linear_state
from torch import nn

from wamlib.errors import MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import interpolate, learned_soup, uniform_soup

PER = ["model", "tensor"]


def batches(model, n=4, seed=0):
    """Images whose labels are what the model says."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 6, 6) if isinstance(model[0], nn.Conv2d) else (4,)
    out = []
    for _ in range(n):
        images = torch.randn(32, *shape, generator=generator)
        with torch.no_grad():
            out.append((images, model(images).argmax(1)))
    return out


def linear_model(state):
    model = nn.Sequential(nn.Linear(4, 3))
    model.load_state_dict({f"0.{key}": tensor for key, tensor in state.items()})
    return model


def linear_pool(n=3):
    return [linear_model(linear_state(seed)).state_dict() for seed in range(n)]


def cross_entropy(model, state, batches, temperature=1.0):
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        return (
            torch.cat([F.cross_entropy(model(x) / temperature, y, reduction="none") for x, y in batches]).mean().item()
        )


@pytest.mark.parametrize("per", PER)
def test_the_member_that_made_the_labels_gets_the_share(per):
    members = linear_pool()
    model = linear_model(linear_state(1))
    soup = learned_soup(members, model, batches(model), per=per, epochs=60, lr=0.2)
    weight = soup.shares["0.weight"]
    assert weight[1] > 0.9
    assert soup.losses[0] == pytest.approx(
        cross_entropy(model, uniform_soup(members), batches(linear_model(linear_state(1))))
    )
    assert min(soup.losses) < soup.losses[0]
    reached = cross_entropy(model, soup.state, batches(linear_model(linear_state(1))), soup.temperature)
    assert reached == pytest.approx(min(soup.losses), rel=1e-4)


@pytest.mark.parametrize("per", PER)
def test_the_soup_is_the_weighted_soup_of_its_shares(per):
    members = linear_pool()
    model = linear_model(linear_state(1))
    soup = learned_soup(members, model, batches(model), per=per)
    for key, shares in soup.shares.items():
        assert sum(shares) == pytest.approx(1)
        torch.testing.assert_close(soup.state[key], uniform_soup(members, shares)[key])
    (weight, bias) = (soup.shares[f"0.{name}"] for name in ("weight", "bias"))
    assert (weight == bias) is (per == "model")


def test_two_members_end_where_a_search_along_their_line_ends():
    members = linear_pool(2)
    between = linear_model(linear_state(0))
    between.load_state_dict(interpolate(*members, 0.7))
    data = batches(between, n=8)
    model = linear_model(linear_state(0))
    soup = learned_soup(members, model, data, epochs=150, lr=0.1)
    assert soup.shares["0.weight"][1] == pytest.approx(0.7, abs=0.05)
    with pytest.raises(AssertionError):  # the twin: one epoch is not enough to get there
        assert learned_soup(members, model, data, epochs=1, lr=0.01).shares["0.weight"][1] == pytest.approx(
            0.7, abs=0.05
        )


def test_a_soup_that_gets_worse_is_not_taken():
    members = linear_pool()
    model = linear_model(linear_state(1))
    soup = learned_soup(members, model, batches(model), lr=1e4, epochs=3)
    assert min(soup.losses) == soup.losses[0]
    assert soup.temperature == 1
    torch.testing.assert_close(soup.state, uniform_soup(members), rtol=0, atol=0)


@pytest.mark.parametrize("per", PER)
def test_variances_stay_positive_and_the_model_is_left_alone(per):
    members = [dict(bn_model(seed).state_dict()) for seed in range(3)]
    copies = [{key: tensor.clone() for key, tensor in member.items()} for member in members]
    model = bn_model(5, dropout=0.5).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for batch_statistics in (False, True):
        soup = learned_soup(members, model, batches(bn_model(1)), per=per, lr=1.0, batch_statistics=batch_statistics)
        assert (soup.state["1.running_var"] > 0).all()
        assert soup.state["1.num_batches_tracked"] == members[0]["1.num_batches_tracked"]
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(members, copies, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_batch_statistics_are_those_of_the_batch():
    members = [dict(bn_model(seed).state_dict()) for seed in range(2)]
    spoiled = [{k: t * 0 + 1e6 if k.endswith("running_mean") else t for k, t in member.items()} for member in members]
    model, data = bn_model(), batches(bn_model(1))

    def start(members, flag):
        return learned_soup(members, model, data, epochs=1, batch_statistics=flag).losses[0]

    assert start(members, True) == start(spoiled, True)
    assert start(members, False) != start(spoiled, False)


def test_dropout_stays_off():
    members = [dict(bn_model(seed).state_dict()) for seed in range(2)]
    data = batches(bn_model(1))
    with_dropout, without = (learned_soup(members, bn_model(0, rate), data) for rate in (0.5, 0.0))
    assert with_dropout.losses == without.losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_members_of_other_dtypes_keep_theirs(dtype):
    members = [{key: tensor.to(dtype) for key, tensor in member.items()} for member in linear_pool()]
    model = linear_model(linear_state(1)).to(dtype)
    data = [(images.to(dtype), labels) for images, labels in batches(linear_model(linear_state(1)))]
    soup = learned_soup(members, model, data)
    assert {tensor.dtype for tensor in soup.state.values()} == {dtype}


def test_tied_tensors_have_one_share_and_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3, bias=False)
            self.b = nn.Linear(3, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        members.append(Tied().state_dict())
    data = [(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)]
    soup = learned_soup(members, Tied(), data, per="tensor")
    assert list(soup.shares) == ["a.weight"]
    assert soup.state["a.weight"].data_ptr() == soup.state["b.weight"].data_ptr()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"per": "layer"}, "per"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
    ],
)
def test_unusable_arguments_are_refused(arguments, word):
    model = linear_model(linear_state(1))
    with pytest.raises(MergeError, match=word):
        learned_soup(linear_pool(), model, batches(model), **arguments)


@pytest.mark.parametrize("data", [[], [torch.ones(2, 4)], [(torch.ones(2, 4),)]])
def test_unusable_batches_are_refused(data):
    with pytest.raises(MergeError, match="batches"):
        learned_soup(linear_pool(), linear_model(linear_state(1)), data)


def test_members_that_do_not_fit_the_model_are_refused():
    members, data = linear_pool(), batches(linear_model(linear_state(1)))
    with pytest.raises(MemberMismatchError, match=r"0\.weight"):
        learned_soup(members, nn.Sequential(nn.Linear(4, 2)), data)
    with pytest.raises(MemberMismatchError, match=r"1\.weight"):
        learned_soup(members, nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), data)
    with pytest.raises(MemberMismatchError, match=r"0\.bias"):
        learned_soup(members, nn.Sequential(nn.Linear(4, 3, bias=False)), data)
    members[2]["0.bias"][0] = float("inf")
    with pytest.raises(NonFiniteMemberError, match="member 2"):
        learned_soup(members, linear_model(linear_state(1)), data)
