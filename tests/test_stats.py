import math

import numpy as np
import pytest
from scipy import stats as reference

from wamlib.stats import mcnemar, mean_interval, paired_difference, permutation_p


def test_interval_equals_scipys():
    values = [1.0, 2.5, 2.0, 4.0]
    interval = mean_interval(values)
    low, high = reference.t.interval(0.95, 3, np.mean(values), reference.sem(values))
    assert interval == pytest.approx((np.mean(values), low, high, 4))


def test_one_replica_has_a_mean_and_no_interval():
    interval = mean_interval([3.0])
    assert interval.mean == 3.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_pairing_removes_what_the_pairs_share():
    shared = np.array([0.0, 10.0, 20.0])
    assert paired_difference(shared + 1, shared).low == pytest.approx(1)
    assert mean_interval(shared + 1).low < -10  # unpaired, the same effect drowns


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shape"):
        paired_difference([1.0, 2.0], [1.0])


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [i.low <= 0 <= i.high for i in (mean_interval(rng.normal(size=3)) for _ in range(2000))]
    assert 0.935 < np.mean(hits) < 0.965


def test_permutation_p_is_never_zero_and_uniform_under_the_null():
    assert permutation_p(9.0, [1.0, 2.0, 3.0]) == 0.25
    assert permutation_p(0.0, [1.0, 2.0, 3.0]) == 1.0


def two_models(both, only_a, only_b, neither):
    """Whether each of two models is right, image by image in a mixed order."""
    a = np.repeat([1, 1, 0, 0], [both, only_a, only_b, neither])
    b = np.repeat([1, 0, 1, 0], [both, only_a, only_b, neither])
    order = np.random.default_rng(0).permutation(len(a))
    return a[order] == 1, b[order] == 1


@pytest.mark.parametrize("counts", [(50, 8, 2, 9), (0, 3, 0, 0), (7, 1, 1, 7), (100, 5, 30, 0), (0, 60, 41, 0)])
def test_mcnemar_is_the_binomial_test_of_the_images_on_which_the_two_differ(counts):
    a, b = two_models(*counts)
    found, other = mcnemar(a, b), mcnemar(b, a)
    _, only_a, only_b, _ = counts
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    assert (found.only_a, found.only_b) == (only_a, only_b) == (other.only_b, other.only_a)
    assert found.p == pytest.approx(min(1, 2 * tail)) == pytest.approx(other.p)
    assert found.p == pytest.approx(reference.binomtest(only_a, n).pvalue)


def test_images_that_both_or_neither_gets_right_say_nothing():
    few, many = mcnemar(*two_models(3, 9, 2, 4)), mcnemar(*two_models(3000, 9, 2, 4000))
    assert few == many
    assert few.p < 0.1 < mcnemar(*two_models(3, 7, 4, 4)).p  # the twin: of 11 images, how they are shared out counts


def test_models_that_differ_nowhere_are_not_told_apart():
    a, _ = two_models(5, 3, 0, 2)
    assert mcnemar(a, a) == (0, 0, 1.0)
    assert mcnemar([], []) == (0, 0, 1.0)


def test_models_on_other_numbers_of_images_are_refused():
    for other in ([True], [True, False, True], [[True, False]]):
        with pytest.raises(ValueError, match="shape"):
            mcnemar([True, False], other)


def test_mcnemar_is_rarely_small_where_the_models_are_alike():
    """Exact, and so conservative: at most 5 % of the p-values of equal models are below 0.05."""
    rng = np.random.default_rng(0)
    small = [mcnemar(rng.random(200) < 0.8, rng.random(200) < 0.8).p < 0.05 for _ in range(400)]
    assert 0.005 < np.mean(small) < 0.06
