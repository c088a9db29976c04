"""Fresh events: what a user did since the last snapshot, minutes after it happened.

A stream's consumer calls ``push_events`` with each small batch. An event is known when its watching has ended and the
stream has delivered it; from then on the view ``user_fresh`` counts it, online through Feast's push source and offline
by the same stamps (``fresh_rows``). No model reads the view yet: a rollout asks an arm as of its session's start, so a
value that moves within the session would differ between training and scoring.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.context import Context
from components.days import bounds_us
from components.event_rows import EVENT_COLUMNS, PUSH_SOURCE, fresh_rows
from components.feed.schema import TIME
from components.store import open_store

# Clocks of devices and servers differ by so much; what is further ahead is a wrong clock.
CLOCK_SKEW = timedelta(minutes=2)


@dataclass
class FreshWindow:
    """What a consumer keeps between batches: the events of the local day that are not too late.

    Attributes:
        day: The local day that is counted.
        events: Its events so far, each once.
    """

    day: date | None = None
    events: pa.Table = field(default_factory=lambda: _schema().empty_table())


@dataclass(frozen=True)
class Pushed:
    """What became of a batch.

    Attributes:
        users: Users whose values were written.
        taken: Events that count.
        duplicate: Events that had been counted before.
        late: Events behind the watermark: left to the day's log, whose snapshot will count them.
        future: Events from a clock that is ahead.
    """

    users: int
    taken: int
    duplicate: int
    late: int
    future: int


def push_events(context: Context, window: FreshWindow, events: pa.Table, now: datetime) -> Pushed:
    """Count a batch of events and write the values of its users online.

    Events are ordered by their own time, so that batches may come late, twice and out of order. The watermark is the
    local midnight of ``now``: what happened before it belongs to a day whose snapshot is being built.

    Args:
        context: Pipeline and settings.
        window: Kept by the consumer; it is changed.
        events: Rows with ``EVENT_COLUMNS``.
        now: The consumer's clock, with a zone.

    Returns:
        Counts.

    Raises:
        ValueError: When ``now`` has no zone, or a clock jumped back behind the day that is being counted.
    """
    if now.tzinfo is None:
        raise ValueError("the consumer's clock needs a zone: naive times would count as UTC without a word")
    day = now.astimezone(context.pipeline.feed.zone).date()
    if window.day is not None and day < window.day:
        raise ValueError(f"the consumer's clock jumped back to {day} while {window.day} is counted; nothing is written")
    if day != window.day:
        window.day, window.events = day, _schema().empty_table()
    chosen = events.select(EVENT_COLUMNS).cast(_schema())
    times = pc.cast(chosen["event_time"], pa.int64()).to_numpy()
    start, limit = bounds_us(day, context.pipeline.feed.zone)[0], _micros(now + CLOCK_SKEW)
    late, future = times < start, times > limit
    kept = chosen.filter(pa.array(~late & ~future))
    before = window.events.num_rows
    window.events = _distinct(pa.concat_tables([window.events, kept]))
    taken = window.events.num_rows - before
    users = pc.unique(kept["user_id"])
    if len(users):
        rows = fresh_rows(window.events.filter(pc.is_in(window.events["user_id"], value_set=users)))
        store = open_store(context)
        store.push(PUSH_SOURCE, _last(rows).to_pandas(), allow_registry_cache=False)
    return Pushed(len(users), taken, kept.num_rows - taken, int(late.sum()), int(future.sum()))


def _schema() -> pa.Schema:
    kinds = {"event_time": TIME, "long_view": pa.int8(), "like": pa.int8()}
    return pa.schema([(name, kinds.get(name, pa.int64())) for name in EVENT_COLUMNS])


def _distinct(events: pa.Table) -> pa.Table:
    """One row per (user, video, time): a stream delivers at least once."""
    keys = [events[name].to_numpy() for name in ("video_id", "user_id")]
    times = pc.cast(events["event_time"], pa.int64()).to_numpy()
    order = np.lexsort((*keys, times))
    fields = np.column_stack([times, *keys])[order]
    new = np.append(True, (np.diff(fields, axis=0) != 0).any(axis=1))[: len(order)]
    return events.take(pa.array(order[new]))


def _last(rows: pa.Table) -> pa.Table:
    """The newest row of each user; rows are in order."""
    user = rows["user_id"].to_numpy()
    return rows.filter(pa.array(np.append(np.diff(user) != 0, True)[len(user) == 0 :]))


def _micros(moment: datetime) -> int:
    return int((moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
