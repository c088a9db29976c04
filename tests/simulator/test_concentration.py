import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from components.config import DecisionRule
from simulator.concentration import CREATORS, concentration_results, herfindahl, merge_creators

RULE = DecisionRule(widening=1.0)
USERS = {"all": 3200, "new": 1000, "low": 1100, "high": 1100}


def counts(rng, per_bucket=100, favourite=0.0, buckets=32, creators=20, arm="treatment"):
    """Impressions of a bucket's users over creators, of which the first gets an extra share."""
    p = np.full(creators, (1 - favourite) / creators)
    p[0] += favourite
    n = rng.multinomial(per_bucket, p, size=(3, buckets))
    group, bucket, creator = (a.ravel() for a in np.indices(n.shape))
    keep = n.ravel() > 0
    columns = [pa.array([arm] * keep.sum()), group[keep], bucket[keep], creator[keep] + 100, n.ravel()[keep]]
    return pa.table([pa.array(c).cast(f.type) for c, f in zip(columns, CREATORS, strict=True)], schema=CREATORS)


def both(rng, favourite=0.2, baseline=0.1, **more):
    arms = (("treatment", favourite), ("baseline", baseline))
    return pa.concat_tables([counts(rng, arm=arm, favourite=share, **more) for arm, share in arms])


def test_the_index_by_hand():
    assert herfindahl(np.array([1.0, 1, 2])) == pytest.approx(6 / 16)
    assert herfindahl(np.array([[5.0, 0], [1, 1]])).tolist() == [1.0, 0.5]
    assert np.isnan(herfindahl(np.zeros(3)))


def test_levels_and_jackknife_equal_leaving_each_bucket_out():
    table = both(np.random.default_rng(1))
    found = concentration_results(table, USERS, RULE)[0]
    dense = np.zeros((2, 32, 20))
    at = (np.array(table["arm"].to_pylist()) == "baseline").astype(int)
    np.add.at(
        dense, (at, table["bucket"].to_numpy(), table["creator_id"].to_numpy() - 100), table["impressions"].to_numpy()
    )
    h = herfindahl(dense.sum(axis=1))
    without = herfindahl(dense.sum(axis=1, keepdims=True) - dense)
    assert (found.treatment.value, found.baseline.value) == pytest.approx(tuple(h))
    apart = without[0] - without[1]
    se = np.sqrt(31 / 32 * ((apart - apart.mean()) ** 2).sum())
    assert found.difference.value == pytest.approx(100 * (h[0] - h[1]))
    assert found.difference.se == pytest.approx(100 * se)
    assert found.difference.p_value == pytest.approx(2 * stats.t.sf((h[0] - h[1]) / se, 31))
    assert found.relative.value == pytest.approx(100 * (h[0] / h[1] - 1))
    assert (found.role, found.users, found.exploratory) == ("guardrail", 3200, False)


def test_shards_add_up():
    table = both(np.random.default_rng(2))
    whole = merge_creators([table])
    again = merge_creators([table.slice(500), table.slice(0, 500)])
    assert whole.equals(again)
    assert merge_creators([]).num_rows == 0


def test_the_interval_covers():
    """300 pairs of equal arms with a favourite: the interval misses 0 in a share inside the exact band at 1 %."""
    rng, misses = np.random.default_rng(3), 0
    for _ in range(300):
        found = concentration_results(both(rng, favourite=0.2, baseline=0.2, per_bucket=40), USERS, RULE)[0]
        misses += not found.difference.low <= 0 <= found.difference.high
    low, high = stats.binom.ppf([0.005, 0.995], 300, 0.05)
    assert low <= misses <= high


def test_what_can_not_be_estimated_says_why():
    rng = np.random.default_rng(4)
    none = concentration_results(CREATORS.empty_table(), {}, RULE)
    assert {r.difference.reason for r in none} == {"an arm has no impression whose creator is known"}
    assert all(r.exploratory for r in none)
    alone = concentration_results(counts(rng), USERS, RULE)[0]
    assert alone.treatment.value is not None
    assert alone.relative.value is None
    few = concentration_results(both(rng, buckets=3), USERS, RULE)[0]
    assert few.difference.reason == "3 buckets of users are too few: 8 are needed"
    same = concentration_results(both(rng, creators=1, favourite=0.0, baseline=0.0), USERS, RULE)[0]
    assert "the index is the same" in same.difference.reason
