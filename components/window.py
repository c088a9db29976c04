"""Which days an interval day reads: the training window, the held-out day, and the snapshots for both.

A run for interval day *d* trains on days up to *d*-2, simulates the sessions of *d*-1, and reads their
return from *d*: nothing that it learns from is newer than what it predicts.
"""

from datetime import date, timedelta

from components.config import Pipeline
from components.days import day_range


def train_days(pipeline: Pipeline, day: date) -> list[date]:
    """Days of the training window, which ends two days before ``day``; cut at the feed's first day."""
    last = day - timedelta(days=2)
    first = last - timedelta(days=pipeline.train.window_days - 1)
    return list(day_range(max(first, pipeline.feed.first_day), last))


def holdout_day(day: date) -> date:
    """The day whose sessions are simulated; their return is read from ``day`` itself."""
    return day - timedelta(days=1)


def snapshot_days(pipeline: Pipeline, day: date) -> list[date]:
    """Days whose snapshots the training set, the held-out sessions and the online store read.

    All that the window's first day can see are built, so that no result depends on what else the lake holds.
    """
    first = day - timedelta(days=1 + pipeline.train.window_days)
    return list(day_range(max(visible_days(pipeline, first)[0], pipeline.feed.first_day), day))


def visible_days(pipeline: Pipeline, day: date) -> list[date]:
    """Days whose snapshots a request of ``day`` may see.

    A value lives for ``ttl_days``, and a request before the day's snapshot has come (lag) reads the one before:
    hence one day more.
    """
    return list(day_range(day - timedelta(days=pipeline.features.ttl_days + 1), day - timedelta(days=1)))
