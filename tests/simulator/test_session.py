from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
import pytest

from components.errors import ConfigError
from simulator.appeal import Predictions, WatchScale
from simulator.metrics import OUTCOMES
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_fit import fit_response
from simulator.session import BUCKETS, RolloutSettings, bucket_of, merge, rollout, shard_buckets

SETTINGS = RolloutSettings(seed=5, rollouts=3, max_slots=15)


@pytest.fixture(scope="module")
def model(planted) -> ResponseModel:
    fit = fit_response(planted.data, ResponseSettings(seed=3, epochs=3))
    assert fit.model is not None
    return fit.model


@pytest.fixture(scope="module")
def scores(planted):
    noise = np.random.default_rng(2).random(planted.candidate_appeal.shape)
    return {"treatment": planted.candidate_appeal, "baseline": noise}


def arm(outcomes, name):
    return outcomes.filter(pc.equal(outcomes.column("arm"), name))


def test_shards_are_bit_equal_to_one_process(model, planted, scores):
    whole = rollout(planted.sessions, scores, model, SETTINGS)
    assert whole.outcomes.schema == OUTCOMES
    for shards in (2, 3):
        parts = []
        for shard in range(shards):
            rows = np.flatnonzero(np.isin(bucket_of(planted.sessions.user_id), shard_buckets(shard, shards)))
            mine = {name: values[rows] for name, values in scores.items()}
            parts.append(rollout(planted.sessions.select(rows), mine, model, SETTINGS))
        together = merge(parts)
        assert together.outcomes.equals(whole.outcomes)
        assert together.depths.equals(whole.depths)


def test_the_order_of_sessions_does_not_matter(model, planted, scores):
    rows = np.random.default_rng(0).permutation(len(planted.sessions.user_id))
    mixed = rollout(planted.sessions.select(rows), {a: s[rows] for a, s in scores.items()}, model, SETTINGS)
    assert mixed.outcomes.equals(rollout(planted.sessions, scores, model, SETTINGS).outcomes)


def test_the_same_arm_twice_differs_by_exactly_nothing(model, planted, scores):
    same = {"treatment": scores["baseline"], "baseline": scores["baseline"].copy()}
    outcomes = rollout(planted.sessions, same, model, SETTINGS).outcomes
    drop = lambda t: t.drop_columns(["arm"])  # noqa: E731
    assert drop(arm(outcomes, "treatment")).equals(drop(arm(outcomes, "baseline")))


def test_ranking_by_true_appeal_beats_chance(model, planted, scores):
    outcomes = rollout(planted.sessions, scores, model, SETTINGS).outcomes
    for name in ("app_time_s", "return_probability", "impressions", "like"):
        better, chance = (pc.mean(arm(outcomes, a).column(name)).as_py() for a in ("treatment", "baseline"))
        assert better > 1.05 * chance, name


def test_one_row_per_user_arm_and_member_whatever_the_rollouts(model, planted, scores):
    users = len(np.unique(planted.sessions.user_id))
    for rollouts in (1, 4):
        found = rollout(planted.sessions, scores, model, replace(SETTINGS, rollouts=rollouts))
        assert found.outcomes.num_rows == users * 2 * len(model.members)
        total = pc.sum(arm(found.depths, "baseline").column("rollouts")).as_py()
        assert total == len(planted.sessions.user_id) * rollouts * len(model.members)


def test_unknown_topics_and_freshness_stay_unknown(model, planted, scores):
    sessions = replace(
        planted.sessions,
        topic=np.full_like(planted.sessions.topic, -1),
        fresh=np.full_like(planted.sessions.fresh, -1),
    )
    outcomes = rollout(sessions, scores, model, SETTINGS).outcomes
    for name in ("topics", "fresh", "dislike"):
        assert outcomes.column(name).null_count == outcomes.num_rows


@dataclass(frozen=True)
class Scripted:
    """Deterministic: nothing is skipped, seconds = duration x share of video, leaves once seconds reach 100."""

    class _Member:
        scale = (WatchScale(1.0, 1.0, 10.0), WatchScale(1.0, 1.0, 10.0))

    members = (_Member(),)
    behaviours = ("like",)

    def fold(self, user_id):
        return np.zeros(len(user_id), dtype=np.int64)

    def appeal(self, member, pairs):
        n = len(pairs.user_id)
        share = pairs.video_features[:, 0].astype(float)
        return Predictions(
            np.zeros(n), np.log(share), np.zeros(n), np.full((n, 1), 0.25), np.column_stack([share, np.ones(n)])
        )

    def seconds(self, member, fold, *, mean, sd, duration_s, noise):
        return np.exp(mean) * duration_s

    def leave_probability(self, member, fold, group, state):
        return (np.expm1(state[:, -1]) >= 100 - 1e-9).astype(float)

    def return_probability(self, member, fold, group, day):
        return day[:, 1]  # mean appeal (one user feature stands before it)


def test_known_answer_with_a_deterministic_response(planted):
    sessions = planted.sessions.select(np.array([0, 2]))  # sessions of two users
    sessions = replace(
        sessions,
        user_id=np.array([1, 1]),
        user_features=np.zeros((2, 1), np.float32),
        candidates=np.array([[0, 1, 2, 3], [4, 5, -1, -1]]),
        video_features=np.array([[[1.0], [0.5], [0.25], [0.75]], [[0.5], [1.0], [1.0], [1.0]]], np.float32),
        duration_s=np.array([[60.0, 60, 60, 60], [20, np.nan, 1, 1]]),
        topic=np.array([[0, 0, 1, 1], [2, -1, 0, 0]], np.int32),
        fresh=np.array([[1, 0, 0, 0], [0, 1, 1, 1]], np.int8),
    )
    arms = {
        "treatment": np.array([[4.0, 3, 2, 1], [1, 2, 9, 9]]),
        "baseline": np.array([[1.0, 2, 3, 4], [2, 1, 9, 9]]),
    }
    found = rollout(sessions, arms, Scripted(), RolloutSettings(seed=1, rollouts=2, max_slots=10))
    treatment, baseline = (arm(found.outcomes, name).to_pylist()[0] for name in ("treatment", "baseline"))
    # Treatment: 60 + 30 + 15 = 105 s then leaves; the second session ends for want of videos after 10 + 10 s.
    assert treatment["app_time_s"] == pytest.approx(125)
    assert treatment["impressions"] == 5
    assert treatment["topics"] == 3
    assert treatment["fresh"] == 2
    assert treatment["like"] == pytest.approx(1.25)
    assert treatment["truncated"] == 0.5
    assert treatment["return_probability"] == pytest.approx((1 + 0.5 + 0.25 + 1 + 0.5) / 5)
    # Baseline: 45 + 15 + 30 + 60 = 150 s, leaves after the last candidate of its own will.
    assert baseline["app_time_s"] == pytest.approx(170)
    assert baseline["truncated"] == 0.5
    assert found.depths.to_pylist() == [
        {"arm": "baseline", "impressions": 2, "rollouts": 2},
        {"arm": "baseline", "impressions": 4, "rollouts": 2},
        {"arm": "treatment", "impressions": 2, "rollouts": 2},
        {"arm": "treatment", "impressions": 3, "rollouts": 2},
    ]
    cut = rollout(sessions, arms, Scripted(), RolloutSettings(seed=1, rollouts=1, max_slots=1))
    assert arm(cut.outcomes, "treatment").column("impressions").to_pylist() == [2]
    assert arm(cut.outcomes, "treatment").column("truncated").to_pylist() == [1]


def test_every_bucket_belongs_to_one_shard():
    for shards in (1, 3, 40):
        assert sorted(b for s in range(shards) for b in shard_buckets(s, shards)) == list(range(BUCKETS))
    with pytest.raises(ConfigError, match="count from 0"):
        shard_buckets(2, 2)


def test_bad_scores_and_empty_sessions_are_refused(model, planted, scores):
    with pytest.raises(ConfigError, match="finite"):
        rollout(planted.sessions, {"treatment": scores["treatment"] * np.nan}, model, SETTINGS)
    with pytest.raises(ConfigError, match="no candidate"):
        replace(planted.sessions, candidates=np.full_like(planted.sessions.candidates, -1))


def test_no_sessions_give_an_empty_table(model, planted):
    none = planted.sessions.select(np.array([], dtype=np.int64))
    found = rollout(none, {"treatment": np.zeros((0, 16)), "baseline": np.zeros((0, 16))}, model, SETTINGS)
    assert found.outcomes.num_rows == 0
