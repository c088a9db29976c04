"""What can be shown: held-out sessions, the candidate set of every slot, and an arm's choice among them."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator import draws
from simulator.draws import mixed, unit
from simulator.jit import compiled
from simulator.response_data import REPEATS_BACK, Pairs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DAY_US = 86_400_000_000

# An arm: ranking scores float64 [N] of N (row of a session in the caller's table, row of a video) pairs.
Ranking = Callable[[IntArray, IntArray], FloatArray]


@dataclass(frozen=True)
class Videos:
    """V videos that sessions of the day can be offered; a video may have several rows, one per snapshot version.

    Attributes:
        video_id: int64 [V].
        features: float32 [V, Fv], of the video alone.
        duration_s: float64 [V] seconds, NaN or 0 where unknown.
        topic: int32 [V], -1 = unknown.
        uploaded_us: int64 [V] microseconds since 1970, -1 = unknown.
        creator_id: int64 [V], -1 = unknown.
        trending: int8 [V], 1, 0, or -1 = unknown; see ``metrics.OUTCOMES``.
        tail_creator: int8 [V], likewise.
        new_age_days: Up to this age at the session's start a video is fresh.
    """

    video_id: IntArray
    features: NDArray[np.float32]
    duration_s: FloatArray
    topic: NDArray[np.int32]
    uploaded_us: IntArray
    creator_id: IntArray
    trending: NDArray[np.int8]
    tail_creator: NDArray[np.int8]
    new_age_days: int


@dataclass(frozen=True)
class Sessions:
    """S held-out sessions and what may be shown in each slot.

    Attributes:
        row: int64 [S], the session's row in the caller's table; arms are asked by it.
        user_id: int64 [S].
        session_id: int64 [S], unique within a user.
        group: int8 [S], index into ``metrics.GROUPS``; a user's first session counts.
        newness: float32 [S], see ``response_data.Pairs``.
        started_us: int64 [S] microseconds since 1970.
        user_features: float32 [S, Fu], as the response model was fitted on.
        interests: int32 [S, A], topics that the user's attributes name, -1 = none.
        sets: int32 [S, P, K] rows of ``Videos``, -1 = padding. Slot l offers set min(l, P - 1), less what the session
            has shown already: P = 1 is one set that the session works through.
    """

    row: IntArray
    user_id: IntArray
    session_id: IntArray
    group: NDArray[np.int8]
    newness: NDArray[np.float32]
    started_us: IntArray
    user_features: NDArray[np.float32]
    interests: NDArray[np.int32]
    sets: NDArray[np.int32]

    def __post_init__(self) -> None:
        for f in fields(self):
            if len(getattr(self, f.name)) != len(self.user_id):
                raise ConfigError(f"sessions: {f.name} has {len(getattr(self, f.name))} rows, not {len(self.user_id)}")
        if len(self.user_id) and not (self.sets[:, 0] >= 0).any(axis=1).all():
            empty = int((~(self.sets[:, 0] >= 0).any(axis=1)).sum())
            raise ConfigError(
                f"sessions: {empty} of {len(self.user_id)} sessions have no candidate; leave them out and say so"
            )

    def select(self, rows: IntArray) -> "Sessions":
        """The given sessions.

        Args:
            rows: int64 [M] indices.

        Returns:
            Those sessions, in the order given.
        """
        return Sessions(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def pairs(self, videos: Videos, at: IntArray, shown: IntArray, repeats: NDArray[np.float32]) -> Pairs:
        """Pairs as the response model reads them.

        Args:
            videos: What the sets point into.
            at: int64 [N], index of each pair's session.
            shown: int64 [N], row of each pair's video.
            repeats: float32 [N], see ``Pairs``.

        Returns:
            N pairs; video features are the video's own, log(1 + age in days) and ``names_topic``.
        """
        age = self.age_days(videos, at, shown)
        pair = np.column_stack([np.log1p(np.maximum(age, 0)), names_topic(self.interests[at], videos.topic[shown])])
        return Pairs(
            user_id=self.user_id[at],
            video_id=videos.video_id[shown],
            group=self.group[at],
            newness=self.newness[at],
            topic=videos.topic[shown],
            repeats=repeats,
            user_features=self.user_features[at],
            video_features=np.concatenate([videos.features[shown], pair.astype(np.float32)], axis=1),
            duration_s=videos.duration_s[shown],
        )

    def age_days(self, videos: Videos, at: IntArray, shown: IntArray) -> FloatArray:
        """float64 [N]: full days from upload to the session's start, NaN where the upload is unknown."""
        uploaded = videos.uploaded_us[shown]
        return np.where(uploaded < 0, np.nan, np.floor((self.started_us[at] - uploaded) / DAY_US))


def names_topic(interests: NDArray[np.int32], topic: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether one of a user's attributes names the video's topic.

    Args:
        interests: int32 [N, A], -1 = none.
        topic: int32 [N], -1 = unknown.

    Returns:
        bool [N].
    """
    named: NDArray[np.bool_] = ((interests == topic[:, None]) & (topic >= 0)[:, None]).any(axis=1)
    return named


@dataclass
class Showing:
    """What an arm shows in every session, slot by slot, as far as anybody has come.

    A session's ranking does not depend on what the user does in it, so all rollouts of a session share it.

    Attributes:
        sessions: S sessions.
        ranking: The arm.
        seed: Of ties.
        shown: int64 [S, L] rows of videos, -1 where there was nothing more to show or nobody came so far.
    """

    sessions: Sessions
    ranking: Ranking
    seed: int
    shown: IntArray

    @classmethod
    def start(cls, sessions: Sessions, ranking: Ranking, slots: int, seed: int) -> "Showing":
        """Nothing shown yet, for at most ``slots`` slots."""
        return cls(sessions, ranking, seed, np.full((len(sessions.user_id), slots), -1, dtype=np.int64))

    def extend(self, alive: IntArray, begin: int, end: int) -> None:
        """Fill slots ``begin`` to ``end`` - 1 of some sessions.

        Args:
            alive: int64 [M], sessions that somebody still watches.
            begin: First slot.
            end: Behind the last slot.

        Raises:
            ConfigError: When a candidate's score is missing or not finite.
        """
        sets = self.sessions.sets[alive]
        places = np.minimum(np.arange(begin, end), sets.shape[1] - 1)
        first, last = int(places[0]), int(places[-1]) + 1
        offered = sets[:, first:last]
        at, place, candidate = np.nonzero(offered >= 0)
        video = offered[at, place, candidate].astype(np.int64)
        scores = np.full(offered.shape, -np.inf)
        found = np.asarray(self.ranking(self.sessions.row[alive[at]], video), dtype=np.float64)
        if found.shape != at.shape or not np.isfinite(found).all():
            raise ConfigError(
                f"an arm's scores must be finite and have shape {at.shape}; found shape {found.shape} with "
                f"{int((~np.isfinite(found)).sum())} that are not finite"
            )
        scores[at, place, candidate] = found
        shown = self.shown[alive]
        stream = draws.stream(self.seed, "tie")
        _choose(offered, scores, places - first, self.sessions.session_id[alive], stream, shown, begin)
        self.shown[alive] = shown


def first_seen(topic: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where a known topic occurs for the first time in its session.

    Args:
        topic: int32 [S, L], -1 = unknown or nothing shown.

    Returns:
        bool [S, L].
    """
    new: NDArray[np.bool_] = topic >= 0
    for slot in range(1, topic.shape[1]):
        new[:, slot] &= ~(topic[:, :slot] == topic[:, slot : slot + 1]).any(axis=1)
    return new


def repeats_of(topic: NDArray[np.int32]) -> NDArray[np.float32]:
    """How many of the last videos of the session had each slot's topic.

    Args:
        topic: int32 [S, L], -1 = unknown or nothing shown.

    Returns:
        float32 [S, L].
    """
    count = np.zeros(topic.shape, dtype=np.float32)
    for back in range(1, REPEATS_BACK + 1):
        count[:, back:] += (topic[:, back:] == topic[:, :-back]) & (topic[:, back:] >= 0)
    return count


@compiled
def _choose(
    offered: NDArray[np.int32],
    scores: FloatArray,
    places: IntArray,
    session_id: IntArray,
    stream: np.uint64,
    shown: IntArray,
    begin: int,
) -> None:
    """Show the best candidate that the session has not shown; equal ones fall by a hash, the same in all arms."""
    for s in range(offered.shape[0]):
        keyed = mixed(stream, session_id[s])
        for step in range(len(places)):
            place, slot = places[step], begin + step
            best, best_score, best_tie = -1, -np.inf, 0.0
            for k in range(offered.shape[2]):
                video = offered[s, place, k]
                if video < 0 or scores[s, place, k] < best_score:
                    continue
                before = False
                for earlier in range(slot):
                    if shown[s, earlier] == video:
                        before = True
                        break
                if before:
                    continue
                tie = unit(mixed(keyed, video))
                if scores[s, place, k] > best_score or tie > best_tie:
                    best, best_score, best_tie = video, scores[s, place, k], tie
            shown[s, slot] = best
            if best < 0:
                break
