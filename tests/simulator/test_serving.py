"""What an arm shows: the best of a slot's candidates that the session has not shown, and nothing asked in vain."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from components.errors import ConfigError
from simulator import draws
from simulator.response_data import Pairs
from simulator.serving import DAY_US, Sessions, Showing, Videos, first_seen, names_topic, repeats_of


def sessions_of(sets: list[list[list[int]]] | np.ndarray, row: list[int] | None = None) -> Sessions:
    """Sessions of the given sets [S, P, K], each of a user of its own."""
    places = np.array(sets, dtype=np.int32)
    count = len(places)
    return Sessions(
        row=np.arange(count) if row is None else np.array(row),
        user_id=np.arange(count) + 10,
        session_id=np.arange(count) + 100,
        group=np.zeros(count, dtype=np.int8),
        newness=np.zeros(count, dtype=np.float32),
        started_us=np.full(count, 50 * DAY_US),
        user_features=np.zeros((count, 1), dtype=np.float32),
        interests=np.full((count, 1), -1, dtype=np.int32),
        sets=places,
    )


def by_value(value: dict[int, float]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda row, video: np.array([value[v] for v in video.tolist()], dtype=float)


def shown_by(sessions: Sessions, ranking: Callable, slots: int, seed: int = 1) -> np.ndarray:
    showing = Showing.start(sessions, ranking, slots, seed)
    showing.extend(np.arange(len(sessions.user_id)), 0, slots)
    return showing.shown


def test_the_best_unseen_candidate_of_the_slot_is_shown():
    sessions = sessions_of([[[1, 2, 3], [1, 2, 4], [2, 5, 3]]])
    value = {1: 0.9, 2: 0.8, 3: 0.1, 4: 0.2, 5: 0.3}
    # 1 is the best twice but shown once; in the third slot 2 has gone as well.
    assert shown_by(sessions, by_value(value), 3).tolist() == [[1, 2, 5]]


def test_one_set_is_worked_through_from_the_best_to_the_last():
    sessions = sessions_of([[[4, 2, 9, 7]], [[7, 4, -1, -1]]])
    value = {2: 0.3, 4: -5.0, 7: 0.5, 9: 0.4}
    assert shown_by(sessions, by_value(value), 5).tolist() == [[7, 9, 2, 4, -1], [7, 4, -1, -1, -1]]


def test_beyond_the_last_set_the_last_is_worked_through():
    sessions = sessions_of([[[1, 2], [3, 4]]])
    assert shown_by(sessions, by_value({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}), 4).tolist() == [[2, 4, 3, -1]]


def test_an_exhausted_slot_ends_what_can_be_shown():
    # Slot 1 has nothing but what slot 0 has shown; slot 2 is not reached.
    sessions = sessions_of([[[1, -1], [1, -1], [2, 3]]])
    assert shown_by(sessions, by_value({1: 1.0, 2: 2.0, 3: 3.0}), 3).tolist() == [[1, -1, -1]]


def test_blocks_of_slots_show_what_one_block_shows():
    rng = np.random.default_rng(0)
    sessions = sessions_of(rng.integers(0, 40, (30, 12, 6)))
    scores = rng.normal(size=(30, 40))
    whole = shown_by(sessions, lambda row, video: scores[row, video], 12)
    parts = Showing.start(sessions, lambda row, video: scores[row, video], 12, 1)
    for begin, end in ((0, 3), (3, 4), (4, 12)):
        parts.extend(np.arange(30), begin, end)
    assert np.array_equal(whole, parts.shown)
    for s in range(30):
        seen: list[int] = []
        for slot in range(12):
            left = [v for v in sessions.sets[s, slot].tolist() if v not in seen]
            if not left:
                assert whole[s, slot] == -1
                break
            seen.append(max(left, key=lambda v: scores[s, v]))
        assert whole[s, : len(seen)].tolist() == seen


def test_ties_fall_by_a_hash_of_session_and_video_alone():
    rng = np.random.default_rng(1)
    sets = np.array([rng.permutation(12) for _ in range(200)])[:, None, :]
    level = lambda row, video: np.zeros(len(row))  # noqa: E731
    sessions = sessions_of(sets)
    found = shown_by(sessions, level, 12)
    luck = draws.uniform(1, "tie", sessions.session_id[:, None], np.arange(12))
    assert np.array_equal(found, np.argsort(-luck, axis=1))
    # The other arm, its candidates in another order and its scores on another scale: the same order.
    shuffled = sessions_of(rng.permuted(sets, axis=2))
    assert np.array_equal(shown_by(shuffled, lambda row, video: np.full(len(row), 7.0), 12), found)
    # No place is preferred, and another seed is another order.
    assert np.bincount(found[:, 0], minlength=12).min() > 3
    assert not np.array_equal(shown_by(sessions, level, 12, seed=2), found)


def test_a_tie_among_the_best_is_no_tie_with_the_rest():
    sessions = sessions_of(np.tile(np.arange(6), (100, 1, 1)))
    found = shown_by(sessions, lambda row, video: np.where(video < 3, 1.0, 0.0), 6)
    assert np.all(found[:, :3] < 3)
    assert len(np.unique(found[:, 0])) == 3


def test_arms_are_asked_by_row_for_the_slots_of_the_living_alone():
    sets = np.arange(2 * 6 * 2).reshape(2, 6, 2)
    asked: list[tuple[int, int]] = []

    def ranking(row: np.ndarray, video: np.ndarray) -> np.ndarray:
        asked.extend(zip(row.tolist(), video.tolist(), strict=True))
        return video.astype(float)

    showing = Showing.start(sessions_of(sets, row=[70, 30]), ranking, 6, 1)
    showing.extend(np.array([0, 1]), 0, 2)
    assert sorted(asked) == sorted([(70, v) for v in range(4)] + [(30, v) for v in range(12, 16)])
    asked.clear()
    showing.extend(np.array([1]), 2, 6)
    assert sorted(asked) == [(30, v) for v in range(16, 24)]
    assert showing.shown.tolist() == [[1, 3, -1, -1, -1, -1], [13, 15, 17, 19, 21, 23]]


def test_padding_is_never_scored_nor_shown():
    sessions = sessions_of([[[-1, 3, -1], [-1, -1, 5]]])
    asked: list[int] = []

    def ranking(row: np.ndarray, video: np.ndarray) -> np.ndarray:
        asked.extend(video.tolist())
        return np.zeros(len(row)) - 1e9

    assert shown_by(sessions, ranking, 2).tolist() == [[3, 5]]
    assert asked == [3, 5]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken):
    sessions = sessions_of([[[1, 2, 3]]])
    with pytest.raises(ConfigError, match="1 that are not finite"):
        shown_by(sessions, by_value({1: 0.0, 2: broken, 3: 1.0}), 1)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        shown_by(sessions_of([[[1, 2, 3]]]), lambda row, video: np.zeros((3, 1)), 1)


def test_sessions_must_have_a_candidate_and_columns_of_one_length():
    with pytest.raises(ConfigError, match="1 of 2 sessions have no candidate"):
        sessions_of([[[1, 2], [3, 4]], [[-1, -1], [3, 4]]])
    with pytest.raises(ConfigError, match="newness has 1 rows, not 2"):
        replace(sessions_of([[[1]], [[2]]]), newness=np.zeros(1, dtype=np.float32))


def test_first_seen_by_hand():
    topic = np.array([[3, 3, -1, 5, 3, 5], [-1, 0, 0, 1, -1, -1]], dtype=np.int32)
    assert first_seen(topic).astype(int).tolist() == [[1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0]]


def test_repeats_by_hand():
    topic = np.array([[3, 3, -1, 3, -1, 3, 3], [1, 2, 2, 2, 2, 1, 1]], dtype=np.int32)
    # Three videos back: the first does not tire the fifth.
    assert repeats_of(topic).tolist() == [[0, 1, 0, 2, 0, 1, 2], [0, 0, 1, 2, 3, 0, 1]]


def test_an_interest_names_a_topic():
    interests = np.array([[1, 4], [1, -1], [-1, -1], [2, 1]], dtype=np.int32)
    assert names_topic(interests, np.array([4, 2, -1, -1], dtype=np.int32)).tolist() == [True, False, False, False]


def test_pairs_have_the_columns_that_the_log_has():
    videos = Videos(
        video_id=np.array([70, 80]),
        features=np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32),
        duration_s=np.array([10.0, np.nan]),
        topic=np.array([5, -1], dtype=np.int32),
        uploaded_us=np.array([47 * DAY_US + 1, -1]),
        creator_id=np.array([1, -1]),
        trending=np.zeros(2, dtype=np.int8),
        tail_creator=np.zeros(2, dtype=np.int8),
        new_age_days=3,
    )
    sessions = sessions_of([[[0, 1]], [[1, -1]]])
    sessions = replace(
        sessions,
        interests=np.array([[5], [5]], dtype=np.int32),
        newness=np.array([0.2, 0.4], dtype=np.float32),
        group=np.array([2, 1], dtype=np.int8),
    )
    pairs: Pairs = sessions.pairs(videos, np.array([1, 0]), np.array([1, 0]), np.array([0, 2], dtype=np.float32))
    assert pairs.user_id.tolist() == [11, 10]
    assert pairs.video_id.tolist() == [80, 70]
    assert pairs.group.tolist() == [1, 2]
    assert pairs.repeats.tolist() == [0, 2]
    assert pairs.newness.tolist() == pytest.approx([0.4, 0.2])
    # Not three full days old at the session's start; of an unknown upload, the age is unknown.
    expected = [[3.0, 4.0, np.nan, 0.0], [1.0, 2.0, np.log(3), 1.0]]
    np.testing.assert_allclose(pairs.video_features, expected, rtol=1e-6)
