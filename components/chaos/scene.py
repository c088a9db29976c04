"""What a fault is planted into, and the few moves that faults are made of.

Faults are pure: they are given a day as its source delivered it, a rate and a generator, and return changed tables.
A rate of 0 chooses nothing, so it changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.feed.schema import DayTables

Mask = NDArray[np.bool_]
I64 = NDArray[np.int64]

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class Scene:
    """One day before anything is planted.

    Attributes:
        day: The local day.
        zone: Whose midnight is its edge.
        tables: What the source delivered.
        before: What it delivered the day before; None where the feed has no such day.
    """

    day: date
    zone: ZoneInfo
    tables: DayTables
    before: DayTables | None = None

    @property
    def log(self) -> pa.Table:
        """The day's log."""
        return self.tables.log

    def yesterday(self) -> DayTables:
        """The day before; ``plant`` asks for it only where there is one."""
        if self.before is None:
            raise ValueError(f"{self.day} has no day before it")
        return self.before

    @property
    def users(self) -> pa.Table:
        """Users known at the end of the day."""
        return self.tables.users

    @property
    def videos(self) -> pa.Table:
        """Videos known at the end of the day."""
        return self.tables.videos

    def with_log(self, log: pa.Table) -> DayTables:
        """The day's tables with another log."""
        return replace(self.tables, log=log)

    def with_users(self, users: pa.Table) -> DayTables:
        """The day's tables with other users."""
        return replace(self.tables, users=users)

    def with_videos(self, videos: pa.Table) -> DayTables:
        """The day's tables with other videos."""
        return replace(self.tables, videos=videos)


Plant = Callable[[Scene, float, np.random.Generator], DayTables]


def chosen(count: int, rate: float, rng: np.random.Generator) -> Mask:
    """Which of ``count`` things a fault strikes: exactly ``round(rate * count)`` of them, any equally likely."""
    mask = np.zeros(count, dtype=bool)
    mask[rng.permutation(count)[: round(rate * count)]] = True
    return mask


def rows_chosen(table: pa.Table, rate: float, rng: np.random.Generator) -> Mask:
    """Rows that a fault strikes one by one."""
    return chosen(table.num_rows, rate, rng)


def users_chosen(table: pa.Table, rate: float, rng: np.random.Generator) -> Mask:
    """Rows of the users whom a fault strikes, such as those who run one client version."""
    users = numbers(table, "user_id")
    distinct = np.unique(users)
    struck: Mask = np.isin(users, distinct[chosen(len(distinct), rate, rng)])
    return struck


def numbers(table: pa.Table, name: str) -> I64:
    """A column as int64, times as microseconds since 1970; null, which only later rules refuse, as -1."""
    values: I64 = pc.fill_null(table[name].cast(pa.int64()), -1).to_numpy()
    return values


def replaced(table: pa.Table, name: str, where: Mask, values: "pa.Array | I64 | float | str | None") -> pa.Table:
    """The table with a column's values replaced in some rows.

    Args:
        table: Any table.
        name: One of its columns.
        where: bool [rows].
        values: New values of all rows, of which the masked ones are taken, or one value for all; None is null.

    Returns:
        The table; the column keeps its type, and may hold nulls now if that is what was put in.
    """
    field = table.schema.field(name)
    if isinstance(values, np.ndarray):
        new = pa.array(values).cast(field.type)
    elif values is None or isinstance(values, (float, int, str)):
        new = pa.scalar(values, field.type)
    else:
        new = values.cast(field.type)
    column = pc.if_else(pa.array(where), new, table[name])
    return table.set_column(
        table.column_names.index(name), field.with_nullable(field.nullable or column.null_count > 0), column
    )


def moved(table: pa.Table, name: str, by_us: I64) -> pa.Table:
    """The table with the moments of a column moved by int64 [rows] microseconds."""
    return replaced(table, name, by_us != 0, numbers(table, name) + by_us)


def kept(table: pa.Table, mask: Mask) -> pa.Table:
    """The masked rows, in order."""
    return table.filter(pa.array(mask))


def added(table: pa.Table, more: pa.Table) -> pa.Table:
    """Rows appended; the first table's columns and types hold."""
    return pa.concat_tables([table, more.select(table.column_names).cast(table.schema)])


def local_hour(log: pa.Table, zone: ZoneInfo) -> I64:
    """Local hour of every exposure, 0 to 23."""
    local = log["event_time"].cast(pa.timestamp("us", tz=zone.key))
    hours: I64 = pc.fill_null(pc.hour(local), -1).to_numpy()
    return hours


def hashed(ids: I64) -> I64:
    """Ids under another hash function: splitmix64 without the sign bit."""
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    other: I64 = ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return other
