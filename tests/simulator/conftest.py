"""A small log with planted effects: who likes what decides watching, leaving and returning."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from simulator.draws import uniform
from simulator.evidence import LoggedScores
from simulator.response_data import ResponseData
from simulator.response_state import MEMORY
from simulator.serving import DAY_US, Ranking, Sessions, Videos, names_topic

TOPICS, VIDEOS, LONGEST = 4, 200, 30
NOON = DAY_US // 2
# The planted effects, on the logit scale, per unit of liking.
KEEPS, STAYS, RETURNS = 1.2, 2.0, 1.2


@dataclass(frozen=True)
class Planted:
    """The log, each logged row's liking, its scores, and held-out sessions with everybody's liking of every video."""

    data: ResponseData
    liked: NDArray[np.float64]
    scores: LoggedScores
    sessions: Sessions
    videos: Videos
    liking: NDArray[np.float64]

    @property
    def arms(self) -> dict[str, Ranking]:
        """An arm that knows what everybody likes, and one that knows nothing."""
        user = self.sessions.user_id - 1000
        by_row = np.empty(self.sessions.row.max() + 1, dtype=np.int64)
        by_row[self.sessions.row] = user

        def knows(row, video):
            return self.liking[by_row[row], video]

        def guesses(row, video):
            return uniform(2, "guess", row, video)

        return {"treatment": knows, "baseline": guesses}


def expit(x):
    return 1 / (1 + np.exp(-x))


def planted_log(users: int, days: int = 3, seed: int = 0, slots: int = 6, candidates: int = 8) -> Planted:
    rng = np.random.default_rng(seed)
    interest = rng.integers(0, TOPICS, users).astype(np.int32)
    group = rng.integers(0, 3, users).astype(np.int8)
    quality, topic = rng.normal(size=VIDEOS), rng.integers(0, TOPICS, VIDEOS).astype(np.int32)
    taste = 1.2 * (topic == interest[:, None]) - 0.3 + 0.3 * rng.normal(size=(users, TOPICS))[:, topic]
    liking = taste + 0.6 * quality
    videos = Videos(
        video_id=np.arange(VIDEOS) + 5000,
        # What a pipeline would know: a noisy counter, never the latent quality.
        features=np.column_stack([quality + 0.3 * rng.normal(size=VIDEOS), rng.normal(size=VIDEOS)]).astype(np.float32),
        duration_s=rng.lognormal(3.0, 0.6, VIDEOS),
        topic=topic,
        uploaded_us=rng.integers(0, 100, VIDEOS) * DAY_US,
        creator_id=rng.integers(0, 20, VIDEOS),
        trending=(quality > 1.5).astype(np.int8),
        tail_creator=(rng.random(VIDEOS) < 0.3).astype(np.int8),
        new_age_days=20,
    )
    user_features = rng.normal(size=(users, 2)).astype(np.float32)
    newness = np.where(group == 0, expit(rng.normal(size=users)), 0.05).astype(np.float32)

    u, day = (np.ravel(a) for a in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
    average, total, there = np.zeros(len(u)), np.zeros(len(u)), np.ones(len(u), dtype=bool)
    parts = []
    for position in range(LONGEST):
        rows = np.flatnonzero(there)
        v = rng.integers(0, VIDEOS, len(rows))
        like = liking[u[rows], v]
        skipped = rng.random(len(rows)) > expit(0.5 + KEEPS * like)
        share = np.minimum(np.exp(-0.6 + 0.4 * like + 0.5 * rng.normal(size=len(rows))), 3.0)
        watch = np.where(skipped, rng.uniform(0, 2.9, len(rows)), share * videos.duration_s[v] + 3)
        average[rows] = MEMORY * average[rows] + (1 - MEMORY) * like
        total[rows] += like
        leaves = (rng.random(len(rows)) > expit(2.0 + STAYS * average[rows])) | (position == LONGEST - 1)
        hit = rng.random(len(rows)) < expit(like - 2.5)
        parts.append((rows, np.full(len(rows), position), v, watch, hit, leaves, like))
        there[rows[leaves]] = False
    visit, position, v, watch, hit, leaves, liked = (np.concatenate(c) for c in zip(*parts, strict=True))
    count = np.bincount(visit)
    back = rng.random(len(u)) < expit(0.2 + RETURNS * total / count - 0.5 * (group[u] == 0))
    who, when = u[visit], day[visit]
    started = (100 + when) * DAY_US + NOON
    age = np.floor((started - videos.uploaded_us[v]) / DAY_US)
    pair = np.column_stack([np.log1p(age), names_topic(interest[who][:, None], topic[v])]).astype(np.float32)
    data = ResponseData(
        user_id=who + 1000,
        video_id=videos.video_id[v],
        day=when.astype(np.int32),
        session_id=visit.astype(np.int64),
        position=position.astype(np.int32),
        group=group[who],
        newness=newness[who],
        topic=topic[v],
        user_features=user_features[who],
        video_features=np.concatenate([videos.features[v], pair], axis=1),
        duration_s=videos.duration_s[v],
        watch_s=watch,
        behaviours=("like", "dislike"),
        interactions=np.column_stack([hit, np.full(len(who), -1)]).astype(np.int8),
        left=leaves.astype(np.int8),
        returned=back[visit].astype(np.int8),
        propensity=np.where(rng.random(len(who)) < 0.5, 0.3, np.nan),
    )
    scored = liking[who, v] + 0.3 * rng.normal(size=len(who))
    # A third of the users open the day after the log's last, every second of them twice.
    visitors = users // 3
    opens = np.sort(np.concatenate([np.arange(visitors), np.arange(0, visitors, 2)]))
    sets = np.array([[rng.choice(VIDEOS, candidates, replace=False) for _ in range(slots)] for _ in opens])
    sets[::3, :, -2:] = -1
    sessions = Sessions(
        row=np.arange(len(opens)),
        user_id=opens + 1000,
        session_id=np.arange(len(opens), dtype=np.int64),
        group=group[opens],
        newness=newness[opens],
        started_us=np.full(len(opens), (100 + days) * DAY_US + NOON),
        user_features=user_features[opens],
        interests=interest[opens][:, None],
        sets=sets.astype(np.int32),
    )
    return Planted(data, liked, LoggedScores(data.user_id, data.video_id, scored), sessions, videos, liking)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Bits depend on the number of threads; also where a module's own fixtures fit and roll out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def planted() -> Planted:
    return planted_log(users=1000)
