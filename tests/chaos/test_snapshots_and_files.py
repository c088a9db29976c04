"""Faults of feature snapshots and of files, with known answers; the files go through the feed's own reader."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from components.chaos import FAULTS, Fault, Scene, fault_named, plant_bytes, plant_snapshot
from components.chaos.fault import SNAPSHOTS
from components.chaos.planting import generator
from components.config import FilesFeed, TableMapping
from components.errors import ConfigError, EmptyDayError, SourceError
from components.feed.canonical import clean
from components.feed.files import FilesSource
from tests.chaos.conftest import DAY, ZONE

OF_SNAPSHOTS = [fault for fault in FAULTS if fault.where in SNAPSHOTS]
OF_FILES = [fault for fault in FAULTS if fault.where == "file"]
ENTITIES = 40


def snapshot(seed: int, entity: str = "user") -> pa.Table:
    """A snapshot with windows that grow, as a good one's do."""
    rng = np.random.default_rng(seed)
    day = rng.integers(1, 9, ENTITIES).astype(np.float32)
    columns = {
        f"{entity}_id": pa.array(np.arange(ENTITIES)),
        f"{entity}_impressions_1d": pa.array(day),
        f"{entity}_impressions_14d": pa.array(day + 20 + rng.integers(0, 9, ENTITIES).astype(np.float32)),
        f"{entity}_watch_s_1d": pa.array(day * 7),
        f"{entity}_watch_s_14d": pa.array(day * 70),
        f"{entity}_like_rate_14d": pa.array(rng.uniform(0.1, 0.9, ENTITIES).astype(np.float32)),
        f"{entity}_last_videos": pa.array([[1, 2]] * ENTITIES),
    }
    return pa.table(columns)


def entity_of(fault: Fault) -> str:
    return fault.where.removesuffix("_features")


@pytest.mark.parametrize("fault", OF_SNAPSHOTS, ids=lambda fault: fault.name)
def test_a_rate_of_zero_leaves_a_snapshot_alone_and_others_keep_its_schema(fault: Fault) -> None:
    entity = entity_of(fault)
    good, before = snapshot(1, entity), snapshot(2, entity)
    assert fault.plant(good, before, 0.0, generator(fault, DAY, 1)).equals(good)
    first, again = (plant_snapshot(fault, good, before, DAY, 0.5, seed=3) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(good)
    assert first.schema.equals(good.schema)


def struck(fault: str, rate: float = 0.25) -> tuple[pa.Table, pa.Table, np.ndarray]:
    """The good and the broken snapshot, and which rows changed."""
    one = fault_named(fault)
    good = snapshot(1, entity_of(one))
    broken = plant_snapshot(one, good, snapshot(2, entity_of(one)), DAY, rate, seed=3)
    rows = np.array([a != b for a, b in zip(good.to_pylist(), broken.to_pylist(), strict=True)])
    return good, broken, rows


@pytest.mark.parametrize(
    ("fault", "columns", "rule"),
    [
        ("counters_zero", "all", lambda old, new: new == 0),
        ("watch_in_ms", "_watch_s_", lambda old, new: new == 1_000 * old),
        ("rates_in_percent", "_rate_", lambda old, new: np.isclose(new, 100 * old)),
    ],
)
def test_a_fault_of_counters_strikes_a_quarter_of_the_rows(
    fault: str, columns: str, rule: Callable[[float, float], bool]
) -> None:
    good, broken, rows = struck(fault)
    assert rows.sum() == ENTITIES // 4
    for name in good.column_names[1:-1]:
        old, new = good[name].to_numpy(), broken[name].to_numpy()
        if columns == "all" or columns in name:
            assert all(rule(a, b) for a, b in zip(old[rows], new[rows], strict=True))
        else:
            assert (old == new).all()


def test_unknown_counters_are_null_in_a_quarter_of_the_rows() -> None:
    _, broken, rows = struck("counters_null")
    assert rows.sum() == ENTITIES // 4
    assert [column.null_count for column in broken.columns] == [0, *[ENTITIES // 4] * 5, 0]


def test_swapped_windows_are_each_others() -> None:
    good, broken, rows = struck("windows_swapped")
    assert rows.sum() == ENTITIES // 4
    for column in ("impressions", "watch_s"):
        assert broken[f"video_{column}_1d"].filter(rows).equals(good[f"video_{column}_14d"].filter(rows))
        assert broken[f"video_{column}_14d"].filter(rows).equals(good[f"video_{column}_1d"].filter(rows))
    assert broken["video_like_rate_14d"].equals(good["video_like_rate_14d"])


def test_a_stale_snapshot_is_yesterdays() -> None:
    fault, good, before = fault_named("snapshot_stale"), snapshot(1), snapshot(2).slice(0, 30)
    assert plant_snapshot(fault, good, before, DAY, 1.0, seed=3).equals(before)
    half = plant_snapshot(fault, good, before, DAY, 0.5, seed=3)
    rate = half["user_like_rate_14d"].to_pylist()
    old, new = before["user_like_rate_14d"].to_pylist(), good["user_like_rate_14d"].to_pylist()
    taken = [place for place in range(30) if rate[place] == old[place]]
    assert 5 <= len(taken) <= 20
    assert all(rate[place] == new[place] for place in range(ENTITIES) if place not in taken)
    with pytest.raises(ConfigError, match="snapshot of the day before"):
        plant_snapshot(fault, good, None, DAY, 1.0, seed=3)


def test_lost_doubled_and_misjoined_rows_are_counted() -> None:
    good = snapshot(1)
    lost = plant_snapshot(fault_named("snapshot_rows_lost"), good, None, DAY, 0.25, seed=3)
    assert lost.num_rows == 30
    assert set(lost["user_id"].to_pylist()) < set(range(ENTITIES))
    doubled = plant_snapshot(fault_named("snapshot_rows_doubled"), snapshot(1, "video"), None, DAY, 0.25, seed=3)
    assert doubled.num_rows == 50
    assert len(set(doubled["video_id"].to_pylist())) == ENTITIES
    mixed = plant_snapshot(fault_named("snapshot_misjoined"), good, None, DAY, 1.0, seed=3)
    for name in good.column_names[1:-1]:
        assert sorted(mixed[name].to_pylist()) == sorted(good[name].to_pylist())
        assert not mixed[name].equals(good[name])
    assert mixed["user_id"].equals(good["user_id"])


def test_a_fault_is_planted_only_into_what_it_is_a_fault_of(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="not of a feature snapshot"):
        plant_snapshot(fault_named("watch_zero"), snapshot(1), None, DAY, 0.5, seed=1)
    with pytest.raises(ConfigError, match="not of a file"):
        plant_bytes(fault_named("watch_zero"), b"", None, DAY, 0.5, seed=1)
    with pytest.raises(ConfigError, match="file of the day before"):
        plant_bytes(fault_named("wrong_day_file"), b"abc", None, DAY, 0.5, seed=1)


def content_of(table: pa.Table, csv: bool) -> bytes:
    sink = pa.BufferOutputStream()
    if csv:
        pacsv.write_csv(table, sink)
    else:
        pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def feed_at(folder: Path, scene: Scene, csv: bool) -> FilesFeed:
    columns = {name: name for name in scene.log.column_names}
    return FilesFeed(
        folder=str(folder),
        timezone=ZONE.key,
        first_day=DAY,
        log=TableMapping(path=f"{{day}}.{'csv' if csv else 'parquet'}", columns=columns),
    )


@pytest.mark.parametrize("fault", OF_FILES, ids=lambda fault: fault.name)
def test_a_broken_file_never_becomes_a_day(fault: Fault, scene: Scene, tmp_path: Path) -> None:
    feed = feed_at(tmp_path, scene, fault.csv)
    path = tmp_path / feed.log.path.format(day=DAY)
    content, before = (content_of(t.log, fault.csv) for t in (scene.tables, scene.yesterday()))
    assert plant_bytes(fault, content, before, DAY, 0.0, seed=1) == content

    path.write_bytes(content)
    whole = clean(FilesSource(feed).read_day(DAY), feed, DAY)
    assert whole.log.num_rows == scene.log.num_rows

    for rate in (0.01, 0.5):
        broken = plant_bytes(fault, content, before, DAY, rate, seed=1)
        assert broken != content
        path.unlink(missing_ok=True)
        if broken is not None:
            path.write_bytes(broken)
        with pytest.raises((SourceError, EmptyDayError)) as caught:
            clean(FilesSource(feed).read_day(DAY), feed, DAY)
        assert str(DAY) in str(caught.value)


def test_what_is_left_of_a_file_is_what_its_meaning_says() -> None:
    lines = b"user_id,watch_ms\n" + b"".join(b"%d,%d\n" % (one, 100 + one) for one in range(100, 200))

    def planted(name: str, rate: float) -> bytes | None:
        return plant_bytes(fault_named(name), lines, b"yesterday", DAY, rate, seed=1)

    assert planted("truncated_file", 0.25) == lines[: len(lines) - round(len(lines) / 4)]
    half = planted("half_written_file", 0.25)
    assert half is not None
    assert lines.startswith(half)
    assert 0.7 * len(lines) < len(half) < 0.78 * len(lines)
    assert len(half.split(b"\n")[-1]) == 2
    assert planted("empty_file", 0.25) == b""
    assert planted("missing_file", 0.25) is None
    assert planted("wrong_day_file", 0.25) == b"yesterday"
    encoded = planted("wrong_encoding", 0.25)
    assert encoded is not None
    assert encoded.decode("utf-16").encode() == lines
    longer = planted("comma_in_text", 0.25)
    assert longer is not None
    assert [line.count(b",") for line in longer.split(b"\n")].count(2) == 25
    page = planted("error_page", 0.25)
    assert page is not None
    assert b"SlowDown" in page
