"""A small log with planted effects: who likes what decides watching, leaving and returning."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from simulator.response_data import ResponseData
from simulator.response_state import MEMORY
from simulator.session import Sessions


@dataclass(frozen=True)
class Planted:
    """The log, each logged row's true appeal, and held-out sessions with their candidates' true appeal [S, K]."""

    data: ResponseData
    appeal: NDArray[np.float64]
    sessions: Sessions
    candidate_appeal: NDArray[np.float64]


def planted_log(users: int, days: int = 3, seed: int = 0, candidates: int = 16) -> Planted:
    rng = np.random.default_rng(seed)
    topics, videos = 4, 200
    taste = rng.normal(size=(users, topics))
    group = rng.integers(0, 3, users).astype(np.int8)
    quality = rng.normal(size=videos)
    topic = rng.integers(0, topics, videos)
    duration = rng.lognormal(3.0, 0.6, videos)
    # What a pipeline would know: noisy counters and a noisy affinity, never the latent values.
    noisy_taste = taste + 0.3 * rng.normal(size=taste.shape)
    noisy_quality = quality + 0.3 * rng.normal(size=videos)

    def features(u, v):
        return np.column_stack([noisy_quality[v], noisy_taste[u, topic[v]], rng.normal(size=len(v))]).astype(np.float32)

    def liking(u, v):
        return 0.8 * taste[u, topic[v]] + 0.6 * quality[v]

    rows, appeal = [], []
    for day in range(days):
        for u in range(users):
            average, satisfaction, shown = None, [], []
            for position in range(1, 31):
                v = rng.integers(0, videos)
                like = float(liking(np.array([u]), np.array([v]))[0])
                skipped = rng.random() < 1 / (1 + np.exp(0.5 + 1.2 * like))
                share = np.exp(-0.6 + 0.4 * like + 0.5 * rng.normal())
                watch = rng.uniform(0, 2.9) if skipped else min(share, 3.0) * duration[v] + 3
                average = like if average is None else MEMORY * average + (1 - MEMORY) * like
                satisfaction.append(like)
                leave = rng.random() < 1 / (1 + np.exp(2.0 + 0.9 * average)) or position == 30
                hit = rng.random() < 1 / (1 + np.exp(2.5 - like))
                shown.append((u, day, u * days + day, position, v, watch, hit, leave))
                appeal.append(like)
                if leave:
                    break
            back = rng.random() < 1 / (1 + np.exp(-(0.2 + 0.8 * np.mean(satisfaction) - 0.5 * (group[u] == 0))))
            rows += [(*row, back) for row in shown]
    u, day, session, position, v, watch, hit, leave, back = (np.array(c) for c in zip(*rows, strict=True))
    user_features = rng.normal(size=(users, 2)).astype(np.float32)
    data = ResponseData(
        user_id=u.astype(np.int64) + 1000,
        day=day.astype(np.int32),
        session_id=session.astype(np.int64),
        position=position.astype(np.int32),
        group=group[u],
        user_features=user_features[u],
        video_features=features(u, v),
        duration_s=duration[v],
        watch_s=watch.astype(np.float64),
        behaviours=("like", "dislike"),
        interactions=np.column_stack([hit, np.full(len(u), -1)]).astype(np.int8),
        left=leave.astype(np.int8),
        returned=back.astype(np.int8),
        propensity=np.where(rng.random(len(u)) < 0.5, 0.3, np.nan),
    )
    # A third of the users open the held-out day, every second of them twice.
    visitors = users // 3
    who = np.sort(np.concatenate([np.arange(visitors), np.arange(0, visitors, 2)]))
    pool = np.array([rng.choice(videos, candidates, replace=False) for _ in who])
    flat_u = np.repeat(who, candidates)
    shape = pool.shape
    known = pool.copy()
    known[::3, -2:] = -1
    sessions = Sessions(
        user_id=who.astype(np.int64) + 1000,
        session_id=np.arange(len(who), dtype=np.int64),
        group=group[who],
        user_features=user_features[who],
        candidates=known,
        video_features=features(flat_u, pool.ravel()).reshape(*shape, 3),
        duration_s=duration[pool],
        topic=topic[pool].astype(np.int32),
        fresh=(pool % 4 == 0).astype(np.int8),
    )
    return Planted(data, np.array(appeal), sessions, liking(flat_u, pool.ravel()).reshape(shape))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted() -> Planted:
    return planted_log(users=700)
