"""The held-out sessions as the simulator's arrays: who asked, what could be shown, what both arms score."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.context import Context
from components.inputs import user_group
from components.respond import matrix, numeric_columns
from simulator.draws import uniform
from simulator.session import Sessions

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Heldout:
    """The held-out day.

    Attributes:
        sessions: Sessions with the user's model inputs, one row each, and ``group`` int8.
        videos: Videos in both snapshot versions with model inputs; version 1 follows version 0, ids ascending.
        ids: int64 [V], the video ids of one version.
        uploaded_us: int64 [V] microseconds, -1 where unknown.
        topic: int32 [V], -1 where unknown.
        offered: What each session could show: int64 [S, K] indices into ``ids``, -1 = padding.
    """

    sessions: pa.Table
    videos: pa.Table
    ids: NDArray[np.int64]
    uploaded_us: NDArray[np.int64]
    topic: NDArray[np.int32]
    offered: NDArray[np.int64]


def load_heldout(context: Context, day: date, threshold: float) -> Heldout:
    """Read the held-out sessions of a day and their candidate sets.

    Args:
        context: Pipeline and settings.
        day: The held-out day; ``dataset`` has written its sessions.
        threshold: Activity threshold of the groups.

    Returns:
        The day; users without a candidate do not occur, since a session holds at least what was shown.
    """
    sessions = context.data.get("sessions", day).table()
    videos = context.data.get("session_videos", day).table()
    activity = f"user_impressions_{context.pipeline.groups.activity_days}d"
    group = user_group(sessions["tenure_days"], sessions[activity], threshold, context.pipeline.groups)
    first = videos.filter(pc.equal(videos["version"], 0))
    ids = first["video_id"].to_numpy()
    uploaded_us = pc.fill_null(pc.cast(first["uploaded_at"], pa.int64()), -1).to_numpy()
    topics = pc.dictionary_encode(pc.fill_null(first["video_topic"], "")).combine_chunks()
    code = topics.indices.to_numpy().astype(np.int32)
    unknown = pc.equal(pc.fill_null(first["video_topic"], ""), "").to_numpy()
    return Heldout(
        sessions=sessions.append_column("group", group),
        videos=videos,
        ids=ids,
        uploaded_us=uploaded_us,
        topic=np.where(unknown, -1, code).astype(np.int32),
        offered=_candidates(context, day, sessions, ids, uploaded_us),
    )


def _candidates(
    context: Context, day: date, sessions: pa.Table, ids: NDArray[np.int64], uploaded_us: NDArray[np.int64]
) -> NDArray[np.int64]:
    """At most K videos per session, the same for both arms.

    With logged requests: a uniform sample of what the session was offered. Without: what it was shown, filled up
    with videos of the day's exposures that were uploaded before it began, each as likely as it was often exposed.
    """
    size, seed = context.pipeline.simulator.candidates, context.pipeline.simulator.seed
    session_ids = sessions["session_id"].to_numpy()
    log = context.data.get("log", day).table(columns=["session_id", "video_id"])
    shown_by, shown = log["session_id"].to_numpy(), log["video_id"].to_numpy()
    requests = context.data.find("requests", day)
    if requests is not None:
        table = requests.table(columns=["session_id", "candidates"])
        lists = table["candidates"].combine_chunks()
        owner = table["session_id"].to_numpy()[pc.list_parent_indices(lists).to_numpy()]
        # What was shown was offered; a session whose requests are missing still has that.
        video = np.concatenate([pc.list_flatten(lists).to_numpy(), shown])
        first_choice = np.repeat([0.0, 1.0], [len(owner), len(shown)])
        owner = np.concatenate([owner, shown_by])
    else:
        # Twice as many draws as places: some fall on videos that the session already has.
        place = np.arange(2 * size)
        drawn = uniform(seed, "candidate exposures", session_ids[:, None], place[None, :])
        filler = shown[(drawn * len(shown)).astype(np.int64)]
        started = pc.cast(sessions["started_at"], pa.int64()).to_numpy()
        there = uploaded_us[np.searchsorted(ids, filler)] <= started[:, None]
        owner = np.concatenate([shown_by, np.broadcast_to(session_ids[:, None], filler.shape)[there]])
        video = np.concatenate([shown, filler[there]])
        first_choice = np.repeat([0.0, 1.0], [len(shown), there.sum()])
    row = np.searchsorted(np.sort(session_ids), owner)
    row = np.argsort(session_ids, kind="stable")[np.minimum(row, len(session_ids) - 1)]
    known = session_ids[row] == owner
    row, index, first_choice = row[known], np.searchsorted(ids, video[known]), first_choice[known]
    # One entry per (session, video), what was shown before what was drawn, then in random order.
    order = np.lexsort((uniform(seed, "candidate order", session_ids[row], ids[index]), first_choice, row))
    row, index = row[order], index[order]
    _, unique = np.unique(row * np.int64(len(ids)) + index, return_index=True)
    unique.sort()
    row, index = row[unique], index[unique]
    starts = np.searchsorted(row, np.arange(len(session_ids)))
    rank = np.arange(len(row)) - starts[row]
    offered = np.full((len(session_ids), size), -1, dtype=np.int64)
    inside = rank < size
    offered[row[inside], rank[inside]] = index[inside]
    return offered


def session_arrays(context: Context, held: Heldout, rows: NDArray[np.int64]) -> Sessions:
    """The simulator's view of some sessions.

    Args:
        context: Pipeline and settings.
        held: The held-out day.
        rows: int64 [S], which sessions.

    Returns:
        S sessions with K candidates.
    """
    table = held.sessions.take(pa.array(rows))
    offered = held.offered[rows]
    index = np.maximum(offered, 0)
    age_days = _age_days(held, table, index)
    versioned = index + table["version"].to_numpy().astype(np.int64)[:, None] * len(held.ids)
    names = [name for name in numeric_columns(context, "video") if name != "log_video_age_days"]
    features = matrix(held.videos, names)[versioned]
    log_age = np.log1p(np.maximum(age_days, 0)).astype(np.float32)
    fresh = np.where(np.isnan(age_days), -1, age_days <= context.pipeline.groups.new_video_age_days)
    duration = held.videos["video_duration_ms"].to_numpy(zero_copy_only=False).astype(np.float64)
    return Sessions(
        user_id=table["user_id"].to_numpy(),
        session_id=table["session_id"].to_numpy(),
        group=table["group"].to_numpy(),
        user_features=matrix(table, numeric_columns(context, "user")),
        candidates=offered,
        video_features=np.concatenate([features, log_age[:, :, None]], axis=2),
        # The model input is log(1 + ms).
        duration_s=np.expm1(duration)[versioned] / 1000,
        topic=np.where(offered < 0, -1, held.topic[index]).astype(np.int32),
        fresh=np.where(offered < 0, -1, fresh).astype(np.int8),
    )


def pair_context(held: Heldout, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Table]:
    """What a scorer needs for every real (session, candidate) pair of some sessions.

    Args:
        held: The held-out day.
        rows: int64 [S], which sessions.

    Returns:
        Row of the session in ``held.sessions`` and of the video in ``held.videos``, both int64 [N], and the N
        rows of request columns; pairs in row-major order of ``offered``, padding left out.
    """
    offered = held.offered[rows]
    at, slot = np.nonzero(offered >= 0)
    video = offered[at, slot]
    table = held.sessions.select(["started_at", "surface", "hour", "version"]).take(pa.array(rows[at]))
    age = _age_days(held, table, video[:, None])[:, 0]
    log_age = pa.array(np.log1p(np.maximum(age, 0)).astype(np.float32), from_pandas=True)
    context = table.select(["surface", "hour"]).append_column("log_video_age_days", log_age)
    versioned = video + table["version"].to_numpy().astype(np.int64) * len(held.ids)
    return rows[at], versioned, context


def _age_days(held: Heldout, sessions: pa.Table, video: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [S, K] full days from upload to the session's start, NaN where the upload is unknown."""
    started = pc.cast(sessions["started_at"], pa.int64()).to_numpy()[:, None]
    uploaded = held.uploaded_us[video]
    return np.where(uploaded < 0, np.nan, np.floor((started - uploaded) / DAY_US))
