"""Fisher merging and RegMean against their formulas in float64, each promise with a twin that fails."""

import pytest
import references
import torch
from helpers import bn_model
from references import assert_equals, eighths, fine_tuned
from torch import nn

from wamlib.errors import MemberMismatchError, MergeError, NonFiniteMemberError
from wamlib.merge import fisher, fisher_diagonal, gram_matrices, regmean, uniform_soup

LEARNABLE = ("conv.weight", "norm.weight", "head.weight", "scale", "none")


def pool(n=3, dtype=torch.float32):
    base = eighths(0, dtype)
    return [fine_tuned(base, seed) for seed in range(1, n + 1)]


def diagonals(members, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [{k: torch.rand(m[k].shape, generator=generator) for k in LEARNABLE} for m in members]
    draw[0]["head.weight"][0] = 0
    return draw


def grams(members, groups=1, seed=0, n_rows=50):
    generator, out = torch.Generator().manual_seed(seed), []
    for member in members:
        out.append({})
        for key in ("conv.weight", "head.weight"):
            n_inputs = member[key][0].numel()
            rows = torch.randn(groups, n_rows, n_inputs, generator=generator, dtype=torch.float64)
            out[-1][key] = rows.mT @ rows / n_rows
    return out


def images(n=12, seed=0):
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


# Fisher


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [[1, 1, 1], [0.2, 0, 3]])
def test_fisher_is_the_published_formula(weights, dtype):
    members = pool(dtype=dtype)
    infos = diagonals(members)
    got = fisher(members, infos, weights, floor=0.01)
    wanted = references.fisher(members, infos, weights, 0.01)
    assert_equals(got, wanted)
    with pytest.raises(AssertionError):  # the twin: the information matters
        assert_equals(uniform_soup(members, weights), wanted)


def test_fisher_with_equal_information_is_the_weighted_soup():
    members = pool(dtype=torch.float64)
    same = diagonals(members)[1]
    assert_equals(fisher(members, [same] * 3, [1, 2, 3]), references.arrays(uniform_soup(members, [1, 2, 3])))


def test_where_nothing_is_known_fisher_averages():
    members = pool(dtype=torch.float64)
    nothing = [{key: torch.zeros(member[key].shape) for key in LEARNABLE} for member in members]
    assert_equals(fisher(members, nothing), references.arrays(uniform_soup(members)))


def test_fisher_takes_each_weight_from_the_member_that_knows_it():
    members, infos = pool(2, torch.float64), diagonals(pool(2))
    for which, info in enumerate(infos):
        info["head.weight"] = torch.full((3, 5), 1.0 if which == 1 else 0.0)
    merged = fisher(members, infos, floor=1e-12)
    torch.testing.assert_close(merged["head.weight"], members[1]["head.weight"], rtol=1e-9, atol=1e-9)


def test_fisher_of_copies_is_the_model():
    member = pool(1)[0]
    torch.testing.assert_close(fisher([member] * 3, diagonals([member] * 3)), member, rtol=0, atol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_diagonal_is_that_of_one_backward_pass_per_image_and_class(dropout):
    model = bn_model(dropout=dropout).train()
    batch = images()
    got = fisher_diagonal(model, [batch[:5], batch[5:]])
    assert all(module.training for module in model.modules())
    assert all(tensor.grad is None for tensor in model.parameters())
    wanted = references.fisher_diagonal(model, batch)
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(got[key].double(), tensor, rtol=1e-4, atol=1e-7)


def test_the_diagonal_does_not_depend_on_how_many_images_are_held_at_a_time(monkeypatch):
    model, batch = bn_model(), images()
    whole = fisher_diagonal(model, [batch])
    monkeypatch.setattr("wamlib.merge.curvature.VALUES", 1)
    torch.testing.assert_close(fisher_diagonal(model, [batch]), whole, rtol=1e-4, atol=1e-7)


def test_the_label_of_the_mode_is_not_the_expectation():
    # The twin: the "empirical" Fisher takes the observed or likeliest class alone, and is another matrix.
    model, batch = bn_model(), images()
    likeliest = {key: torch.zeros_like(tensor) for key, tensor in model.named_parameters()}
    for image in batch:
        log = model(image[None]).log_softmax(1).max()
        for key, slope in zip(likeliest, torch.autograd.grad(log, list(model.parameters())), strict=True):
            likeliest[key] += slope**2 / len(batch)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(fisher_diagonal(model, [batch]), likeliest, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"weights": [1, -1, 1]}, "nonnegative"),
        ({"weights": [1, 1]}, "one per member"),
        ({"floor": 0}, "floor"),
        ({"floor": float("inf")}, "floor"),
        ({"floor": float("nan")}, "floor"),
        ({"floor": "small"}, "floor"),
    ],
)
def test_fisher_refuses_unusable_arguments(arguments, word):
    members = pool()
    with pytest.raises(MergeError, match=word):
        fisher(members, diagonals(members), **arguments)


def change(companions, key, value):
    companions[1][key] = value
    return companions


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda d: d[:2], "one per member"),
        (lambda d: [{}, {}, {}], "no tensor"),
        (lambda d: change(d, "other", torch.ones(2)), "other"),
        (lambda d: [{**diagonal, "other": torch.ones(2)} for diagonal in d], "other"),
        (lambda d: change(d, "head.weight", torch.ones(5, 3)), r"\(5, 3\)"),
        (lambda d: change(d, "head.weight", torch.full((3, 5), float("nan"))), "NaN"),
        (lambda d: change(d, "head.weight", torch.full((3, 5), -1.0)), "negative"),
    ],
)
def test_fisher_refuses_diagonals_that_do_not_fit(spoil, word):
    members = pool()
    with pytest.raises(MergeError, match=word):
        fisher(members, spoil(diagonals(members)))


@pytest.mark.parametrize("measure", [fisher_diagonal, gram_matrices])
def test_no_image_is_refused_and_the_mode_kept(measure):
    model = bn_model().train()
    with pytest.raises(MergeError, match="no image"):
        measure(model, [])
    assert all(module.training for module in model.modules())


# RegMean


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shrink", [0.0, 0.5, 0.9, 1])
def test_regmean_is_the_published_formula(shrink, dtype):
    members = pool(dtype=dtype)
    gram = grams(members)
    got, wanted = regmean(members, gram, shrink), references.regmean(members, gram, shrink)
    close(got, wanted)
    with pytest.raises(AssertionError):
        close(uniform_soup(members), wanted)


def close(got, wanted):
    """As `assert_equals`, for values that two solvers found: 1e-8 in float64."""
    for key, tensor in got.items():
        eps = max(1e-8, torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0
        torch.testing.assert_close(tensor.double(), torch.as_tensor(wanted[key]).double(), rtol=eps, atol=eps)


def test_regmean_of_groups_solves_each_on_its_own():
    members = pool(dtype=torch.float64)
    gram = grams(members)
    for number, one in enumerate(gram):
        rows = torch.randn(2, 50, 12, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        one["conv.weight"] = rows.mT @ rows
    close(regmean(members, gram), references.regmean(members, gram, 0.9))


def test_the_shrinkage_is_the_published_one_unless_asked():
    members, gram = pool(), grams(pool())
    close(regmean(members, gram), references.regmean(members, gram, 0.9))


def test_regmean_has_the_least_squared_distance_from_the_members_outputs():
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    members = [{"weight": torch.randn(3, 5, generator=generator, dtype=torch.float64)} for _ in range(2)]
    gram = [{"weight": (x.T @ x / 40)[None]} for x in inputs]

    def distance(weight):
        pairs = zip(inputs, members, strict=True)
        return sum((x @ (weight - member["weight"]).T).square().sum().item() for x, member in pairs)

    best = regmean(members, gram, shrink=1.0)["weight"]
    for seed in range(20):
        nudge = 1e-3 * torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert distance(best) < distance(best + nudge)
    assert distance(best) < 0.999 * distance(uniform_soup(members)["weight"])


def test_dead_inputs_are_averaged():
    members = pool(dtype=torch.float64)
    gram = grams(members)
    for one in gram:
        one["head.weight"][:, 2] = 0
        one["head.weight"][:, :, 2] = 0
    merged, mean = regmean(members, gram), uniform_soup(members)
    torch.testing.assert_close(merged["head.weight"][:, 2], mean["head.weight"][:, 2], rtol=1e-12, atol=1e-12)
    for one in gram:
        one["head.weight"][:] = 0
    torch.testing.assert_close(regmean(members, gram)["head.weight"], mean["head.weight"], rtol=0, atol=0)


def test_regmean_of_copies_is_the_model():
    member = pool(1)[0]
    torch.testing.assert_close(regmean([member] * 3, grams([member] * 3)), member, rtol=0, atol=0)


def test_fewer_images_than_inputs_are_enough():
    members = pool(dtype=torch.float64)
    few = grams(members, n_rows=2)
    for shrink in (0.9, 1.0):
        merged = regmean(members, few, shrink)
        assert all(tensor.isfinite().all() for tensor in merged.values())
        assert merged["head.weight"].abs().max() < 100


@pytest.mark.parametrize("shrink", [-0.1, 1.1, float("nan"), "all"])
def test_regmean_refuses_an_unusable_shrinkage(shrink):
    with pytest.raises(MergeError, match="shrink"):
        regmean(pool(), grams(pool()), shrink)


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("head.weight", torch.ones(5, 5)),
        ("head.weight", torch.ones(1, 4, 4)),
        ("conv.weight", torch.ones(3, 12, 12)),
        ("head.weight", torch.full((1, 5, 5), float("inf"))),
    ],
)
def test_regmean_refuses_gram_matrices_that_do_not_fit(key, tensor):
    with pytest.raises(MemberMismatchError, match="Gram matrices of member 1"):
        regmean(pool(), change(grams(pool()), key, tensor))


def test_a_spoiled_member_is_refused():
    members = pool()
    members[1]["head.weight"][0, 0] = float("nan")
    for merge, measured in ((fisher, diagonals(members)), (regmean, grams(members))):
        with pytest.raises(NonFiniteMemberError, match="member 1"):
            merge(members, measured)


LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear of tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "convolution": (nn.Conv2d(4, 6, 3, padding=1, stride=2), (3, 4, 7, 8)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (3, 4, 7, 8)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding="same"), (3, 4, 7, 8)),
    "even kernel": (nn.Conv2d(4, 6, (2, 4), padding="same"), (3, 4, 7, 8)),
    "no padding": (nn.Conv2d(4, 6, 3, padding="valid"), (3, 4, 7, 8)),
    "reflected": (nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect"), (3, 4, 7, 8)),
}


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_gram_matrices_are_those_of_what_the_layer_multiplies(name):
    """With weights w the mean square of the outputs without bias is w G w', whatever the layer."""
    layer, shape = LAYERS[name]
    model = nn.Sequential(layer).double()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gram = gram_matrices(model, [x[:1], x[1:]])["0.weight"]
    with torch.no_grad():
        y = model(x) - (0 if layer.bias is None else layer.bias.view(-1, *[1] * (0 if x.dim() < 4 else 2)))
    out_first = y.movedim(1 if x.dim() == 4 else -1, 0).flatten(1)  # (output, row)
    weight = layer.weight.detach().reshape(len(gram), -1, gram.shape[1])
    predicted = torch.einsum("goi,gij,goj->go", weight, gram, weight).flatten()
    torch.testing.assert_close(predicted, out_first.square().mean(1))
    torch.testing.assert_close(gram, gram.mT)


def test_gram_matrices_leave_the_model_alone():
    model = bn_model().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    gram = gram_matrices(model, [images()])
    assert set(gram) == {"0.weight", "4.weight", "9.weight"}
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
