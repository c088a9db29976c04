"""The embedded online store: one SQLite file."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from feast.repo_config import FeastConfigBaseModel, RepoConfig

from feature_repo.online.store import Mark, Row, RowOnlineStore, Stored, reaching

# SQLite's own limit of variables in a statement is 32,766.
KEYS_AT_ONCE = 10_000
BUSY_S = 30.0


class RowSqliteOnlineStoreConfig(FeastConfigBaseModel):
    """Where the file lies."""

    type: Literal["feature_repo.online.sqlite.RowSqliteOnlineStore"] = "feature_repo.online.sqlite.RowSqliteOnlineStore"
    path: str


class RowSqliteOnlineStore(RowOnlineStore):
    """Packed rows in SQLite: a table per view, a transaction per materialization of a view."""

    _connection: sqlite3.Connection | None = None

    def put(self, config: RepoConfig, view: str, chunks: Iterable[list[Row]], mark: Mark | None) -> int:
        """See ``RowOnlineStore``; readers see the old rows until all new ones are in."""
        sent = 0
        with self._reaching(config), self._open(config) as connection:
            table = _table(connection, config, view)
            # Writers queue up here instead of failing when they meet in the middle.
            connection.execute("BEGIN IMMEDIATE")
            for rows in chunks:
                connection.executemany(
                    f"INSERT INTO {table} VALUES (?, ?, ?, ?) ON CONFLICT (entity_key) DO UPDATE SET "  # noqa: S608
                    "as_of = excluded.as_of, event = excluded.event, row = excluded.row "
                    f"WHERE excluded.as_of >= {table}.as_of",
                    rows,
                )
                sent += len(rows)
            if mark is not None:
                record = _record(connection, config)
                insert = (
                    f"INSERT INTO {record} VALUES (:view, :until, :digest) ON CONFLICT (view) DO UPDATE SET "  # noqa: S608
                    f"until = excluded.until, digest = excluded.digest WHERE excluded.until >= {record}.until"
                )
                update = f"UPDATE {record} SET until = :until, digest = :digest WHERE view = :view AND until <= :until"  # noqa: S608
                connection.execute(update if mark.continues else insert, {"view": view, **mark._asdict()})
        return sent

    def fetch(self, config: RepoConfig, view: str, keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        """See ``RowOnlineStore``."""
        found: dict[bytes, Stored] = {}
        with self._reaching(config):
            connection = self._open(config)
            table = _table(connection, config, view)
            for start in range(0, len(keys), KEYS_AT_ONCE):
                part = keys[start : start + KEYS_AT_ONCE]
                marks = ",".join("?" * len(part))
                query = f"SELECT entity_key, as_of, event, row FROM {table} WHERE entity_key IN ({marks})"  # noqa: S608
                found |= {key: Stored(*rest) for key, *rest in connection.execute(query, part)}
        return found

    def marks(self, config: RepoConfig) -> dict[str, Mark]:
        """See ``RowOnlineStore``."""
        with self._reaching(config):
            connection = self._open(config)
            query = f"SELECT view, until, digest FROM {_record(connection, config)}"  # noqa: S608
            return {view: Mark(*rest) for view, *rest in connection.execute(query)}

    def drop(self, config: RepoConfig, view: str) -> None:
        """See ``RowOnlineStore``."""
        with self._reaching(config), self._open(config) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {_name(config, view)}")
            connection.execute(f"DELETE FROM {_record(connection, config)} WHERE view = ?", (view,))  # noqa: S608

    def _open(self, config: RepoConfig) -> sqlite3.Connection:
        if self._connection is None:
            path = Path(config.online_store.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False, isolation_level=None)
            # Readers do not wait for a writer, and a crash of the machine loses at most the last transaction whole.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._connection = connection
        return self._connection

    def _reaching(self, config: RepoConfig) -> AbstractContextManager[None]:
        return reaching(str(config.online_store.path), (sqlite3.OperationalError, OSError), self._forget)

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _name(config: RepoConfig, name: str) -> str:
    quoted = f"{config.project}_{name}_rows".replace('"', '""')
    return f'"{quoted}"'


def _table(connection: sqlite3.Connection, config: RepoConfig, view: str) -> str:
    name = _name(config, view)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {name} (entity_key BLOB PRIMARY KEY, as_of INTEGER NOT NULL, "
        "event INTEGER NOT NULL, row BLOB NOT NULL)"
    )
    return name


def _record(connection: sqlite3.Connection, config: RepoConfig) -> str:
    name = _name(config, "_marks")
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {name} (view TEXT PRIMARY KEY, until INTEGER NOT NULL, digest INTEGER NOT NULL)"
    )
    return name
