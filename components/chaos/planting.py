"""Plant a fault of the catalogue into a day, by a seed."""

from datetime import date
from zlib import crc32

import numpy as np
import pyarrow as pa

from components.chaos.fault import SNAPSHOTS, Fault
from components.chaos.scene import Scene
from components.errors import ConfigError
from components.feed.schema import DayTables


def generator(fault: Fault, day: date, seed: int) -> np.random.Generator:
    """The draws of a fault on a day: the same seed strikes the same rows, whatever else is planted."""
    return np.random.default_rng([seed, crc32(fault.name.encode()), day.toordinal()])


def plant(fault: Fault, scene: Scene, rate: float, seed: int) -> DayTables:
    """Plant a fault of the log, users, videos or requests.

    Args:
        fault: A fault of one of these tables.
        scene: The day.
        rate: From 0, which changes nothing, to 1.
        seed: Which rows it strikes.

    Returns:
        The day's tables as a broken source would deliver them.

    Raises:
        ConfigError: When the rate is no share, or the feed lacks what the fault changes.
    """
    check_rate(rate)
    if missing := unmet(fault, scene.tables):
        raise ConfigError(
            f"fault {fault.name!r} needs {missing}, which this feed does not deliver; choose another fault"
        )
    if fault.yesterday and scene.before is None:
        raise ConfigError(f"fault {fault.name!r} needs the day before {scene.day}, which is the feed's first")
    planted: DayTables = fault.plant(scene, rate, generator(fault, scene.day, seed))
    return planted


def plant_snapshot(
    fault: Fault, snapshot: pa.Table, before: pa.Table | None, day: date, rate: float, seed: int
) -> pa.Table:
    """Plant a fault of a feature snapshot.

    Args:
        fault: A fault of ``user_features`` or ``video_features``.
        snapshot: That snapshot of the day, its key first.
        before: The one of the day before, where there is one.
        day: The day.
        rate: From 0, which changes nothing, to 1.
        seed: Which rows it strikes.

    Returns:
        The broken snapshot, with the same columns.

    Raises:
        ConfigError: When the rate is no share, or the fault is of another table or needs a day that is not there.
    """
    check_rate(rate)
    if fault.where not in SNAPSHOTS:
        raise ConfigError(f"fault {fault.name!r} is one of {fault.where}, not of a feature snapshot")
    if fault.yesterday and before is None:
        raise ConfigError(f"fault {fault.name!r} needs the snapshot of the day before {day}")
    planted: pa.Table = fault.plant(snapshot, before, rate, generator(fault, day, seed))
    return planted


def plant_bytes(fault: Fault, content: bytes, before: bytes | None, day: date, rate: float, seed: int) -> bytes | None:
    """Plant a fault of the log's file.

    Args:
        fault: A fault of the file.
        content: The file's bytes; of a CSV where ``fault.csv``, else of a Parquet file.
        before: Those of the day before, where there is one.
        day: The day.
        rate: From 0, which changes nothing, to 1.
        seed: What it strikes.

    Returns:
        The broken file's bytes, None for no file.

    Raises:
        ConfigError: When the rate is no share, or the fault is of a table or needs a day that is not there.
    """
    check_rate(rate)
    if fault.where != "file":
        raise ConfigError(f"fault {fault.name!r} is one of {fault.where}, not of a file")
    if fault.yesterday and before is None:
        raise ConfigError(f"fault {fault.name!r} needs the file of the day before {day}")
    planted: bytes | None = fault.plant(content, before, rate, generator(fault, day, seed))
    return planted


def check_rate(rate: float) -> None:
    """Refuse what is no share.

    Args:
        rate: The rate.

    Raises:
        ConfigError: When it is not between 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"a rate is a share from 0 to 1, not {rate}")


def unmet(fault: Fault, tables: DayTables) -> str:
    """What a fault needs and a day does not deliver, as words; empty when nothing is missing.

    Args:
        fault: The fault.
        tables: A day.

    Returns:
        For example ``log.propensity``. A column of nulls is a column that is not delivered.
    """
    return ", ".join(need for need in fault.needs if not _delivers(tables, need))


def _delivers(tables: DayTables, need: str) -> bool:
    name, _, column = need.partition(".")
    table: pa.Table | None = getattr(tables, name)
    if table is None or not column:
        return table is not None
    found = [one for one in table.column_names if one == column or (column.endswith("_") and one.startswith(column))]
    return any(table[one].null_count < table.num_rows for one in found)
