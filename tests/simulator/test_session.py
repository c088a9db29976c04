"""Rollouts: sharding, order and blocks change nothing, better rankings win, scripted users give a known answer."""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow.compute as pc
import pytest

from components.errors import ConfigError
from simulator.appeal import Predictions, WatchScale
from simulator.metrics import OUTCOMES
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_fit import fit_response
from simulator.response_state import LEAVE_STATE, Centre
from simulator.serving import DAY_US, Sessions, Videos
from simulator.session import BUCKETS, RolloutSettings, bucket_of, merge, rollout, shard_buckets
from tests.simulator.conftest import Planted

SETTINGS = RolloutSettings(seed=5, rollouts=3, max_slots=15)


@pytest.fixture(scope="module")
def model(planted: Planted) -> ResponseModel:
    fit = fit_response(planted.data, ResponseSettings(seed=3, epochs=3), planted.scores)
    assert fit.model is not None
    return fit.model


@pytest.fixture(scope="module")
def whole(planted, model):
    return rollout(planted.sessions, planted.videos, planted.arms, model, SETTINGS)


def arm(outcomes, name):
    return outcomes.filter(pc.equal(outcomes.column("arm"), name))


def test_shards_are_bit_equal_to_one_process(model, planted, whole):
    assert whole.outcomes.schema == OUTCOMES
    for shards in (2, 3):
        parts = []
        for shard in range(shards):
            rows = np.flatnonzero(np.isin(bucket_of(planted.sessions.user_id), shard_buckets(shard, shards)))
            parts.append(rollout(planted.sessions.select(rows), planted.videos, planted.arms, model, SETTINGS))
        together = merge(parts)
        assert together.outcomes.equals(whole.outcomes)
        assert together.depths.equals(whole.depths)


def test_the_order_of_sessions_does_not_matter(model, planted, whole):
    rows = np.random.default_rng(0).permutation(len(planted.sessions.user_id))
    mixed = rollout(planted.sessions.select(rows), planted.videos, planted.arms, model, SETTINGS)
    assert mixed.outcomes.equals(whole.outcomes)


def test_large_buckets_are_served_in_blocks_of_users_that_change_no_answer(model, planted, whole, monkeypatch):
    monkeypatch.setattr("simulator.session._BLOCK_USERS", 3)
    again = rollout(planted.sessions, planted.videos, planted.arms, model, SETTINGS)
    assert again.depths.equals(whole.depths)
    for name in ("app_time_s", "impressions", "like", "return_probability"):
        np.testing.assert_allclose(again.outcomes.column(name), whole.outcomes.column(name), rtol=1e-5)


def test_the_same_arm_twice_differs_by_exactly_nothing(model, planted):
    same = {"treatment": planted.arms["baseline"], "baseline": planted.arms["baseline"]}
    outcomes = rollout(planted.sessions, planted.videos, same, model, SETTINGS).outcomes
    drop = lambda t: t.drop_columns(["arm"])  # noqa: E731
    assert drop(arm(outcomes, "treatment")).equals(drop(arm(outcomes, "baseline")))


def test_an_arms_outcomes_do_not_depend_on_the_other_arm(model, planted, whole):
    alone = rollout(planted.sessions, planted.videos, {"treatment": planted.arms["treatment"]}, model, SETTINGS)
    assert alone.outcomes.equals(arm(whole.outcomes, "treatment"))


def test_ranking_by_true_appeal_beats_chance(whole):
    for name in ("app_time_s", "return_probability", "impressions", "like"):
        better, chance = (pc.mean(arm(whole.outcomes, a).column(name)).as_py() for a in ("treatment", "baseline"))
        assert better > 1.05 * chance, name


def test_one_row_per_user_arm_and_member_whatever_the_rollouts(model, planted):
    users = len(np.unique(planted.sessions.user_id))
    for rollouts in (1, 4):
        found = rollout(planted.sessions, planted.videos, planted.arms, model, replace(SETTINGS, rollouts=rollouts))
        assert found.outcomes.num_rows == users * 2 * len(model.members)
        total = pc.sum(arm(found.depths, "baseline").column("rollouts")).as_py()
        assert total == len(planted.sessions.user_id) * rollouts * len(model.members)


def test_outcomes_agree_with_the_depths(whole, planted):
    """Impressions summed over users are impressions summed over depths."""
    for name in ("treatment", "baseline"):
        depths = arm(whole.depths, name)
        total = np.dot(depths.column("impressions").to_numpy(), depths.column("rollouts").to_numpy())
        outcomes = arm(whole.outcomes, name)
        assert pc.sum(outcomes.column("impressions")).as_py() * SETTINGS.rollouts == pytest.approx(total)
        sessions = pc.sum(outcomes.column("sessions")).as_py()
        assert sessions == len(planted.sessions.user_id) * len(np.unique(outcomes.column("member")))
        impressions = outcomes.column("impressions").to_numpy()
        for part in ("skips", "fresh", "trending", "tail_creator", "topics"):
            values = outcomes.column(part).to_numpy()
            assert np.all((values >= 0) & (values <= impressions)), part
            assert values.sum() > 0, part


def test_unknown_topics_ages_and_creators_stay_unknown(model, planted):
    none = np.full_like(planted.videos.topic, -1)
    videos = replace(
        planted.videos,
        topic=none,
        uploaded_us=none.astype(np.int64),
        trending=none.astype(np.int8),
        tail_creator=none.astype(np.int8),
    )
    outcomes = rollout(planted.sessions, videos, planted.arms, model, SETTINGS).outcomes
    for name in ("topics", "fresh", "trending", "tail_creator", "dislike"):
        assert outcomes.column(name).null_count == outcomes.num_rows


@dataclass(frozen=True)
class Scripted:
    """Deterministic: nothing is skipped, seconds = duration x the video's feature, leaves once seconds pass 100."""

    behaviours: tuple[str, ...] = ("like",)
    size: int = 1
    evidence: None = None
    asked: list[int] = field(default_factory=list)

    def fold(self, user_id):
        return np.zeros(len(user_id), dtype=np.int64)

    def scales(self, member):
        return (WatchScale(cap_share=5.0, skip_s=1.0, typical_duration_s=10.0),)

    def centre(self, member):
        return Centre(np.zeros(3), 0.5)

    def appeal(self, member, pairs, evidence=None):
        self.asked.append(len(pairs.user_id))
        n, share = len(pairs.user_id), pairs.video_features[:, 0].astype(float)
        appeal = np.column_stack([share, pairs.repeats, np.ones(n)])
        return Predictions(np.zeros(n), np.log(share), np.zeros(n), np.full((n, 1), 0.25), appeal)

    def user_columns(self, user_id, group, newness, user_features):
        return user_features

    def leave_terms(self, member, fold, group, user_features):
        slopes = np.zeros((len(fold), len(LEAVE_STATE)))
        slopes[:, LEAVE_STATE.index("minutes")] = 1e4
        return np.full(len(fold), -1e4 * 100 / 60), slopes

    def return_probability(self, member, fold, group, day):
        # Mean appeal (one user feature stands before it), and the repeats in it.
        return day[:, 1] + day[:, 2] / 100


def scripted_day() -> tuple[Sessions, Videos]:
    """One user's two sessions: four videos of a minute, then two short ones and nothing more."""
    count = 2
    sessions = Sessions(
        row=np.array([0, 1]),
        user_id=np.array([1, 1]),
        session_id=np.array([20, 21]),
        group=np.array([2, 1], dtype=np.int8),
        newness=np.zeros(count, dtype=np.float32),
        started_us=np.full(count, 50 * DAY_US),
        user_features=np.zeros((count, 1), dtype=np.float32),
        interests=np.full((count, 1), -1, dtype=np.int32),
        sets=np.array([[[0, 1, 2, 3]], [[4, 5, -1, -1]]], dtype=np.int32),
    )
    videos = Videos(
        video_id=np.arange(6),
        features=np.array([[1.0], [0.5], [0.25], [0.75], [0.5], [1.0]], dtype=np.float32),
        duration_s=np.array([60.0, 60, 60, 60, 20, np.nan]),
        topic=np.array([0, 0, 1, 1, 2, -1], dtype=np.int32),
        uploaded_us=np.array([49, 40, 40, 40, -1, 47]) * DAY_US,
        creator_id=np.array([1, 1, 2, 2, 3, -1]),
        trending=np.array([1, 0, 0, 1, 1, 0], dtype=np.int8),
        tail_creator=np.array([0, 0, 1, 1, 1, 0], dtype=np.int8),
        new_age_days=3,
    )
    return sessions, replace(videos, uploaded_us=np.where(videos.uploaded_us < 0, -1, videos.uploaded_us))


def by_place(scores: list[list[float]]):
    """Scores of the two sessions' videos, the second session's beginning at video 4."""
    table = np.array(scores)
    return lambda row, video: table[row, video - 4 * row]


ARMS = {"treatment": by_place([[4, 3, 2, 1], [1, 2, 9, 9]]), "baseline": by_place([[1, 2, 3, 4], [2, 1, 9, 9]])}


def test_known_answer_with_a_deterministic_response():
    sessions, videos = scripted_day()
    found = rollout(sessions, videos, ARMS, Scripted(), RolloutSettings(seed=1, rollouts=2, max_slots=10))
    treatment, baseline = (arm(found.outcomes, name).to_pylist()[0] for name in ("treatment", "baseline"))
    # Treatment: 60 + 30 + 15 = 105 s, then leaves; the second session ends for want of videos after 10 + 10 s.
    assert treatment["app_time_s"] == pytest.approx(125)
    assert treatment["impressions"] == 5
    assert treatment["sessions"] == 2
    assert treatment["skips"] == 0
    assert treatment["topics"] == 3
    assert treatment["fresh"] == 2
    assert treatment["trending"] == 2
    assert treatment["tail_creator"] == 2
    assert treatment["like"] == pytest.approx(1.25)
    assert treatment["comment"] is None
    assert treatment["truncated"] == 0.5
    assert treatment["group"] == 2, "the day's first session says whose day it is"
    # One of five videos repeats the topic before it.
    assert treatment["return_probability"] == pytest.approx((1 + 0.5 + 0.25 + 1 + 0.5) / 5 + 1 / 500)
    # Baseline: 45 + 15 + 30 + 60 = 150 s, leaves after the last candidate of its own will.
    assert baseline["app_time_s"] == pytest.approx(170)
    assert baseline["truncated"] == 0.5
    assert baseline["trending"] == 3
    assert baseline["return_probability"] == pytest.approx((0.75 + 0.25 + 0.5 + 1 + 0.5 + 1) / 6 + 2 / 600)
    assert found.depths.to_pylist() == [
        {"arm": "baseline", "impressions": 2, "rollouts": 2},
        {"arm": "baseline", "impressions": 4, "rollouts": 2},
        {"arm": "treatment", "impressions": 2, "rollouts": 2},
        {"arm": "treatment", "impressions": 3, "rollouts": 2},
    ]


def test_a_session_is_cut_at_the_longest_and_counted():
    sessions, videos = scripted_day()
    cut = rollout(sessions, videos, ARMS, Scripted(), RolloutSettings(seed=1, rollouts=1, max_slots=1))
    assert arm(cut.outcomes, "treatment").column("impressions").to_pylist() == [2]
    assert arm(cut.outcomes, "treatment").column("truncated").to_pylist() == [1]


def long_day(slots: int) -> tuple[Sessions, Videos]:
    """Two users, two videos of their own per slot: the first leaves after two slots, the second goes on."""
    sessions, videos = scripted_day()
    sets = np.arange(2 * slots * 2, dtype=np.int32).reshape(2, slots, 2)
    owner = np.repeat([0, 1], 2 * slots)
    count = len(owner)
    videos = Videos(
        video_id=np.arange(count),
        features=np.ones((count, 1), dtype=np.float32),
        duration_s=np.where(owner == 0, 60.0, 1.0),
        topic=np.zeros(count, dtype=np.int32),
        uploaded_us=np.zeros(count, dtype=np.int64),
        creator_id=owner,
        trending=np.zeros(count, dtype=np.int8),
        tail_creator=np.zeros(count, dtype=np.int8),
        new_age_days=3,
    )
    return replace(sessions, user_id=np.array([1, 2]), sets=sets), videos


def test_an_arm_and_the_model_are_asked_nothing_for_sessions_that_ended():
    slots = 20
    sessions, videos = long_day(slots)
    asked: dict[int, list[int]] = {0: [], 1: []}

    def ranking(row, video):
        for r, v in zip(row.tolist(), video.tolist(), strict=True):
            asked[r].append(v // 2 % slots)
        return -video.astype(float)

    model = Scripted()
    found = rollout(
        sessions, videos, {"treatment": ranking}, model, RolloutSettings(seed=1, rollouts=2, max_slots=slots)
    )
    # Both in one bucket or not: everyone is asked for the first block, later ones only for who is there.
    assert found.outcomes.column("impressions").to_pylist() == [2, slots]
    assert set(asked[0]) == set(range(8))
    assert set(asked[1]) == set(range(slots))
    assert all(len(slots_asked) == 2 * len(set(slots_asked)) for slots_asked in asked.values()), "everything once"
    assert sum(model.asked) == 8 + slots


def test_later_blocks_go_on_where_earlier_ones_stopped(model, planted, whole, monkeypatch):
    """Where the blocks of slots end is nobody's business."""
    monkeypatch.setattr("simulator.session._STOPS", (2, 3, 11))
    again = rollout(planted.sessions, planted.videos, planted.arms, model, SETTINGS)
    assert again.depths.equals(whole.depths)
    for name in ("app_time_s", "skips", "like", "return_probability", "truncated"):
        np.testing.assert_allclose(again.outcomes.column(name), whole.outcomes.column(name), rtol=1e-5)


def test_every_bucket_belongs_to_one_shard():
    for shards in (1, 3, 40):
        assert sorted(b for s in range(shards) for b in shard_buckets(s, shards)) == list(range(BUCKETS))
    with pytest.raises(ConfigError, match="count from 0"):
        shard_buckets(2, 2)


def test_bad_scores_are_refused(model, planted):
    broken = {"treatment": lambda row, video: np.full(len(row), np.nan)}
    with pytest.raises(ConfigError, match="finite"):
        rollout(planted.sessions, planted.videos, broken, model, SETTINGS)


def test_no_sessions_give_an_empty_table(model, planted):
    none = planted.sessions.select(np.array([], dtype=np.int64))
    found = rollout(none, planted.videos, planted.arms, model, SETTINGS)
    assert found.outcomes.num_rows == 0
    assert found.outcomes.schema == OUTCOMES
    assert found.depths.num_rows == 0
