"""Faults of time: clocks, zones, missing hours, and another day's rows."""

import numpy as np

from components.chaos.scene import (
    DAY_US,
    HOUR_US,
    Scene,
    added,
    kept,
    local_hour,
    moved,
    numbers,
    replaced,
    rows_chosen,
    users_chosen,
)
from components.feed.schema import DayTables

SHIFT_H = 8
SKEW_H = 12


def time_zone_shift(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Exposures of some users move by eight hours."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(moved(scene.log, "event_time", struck * np.int64(SHIFT_H * HOUR_US)))


def clock_skew(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Every struck user's clock is wrong by an own offset of up to twelve hours, at least half an hour."""
    struck = users_chosen(scene.log, rate, rng)
    users, place = np.unique(numbers(scene.log, "user_id"), return_inverse=True)
    size = rng.integers(HOUR_US // 2, SKEW_H * HOUR_US, len(users)) * rng.choice([-1, 1], len(users))
    return scene.with_log(moved(scene.log, "event_time", struck * size[place]))


def future_dates(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows are dated a year ahead."""
    struck = rows_chosen(scene.log, rate, rng)
    return scene.with_log(moved(scene.log, "event_time", struck * np.int64(365 * DAY_US)))


def missing_hours(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """``round(24 * rate)`` hours in a row are gone, the busiest first."""
    hour = local_hour(scene.log, scene.zone)
    gone = round(24 * rate)
    busiest = int(np.bincount(hour[hour >= 0], minlength=24).argmax())
    first = min(busiest, 24 - gone)
    return scene.with_log(kept(scene.log, (hour < first) | (hour >= first + gone)))


def partial_day(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The last ``rate`` of the day's rows are not there yet."""
    order = np.argsort(numbers(scene.log, "event_time"), kind="stable")
    there = np.ones(len(order), dtype=bool)
    there[order[len(order) - round(rate * len(order)) :]] = False
    return scene.with_log(kept(scene.log, there))


def hourly_times(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Exposures of some users carry the hour of their file instead of their moment."""
    struck = users_chosen(scene.log, rate, rng)
    time = numbers(scene.log, "event_time")
    return scene.with_log(replaced(scene.log, "event_time", struck, time - time % HOUR_US))


def upload_times(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """All exposures of some users carry the moment of the user's last one, at which the client uploaded them."""
    struck = users_chosen(scene.log, rate, rng)
    time = numbers(scene.log, "event_time")
    users, place = np.unique(numbers(scene.log, "user_id"), return_inverse=True)
    last = np.full(len(users), np.iinfo(np.int64).min)
    np.maximum.at(last, place, time)
    return scene.with_log(replaced(scene.log, "event_time", struck, last[place]))


def yesterday_again(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Yesterday's rows, with their own dates, stand where some of today's should."""
    before = scene.yesterday().log
    ours, theirs = rows_chosen(scene.log, rate, rng), rows_chosen(before, rate, rng)
    return scene.with_log(added(kept(scene.log, ~ours), kept(before, theirs)))


def replayed_yesterday(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Yesterday's rows, dated anew as today's, stand where some of today's should."""
    before = scene.yesterday().log
    ours, theirs = rows_chosen(scene.log, rate, rng), rows_chosen(before, rate, rng)
    redated = moved(kept(before, theirs), "event_time", np.full(int(theirs.sum()), DAY_US))
    return scene.with_log(added(kept(scene.log, ~ours), redated))
