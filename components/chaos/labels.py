"""Faults of what users did: watch times, durations and behaviours."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.chaos.scene import Scene, numbers, replaced, rows_chosen, users_chosen
from components.feed.schema import BEHAVIOURS, DayTables

# Behaviours that follow an exposure by minutes to hours.
SLOW = ("like", "follow", "comment", "share", "profile_enter")
TEN_HOURS_MS = 10 * 3_600_000
FIVE_HOURS_MS = 5 * 3_600_000
DEFAULT_MS = 15_000


def watch_in_seconds(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Watch times of some users are seconds."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(replaced(scene.log, "watch_ms", struck, numbers(scene.log, "watch_ms") // 1_000))


def watch_in_microseconds(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Watch times of some users are microseconds."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(replaced(scene.log, "watch_ms", struck, numbers(scene.log, "watch_ms") * 1_000))


def duration_in_seconds(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Durations that some users' clients logged are seconds."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(replaced(scene.log, "duration_ms", struck, numbers(scene.log, "duration_ms") // 1_000))


def watch_zero(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users' client version reports a watch time of zero."""
    return scene.with_log(replaced(scene.log, "watch_ms", users_chosen(scene.log, rate, rng), 0))


def watch_negative(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Watch times of some rows have the wrong sign; a play of 0 ms is -1."""
    struck = rows_chosen(scene.log, rate, rng)
    wrong = np.minimum(-numbers(scene.log, "watch_ms"), -1)
    return scene.with_log(replaced(scene.log, "watch_ms", struck, wrong))


def watch_above_cap(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows were watched for ten hours, by a player in the background."""
    return scene.with_log(replaced(scene.log, "watch_ms", rows_chosen(scene.log, rate, rng), TEN_HOURS_MS))


def watch_left_running(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows were watched for five hours, which is below the cap of a single row."""
    return scene.with_log(replaced(scene.log, "watch_ms", rows_chosen(scene.log, rate, rng), FIVE_HOURS_MS))


def watch_duration_swapped(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Watch time and duration change places in some rows."""
    struck = rows_chosen(scene.log, rate, rng)
    watch, duration = scene.log["watch_ms"], pc.fill_null(scene.log["duration_ms"], 0)
    return scene.with_log(replaced(replaced(scene.log, "watch_ms", struck, duration), "duration_ms", struck, watch))


def default_duration(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows carry a default duration of 15 s."""
    return scene.with_log(replaced(scene.log, "duration_ms", rows_chosen(scene.log, rate, rng), DEFAULT_MS))


def durations_missing(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows carry no duration; the videos table knows it."""
    return scene.with_log(replaced(scene.log, "duration_ms", rows_chosen(scene.log, rate, rng), None))


def labels_delayed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Behaviours that come slowly are still 0 in the last ``rate`` of the day's rows."""
    order = np.argsort(numbers(scene.log, "event_time"), kind="stable")
    late = np.zeros(len(order), dtype=bool)
    late[order[len(order) - round(rate * len(order)) :]] = True
    log = scene.log
    for name in SLOW:
        if name in log.column_names:
            log = replaced(log, name, late & log[name].is_valid().to_numpy(), 0)
    return scene.with_log(log)


def like_flipped(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Likes of some rows are inverted."""
    struck = rows_chosen(scene.log, rate, rng) & scene.log["like"].is_valid().to_numpy()
    return scene.with_log(replaced(scene.log, "like", struck, 1 - numbers(scene.log, "like")))


def like_from_click(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The like column of some rows is filled by the click column."""
    return scene.with_log(replaced(scene.log, "like", rows_chosen(scene.log, rate, rng), scene.log["click"]))


def like_null(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Likes of some rows are not recorded."""
    return scene.with_log(replaced(scene.log, "like", rows_chosen(scene.log, rate, rng), None))


def long_view_zero(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Nothing that some users watched counts as a long view."""
    return scene.with_log(replaced(scene.log, "long_view", users_chosen(scene.log, rate, rng), 0))


def long_view_redefined(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """A play of three seconds counts as a long view for some users."""
    struck = users_chosen(scene.log, rate, rng)
    now = (numbers(scene.log, "watch_ms") >= 3_000).astype(np.int64)
    return scene.with_log(replaced(scene.log, "long_view", struck, now))


def finish_at_half(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Half of a video counts as a finish for some users."""
    struck = users_chosen(scene.log, rate, rng)
    now = 2 * numbers(scene.log, "watch_ms") >= numbers(scene.log, "duration_ms")
    return scene.with_log(replaced(scene.log, "finish", struck, now.astype(np.int64)))


def clicks_counted(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Clicked rows of some users hold a number of clicks, 2, instead of whether there was one."""
    struck = users_chosen(scene.log, rate, rng) & (numbers(scene.log, "click") == 1)
    return scene.with_log(replaced(scene.log, "click", struck, 2))


def behaviours_misjoined(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Behaviours of some rows are those of other rows, as after a join by position of differently sorted files."""
    struck = np.flatnonzero(rows_chosen(scene.log, rate, rng))
    source = np.arange(scene.log.num_rows)
    source[struck] = rng.permutation(struck)
    log = scene.log
    for name in set(BEHAVIOURS) & set(log.column_names):
        column = log[name].take(pa.array(source))
        log = log.set_column(log.column_names.index(name), log.schema.field(name), column)
    return scene.with_log(log)
