"""The held-out sessions as the simulator's arrays: who asked, what each slot could show, what both arms score."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.context import Context
from components.inputs import user_group
from components.respond import interests, matrix, newness, numeric_columns, topic_codes, topic_names
from simulator.draws import uniform
from simulator.serving import DAY_US, Sessions, Videos

# Share of the training window's impressions that the head of the creators holds, and who trends.
_HEAD_SHARE, _TRENDING = 0.8, 0.99
# How often a set is drawn for a slot without a logged one, before the slot is given up.
_BORROWINGS = 20


@dataclass(frozen=True)
class Requests:
    """Logged candidate sets of the day.

    Attributes:
        candidates: int64 [R, K] indices into ``Heldout.ids``, -1 = padding.
        session_row: int64 [R], row of the set's session.
        slot: int64 [R].
    """

    candidates: NDArray[np.int64]
    session_row: NDArray[np.int64]
    slot: NDArray[np.int64]


@dataclass(frozen=True)
class Heldout:
    """The held-out day.

    Attributes:
        sessions: Sessions with the user's model inputs, one row each, and ``group`` int8.
        videos: Videos in both snapshot versions with model inputs; version 1 follows version 0, ids ascending.
        ids: int64 [V], the video ids of one version.
        uploaded_us: int64 [V] microseconds, -1 where unknown.
        topic: int32 [V], ``respond.topic_codes``.
        offered: What each session could show where no candidate sets are logged: int64 [S, K] indices into ``ids``,
            -1 = padding.
        topics: Names behind the codes of topics.
        requests: Logged candidate sets, None where the feed has none.
    """

    sessions: pa.Table
    videos: pa.Table
    ids: NDArray[np.int64]
    uploaded_us: NDArray[np.int64]
    topic: NDArray[np.int32]
    offered: NDArray[np.int64]
    topics: tuple[str, ...] = ()
    requests: Requests | None = None


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
    requests, topics = _requests(context, day, sessions, ids), topic_names(context, day)
    offered = np.full((sessions.num_rows, 0), -1, dtype=np.int64)
    return Heldout(
        sessions=sessions.append_column("group", group),
        videos=videos,
        ids=ids,
        uploaded_us=uploaded_us,
        topic=topic_codes(first["video_topic"], topics),
        offered=offered if requests else _candidates(context, day, sessions, ids, uploaded_us),
        topics=topics,
        requests=requests,
    )


def _requests(context: Context, day: date, sessions: pa.Table, ids: NDArray[np.int64]) -> Requests | None:
    """The day's candidate sets, each thinned to ``simulator.candidates`` by a hash where it is larger."""
    partition = context.data.find("requests", day)
    if partition is None or not partition.rows:
        return None
    size, seed = context.pipeline.simulator.candidates, context.pipeline.simulator.seed
    table = partition.table(columns=["session_id", "slot", "candidates"])
    session_ids = sessions["session_id"].to_numpy()
    order = np.argsort(session_ids, kind="stable")
    owner = table["session_id"].to_numpy()
    at = np.minimum(np.searchsorted(session_ids[order], owner), len(order) - 1)
    table = table.filter(pa.array(session_ids[order][at] == owner))
    row = order[at[session_ids[order][at] == owner]]
    lists = table["candidates"].combine_chunks()
    index = np.searchsorted(ids, pc.list_flatten(lists).to_numpy())
    request = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    slot = table["slot"].to_numpy().astype(np.int64)
    sizes = np.bincount(request, minlength=len(row))
    if int(sizes.max(initial=0)) > size:
        luck = uniform(seed, "candidate order", session_ids[row][request], slot[request], ids[index])
        mixed = np.lexsort((luck, request))
        request, index = request[mixed], index[mixed]
    place = np.arange(len(request)) - (np.cumsum(sizes) - sizes)[request]
    kept = place < size
    candidates = np.full((len(row), min(size, int(sizes.max(initial=1)))), -1, dtype=np.int64)
    candidates[request[kept], place[kept]] = index[kept]
    return Requests(candidates, row, slot)


def _candidates(
    context: Context, day: date, sessions: pa.Table, ids: NDArray[np.int64], uploaded_us: NDArray[np.int64]
) -> NDArray[np.int64]:
    """At most K videos per session, the same for both arms: what it was shown, filled up with the day's exposures.

    A filler was uploaded before the session began and is as likely as it was often exposed.
    """
    size, seed = context.pipeline.simulator.candidates, context.pipeline.simulator.seed
    session_ids = sessions["session_id"].to_numpy()
    log = context.data.get("log", day).table(columns=["session_id", "video_id"])
    shown_by, shown = log["session_id"].to_numpy(), log["video_id"].to_numpy()
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

    A slot offers what the log offered in it. A slot that the logged session did not reach offers the set of another
    request of the day, drawn at random, as far as its videos were there when the session began; a set of which
    nothing was there is drawn again.

    Args:
        context: Pipeline and settings.
        held: The held-out day.
        rows: int64 [S], which sessions.

    Returns:
        S sessions.
    """
    table = held.sessions.take(pa.array(rows))
    version = table["version"].to_numpy().astype(np.int64)
    started = pc.cast(table["started_at"], pa.int64()).to_numpy()
    sets = held.offered[rows][:, None, :] if held.requests is None else _slot_sets(context, held, rows, started)
    return Sessions(
        row=np.asarray(rows, dtype=np.int64),
        user_id=table["user_id"].to_numpy(),
        session_id=table["session_id"].to_numpy(),
        group=table["group"].to_numpy(),
        newness=newness(context, table["tenure_days"]),
        started_us=started,
        user_features=matrix(table, numeric_columns(context, "user")),
        interests=interests(context, table, held.topics),
        sets=np.where(sets < 0, -1, sets + version[:, None, None] * len(held.ids)).astype(np.int32),
    )


def _slot_sets(
    context: Context, held: Heldout, rows: NDArray[np.int64], started: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 [S, max_slots, K]: logged candidate sets where there are, other requests' sets elsewhere."""
    requests, slots = held.requests, context.pipeline.simulator.max_slots
    assert requests is not None
    seed, session = context.pipeline.simulator.seed, held.sessions["session_id"].to_numpy()[rows]
    place = np.full(held.sessions.num_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    mine = np.flatnonzero((place[requests.session_row] >= 0) & (requests.slot < slots))
    at, slot = place[requests.session_row[mine]], requests.slot[mine]
    sets = np.full((len(rows), slots, requests.candidates.shape[1]), -1, dtype=np.int64)
    sets[at, slot] = requests.candidates[mine]
    unlogged = np.ones((len(rows), slots), dtype=bool)
    unlogged[at, slot] = False
    open_at, open_slot = np.nonzero(unlogged)
    for attempt in range(_BORROWINGS):
        if not len(open_at):
            break
        luck = uniform(seed, "borrowed set", session[open_at], open_slot, attempt)
        found = requests.candidates[(luck * len(requests.slot)).astype(np.int64)]
        there = held.uploaded_us[np.maximum(found, 0)] <= started[open_at, None]
        sets[open_at, open_slot] = np.where(there, found, -1)
        # A set of which nothing was there yet would end the session.
        empty = (sets[open_at, open_slot] < 0).all(axis=1)
        open_at, open_slot = open_at[empty], open_slot[empty]
    return sets


def video_arrays(context: Context, held: Heldout, train_days: list[date]) -> Videos:
    """The simulator's view of the day's videos, in both snapshot versions.

    Args:
        context: Pipeline and settings.
        held: The held-out day.
        train_days: Days of the training window, whose log tells head creators from the tail.

    Returns:
        The videos, in the order of ``held.videos``.
    """
    duration = held.videos["video_duration_ms"].to_numpy(zero_copy_only=False).astype(np.float64)
    versions = held.videos.num_rows // max(len(held.ids), 1)
    names = [name for name in numeric_columns(context, "video") if name != "log_video_age_days"]
    creator = pc.fill_null(held.videos["video_creator_id"], -1).to_numpy().astype(np.int64)
    return Videos(
        video_id=np.tile(held.ids, versions),
        features=matrix(held.videos, names),
        # The model input is log(1 + ms).
        duration_s=np.expm1(duration) / 1000,
        topic=np.tile(held.topic, versions),
        uploaded_us=np.tile(held.uploaded_us, versions),
        creator_id=creator,
        trending=_trending(held),
        tail_creator=_tail(context, creator, train_days),
        new_age_days=context.pipeline.groups.new_video_age_days,
    )


def _trending(held: Heldout) -> NDArray[np.int8]:
    """int8 [V]: whether a video's impressions of the last day are among the highest of its snapshot version."""
    count = held.videos["video_impressions_1d"].to_numpy(zero_copy_only=False).astype(np.float64)
    version = held.videos["version"].to_numpy()
    found = np.zeros(len(count), dtype=np.int8)
    for one in np.unique(version):
        mine = version == one
        found[mine] = (count[mine] > 0) & (count[mine] >= np.quantile(count[mine], _TRENDING))
    return found


def _tail(context: Context, creator: NDArray[np.int64], train_days: list[date]) -> NDArray[np.int8]:
    """int8 [V]: 1 for videos of creators outside the head of the window's log, -1 where no creator is known."""
    if not (creator >= 0).any():
        return np.full(len(creator), -1, dtype=np.int8)
    logs = [context.data.get("log", one).table(columns=["creator_id"])["creator_id"] for one in train_days]
    logged = np.concatenate([pc.drop_null(one).to_numpy() for one in logs]) if logs else np.empty(0, np.int64)
    ids, count = np.unique(logged, return_counts=True)
    order = np.lexsort((ids, -count))
    share = np.cumsum(count[order]) / max(count.sum(), 1)
    head = ids[order][: int(np.searchsorted(share, _HEAD_SHARE)) + 1]
    return np.where(creator < 0, 0, ~np.isin(creator, head)).astype(np.int8)


def pair_context(
    held: Heldout, session: NDArray[np.int64], video: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Table]:
    """What a scorer needs for N (session, video) pairs.

    Args:
        held: The held-out day.
        session: int64 [N], rows of ``held.sessions``.
        video: int64 [N], rows of ``held.videos``, in the session's snapshot version.

    Returns:
        ``session``, ``video`` and the N rows of request columns.
    """
    table = held.sessions.select(["started_at", "surface", "hour"]).take(pa.array(session))
    started = pc.cast(table["started_at"], pa.int64()).to_numpy()
    uploaded = held.uploaded_us[video % len(held.ids)]
    age = np.where(uploaded < 0, np.nan, np.floor((started - uploaded) / DAY_US))
    log_age = pa.array(np.log1p(np.maximum(age, 0)).astype(np.float32), from_pandas=True)
    return session, video, table.select(["surface", "hour"]).append_column("log_video_age_days", log_age)
