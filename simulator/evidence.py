"""What the log as a whole says of a (user, video) pair, beside the features of a request.

The response model looks back: it may use what a ranker of that morning could not know. Three kinds of evidence:

- the completed production score of the pair, and the video's mean score (``scores``);
- how *other* users watched the video, over all days: residuals of watching after what explains most of it, shrunk
  towards 0 by ``PRIOR`` pseudo-rows. The row's own user is always left out (leave-one-out, as in cross-fitting by
  user), so that no user's outcome explains itself. Only the few coefficients of what explains most of it, and the
  residuals' spread, are of all users;
- the user's own past with the video's topic, from days before the session's.

There is no embedding of a video: its evidence is an average with known shrinkage, which does not remember the noise
that an arm's embedding has learned from the same log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.response_data import Pairs, ResponseData
from simulator.scores import ScoreFactors, fit_scores, place

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Outcomes whose residuals are averaged per video.
OUTCOMES = ("skip", "watched_share", "log_seconds")
PRIOR = 10.0
# Share of (user, video) pairs whose video evidence is hidden in training.
HIDDEN = 0.1
_SCORE_ARRAYS = ("users", "videos", "user_factors", "video_factors", "level")
# Pseudo-rows of a user's rate in a topic, and of a user's rate over all topics.
_TOPIC_PRIOR, _USER_PRIOR = 3.0, 5.0


@dataclass(frozen=True)
class LoggedScores:
    """Production scores of N candidates, in order of time.

    Attributes:
        user_id: int64 [N].
        video_id: int64 [N].
        score: float64 [N].
    """

    user_id: IntArray
    video_id: IntArray
    score: FloatArray


@dataclass(frozen=True)
class VideoEvidence:
    """Sums of residuals per video, and each user's own share of them.

    Attributes:
        videos: int64 [V], ascending ids.
        sums: float64 [V, len(OUTCOMES) + 1], the number of rows last.
        users: int64 [U], ascending ids.
        own_keys: int64 [P], place of the user times V plus place of the video, ascending.
        own_sums: float64 [P, len(OUTCOMES) + 1].
    """

    videos: IntArray
    sums: FloatArray
    users: IntArray
    own_keys: IntArray
    own_sums: FloatArray

    def features(self, user_id: IntArray, video_id: IntArray) -> FloatArray:
        """float64 [N, len(OUTCOMES) + 1]: shrunk means of other users' residuals, and log(1 + their rows)."""
        v, u = place(self.videos, video_id), place(self.users, user_id)
        sums = np.where((v >= 0)[:, None], self.sums[v] if len(self.videos) else 0.0, 0.0)
        own = place(self.own_keys, np.where((u >= 0) & (v >= 0), u * len(self.videos) + v, -1))
        sums = sums - np.where((own >= 0)[:, None], self.own_sums[own] if len(self.own_keys) else 0.0, 0.0)
        rows = np.maximum(sums[:, -1:], 0.0)
        return np.column_stack([sums[:, :-1] / (rows + PRIOR), np.log1p(rows)])


@dataclass(frozen=True)
class TopicHistory:
    """How users watched topics before the newest day of the log.

    Attributes:
        users: int64 [U], ascending ids.
        counts: float64 [U, T], impressions.
        kept: float64 [U, T], of them not skipped.
        rate: The log's share of videos that are not skipped.
    """

    users: IntArray
    counts: FloatArray
    kept: FloatArray
    rate: float

    def features(self, user_id: IntArray, topic: NDArray[np.int32]) -> FloatArray:
        """float64 [N, 2]: the user's rate in the topic above the user's own rate, and log(1 + impressions)."""
        u = place(self.users, user_id)
        known = (u >= 0) & (topic >= 0) & (topic < self.counts.shape[1])
        empty = np.zeros(len(u))
        if not known.any():
            return np.column_stack([empty, empty])
        at = np.where(known, topic, 0)
        count, kept = (np.where(known, table[u, at], 0.0) for table in (self.counts, self.kept))
        all_count, all_kept = (np.where(u >= 0, table.sum(axis=1)[u], 0.0) for table in (self.counts, self.kept))
        return topic_features(count, kept, all_count, all_kept, self.rate)


@dataclass(frozen=True)
class Evidence:
    """All evidence, as of the newest day of the log that it was made from."""

    scores: ScoreFactors | None
    videos: VideoEvidence
    topics: TopicHistory

    def features(self, pairs: Pairs) -> FloatArray:
        """float64 [N, E] of pairs on the newest day; NaN where a score is unknown."""
        return self._joined(pairs, self.topics.features(pairs.user_id, pairs.topic))

    def features_of_log(self, data: ResponseData, skip_below_s: float) -> FloatArray:
        """float64 [N, E] of the log's own rows, topics as of the beginning of each row's day."""
        return self._joined(data.pairs(), _topics_before(data, data.watch_s >= skip_below_s, self.topics.rate))

    def taught(self, found: FloatArray, data: ResponseData, seed: int) -> FloatArray:
        """Evidence to learn from: of some rows, what the log says of their video is hidden.

        Nearly every row of a log is of a video that others watched too. Networks that learn from nothing else guess
        wildly of a video that nobody has watched yet, and a ranking may show one.

        Args:
            found: float64 [N, E], ``features_of_log``.
            data: The log's N rows.
            seed: Of the choice.

        Returns:
            float64 [N, E].
        """
        hidden = draws.uniform(seed, "hidden evidence", data.user_id, data.video_id) < HIDDEN
        columns = np.arange(found.shape[1]) < len(OUTCOMES) + 1
        return np.where(hidden[:, None] & columns, 0.0, found)

    def _joined(self, pairs: Pairs, topics: FloatArray) -> FloatArray:
        columns = [self.videos.features(pairs.user_id, pairs.video_id), topics]
        if self.scores is not None:
            score = self.scores.score(pairs.user_id, pairs.video_id)
            columns += [score[:, None], self.scores.level_of(pairs.video_id)[:, None]]
        return np.concatenate(columns, axis=1)

    def save(self) -> dict[str, NDArray[Any]]:
        """Arrays by name."""
        parts: list[tuple[str, object]] = [("video", self.videos), ("topic", self.topics)]
        if self.scores is not None:
            parts.append(("score", self.scores))
        return {
            f"{name}.{f.name}": np.atleast_1d(getattr(part, f.name))
            for name, part in parts
            for f in fields(part)  # type: ignore[arg-type]
        }

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]]) -> "Evidence":
        """Read what ``save`` gave; KeyError when an array is missing."""

        def of(name: str, columns: tuple[str, ...]) -> dict[str, Any]:
            return {column: arrays[f"{name}.{column}"] for column in columns}

        scores = None
        if "score.mean" in arrays:
            mean = float(arrays["score.mean"][0])
            scores = ScoreFactors(mean=mean, **of("score", _SCORE_ARRAYS))
        rate = float(arrays["topic.rate"][0])
        return cls(
            scores,
            VideoEvidence(**of("video", tuple(f.name for f in fields(VideoEvidence)))),
            TopicHistory(rate=rate, **of("topic", ("users", "counts", "kept"))),
        )


def gather(data: ResponseData, scores: LoggedScores | None, skip_below_s: float) -> Evidence:
    """Collect the evidence of a log.

    Args:
        data: N impressions of the window and the held-out day.
        scores: Logged production scores, None where the feed logs none.
        skip_below_s: The skip rule.

    Returns:
        The evidence.
    """
    factors = None if scores is None else fit_scores(scores.user_id, scores.video_id, scores.score)
    kept = data.watch_s >= skip_below_s
    residuals = _residuals(data, factors, ~kept)
    videos, v = np.unique(data.video_id, return_inverse=True)
    users, u = np.unique(data.user_id, return_inverse=True)
    keys, own = np.unique(u * len(videos) + v, return_inverse=True)
    before = data.day < data.day.max(initial=0)
    topics = int(data.topic.max(initial=-1)) + 1
    counted = before & (data.topic >= 0)
    at = u[counted] * topics + data.topic[counted]
    shape = (len(users), topics)
    return Evidence(
        factors,
        VideoEvidence(videos, _sums(v, residuals, len(videos)), users, keys, _sums(own, residuals, len(keys))),
        TopicHistory(
            users,
            np.bincount(at, minlength=len(users) * topics).astype(np.float64).reshape(shape),
            np.bincount(at, weights=kept[counted].astype(np.float64), minlength=len(users) * topics)
            .astype(np.float64)
            .reshape(shape),
            float(kept.mean()) if len(kept) else 0.5,
        ),
    )


def topic_features(
    count: FloatArray, kept: FloatArray, all_count: FloatArray, all_kept: FloatArray, rate: float
) -> FloatArray:
    """Evidence of a user's past with a topic.

    Args:
        count: float64 [N], impressions of the topic.
        kept: float64 [N], of them not skipped.
        all_count: float64 [N], impressions of all topics.
        all_kept: float64 [N], of them not skipped.
        rate: Share that everybody does not skip.

    Returns:
        float64 [N, 2]: the shrunk rate in the topic above the user's own, and log(1 + count).
    """
    own = (all_kept + _USER_PRIOR * rate) / (all_count + _USER_PRIOR)
    return np.column_stack([(kept + _TOPIC_PRIOR * own) / (count + _TOPIC_PRIOR) - own, np.log1p(count)])


def _topics_before(data: ResponseData, watched: NDArray[np.bool_], rate: float) -> FloatArray:
    """``topic_features`` of every row from the user's rows on earlier days."""
    found = np.zeros((len(data.user_id), 2))
    users, u = np.unique(data.user_id, return_inverse=True)
    topics = max(int(data.topic.max(initial=-1)) + 1, 1)
    counts, kept = np.zeros((len(users), topics)), np.zeros((len(users), topics))
    for day in np.unique(data.day):
        rows = np.flatnonzero((data.day == day) & (data.topic >= 0))
        a, b = u[rows], data.topic[rows]
        found[rows] = topic_features(counts[a, b], kept[a, b], counts.sum(axis=1)[a], kept.sum(axis=1)[a], rate)
        np.add.at(counts, (a, b), 1.0)
        np.add.at(kept, (a, b), watched[rows])
    return found


def _residuals(data: ResponseData, scores: ScoreFactors | None, skip: NDArray[np.bool_]) -> FloatArray:
    """float64 [N, len(OUTCOMES)]: outcomes less what length, place, score and group explain, of unit spread."""
    known = np.isfinite(data.duration_s) & (data.duration_s > 0)
    typical = float(np.median(data.duration_s[known])) if known.any() else 1.0
    duration = np.where(known, data.duration_s, typical)
    outcomes = np.column_stack([skip, np.minimum(data.watch_s / duration, 1.0), np.log1p(data.watch_s)]).astype(float)
    length = np.log(duration)
    columns = [np.ones(len(length)), length, length**2, (data.position <= data.position.min(initial=0) + 2)]
    if scores is not None:
        score = scores.score(data.user_id, data.video_id)
        score = np.where(np.isfinite(score), score, scores.mean)
        columns += [score, score**2]
    design = np.column_stack(columns).astype(np.float64)
    by_group = [np.where((data.group == g)[:, None], design, 0.0) for g in np.unique(data.group)]
    wide = np.concatenate(by_group, axis=1) if by_group else design
    fit = np.linalg.lstsq(wide, outcomes, rcond=None)[0]
    left = outcomes - wide @ fit
    spread = left.std(axis=0) if len(left) else np.ones(len(OUTCOMES))
    scaled: FloatArray = left / np.where(spread > 1e-9, spread, 1.0)
    return scaled


def _sums(index: IntArray, values: FloatArray, count: int) -> FloatArray:
    columns = [np.bincount(index, weights=column, minlength=count) for column in values.T]
    return np.column_stack([*columns, np.bincount(index, minlength=count)]).astype(np.float64)
