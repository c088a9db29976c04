"""The arms whose lifts are estimated and truly known: eight that use logged information, and two oracles."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.arms import configured_fusion
from components.checks.worlds import WorldDay
from components.inputs import GROUPS
from components.simulate import ranking
from simulator import draws
from simulator.policy import Ranker
from simulator.serving import Ranking

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BASELINE = "popularity"
LEARNED = ("single_half", "single", "shared_bottom", "ple", "mfh")
LOGGED = ("random", BASELINE, "user_topic", *LEARNED)
ORACLES = ("oracle", "oracle_quality")

# A little more training than a day affords: the rung is about arms that differ.
_EPOCHS, _BATCH, _HALF = 4, 2_048, 0.3
# Slots whose candidates are scored at once: most sessions end before.
_AHEAD = 12
# Pseudo-rows of rates.
_VIDEO_PRIOR, _TOPIC_PRIOR, _USER_TOPIC_PRIOR = 20.0, 10.0, 5.0


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm, for the rollouts and for the truth, which see the same scores.

    Attributes:
        name: Its name.
        day: The world's day.
        scores: What it ranks by; every (session, video) pair is asked once.
        known: float64 [S, V], answers so far, NaN elsewhere.
    """

    name: str
    day: WorldDay
    scores: Ranking
    known: FloatArray

    @classmethod
    def of(cls, name: str, day: WorldDay, scores: Ranking) -> "Arm":
        """An arm that was asked nothing yet."""
        return cls(name, day, scores, np.full((day.held.sessions.num_rows, len(day.held.ids)), np.nan))

    def ranking(self, session: IntArray, video: IntArray) -> FloatArray:
        """Ranking scores, as the rollouts ask for them.

        Args:
            session: int64 [N], rows of the held-out sessions.
            video: int64 [N], rows of the held-out videos.

        Returns:
            float64 [N].
        """
        videos = len(self.day.held.ids)
        place = video % videos
        new = np.isnan(self.known[session, place])
        if new.any():
            pair = np.unique(session[new] * videos + place[new])
            at, which = np.divmod(pair, videos)
            version = self.day.held.sessions["version"].to_numpy().astype(np.int64)[at]
            self.known[at, which] = self.scores(at, which + version * videos)
        return self.known[session, place]

    def look_ahead(self, sets: NDArray[np.int32]) -> None:
        """Ask the first slots of all sessions at once, which costs less than session by session.

        Args:
            sets: int32 [S, P, K] rows of the held-out videos, -1 = padding.
        """
        at, place, candidate = np.nonzero(sets[:, :_AHEAD] >= 0)
        self.ranking(at, sets[at, place, candidate].astype(np.int64))

    def score(self, user_ids: IntArray, sessions: IntArray, candidates: IntArray) -> FloatArray:
        """``simulator.world.Policy``: scores [N, K]; a video that the held-out day does not know comes last."""
        rows = self.day.session_rows(user_ids, sessions)
        ids = self.day.held.ids
        place = np.minimum(np.searchsorted(ids, candidates), len(ids) - 1)
        found = self.ranking(np.repeat(rows, candidates.shape[1]), place.ravel()).reshape(candidates.shape)
        return np.where(ids[place] == candidates, found, -1e9)


def make_arms(
    day: WorldDay, names: tuple[str, ...], notify: Callable[[str], None] = lambda name: None
) -> dict[str, Arm]:
    """Make arms.

    Args:
        day: The world's day.
        names: Of ``LOGGED`` and ``ORACLES``.
        notify: Called with the name of an arm before it is made.

    Returns:
        The arms by name.
    """
    found = {}
    for name in names:
        notify(name)
        scores = _learned(day, name) if name in LEARNED else _PLAIN[name](day)
        found[name] = Arm.of(name, day, scores)
    return found


def _learned(day: WorldDay, name: str) -> Ranking:
    from components.models import trainer
    from components.models.scoring import PairScorer

    pipeline = day.context.pipeline
    half = name.endswith("_half")
    settings = replace(pipeline.train, epochs=1 if half else _EPOCHS, batch_size=_BATCH, patience=0)
    table = day.table.slice(0, int(_HALF * day.table.num_rows)) if half else day.table
    recipe = pipeline.recipe(name.removesuffix("_half"))
    fitted = trainer.fit(recipe, settings, pipeline.tasks, GROUPS, day.spec, table)
    scorer = PairScorer(fitted, day.held.sessions, day.held.videos)
    return ranking(Ranker(scorer, configured_fusion(day.context)), day.held)


def _random(day: WorldDay) -> Ranking:
    ids = day.held.sessions["session_id"].to_numpy()
    return lambda session, video: draws.uniform(0, "random arm", ids[session], video % len(day.held.ids))


def _popularity(day: WorldDay) -> Ranking:
    count = _counts(day)[0]
    return lambda session, video: np.log1p(count[video % len(count)])


def _user_topic(day: WorldDay) -> Ranking:
    """Smoothed long-view rates of the user in the video's topic, plus half the video's own."""
    count, views, mean = _counts(day)
    held, topic = day.held, day.held.topic
    users = np.unique(held.sessions["user_id"].to_numpy())
    row = np.searchsorted(users, day.table["user_id"].to_numpy())
    row = np.where(np.isin(day.table["user_id"].to_numpy(), users), row, -1)
    video = _place(held.ids, day.table["video_id"].to_numpy())
    inside = (row >= 0) & (video >= 0)
    inside[inside] &= topic[video[inside]] >= 0
    shape = (len(users), int(topic.max()) + 1)
    at = (row[inside], topic[video[inside]])
    viewed = _long_views(day)[inside]
    own_count, own_views = np.zeros(shape), np.zeros(shape)
    np.add.at(own_count, at, 1.0)
    np.add.at(own_views, at, viewed)
    rate = (own_views.sum(axis=0) + _TOPIC_PRIOR * mean) / (own_count.sum(axis=0) + _TOPIC_PRIOR)
    own = (own_views + _USER_TOPIC_PRIOR * rate) / (own_count + _USER_TOPIC_PRIOR)
    quality = 0.5 * (views + _VIDEO_PRIOR * mean) / (count + _VIDEO_PRIOR)
    user = np.searchsorted(users, held.sessions["user_id"].to_numpy())

    def scores(session: IntArray, video: IntArray) -> FloatArray:
        place = video % len(held.ids)
        found: FloatArray = np.where(topic[place] >= 0, own[user[session], topic[place]], mean) + quality[place]
        return found

    return scores


def _oracle(day: WorldDay) -> Ranking:
    """True expected satisfaction."""
    users = day.held.sessions["user_id"].to_numpy()

    def scores(session: IntArray, video: IntArray) -> FloatArray:
        ids = day.held.ids[video % len(day.held.ids)]
        return day.world.expected_satisfaction(users[session], ids[:, None], day.held_day)[:, 0]

    return scores


def _oracle_quality(day: WorldDay) -> Ranking:
    """The videos' true mean satisfaction over a sample of the day's users: good for everybody, made for nobody."""
    users = np.unique(day.held.sessions["user_id"].to_numpy())[:200]
    ids = np.broadcast_to(day.held.ids, (len(users), len(day.held.ids)))
    mean = day.world.expected_satisfaction(users, ids, day.held_day).mean(axis=0)
    return lambda session, video: mean[video % len(mean)]


_PLAIN: dict[str, Callable[[WorldDay], Ranking]] = {
    "random": _random,
    "popularity": _popularity,
    "user_topic": _user_topic,
    "oracle": _oracle,
    "oracle_quality": _oracle_quality,
}


def _counts(day: WorldDay) -> tuple[FloatArray, FloatArray, float]:
    """Impressions and long views of every held-out video in the training window, and the overall rate."""
    place, viewed = _place(day.held.ids, day.table["video_id"].to_numpy()), _long_views(day)
    inside, size = place >= 0, len(day.held.ids)
    count = np.bincount(place[inside], minlength=size).astype(np.float64)
    views = np.bincount(place[inside], weights=viewed[inside], minlength=size).astype(np.float64)
    return count, views, float(viewed.mean())


def _long_views(day: WorldDay) -> FloatArray:
    viewed: FloatArray = pc.fill_null(day.table["long_view"], 0).to_numpy().astype(np.float64)
    return viewed


def _place(ids: IntArray, wanted: IntArray) -> IntArray:
    at = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, at, -1)
