import numpy as np
import pytest
from scipy import stats

from simulator import draws


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_uniform_draws_are_uniform(seed):
    u = draws.uniform(seed, "anything", np.arange(200_000))
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    counts = np.bincount((u * 100).astype(int), minlength=100)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_normal_draws_are_normal():
    assert stats.kstest(draws.normal(3, "anything", np.arange(200_000)), "norm").pvalue > 1e-4


def test_bucket_draws_are_equally_likely_and_in_range():
    values = draws.bucket(3, "anything", 7, np.arange(70_000))
    assert set(values) == set(range(7))
    assert stats.chisquare(np.bincount(values)).pvalue > 1e-4


def test_purposes_seeds_and_keys_give_independent_streams():
    ids = np.arange(100_000)
    streams = np.array([
        draws.uniform(1, "like", ids),
        draws.uniform(1, "leave", ids),
        draws.uniform(2, "like", ids),
        draws.uniform(1, "like", ids + 1),
        draws.uniform(1, "like", ids, 0),
        draws.uniform(1, "like", 0, ids),
        draws.uniform(1, "like", ids, 1),
        draws.uniform(1, "like", ids // 2, ids % 2),
    ])  # fmt: skip
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    # Neighbouring ids shift one stream against itself, which no correlation of equal places shows.
    assert np.abs(correlation).max() < 5 / np.sqrt(len(ids))
    assert abs(np.corrcoef(streams[0][1:], streams[0][:-1])[0, 1]) < 5 / np.sqrt(len(ids))
    # Joint uniformity of two streams on a grid sees more than correlation.
    cells = (streams[0] * 10).astype(int) * 10 + (streams[1] * 10).astype(int)
    assert stats.chisquare(np.bincount(cells, minlength=100)).pvalue > 1e-4


def test_a_draw_depends_on_its_keys_alone():
    users, slots = np.arange(50), np.arange(20)
    grid = draws.uniform(5, "x", users[:, None], 3, slots)
    assert grid.shape == (50, 20)
    order = np.random.default_rng(0).permutation(50)
    assert np.array_equal(draws.uniform(5, "x", users[order, None], 3, slots), grid[order])
    assert np.array_equal(draws.uniform(5, "x", users[:7, None], 3, slots[5:]), grid[:7, 5:])
    assert draws.uniform(5, "x", 4, 3, 9) == grid[4, 9]
    assert draws.uniform(5, "x", np.int32(4), np.int16(3), np.int64(9)) == grid[4, 9]
    assert draws.uniform(5, "x", 3, 4, 9) != grid[4, 9]


def test_draws_are_never_zero_or_one():
    u = draws.uniform(9, "edge", np.arange(1_000_000))
    assert u.min() > 0
    assert u.max() < 1
    assert np.isfinite(draws.normal(9, "edge", np.arange(1_000_000))).all()


@pytest.mark.parametrize(
    "bits",
    [
        0,
        2**64 - 1,
    ],
)
def test_the_extreme_hashes_stay_inside_the_interval(monkeypatch, bits):
    monkeypatch.setattr(draws, "_hash", lambda *_: np.array([bits], dtype=np.uint64))
    assert 0 < draws.uniform(1, "edge", 0)[0] < 1
    assert np.isfinite(draws.normal(1, "edge", 0)).all()


def test_negative_keys_and_large_keys_are_keys_like_others():
    keys = np.array([-1, -2, 0, 2**62, -(2**62)])
    assert len(set(draws.uniform(1, "x", keys))) == len(keys)


def test_values_stay_what_they_are():
    """A changed hash would silently change every world and every experiment."""
    golden = draws.uniform(1, "golden", np.array([0, 1, -1]), 7)
    assert golden == pytest.approx(GOLDEN, abs=1e-15)


GOLDEN = [0.43711243139210615, 0.697063662698395, 0.3792744148764548]
