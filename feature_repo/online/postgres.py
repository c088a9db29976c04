"""PostgreSQL as online store: a table per view, filled by COPY."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import psycopg
from feast.infra.utils.postgres.connection_utils import _get_conn
from feast.infra.utils.postgres.postgres_config import PostgreSQLConfig
from feast.repo_config import RepoConfig
from psycopg import sql

from feature_repo.online.store import Mark, Row, RowOnlineStore, Stored, reaching

# How a materialization is recorded: over an earlier record only, or in any case.
CONTINUE = "UPDATE {record} SET until = %(until)s, digest = %(digest)s WHERE view = %(view)s AND until <= %(until)s"
BEGIN = (
    "INSERT INTO {record} AS held VALUES (%(view)s, %(until)s, %(digest)s) ON CONFLICT (view) DO UPDATE SET "
    "until = excluded.until, digest = excluded.digest WHERE excluded.until >= held.until"
)

COPY_TYPES = ("bytea", "int8", "int8", "bytea")


class RowPostgresOnlineStoreConfig(PostgreSQLConfig):
    """Feast's own settings of a PostgreSQL connection."""

    type: Literal["feature_repo.online.postgres.RowPostgresOnlineStore"] = (
        "feature_repo.online.postgres.RowPostgresOnlineStore"
    )


class RowPostgresOnlineStore(RowOnlineStore):
    """Packed rows in PostgreSQL: a transaction per materialization of a view."""

    _connection: psycopg.Connection | None = None
    _made: frozenset[str] = frozenset()

    def put(self, config: RepoConfig, view: str, chunks: Iterable[list[Row]], mark: Mark | None) -> int:
        """See ``RowOnlineStore``; readers see the old rows until all new ones are in."""
        sent = 0
        with self._reaching(config):
            connection, table = self._open(config), self._table(config, view)
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL("CREATE TEMP TABLE incoming (LIKE {} INCLUDING DEFAULTS) ON COMMIT DROP").format(table)
                )
                with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(COPY_TYPES)
                    for rows in chunks:
                        for row in rows:
                            copy.write_row(row)
                        sent += len(rows)
                # In the order of keys, so that two writers lock rows in the same order.
                cursor.execute(
                    sql.SQL(
                        "INSERT INTO {table} AS held SELECT * FROM incoming ORDER BY entity_key "
                        "ON CONFLICT (entity_key) DO UPDATE SET as_of = excluded.as_of, event = excluded.event, "
                        "row = excluded.row WHERE excluded.as_of >= held.as_of"
                    ).format(table=table)
                )
                if mark is not None:
                    cursor.execute(
                        sql.SQL(CONTINUE if mark.continues else BEGIN).format(record=self._record(config)),
                        {"view": view, **mark._asdict()},
                    )
        return sent

    def fetch(self, config: RepoConfig, view: str, keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        """See ``RowOnlineStore``."""
        with self._reaching(config):
            connection, table = self._open(config), self._table(config, view)
            query = sql.SQL("SELECT entity_key, as_of, event, row FROM {} WHERE entity_key = ANY(%s)").format(table)
            rows = connection.execute(query, (list(keys),), binary=True).fetchall()
        return {key: Stored(*rest) for key, *rest in rows}

    def marks(self, config: RepoConfig) -> dict[str, Mark]:
        """See ``RowOnlineStore``."""
        with self._reaching(config):
            connection = self._open(config)
            query = sql.SQL("SELECT view, until, digest FROM {}").format(self._record(config))
            return {view: Mark(*rest) for view, *rest in connection.execute(query)}

    def drop(self, config: RepoConfig, view: str) -> None:
        """See ``RowOnlineStore``."""
        with self._reaching(config):
            connection = self._open(config)
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_name(config, view)))
            connection.execute(sql.SQL("DELETE FROM {} WHERE view = %s").format(self._record(config)), (view,))
            self._made = frozenset()

    def _open(self, config: RepoConfig) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = _get_conn(config.online_store)
            self._connection.autocommit = True
        return self._connection

    def _table(self, config: RepoConfig, view: str) -> sql.Identifier:
        return self._ensure(
            config,
            view,
            "CREATE TABLE IF NOT EXISTS {} (entity_key bytea PRIMARY KEY, as_of int8 NOT NULL, event int8 NOT NULL, "
            "row bytea NOT NULL)",
        )

    def _record(self, config: RepoConfig) -> sql.Identifier:
        return self._ensure(
            config,
            "_marks",
            "CREATE TABLE IF NOT EXISTS {} (view text PRIMARY KEY, until int8 NOT NULL, digest int8 NOT NULL)",
        )

    def _ensure(self, config: RepoConfig, name: str, statement: str) -> sql.Identifier:
        table = _name(config, name)
        if name not in self._made:
            with self._open(config).transaction():
                # IF NOT EXISTS alone fails when two sessions make the same table at once.
                self._open(config).execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{config.project}{name}",))
                self._open(config).execute(sql.SQL(statement).format(table))
            self._made |= {name}
        return table

    def _reaching(self, config: RepoConfig) -> AbstractContextManager[None]:
        where = f"PostgreSQL at {config.online_store.host}:{config.online_store.port}/{config.online_store.database}"
        return reaching(where, (psycopg.OperationalError, psycopg.InterfaceError), self._forget)

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._made = None, frozenset()


def _name(config: RepoConfig, view: str) -> sql.Identifier:
    return sql.Identifier(f"{config.project}_{view}_rows")
