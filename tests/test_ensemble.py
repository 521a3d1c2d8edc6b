"""Averages of outputs (M13): what each name means, and where two of them are the same."""

import pytest
import torch
import torch.nn.functional as F
from helpers import linear_state

from wamlib.ensemble import feature_ensemble, logit_ensemble, probability_ensemble
from wamlib.errors import MemberMismatchError, MergeError
from wamlib.evaluate import fit_temperature
from wamlib.merge import uniform_soup


def members(n=3):
    return [linear_state(seed) for seed in range(n)]


def linear(state, x):
    return x @ state["weight"].T + state["bias"]


def relu_net(states, x):
    hidden = linear(states[0], x).relu()
    return linear(states[1], hidden)


def test_soup_of_linear_members_is_their_logit_ensemble(generator):
    x = torch.randn(50, 4, generator=generator)
    ensemble = logit_ensemble([linear(member, x) for member in members()])
    torch.testing.assert_close(linear(uniform_soup(members()), x), ensemble, rtol=0, atol=1e-6)


def test_soup_of_relu_members_is_not_their_logit_ensemble(generator):
    # The twin: a soup that secretly averaged logits would pass the test above.
    x = torch.randn(50, 4, generator=generator)
    nets = [(linear_state(seed), linear_state(seed + 9, 2, 3)) for seed in range(3)]
    soup = [uniform_soup([net[layer] for net in nets]) for layer in (0, 1)]
    ensemble = logit_ensemble([relu_net(net, x) for net in nets])
    assert (relu_net(soup, x) - ensemble).abs().max() > 0.1


def test_logit_and_probability_ensembles_differ(generator):
    logits = 4 * torch.randn(3, 20, 5, generator=generator)
    probabilities = probability_ensemble(logits)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(20))
    torch.testing.assert_close(probabilities, logits.softmax(2).mean(0))
    assert (probabilities - logit_ensemble(logits).softmax(1)).abs().max() > 0.01


def test_one_member_is_its_own_ensemble(generator):
    logits = torch.randn(1, 20, 5, generator=generator)
    torch.testing.assert_close(logit_ensemble(logits), logits[0], rtol=0, atol=0)
    torch.testing.assert_close(probability_ensemble(logits), logits[0].softmax(1))


def test_own_heads_on_own_features_are_the_logit_ensemble(generator):
    features = torch.randn(3, 20, 4, generator=generator)
    heads = [(m["weight"], m["bias"]) for m in members()]
    expected = logit_ensemble([linear(m, f) for m, f in zip(members(), features, strict=True)])
    torch.testing.assert_close(feature_ensemble(features, heads, head="own"), expected)
    averaged = feature_ensemble(features, heads, head="averaged")
    assert (averaged - expected).abs().max() > 0.1  # cross terms: not the logit ensemble


def test_shared_features_make_all_heads_but_the_first_agree(generator):
    features = torch.randn(1, 20, 4, generator=generator).expand(3, 20, 4)
    heads = [(m["weight"], m["bias"]) for m in members()]
    own, averaged, first = (feature_ensemble(features, heads, head=head) for head in ("own", "averaged", "first"))
    torch.testing.assert_close(own, averaged)
    torch.testing.assert_close(first, linear(members()[0], features[0]))


def test_sums_are_done_in_float64():
    big = torch.tensor([[[1e8, 0.0]], [[1.0, 0.0]], [[-1e8, 0.0]]])
    assert logit_ensemble(big)[0, 0].item() == pytest.approx(1 / 3)
    assert big.mean(0)[0, 0].item() != pytest.approx(1 / 3)  # float32 loses the 1


def test_misfits_are_refused_by_name():
    with pytest.raises(MergeError, match="no member"):
        logit_ensemble([])
    with pytest.raises(MemberMismatchError, match=r"member 1.*\(2, 3\).*\(1, 3\)"):
        logit_ensemble([torch.zeros(1, 3), torch.zeros(2, 3)])
    with pytest.raises(MemberMismatchError, match="1 heads"):
        feature_ensemble(torch.zeros(2, 1, 4), [(torch.zeros(3, 4), torch.zeros(3))])
    with pytest.raises(MergeError, match="'mean'"):
        feature_ensemble(torch.zeros(1, 1, 4), [(torch.zeros(3, 4), torch.zeros(3))], head="mean")


def test_a_temperature_is_fitted_after_pooling(generator):
    # Members that are sure and disagree pool to something unsure: their own temperatures say nothing about it.
    labels = torch.randint(3, (2000,), generator=generator)
    logits = [3 * F.one_hot(labels, 3) + 3 * torch.randn(2000, 3, generator=generator) for _ in range(5)]
    pooled = logit_ensemble(logits)
    after = fit_temperature(pooled, labels)
    before = sum(fit_temperature(one, labels) for one in logits) / len(logits)
    assert after < 0.5 * before

    def nll(temperature):
        return F.cross_entropy(pooled / temperature, labels).item()

    assert nll(after) < min(nll(before), nll(1.0), nll(1.1 * after), nll(after / 1.1))
