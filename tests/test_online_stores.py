"""Packed rows say what Feast's own store says, in every store, and never go back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import RepoConfig
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.utils import _convert_arrow_to_proto

from components.errors import ConfigError, OnlineStoreError
from components.online_settings import online_store
from feature_repo.online.engine import newest
from feature_repo.online.rows import Layout, entity_keys
from feature_repo.online.store import Mark, RowOnlineStore, micros
from tests.online_servers import KINDS, store_url

pytestmark = pytest.mark.integration

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
FIELDS = {
    "rate": Float32,
    "precise": Float64,
    "small": Int32,
    "creator": Int64,
    "known": Bool,
    "since": UnixTimestamp,
    "topic": String,
    "last": Array(Int64),
    "weights": Array(Float32),
    "topics": Array(String),
}


def a_view(fields: dict[str, Any], ttl: timedelta | None = 3 * DAY, name: str = "everything") -> FeatureView:
    source = FileSource(name=f"{name}_source", path="none.parquet", timestamp_field="at")
    schema = [Field(name="user_id", dtype=Int64), *(Field(name=one, dtype=kind) for one, kind in fields.items())]
    return FeatureView(name=name, entities=[USER], schema=schema, source=source, ttl=ttl)


VIEW = a_view(FIELDS)
ROWS: list[dict[str, Any]] = [
    {
        "user_id": 7,
        "rate": 0.1,
        "precise": 0.1,
        "small": -3,
        "creator": 1 << 60,
        "known": True,
        "since": datetime(2020, 2, 29, 1, 2, 3, tzinfo=UTC),
        "topic": "Größe",
        "last": [5, 4, 1 << 40],
        "weights": [0.5, 0.1],
        "topics": ["a", "日"],
    },
    {"user_id": -1},
    {"user_id": 0, "rate": float("nan"), "last": [], "topics": [], "topic": "", "known": False, "creator": 0},
    {"user_id": 8, "rate": 1.5, "topic": "x" * 3_000, "last": list(range(500)), "weights": [1.0]},
]
TYPES = [
    pa.field("user_id", pa.int64()),
    pa.field("rate", pa.float32()),
    pa.field("precise", pa.float64()),
    pa.field("small", pa.int32()),
    pa.field("creator", pa.int64()),
    pa.field("known", pa.bool_()),
    pa.field("since", pa.timestamp("us", "UTC")),
    pa.field("topic", pa.string()),
    pa.field("last", pa.list_(pa.int64())),
    pa.field("weights", pa.list_(pa.float32())),
    pa.field("topics", pa.list_(pa.string())),
    pa.field("at", pa.timestamp("us", "UTC")),
]


def a_table(rows: list[dict[str, Any]] = ROWS, at: datetime = NOON) -> pa.Table:
    return pa.Table.from_pylist([{"at": at} | row for row in rows], schema=pa.schema(TYPES))


def config_of(url: str, folder: Path, project: str) -> RepoConfig:
    return RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store=online_store(url, folder / "default.db"),
        entity_key_serialization_version=3,
    )


def opened(config: RepoConfig) -> RowOnlineStore:
    from feast.infra.online_stores.helpers import get_online_store_from_config

    store = get_online_store_from_config(config.online_store)
    assert isinstance(store, RowOnlineStore)
    return store


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RepoConfig]:
    with store_url(request.param, tmp_path) as url:
        found = config_of(url, tmp_path, f"test_{uuid4().hex[:10]}")
        yield found
        opened(found).teardown(found, [VIEW, OTHER], [])


OTHER = a_view({"rate": Float32}, name="other")


def read(config: RepoConfig, ids: list[int], moment: datetime | None = None, view: FeatureView = VIEW) -> Any:
    return opened(config).read_table(config, view, pa.table({"user_id": ids}), moment)


def test_a_row_that_was_packed_is_unpacked_as_it_was() -> None:
    layout, table = Layout.of(VIEW), a_table()
    back = layout.unpack([*layout.pack(table), None, b"of another layout"])
    expected = table.select(list(FIELDS)).to_pylist()
    expected[2]["rate"] = None  # NaN is missing, as in Feast's own stores
    assert back.slice(0, 4).to_pylist() == expected
    assert back.slice(4).to_pylist() == [dict.fromkeys(FIELDS)] * 2
    assert back.schema.types == [one.type for one in TYPES[1:-1]]


def test_no_row_is_no_table_of_no_rows() -> None:
    layout = Layout.of(VIEW)
    assert layout.pack(a_table([])) == []
    assert layout.unpack([]).num_rows == 0


def test_a_type_that_rows_can_not_hold_is_named() -> None:
    with pytest.raises(ConfigError, match="'odd' of view 'everything' is of type Array"):
        Layout.of(a_view({"odd": Array(Bool)}))


def test_keys_are_feasts_own() -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    table = pa.table({"user_id": [-5, 1 << 61], "topic": ["a", "ß"]})
    for names in (["user_id"], ["user_id", "topic"]):
        expected = []
        for row in table.to_pylist():
            values = [Value(int64_val=v) if isinstance(v, int) else Value(string_val=v) for v in map(row.get, names)]
            expected.append(serialize_entity_key(EntityKey(join_keys=names, entity_values=values), 3))
        assert entity_keys(table, names) == expected


def test_what_feast_reads_is_what_its_own_store_would_have_given(config: RepoConfig, tmp_path: Path) -> None:
    """Feast converts, writes and reads the same rows through its own SQLite store."""
    own = RepoConfig(
        project=config.project,
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store={"type": "sqlite", "path": str(tmp_path / "feast.db")},
        entity_key_serialization_version=3,
    )
    # Feast's conversion takes no null among lists of texts, and makes the least integer of a missing moment.
    table = a_table([ROWS[0], ROWS[3] | {"topics": ["b"], "since": NOON}])
    protos = _convert_arrow_to_proto(table, VIEW, {"user_id": ValueType.INT64})
    feast = SqliteOnlineStore()
    feast.update(own, [], [VIEW], [], [], False)
    feast.online_write_batch(own, VIEW, protos, None)
    store = opened(config)
    store.write_table(config, VIEW, table, NOON)
    keys = [key for key, *_ in protos]
    expected = feast.online_read(own, VIEW, keys, None)
    assert [values for _, values in store.online_read(config, VIEW, keys)] == [values for _, values in expected]
    assert [moment for moment, _ in store.online_read(config, VIEW, keys)] == [NOON, NOON]
    # And the same rows by Feast's own way of writing, as a push takes it.
    store.online_write_batch(config, OTHER, _convert_arrow_to_proto(table, OTHER, {"user_id": ValueType.INT64}), None)
    assert read(config, [7, 8], view=OTHER).table["rate"].to_pylist() == [pytest.approx(0.1), 1.5]


def test_rows_are_read_in_the_order_asked_and_strangers_are_unknown(config: RepoConfig) -> None:
    sent = opened(config).write_table(config, VIEW, a_table(), NOON)
    found = read(config, [8, 99, 7, 8])
    assert sent == 4
    assert found.known.tolist() == [True, False, True, True]
    assert found.table["topic"].to_pylist() == ["x" * 3_000, None, "Größe", "x" * 3_000]
    assert found.table["last"].to_pylist()[1:3] == [None, [5, 4, 1 << 40]]
    assert found.event.tolist() == [int(NOON.timestamp() * 1e6) if known else 0 for known in found.known]


def test_a_value_lives_for_its_time_to_live_and_is_not_seen_before_its_time(config: RepoConfig) -> None:
    opened(config).write_table(config, VIEW, a_table(), NOON)
    micro = timedelta(microseconds=1)
    alive = [bool(read(config, [7], NOON + age).known[0]) for age in (-micro, 0 * DAY, 3 * DAY, 3 * DAY + micro)]
    assert alive == [False, True, True, False]
    dead = read(config, [7], NOON + 4 * DAY)
    assert dead.table["topic"].to_pylist() == [None]
    assert dead.event.tolist() == [0]


def test_an_older_materialization_leaves_newer_rows(config: RepoConfig) -> None:
    store = opened(config)
    new, old = {"user_id": 7, "rate": 2.0}, {"user_id": 7, "rate": 1.0}
    store.write_table(config, VIEW, a_table([new]), NOON + DAY)
    store.write_table(config, VIEW, a_table([old, {"user_id": 9, "rate": 1.0}]), NOON)
    assert read(config, [7, 9]).table["rate"].to_pylist() == [2.0, 1.0]
    assert {name: mark.until for name, mark in store.marks(config).items()} == {VIEW.name: micros(NOON + DAY)}
    # The same day again may mend its rows.
    store.write_table(config, VIEW, a_table([{"user_id": 7, "rate": 3.0}]), NOON + DAY)
    assert read(config, [7]).table["rate"].to_pylist() == [3.0]


def test_days_that_are_written_at_once_end_with_the_newest(config: RepoConfig) -> None:
    users = range(300)

    def write(day: int) -> None:
        rows = [{"user_id": user, "rate": float(day)} for user in users]
        opened(config).write_table(config, VIEW, a_table(rows), NOON + day * DAY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [3, 0, 2, 1, 3, 1]))
    assert read(config, list(users)).table["rate"].to_pylist() == [3.0] * len(users)
    assert opened(config).marks(config) == {VIEW.name: Mark(micros(NOON + 3 * DAY), Layout.of(VIEW).digest)}


def test_what_continues_nothing_is_written_but_not_recorded_as_whole(config: RepoConfig) -> None:
    store, layout = opened(config), Layout.of(VIEW)
    store.write_table(config, VIEW, a_table(), NOON + DAY, since=NOON)
    assert read(config, [7]).known.tolist() == [True]
    assert store.marks(config) == {}
    # All that is alive begins a record, which the next day continues, never backwards.
    store.write_table(config, VIEW, a_table(), NOON + DAY, since=NOON + DAY - VIEW.ttl)
    assert store.marks(config) == {VIEW.name: Mark(micros(NOON + DAY), layout.digest)}
    for end in (NOON + 2 * DAY, NOON):
        store.write_table(config, VIEW, a_table(), end, since=NOON + DAY)
    assert store.marks(config) == {VIEW.name: Mark(micros(NOON + 2 * DAY), layout.digest)}


def test_a_view_with_other_features_does_not_misread_old_rows(config: RepoConfig) -> None:
    store = opened(config)
    store.write_table(config, VIEW, a_table(), NOON)
    changed = a_view({"creator": Int64, "rate": Float32})
    assert read(config, [7], view=changed).table.to_pylist() == [{"creator": None, "rate": None}]
    store.write_table(config, changed, a_table(), NOON)
    assert read(config, [7], view=changed).table["creator"].to_pylist() == [1 << 60]


def test_no_store_claims_ways_of_reading_that_are_not_its_own(config: RepoConfig) -> None:
    """The feature server reads asynchronously where a store says that it can."""
    store = opened(config)
    assert (store.async_supported.read, store.async_supported.write) == (False, False)
    assert type(store)._read_features_per_fv is OnlineStore._read_features_per_fv


def test_a_view_that_is_dropped_takes_its_rows_and_its_record_with_it(config: RepoConfig) -> None:
    store = opened(config)
    store.write_table(config, VIEW, a_table(), NOON)
    store.write_table(config, OTHER, a_table(), NOON)
    store.update(config, [VIEW], [OTHER], [], [], False)
    assert read(config, [7]).known.tolist() == [False]
    assert read(config, [7], view=OTHER).known.tolist() == [True]
    assert set(store.marks(config)) == {OTHER.name}


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "postgresql://nobody@127.0.0.1:1/none", "sqlite:///dev/null/x"]
)
def test_a_store_that_is_away_is_named(url: str, tmp_path: Path) -> None:
    config = config_of(url, tmp_path, "away")
    with pytest.raises(OnlineStoreError, match=r"can not be reached.*MFH_ONLINE_STORE"):
        opened(config).marks(config)


def test_the_newest_row_of_each_entity_is_kept() -> None:
    table = pa.table({"a": [1, 2, 1, 1], "b": ["x", "x", "x", "y"], "at": [1, 5, 3, 2], "v": [10, 20, 30, 40]})
    assert newest(table, ["a", "b"], "at")["v"].to_pylist() == [30, 40, 20]
    assert newest(table, ["a"], "at")["v"].to_pylist() == [30, 20]
    assert newest(table.slice(0, 0), ["a"], "at").num_rows == 0
    assert newest(table.slice(0, 1), ["a"], "at").num_rows == 1


def test_urls_become_feasts_settings(tmp_path: Path) -> None:
    default = tmp_path / "x.db"
    assert online_store("", default)["path"] == str(default)
    redis = online_store("rediss://me:1234@a:1,b/3?redis_type=redis_cluster", default)
    assert redis["connection_string"].startswith('a:1,b:6379,db=3,ssl=true,username=me,password="1234",socket_timeout=')
    assert redis["redis_type"] == "redis_cluster"
    postgres = online_store("postgresql://u:p%40ss@h:6/d?db_schema=s&sslmode=require", default)
    assert {k: postgres[k] for k in ("host", "port", "database", "user", "password", "db_schema", "sslmode")} == {
        "host": "h",
        "port": 6,
        "database": "d",
        "user": "u",
        "password": "p@ss",
        "db_schema": "s",
        "sslmode": "require",
    }


@pytest.mark.parametrize(
    "url", ["mysql://h/d", "redis://", "postgresql://h", "postgresql:///d", "redis://u:geheim,nis@h", "nonsense"]
)
def test_a_url_that_names_no_store_is_refused_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        online_store(url, tmp_path / "x.db")
    assert "MFH_ONLINE_STORE" in str(caught.value)
    assert "geheim" not in str(caught.value)
