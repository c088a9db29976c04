"""CSV and Parquet files as tables: which columns a file has, and a filtered reading of some of them.

A reading names SQL expressions over the file's columns, so that the filter and the choice of columns reach the
file: a Parquet row group outside the filter is never decoded, and no file is ever held whole. Cells of a CSV
are text until an expression below makes them numbers; a cell that is none becomes null, or a value that the
rules of ``canonical`` refuse, never an error about one row that hides the day.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from components.days import midnight
from components.errors import SourceError
from components.feed.schema import TIME

TimeUnit = Literal["timestamp", "s", "ms", "us", "iso"]

SUFFIXES = (".parquet", ".csv", ".csv.gz")
TEXT = "VARCHAR"

_BATCH_ROWS = 65_536
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}
_EPOCH = date(1970, 1, 1)
_CALENDAR = range((date(1900, 1, 1) - _EPOCH).days, (date(2200, 1, 1) - _EPOCH).days)
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")


@dataclass(frozen=True)
class TableFile:
    """One file with its columns.

    Attributes:
        path: Where it lies.
        columns: DuckDB's type by column name, in the file's order; all text in a CSV.
    """

    path: Path
    columns: dict[str, str]

    def rows(self, select: dict[str, str], where: str = "") -> pa.Table:
        """Read some of the file.

        Args:
            select: SQL expression over the file's columns by the name of the result.
            where: SQL condition over the file's columns, empty for all rows.

        Returns:
            The rows in the file's order.

        Raises:
            SourceError: When the file is damaged or cut off.
        """
        with _connect() as connection:
            try:
                return connection.sql(self._query(select, where)).to_arrow_table()
            except (duckdb.Error, UnicodeDecodeError) as error:
                raise _unreadable(self.path, error) from error

    def batches(self, select: dict[str, str]) -> Iterator[pa.RecordBatch]:
        """As ``rows`` without a filter, piece by piece, for a table that need not fit into memory."""
        with _connect() as connection:
            try:
                yield from connection.sql(self._query(select, "")).to_arrow_reader(_BATCH_ROWS)
            except (duckdb.Error, pa.ArrowException) as error:
                raise _unreadable(self.path, error) from error

    def _query(self, select: dict[str, str], where: str) -> str:
        expressions = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in select.items())
        query = f"SELECT {expressions} FROM {_relation(self.path, self.columns)}"  # noqa: S608
        return f"{query} WHERE {where}" if where else query


def is_table(path: Path) -> bool:
    """Whether the name is one of a CSV or Parquet file."""
    return path.name.lower().endswith(SUFFIXES)


def open_table(path: Path) -> TableFile:
    """Read the columns of a file: a CSV's first line, a Parquet file's footer.

    Args:
        path: A ``.parquet``, ``.csv`` (commas, UTF-8, names in the first line) or ``.csv.gz`` file.

    Returns:
        The file with its columns.

    Raises:
        SourceError: When it is missing, of another kind, empty or damaged.
    """
    if not is_table(path):
        raise SourceError(f"{path} is none of {', '.join(SUFFIXES)}; convert it, or point the feed at another file")
    if not path.is_file():
        raise SourceError(f"{path} is not there; check the feed's folder")
    if not path.name.lower().endswith(".parquet"):
        return TableFile(path, dict.fromkeys(_header(path), TEXT))
    with _connect() as connection:
        try:
            rows = connection.sql(f"DESCRIBE FROM {_relation(path, {})}").fetchall()
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
    return TableFile(path, {row[0]: row[1] for row in rows})


def _connect() -> duckdb.DuckDBPyConnection:
    # Nothing is fetched from a network, and a time without an offset means the same on every machine.
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _unreadable(path: Path, error: Exception) -> SourceError:
    reason = str(error).strip().replace("\n", "; ")[:300]
    return SourceError(f"{path} can not be read, it may be cut off or damaged: {reason}. Copy or export it again")


def _header(path: Path) -> list[str]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise _unreadable(path, error) from error
    if not any(header):
        raise SourceError(f"{path} is empty: the first line must name the columns")
    if len(set(header)) < len(header):
        raise SourceError(f"{path} names a column twice: {header}")
    return header


def _relation(path: Path, columns: dict[str, str]) -> str:
    # The path is a glob for DuckDB; brackets keep its special characters from being read as such.
    plain = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    if path.name.lower().endswith(".parquet"):
        return f"read_parquet({_literal(plain)}, hive_partitioning = false)"
    types = ", ".join(f"{_literal(name)}: {_literal(kind)}" for name, kind in columns.items())
    return (
        f"read_csv({_literal(plain)}, columns = {{{types}}}, auto_detect = false, header = true, delim = ',', "
        "quote = '\"', escape = '\"', strict_mode = true, hive_partitioning = false)"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def integer(column: str) -> str:
    """SQL for a whole number; null where the cell is none."""
    return f"TRY_CAST({quoted(column)} AS BIGINT)"


def text(column: str) -> str:
    """SQL for a text."""
    return f"CAST({quoted(column)} AS VARCHAR)"


def milliseconds(column: str, kind: str, unit: Literal["s", "ms"]) -> str:
    """SQL for a length of time in whole milliseconds; null where the cell is no number."""
    if unit == "ms" and kind in _INTEGERS:
        return integer(column)
    factor = 1_000 // _PER_SECOND[unit]
    return f"TRY_CAST(round(TRY_CAST({quoted(column)} AS DOUBLE) * {factor}) AS BIGINT)"


def flag(column: str) -> str:
    """SQL for a behaviour: 0 or 1, null where nothing is recorded; any other cell stays a value that is refused."""
    cell = quoted(column)
    number = f"COALESCE(TRY_CAST({cell} AS DOUBLE), TRY_CAST(TRY_CAST({cell} AS BOOLEAN) AS DOUBLE), -1)"
    whole = f"CASE WHEN {number} = round({number}) THEN COALESCE(TRY_CAST({number} AS SMALLINT), -1) ELSE -1 END"
    return f"CASE WHEN {cell} IS NOT NULL THEN {whole} END"


def truth(column: str) -> str:
    """SQL for yes or no; null where the cell is neither."""
    return f"TRY_CAST({quoted(column)} AS BOOLEAN)"


def probability(column: str) -> str:
    """SQL for a probability; a cell that is no number becomes NaN, which is refused."""
    cell = quoted(column)
    return f"CASE WHEN {cell} IS NOT NULL THEN COALESCE(TRY_CAST({cell} AS DOUBLE), 'nan'::DOUBLE) END"


def time_problem(kind: str, unit: TimeUnit) -> str | None:
    """Why a column of that type can not hold times of that unit, or None when it can."""
    stamps = kind.startswith("TIMESTAMP")
    if unit in _PER_SECOND and (stamps or kind == "DATE"):
        return f"it is a {kind}, time_unit {unit!r} is for numbers; use 'timestamp'"
    if unit not in _PER_SECOND and not (stamps or kind in (TEXT, "DATE")):
        return f"it is a {kind}, time_unit {unit!r} is for timestamps; use 's', 'ms' or 'us'"
    return None


def time_us(column: str, kind: str, unit: TimeUnit) -> str:
    """SQL for a moment as microseconds since 1970 in UTC; null where the cell is no moment."""
    cell = quoted(column)
    if unit in _PER_SECOND:
        factor = 1_000_000 // _PER_SECOND[unit]
        if kind in _INTEGERS:
            return f"TRY_CAST({cell}::HUGEINT * {factor} AS BIGINT)"
        return f"TRY_CAST(round(TRY_CAST({cell} AS DOUBLE) * {factor}) AS BIGINT)"
    if kind.startswith("TIMESTAMP"):
        return f"epoch_us({cell})"
    # The session's zone is UTC, so that a text without an offset is UTC and one with an offset is moved.
    return f"epoch_us(TRY_CAST({cell} AS TIMESTAMPTZ))"


def time_between(column: str, kind: str, unit: TimeUnit, start_us: int, end_us: int) -> str:
    """SQL condition start <= time < end, on the bare column where its type allows, so that files can be skipped."""
    cell = quoted(column)
    low, high = str(start_us), str(end_us)
    if unit in _PER_SECOND and kind != TEXT:
        low, high = (str(moment * _PER_SECOND[unit] // 1_000_000) for moment in (start_us, end_us))
    elif kind.startswith("TIMESTAMP"):
        zoned = "TIMESTAMPTZ" if "WITH TIME ZONE" in kind else "TIMESTAMP"
        moments = (datetime.fromtimestamp(moment // 1_000_000, UTC) for moment in (start_us, end_us))
        low, high = (f"{zoned} '{moment:%Y-%m-%d %H:%M:%S}'" for moment in moments)
    else:
        cell = time_us(column, kind, unit)
    return f"{cell} >= {low} AND {cell} < {high}"


def local_midnights(days: pa.ChunkedArray, zone: ZoneInfo) -> pa.ChunkedArray:
    """Calendar days as the moments at which they begin.

    Args:
        days: date32; null stays null.
        zone: Whose midnight.

    Returns:
        UTC timestamps in microseconds; a day that no calendar reaches (before 1900, after 2200) is null.
    """
    codes = days.combine_chunks().dictionary_encode()
    numbers = codes.dictionary.cast(pa.int32()).to_pylist()
    moments = [midnight(_EPOCH + timedelta(days=n), zone) if n in _CALENDAR else None for n in numbers]
    return pa.chunked_array([pa.array(moments, TIME).take(codes.indices)])
