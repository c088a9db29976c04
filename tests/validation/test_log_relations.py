"""What a day's tables say of each other, on rows that can be counted by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

from components.feed import schema
from components.feed.schema import TIME
from components.validation.log_relations import (
    known_samples,
    relation_histograms,
    relation_measures,
    relation_ratios,
    request_measures,
)
from components.validation.ratios import measured
from components.validation.scan import scan

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
START_US = int(MIDNIGHT.timestamp()) * 1_000_000
END_US = START_US + 24 * 3_600_000_000


def at(minutes: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=minutes)


# user, session, position, video, creator, minute, propensity
ROWS: list[tuple[int, int, int, int, int | None, float, float | None]] = [
    (1, 10, 0, 100, 7, 60, 0.5),
    (1, 10, 1, 101, 7, 70, 0.5),
    (1, 10, 2, 100, 7, 120, 0.5),
    (2, 20, 0, 102, None, 30, 0.25),
    (2, 20, 1, 100, 7, 35, None),
]
LOG = pa.table(
    {
        name: pa.array(values, kind)
        for name, values, kind in zip(
            ("user_id", "session_id", "position", "video_id", "creator_id", "event_time", "propensity"),
            zip(*((*row[:5], at(row[5]), row[6]) for row in ROWS), strict=True),
            (*[pa.int64()] * 5, TIME, pa.float64()),
            strict=True,
        )
    }
)
# Registered long ago, twelve days ago and twice today; the last was not seen.
USERS = pa.table(
    {
        "user_id": pa.array([1, 2, 3, 4], pa.int64()),
        "registered_at": pa.array([at(-9e5), at(-12 * 1440), at(20), at(0)], TIME),
        "attr_country": pa.array(["de", "br", None, "de"]),
    }
)
VIDEOS = pa.table(
    {
        "video_id": pa.array([100, 101, 102], pa.int64()),
        "uploaded_at": pa.array([at(-1440), at(-2880), at(5)], TIME),
    }
)


@pytest.fixture
def day() -> Iterator[duckdb.DuckDBPyConnection]:
    requests = pa.table(
        {
            "session_id": pa.array([10, 10, 10, 20], pa.int64()),
            "slot": pa.array([0, 1, 2, 1], pa.int64()),
            # The second did not offer what was shown, the third says another propensity, the fourth exposure has none.
            "candidates": pa.array([[100, 101], [100, 102], [101, 100], [100, 102]], pa.list_(pa.int64())),
            "probabilities": pa.array([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4], [0.9, 0.1]], pa.list_(pa.float64())),
        }
    )
    with scan({"log": LOG, "users": USERS, "videos": VIDEOS, "requests": requests}) as connection:
        yield connection


def test_exposures_are_held_to_their_requests(day: duckdb.DuckDBPyConnection) -> None:
    found = request_measures(day)
    assert found["unrequested_share"].value == pytest.approx(1 / 5)
    assert found["no_candidate_share"].value == pytest.approx(1 / 5)
    # Of the exposures with both propensities, the first and the third, the third differs.
    assert found["other_propensity_share"].value == pytest.approx(1 / 2)
    assert {one.rows for one in found.values()} == {5.0, 2.0}


def test_numbers_of_users_sessions_and_videos(day: duckdb.DuckDBPyConnection) -> None:
    found = relation_measures(day, START_US, END_US, gap_min=30, new_days=14)
    # Pauses within sessions are 10, 50 and 5 minutes.
    assert found["paused_session_share"].value == pytest.approx(1 / 3)
    assert found["busiest_video_share"].value == pytest.approx(3 / 5)
    assert found["busiest_creator_share"].value == 1.0, "rows without a creator are none of a creator's"
    assert found["users_registered_today_share"].value == pytest.approx(2 / 4)
    assert found["videos_uploaded_today_share"].value == pytest.approx(1 / 3)
    assert found["seen_share[registered today]"].value == 0.0
    assert found["seen_share[new]"].value == pytest.approx(1 / 3)
    assert found["seen_share[known]"].value == 1.0
    assert found["users_old_days"].value == pytest.approx(9e5 / 1440 + 1)


def test_rows_are_counted_by_their_users_attributes(day: duckdb.DuckDBPyConnection) -> None:
    relation_measures(day, START_US, END_US, gap_min=30, new_days=14)
    ((name, histogram),) = relation_histograms(day, USERS.schema, 2)
    assert (name, histogram.counts, histogram.units) == ("log_attr_country", {"br": 2, "de": 3}, 2)


def test_one_changed_fact_is_another_row_of_a_sample() -> None:
    def sample(country: str) -> set[int]:
        users = USERS.set_column(2, "attr_country", pa.array([country, "br", None, "de"]))
        videos = schema.VIDEOS.empty_table()
        with scan({"users": users, "videos": videos}) as connection:
            return set(known_samples(connection, users.schema)["known_users"])

    before, same, other = sample("de"), sample("de"), sample("fr")
    assert before == same
    assert len(before & other) == len(before) - 1


def test_labels_are_held_to_watching() -> None:
    # finish, watch_ms, duration_ms, at_us, click, skip, long_view
    rows = [
        (1, 9_000, 9_000, 60_000_000, 1, 0, 1),
        (0, 9_000, 9_000, 1, 0, 1, 0),
        (0, 40_000, 90_000, 2, 1, 0, 1),
        (0, 0, 9_000, 3, 0, 1, 0),
    ]
    names = ("finish", "watch_ms", "duration_ms", "at_us", "click", "skip", "long_view")
    table = pa.table({"user_id": [1, 2, 3, 4]} | dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    with scan({"joined": table}) as connection:
        found = measured(connection, "joined", "user_id", list(relation_ratios()))
    assert found["unfinished_share"].value == pytest.approx(1 / 3), "of what was watched at all"
    assert found["whole_minute_share"].value == pytest.approx(1 / 4)
    assert {band: found[f"long_view_rate[{band}]"].value for band in ("finished", "brief", "lasting")} == {
        "finished": 1.0,
        "brief": 0.0,
        "lasting": 1.0,
    }
    assert found["skip_rate[brief]"].value == 1.0
