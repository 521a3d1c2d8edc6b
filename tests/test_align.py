"""Alignment (M10): a permuted network computes the same, and a hidden permutation is found."""

import copy

import pytest
import torch
import torchvision
from conftest import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wamlib import align, models, probe
from wamlib.errors import AlignmentError, MemberMismatchError
from wamlib.merge import interpolate
from wamlib.pools import Pool

TORCHVISION = ["resnet18", "resnet34", "resnet50", "vgg11", "vgg11_bn", "densenet121", "mobilenet_v2"]
ALIGNABLE = [name for name in models.SMALL if name != "vit"]  # refused, see below
SIZES = dict.fromkeys(ALIGNABLE, (1, 16, 16)) | dict.fromkeys(TORCHVISION, (3, 32, 32))
SMALL = ["mlp", "cnn", "vgg", "vgg_bn", "resnet8"]


def build(name, seed=0, dtype=torch.float32):
    """A network with statistics and affine parameters of BatchNorm that are not the initial ones."""
    torch.manual_seed(seed)
    channels, *size = SIZES[name]
    if name in ALIGNABLE:
        model = models.build(name, 10, channels, tuple(size), seed=seed)
    else:
        model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.add_(torch.randn_like(tensor) * 0.3)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            module.bias.data.normal_(0, 0.3)
    return model.to(dtype).eval()


def images(name, n=2, dtype=torch.float32):
    return torch.randn(n, *SIZES[name], generator=torch.Generator().manual_seed(1)).to(dtype)


def outputs(model, state, x):
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval()(x)


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


# The specification: function equality


# The VGGs of torchvision, of 130 million weights, in one dtype each: they cost seconds.
LARGE = {"vgg11": torch.float32, "vgg11_bn": torch.float64}
EACH = [(name, dtype) for name in SIZES for dtype in (torch.float32, torch.float64) if LARGE.get(name, dtype) == dtype]


@pytest.mark.parametrize(("name", "dtype"), EACH)
def test_a_permuted_network_computes_the_same(name, dtype):
    model, x = build(name, dtype=dtype), images(name, dtype=dtype)
    permuted = align.apply(align.random_permutation(model, seed=0), model.state_dict())
    expected = outputs(model, model.state_dict(), x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert (outputs(model, permuted, x) - expected).abs().max() <= tolerance * expected.abs().max()
    if name != "linear":  # its only layer gives the logits
        assert probe.distance(model.state_dict(), permuted) > 0.5 * probe.weight_norm(permuted)


@pytest.mark.parametrize("name", ["resnet8", "vgg_bn", "resnet18"])
@pytest.mark.parametrize("forgotten", ["running_mean", "running_var", "weight"])
def test_what_a_permutation_forgets_changes_the_function(name, forgotten):
    model, x = build(name), images(name)
    permuted = align.apply(align.random_permutation(model, seed=0), model.state_dict())
    norms = [key for key in permuted if key.endswith(f".{forgotten}") and permuted[key].dim() == 1]
    broken = permuted | {key: model.state_dict()[key] for key in norms}
    expected = outputs(model, model.state_dict(), x)
    assert (outputs(model, broken, x) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_layers_of_a_residual_stream_share_one_permutation():
    model = build("resnet18")
    spec = align.trace(model)
    stream = spec.axes["layer1.0.conv2.weight"][0]
    for key in ("conv1.weight", "layer1.1.conv2.weight", "bn1.running_var"):
        assert spec.axes[key][0] == stream
    for key in ("layer1.1.conv1.weight", "layer2.0.downsample.0.weight"):
        assert spec.axes[key][1] == stream
    assert spec.axes["layer1.0.conv1.weight"][0] != stream
    x, expected = images("resnet18"), outputs(model, model.state_dict(), images("resnet18"))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    state = model.state_dict()  # the twin: one writer of the stream goes its own way
    for key in [k for k in state if k.startswith(("layer1.1.conv2", "layer1.1.bn2")) and state[k].dim()]:
        state[key] = state[key][order]
    assert (outputs(model, state, x) - expected).abs().max() > 1e-3 * expected.abs().max()


def test_images_and_logits_keep_their_order():
    for name in SIZES.keys() - LARGE.keys():
        model = build(name)
        permuted = align.apply(align.random_permutation(model, seed=3), model.state_dict())
        assert_same(permuted[list(permuted)[-1]], model.state_dict()[list(permuted)[-1]])  # the classifier's bias
        first = align.trace(model).axes[next(iter(permuted))]
        assert 1 not in first


def test_permuting_leaves_model_and_weights_alone():
    model = build("resnet8")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    align.apply(align.random_permutation(model, seed=0), model.state_dict())["bn1.weight"].zero_()
    align.permutation(before, before, model.train(), by="activations", batches=[images("resnet8", 8)])
    assert_same(dict(model.state_dict()), before)
    assert model.training


def test_a_random_permutation_is_fixed_by_its_seed():
    model = build("mlp")
    orders = [align.random_permutation(model, seed=seed).orders for seed in (0, 0, 1)]
    assert all(torch.equal(orders[0][g], orders[1][g]) for g in orders[0])
    assert not all(torch.equal(orders[0][g], orders[2][g]) for g in orders[0])


# Graphs


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.wide = nn.Linear(12, 3)
        self.attention = nn.MultiheadAttention(6, 2)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.c(m.b(m.b(m.a(x)).relu()).relu()),  # one layer called twice
        lambda m, x: m.c(m.a(x).relu() + m.b(m.a(x).relu()) * 2 - 1),
        lambda m, x: m.wide(torch.cat([m.a(x).tanh(), m.b(m.a(x)).tanh()], dim=1)),
        lambda m, x: m.c(torch.nn.functional.relu(m.a(x), inplace=True).view(x.size(0), -1)),
        lambda m, x: m.c(m.a(x).relu() * torch.sigmoid(m.b(m.a(x)))),
    ],
)
def test_graphs_that_are_understood(forward):
    torch.manual_seed(0)
    model = Net(forward).eval()
    state, x = model.state_dict(), torch.randn(5, 4)
    permuted = align.apply(align.random_permutation(model, seed=0), state)
    torch.testing.assert_close(outputs(model, permuted, x), outputs(model, state, x), rtol=1e-5, atol=1e-6)
    assert probe.distance(state, permuted) > 0.1


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda m, x: m.attention(m.a(x), m.a(x), m.a(x))[0], "MultiheadAttention"),
        (lambda m, x: m.c(m.a(x).flip(1)), "flip"),
        (lambda m, x: m.c(torch.softmax(m.a(x), 1)), "softmax"),
        (lambda m, x: m.c(m.a(x)[:, [0, 2, 1, 3, 4, 5]]), "indexed"),
        (lambda m, x: m.c(m.a(x) @ m.b.weight), "bare parameter"),
        (lambda m, x: m.c(m.a(x)) if x.sum() > 0 else m.c(m.b(m.a(x))), "control flow"),
    ],
)
def test_what_is_not_understood_is_refused_and_named(forward, words):
    with pytest.raises(AlignmentError, match=words):
        align.trace(Net(forward))


def test_a_vision_transformer_is_refused():
    with pytest.raises(AlignmentError, match="acts unit by unit"):
        align.random_permutation(models.build("vit", 10, 1, (16, 16)), seed=0)


def test_a_grouped_convolution_keeps_its_order():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    state, x = model.state_dict(), torch.randn(2, 1, 8, 8)
    permuted = align.apply(align.random_permutation(model, seed=1), state)
    torch.testing.assert_close(outputs(model, permuted, x), outputs(model, state, x), rtol=1e-5, atol=1e-6)
    assert_same(permuted["2.weight"], state["2.weight"])
    assert not torch.equal(permuted["4.weight"], state["4.weight"])


# Matching


LARGEST = pytest.param("vgg11_bn", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*SMALL, "resnet18", "resnet34", "resnet50", LARGEST])
def test_a_hidden_permutation_is_found_by_weights(name):
    model = build(name)
    state = model.state_dict()
    hidden = align.apply(align.random_permutation(model, seed=5), state)
    assert_same(align.apply(align.permutation(state, hidden, model), hidden), dict(state))


@pytest.mark.parametrize("name", ["mlp"])
def test_a_hidden_permutation_is_found_by_activations(name):
    model = build(name)
    state, x = model.state_dict(), images(name, 200)
    hidden = align.apply(align.random_permutation(model, seed=5), state)
    found = align.permutation(state, hidden, model, by="activations", batches=[x[:100], x[100:]])
    near, far = (probe.distance(state, other) for other in (align.apply(found, hidden), hidden))
    # Units that no image excites cannot be told apart, and do not matter.
    assert near < 0.3 * far
    middle, expected = interpolate(state, align.apply(found, hidden), 0.5), outputs(model, state, x)
    atol = 0.05 * expected.abs().max().item()
    torch.testing.assert_close(outputs(model, middle, x), expected, rtol=0, atol=atol)


@given(st.integers(0, 1000))
@settings(max_examples=8)
def test_matching_never_moves_members_apart(seed):
    model = build("mlp")
    a, b = build("mlp", seed).state_dict(), build("mlp", seed + 1).state_dict()
    matched = align.apply(align.permutation(a, b, model, seed=seed), b)
    assert probe.distance(a, matched) < probe.distance(a, b)
    shuffled = align.apply(align.random_permutation(model, seed), b)
    assert probe.distance(a, matched) < probe.distance(a, shuffled)


def test_matching_one_layer_is_the_exact_assignment():
    import itertools

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    a, b = ({key: torch.randn_like(value) for key, value in model.state_dict().items()} for _ in range(2))

    def distance(order):
        order = list(order)
        moved = {**b, "0.weight": b["0.weight"][order], "0.bias": b["0.bias"][order]}
        moved["2.weight"] = b["2.weight"][:, order]
        return sum((a[key].double() - moved[key].double()).square().sum().item() for key in a) ** 0.5

    best = min(map(distance, itertools.permutations(range(5))))
    found = align.apply(align.permutation(a, b, model), b)
    assert probe.distance(a, found) == pytest.approx(best)


def test_running_statistics_do_not_decide_a_matching():
    model = build("resnet8")
    a, b = (build("resnet8", seed).state_dict() for seed in (1, 2))
    louder = {key: value * 100 if "running" in key else value for key, value in b.items()}
    first, second = (align.permutation(a, other, model).orders for other in (b, louder))
    assert all(torch.equal(first[group], second[group]) for group in first)


def test_matching_lowers_the_barrier_between_trained_members(store):
    runs = [store.train(tiny(init_seed=seed, seed=seed, epochs=10, peak_lr=0.1)) for seed in range(2)]
    pool = Pool(runs, store.dataset(runs[0].config))
    a, b = pool.states
    naive = probe.barrier(a, b, pool.error).height
    for by, batches in (("weights", None), ("activations", pool.training_batches())):
        found = align.permutation(a, b, pool.module, by=by, batches=batches)
        assert probe.barrier(a, align.apply(found, b), pool.error).height < 0.6 * naive, by


def test_merge_many_finds_copies_and_keeps_functions():
    model, x = build("mlp"), images("mlp")
    state = model.state_dict()
    members = [align.apply(align.random_permutation(model, seed), state) for seed in range(3)]
    aligned = align.merge_many(members, model, seed=1)
    for member in aligned:
        assert_same(member, aligned[0])
        torch.testing.assert_close(outputs(model, member, x), outputs(model, state, x), rtol=1e-5, atol=1e-5)
    assert len({id(member) for member in align.merge_many(members[:1], model)}) == 1


def test_bad_arguments_are_refused():
    model = build("mlp")
    state = model.state_dict()
    with pytest.raises(AlignmentError, match="'luck'"):
        align.permutation(state, state, model, by="luck")
    with pytest.raises(AlignmentError, match="batches"):
        align.permutation(state, state, model, by="activations")
    with pytest.raises(AlignmentError, match="batches"):
        align.repair(model, [state, state], [])
    with pytest.raises(MemberMismatchError, match="conv1"):
        align.permutation(state, build("cnn").state_dict(), model)
    with pytest.raises(AlignmentError, match="no key"):
        align.apply(align.random_permutation(model, 0), {"x": torch.zeros(1)})


# REPAIR


def unit_moments(model, site, x, *, before):
    caught = []
    module = model.get_submodule(site)
    hook = (
        module.register_forward_pre_hook(lambda m, i: caught.append(i[0]))
        if before
        else module.register_forward_hook(lambda m, i, o: caught.append(o))
    )
    with torch.no_grad():
        model.eval()(x)
    hook.remove()
    values = caught[0].transpose(0, 1).flatten(1).double()
    return values.mean(1), values.std(1, correction=0)


@pytest.mark.parametrize(("name", "site"), [("mlp", "fc3"), ("cnn", "conv3"), ("vgg", "fc"), ("vgg_bn", "fc")])
def test_repaired_units_have_the_members_means_and_spreads(name, site):
    model, x = build(name), images(name, 64)
    members = [build(name, seed).state_dict() for seed in (1, 2)]
    model.load_state_dict(interpolate(*members, 0.3))
    broken = unit_moments(model, site, x, before=False)
    single = [copy.deepcopy(model) for _ in members]
    for one, member in zip(single, members, strict=True):
        one.load_state_dict(member)
    ends = [unit_moments(one, site, x, before=False) for one in single]
    align.repair(model, members, [x], weights=[0.7, 0.3])
    for found, worse, first, second in zip(unit_moments(model, site, x, before=False), broken, *ends, strict=True):
        wanted = 0.7 * first + 0.3 * second
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(worse, wanted, rtol=1e-2)  # the twin: unrepaired units do not


def test_repair_folds_into_batchnorm_what_rescaling_its_input_would_do():
    model, x = build("resnet8"), images("resnet8", 64)
    members = [build("resnet8", seed).state_dict() for seed in (1, 2)]
    model.load_state_dict(interpolate(*members, 0.5))
    stale = copy.deepcopy(model)
    singles = [copy.deepcopy(model) for _ in members]
    for one, member in zip(singles, members, strict=True):
        one.load_state_dict(member)
    (m1, s1), (m2, s2) = (unit_moments(one, "bn1", x, before=True) for one in singles)
    align.repair(model, members, [x])
    with torch.no_grad():
        raw = stale.conv1(x).double()
        mean, spread = unit_moments(stale, "bn1", x, before=True)
        shape = (1, -1, 1, 1)
        moved = (raw - mean.view(shape)) / spread.view(shape) * ((s1 + s2) / 2).view(shape) + ((m1 + m2) / 2).view(
            shape
        )
        torch.testing.assert_close(model.bn1(stale.conv1(x)), stale.bn1(moved.float()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALL)
def test_repairing_a_member_with_itself_changes_nothing(name):
    model, x = build(name), images(name, 128)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    align.repair(model, [state, state], [x])
    torch.testing.assert_close(outputs(model, model.state_dict(), x), outputs(model, state, x), rtol=1e-3, atol=1e-3)


def test_repair_leaves_the_model_alone_when_it_fails():
    model = build("resnet8").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuntimeError):
        align.repair(model, [before, before], [images("resnet8", 8), torch.zeros(2, 5, 3, 3)])
    assert_same(dict(model.state_dict()), before)
    assert model.training


def test_a_unit_that_never_varies_survives_repair():
    model, x = build("mlp"), images("mlp", 32)
    dead = {key: value.clone() for key, value in model.state_dict().items()}
    dead["fc1.weight"][0], dead["fc1.bias"][0] = 0, 0
    model.load_state_dict(dead)
    align.repair(model, [dead, dead], [x])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
