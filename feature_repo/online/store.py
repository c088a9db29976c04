"""What the three online stores share: Feast's interface on packed rows, and the way in that Arrow tables take.

A row carries two times. ``event`` is when its values became true, which decides how long they live. ``as_of`` is the
end of the materialization that wrote it (of a pushed row: its event time), and a row gives way only to one that is at
least as late: the store itself refuses to go back, whoever writes, in whatever order, from however many machines.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from feast import Entity, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from numpy.typing import NDArray

from components.days import EVER
from components.errors import OnlineStoreError
from feature_repo.online.rows import KEY_VERSION, Layout, entity_keys

# Rows that are packed and sent at once.
CHUNK_ROWS = 10_000


class Row(NamedTuple):
    """One entity's values of one view; times in microseconds since 1970."""

    key: bytes
    as_of: int
    event: int
    values: bytes


class Mark(NamedTuple):
    """A store's record of the newest whole materialization of a view: its end, and the layout of its rows.

    ``continues`` is no part of the record, but how it is written: only over an earlier one, for rows that are not all
    that is alive. A store that was emptied since its record was read would otherwise pass for whole.
    """

    until: int
    digest: int
    continues: bool = False

    @property
    def record(self) -> tuple[int, int]:
        """What a store keeps."""
        return self.until, self.digest


class Stored(NamedTuple):
    """What a store holds of one entity and view."""

    as_of: int
    event: int
    values: bytes


@dataclass(frozen=True)
class Found:
    """What was read of N entities.

    Attributes:
        table: N rows, a column per feature of the view; null where nothing is held.
        event: int64 [N], microseconds since 1970 at which the values became true; 0 where nothing is held.
        known: bool [N], whether anything is held that was alive at the moment of the read.
    """

    table: pa.Table
    event: NDArray[np.int64]
    known: NDArray[np.bool_]


class RowOnlineStore(OnlineStore):
    """Feast's online store over packed rows; a subclass says where rows go and come from."""

    @abstractmethod
    def put(self, config: RepoConfig, view: str, chunks: Iterable[list[Row]], mark: Mark | None) -> int:
        """Write rows, each unless a later one is there.

        Args:
            config: The repository's configuration.
            view: Name of the feature view.
            chunks: The rows.
            mark: The record of a materialization, kept when all rows are in; None for single rows.

        Returns:
            How many rows were sent.

        Raises:
            OnlineStoreError: When the store can not be reached, or lost rows in the middle; writing all anew mends it.
        """

    @abstractmethod
    def fetch(self, config: RepoConfig, view: str, keys: Sequence[bytes]) -> Mapping[bytes, Stored]:
        """Rows of a view by key; what is not held is left out.

        Args:
            config: The repository's configuration.
            view: Name of the feature view.
            keys: Serialized entity keys.

        Returns:
            Key to row.

        Raises:
            OnlineStoreError: When the store can not be reached.
        """

    @abstractmethod
    def marks(self, config: RepoConfig) -> dict[str, Mark]:
        """The newest whole materialization of each view: the store's own record, lost when its rows are.

        Args:
            config: The repository's configuration.

        Returns:
            View to mark; views that were never materialized into this store are left out.

        Raises:
            OnlineStoreError: When the store can not be reached.
        """

    @abstractmethod
    def drop(self, config: RepoConfig, view: str) -> None:
        """Remove a view's rows and its record."""

    def write_table(
        self, config: RepoConfig, view: FeatureView, table: pa.Table, until: datetime, since: datetime | None = None
    ) -> int:
        """Write a materialization.

        Args:
            config: The repository's configuration.
            view: The feature view.
            table: One row per entity with join keys, features and the view's time column.
            until: End of the materialization.
            since: Its begin; None for everything. A later one than the values' time to live allows only continues what
                the store has, and is recorded only where the store still has it.

        Returns:
            Rows sent.

        Raises:
            OnlineStoreError: See ``put``.
        """
        layout, end = Layout.of(view), micros(until)
        oldest = until - view.ttl if view.ttl else EVER
        mark = Mark(end, layout.digest, continues=since is not None and since > oldest)
        time = view.batch_source.timestamp_field

        def chunks() -> Iterator[list[Row]]:
            for start in range(0, table.num_rows, CHUNK_ROWS):
                part = table.slice(start, CHUNK_ROWS)
                events = part[time].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
                keys = entity_keys(part, view.join_keys)
                yield [Row(key, end, *rest) for key, *rest in zip(keys, events, layout.pack(part), strict=True)]

        return self.put(config, view.name, chunks(), mark)

    def read_table(self, config: RepoConfig, view: FeatureView, keys: pa.Table, moment: datetime | None) -> Found:
        """Read entities straight into columns, and judge their age by the request's clock.

        Feast's own online read knows no moment, so it returns values that the offline join would call too old.

        Args:
            config: The repository's configuration.
            view: The feature view.
            keys: N rows with the view's join keys.
            moment: When the request is made; older values than the view's time to live count as unknown. None reads
                whatever is held.

        Returns:
            The values, when they became true, and which entities are known.

        Raises:
            OnlineStoreError: When the store can not be reached.
        """
        wanted = entity_keys(keys, view.join_keys)
        held = self.fetch(config, view.name, list(dict.fromkeys(wanted)))
        rows = [held.get(key) for key in wanted]
        event = np.array([0 if row is None else row.event for row in rows], np.int64)
        known = np.array([row is not None for row in rows], bool)
        if moment is not None:
            known &= event <= micros(moment)
            if view.ttl:
                known &= event >= micros(moment - view.ttl)
        alive = [row.values if row is not None and ok else None for row, ok in zip(rows, known, strict=True)]
        return Found(Layout.of(view).unpack(alive), np.where(known, event, 0), known)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write single rows, as a push does; signature and meaning are Feast's.

        Args:
            config: The repository's configuration.
            table: The feature view.
            data: Entity key, values, event time and creation time of each row.
            progress: Called with the number of rows written.
        """
        layout = Layout.of(table)
        packed = layout.pack(layout.table([values for _, values, _, _ in data]))
        rows = [
            Row(_key(key), micros(event), micros(event), values)
            for (key, _, event, _), values in zip(data, packed, strict=True)
        ]
        sent = self.put(config, table.name, [rows], None)
        if progress is not None:
            progress(sent)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """Read entities as Feast's own functions want them; signature and result are Feast's.

        Args:
            config: The repository's configuration.
            table: The feature view.
            entity_keys: N entities.
            requested_features: Which features, None for all.

        Returns:
            N pairs of event time and values, a pair of None for an unknown entity.
        """
        keys = [_key(one) for one in entity_keys]
        held = self.fetch(config, table.name, list(dict.fromkeys(keys)))
        rows = [held.get(key) for key in keys]
        found: list[tuple[datetime | None, dict[str, Value] | None]] = []
        values = Layout.of(table).protos([None if row is None else row.values for row in rows])
        for row, one in zip(rows, values, strict=True):
            if row is None or one is None:
                found.append((None, None))
                continue
            kept = one if requested_features is None else {n: v for n, v in one.items() if n in requested_features}
            found.append((moment_of(row.event), kept))
        return found

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Remove what is no longer registered; tables of new views are made when they are first used.

        Args:
            config: The repository's configuration.
            tables_to_delete: Views that are gone.
            tables_to_keep: Views that stay.
            entities_to_delete: Not used: rows belong to views.
            entities_to_keep: Not used.
            partial: Not used.
        """
        for view in tables_to_delete:
            self.drop(config, view.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove all rows of the views."""
        for view in tables:
            self.drop(config, view.name)


@contextmanager
def reaching(what: str, lost: tuple[type[Exception], ...], forget: Callable[[], None]) -> Iterator[None]:
    """Turn a driver's errors of connection into ours, and let go of the connection.

    Args:
        what: The store, as a person would name it.
        lost: The driver's errors that mean that the store is away.
        forget: Drops the connection, so that the next call opens a new one.

    Raises:
        OnlineStoreError: In place of the driver's errors.
    """
    try:
        yield
    except lost as error:
        forget()
        reason = " ".join(str(error).split())
        raise OnlineStoreError(
            f"the online store {what} can not be reached: {reason}; check that it runs and MFH_ONLINE_STORE names it. "
            "Running the step again writes everything that is missing"
        ) from error


def micros(moment: datetime) -> int:
    """Microseconds since 1970; a moment without a zone is UTC, as Feast takes it."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    whole = aware.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def moment_of(stamp: int) -> datetime:
    """The moment (UTC) of microseconds since 1970."""
    # Divided as whole numbers: a float loses microseconds.
    return datetime.fromtimestamp(stamp // 1_000_000, UTC).replace(microsecond=stamp % 1_000_000)


def _key(key: EntityKey) -> bytes:
    found: bytes = serialize_entity_key(key, entity_key_serialization_version=KEY_VERSION)
    return found
