"""Shares of a sweep: together they are the sweep, and no two of them train the same."""

import pytest
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st

from wamlib import sweeps
from wamlib.errors import ConfigError

TRUNKS = [tiny(seed=seed, epochs=1) for seed in range(4)]
FAMILIES = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def family(trunk, size):
    return [tiny(seed=seed, start=trunk, init_seed=None) for seed in range(size)]


@given(FAMILIES, st.integers(1, 5))
def test_shares_hold_every_config_once_and_keep_families_together(sizes, n_shards):
    configs = [config for trunk, size in zip(TRUNKS, sizes, strict=False) for config in (trunk, *family(trunk, size))]
    shares = [sweeps.shard(configs, index, n_shards) for index in range(1, n_shards + 1)]
    assert sorted(c.run_id for share in shares for c in share) == sorted(c.run_id for c in configs)
    roots = [{(c.start or c).run_id for c in share} for share in shares]
    assert sum(map(len, roots)) == len(set().union(*roots))  # no trunk in two shares
    assert max(map(len, shares)) - min(map(len, shares)) <= max(sizes) + 1  # no further apart than a family is large
    for share in shares:
        assert share == [config for config in configs if config in share]  # in their order


def test_shares_do_not_depend_on_the_order_in_which_configs_are_listed():
    configs = [config for trunk in TRUNKS for config in (trunk, *family(trunk, 2))]
    one, other = sweeps.shard(configs, 2, 3), sweeps.shard(configs[::-1], 2, 3)
    assert {c.run_id for c in one} == {c.run_id for c in other}


@pytest.mark.parametrize(("index", "n"), [(0, 2), (3, 2), (1, 0), (-1, 3), (1.0, 2), ("1", 2)])
def test_a_share_that_is_none_is_refused(index, n):
    with pytest.raises(ConfigError, match="1/N to N/N"):
        sweeps.shard(TRUNKS, index, n)


def test_a_share_is_read_from_text():
    assert sweeps.read_shard("2/8") == (2, 8)
    for text in ("", "2", "2/", "/8", "0/8", "9/8", "2/8/1", "a/b", "-1/3", "1.5/2", "1/0"):
        with pytest.raises(ConfigError, match="such as 2/8"):
            sweeps.read_shard(text)
