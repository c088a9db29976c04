"""Faults of the users and videos tables."""

import numpy as np
import pyarrow as pa

from components.chaos.rows import first_attribute
from components.chaos.scene import HOUR_US, Scene, added, kept, numbers, replaced, rows_chosen
from components.days import bounds_us
from components.feed.schema import DayTables


def users_stale(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The table is an old one: the last registered users, ``rate`` of all, are not in it."""
    return scene.with_users(_without_newest(scene.users, "registered_at", rate))


def users_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users are gone, any equally likely."""
    return scene.with_users(kept(scene.users, ~rows_chosen(scene.users, rate, rng)))


def users_doubled(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users come twice, the same in every column."""
    return scene.with_users(added(scene.users, kept(scene.users, rows_chosen(scene.users, rate, rng))))


def registrations_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The registration of some users is not known."""
    return scene.with_users(replaced(scene.users, "registered_at", rows_chosen(scene.users, rate, rng), None))


def registrations_reset(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users registered an hour after today's midnight, when their accounts were moved."""
    start, _ = bounds_us(scene.day, scene.zone)
    struck = rows_chosen(scene.users, rate, rng)
    moment = np.full(scene.users.num_rows, start + HOUR_US)
    return scene.with_users(replaced(scene.users, "registered_at", struck, moment))


def attribute_recoded(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The first attribute of some users is written as a code."""
    name = first_attribute(scene.users)
    struck = rows_chosen(scene.users, rate, rng)
    return scene.with_users(replaced(scene.users, name, struck, _codes(scene.users[name])))


def attribute_null(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The first attribute of some users is not known."""
    name = first_attribute(scene.users)
    return scene.with_users(replaced(scene.users, name, rows_chosen(scene.users, rate, rng), None))


def videos_stale(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The catalogue is an old one: the last uploaded videos, ``rate`` of all, are not in it."""
    return scene.with_videos(_without_newest(scene.videos, "uploaded_at", rate))


def videos_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some videos are gone, any equally likely."""
    return scene.with_videos(kept(scene.videos, ~rows_chosen(scene.videos, rate, rng)))


def uploads_defaulted(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some videos were uploaded at the beginning of 1970."""
    struck = rows_chosen(scene.videos, rate, rng)
    zero = np.zeros(scene.videos.num_rows, dtype=np.int64)
    return scene.with_videos(replaced(scene.videos, "uploaded_at", struck, zero))


def topics_recoded(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The topic of some videos is written as a code."""
    struck = rows_chosen(scene.videos, rate, rng)
    return scene.with_videos(replaced(scene.videos, "topic", struck, _codes(scene.videos["topic"])))


def topics_misread(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The topic of some videos is UTF-16 that was read as Latin-1."""
    struck = rows_chosen(scene.videos, rate, rng)
    topics = scene.videos["topic"].to_pylist()
    wrong = [None if topic is None else topic.encode("utf-16-le").decode("latin-1") for topic in topics]
    return scene.with_videos(replaced(scene.videos, "topic", struck, pa.array(wrong, pa.string())))


def catalogue_in_seconds(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Durations of some videos are seconds in the catalogue."""
    struck = rows_chosen(scene.videos, rate, rng)
    return scene.with_videos(
        replaced(scene.videos, "duration_ms", struck, numbers(scene.videos, "duration_ms") // 1_000)
    )


def _without_newest(table: pa.Table, column: str, rate: float) -> pa.Table:
    order = np.argsort(numbers(table, column), kind="stable")
    there = np.ones(len(order), dtype=bool)
    there[order[len(order) - round(rate * len(order)) :]] = False
    return kept(table, there)


def _codes(column: pa.ChunkedArray) -> pa.Array:
    """Texts as numbers in the order of the alphabet, written as texts."""
    texts = column.to_pylist()
    code = {text: str(number) for number, text in enumerate(sorted({t for t in texts if t is not None}))}
    return pa.array([None if text is None else code[text] for text in texts], pa.string())
