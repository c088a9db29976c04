"""The world's rates are those of the real feed (KuaiRand-Pure, standard policy), whatever its seed and size."""

from datetime import date

import numpy as np
import pytest

from components.config import WorldFeed
from components.feed.schema import BEHAVIOURS
from simulator.world import World

FIRST = date(2024, 3, 4)
RATES = {
    "click": 0.442,
    "long_view": 0.311,
    "like": 0.017,
    "profile_enter": 0.019,
    "comment": 0.0025,
    "follow": 0.0013,
    "share": 0.0009,
    "dislike": 0.0008,
    "mean_s": 21.5,
    "median_s": 4.6,
    "99 %_s": 209.0,
    "unplayed": 0.0975,
    "above_duration": 0.15,
}


def measured(settings: WorldFeed, days: tuple[int, ...]) -> tuple[dict[str, float], int]:
    """The rates over some days, and the number of impressions."""
    world = World(settings)
    runs = [world._everybody.log(day).log for day in days]
    watch_ms = np.concatenate([run.watch_ms for run in runs])
    duration_ms = np.concatenate([run.duration_ms for run in runs])
    shares = np.concatenate([run.behaviours for run in runs], axis=1).mean(axis=1)
    seconds = watch_ms / 1000
    return {
        **{name: shares[BEHAVIOURS.index(name)] for name in RATES if name in BEHAVIOURS},
        "mean_s": seconds.mean(),
        "median_s": np.median(seconds),
        "99 %_s": np.quantile(seconds, 0.99),
        "unplayed": (watch_ms == 0).mean(),
        "above_duration": (watch_ms > duration_ms).mean(),
    }, len(watch_ms)


def missed(settings: WorldFeed, days: tuple[int, ...], sampling: float = 0.0) -> dict[str, float]:
    """Rates over their targets where they are off by more than 15 % and what a count of that size may miss."""
    rates, count = measured(settings, days)
    ratios = {name: rates[name] / target for name, target in RATES.items()}
    slack = {name: sampling / np.sqrt(RATES[name] * count) if name in BEHAVIOURS else 0.0 for name in RATES}
    return {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > 0.15 + slack[name]}


@pytest.mark.parametrize("seed", range(1, 9))
def test_every_seed_has_the_rates_of_the_real_feed(seed):
    """With 40,000 users a day has 480,000 impressions, so that the rarest rate is known to 5 %."""
    assert not missed(WorldFeed(first_day=FIRST, seed=seed, users=40_000, new_users_per_day=400), (1,))


@pytest.mark.parametrize("seed", [1, 11, 12])
def test_the_world_as_it_comes_has_them(seed):
    settings = WorldFeed(first_day=FIRST, seed=seed)
    assert not missed(settings, (0, 1, 2), sampling=2.0)
    assert 70_000 <= measured(settings, (0,))[1] <= 90_000


@pytest.mark.parametrize(
    "size",
    [
        {"users": 30_000, "videos": 10_000, "new_videos_per_day": 700},
        {"users": 20_000, "videos": 500, "new_videos_per_day": 30},
        {"users": 20_000, "new_users_per_day": 1_000},
    ],
)
def test_larger_and_smaller_worlds_have_them(size):
    assert not missed(WorldFeed(first_day=FIRST, seed=3, **size), (0, 3), sampling=1.0)


def test_a_later_day_has_them():
    assert not missed(WorldFeed(first_day=FIRST, seed=5, users=15_000, new_users_per_day=150), (9, 10), sampling=1.0)


def test_sessions_have_some_fifteen_slots():
    log = World(WorldFeed(first_day=FIRST)).day_tables(FIRST).log
    assert 10 <= log.num_rows / log.column("session_id").to_pandas().nunique() <= 20
    per_user = log.to_pandas().groupby("user_id").session_id.nunique()
    assert per_user.between(1, 3).all()
