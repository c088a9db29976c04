"""Whose videos rollouts show: every reached impression is counted once, for its creator."""

import numpy as np
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from simulator.appeal import Predictions, WatchScale
from simulator.comparison import treated
from simulator.concentration import CREATORS
from simulator.evidence import Evidence
from simulator.metrics import OUTCOMES
from simulator.response_data import Pairs
from simulator.response_state import APPEALS, LEAVE_STATE, Centre
from simulator.serving import Sessions, Videos
from simulator.session import BUCKETS, Rollouts, RolloutSettings, bucket_of, merge, rollout

USERS, POOL, SLOTS, ROLLOUTS = 200, 40, 6, 3


class Leaving:
    """Users who leave after each video with probability one half, whatever it is."""

    behaviours = ()
    size = 2
    evidence: Evidence | None = None

    def fold(self, user_id: NDArray[np.int64]) -> NDArray[np.int64]:
        return user_id * 0

    def scales(self, member: int) -> tuple[WatchScale, ...]:
        return (WatchScale(3.0, 1.0, 10.0),)

    def centre(self, member: int) -> Centre:
        return Centre(np.zeros(len(APPEALS)), 0.5)

    def appeal(self, member: int, pairs: Pairs, evidence: NDArray[np.float64] | None = None) -> Predictions:
        none = np.zeros(len(pairs.user_id))
        return Predictions(none, none, none + 0.1, np.zeros((len(none), 0)), np.zeros((len(none), len(APPEALS))))

    def user_columns(self, user_id, group, newness, user_features):
        return user_features

    def leave_terms(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], user_features: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.zeros(len(fold)), np.zeros((len(fold), len(LEAVE_STATE)))

    def return_probability(
        self, member: int, fold: NDArray[np.int64], group: NDArray[np.int8], day: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        return None


def sessions() -> Sessions:
    """One or two sessions a user; a user's group is that of the first one."""
    user = np.sort(np.concatenate([np.arange(USERS), np.arange(0, USERS, 3)]))
    count = len(user)
    rng = np.random.default_rng(0)
    return Sessions(
        row=np.arange(count),
        user_id=user,
        session_id=np.arange(count),
        group=(user % 3).astype(np.int8),
        newness=np.zeros(count, np.float32),
        started_us=np.zeros(count, np.int64),
        user_features=np.zeros((count, 1), np.float32),
        interests=np.full((count, 1), -1, np.int32),
        sets=rng.integers(0, POOL, (count, SLOTS, 5)).astype(np.int32),
    )


def videos(creator: NDArray[np.int64]) -> Videos:
    return Videos(
        video_id=np.arange(POOL),
        features=np.zeros((POOL, 1), np.float32),
        duration_s=np.full(POOL, 10.0),
        topic=np.zeros(POOL, np.int32),
        uploaded_us=np.zeros(POOL, np.int64),
        creator_id=creator,
        trending=np.full(POOL, -1, np.int8),
        tail_creator=np.full(POOL, -1, np.int8),
        new_age_days=1,
    )


def rolled(shown: Videos, rows: NDArray[np.int64] | None = None, design: str = "paired") -> Rollouts:
    arms = {
        "treatment": lambda session, video: video.astype(np.float64),
        "baseline": lambda session, video: -video.astype(np.float64),
    }
    settings = RolloutSettings(1, ROLLOUTS, SLOTS, design)  # type: ignore[arg-type]
    some = sessions() if rows is None else sessions().select(rows)
    return rollout(some, shown, arms, Leaving(), settings)


def total(found: Rollouts, arm: str) -> float:
    return float(pc.sum(found.creators.filter(pc.equal(found.creators["arm"], arm))["impressions"]).as_py() or 0.0)


def test_every_reached_impression_is_counted_for_its_creator() -> None:
    found = rolled(videos(np.arange(POOL) // 4))
    assert found.creators.schema.equals(CREATORS)
    for arm in ("treatment", "baseline"):
        rows = found.outcomes.filter(pc.equal(found.outcomes["arm"], arm))
        assert total(found, arm) == pytest.approx(ROLLOUTS * pc.sum(rows["impressions"]).as_py())
        for group in range(3):
            mine = found.creators.filter(
                pc.and_(pc.equal(found.creators["arm"], arm), pc.equal(found.creators["group"], group))
            )
            of_group = rows.filter(pc.equal(rows["group"], group))
            expected = ROLLOUTS * pc.sum(of_group["impressions"]).as_py()
            assert pc.sum(mine["impressions"]).as_py() == pytest.approx(expected)
    # One arm shows the creators of the highest ids most, the other those of the lowest.
    best = {
        arm: found.creators.filter(pc.equal(found.creators["arm"], arm))
        .group_by("creator_id")
        .aggregate([("impressions", "sum")])
        .sort_by([("impressions_sum", "descending")])["creator_id"][0]
        .as_py()
        for arm in ("treatment", "baseline")
    }
    assert best["treatment"] > best["baseline"]
    assert set(found.creators["bucket"].to_pylist()) <= set(range(BUCKETS))


def test_videos_without_a_creator_are_left_out() -> None:
    known = rolled(videos(np.where(np.arange(POOL) % 2, 7, -1)))
    assert set(known.creators["creator_id"].to_pylist()) == {7}
    assert 0 < total(known, "treatment") < total(rolled(videos(np.zeros(POOL, np.int64))), "treatment")
    assert rolled(videos(np.full(POOL, -1))).creators.num_rows == 0


def test_shards_add_up_to_the_same_bytes() -> None:
    shown = videos(np.arange(POOL) // 4)
    bucket = bucket_of(sessions().user_id)
    parts = [rolled(shown, np.flatnonzero(bucket % 3 == shard)) for shard in (2, 0, 1)]
    assert merge([Rollouts.none(), *parts]).creators.equals(rolled(shown).creators)
    assert Rollouts.none().outcomes.schema.equals(OUTCOMES)


def test_the_split_design_counts_each_arms_own_users() -> None:
    shown = videos(np.arange(POOL) // 4)
    found, whole = rolled(shown, design="split"), rolled(shown)
    assert found.outcomes.equals(whole.outcomes), "outcomes are assigned when they are analysed"
    for arm in ("treatment", "baseline"):
        rows = whole.outcomes.filter(pc.equal(whole.outcomes["arm"], arm))
        mine = treated(rows["user_id"].to_numpy(), 1) == (arm == "treatment")
        assert total(found, arm) == pytest.approx(ROLLOUTS * rows["impressions"].to_numpy()[mine].sum())
