"""The step *ingest*: one local day of the feed into the lake, refused rows kept aside with their reasons."""

import logging
import time
from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.context import Context, StepResult, inputs_of
from components.errors import EmptyDayError
from components.feed.canonical import CleanDay, clean
from components.feed.source import Source, open_source, require_day
from components.lake import Partition
from components.locks import exclusive

logger = logging.getLogger(__name__)


def ingest(context: Context, day: date) -> StepResult:
    """Read, clean and write one day.

    Partitions ``users``, ``videos``, ``requests`` (where the source has them), ``quarantine`` (where rows were
    refused), and ``log`` last: a day whose log has a manifest is whole. A share of refused rows, however large,
    is written and reported; whether the day may be used is for its validation to say.

    Args:
        context: The pipeline and its lake.
        day: The local day.

    Returns:
        Hashes of the partitions, and the counts.

    Raises:
        OutsideFeedError: When the feed does not cover the day.
        SourceError: When the feed can not be read; nothing is written then.
        EmptyDayError: When no usable row is left; nothing is written then.
    """
    require_day(context.pipeline.feed, day)
    return _ingest(context, open_source(context.pipeline.feed), day)


def ensure_days(context: Context, days: Iterable[date]) -> list[Partition]:
    """The log partitions of those days that the feed covers; a missing one is ingested first.

    A day that the feed covers but has no usable row for is left out and logged: a window with a hole
    is still a window.

    Args:
        context: The pipeline and its lake.
        days: For example the days of a training window.

    Returns:
        Partitions of ``log`` in the order of ``days``.

    Raises:
        SourceError: When the feed can not be read.
    """
    feed = context.pipeline.feed
    wanted = [day for day in days if feed.first_day <= day and (feed.last_day is None or day <= feed.last_day)]
    source: Source | None = None
    partitions = []
    for done, day in enumerate(wanted):
        with exclusive(context.lock("log", day)):
            found = context.data.find("log", day)
            if found is None:
                context.notify(done, len(wanted), f"ingest {day}")
                source = source or open_source(feed)
                try:
                    _ingest(context, source, day)
                except EmptyDayError as error:
                    logger.warning("event=empty_day day=%s reason=%s", day, error)
                    continue
                found = context.data.get("log", day)
        partitions.append(found)
    return partitions


def _ingest(context: Context, source: Source, day: date) -> StepResult:
    began = time.perf_counter()
    context.notify(0, 3, f"read {day}")
    tables = source.read_day(day)
    context.notify(1, 3, f"clean {day}")
    cleaned = clean(tables, context.pipeline.feed, day)
    context.notify(2, 3, f"write {day}")
    facts = _facts(cleaned)
    beside = {"users": cleaned.users, "videos": cleaned.videos, "requests": cleaned.requests}
    if cleaned.refused.num_rows:
        beside["quarantine"] = cleaned.refused
    run: dict[str, Any] = {"step": "ingest"}
    written = [_write(context, name, day, table, run=run) for name, table in beside.items() if table is not None]
    run["seconds"] = round(time.perf_counter() - began, 3)
    written.append(_write(context, "log", day, cleaned.log, run=run, facts=facts, inputs=written))
    context.notify(3, 3, f"wrote {day}")
    logger.info(
        "event=ingest day=%s rows=%d refused=%d seconds=%.1f",
        day,
        facts["rows"],
        cleaned.refused.num_rows,
        time.perf_counter() - began,
    )
    return StepResult("ingest", day, inputs_of(*written), facts)


def _write(
    context: Context,
    dataset: str,
    day: date,
    table: pa.Table,
    *,
    run: dict[str, Any],
    facts: dict[str, Any] | None = None,
    inputs: Iterable[Partition] = (),
) -> Partition:
    # The feed's identity, not the pipeline's: pipelines over one feed share these partitions.
    shaped_by = context.pipeline.source_id
    with context.data.write(dataset, day, config_hash=shaped_by, inputs=inputs_of(*inputs)) as writer:
        writer.table(table)
        writer.facts.update(facts or {})
        writer.run.update(run)
    return context.data.get(dataset, day)


def _facts(cleaned: CleanDay) -> dict[str, Any]:
    times = pc.min_max(cleaned.log.column("event_time")).as_py()
    return {
        "rows": cleaned.log.num_rows,
        "delivered": cleaned.log.num_rows + cleaned.refused.num_rows,
        "refused": cleaned.counts,
        "refused_share": cleaned.refused_share,
        "exposed_users": pc.count_distinct(cleaned.log.column("user_id")).as_py(),
        "exposed_videos": pc.count_distinct(cleaned.log.column("video_id")).as_py(),
        "sessions": pc.count_distinct(cleaned.log.column("session_id")).as_py(),
        "users": cleaned.users.num_rows,
        "videos": cleaned.videos.num_rows,
        "requests": None if cleaned.requests is None else cleaned.requests.num_rows,
        "first_event": times["min"].isoformat(),
        "last_event": times["max"].isoformat(),
        "notes": list(cleaned.notes),
    }
