"""What KuaiRand showed at random, which replay reads."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.config import KuaiRandFeed
from components.feed.kuairand import EXPOSURES, KuaiRandSource

DAY = date(2022, 4, 28)
MOMENT = datetime(2022, 4, 28, 4, 0, tzinfo=UTC)
ROW = {
    "user_id": 1,
    "video_id": 10,
    "time_ms": int(MOMENT.timestamp()) * 1_000,
    "play_time_ms": 4_000,
    "duration_ms": 5_000,
    "is_click": 1,
    "is_rand": 0,
    "tab": 1,
}
CLICK = {"user_id": 1, "video_id": 10, "is_click": 1}


def write(path: Path, *rows: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    write(tmp_path / "log_standard.parquet", ROW)
    write(tmp_path / "user_features.parquet", {"user_id": 1, "register_days": 100, "onehot_feat0": 1})
    write(tmp_path / "video_features_basic.parquet", {"video_id": 10, "author_id": 1, "upload_dt": "2022-04-10"})
    return tmp_path


def source(folder: Path) -> KuaiRandSource:
    return KuaiRandSource(KuaiRandFeed(folder=str(folder), first_day=DAY))


def test_an_edition_without_any_has_none(edition: Path) -> None:
    found = source(edition).random_exposures()
    assert found.num_rows == 0
    assert found.schema == EXPOSURES


def test_random_rows_of_logs_have_their_time(edition: Path) -> None:
    write(edition / "log_random.parquet", ROW | {"is_rand": 1, "user_id": 2}, ROW | {"is_rand": 0, "user_id": 3})
    assert source(edition).random_exposures().to_pylist() == [
        {"user_id": 2, "video_id": 10, "event_time": MOMENT, "click": 1}
    ]


def test_files_without_a_time_are_read_by_their_name_and_columns(edition: Path) -> None:
    write(edition / "Random_clicks.parquet", CLICK, CLICK | {"video_id": 9, "is_click": 0})
    write(edition / "other_clicks.parquet", CLICK | {"user_id": 7})
    write(edition / "random_views.parquet", {"user_id": 1, "video_id": 10})
    found = source(edition).random_exposures()
    assert found.to_pydict() == {
        "user_id": [1, 1],
        "video_id": [9, 10],
        "event_time": [None, None],
        "click": [0, 1],
    }
    findings = {one.part: one for one in source(edition).check()}
    assert findings["random exposures"].found == "Random_clicks.parquet"
    assert "replay only" in findings["random exposures"].cost
    assert "not read: other_clicks.parquet" in findings
    assert "not read: random_views.parquet" in findings


def test_repeats_count_once_and_broken_rows_not_at_all(edition: Path) -> None:
    broken = [
        CLICK | {"is_click": 2},
        CLICK | {"user_id": None},
        CLICK | {"video_id": None},
        CLICK | {"is_click": None},
    ]
    write(edition / "random.parquet", CLICK, CLICK, *broken)
    assert source(edition).random_exposures().num_rows == 1


def test_a_mixed_file_gives_its_random_rows(edition: Path) -> None:
    write(edition / "random.parquet", CLICK | {"is_rand": 1}, CLICK | {"is_rand": 0, "user_id": 5})
    assert source(edition).random_exposures()["user_id"].to_pylist() == [1]


def test_the_slice_has_its_measured_exposures(test_data: Path) -> None:
    found = source(test_data / "kuairand").random_exposures()
    assert found.num_rows == 466_329
    assert found["event_time"].null_count == found.num_rows
    assert pc.mean(found["click"]).as_py() == pytest.approx(0.2159, abs=0.0001)
    # Fewer videos than the edition has: the pool of replay is what was shown at random, not every video.
    counts = np.unique(found["video_id"].to_numpy(), return_counts=True)[1]
    assert len(counts) == 5_054
    user = found["user_id"].to_numpy()
    assert (np.diff(user) >= 0).all()
