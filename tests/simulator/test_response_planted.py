"""Faults planted in a log that the response model must not fall for: a confounding ranker, and a small group."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from simulator.evidence import LoggedScores
from simulator.response import ResponseModel, ResponseSettings
from simulator.response_data import Pairs, ResponseData
from simulator.response_fit import fit_response, reliability

SETTINGS = ResponseSettings(seed=3, ensemble=1, epochs=8)


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def log_of(
    rng: np.random.Generator,
    *,
    user: np.ndarray,
    video: np.ndarray,
    kept: np.ndarray,
    features: np.ndarray,
    group: np.ndarray | None = None,
) -> ResponseData:
    """Sessions of six impressions of ten-second videos; only skips mean anything."""
    rows = len(user)
    group = np.ones(rows, dtype=np.int8) if group is None else group
    last = np.arange(rows) % 6 == 5
    return ResponseData(
        user_id=user,
        video_id=video,
        day=np.zeros(rows, dtype=np.int32),
        session_id=np.arange(rows) // 6,
        position=(np.arange(rows) % 6).astype(np.int32),
        group=group,
        newness=(group == 0).astype(np.float32),
        topic=np.full(rows, -1, dtype=np.int32),
        user_features=np.zeros((rows, 1), dtype=np.float32),
        video_features=features.astype(np.float32),
        duration_s=np.full(rows, 10.0),
        watch_s=np.where(kept, 10 * np.exp(0.3 * rng.normal(size=rows) - 0.1), 1.0).clip(0.1),
        behaviours=(),
        interactions=np.zeros((rows, 0), dtype=np.int8),
        left=last.astype(np.int8),
        returned=np.full(rows, -1, dtype=np.int8),
        propensity=np.full(rows, np.nan),
    )


def fitted(data: ResponseData, scores: LoggedScores | None = None) -> ResponseModel:
    found = fit_response(data, SETTINGS, scores).model
    assert found is not None
    return found


@dataclass(frozen=True)
class Confounded:
    """A log whose exposures follow a score that also drives the outcome, and random pairs with their true rate."""

    data: ResponseData
    scores: LoggedScores
    anybody: Pairs
    true_keep: np.ndarray


@pytest.fixture(scope="module")
def confounded() -> Confounded:
    rng = np.random.default_rng(0)
    users, videos, each, candidates = 700, 150, 24, 10
    score = rng.normal(size=(users, 2)) @ rng.normal(size=(videos, 2)).T / 2 + 0.7 * rng.normal(size=videos)
    keep = expit(1.5 * score - 0.5)
    user = np.repeat(np.arange(users), each)
    offered = rng.integers(0, videos, (len(user), candidates))
    best = score[user[:, None], offered].argmax(axis=1)
    # Every fifth slot explores: without any support nothing could be learned of what is never shown.
    place = np.where(rng.random(len(user)) < 0.2, 0, best)
    video = offered[np.arange(len(user)), place]
    noise = rng.normal(size=(videos, 2))
    data = log_of(rng, user=user, video=video, kept=rng.random(len(user)) < keep[user, video], features=noise[video])
    owner = np.repeat(user, candidates)
    logged = LoggedScores(owner, offered.ravel(), score[owner, offered.ravel()])
    u, v = rng.integers(0, users, 5000), rng.integers(0, videos, 5000)
    anybody = log_of(rng, user=u, video=v, kept=np.zeros(5000, dtype=bool), features=noise[v]).pairs()
    return Confounded(data, logged, anybody, keep[u, v])


def test_the_log_shows_better_videos_than_chance_would(confounded):
    assert (confounded.data.watch_s > 3).mean() > 1.4 * confounded.true_keep.mean()


def test_with_logged_scores_the_level_of_random_candidates_is_right(confounded):
    found = 1 - fitted(confounded.data, confounded.scores).appeal(0, confounded.anybody).skip
    assert found.mean() == pytest.approx(confounded.true_keep.mean(), rel=0.04)
    # And not only on average: over the range of what can be offered.
    fifths = np.array_split(np.argsort(confounded.true_keep), 5)
    assert [found[f].mean() for f in fifths] == pytest.approx(
        [confounded.true_keep[f].mean() for f in fifths], abs=0.05
    )


def test_without_scores_it_is_not(confounded):
    found = 1 - fitted(confounded.data).appeal(0, confounded.anybody).skip
    assert found.mean() > 1.15 * confounded.true_keep.mean()


@dataclass(frozen=True)
class Imbalanced:
    """Few new users, who respond to another feature than everybody else; pairs of new users and their true logit."""

    data: ResponseData
    of_new: Pairs
    true_logit: np.ndarray


@pytest.fixture(scope="module")
def imbalanced() -> Imbalanced:
    rng = np.random.default_rng(1)
    users, videos, each, new = 900, 300, 18, 45
    group = np.where(np.arange(users) < new, 0, 1 + np.arange(users) % 2).astype(np.int8)
    x = rng.normal(size=(videos, 2))
    user = np.repeat(np.arange(users), each)
    video = rng.integers(0, videos, len(user))
    column = np.where(group[user] == 0, 1, 0)
    kept = rng.random(len(user)) < expit(1.5 * x[video, column])
    data = log_of(rng, user=user, video=video, kept=kept, features=x[video], group=group[user])
    u, v = rng.integers(0, new, 4000), rng.integers(0, videos, 4000)
    of_new = log_of(rng, user=u, video=v, kept=np.zeros(4000, dtype=bool), features=x[v], group=group[u]).pairs()
    return Imbalanced(data, of_new, 1.5 * x[v, 1])


def explained(model: ResponseModel, given: Imbalanced) -> tuple[float, float]:
    """How far the predicted logit of new users moves with the true one, and the share of it that is told."""
    found = model.appeal(0, given.of_new).appeal[:, 0]
    slope = float(np.polyfit(given.true_logit, found, 1)[0])
    return slope, float(np.corrcoef(given.true_logit, found)[0, 1] ** 2)


def test_what_new_users_respond_to_is_recovered(imbalanced):
    slope, told = explained(fitted(imbalanced.data), imbalanced)
    assert slope == pytest.approx(1.0, abs=0.25)
    assert told > 0.8


def test_where_nobody_says_how_new_a_user_is_balanced_weights_recover_it(imbalanced, monkeypatch):
    unknown = replace(
        imbalanced,
        data=replace(imbalanced.data, newness=np.zeros_like(imbalanced.data.newness)),
        of_new=replace(imbalanced.of_new, newness=np.zeros_like(imbalanced.of_new.newness)),
    )
    slope, told = explained(fitted(unknown.data), unknown)
    assert slope == pytest.approx(0.8, abs=0.25)
    assert told > 0.85
    # Without the weights the many rule: the prediction for new users hardly moves.
    monkeypatch.setattr("simulator.response_fit.balanced", lambda weight, group: weight)
    flat, less = explained(fitted(unknown.data), unknown)
    assert flat < 0.3
    assert less < 0.5


def test_reliability_is_the_share_of_signal_in_the_mean_of_noisy_members():
    rng = np.random.default_rng(0)
    users, members, noise = 60_000, 4, 0.7
    group = rng.integers(0, 3, users).astype(np.int8)
    columns = rng.normal(size=(users, 2))
    signal = rng.normal(size=users) + columns @ [0.5, -1.0]
    # The members' own errors, and the one that they share with the estimate on all users.
    drawn = noise * (rng.normal(size=users) + rng.normal(size=(members, users)))
    found = reliability(signal + drawn, columns, group)
    shared = noise**2 * (1 + 1 / members)
    assert found == pytest.approx(1 / (1 + shared), abs=0.03)
    assert reliability((signal + drawn)[:1], columns, group).tolist() == [1.0] * 3
    exact = reliability(np.tile(signal, (members, 1)), columns, group)
    assert exact == pytest.approx(1.0)
    # Noise alone is trusted no less than the bound: what is left would be divided by nearly nothing.
    assert reliability(drawn, columns, group).min() >= 0.2
