"""The rollouts and the truth see one arm: the same scores of the same pairs, asked once, whatever the order."""

from collections import defaultdict

import numpy as np
import pytest

from components.checks.arms import _AHEAD, LOGGED, ORACLES, Arm, make_arms
from components.checks.worlds import WorldDay
from components.heldout import session_arrays
from simulator.serving import Sessions

# The lake of a world's day is made by the pipeline's own steps.
pytestmark = pytest.mark.integration

PLAIN = ("random", "popularity", "user_topic", *ORACLES)


@pytest.fixture(scope="module")
def sessions(day: WorldDay) -> Sessions:
    return session_arrays(day.context, day.held, np.arange(day.held.sessions.num_rows))


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return (*PLAIN, "single_half")


def offered(day: WorldDay, sessions: Sessions, slot: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sessions whose slot offers a full set: rows, rows of videos, ids of videos."""
    full = np.flatnonzero((sessions.sets[:, slot] >= 0).all(axis=1))
    video = sessions.sets[full, slot].astype(np.int64)
    return full, video, day.held.ids[video % len(day.held.ids)]


def test_the_truth_scores_as_the_rollouts_do(day, sessions, names):
    by_rollouts, by_truth = make_arms(day, names), make_arms(day, names)
    rows, video, ids = offered(day, sessions, slot=1)
    assert len(rows) > 50
    assert set(sessions.sets[rows, 1].ravel() >= len(day.held.ids)) == {True, False}, "both snapshot versions"
    user, number = sessions.user_id[rows], sessions.session_id[rows] % 4
    for name in names:
        served = by_truth[name].score(user, number, ids)
        rolled = by_rollouts[name].ranking(np.repeat(rows, ids.shape[1]), video.ravel()).reshape(ids.shape)
        assert served.shape == ids.shape
        # What a network says depends on the batch in the last digits, what a table says does not.
        assert served == pytest.approx(rolled, rel=1e-5 if name == "single_half" else 0), name
        # Asked again by the other side, an arm answers what it has answered.
        assert np.array_equal(by_rollouts[name].score(user, number, ids), rolled)


def test_a_session_is_found_by_its_user_and_number(day, sessions):
    order = np.random.default_rng(0).permutation(len(sessions.user_id))
    found = day.session_rows(sessions.user_id[order], sessions.session_id[order] % 4)
    assert np.array_equal(found, order)


def test_looking_ahead_changes_no_score_and_nothing_is_asked_twice(day, sessions):
    (made,) = make_arms(day, ("user_topic",)).values()
    asked = defaultdict(int)

    def counted(session, video):
        for pair in zip(session.tolist(), video.tolist(), strict=True):
            asked[pair] += 1
        return made.scores(session, video)

    arm, plain = Arm.of("user_topic", day, counted), Arm.of("user_topic", day, made.scores)
    arm.look_ahead(sessions.sets)
    at, slot, place = np.nonzero(sessions.sets[:, :_AHEAD] >= 0)
    ahead = set(zip(at.tolist(), sessions.sets[at, slot, place].tolist(), strict=True))
    assert set(asked) == ahead
    at, slot, place = np.nonzero(sessions.sets >= 0)
    video = sessions.sets[at, slot, place].astype(np.int64)
    assert np.array_equal(arm.ranking(at, video), plain.ranking(at, video))
    assert len(asked) > len(ahead), "what lies behind is asked when somebody comes there"
    assert set(asked.values()) == {1}


def test_a_video_that_the_day_does_not_know_comes_last(day, sessions):
    rows, _, ids = offered(day, sessions, slot=0)
    ids = ids[:5].copy()
    known = day.held.ids
    ids[:, 0], ids[:, 1] = known.max() + 1, known.min() - 1
    for arm in make_arms(day, PLAIN).values():
        scores = arm.score(sessions.user_id[rows[:5]], sessions.session_id[rows[:5]] % 4, ids)
        assert scores[:, :2].max() < scores[:, 2:].min()
        assert np.isfinite(scores).all()


def test_user_topic_by_hand_for_one_user(day):
    held, table = day.held, day.table
    visitors = set(held.sessions["user_id"].to_pylist())
    topic = dict(zip(held.ids.tolist(), held.topic.tolist(), strict=True))
    rows = [
        (user, video, view or 0)
        for user, video, view in zip(
            *(table[name].to_pylist() for name in ("user_id", "video_id", "long_view")), strict=True
        )
    ]
    mean = sum(view for _, _, view in rows) / len(rows)
    user = next(one for one, _, _ in rows if one in visitors)
    session = held.sessions["user_id"].to_pylist().index(user)
    scores = make_arms(day, ("user_topic",))["user_topic"].scores
    checked = set()
    for place, video in enumerate(held.ids.tolist()):
        if topic[video] < 0:
            continue
        same = [(u, v, view) for u, v, view in rows if u in visitors and topic.get(v, -1) == topic[video]]
        rate = (sum(view for _, _, view in same) + 10 * mean) / (len(same) + 10)
        mine = [view for u, _, view in same if u == user]
        own = (sum(mine) + 5 * rate) / (len(mine) + 5)
        shown = [view for _, v, view in rows if v == video]
        quality = 0.5 * (sum(shown) + 20 * mean) / (len(shown) + 20)
        for version in range(2):
            found = scores(np.array([session]), np.array([place + version * len(held.ids)]))
            assert found[0] == pytest.approx(own + quality), video
        checked.add(bool(mine))
    assert checked == {True, False}, "topics that the user has met and topics that are new to the user"


def test_popularity_counts_impressions_of_the_window(day):
    arm = make_arms(day, ("popularity",))["popularity"]
    shown = day.table["video_id"].to_pylist()
    for place in (0, 7, len(day.held.ids) - 1):
        score = arm.ranking(np.array([0]), np.array([place]))[0]
        assert np.expm1(score) == pytest.approx(shown.count(int(day.held.ids[place])))


def test_the_random_arm_knows_nothing_and_repeats_itself(day, sessions):
    one, two = (make_arms(day, ("random",))["random"] for _ in range(2))
    rows, video, _ = offered(day, sessions, slot=0)
    session = np.repeat(rows, video.shape[1])
    scores = one.ranking(session, video.ravel())
    assert np.array_equal(scores, two.ranking(session, video.ravel()))
    assert scores.mean() == pytest.approx(0.5, abs=0.05)
    assert len(np.unique(scores)) == len(np.unique(session * len(day.held.ids) + video.ravel() % len(day.held.ids)))


def test_arms_are_named_before_they_are_made(day):
    told = []
    assert list(make_arms(day, ("oracle", "random"), told.append)) == told == ["oracle", "random"]
    with pytest.raises(KeyError):
        make_arms(day, ("best",))
    assert not set(LOGGED) & set(ORACLES)
