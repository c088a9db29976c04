"""Faults of rows: too many, too few, or of the wrong ones."""

import numpy as np
import pyarrow as pa

from components.chaos.scene import (
    SECOND_US,
    Scene,
    added,
    chosen,
    kept,
    moved,
    numbers,
    replaced,
    rows_chosen,
    users_chosen,
)
from components.days import bounds_us
from components.feed.schema import ATTRIBUTE_PREFIX, BEHAVIOURS, DayTables

EXPLODED = 3
BOT_ROWS = 500
# What a row says of the video that it shows and of what the user did with it.
_ABOUT_VIDEO = ("video_id", "creator_id", "watch_ms", "duration_ms", *BEHAVIOURS)


def duplicated_batch(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows come twice, the same in every column."""
    return scene.with_log(added(scene.log, kept(scene.log, rows_chosen(scene.log, rate, rng))))


def retried_batch(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows come twice, the second time stamped a millisecond later."""
    again = kept(scene.log, rows_chosen(scene.log, rate, rng))
    return scene.with_log(added(scene.log, moved(again, "event_time", np.full(again.num_rows, 1_000))))


def join_explosion(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows come three times, each time with another creator."""
    log = scene.log
    struck = kept(log, rows_chosen(log, rate, rng))
    everywhere = np.ones(struck.num_rows, dtype=bool)
    for number in range(1, EXPLODED):
        log = added(log, replaced(struck, "creator_id", everywhere, numbers(struck, "creator_id") + number))
    return scene.with_log(log)


def rows_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows are gone, any equally likely."""
    return scene.with_log(kept(scene.log, ~rows_chosen(scene.log, rate, rng)))


def group_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Rows of some of the users with the first attribute's most frequent value are gone."""
    attribute = first_attribute(scene.users)
    values = scene.users[attribute].to_pylist()
    top = max(sorted({v for v in values if v is not None}), key=values.count)
    members = numbers(scene.users, "user_id")[np.array([value == top for value in values], dtype=bool)]
    gone = members[chosen(len(members), rate, rng)]
    return scene.with_log(kept(scene.log, ~np.isin(numbers(scene.log, "user_id"), gone)))


def new_users_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Rows of some of the users who registered within 30 days before the end of the day are gone."""
    _, end = bounds_us(scene.day, scene.zone)
    recent = numbers(scene.users, "registered_at") >= end - 30 * 86_400 * SECOND_US
    members = numbers(scene.users, "user_id")[recent]
    gone = members[chosen(len(members), rate, rng)]
    return scene.with_log(kept(scene.log, ~np.isin(numbers(scene.log, "user_id"), gone)))


def unclicked_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Exposures that some users did not click are gone."""
    struck = users_chosen(scene.log, rate, rng) & (numbers(scene.log, "click") != 1)
    return scene.with_log(kept(scene.log, ~struck))


def bot_users(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Registered bots add rows: clicked, watched for a second, hundreds each, spread evenly over the day."""
    log, users = scene.log, scene.users
    count = round(rate * log.num_rows)
    if count == 0:
        return scene.tables
    bots = -(-count // BOT_ROWS)
    first = int(numbers(users, "user_id").max()) + 1
    bot = np.sort(np.arange(count) % bots)
    start, end = bounds_us(scene.day, scene.zone)
    rows = log.take(pa.array(rng.integers(0, log.num_rows, count)))
    everywhere = np.ones(count, dtype=bool)
    rows = replaced(rows, "user_id", everywhere, first + bot)
    rows = replaced(rows, "watch_ms", everywhere, 1_000)
    within = np.arange(count) - np.searchsorted(bot, bot)
    size = np.bincount(bot)[bot]
    rows = replaced(rows, "event_time", everywhere, start + (within + 1) * ((end - start) // (size + 2)))
    for name in set(BEHAVIOURS) & set(log.column_names):
        rows = replaced(rows, name, everywhere & rows[name].is_valid().to_numpy(), int(name in ("click", "skip")))
    if "session_id" in log.column_names:
        rows = replaced(rows, "session_id", everywhere, int(numbers(log, "session_id").max()) + 1 + bot)
    if "position" in log.column_names:
        rows = replaced(rows, "position", everywhere, within)
    accounts = users.take(pa.array(rng.integers(0, users.num_rows, bots)))
    accounts = replaced(accounts, "user_id", np.ones(bots, dtype=bool), first + np.arange(bots))
    return DayTables(added(log, rows), added(users, accounts), scene.tables.videos, scene.tables.requests)


def hot_video(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some exposures show the day's most shown video; its own exposures lend them their outcomes."""
    log = scene.log
    struck = rows_chosen(log, rate, rng)
    videos, counts = np.unique(numbers(log, "video_id"), return_counts=True)
    shown = np.flatnonzero(numbers(log, "video_id") == videos[counts.argmax()])
    lenders = log.take(pa.array(rng.choice(shown, log.num_rows)))
    for name in _ABOUT_VIDEO:
        if name in log.column_names:
            log = replaced(log, name, struck, lenders[name])
    return scene.with_log(log)


def first_attribute(users: pa.Table) -> str:
    """The first static attribute of the users; a fault that needs one says so in ``needs``."""
    names: list[str] = [name for name in users.column_names if name.startswith(ATTRIBUTE_PREFIX)]
    if not names:
        raise ValueError("users have no attribute")
    return names[0]
