"""Materialize step: the day's snapshots into the online store, never over newer values."""

from datetime import UTC, date, datetime, timedelta

from components.context import Context, StepResult
from components.days import bounds
from components.locks import exclusive
from components.store import offline_engine, open_store


def materialize(context: Context, day: date) -> StepResult:
    """Put the newest values as of the end of ``day`` online.

    An online store keeps what was written last, so an old day would rewind it (SQLite does). The registry's
    record of what was materialized decides: a day that ends before that record is left out, and says so.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its snapshots must be in the lake.

    Returns:
        Views written, or the reason why none was.

    Raises:
        MissingPartitionError: When the day's snapshots are not in the lake.
    """
    for entity in ("user", "video"):
        context.data.get(f"{entity}_features", day)
    start, end = bounds(day, context.pipeline.feed.zone)
    lag = timedelta(minutes=context.pipeline.features.snapshot_lag_min)
    available = end + lag
    folder = context.settings.home / "feast" / context.pipeline.source_id
    # Between reading what is newest and writing, nobody else may write.
    with exclusive(folder / "online.lock"), offline_engine():
        store = open_store(context)
        views = {view.name: view for view in store.list_feature_views()}
        newest = max((view.most_recent_end_time for view in views.values() if view.most_recent_end_time), default=None)
        if newest is not None and newest.astimezone(UTC) > available:
            return StepResult(
                "materialize", day, facts={"skipped": f"the online store already holds {newest:%F %R} UTC"}
            )
        profiles = [name for name in views if name.endswith("_profile")]
        # Everyone since the last materialization, before the first one everyone: days in between may be missing.
        ends = [views[name].most_recent_end_time or datetime(1970, 1, 1, tzinfo=UTC) for name in profiles]
        since = min([start, *(end.astimezone(UTC) for end in ends)])
        context.notify(0, 2, "materialize profiles")
        if profiles:
            store.materialize(since, end, feature_views=profiles)
        context.notify(1, 2, "materialize counters")
        counters = [name for name in views if name.endswith("_counters")]
        # The run's interval, as late as snapshots are; both ends count, so begin behind yesterday's snapshot.
        store.materialize(start + lag + timedelta(microseconds=1), available, feature_views=counters)
    context.notify(2, 2, "materialized")
    return StepResult(
        "materialize", day, facts={"views": sorted([*profiles, *counters]), "until": available.isoformat()}
    )
