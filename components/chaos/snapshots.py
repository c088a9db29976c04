"""Faults of a feature snapshot: what goes wrong between the day's log and the feature table of users or videos.

Each is a function of the snapshot, the one of the day before, a rate and a generator.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from components.chaos.scene import added, kept, replaced, rows_chosen

SnapshotPlant = Callable[[pa.Table, pa.Table | None, float, np.random.Generator], pa.Table]
SCALE = 1_000


def counters_zero(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """All counts and rates of some rows are 0."""
    struck = rows_chosen(table, rate, rng)
    for name in _floats(table):
        table = replaced(table, name, struck, 0.0)
    return table


def counters_null(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """All counts and rates of some rows are unknown."""
    struck = rows_chosen(table, rate, rng)
    for name in _floats(table):
        table = replaced(table, name, struck, None)
    return table


def watch_in_ms(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Seconds watched of some rows are milliseconds, over every window."""
    struck = rows_chosen(table, rate, rng)
    for name in _floats(table):
        if "_watch_s_" in name:
            table = replaced(table, name, struck, _values(table, name) * SCALE)
    return table


def rates_in_percent(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Rates of some rows are per cent."""
    struck = rows_chosen(table, rate, rng)
    for name in _floats(table):
        if "_rate_" in name:
            table = replaced(table, name, struck, _values(table, name) * 100)
    return table


def windows_swapped(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Counts over one day and over fourteen days change places in some rows."""
    struck = rows_chosen(table, rate, rng)
    for short in [name for name in _floats(table) if name.endswith("_1d") and "_rate_" not in name]:
        long = short.removesuffix("_1d") + "_14d"
        if long not in table.column_names:
            continue
        first, second = table[short], table[long]
        table = replaced(replaced(table, short, struck, second), long, struck, first)
    return table


def snapshot_stale(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Some rows are those of yesterday's snapshot; with a rate of 1 it is yesterday's as a whole.

    A row of an entity that was not there yesterday stays, unless all rows are struck.
    """
    if before is None:
        raise ValueError("there is no snapshot of the day before")
    if rate == 1:
        return before.select(table.column_names).cast(table.schema)
    key = table.column_names[0]
    where = {one: place for place, one in enumerate(before[key].to_pylist())}
    places = np.array([where.get(one, -1) for one in table[key].to_pylist()], dtype=np.int64)
    struck = rows_chosen(table, rate, rng) & (places >= 0)
    old = before.take(pa.array(np.maximum(places, 0)))
    for name in _floats(table):
        table = replaced(table, name, struck, old[name])
    return table


def snapshot_rows_lost(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Some rows are gone."""
    return kept(table, ~rows_chosen(table, rate, rng))


def snapshot_rows_doubled(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Some rows come twice."""
    return added(table, kept(table, rows_chosen(table, rate, rng)))


def snapshot_misjoined(table: pa.Table, before: pa.Table | None, rate: float, rng: np.random.Generator) -> pa.Table:
    """Every count of some rows is that of another row, of another one for each column."""
    struck = np.flatnonzero(rows_chosen(table, rate, rng))
    everywhere = np.ones(table.num_rows, dtype=bool)
    for name in _floats(table):
        source = np.arange(table.num_rows)
        source[struck] = rng.permutation(struck)
        table = replaced(table, name, everywhere, table[name].take(pa.array(source)))
    return table


def _floats(table: pa.Table) -> list[str]:
    return [field.name for field in table.schema if pa.types.is_floating(field.type)]


def _values(table: pa.Table, name: str) -> pa.Array:
    values = table[name].to_numpy()
    return pa.array(values, mask=np.isnan(values))
