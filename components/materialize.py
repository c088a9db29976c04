"""Materialize step: the day's snapshots into the online store, never over newer values."""

import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from components.context import Context, StepResult
from components.days import EVER, bounds
from components.errors import ConfigError, OnlineStoreError
from components.locks import exclusive
from components.store import offline_engine, open_store

if TYPE_CHECKING:
    from feast import FeatureStore

    from feature_repo.online.store import RowOnlineStore

log = logging.getLogger("mfh")

INSTANT = timedelta(microseconds=1)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0


def materialize(context: Context, day: date) -> StepResult:
    """Put the newest values as of the end of ``day`` online.

    What the store itself says that it holds decides from when on values are read, so that a day that was left out, a
    store that lost its rows and a store that was newly chosen are all made whole. A day that ends before what the store
    holds is left out, and says so; where two days meet nevertheless, the store keeps the later row of each entity.

    When the store goes away in the middle, the step waits for it (``online.retry_s``) and begins anew: a store that
    came back may have forgotten what it was told before.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its snapshots must be in the lake.

    Returns:
        Views written, or the reason why none was.

    Raises:
        MissingPartitionError: When the day's snapshots are not in the lake.
        OnlineStoreError: When the store stays away.
    """
    for entity in ("user", "video"):
        context.data.get(f"{entity}_features", day)
    folder = context.settings.home / "feast" / context.pipeline.source_id
    # Days side by side on one machine take turns; on several machines the store orders them row by row.
    with exclusive(folder / "online.lock"), offline_engine():
        store = open_store(context)
        deadline, pause, lost = time.monotonic() + context.pipeline.online.retry_s, FIRST_PAUSE_S, 0
        while True:
            try:
                facts = _write(context, store, day)
                break
            except OnlineStoreError as error:
                if time.monotonic() + pause > deadline:
                    raise
                lost += 1
                log.warning("step=materialize day=%s try=%d pause_s=%.1f %s", day, lost, pause, error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
    context.notify(1, 1, "materialized")
    return StepResult("materialize", day, facts=facts | ({"store_lost": lost} if lost else {}))


def available_at(context: Context, day: date) -> datetime:
    """The moment (UTC) from which requests see the snapshot of ``day``: its end and the lag."""
    end = bounds(day, context.pipeline.feed.zone)[1]
    return end + timedelta(minutes=context.pipeline.features.snapshot_lag_min)


@dataclass(frozen=True)
class Interval:
    """What of a view's source a materialization reads, both ends included."""

    since: datetime
    until: datetime


def _write(context: Context, store: "FeatureStore", day: date) -> dict[str, Any]:
    available = available_at(context, day)
    views = {view.name: view for view in store.list_feature_views() if view.online and view.stream_source is None}
    newest, held = online_until(store)
    if newest is not None and newest > available:
        return {"skipped": f"the online store already holds {newest:%F %R} UTC"}
    groups: dict[Interval, list[str]] = defaultdict(list)
    for name, view in views.items():
        groups[interval(context, day, view.ttl, held.get(name))].append(name)
    for done, (span, names) in enumerate(groups.items()):
        context.notify(done, len(groups), f"materialize {', '.join(names)}")
        store.materialize(span.since, span.until, feature_views=names)
    # A store that died and came back empty between two groups has lost the first without an error.
    if lost := sorted(views.keys() - online_until(store)[1].keys()):
        raise OnlineStoreError(f"the online store lost {', '.join(lost)} while it was written")
    return {"views": sorted(views), "until": available.isoformat()}


def interval(context: Context, day: date, ttl: timedelta | None, held: datetime | None) -> Interval:
    """What a view needs so that it serves what the offline join gives from now on.

    Args:
        context: Pipeline and settings.
        day: Interval day.
        ttl: The view's time to live; none (or zero) for profiles, which hold until they change.
        held: Until when the store holds the view; None when it holds nothing of it.

    Returns:
        The run's own interval; further back where the store lacks what is still alive.
    """
    start, end = bounds(day, context.pipeline.feed.zone)
    until = available_at(context, day)
    if not ttl:
        # Everyone who came since: a profile is stamped with the moment from which it is known. Up to the day's last
        # instant, since the next one belongs to profiles of the next day.
        return Interval(EVER if held is None else min(start, held), end - INSTANT)
    # Both ends count, so begin behind the snapshot before.
    lag = timedelta(minutes=context.pipeline.features.snapshot_lag_min)
    behind = start + lag + INSTANT
    return Interval(max(until - ttl, min(behind, EVER if held is None else held + INSTANT)), until)


def online_until(store: "FeatureStore") -> tuple[datetime | None, dict[str, datetime]]:
    """Until when the online store is filled, by its own record.

    Args:
        store: A Feast store over one of ``feature_repo.online``.

    Returns:
        The newest moment (UTC) of all views, None for an empty store; and the moment of each view that is held as it is
        registered now (rows from before a change of its features can not be read).

    Raises:
        OnlineStoreError: When the store can not be reached.
    """
    from feature_repo.online.rows import Layout
    from feature_repo.online.store import moment_of

    views = {view.name: view for view in store.list_feature_views()}
    marks = {name: mark for name, mark in rows_of(store).marks(store.config).items() if name in views}
    held = {name: moment_of(mark.until) for name, mark in marks.items() if mark.digest == Layout.of(views[name]).digest}
    return max((moment_of(mark.until) for mark in marks.values()), default=None), held


def rows_of(store: "FeatureStore") -> "RowOnlineStore":
    """The online store behind a Feast store.

    Args:
        store: A Feast store.

    Returns:
        The store of packed rows.

    Raises:
        ConfigError: When ``feature_store.yaml`` names another kind.
    """
    from feature_repo.online.store import RowOnlineStore

    online = store._get_provider().online_store
    if not isinstance(online, RowOnlineStore):
        raise ConfigError(
            f"feature_store.yaml names {type(online).__name__}; the day needs a store of feature_repo.online"
        )
    return online
