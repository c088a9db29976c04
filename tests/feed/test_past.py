"""What is known from before a feed's first day: sums by hand, and nothing that the feed's days would leak into."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config import KuaiRandFeed
from components.feature_list import PRIOR_STRENGTH, feature_list
from components.feed.canonical import clean
from components.feed.kuairand import KuaiRandSource
from components.feed.past import joined, past
from components.feed.schema import PAST
from components.feed.source import features_of

FIRST = date(2022, 4, 28)


def history(**changes: object) -> pa.Table:
    columns = {
        "user_id": [1, 2, 3],
        "impressions": [9, 3, 0],
        "watched": [[10, 10, 11], [10, 12], None],
        "long_viewed": [[10], [12], [99]],
        "liked": [[], [10], None],
    }
    lists = pa.list_(pa.int64())
    types = [pa.int64(), pa.int64(), lists, lists, lists]
    data = columns | changes
    return pa.table({name: pa.array(values, kind) for (name, values), kind in zip(data.items(), types, strict=True)})


def rate(hits: int, watched: int, mean: float) -> float:
    return (hits + PRIOR_STRENGTH * mean) / (watched + PRIOR_STRENGTH)


def test_counts_and_rates_by_user_and_by_video() -> None:
    users, videos = past(history())
    # Five watched entries in all: video 10 twice by user 1 and once by user 2, 11 and 12 once.
    long, like = 3 / 5, 1 / 5
    assert users["user_id"].to_pylist() == [1, 2, 3]
    assert users["past_impressions"].to_pylist() == [9, 3, 0]
    assert users["past_long_view_rate"].to_pylist() == pytest.approx([rate(2, 3, long), rate(1, 2, long), long])
    assert users["past_like_rate"].to_pylist() == pytest.approx([rate(0, 3, like), rate(1, 2, like), like])
    assert videos["video_id"].to_pylist() == [10, 11, 12]
    assert videos["past_impressions"].to_pylist() == [3, 1, 1]
    assert videos["past_long_view_rate"].to_pylist() == pytest.approx(
        [rate(2, 3, long), rate(0, 1, long), rate(1, 1, long)]
    )
    assert videos["past_like_rate"].to_pylist() == pytest.approx([rate(1, 3, like), rate(0, 1, like), rate(0, 1, like)])


def test_empty_histories_say_nothing() -> None:
    users, videos = past(history(watched=[None, [], None], long_viewed=[None] * 3, liked=[None] * 3))
    assert users["past_long_view_rate"].to_pylist() == [0.0, 0.0, 0.0]
    assert videos.num_rows == 0


def test_who_has_no_history_is_null() -> None:
    found = joined(pa.table({"video_id": [12, 77]}), past(history())[1])
    assert found["past_impressions"].to_pylist() == [1.0, None]
    assert found.schema.field("past_like_rate").type == PAST["past_like_rate"]


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    stamp = int((datetime(2022, 4, 28, 9, tzinfo=UTC)).timestamp() * 1_000)
    log = {"user_id": [1], "video_id": [10], "time_ms": [stamp], "play_time_ms": [4_000], "duration_ms": [5_000]}
    pq.write_table(pa.table(log | {"tab": [1]}), tmp_path / "log.parquet")
    pq.write_table(pa.table({"user_id": [1, 4], "register_days": [20, 30]}), tmp_path / "users.parquet")
    videos = {"video_id": [10, 55], "author_id": [7, 7], "upload_dt": ["2022-04-10"] * 2, "tag": ["1", "2"]}
    pq.write_table(pa.table(videos | {"video_duration": [5_000.0, 6_000.0]}), tmp_path / "videos.parquet")
    return tmp_path


def write_history(folder: Path, last: datetime) -> None:
    lists = pa.list_(pa.int64())
    columns = {
        "user_id": pa.array([1, 2]),
        "history_len": pa.array([80, 1]),
        "last_time_ms": pa.array([0, int(last.timestamp() * 1_000)]),
        "watch_seq": pa.array([[10, 11], [10]], lists),
        "like_seq": pa.array([[], [10]], lists),
        "long_watch_seq": pa.array([[10], []], lists),
    }
    pq.write_table(pa.table(columns), folder / "history.parquet")


def source(folder: Path) -> KuaiRandSource:
    feed = KuaiRandFeed(kind="kuairand", folder=str(folder), first_day=FIRST, last_day=date(2022, 5, 4))
    return KuaiRandSource(feed)


def test_a_history_that_ends_before_the_day_reaches_users_and_videos(edition: Path) -> None:
    # Local midnight of the first day in Shanghai, less a millisecond.
    write_history(edition, datetime(2022, 4, 27, 16, tzinfo=UTC) - timedelta(milliseconds=1))
    reader = source(edition)
    assert reader.has_past
    assert {f.part: f.found for f in reader.check()}["users.past"] == "history.parquet"
    day = clean(reader.read_day(FIRST), reader.feed, FIRST)
    assert day.users["past_impressions"].to_pylist() == [80.0, None]
    assert day.videos["past_impressions"].to_pylist() == [2.0, None]
    assert day.videos["past_like_rate"][0].as_py() == pytest.approx(rate(1, 2, 1 / 3))
    names = {feature.name for feature in features_of(reader.feed)}
    assert {f"{entity}_{name}" for entity in ("user", "video") for name in PAST} <= names


def test_a_day_knows_a_history_only_after_its_last_entry(edition: Path) -> None:
    write_history(edition, datetime(2022, 4, 27, 16, tzinfo=UTC))
    reader = source(edition)
    assert reader.has_past
    assert reader.read_day(FIRST).users["past_impressions"].to_pylist() == [None, None]
    assert reader.read_day(FIRST + timedelta(days=1)).users["past_impressions"].to_pylist() == [80.0, None]
    assert reader.read_day(FIRST).videos["past_like_rate"].null_count == 2


def test_a_history_that_no_day_may_know_is_left_alone(edition: Path) -> None:
    # Local midnight of the last day.
    write_history(edition, datetime(2022, 5, 3, 16, tzinfo=UTC))
    reader = source(edition)
    assert not reader.has_past
    left = {f.part: f.cost for f in reader.check()}
    assert left["not read: history.parquet"] == "it reaches beyond the day before the feed's last, 2022-05-04"
    assert not set(PAST) & set(reader.read_day(FIRST).users.column_names)
    assert features_of(reader.feed) == feature_list(())


def test_the_slice_has_a_history_that_ends_before_25_april(test_data: Path) -> None:
    folder = test_data / "kuairand"
    feed = KuaiRandFeed(kind="kuairand", folder=str(folder), first_day=date(2022, 4, 24), last_day=date(2022, 5, 4))
    reader = KuaiRandSource(feed)
    assert reader.has_past
    missing = [reader.read_day(date(2022, 4, day)).users["past_impressions"].null_count for day in (24, 25)]
    assert missing[0] == 27_285
    assert missing[1] < 1_000
