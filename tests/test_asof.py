"""The point-in-time join finds what looking at every row finds, and what Feast's own join finds."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.features import features
from components.store import offline_engine, open_store
from feature_repo.asof import seen_rows
from tests.small_lake import at, context_at, day_at
from tests.test_materialize import FEATURES as KNOWN
from tests.test_materialize import build

# What is looked up; what is computed of a pair or a request is no join.
FEATURES = [feature for feature in KNOWN if feature.entity in ("user", "video")]

KEYS = st.sampled_from(["a", "b", "c", "stranger"])
TIMES = st.integers(0, 12)


def brute(
    request: tuple[str, int, int], rows: list[tuple[str, int, int]], ttl: int | None
) -> tuple[str, int, int] | None:
    """The newest of all rows that the request may see."""
    user, topic, moment = request
    seen = [r for r in rows if r[:2] == (user, topic) and r[2] <= moment and (not ttl or r[2] >= moment - ttl)]
    return max(seen, key=lambda row: row[2], default=None)


@settings(max_examples=300, deadline=None)
@given(
    requests=st.lists(st.tuples(KEYS, st.integers(0, 2), TIMES), max_size=12),
    rows=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 2), TIMES), max_size=25),
    ttl=st.sampled_from([None, 0, 1, 4]),
)
def test_the_row_of_each_request_is_the_newest_that_it_may_see(
    requests: list[tuple[str, int, int]], rows: list[tuple[str, int, int]], ttl: int | None
) -> None:
    def columns(table: list[tuple[str, int, int]]) -> tuple[list[pa.ChunkedArray], Any]:
        users, topics, times = zip(*table, strict=True) if table else ((), (), ())
        keys = [pa.chunked_array([pa.array(users, pa.string())]), pa.chunked_array([pa.array(topics, pa.int64())])]
        return keys, np.array(times, np.int64)

    life = None if ttl is None else timedelta(microseconds=ttl)
    found = seen_rows(*columns(requests), *columns(rows), life).to_pylist()
    assert [None if at is None else rows[at] for at in found] == [brute(one, rows, ttl) for one in requests]


def test_of_rows_of_one_key_and_time_the_last_one_created_counts() -> None:
    key = [pa.chunked_array([pa.array([1, 1, 1])])]
    asked = [pa.chunked_array([pa.array([1])])]
    stamps, created = np.array([5, 5, 5]), np.array([2, 9, 1])
    assert seen_rows(asked, np.array([5]), key, stamps, None, created).to_pylist() == [1]
    assert seen_rows(asked, np.array([5]), key, stamps, None).to_pylist() == [2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asof")
    build(folder)
    features(context_at(folder), day_at(2))
    return folder


def frame(count: int) -> pd.DataFrame:
    """Random requests around the three days, some of strangers, some equal, in no order."""
    draw = np.random.default_rng(5)
    start = at(day_at(0), 0)
    minutes = draw.integers(0, 6 * 24 * 60, count)
    return pd.DataFrame(
        {
            "row": np.arange(count),
            "user_id": draw.choice([1, 2, 3, 4, 99], count),
            "video_id": draw.choice([11, 12, 13, 99], count),
            "event_timestamp": [start + timedelta(minutes=int(one)) for one in minutes],
        }
    )


@pytest.mark.integration
@pytest.mark.parametrize("full_names", [False, True])
def test_the_join_equals_feasts_own_over_the_same_rows(home: Path, full_names: bool) -> None:
    import ibis
    from feast.infra.offline_stores.ibis import get_historical_features_ibis

    from feature_repo.lake_offline_store import dataset_of, rows_between

    store = open_store(context_at(home))
    refs = [f"{feature.view}:{feature.name}" for feature in FEATURES]
    asked = frame(400)
    ours = store.get_historical_features(asked.copy(), refs, full_feature_names=full_names).to_arrow()
    config, reach = store.config.offline_store, timedelta(days=3)
    first, last = asked["event_timestamp"].min() - reach, asked["event_timestamp"].max()
    with offline_engine():
        theirs = get_historical_features_ibis(
            config=store.config,
            feature_views=[store.get_feature_view(name) for name in dict.fromkeys(f.view for f in FEATURES)],
            feature_refs=refs,
            entity_df=asked.copy(),
            registry=store.registry,
            project=store.project,
            full_feature_names=full_names,
            data_source_reader=lambda source, _: ibis.memtable(rows_between(config, first, last, dataset_of(source))),
            data_source_writer=lambda *_: None,
        ).to_arrow()
    assert set(ours.column_names) == set(theirs.column_names)
    left, right = (table.sort_by("row").select(ours.column_names).to_pandas() for table in (ours, theirs))
    pd.testing.assert_frame_equal(_plain(left), _plain(right), check_dtype=False)
    known = [name for name in left if name.endswith("user_impressions_14d")]
    assert 0 < left[known[0]].notna().sum() < len(left)


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Lists as tuples, which can be compared; the same moments in the same unit."""
    as_tuple: Callable[[Any], Any] = lambda one: tuple(one) if isinstance(one, np.ndarray) else one  # noqa: E731
    changed = table.map(as_tuple)
    return changed.assign(event_timestamp=pd.to_datetime(changed["event_timestamp"], utc=True).dt.as_unit("us"))


def test_moments_without_a_zone_are_utc() -> None:
    from feature_repo.asof import micros

    naive = pa.chunked_array([pa.array([datetime(2026, 1, 1)], pa.timestamp("ns"))])
    aware = pa.chunked_array([pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "Asia/Shanghai"))])
    assert micros(naive).tolist() == micros(aware).tolist() == [1_767_225_600_000_000]
