"""Replay on uniform exposures of a feed that logs no candidate sets: KuaiRand's random rows, clicks only.

Each exposure's policy chooses among a random set of the pool that holds the logged video
(``simulator.offpolicy.replay``). The pool is every video that was shown at random; features, tenure and ages are as of
the end of the training, since an exposure may have no time. Rows with a time count only from the held-out day to the
interval day: earlier ones were trained on, later ones are not to be looked at. Estimand: the click rate of an arm that
ranks a random set of K videos for the users of these exposures.

Exposures are not quite uniform in the data (some videos were hardly ever shown), so every number is shown twice: with
propensity 1 / K, and with videos exposed as often as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.arms import day_arms
from components.context import Context
from components.days import bounds, bounds_us
from components.feed.schema import TIME
from components.feed.source import features_of, open_source
from components.inputs import days_between, log_days, model_inputs, user_group
from components.point_in_time import historical_features
from components.train import Role
from components.window import holdout_day
from simulator.draws import uniform
from simulator.offpolicy import Candidates, greedy, random_sets, rounds_over, set_propensity
from simulator.offpolicy.cells import Arms, Settings, round_cells, weight_rows
from simulator.offpolicy.record import ArmWeights, Cell, OffPolicy, Part
from simulator.offpolicy.rounds import FloatArray, IntArray
from simulator.policy import Ranker

# Most candidates of a random set. An exposure costs K pairs and one in K matches: at a given cost, matches fall with
# the square of K, while sets of 10 already tell rankers apart.
SET = 10

# Pairs that each arm scores at most; beyond, users are thinned.
PAIRS = 1_000_000

# Candidates that are scored at a time.
_BLOCK = 200_000


@dataclass(frozen=True)
class Exposures:
    """N random exposures of P videos.

    Attributes:
        user: int64 [N], row in ``users``.
        video: int64 [N], row in ``videos``.
        user_id: int64 [N].
        number: int64 [N], unique within a user.
        click: float64 [N].
        rates: float64 [P], how often each video of the pool was shown at random.
        users: One row per user with the model's user columns and ``group``.
        videos: One row per video of the pool with the model's video columns and ``log_video_age_days``.
        users_share: Share of users that were kept.
        left_out: Exposures that are not here, by reason.
    """

    user: IntArray
    video: IntArray
    user_id: IntArray
    number: IntArray
    click: FloatArray
    rates: FloatArray
    users: pa.Table
    videos: pa.Table
    users_share: float
    left_out: dict[str, int]


def replay_random(context: Context, day: date, record: Mapping[str, Any]) -> OffPolicy:
    """Replay both arms on the random exposures of the feed's source.

    Args:
        context: Pipeline and settings.
        day: Interval day.
        record: ``training_set.json`` of the day.

    Returns:
        The record; without random exposures it says so.
    """
    held = record["holdout_day"]
    read = getattr(open_source(context.pipeline.feed), "random_exposures", None)
    table: pa.Table | None = None if read is None else read()
    if table is None or table.num_rows == 0:
        return OffPolicy(
            day=held, reason="the feed logs neither candidate sets with propensities nor exposures at random"
        )
    found = _exposures(context, day, table, record["activity_threshold"])
    if isinstance(found, str):
        return OffPolicy(day=held, reason=found)
    return replay_exposures(
        context, held, found, day_arms(context, day, found.users, found.videos), _request(context, day)
    )


def replay_exposures(
    context: Context, held: str, exposures: Exposures, arms: Mapping[Role, Ranker], request: Mapping[str, object]
) -> OffPolicy:
    """Replay both arms on random exposures.

    Args:
        context: Pipeline and settings.
        held: The held-out day, for the record.
        exposures: The exposures.
        arms: Both, over the rows of ``exposures.users`` and ``exposures.videos``.
        request: What stands for the unknown request of an exposure: column to value.

    Returns:
        The record.
    """
    chosen = context.pipeline.simulator
    settings = Settings(confidence=context.pipeline.decision.confidence)
    count, pool = len(exposures.user), len(exposures.rates)
    size = min(chosen.candidates, SET, pool)
    sets = random_sets(
        seed=chosen.seed,
        size=size,
        user=exposures.user_id,
        exposure=exposures.number,
        logged=exposures.video,
        eligible=np.full(count, pool),
    )
    policies = {
        role: greedy(sets.offsets, _scores(context, exposures, sets, arm, request)) for role, arm in arms.items()
    }
    group = exposures.users["group"].to_numpy()[exposures.user]
    cells: list[Cell] = []
    weights: list[ArmWeights] = []
    parts: tuple[tuple[Part, FloatArray | None], ...] = (("random_sets", None), ("measured_rates", exposures.rates))
    for part, rates in parts:
        t, b = (
            rounds_over(
                sets,
                policies[role],
                None,
                reward=exposures.click,
                propensity=set_propensity(sets, rates),
                cluster=exposures.user_id,
            )
            for role in ("treatment", "baseline")
        )
        sums = Arms(t, b, group)
        cells += round_cells(part, "click", "share", sums, settings)
        weights += weight_rows(part, sums, settings)
    return OffPolicy(
        day=held,
        rounds=count,
        users=exposures.users.num_rows,
        users_share=exposures.users_share,
        left_out=exposures.left_out,
        confidence=settings.confidence,
        limits=settings.limits,
        shrinkage=settings.shrinkage,
        notes=(*_notes(exposures, size, request), _uniformity(exposures.rates)),
        cells=tuple(cells),
        weights=tuple(weights),
    )


def _notes(exposures: Exposures, size: int, request: Mapping[str, object]) -> tuple[str, ...]:
    asked = ", ".join(f"{name} {value}" for name, value in request.items())
    return (
        f"Each arm chose among a random set of {size} of the pool's {len(exposures.rates)} videos that held the one "
        "shown; clicks alone are known of these exposures, so there is no app time and no reward model.",
        f"Features are as of the end of the training; every request is taken for the day's most common one ({asked}).",
    )


def _uniformity(rates: FloatArray) -> str:
    """How even the exposures are: a uniform pool's counts spread like a Poisson's."""
    mean, variance = float(rates.mean()), float(rates.var())
    rare = int((rates < mean / 2).sum())
    return (
        f"The pool's videos were shown {mean:.1f} times each with a variance of {variance / mean:.1f} times that of "
        f"uniform exposures; {rare} were shown less than half as often as the mean."
    )


def _exposures(context: Context, day: date, table: pa.Table, threshold: float) -> Exposures | str:
    """The exposures that may be looked at, with their users and videos as of the end of the training."""
    held = holdout_day(day)
    start, end = bounds_us(held, context.pipeline.feed.zone)[0], bounds_us(day, context.pipeline.feed.zone)[1]
    known_videos = context.data.get("videos", held).table()
    known_users = context.data.get("users", held).table()
    profiled = pc.is_in(table["video_id"], known_videos["video_id"]).to_numpy()
    pool, rates = np.unique(table["video_id"].to_numpy()[profiled], return_counts=True)
    time = pc.fill_null(pc.cast(table["event_time"], pa.int64()), start).to_numpy()
    inside = (time >= start) & (time < end)
    user = table["user_id"].to_numpy()
    known = pc.is_in(table["user_id"], known_users["user_id"]).to_numpy()
    left_out = {
        "the video is not among the feed's": int((~profiled).sum()),
        "it lies outside of the days that may be looked at": int((profiled & ~inside).sum()),
        "the user is not among the feed's": int((profiled & inside & ~known).sum()),
    }
    kept = np.flatnonzero(profiled & inside & known)
    if len(pool) < 2 or not len(kept):
        words = ", ".join(f"{count} times {why}" for why, count in left_out.items() if count)
        return f"none of {table.num_rows} random exposures can be replayed: {words or 'the pool has one video'}"
    pairs = len(kept) * min(context.pipeline.simulator.candidates, SET, len(pool))
    share = min(1.0, PAIRS / pairs)
    kept = kept[uniform(context.pipeline.simulator.seed, "replay users", user[kept]) <= share]
    if not len(kept):
        return "no user is left after thinning"
    ids, row = np.unique(user[kept], return_inverse=True)
    first = np.searchsorted(user[kept], ids)
    return Exposures(
        user=row,
        video=np.searchsorted(pool, table["video_id"].to_numpy()[kept]).astype(np.int64),
        user_id=user[kept],
        # The table is in order of users, so this counts within a user.
        number=np.arange(len(kept)) - first[row],
        click=table["click"].to_numpy()[kept].astype(np.float64),
        rates=rates.astype(np.float64),
        users=_users(context, day, ids, known_users, threshold),
        videos=_videos(context, day, pool, known_videos),
        users_share=share,
        left_out={why: count for why, count in left_out.items() if count},
    )


def _as_of(context: Context, day: date, count: int) -> pa.ChunkedArray:
    """The moment from which the last day of the training is visible, for each of some rows."""
    lag_us = context.pipeline.features.snapshot_lag_min * 60_000_000
    first = bounds(holdout_day(day), context.pipeline.feed.zone)[0]
    moment = int(first.timestamp()) * 1_000_000 + lag_us
    return pa.chunked_array([pa.array(np.full(count, moment)).cast(TIME)])


def _users(context: Context, day: date, ids: IntArray, profile: pa.Table, threshold: float) -> pa.Table:
    features = features_of(context.pipeline.feed)
    moment = _as_of(context, day, len(ids))
    column = pa.chunked_array([pa.array(ids)])
    table = pa.table({"user_id": column})
    joined = historical_features(context, column, None, moment, features)
    for name in joined.column_names:
        table = table.append_column(name, joined[name])
    tenure = days_between(moment, profile["registered_at"].take(pc.index_in(column, profile["user_id"])))
    table = model_inputs(table.append_column("log_tenure_days", log_days(tenure)), features)
    activity = table[f"user_impressions_{context.pipeline.groups.activity_days}d"]
    return table.append_column("group", user_group(tenure, activity, threshold, context.pipeline.groups))


def _videos(context: Context, day: date, pool: IntArray, profile: pa.Table) -> pa.Table:
    features = features_of(context.pipeline.feed)
    moment = _as_of(context, day, len(pool))
    column = pa.chunked_array([pa.array(pool)])
    table = pa.table({"video_id": column})
    joined = historical_features(context, None, column, moment, features)
    for name in joined.column_names:
        table = table.append_column(name, joined[name])
    age = days_between(moment, profile["uploaded_at"].take(pc.index_in(column, profile["video_id"])))
    return model_inputs(table.append_column("log_video_age_days", log_days(age)), features)


def _request(context: Context, day: date) -> dict[str, object]:
    """The most common surface and hour of the held-out day's sessions."""
    sessions = context.data.get("sessions", holdout_day(day)).table(columns=["surface", "hour"])
    counts = sessions.group_by(["surface", "hour"], use_threads=False).aggregate([([], "count_all")])
    by = [("count_all", "descending"), ("surface", "ascending"), ("hour", "ascending")]
    best: dict[str, object] = counts.sort_by(by).select(["surface", "hour"]).slice(0, 1).to_pylist()[0]
    return best


def _scores(
    context: Context,
    exposures: Exposures,
    sets: Candidates,
    arm: Ranker,
    request: Mapping[str, object],
) -> FloatArray:
    """float64 [M] ranking scores of all candidates, a block at a time."""
    owner = np.repeat(exposures.user, np.diff(sets.offsets))
    group, age = exposures.users["group"].to_numpy(), exposures.videos["log_video_age_days"].combine_chunks()
    types = {"surface": pa.string(), "hour": pa.int8()}
    ranking = np.empty(len(sets.ids))
    for first in range(0, len(sets.ids), _BLOCK):
        context.notify(first, len(sets.ids), "replay random exposures")
        at = slice(first, first + _BLOCK)
        user, video = owner[at], sets.ids[at]
        columns = {name: pa.repeat(pa.scalar(request[name], kind), len(user)) for name, kind in types.items()}
        asked = pa.table({**columns, "log_video_age_days": age.take(pa.array(video))})
        ranking[at] = arm.rank(user, video, asked, group[user])
    context.notify(len(sets.ids), len(sets.ids), "replayed random exposures")
    return ranking
