"""Norms of tensors, and of soups against their members."""

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import linear_state, random_dataset, untrained

from wamlib import probe, tables
from wamlib.errors import ProbeError
from wamlib.merge import uniform_soup


@pytest.fixture(scope="module")
def pool():
    return untrained("resnet8", random_dataset(), n=4, spread=0.5)


def flat(state):
    wide = [t.double().flatten() for key, t in state.items() if "running_" not in key and "num_batches" not in key]
    return torch.cat(wide).numpy()


def test_norms_are_those_of_numpy_and_their_squares_sum_to_that_of_all(pool):
    state = pool[0].state
    norms = probe.layer_norms(state)
    assert list(norms) == [key for key in state if "running_" not in key and "num_batches" not in key]
    for key, norm in norms.items():
        assert norm == pytest.approx(np.linalg.norm(state[key].double().numpy().ravel()))
    assert math.hypot(*norms.values()) == pytest.approx(probe.weight_norm(state))


def test_a_model_brought_to_its_own_norms_is_itself(pool):
    state = pool[0].state
    torch.testing.assert_close(probe.rescale_to(state, probe.layer_norms(state)), state, rtol=1e-6, atol=0)


def test_a_rescaled_model_has_the_wanted_norms_and_its_own_directions_and_statistics(pool):
    a, b = pool[0].state, pool[1].state
    before = copy.deepcopy(a)
    found = probe.rescale_to(a, probe.layer_norms(b))
    for key, tensor in found.items():
        assert tensor.dtype == a[key].dtype
        if key not in probe.layer_norms(a):
            assert torch.equal(tensor, a[key])
            continue
        assert tensor.double().norm().item() == pytest.approx(b[key].double().norm().item(), rel=1e-6)
        cosine = torch.nn.functional.cosine_similarity(tensor.double().flatten(), a[key].double().flatten(), dim=0)
        assert cosine.item() == pytest.approx(1 if a[key].any() else 0)
    torch.testing.assert_close(a, before, rtol=0, atol=0)
    found["bn1.running_mean"] += 1
    torch.testing.assert_close(a, before, rtol=0, atol=0)  # copies, not views


def test_zeros_stay_zeros_and_can_be_asked_for():
    state = linear_state(0) | {"bias": torch.zeros(3)}
    found = probe.rescale_to(state, {"weight": 0.0, "bias": 0.0})
    assert all((tensor == 0).all() for tensor in found.values())


@pytest.mark.parametrize(
    ("norms", "message"),
    [
        ({"weight": 1.0}, "norm of 'bias'.*one of the two only"),
        ({"weight": 1.0, "bias": 0.0, "other": 1.0}, "norm of 'other'"),
        ({"weight": -1.0, "bias": 0.0}, "norm of 'weight'.*-1"),
        ({"weight": math.nan, "bias": 0.0}, "norm of 'weight'.*nan"),
        ({"weight": math.inf, "bias": 0.0}, "norm of 'weight'.*inf"),
        ({"weight": 1.0, "bias": 1.0}, "tensor 'bias'.*nothing but zeros"),
    ],
)
def test_norms_that_cannot_be_reached_are_refused(norms, message):
    with pytest.raises(ProbeError, match=message):
        probe.rescale_to(linear_state(0) | {"bias": torch.zeros(3)}, norms)


# Soups against their members


def test_ratios_are_those_of_the_soup_itself(pool):
    reference = untrained("resnet8", random_dataset(), n=5, spread=0.5)[4].state
    found = tables.norm_ratios(pool, reference, [1, 2, 4], n_subsets=3)
    every = flat(uniform_soup([run.state for run in pool]))
    spread = np.sqrt(np.mean([np.sum((flat(run.state) - every) ** 2) for run in pool]))
    for row in found[found.layer == "all"].itertuples():
        chosen = tables.subsets(4, row.n_members, 3)[row.subset]
        members = [flat(pool[i].state) for i in chosen]
        soup = flat(uniform_soup([pool[i].state for i in chosen]))
        assert row.norm_ratio == pytest.approx(np.linalg.norm(soup) / np.mean([np.linalg.norm(m) for m in members]))
        apart = [member - flat(reference) for member in members]
        rms = np.sqrt(np.mean([a @ a for a in apart]))
        assert row.deviation_ratio == pytest.approx(np.linalg.norm(np.mean(apart, axis=0)) / rms, rel=1e-5)
        assert row.centred_ratio == pytest.approx(np.linalg.norm(soup - every) / spread, abs=1e-5)
        if row.n_members > 1:
            cosine = np.mean([a @ b for a, b in itertools.combinations(apart, 2)]) / rms**2
            assert row.cosine == pytest.approx(cosine, rel=1e-5)
    kernels = found.query("n_members == 4 and layer == 'kernels'").iloc[0]
    only = [np.concatenate([t.numpy().ravel() for t in run.state.values() if t.dim() > 1]) for run in pool]
    usual = np.mean([np.linalg.norm(one) for one in only])
    assert kernels.norm_ratio == pytest.approx(np.linalg.norm(np.mean(only, axis=0)) / usual, rel=1e-5)
    layer = found.query("n_members == 4 and layer == 'conv1.weight'").iloc[0]
    soup = uniform_soup([run.state for run in pool])["conv1.weight"].norm().item()
    usual = np.mean([run.state["conv1.weight"].norm().item() for run in pool])
    assert layer.norm_ratio == pytest.approx(soup / usual, rel=1e-5)


def test_the_deviation_follows_from_the_cosine(pool):
    found = tables.norm_ratios(pool, pool[0].state, [2, 3, 4], n_subsets=2).query("deviation_ratio > 0")
    law = 1 / found.n_members + (1 - 1 / found.n_members) * found.cosine
    np.testing.assert_allclose(found.deviation_ratio**2, law)


def test_over_all_subsets_the_centred_law_is_an_identity_whatever_the_members_have_in_common(pool):
    """So it is no evidence that members are independent; these here share a drift and correlate in pairs."""
    pool = copy.deepcopy(pool)
    for run in pool[2:]:
        run.state["conv1.weight"] = run.state["conv1.weight"] + 3.0
    found = tables.norm_ratios(pool, None, [1, 2, 3, 4], n_subsets=99).query("layer == 'all'")
    for n, rows in found.groupby("n_members"):
        assert len(rows) == math.comb(4, n)
        assert np.mean(rows.centred_ratio**2) == pytest.approx(rows.centred_law.iloc[0] ** 2, abs=1e-9)
    assert found[found.n_members == 2].centred_ratio.std() > 0.1


class Member:
    """A vector that stands for a member."""

    def __init__(self, vector):
        self.state = {"weight": vector.view(100, 200), "bn.running_mean": torch.full((3,), 1e6)}


def gaussians(drift):
    draw = torch.Generator().manual_seed(0)
    common = torch.randn(20_000, generator=draw, dtype=torch.float64) * drift
    return [Member(common + torch.randn(20_000, generator=draw, dtype=torch.float64)) for _ in range(10)]


def test_independent_deviations_shrink_by_the_square_root_and_those_with_a_common_drift_do_not():
    for drift, cosine in ((0, 0), (1, 0.5)):
        found = tables.norm_ratios(gaussians(drift), None, [2, 5, 10], n_subsets=2).query("layer == 'all'")
        np.testing.assert_allclose(found.cosine, cosine, atol=0.02)
        plain = found.deviation_ratio * np.sqrt(found.n_members)
        law = np.sqrt(1 + (found.n_members - 1) * cosine)
        np.testing.assert_allclose(plain, law, rtol=0.02)
        # The drift taken off, both look alike.
        np.testing.assert_allclose(found.centred_ratio, found.centred_law, atol=0.02)


def test_what_cannot_be_compared_is_refused(pool):
    with pytest.raises(ProbeError, match="sizes"):
        tables.norm_ratios(pool, None, [5])
    with pytest.raises(ProbeError, match=r"pool.*one member"):
        tables.norm_ratios(pool[:1], None, [1])
    with pytest.raises(ProbeError, match=r"reference.*conv1\.weight"):
        tables.norm_ratios(pool, {k: t for k, t in pool[0].state.items() if k != "conv1.weight"}, [2])


def test_rows_name_every_learnable_tensor_once(pool):
    found = tables.norm_ratios(pool, None, [2, 4], n_subsets=2)
    counts = found.groupby(["n_members", "subset"]).layer.agg(list)
    assert all(layers == ["all", "kernels", *probe.layer_norms(pool[0].state)] for layers in counts)
    assert isinstance(found, pd.DataFrame)
    assert len(counts) == 3
