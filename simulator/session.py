"""Session rollouts: every held-out session served anew by an arm, as often as there are rollouts.

Estimand: the mean of each outcome over the users who opened a session on the held-out day, had the arm ranked
the given candidates of each of their logged sessions; session starts stay as logged. Assumptions: the response
model's (``response``), and that an arm's ranking is fixed at the session's start. Unit of analysis: the user;
a user's rollouts are averaged before anything else is done.

Draws are keyed by (seed, user, session, member, rollout, position, purpose) and not by the arm: both arms meet
the same luck at the same position (common random numbers; Owen 2013, Monte Carlo, section 8.6). Only skips, seconds and
leaving are drawn, since the state depends on them; interactions and returning enter as their probabilities given
what was shown (Rao-Blackwell: the same expectation with less variance).

Users fall into ``BUCKETS`` fixed buckets, and a bucket is computed as one block whatever the shard: shards are
bit-equal to one process with the same number of threads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator import draws
from simulator.appeal import Predictions
from simulator.metrics import INTERACTIONS, OUTCOMES
from simulator.response import Pairs, ResponseModel
from simulator.response_state import average, day_features, leave_state

FloatArray = NDArray[np.float64]

BUCKETS = 32

DEPTHS = pa.schema([("arm", pa.string()), ("impressions", pa.int32()), ("rollouts", pa.int64())])


@dataclass(frozen=True)
class Sessions:
    """S held-out sessions and what may be shown in each: K candidates, padded.

    Attributes:
        user_id: int64 [S].
        session_id: int64 [S], unique within a user.
        group: int8 [S], index into ``metrics.GROUPS``; a user's first session counts.
        user_features: float32 [S, Fu], as the response model was fitted on.
        candidates: int64 [S, K] video indices, -1 = padding.
        video_features: float32 [S, K, Fv].
        duration_s: float64 [S, K] seconds, NaN or 0 where unknown.
        topic: int32 [S, K], -1 = unknown.
        fresh: int8 [S, K], 1 for a video of the new group, -1 = unknown.
    """

    user_id: NDArray[np.int64]
    session_id: NDArray[np.int64]
    group: NDArray[np.int8]
    user_features: NDArray[np.float32]
    candidates: NDArray[np.int64]
    video_features: NDArray[np.float32]
    duration_s: FloatArray
    topic: NDArray[np.int32]
    fresh: NDArray[np.int8]

    def __post_init__(self) -> None:
        shape = self.candidates.shape
        for name in ("duration_s", "topic", "fresh"):
            if getattr(self, name).shape != shape:
                raise ConfigError(f"sessions: {name} has shape {getattr(self, name).shape}, candidates have {shape}")
        for f in fields(self):
            if len(getattr(self, f.name)) != len(self.user_id):
                raise ConfigError(f"sessions: {f.name} has {len(getattr(self, f.name))} rows, not {len(self.user_id)}")
        if len(self.user_id) and not (self.candidates >= 0).any(axis=1).all():
            empty = int((~(self.candidates >= 0).any(axis=1)).sum())
            raise ConfigError(f"sessions: {empty} of {shape[0]} sessions have no candidate; leave them out and say so")

    def select(self, rows: NDArray[np.int64]) -> "Sessions":
        """The given sessions.

        Args:
            rows: int64 [M] indices.

        Returns:
            Those sessions, in the order given.
        """
        return Sessions(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(frozen=True)
class RolloutSettings:
    """How often and how far sessions are rolled out.

    Attributes:
        seed: Of every draw.
        rollouts: R, per session and ensemble member.
        max_slots: Longest session; longer ones are cut and counted as ``truncated``.
    """

    seed: int
    rollouts: int
    max_slots: int


@dataclass(frozen=True)
class Rollouts:
    """What the rollouts gave.

    Attributes:
        outcomes: ``metrics.OUTCOMES``, by arm, member and user.
        depths: ``DEPTHS``: rolled-out sessions (over members and rollouts) by number of impressions.
    """

    outcomes: pa.Table
    depths: pa.Table


@dataclass(frozen=True)
class _Path:
    """Trajectories of an arm: depth, skips, seconds and truncation, each [S, R]."""

    depth: NDArray[np.int64]
    skips: FloatArray
    seconds: FloatArray
    truncated: FloatArray


def bucket_of(user_id: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [N]: the bucket, 0 to ``BUCKETS`` - 1, that each user is always computed in."""
    return draws.bucket(0, "rollout bucket", BUCKETS, user_id)


def shard_buckets(shard: int, shards: int) -> tuple[int, ...]:
    """Buckets of one shard.

    Args:
        shard: From 0.
        shards: How many there are; beyond ``BUCKETS`` some are empty.

    Returns:
        The buckets; over all shards each occurs once.

    Raises:
        ConfigError: When the shard is not one of the shards.
    """
    if not 0 <= shard < shards:
        raise ConfigError(f"shard {shard} is not one of {shards} shards, which count from 0")
    return tuple(range(shard, BUCKETS, shards))


def rollout(
    sessions: Sessions, scores: Mapping[str, FloatArray], model: ResponseModel, settings: RolloutSettings
) -> Rollouts:
    """Roll out every arm over the sessions.

    To be bit-equal over shards, give whole buckets (``bucket_of``) and score a bucket's pairs in one call.

    Args:
        sessions: S sessions with K candidates each, in any order.
        scores: Arm to float64 [S, K] ranking scores (``policy.Fusion``); padding may hold anything.
        model: The response model.
        settings: Seed, rollouts, longest session.

    Returns:
        One row per arm, member and user, and the depths of the sessions.

    Raises:
        ConfigError: When an arm's scores have another shape or a candidate's score is not finite.
    """
    real = sessions.candidates >= 0
    for arm, values in scores.items():
        if values.shape != real.shape or not np.isfinite(values[real]).all():
            raise ConfigError(f"arm {arm!r}: scores must be finite and have shape {real.shape}, found {values.shape}")
    order = np.lexsort((sessions.session_id, sessions.user_id))
    bucket = bucket_of(sessions.user_id[order])
    tables, depths = [OUTCOMES.empty_table()], [DEPTHS.empty_table()]
    for b in np.unique(bucket):
        rows = order[bucket == b]
        block = sessions.select(rows)
        for member in range(len(model.members)):
            appeal = _appeal(block, model, member)
            for arm in sorted(scores):
                outcome, depth = _roll(
                    block, scores[arm][rows], appeal, model=model, member=member, arm=arm, settings=settings
                )
                tables.append(outcome)
                depths.append(depth)
    return merge([Rollouts(pa.concat_tables(tables), pa.concat_tables(depths))])


def merge(parts: list[Rollouts]) -> Rollouts:
    """Put shards together.

    Args:
        parts: Disjoint sets of users.

    Returns:
        Rows by arm, member and user; depths added up. The same bytes however the users were sharded.
    """
    by = [("arm", "ascending"), ("member", "ascending"), ("user_id", "ascending")]
    outcomes = pa.concat_tables([p.outcomes for p in parts]).sort_by(by).combine_chunks()
    depths = (
        pa.concat_tables([p.depths for p in parts]).group_by(["arm", "impressions"]).aggregate([("rollouts", "sum")])
    )
    depths = depths.rename_columns(["arm", "impressions", "rollouts"]).select(DEPTHS.names)
    return Rollouts(outcomes, depths.cast(DEPTHS).sort_by([("arm", "ascending"), ("impressions", "ascending")]))


def _appeal(block: Sessions, model: ResponseModel, member: int) -> Predictions:
    slots = block.candidates.shape[1]
    pairs = Pairs(
        np.repeat(block.user_id, slots),
        np.repeat(block.group, slots),
        np.repeat(block.user_features, slots, axis=0),
        block.video_features.reshape(-1, block.video_features.shape[2]),
        block.duration_s.ravel(),
    )
    return model.appeal(member, pairs)


def _roll(
    block: Sessions,
    scores: FloatArray,
    appeal: Predictions,
    *,
    model: ResponseModel,
    member: int,
    arm: str,
    settings: RolloutSettings,
) -> tuple[pa.Table, pa.Table]:
    shape = block.candidates.shape
    real = block.candidates >= 0
    # Ties fall by a hash of the video, the same in both arms, and never by the order of the candidates.
    tie = draws.uniform(settings.seed, "tie", block.session_id[:, None], block.candidates)
    rank = np.lexsort((tie, -np.where(real, scores, -np.inf)), axis=1)[:, : settings.max_slots]
    flat = (np.arange(shape[0])[:, None] * shape[1] + rank).ravel()
    shown = Predictions(*(values[flat].reshape(*rank.shape, *values.shape[1:]) for values in vars(appeal).values()))
    length = np.minimum(real.sum(axis=1), rank.shape[1])
    duration = np.take_along_axis(block.duration_s, rank, axis=1)
    path = _walk(block, shown, duration, length, model=model, member=member, settings=settings)

    user_id, first = np.unique(block.user_id, return_index=True)
    last = path.depth - 1

    def day(per_session: FloatArray) -> FloatArray:
        """[S, R, ...] to [U, R, ...]: sums over a user's sessions."""
        return np.add.reduceat(per_session, first, axis=0)

    def so_far(per_slot: FloatArray) -> FloatArray:
        """[S, K, ...] to [U, R, ...]: sums over what a user was shown."""
        return day(np.cumsum(per_slot, axis=1)[np.arange(shape[0])[:, None], last])

    impressions, seconds = day(path.depth.astype(np.float64)), day(path.seconds)
    mean_appeal = so_far(shown.appeal) / impressions[:, :, None]
    fold = model.fold(user_id)
    again = np.repeat(np.arange(len(first)), settings.rollouts)
    state = day_features(
        block.user_features[first][again], mean_appeal.reshape(len(again), -1), seconds.ravel(), impressions.ravel()
    )
    returning = model.return_probability(member, fold[again], block.group[first][again], state)
    interactions = so_far(shown.interactions).mean(axis=1)
    sessions = np.diff(np.append(first, shape[0]))
    columns = {
        "user_id": user_id,
        "group": block.group[first],
        "arm": pa.array([arm] * len(first), pa.string()),
        "member": np.full(len(first), member, dtype=np.int32),
        "app_time_s": seconds.mean(axis=1),
        "sessions": sessions.astype(np.int32),
        "impressions": impressions.mean(axis=1),
        "skips": day(path.skips).mean(axis=1),
        "topics": _null_if(
            so_far(_first_seen(np.take_along_axis(block.topic, rank, axis=1))).mean(axis=1), block.topic
        ),
        "fresh": _null_if(
            so_far((np.take_along_axis(block.fresh, rank, axis=1) == 1).astype(float)).mean(axis=1), block.fresh
        ),
        "return_probability": None if returning is None else returning.reshape(len(first), -1).mean(axis=1),
        "truncated": day(path.truncated).mean(axis=1) / sessions,
        **{name: interactions[:, i] for i, name in enumerate(model.behaviours) if name in INTERACTIONS},
    }
    arrays = [
        pa.nulls(len(first), f.type) if (v := columns.get(f.name)) is None else pa.array(v, f.type) for f in OUTCOMES
    ]
    depth, count = np.unique(path.depth, return_counts=True)
    names = pa.array([arm] * len(depth), pa.string())
    return pa.table(arrays, schema=OUTCOMES), pa.table([names, pa.array(depth, pa.int32()), count], schema=DEPTHS)


def _walk(
    block: Sessions,
    shown: Predictions,
    duration_s: FloatArray,
    length: NDArray[np.int64],
    *,
    model: ResponseModel,
    member: int,
    settings: RolloutSettings,
) -> _Path:
    """Show rank after rank, [S, K] predictions in rank order, until every trajectory has ended."""
    count, rollouts = len(block.user_id), settings.rollouts
    fold_of = model.fold(block.user_id)
    scales = model.members[member].scale
    for f, scale in enumerate(scales):
        duration_s = np.where((fold_of == f)[:, None], scale.duration(duration_s), duration_s)
    skip_s = np.array([s.skip_s for s in scales])[fold_of]
    session, repeat = (a.ravel() for a in np.indices((count, rollouts)))
    # One number per trajectory stands for its keys, so that a slot's draws hash two keys and not five.
    trajectory = draws.bucket(
        settings.seed, "trajectory", 2**53, block.user_id[session], block.session_id[session], member, repeat
    )
    depth = np.zeros(count * rollouts, dtype=np.int64)
    skips, seconds, truncated = np.zeros(len(depth)), np.zeros(len(depth)), np.zeros(len(depth))
    mean_share = np.zeros(len(depth))
    mean_appeal: FloatArray | None = None
    alive = np.arange(len(depth))
    for slot in range(shown.skip.shape[1]):
        alive = alive[length[session[alive]] > slot]
        if not len(alive):
            break
        s = session[alive]
        keys = (trajectory[alive], slot)
        skipped = draws.uniform(settings.seed, "skip", *keys) < shown.skip[s, slot]
        noise = draws.normal(settings.seed, "watch", *keys)
        length_s = duration_s[s, slot]
        watched = model.seconds(
            member,
            fold_of[s],
            mean=shown.log_share[s, slot],
            sd=shown.log_share_sd[s, slot],
            duration_s=length_s,
            noise=noise,
        )
        watched = np.where(skipped, skip_s[s], watched)
        share = np.minimum(watched / length_s, 1.0)
        mean_appeal = average(mean_appeal, shown.appeal[:, slot])
        mean_share[alive] = average(None if slot == 0 else mean_share[alive], share)
        depth[alive] += 1
        skips[alive] += skipped
        seconds[alive] += watched
        position = np.full(len(alive), slot + 1.0)
        state = leave_state(position, mean_appeal[s], mean_share[alive], seconds[alive])
        leaving = model.leave_probability(member, fold_of[s], block.group[s], state)
        stays = draws.uniform(settings.seed, "leave", *keys) >= leaving
        # Who would have gone on but found nothing more to see did not leave: the candidates ended the session.
        exhausted = length[s] == slot + 1
        truncated[alive[stays & exhausted]] = 1.0
        alive = alive[stays]
    shape = (count, rollouts)
    return _Path(depth.reshape(shape), skips.reshape(shape), seconds.reshape(shape), truncated.reshape(shape))


def _first_seen(topic: NDArray[np.int32]) -> FloatArray:
    """float64 [S, K]: 1 where a known topic occurs for the first time in its session."""
    new = topic >= 0
    for slot in range(1, topic.shape[1]):
        new[:, slot] &= ~(topic[:, :slot] == topic[:, slot : slot + 1]).any(axis=1)
    return new.astype(np.float64)


def _null_if(values: FloatArray, known: NDArray[np.int32] | NDArray[np.int8]) -> FloatArray | None:
    """None where nothing is known of any candidate: a share of the unknown is not zero."""
    return values if (known >= 0).any() else None
