"""Session rollouts: every held-out session served anew by an arm, as often as there are rollouts.

Estimand: the mean of each outcome over the users who opened a session on the held-out day, had the arm chosen
from the candidate set of every slot of each of their logged sessions; session starts stay as logged. Assumptions:
the response model's (``response``), and that an arm's scores are fixed at the session's start. Unit of analysis: the
user; a user's rollouts are averaged before anything else is done.

Draws are keyed by (seed, user, session, member, rollout, position, purpose) and not by the arm: both arms meet
the same luck at the same position (common random numbers; Owen 2013, Monte Carlo, section 8.6). Only skips, seconds and
leaving are drawn, since the state depends on them; interactions and returning enter as their probabilities given
what was shown (Rao-Blackwell: the same expectation with less variance).

An arm scores only what somebody lives to see: slots come in blocks, and a session whose rollouts have all left is
asked nothing more. Users fall into ``BUCKETS`` fixed buckets, and each bucket into blocks of users in order of their
ids: shards are bit-equal to one process with the same number of threads, and memory does not grow with the users.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator import draws
from simulator.appeal import Predictions
from simulator.comparison import Design, treated
from simulator.concentration import CREATORS, merge_creators, shown_creators
from simulator.metrics import INTERACTIONS, OUTCOMES
from simulator.responding import Responding
from simulator.response_state import LEAVE_STATE, averaged, day_features, leave_state
from simulator.serving import Ranking, Sessions, Showing, Videos, first_seen, repeats_of
from simulator.walk import Habits, Prediction, Walkers, walk

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BUCKETS = 32
# Users that are rolled out at once.
_BLOCK_USERS = 4_096
# Slots at which the arms are asked again: short sessions should not pay for long ones.
_STOPS = (8, 18, 32)

DEPTHS = pa.schema([("arm", pa.string()), ("impressions", pa.int32()), ("rollouts", pa.int64())])


@dataclass(frozen=True)
class RolloutSettings:
    """How often and how far sessions are rolled out.

    Attributes:
        seed: Of every draw.
        rollouts: R, per session and ensemble member.
        max_slots: Longest session; longer ones are cut and counted as ``truncated``.
        design: Both arms serve every user whatever it is; in the split design creators are counted over the users of
            each arm alone (``comparison.assign``).
    """

    seed: int
    rollouts: int
    max_slots: int
    design: Design = "paired"


@dataclass(frozen=True)
class Rollouts:
    """What the rollouts gave.

    Attributes:
        outcomes: ``metrics.OUTCOMES``, by arm, member and user.
        depths: ``DEPTHS``: rolled-out sessions (over members and rollouts) by number of impressions.
        creators: ``concentration.CREATORS``: impressions (over members and rollouts) of every creator.
    """

    outcomes: pa.Table
    depths: pa.Table
    creators: pa.Table

    @classmethod
    def none(cls) -> "Rollouts":
        """Of nobody."""
        return cls(OUTCOMES.empty_table(), DEPTHS.empty_table(), CREATORS.empty_table())


def bucket_of(user_id: IntArray) -> IntArray:
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
    sessions: Sessions, videos: Videos, arms: Mapping[str, Ranking], model: Responding, settings: RolloutSettings
) -> Rollouts:
    """Roll out every arm over the sessions.

    To be bit-equal over shards, give whole buckets (``bucket_of``).

    Args:
        sessions: S sessions, in any order.
        videos: What their sets point into.
        arms: Arm to its ranking.
        model: The response model.
        settings: Seed, rollouts, longest session.

    Returns:
        One row per arm, member and user, the depths of the sessions, and whose videos were shown.

    Raises:
        ConfigError: When an arm's scores have another shape or a candidate's score is not finite.
    """
    found = [Rollouts.none()]
    for rows in _blocks(sessions):
        block = sessions.select(rows)
        found += [_Block(block, videos, arm, arms[arm], model, settings).roll() for arm in sorted(arms)]
    return merge(found)


def merge(parts: list[Rollouts]) -> Rollouts:
    """Put shards together.

    Args:
        parts: Disjoint sets of users.

    Returns:
        Rows by arm, member and user; depths and creators added up. The same bytes however the users were sharded.
    """
    by = [("arm", "ascending"), ("member", "ascending"), ("user_id", "ascending")]
    outcomes = pa.concat_tables([p.outcomes for p in parts]).sort_by(by).combine_chunks()
    depths = (
        pa.concat_tables([p.depths for p in parts]).group_by(["arm", "impressions"]).aggregate([("rollouts", "sum")])
    )
    depths = depths.rename_columns(["arm", "impressions", "rollouts"]).select(DEPTHS.names)
    depths = depths.cast(DEPTHS).sort_by([("arm", "ascending"), ("impressions", "ascending")])
    return Rollouts(outcomes, depths, merge_creators([p.creators for p in parts]))


def _blocks(sessions: Sessions) -> Iterator[IntArray]:
    """Rows of sessions by user, bucket by bucket, at most ``_BLOCK_USERS`` users at once."""
    order = np.lexsort((sessions.session_id, sessions.user_id))
    bucket = bucket_of(sessions.user_id[order])
    for b in np.unique(bucket):
        rows = order[bucket == b]
        _, user = np.unique(sessions.user_id[rows], return_inverse=True)
        for first in range(0, int(user[-1]) + 1, _BLOCK_USERS):
            yield rows[(user >= first) & (user < first + _BLOCK_USERS)]


class _Block:
    """One arm over the S sessions of a block of users."""

    def __init__(
        self,
        sessions: Sessions,
        videos: Videos,
        arm: str,
        ranking: Ranking,
        model: Responding,
        settings: RolloutSettings,
    ) -> None:
        self.sessions, self.videos, self.arm, self.model, self.settings = sessions, videos, arm, model, settings
        self.showing = Showing.start(sessions, ranking, settings.max_slots, settings.seed)
        self.user = model.user_columns(sessions.user_id, sessions.group, sessions.newness, sessions.user_features)
        self.members = [_Member(sessions, self.user, model, settings, member) for member in range(model.size)]

    def roll(self) -> Rollouts:
        """What every ensemble member's walkers did."""
        slots = self.settings.max_slots
        edges = [0, *(stop for stop in _STOPS if stop < slots), slots]
        for begin, end in pairwise(edges):
            alive = np.flatnonzero(np.any([member.walkers.alive.any(axis=1) for member in self.members], axis=0))
            if not len(alive):
                break
            self.showing.extend(alive, begin, end)
            self._predict(alive, begin, end)
            for member in self.members:
                member.go_on(alive, self.showing.shown, begin, end)
        outcomes = [self._outcomes(number, member) for number, member in enumerate(self.members)]
        depths = [self._depths(member) for member in self.members]
        return Rollouts(pa.concat_tables(outcomes), pa.concat_tables(depths), self._creators())

    def _predict(self, alive: IntArray, begin: int, end: int) -> None:
        shown = self.showing.shown[alive]
        repeats = repeats_of(self._topics(shown))[:, begin:end]
        at, slot = np.nonzero(shown[:, begin:end] >= 0)
        pairs = self.sessions.pairs(self.videos, alive[at], shown[at, begin + slot], repeats[at, slot])
        evidence = None if self.model.evidence is None else self.model.evidence.features(pairs)
        found = [self.model.appeal(number, pairs, evidence) for number in range(len(self.members))]
        # Leaving and returning read what the members agree on, as they did when they were fitted.
        appeal = np.mean([one.appeal for one in found], axis=0)
        for member, one in zip(self.members, found, strict=True):
            member.learn(alive[at], begin + slot, replace(one, appeal=appeal), pairs.duration_s)

    def _topics(self, shown: IntArray) -> NDArray[np.int32]:
        return np.where(shown >= 0, self.videos.topic[shown], -1).astype(np.int32)

    def _outcomes(self, number: int, member: "_Member") -> pa.Table:
        sessions, videos, walkers, shown = self.sessions, self.videos, member.walkers, self.showing.shown
        user_id, first = np.unique(sessions.user_id, return_index=True)
        count = np.diff(np.append(first, len(sessions.user_id)))
        last = walkers.depth - 1

        def day(per_session: FloatArray) -> FloatArray:
            """[S, R, ...] to [U, R, ...]: sums over a user's sessions."""
            return np.add.reduceat(per_session, first, axis=0)

        def so_far(per_slot: NDArray[np.generic]) -> FloatArray:
            """[S, L, ...] to [U, R, ...]: sums over what a user was shown."""
            total = np.cumsum(per_slot.astype(np.float64), axis=1)
            return day(total[np.arange(len(total))[:, None], last])

        def share_of(flag: NDArray[np.int8]) -> FloatArray | None:
            """Impressions of flagged videos, None where the flag is unknown of every video: unknown is not zero."""
            return so_far((shown >= 0) & (flag[shown] == 1)).mean(axis=1) if (flag >= 0).any() else None

        impressions, seconds = day(walkers.depth.astype(np.float64)), day(walkers.seconds)
        mean_appeal = so_far(member.appeal) / impressions[:, :, None]
        again = np.repeat(np.arange(len(first)), walkers.depth.shape[1])
        state = day_features(self.user[first][again], mean_appeal.reshape(len(again), -1))
        group = sessions.group[first]
        returning = self.model.return_probability(number, self.model.fold(user_id)[again], group[again], state)
        topics = self._topics(shown)
        age = sessions.age_days(videos, np.arange(len(shown))[:, None], shown)
        fresh = so_far((shown >= 0) & (age <= videos.new_age_days)) if (videos.uploaded_us >= 0).any() else None
        columns: dict[str, object] = {
            "user_id": user_id,
            "group": group,
            "arm": pa.array([self.arm] * len(first), pa.string()),
            "member": np.full(len(first), number, dtype=np.int32),
            "app_time_s": seconds.mean(axis=1),
            "sessions": count.astype(np.int32),
            "impressions": impressions.mean(axis=1),
            "skips": day(walkers.skips).mean(axis=1),
            "topics": so_far(first_seen(topics)).mean(axis=1) if (videos.topic >= 0).any() else None,
            "fresh": None if fresh is None else fresh.mean(axis=1),
            "trending": share_of(videos.trending),
            "tail_creator": share_of(videos.tail_creator),
            "return_probability": None if returning is None else returning.reshape(len(first), -1).mean(axis=1),
            "truncated": day(walkers.truncated).mean(axis=1) / count,
        }
        interactions = so_far(member.interactions).mean(axis=1)
        columns |= {name: interactions[:, i] for i, name in enumerate(self.model.behaviours) if name in INTERACTIONS}
        arrays = [
            pa.nulls(len(first), f.type) if (v := columns.get(f.name)) is None else pa.array(v, f.type)
            for f in OUTCOMES
        ]
        return pa.table(arrays, schema=OUTCOMES)

    def _depths(self, member: "_Member") -> pa.Table:
        depth, count = np.unique(member.walkers.depth, return_counts=True)
        names = pa.array([self.arm] * len(depth), pa.string())
        return pa.table([names, pa.array(depth, pa.int32()), count], schema=DEPTHS)

    def _creators(self) -> pa.Table:
        sessions, shown = self.sessions, self.showing.shown
        # A walker of depth n has seen slots 0 to n - 1.
        slots = np.arange(shown.shape[1])
        reached = sum((m.walkers.depth[:, :, None] > slots).sum(axis=1) for m in self.members) * np.ones(shown.shape)
        if self.settings.design == "split":
            own = treated(sessions.user_id, self.settings.seed) == (self.arm == "treatment")
            reached *= own[:, None]
        _, first, at = np.unique(sessions.user_id, return_index=True, return_inverse=True)
        creator = np.where(shown >= 0, self.videos.creator_id[shown], -1)
        return shown_creators(self.arm, sessions.group[first][at], bucket_of(sessions.user_id), creator, reached)


class _Member:
    """One ensemble member's walkers over the S sessions of a block, and what it predicted of what they were shown."""

    def __init__(
        self,
        sessions: Sessions,
        user: NDArray[np.float32],
        model: Responding,
        settings: RolloutSettings,
        number: int,
    ) -> None:
        self.seed, self.group = settings.seed, sessions.group
        count, slots = len(sessions.user_id), settings.max_slots
        fold = model.fold(sessions.user_id)
        self.scales, self.fold, self.centre = model.scales(number), fold, model.centre(number)
        self.offset, self.slopes = model.leave_terms(number, fold, sessions.group, user)
        share, log_seconds, minutes = (LEAVE_STATE.index(n) for n in ("watched_share", "log_seconds", "minutes"))
        self.habits = Habits(
            skip_s=np.array([s.skip_s for s in self.scales])[fold],
            cap_share=np.array([s.cap_share for s in self.scales])[fold],
            by_share=self.slopes[:, share].copy(),
            by_log_seconds=self.slopes[:, log_seconds].copy(),
            by_minutes=self.slopes[:, minutes].copy(),
        )
        # One number per trajectory stands for its keys, so that a slot's draws hash two keys and not five.
        repeat = np.arange(settings.rollouts)
        trajectory = draws.bucket(
            settings.seed,
            "trajectory",
            2**53,
            sessions.user_id[:, None],
            sessions.session_id[:, None],
            number,
            repeat,
        )
        self.walkers = Walkers.start(trajectory, self.centre.watched_share)
        width = len(self.centre.appeal)
        self.skip, self.log_share, self.log_share_sd = (np.zeros((count, slots)) for _ in range(3))
        self.duration_s, self.level = np.ones((count, slots)), np.ones((count, slots))
        self.appeal = np.zeros((count, slots, width))
        self.interactions = np.zeros((count, slots, len(model.behaviours)))
        self._average = np.tile(self.centre.appeal, (count, 1))

    def learn(self, at: IntArray, slot: IntArray, found: Predictions, duration_s: FloatArray) -> None:
        """Take in predictions of N (session, slot) places."""
        known, level = np.empty(len(at)), np.empty(len(at))
        for f, scale in enumerate(self.scales):
            mine = self.fold[at] == f
            known[mine] = scale.duration(duration_s[mine])
            level[mine] = scale.level(self.group[at[mine]], known[mine])
        self.skip[at, slot], self.duration_s[at, slot], self.level[at, slot] = found.skip, known, level
        self.log_share[at, slot], self.log_share_sd[at, slot] = found.log_share, found.log_share_sd
        self.appeal[at, slot], self.interactions[at, slot] = found.appeal, found.interactions

    def go_on(self, rows: IntArray, shown: IntArray, begin: int, end: int) -> None:
        """Let the walkers of some sessions watch slots ``begin`` to ``end`` - 1."""
        leave = np.empty((len(rows), end - begin))
        nothing = np.zeros(len(rows))
        for slot in range(begin, end):
            self._average[rows] = averaged(self._average[rows], self.appeal[rows, slot])
            state = leave_state(np.full(len(rows), slot + 1.0), self._average[rows], nothing, nothing)
            total = self.offset[rows]
            for column in range(state.shape[1]):
                total = total + self.slopes[rows, column] * state[:, column]
            leave[:, slot - begin] = total
        part = np.s_[rows, begin:end]
        prediction = Prediction(
            self.skip[part],
            self.log_share[part],
            self.log_share_sd[part],
            self.duration_s[part],
            self.level[part],
            leave,
        )
        walk(
            self.walkers,
            rows,
            shown[part],
            prediction,
            self.habits,
            begin=begin,
            last=end == shown.shape[1],
            seed=self.seed,
        )
