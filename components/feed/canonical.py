"""The mechanical rules between a source and the lake: refuse what can not be used, derive what is absent.

A rule here looks at one row, at the row's repeats, or at the row's video: it needs no statistics of the day.
Whether a day as a whole is fit for use is decided later, by its validation.
"""

import re
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import FeedSettings
from components.days import bounds, bounds_us
from components.errors import EmptyDayError, SourceError
from components.feed.label_rules import LABEL_REASONS, contradictions
from components.feed.schema import (
    ATTRIBUTE_PREFIX,
    BEHAVIOURS,
    LOG,
    LOG_REQUIRED,
    PAST,
    REQUESTS,
    USERS,
    VIDEOS,
    DayTables,
)
from components.feed.sessions import count_within, cut_sessions

# Why a row is refused. A row is counted under the first reason that holds, in this order.
REASONS = (
    "null_key",
    "outside_day",
    "duplicate",
    "null_watch",
    "negative_watch",
    "absurd_watch",
    "no_duration",
    "bad_behaviour",
    "bad_propensity",
    *LABEL_REASONS,
)

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")

KEY = ("user_id", "event_time", "video_id")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CleanDay:
    """One day of a feed, ready for the lake.

    Attributes:
        day: The local day.
        log: Kept rows, exactly ``LOG``, ordered by user, time and video.
        refused: Refused rows with the columns that the source delivered, and ``reason``.
        users: One row per user registered before the end of the day, ordered by id.
        videos: One row per video uploaded before the end of the day, ordered by id.
        requests: ``REQUESTS`` ordered by session and slot, or None where the source has none.
        counts: Refused rows by reason; reasons without a row are left out.
        notes: What was repaired or left out beside the log, one sentence each.
    """

    day: date
    log: pa.Table
    refused: pa.Table
    users: pa.Table
    videos: pa.Table
    requests: pa.Table | None
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def refused_share(self) -> float:
        """Refused rows over delivered rows."""
        share: float = self.refused.num_rows / (self.refused.num_rows + self.log.num_rows)
        return share


def clean(tables: DayTables, feed: FeedSettings, day: date) -> CleanDay:
    """Apply the rules to one day as its source delivered it.

    Refused rows keep their delivered values. Missing, zero and negative durations are filled from the videos
    table; a row that was watched and still has none is refused, since nothing can be learnt about completion.
    ``finish`` (watched to the end) and ``skip`` (left before ``skip_below_ms`` without finishing) are derived
    where the source has no such column. A play of 0 ms finishes no video, however long that one is, so
    such a row is a skip even when the duration is unknown.

    Sessions, where the source has none, begin after a pause of at least ``session_gap_min`` between two
    exposures of a user, and at local midnight. Positions count from 0. Exposures of one user in one moment have
    no known order: they are put in that of the video ids.

    Args:
        tables: The source's tables with canonical column names.
        feed: Zone and thresholds.
        day: The local day that was read.

    Returns:
        Kept and refused rows, and the tables beside the log.

    Raises:
        SourceError: When a required column is missing, or a column is unknown or of a wrong type.
        EmptyDayError: When no row is usable.
    """
    notes: list[str] = []
    delivered = _delivered(tables.log)
    users = _one_per_id(tables.users, USERS, notes)
    videos = _one_per_id(tables.videos, VIDEOS, notes)

    duration = _duration(delivered, videos)
    codes = _refusals(delivered, duration, feed, day)
    kept = codes == 0
    if not kept.any():
        raise EmptyDayError(_empty_message(codes, day))

    log = _log(delivered.filter(pa.array(kept)), duration.filter(pa.array(kept)), videos, feed, notes)
    reasons = pa.array(("", *REASONS)).take(pa.array(codes)).filter(pa.array(~kept))
    refused = delivered.filter(pa.array(~kept)).append_column("reason", reasons)
    _, end = bounds(day, feed.zone)
    return CleanDay(
        day=day,
        log=log,
        refused=refused,
        users=_born_before(users, "registered_at", pa.scalar(end, USERS.field("registered_at").type), notes),
        videos=_born_before(videos, "uploaded_at", pa.scalar(end, VIDEOS.field("uploaded_at").type), notes),
        requests=None if tables.requests is None else _requests(tables.requests, notes),
        counts=_counts(codes),
        notes=tuple(notes),
    )


def _delivered(log: pa.Table) -> pa.Table:
    """The log with canonical types; behaviours stay as they are until bad values are out."""
    if missing := [name for name in LOG_REQUIRED if name not in log.column_names]:
        raise SourceError(f"the log lacks {missing}; it has {log.column_names}")
    if unknown := [name for name in log.column_names if name not in LOG.names]:
        raise SourceError(f"the log has columns that the schema does not know: {unknown}; known are {LOG.names}")
    columns = {}
    for name in log.column_names:
        column = log.column(name)
        kind = column.type
        if name not in BEHAVIOURS:
            column = _cast(column, LOG.field(name).type, f"log.{name}")
        elif pa.types.is_boolean(kind) or pa.types.is_null(kind):
            column = column.cast(pa.int8())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise SourceError(f"log.{name} is {kind}; a behaviour is 0, 1 or null")
        columns[name] = column
    return pa.table(columns)


def _cast(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.ChunkedArray:
    try:
        # Nanoseconds are cut to microseconds; any other loss is an error.
        return column.cast(kind, safe=not pa.types.is_timestamp(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"{where} is {column.type} and can not be read as {kind}: {error}") from error


def _one_per_id(table: pa.Table, schema: pa.Schema, notes: list[str]) -> pa.Table:
    """One row per id, in the order of the ids, typed; the past where the source knows it, attributes behind users."""
    key = schema.names[0]
    what = "users" if schema is USERS else "videos"
    attributes = [name for name in table.column_names if schema is USERS and name.startswith(ATTRIBUTE_PREFIX)]
    if key not in table.column_names:
        raise SourceError(f"{what} lacks {key}; it has {table.column_names}")
    optional = [pa.field(name, kind) for name, kind in PAST.items() if name in table.column_names]
    known_names = {*schema.names, *attributes, *PAST}
    if unknown := [name for name in table.column_names if name not in known_names]:
        raise SourceError(f"{what} has columns that the schema does not know: {unknown}; known are {schema.names}")
    columns = {field.name: _column(table, field, what) for field in (*schema, *optional)}
    columns |= {name: _cast(table.column(name), pa.string(), f"{what}.{name}") for name in attributes}
    typed = pa.table(columns)
    known = typed.filter(pc.is_valid(typed.column(key)))
    if known.num_rows < typed.num_rows:
        notes.append(f"{typed.num_rows - known.num_rows} rows of {what} have no {key} and were left out")
    # numpy gives the index of each id's first row.
    ids, first = np.unique(known.column(key).to_numpy(), return_index=True)
    if len(ids) < known.num_rows:
        notes.append(f"{known.num_rows - len(ids)} rows of {what} repeat a {key}; the first one was kept")
    fields = [*schema, *optional, *(pa.field(name, pa.string()) for name in attributes)]
    return known.take(pa.array(first)).cast(pa.schema(fields))


def _column(table: pa.Table, field: pa.Field, what: str) -> pa.ChunkedArray:
    if field.name in table.column_names:
        return _cast(table.column(field.name), field.type, f"{what}.{field.name}")
    return pa.chunked_array([pa.nulls(table.num_rows, field.type)])


def _born_before(table: pa.Table, column: str, end: pa.Scalar, notes: list[str]) -> pa.Table:
    born = pc.fill_null(pc.less(table.column(column), end), True)
    known = table.filter(born)
    if known.num_rows < table.num_rows:
        later = table.num_rows - known.num_rows
        notes.append(f"{later} rows have {column} after the day and were left out, since the day can not know them")
    return known


def _of_video(log: pa.Table, videos: pa.Table, column: str) -> pa.ChunkedArray:
    """A column of the videos table for every row of the log, null where the video is unknown."""
    where = pc.index_in(log.column("video_id"), value_set=videos.column("video_id"))
    return videos.column(column).combine_chunks().take(where)


def _positive(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.greater(values, 0), values, pa.scalar(None, pa.int64()))


def _duration(log: pa.Table, videos: pa.Table) -> pa.ChunkedArray:
    of_video = _positive(_of_video(log, videos, "duration_ms"))
    if "duration_ms" not in log.column_names:
        return of_video
    return pc.coalesce(_positive(log.column("duration_ms")), of_video)


def _true(mask: pa.ChunkedArray) -> Mask:
    """A comparison as a numpy mask; null, the answer for an unknown value, is false."""
    result: Mask = pc.fill_null(mask, False).combine_chunks().to_numpy(zero_copy_only=False)
    return result


def _refusals(log: pa.Table, duration: pa.ChunkedArray, feed: FeedSettings, day: date) -> NDArray[np.int8]:
    """For every row 0, or 1 + the index in ``REASONS`` of why it is refused."""
    start, end = bounds_us(day, feed.zone)
    time = log.column("event_time").cast(pa.int64())
    watch = log.column("watch_ms")
    masks: dict[str, Mask] = {
        "null_key": np.logical_or.reduce([_true(pc.is_null(log.column(name))) for name in KEY]),
        "outside_day": _true(pc.or_(pc.less(time, start), pc.greater_equal(time, end))),
        "duplicate": _repeats(log),
        "null_watch": _true(pc.is_null(watch)),
        "negative_watch": _true(pc.less(watch, 0)),
        "absurd_watch": _true(pc.greater(watch, feed.max_watch_ms)),
        "no_duration": _true(pc.and_(pc.greater(watch, 0), pc.is_null(duration))),
        "bad_behaviour": np.zeros(log.num_rows, dtype=bool),
        "bad_propensity": np.zeros(log.num_rows, dtype=bool),
    }
    for name in set(BEHAVIOURS) & set(log.column_names):
        values = log.column(name)
        masks["bad_behaviour"] |= _true(pc.invert(pc.or_(pc.equal(values, 0), pc.equal(values, 1))))
    if "propensity" in log.column_names:
        values = log.column("propensity")
        # NaN compares as false with everything, so it is refused as well.
        masks["bad_propensity"] = _true(pc.invert(pc.and_(pc.greater(values, 0), pc.less_equal(values, 1))))
    masks |= contradictions(log, duration)
    codes = np.zeros(log.num_rows, dtype=np.int8)
    for code, reason in enumerate(REASONS, start=1):
        codes[(codes == 0) & masks[reason]] = code
    return codes


def _repeats(log: pa.Table) -> Mask:
    """Rows that repeat an earlier row in every column."""
    numbered = log.append_column("_row", pa.array(np.arange(log.num_rows)))
    with duckdb.connect() as connection:
        connection.register("log", numbered)
        same = ", ".join(f'"{name}"' for name in log.column_names)
        firsts = connection.execute(f"SELECT min(_row) AS row FROM log GROUP BY {same}").fetchnumpy()["row"]  # noqa: S608
    repeats = np.ones(log.num_rows, dtype=bool)
    repeats[np.asarray(firsts)] = False
    return repeats


def _counts(codes: NDArray[np.int8]) -> dict[str, int]:
    rows = np.bincount(codes, minlength=len(REASONS) + 1)[1:]
    return {reason: int(count) for reason, count in zip(REASONS, rows, strict=True) if count}


def _empty_message(codes: NDArray[np.int8], day: date) -> str:
    if len(codes) == 0:
        return f"the feed has no row for {day}; choose another day, or check feed.timezone and feed.first_day"
    why = ", ".join(f"{reason} {count}" for reason, count in _counts(codes).items())
    return f"no usable row is left for {day}: all {len(codes)} rows were refused ({why}); check the feed's settings"


def _log(rows: pa.Table, duration: pa.ChunkedArray, videos: pa.Table, feed: FeedSettings, notes: list[str]) -> pa.Table:
    """Kept rows as ``LOG``: filled, ordered, derived."""
    filled = {name: rows.column(name) for name in rows.column_names} | {"duration_ms": duration}
    creator = _of_video(rows, videos, "creator_id")
    filled["creator_id"] = pc.coalesce(filled["creator_id"], creator) if "creator_id" in filled else creator
    for name in set(BEHAVIOURS) & set(filled):
        filled[name] = filled[name].cast(pa.int8())
    log = pa.table(filled)
    # Every column breaks ties, so that the order in which a source delivers the rows leaves no trace.
    order = [*KEY, *(name for name in LOG.names if name in filled and name not in KEY)]
    log = log.take(pc.sort_indices(log, sort_keys=[(name, "ascending") for name in order]))

    watch, finished = log.column("watch_ms"), pc.greater_equal(log.column("watch_ms"), log.column("duration_ms"))
    # An unknown duration is left only where nothing was watched, and that finishes no video.
    finished = pc.fill_null(finished, False).cast(pa.int8())
    columns = {name: log.column(name) for name in log.column_names}
    if "finish" in columns:
        finished = pc.coalesce(columns["finish"], finished)
    else:
        columns["finish"] = finished
    if "skip" not in columns:
        columns["skip"] = pc.and_(pc.less(watch, feed.skip_below_ms), pc.equal(finished, 0)).cast(pa.int8())
    columns |= _sessions(log, feed.session_gap_min * 60_000_000, notes)
    for field in LOG:
        columns.setdefault(field.name, pa.nulls(log.num_rows, field.type))
    return pa.table([columns[name] for name in LOG.names], schema=LOG)


def _sessions(log: pa.Table, gap_us: int, notes: list[str]) -> dict[str, pa.Array]:
    """``session_id`` and ``position`` of a log that is ordered by user and time."""
    user = log.column("user_id").to_numpy()
    time = log.column("event_time").cast(pa.int64()).to_numpy()
    given = log.column("session_id").combine_chunks() if "session_id" in log.column_names else None
    if given is None or given.null_count:
        cut = cut_sessions(user, time, gap_us)
        if given is not None:
            notes.append(f"{given.null_count} rows have no session_id; the gap rule gave them one")
        session = pa.array(cut) if given is None else pc.coalesce(given, pa.array(cut))
    else:
        session = given
    position = log.column("position") if "position" in log.column_names else None
    if position is not None and not position.null_count:
        return {"session_id": session, "position": position}
    if position is not None:
        notes.append(f"{position.null_count} rows have no position; all positions of the day were counted by time")
    return {"session_id": session, "position": pa.array(count_within(user, session.to_numpy()))}


def _requests(table: pa.Table, notes: list[str]) -> pa.Table:
    """Requests by session and slot, without those that no policy could have answered."""
    required = ("session_id", "slot", "candidates")
    if missing := [name for name in required if name not in table.column_names]:
        raise SourceError(f"requests lack {missing}; they have {table.column_names}")
    typed = pa.table({field.name: _column(table, field, "requests") for field in REQUESTS})
    size = pc.list_value_length(typed.column("candidates"))
    broken = ~_true(pc.greater(size, 0))
    for name in ("session_id", "slot"):
        broken |= _true(pc.is_null(typed.column(name)))
    for name in ("scores", "probabilities"):
        broken |= _true(pc.not_equal(pc.list_value_length(typed.column(name)), size))
    if broken.any():
        notes.append(
            f"{int(broken.sum())} requests were left out: no session or slot, no candidates, "
            "or another number of scores or probabilities than of candidates"
        )
    usable = typed.filter(pa.array(~broken))
    order = pc.sort_indices(usable, sort_keys=[("session_id", "ascending"), ("slot", "ascending")])
    return usable.take(order).cast(REQUESTS)


def stable_ids(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids of any kind as int64, the same for equal ids on every day and in every table.

    Integers stay what they are, also when they come as text (``"17"``, but not ``"017"``), so that a CSV and a
    Parquet file of one feed agree. Any other text becomes its BLAKE2b hash of 8 bytes, without the sign
    bit; each distinct text is hashed once. Floats are ids only when they are whole, as in columns that had gaps.

    Args:
        values: Integers, whole floats, or texts; null stays null.

    Returns:
        int64 of the same length.

    Raises:
        SourceError: When the type can hold no ids, or a float is not whole.
    """
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_uint64(kind) or pa.types.is_large_string(kind) or kind == pa.string():
        codes = column.cast(pa.string()).combine_chunks().dictionary_encode()
        numbers = pa.array([_id_of(text) for text in codes.dictionary.to_pylist()], pa.int64())
        return pa.chunked_array([numbers.take(codes.indices)])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise SourceError(f"ids are {kind}; they must be integers or texts")
    return _cast(column, pa.int64(), "an id column")


def _id_of(text: str) -> int:
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
