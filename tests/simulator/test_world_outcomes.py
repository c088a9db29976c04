"""The world tells what any policy would truly have done."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from components.config import WorldFeed
from simulator import draws
from simulator.world import OUTCOMES, World
from simulator.world_tables import session_id

FIRST = date(2024, 3, 4)
SMALL = WorldFeed(first_day=FIRST, users=800, new_users_per_day=20, videos=400, new_videos_per_day=30)


def on(offset: int) -> date:
    return FIRST + timedelta(days=offset)


class Ranked:
    """A policy given as a function of user ids [N], sessions [N] and video ids [N, K]."""

    def __init__(self, score):
        self.score = score


@pytest.fixture(scope="module")
def small() -> World:
    return World(SMALL)


@pytest.fixture(scope="module")
def week(small):
    """The logs of days 0 to 4 of the small world, read in order."""
    return [small.day_tables(on(day)).log for day in range(5)]


@pytest.fixture(scope="module")
def full():
    """The world as it comes."""
    return World(WorldFeed(first_day=FIRST))


def test_new_users_leave_earlier_and_come_back_less(full):
    tables = full.outcomes(None, on(2)).to_pandas()
    tenure = 2 - full._everybody.users(2).registered_day[tables.user_id - 1]
    new, old = tables[tenure <= 5], tables[tenure > 60]
    assert new.impressions.sum() / new.sessions.sum() < 0.85 * old.impressions.sum() / old.sessions.sum()
    assert new.return_probability.mean() < old.return_probability.mean() - 0.05


def test_the_logging_policy_in_the_true_world_gives_the_log(small, week):
    outcome = small.outcomes(None, on(3)).to_pandas().set_index("user_id")
    assert small.outcomes(None, on(3)).schema.equals(OUTCOMES)
    log = week[3].to_pandas().groupby("user_id")
    assert (log.watch_ms.sum() / 1000).to_numpy() == pytest.approx(outcome.app_time_s.to_numpy())
    assert np.array_equal(log.size(), outcome.impressions)
    assert np.array_equal(log.session_id.nunique(), outcome.sessions)
    tomorrow = set(week[4].column("user_id").to_pylist())
    assert [user in tomorrow for user in outcome.index] == outcome.returned.tolist()
    free = small.outcomes(None, on(3), sessions="free").to_pandas().set_index("user_id")
    assert free.equals(outcome), "the logged sessions are those that the logging policy leads to"


def test_an_oracle_holds_people_longer_than_chance(full):
    day = on(1)
    oracle = Ranked(lambda users, sessions, videos: full.expected_satisfaction(users, videos, day))
    chance = Ranked(lambda users, sessions, videos: draws.uniform(5, "chance", users[:, None], videos))
    worst = Ranked(lambda users, sessions, videos: -full.expected_satisfaction(users, videos, day))
    best, random, bad = (full.outcomes(policy, day).to_pandas() for policy in (oracle, chance, worst))
    logged = full.outcomes(None, day).to_pandas()
    for better, poorer in ((best, logged), (logged, random), (random, bad)):
        assert better.app_time_s.mean() > 1.15 * poorer.app_time_s.mean()
        assert better.return_probability.mean() > poorer.return_probability.mean() + 0.03
        assert better.returned.mean() > poorer.returned.mean()
    assert best.sessions.equals(logged.sessions), "session starts stay as logged"
    free = full.outcomes(oracle, day, sessions="free").to_pandas()
    assert free.sessions.mean() > best.sessions.mean()
    returned, expected = best.returned.mean(), best.return_probability.mean()
    assert abs(returned - expected) < 4 * np.sqrt(expected * (1 - expected) / len(best))


def test_outcomes_do_not_depend_on_who_else_is_asked_for(small):
    policy = Ranked(lambda users, sessions, videos: draws.uniform(5, "chance", users[:, None], videos))
    everybody = small.outcomes(policy, on(2)).to_pandas().set_index("user_id")
    some = everybody.index.to_numpy()[::3]
    part = small.outcomes(policy, on(2), users=some).to_pandas().set_index("user_id")
    assert part.equals(everybody.loc[some])
    again = small.outcomes(policy, on(2), users=some, seed=99).to_pandas().set_index("user_id")
    assert not again.app_time_s.equals(part.app_time_s)
    assert again.app_time_s.mean() == pytest.approx(part.app_time_s.mean(), rel=0.4)
    assert small.outcomes(policy, on(2), users=np.array([], dtype=np.int64)).num_rows == 0


def test_several_seeds_at_once_are_the_seeds_one_by_one(small):
    policy = Ranked(lambda users, sessions, videos: draws.uniform(5, "chance", users[:, None], videos))
    some = np.arange(1, 400)
    for sessions in ("logged", "free"):
        together = small.outcomes(policy, on(2), some, [99, SMALL.seed, 7], sessions)
        alone = [small.outcomes(policy, on(2), some, seed, sessions) for seed in (99, SMALL.seed, 7)]
        assert together.equals(pa.concat_tables(alone).combine_chunks())
    assert small.outcomes(policy, on(2), some).equals(small.outcomes(policy, on(2), some, SMALL.seed))
    with pytest.raises(ValueError, match="no seed"):
        small.outcomes(policy, on(2), some, [])


def test_a_policy_is_told_the_session_of_the_log(small, week):
    log = week[2].to_pandas()
    asked = set()

    def score(users, sessions, videos):
        asked.update(zip(users.tolist(), session_id(users, 2, sessions).tolist(), strict=True))
        return np.zeros(videos.shape)

    small.outcomes(Ranked(score), on(2))
    assert asked == set(zip(log.user_id, log.session_id, strict=True))


def test_one_day_of_another_policy_changes_no_day_of_the_log(week):
    world = World(SMALL)
    world.outcomes(Ranked(lambda users, sessions, videos: videos.astype(np.float64)), on(3))
    assert world.day_tables(on(4)).log.equals(week[4])


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda users, sessions, videos: np.zeros(len(users)), "shape"),
        (lambda users, sessions, videos: np.full(videos.shape, np.nan), "not finite"),
    ],
)
def test_a_broken_policy_is_refused(small, score, message):
    with pytest.raises(ValueError, match=message):
        small.outcomes(Ranked(score), FIRST)
