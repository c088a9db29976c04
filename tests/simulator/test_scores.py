"""Completed production scores: few factors of a score matrix come back, and with them the pairs nobody logged."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.scores import ScoreFactors, fit_scores, place

USERS, VIDEOS = 120, 90


def low_rank(rank: int, seed: int = 0) -> np.ndarray:
    """float64 [USERS, VIDEOS]: level, biases and ``rank`` factors of unit variance in all."""
    rng = np.random.default_rng(seed)
    user, video = rng.normal(size=(USERS, rank)), rng.normal(size=(VIDEOS, rank))
    return 3.0 + 0.5 * rng.normal(size=(USERS, 1)) + 0.8 * rng.normal(size=VIDEOS) + user @ video.T / np.sqrt(rank)


def logged(matrix: np.ndarray, seen: np.ndarray) -> ScoreFactors:
    u, v = np.nonzero(seen)
    found = fit_scores(u * 7 + 100, v * 3 + 1000, matrix[u, v])
    assert found is not None
    return found


def completed(found: ScoreFactors) -> np.ndarray:
    u, v = (a.ravel() for a in np.meshgrid(np.arange(USERS), np.arange(VIDEOS), indexing="ij"))
    return found.score(u * 7 + 100, v * 3 + 1000).reshape(USERS, VIDEOS)


def test_a_low_rank_matrix_comes_back_with_its_unseen_pairs():
    matrix = low_rank(rank=3)
    seen = np.random.default_rng(1).random(matrix.shape) < 0.5
    guess = completed(logged(matrix, seen))
    for part in (seen, ~seen):
        error = np.sqrt(np.mean((guess - matrix)[part] ** 2))
        assert error < 0.2 * matrix[part].std(), "of a spread of about 1.4"
    assert np.corrcoef(guess[~seen], matrix[~seen])[0, 1] > 0.98


def test_what_users_and_videos_have_of_their_own_is_found_in_few_scores():
    rng = np.random.default_rng(5)
    matrix = 3.0 + rng.normal(size=(USERS, 1)) + rng.normal(size=VIDEOS)
    seen = rng.random(matrix.shape) < 0.2
    error = (completed(logged(matrix, seen)) - matrix)[~seen]
    # Were the other side's bias not taken off, it would be 0.16.
    assert np.sqrt(np.mean(error**2)) < 0.13 * matrix.std()


def test_noise_is_not_learned():
    """Scores of no structure at all: what is said of an unseen pair is about the mean."""
    noise = 2.0 + np.random.default_rng(2).normal(size=(USERS, VIDEOS))
    seen = np.random.default_rng(3).random(noise.shape) < 0.5
    guess = completed(logged(noise, seen))
    assert guess.mean() == pytest.approx(2.0, abs=0.1)
    assert abs(np.corrcoef(guess[~seen], noise[~seen])[0, 1]) < 0.06


def test_the_level_of_a_video_is_its_mean_over_all_users():
    matrix = low_rank(rank=2)
    found = logged(matrix, np.random.default_rng(1).random(matrix.shape) < 0.6)
    ids = np.arange(VIDEOS) * 3 + 1000
    np.testing.assert_allclose(found.level_of(ids), completed(found).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.level_of(ids), matrix.mean(axis=0), atol=0.25)


def test_unknown_users_and_videos_have_no_score():
    found = logged(low_rank(rank=2), np.ones((USERS, VIDEOS), dtype=bool))
    score = found.score(np.array([100, 101, 100, -5]), np.array([1000, 1000, 10**9, 1000]))
    assert np.isfinite(score).tolist() == [True, False, False, False]
    assert np.isfinite(found.level_of(np.array([1000, 1001, 10**9]))).tolist() == [True, False, False]


def test_a_score_does_not_depend_on_the_batch():
    found = logged(low_rank(rank=4), np.random.default_rng(1).random((USERS, VIDEOS)) < 0.3)
    users, videos = np.arange(USERS) * 7 + 100, np.arange(USERS) % VIDEOS * 3 + 1000
    together = found.score(users, videos)
    assert together.tolist() == [float(found.score(users[i : i + 1], videos[i : i + 1])[0]) for i in range(USERS)]


@pytest.mark.parametrize("score", [[], [np.nan, np.nan, np.nan], [0.5, 0.5, 0.5], [0.5, np.nan, 0.5]])
def test_without_different_scores_there_are_no_factors(score):
    ids = np.arange(len(score))
    assert fit_scores(ids, ids, np.array(score, dtype=float)) is None


def test_missing_scores_are_left_out():
    matrix = low_rank(rank=2)
    u, v = np.nonzero(np.random.default_rng(1).random(matrix.shape) < 0.3)
    score, lost = matrix[u, v].copy(), np.arange(len(u)) % 5 == 0
    score[lost] = np.nan
    found, without = fit_scores(u, v, score), fit_scores(u[~lost], v[~lost], matrix[u, v][~lost])
    assert found is not None
    assert without is not None
    for name in vars(without):
        assert np.array_equal(getattr(found, name), getattr(without, name)), name


def test_the_newest_rows_of_a_user_are_kept(monkeypatch):
    """A ranker of yesterday scored the other way round: with as many new rows as are kept, nothing of it is left."""
    monkeypatch.setattr("simulator.scores._PER_USER", 40)
    rng = np.random.default_rng(4)
    users = np.repeat(np.arange(30), 100)
    videos = rng.integers(0, 50, 3000)
    worth = np.linspace(-1, 1, 50)[videos]
    new = np.tile(np.arange(100) >= 60, 30)
    mixed = rng.permutation(3000)
    # In order of time, the users in any order within.
    order = mixed[np.argsort(new[mixed], kind="stable")]
    found = fit_scores(users[order], videos[order], np.where(new, worth, -worth)[order])
    only = fit_scores(users[order][-1200:], videos[order][-1200:], worth[order][-1200:])
    assert found is not None
    assert only is not None
    assert np.array_equal(found.level, only.level)
    assert np.array_equal(found.user_factors, only.user_factors)
    assert np.corrcoef(found.level_of(np.arange(50)), np.linspace(-1, 1, 50))[0, 1] > 0.99


def test_place_finds_ids_and_says_where_there_is_none():
    assert place(np.array([2, 5, 9]), np.array([9, 1, 5, 10, 2, 3])).tolist() == [2, -1, 1, -1, 0, -1]
    assert place(np.array([], dtype=np.int64), np.array([1, 2])).tolist() == [-1, -1]


def test_factors_are_those_of_the_equation():
    """score = mean + b_u + b_v + f_u . f_v, by hand."""
    found = logged(low_rank(rank=2), np.ones((USERS, VIDEOS), dtype=bool))
    f, g = np.zeros_like(found.user_factors), np.zeros_like(found.video_factors)
    f[0, [0, -1]], g[1, [0, -1]] = (2.0, 0.5), (3.0, 0.25)
    by_hand = replace(found, mean=1.0, user_factors=f, video_factors=g)
    assert by_hand.score(found.users[:1], found.videos[1:2]).tolist() == [1.0 + 0.5 + 0.25 + 6.0]
