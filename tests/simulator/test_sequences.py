from datetime import date, timedelta

import numpy as np
import pytest
from scipy import optimize, stats

from components.errors import ConfigError
from simulator.sequences import DayEffect, boundary, narrowest_at, running

FIRST = date(2026, 3, 1)


def series(values, se=1.0, users=100):
    return [DayEffect(FIRST + timedelta(days=i), users, v, se) for i, v in enumerate(values)]


def test_the_boundary_by_hand():
    """V = 3, rho = 1, alpha = 0.05: sqrt(2 x 4 x log(2 / 0.05))."""
    assert boundary(3.0, 1.0, 0.95) == pytest.approx(np.sqrt(8 * np.log(40)))


def test_rho_is_close_to_the_narrowest():
    found = narrowest_at(50.0, 0.95)
    best = optimize.minimize_scalar(lambda x: boundary(50.0, np.exp(x), 0.95), bounds=(-10, 5)).fun
    assert boundary(50.0, found, 0.95) <= 1.001 * best


def test_the_running_mean_is_weighted_by_users_and_sorted():
    days = [DayEffect(FIRST + timedelta(days=1), 300, 2.0, 0.1), DayEffect(FIRST, 100, 1.0, 0.2)]
    first, second = running(days, 0.95)
    assert (first.day, first.users, first.value) == (FIRST, 100, 1.0)
    assert second.value == pytest.approx((100 * 1 + 300 * 2) / 400)
    variance = 100**2 * 0.04 + 300**2 * 0.01
    half = boundary(variance, narrowest_at(7 * 100**2 * 0.04, 0.95), 0.95) / 400
    assert second.high - second.value == pytest.approx(half)


def test_no_day_sees_a_later_one():
    days = series([0.1, -0.2, 0.3, 0.0])
    assert running(days, 0.95)[:2] == running(days[:2], 0.95)


def test_one_day_alone_is_wider_than_a_fixed_interval():
    (only,) = running(series([1.0]), 0.95)
    assert only.high - only.value > stats.norm.ppf(0.975)


def test_nothing_gives_nothing_and_bad_days_are_refused():
    assert running([], 0.95) == ()
    with pytest.raises(ConfigError, match="twice"):
        running([*series([1.0]), *series([2.0])], 0.95)
    with pytest.raises(ConfigError, match="standard error of 0"):
        running(series([1.0], se=0.0), 0.95)
    with pytest.raises(ConfigError, match="0 users"):
        running(series([1.0], users=0), 0.95)


def test_daily_peeking_over_sixty_days():
    """Skewed users, a lift that changes by day: the sequence ever misses in under 5 %, fixed intervals in over 20 %."""
    runs, days, users = 1000, 60, 120
    rng = np.random.default_rng(21)
    effect = 3.0 * np.sin(np.arange(days) / 5)
    values = rng.gamma(2, 20, (runs, days, users)).astype(np.float32) - 40 + effect[:, None].astype(np.float32)
    mean, se = values.mean(axis=2), values.std(axis=2, ddof=1) / np.sqrt(users)
    target = np.cumsum(effect) / np.arange(1, days + 1)
    ever, fixed = 0, 0
    for r in range(runs):
        found = running(
            [DayEffect(FIRST + timedelta(days=d), users, float(mean[r, d]), float(se[r, d])) for d in range(days)], 0.95
        )
        ever += any(not one.low <= t <= one.high for one, t in zip(found, target, strict=True))
        half = 1.96 * np.sqrt(np.cumsum(se[r] ** 2)) / np.arange(1, days + 1)
        running_mean = np.cumsum(mean[r]) / np.arange(1, days + 1)
        fixed += bool((np.abs(running_mean - target) > half).any())
    assert ever < stats.binom.ppf(0.01, runs, 0.05)
    assert fixed > 0.2 * runs
