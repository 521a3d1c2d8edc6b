import math

import numpy as np
import pytest
from scipy import stats as reference

from wamlib.stats import mean_interval, paired_difference, permutation_p


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
