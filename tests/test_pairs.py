"""Lines between two members: what lies on them is the same as without `Line`, and repairs do what they promise."""

import pytest
import torch
from helpers import random_dataset, untrained

from wamlib import align, evaluate, pairs
from wamlib.merge import interpolate, recalibrate_batchnorm
from wamlib.pools import Pool


@pytest.fixture(scope="module", params=["mlp", "resnet8"])
def pool(request):
    dataset = random_dataset()
    return Pool(untrained(request.param, dataset, 2, spread=1.0), dataset)


def test_only_networks_with_batchnorm_can_be_recalibrated(pool):
    assert pairs.repairs(pool) == [name for name in pairs.REPAIRS if pool.model == "resnet8" or name != "recalibrated"]


@pytest.mark.parametrize("matching", pairs.MATCHINGS)
def test_a_matched_member_is_the_same_function(pool, matching):
    a, b = pool.states[0], align.apply(align.random_permutation(pool.module, seed=0), pool.states[1])
    found = pairs.matched(pool, a, b, matching)
    torch.testing.assert_close(pool.logits(found), pool.logits(b), rtol=1e-3, atol=1e-3)
    assert (matching == "none") == (found is b)
    assert any(not torch.equal(found[key], b[key]) for key in b) == (matching != "none")


def test_every_point_of_a_line_is_what_its_repair_makes_of_the_mixture(pool):
    line, images = pairs.Line(pool, *pool.states), pool.training_batches()
    for alpha in (0.25, 0.5):
        for repair in pairs.repairs(pool):
            found = line.logits(alpha, repair)
            module = pool.load(interpolate(*pool.states, alpha))
            if repair == "recalibrated":
                recalibrate_batchnorm(module, images)
            if repair == "REPAIR":  # the members are measured anew, which Line does once for all points
                align.repair(module, pool.states, images, weights=[1 - alpha, alpha])
            expected = evaluate.predict_logits(module, pool.dataset.test)
            assert torch.equal(found, expected)
            assert torch.equal(evaluate.predict_logits(line.network(alpha, repair), pool.dataset.test), expected)


def test_the_ends_of_a_line_are_not_rescaled(pool):
    line = pairs.Line(pool, *pool.states)
    for alpha, state in zip((0, 1), pool.states, strict=True):
        assert torch.equal(line.logits(alpha, "REPAIR"), pool.logits(state))
        labels = pool.dataset.test.labels
        assert line.error(alpha, "none") == 100 - evaluate.accuracy(pool.logits(state), labels)
