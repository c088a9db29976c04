"""DuckDB over a day's tables: streamed, in bounded memory, with sums that do not depend on threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

# A table in memory, or files that are read batch by batch.
Rows: TypeAlias = pa.Table | ds.Dataset

MEMORY = "1GB"

# Users fall into so many groups by a hash; the spread between the groups' sums gives standard errors in which
# users are the units (the random groups of Wolter 2007, Introduction to Variance Estimation, chapter 2).
GROUPS = 128


@contextmanager
def scan(tables: dict[str, Rows], memory: str = MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees the tables by name.

    Args:
        tables: Tables in memory, or datasets of files that are read batch by batch.
        memory: What DuckDB may hold before it writes to a folder of its own.

    Yields:
        The connection; nothing can be fetched from a network through it.
    """
    with (
        TemporaryDirectory(prefix="mfh-scan-") as spill,
        duckdb.connect(
            config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        ) as connection,
    ):
        connection.execute(f"SET memory_limit = '{memory}'")
        connection.execute(f"SET temp_directory = {literal(spill)}")
        connection.execute("SET TimeZone = 'UTC'")
        # Order matters to nobody here, and keeping it costs memory.
        connection.execute("SET preserve_insertion_order = false")
        for name, table in tables.items():
            connection.register(name, table)
        yield connection


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def schema_of(rows: Rows) -> pa.Schema:
    """The columns and types of a table or dataset."""
    return rows.schema


def micro(expression: str) -> str:
    """A real number in SQL as whole millionths: sums of integers do not depend on how threads split the rows."""
    return f"CAST(round(1e6 * ({expression})) AS BIGINT)"
