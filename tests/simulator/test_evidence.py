"""Evidence of a pair: what others made of the video and the user of the topic, and never the outcome it explains."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulator.evidence import (
    OUTCOMES,
    Evidence,
    LoggedScores,
    TopicHistory,
    VideoEvidence,
    gather,
    topic_features,
)
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_data import Pairs, ResponseData
from simulator.response_fit import fit_response
from tests.simulator.conftest import Planted

SKIP_S = 3.0
SKIP, ROWS = OUTCOMES.index("skip"), len(OUTCOMES)


def log_of(rows: list[tuple[int, int, int, int, float]]) -> ResponseData:
    """Rows of (user, video, day, topic, seconds watched), every video ten seconds long and its session's first."""
    user, video, day, topic, watch = (np.array(column) for column in zip(*rows, strict=True))
    count = len(rows)
    return ResponseData(
        user_id=user,
        video_id=video,
        day=day.astype(np.int32),
        session_id=np.arange(count),
        position=np.zeros(count, dtype=np.int32),
        group=np.ones(count, dtype=np.int8),
        newness=np.zeros(count, dtype=np.float32),
        topic=topic.astype(np.int32),
        user_features=np.zeros((count, 1), dtype=np.float32),
        video_features=np.zeros((count, 1), dtype=np.float32),
        duration_s=np.full(count, 10.0),
        watch_s=watch.astype(np.float64),
        behaviours=(),
        interactions=np.zeros((count, 0), dtype=np.int8),
        left=np.ones(count, dtype=np.int8),
        returned=np.full(count, -1, dtype=np.int8),
        propensity=np.full(count, np.nan),
    )


SMALL = log_of(
    [
        *((1, 50, 0, 0, 1.0), (1, 51, 0, 0, 8.0), (2, 50, 0, 0, 8.0), (2, 51, 0, 1, 8.0)),
        *((3, 50, 1, 0, 8.0), (3, 51, 1, 1, 1.0), (4, 50, 1, -1, 1.0), (1, 52, 1, 0, 8.0)),
    ]
)


def pairs_of(user: list[int], video: list[int], topic: list[int] | None = None) -> Pairs:
    rows = [(u, v, 9, t, 0.0) for u, v, t in zip(user, video, topic or [-1] * len(user), strict=True)]
    return log_of(rows).pairs()


def test_a_videos_evidence_by_hand():
    found = gather(SMALL, None, SKIP_S).features(pairs_of([1, 4, 9], [50, 50, 50]))
    # Three of eight are skips; all rows are alike but for the outcome, so the residual is outcome less mean.
    spread = np.sqrt(3 / 8 * 5 / 8)
    skipped, kept = (1 - 3 / 8) / spread, -3 / 8 / spread
    # User 1 is left out: users 2 and 3 kept the video, 4 skipped it. A stranger hears of all four.
    assert found[0, SKIP] == pytest.approx((2 * kept + skipped) / (3 + 10))
    assert found[1, SKIP] == pytest.approx((2 * kept + skipped) / (3 + 10))
    assert found[2, SKIP] == pytest.approx((2 * kept + 2 * skipped) / (4 + 10))
    assert found[:, ROWS].tolist() == pytest.approx(np.log1p([3, 3, 4]))


def test_evidence_is_shrunk_towards_zero_by_ten_rows():
    sums = np.array([[5.0, -5.0, 1.0, 10.0], [500.0, -500.0, 100.0, 1000.0]])
    none = np.empty(0, dtype=np.int64)
    videos = VideoEvidence(np.array([7, 9]), sums, none, none, np.empty((0, ROWS + 1)))
    found = videos.features(np.array([1, 1, 1]), np.array([7, 9, 8]))
    assert found[:, 0].tolist() == pytest.approx([5 / 20, 500 / 1010, 0.0])
    assert found[:, 1].tolist() == pytest.approx([-5 / 20, -500 / 1010, 0.0])
    assert found[:, ROWS].tolist() == pytest.approx([np.log(11), np.log(1001), 0.0])


def test_a_users_own_outcomes_are_no_evidence_of_the_users_pairs():
    """User 1 keeps 50 and skips 51 instead: the totals are the same, but others hear something else."""
    other = np.where((SMALL.user_id == 1) & (SMALL.day == 0), 9.0 - SMALL.watch_s, SMALL.watch_s)
    before, after = (gather(replace(SMALL, watch_s=w), None, SKIP_S).videos for w in (SMALL.watch_s, other))
    video = np.array([50, 51, 52])
    mine, others = np.full(3, 1), np.full(3, 2)
    np.testing.assert_allclose(after.features(mine, video), before.features(mine, video), atol=1e-12)
    change = after.features(others, video) - before.features(others, video)
    assert change[0, SKIP] < -0.05
    assert change[1, SKIP] > 0.05


def test_a_user_moves_the_own_evidence_only_through_what_is_explained_for_everybody(planted: Planted):
    """One regression over all users explains lengths, places and groups: a trace of a user is in what is left over."""
    data = planted.data
    user = data.user_id == data.user_id[np.argmax(np.bincount(data.user_id)[data.user_id])]
    changed = replace(data, watch_s=np.where(user, np.where(data.watch_s < SKIP_S, 60.0, 0.0), data.watch_s))
    before, after = (gather(one, None, SKIP_S).videos for one in (data, changed))
    video, stranger = data.video_id[user], np.full(user.sum(), -1)
    assert user.sum() > 50
    mine = after.features(data.user_id[user], video) - before.features(data.user_id[user], video)
    others = after.features(stranger, video) - before.features(stranger, video)
    for column in range(len(OUTCOMES)):
        assert np.abs(mine[:, column]).mean() < 0.25 * np.abs(others[:, column]).mean()


def test_noise_explains_nothing(planted: Planted):
    """Outcomes of pure chance: with the own row left in, evidence would explain them."""
    rng = np.random.default_rng(7)
    data = planted.data
    data = replace(data, watch_s=np.where(rng.random(len(data.user_id)) < 0.4, 1.0, 20.0))
    skip = data.watch_s < SKIP_S
    videos = gather(data, None, SKIP_S).videos
    left_out = videos.features(data.user_id, data.video_id)[:, SKIP]
    left_in = videos.features(np.full(len(skip), -1), data.video_id)[:, SKIP]
    limit = 4 / np.sqrt(len(skip))
    assert abs(np.corrcoef(left_out, skip)[0, 1]) < limit
    assert np.corrcoef(left_in, skip)[0, 1] > 2 * limit


def test_a_model_learns_nothing_from_noise(planted: Planted):
    """Nor does a network find a way from the evidence back to the row's own outcome."""
    rng = np.random.default_rng(8)
    data = planted.data.ordered()
    data = replace(data, watch_s=np.where(rng.random(len(data.user_id)) < 0.4, 1.0, 20.0))
    model = fit_response(data, ResponseSettings(seed=3, ensemble=1, epochs=4)).model
    assert model is not None
    newest = data.day == data.day.max()
    predicted = model.appeal(0, data.pairs().select(newest)).skip
    assert abs(np.corrcoef(predicted, data.watch_s[newest] < SKIP_S)[0, 1]) < 4 / np.sqrt(newest.sum())


def test_videos_differ_by_what_is_not_explained_otherwise(planted: Planted):
    """The planted quality shows in the residuals, and the length, which decides the seconds, does not."""
    data = planted.data
    found = gather(data, None, SKIP_S).videos.features(np.full(200, -1), planted.videos.video_id)
    quality = planted.liking.mean(axis=0)
    assert stats.pearsonr(found[:, SKIP], quality)[0] < -0.9
    assert abs(stats.pearsonr(found[:, OUTCOMES.index("log_seconds")], np.log(planted.videos.duration_s))[0]) < 0.2


def test_topic_features_by_hand():
    one = np.ones(1)
    # 4 of 10 kept in all, 3 of 4 in the topic; everybody keeps half.
    found = topic_features(4 * one, 3 * one, 10 * one, 4 * one, 0.5)
    own = (4 + 5 * 0.5) / 15
    assert found[0].tolist() == pytest.approx([(3 + 3 * own) / 7 - own, np.log(5)])
    assert topic_features(0 * one, 0 * one, 0 * one, 0 * one, 0.5).tolist() == [[0.0, 0.0]]


def test_topics_are_counted_up_to_the_days_beginning():
    found = gather(SMALL, None, SKIP_S).features_of_log(SMALL, SKIP_S)[:, -2:]
    # Nobody has a past on day 0; on day 1 user 1 has two of topic 0, users 3 and 4 have none.
    assert np.all(found[:7] == 0.0)
    rate = 5 / 8
    own = (1 + 5 * rate) / 7
    assert found[7].tolist() == pytest.approx([(1 + 3 * own) / 5 - own, np.log(3)])


def test_the_newest_days_outcomes_are_no_topic_history(planted: Planted):
    data = planted.data
    newest = data.day == data.day.max()
    longer = replace(data, watch_s=np.where(newest, np.where(data.watch_s < SKIP_S, 99.0, 0.0), data.watch_s))
    before, after = (gather(one, None, SKIP_S) for one in (data, longer))
    assert np.array_equal(before.topics.kept, after.topics.kept)
    assert before.topics.counts.sum() == (~newest).sum()


def test_pairs_of_the_newest_day_read_what_the_log_reads(planted: Planted):
    data = planted.data.ordered()
    evidence = gather(data, planted.scores, SKIP_S)
    newest = data.day == data.day.max()
    of_log, of_pairs = evidence.features_of_log(data, SKIP_S), evidence.features(data.pairs())
    assert of_log.shape == (len(newest), len(OUTCOMES) + 1 + 2 + 2)
    np.testing.assert_allclose(of_pairs[newest], of_log[newest], rtol=1e-12)
    assert not np.allclose(of_pairs[~newest], of_log[~newest], equal_nan=True), "an earlier day knew less"


def test_scores_are_evidence_where_they_are_logged(planted: Planted):
    pairs = planted.data.select(np.arange(50)).pairs()
    without, found = (gather(planted.data, s, SKIP_S) for s in (None, planted.scores))
    assert without.scores is None
    assert found.features(pairs).shape[1] == without.features(pairs).shape[1] + 2
    assert found.scores is not None
    assert np.array_equal(found.features(pairs)[:, -2], found.scores.score(pairs.user_id, pairs.video_id))
    constant = LoggedScores(planted.scores.user_id, planted.scores.video_id, np.ones(len(planted.scores.score)))
    assert gather(planted.data, constant, SKIP_S).scores is None


def test_of_unknown_ids_nothing_is_known(planted: Planted):
    evidence = gather(planted.data, planted.scores, SKIP_S)
    found = evidence.features(pairs_of([-7, 1000, -7], [5000, -7, -7], [0, 99, -1]))
    assert found[0, ROWS] > 0, "a new user sees a known video"
    assert np.isnan(found[0, -2])
    assert np.isfinite(found[0, -1]), "the level of a known video"
    assert np.all(found[1:, : ROWS + 1] == 0.0)
    assert np.all(found[:, ROWS + 1 : ROWS + 3] == 0.0)
    assert np.isnan(found[1:, -2:]).all()


@pytest.mark.parametrize("scored", [True, False])
def test_saved_evidence_is_loaded_evidence(planted: Planted, scored: bool):
    evidence = gather(planted.data, planted.scores if scored else None, SKIP_S)
    back = Evidence.load(evidence.save())
    pairs = planted.data.select(np.arange(300)).pairs()
    np.testing.assert_array_equal(back.features(pairs), evidence.features(pairs))
    assert (back.scores is None) == (not scored)
    with pytest.raises(KeyError, match="video"):
        Evidence.load({name: a for name, a in evidence.save().items() if not name.startswith("video")})


def test_a_feed_without_topics_has_no_history_and_is_saved_all_the_same(planted: Planted):
    data = planted.data.select(planted.data.user_id < 1120)
    data = replace(data, topic=np.full_like(data.topic, -1))
    fit = fit_response(data, ResponseSettings(ensemble=1, epochs=1))
    assert fit.model is not None
    pairs = data.pairs()
    assert np.all(fit.model.evidence.features(pairs)[:, -2:] == 0.0)
    back = ResponseModel.load(fit.model.save())
    assert np.array_equal(back.evidence.features(pairs), fit.model.evidence.features(pairs))
    assert isinstance(back.evidence.topics, TopicHistory)
