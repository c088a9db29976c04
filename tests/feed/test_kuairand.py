import csv
import gzip
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.config import KuaiRandFeed
from components.days import day_range
from components.errors import EmptyDayError, SourceError
from components.feed.canonical import CleanDay, clean
from components.feed.kuairand import KuaiRandSource, detect_days
from components.feed.source import open_source

DAY = date(2022, 4, 28)
# Shortly after local midnight: still the 27th in UTC.
EARLY = datetime(2022, 4, 27, 16, 5, tzinfo=UTC)

LOG_ROW = {
    "user_id": 1,
    "video_id": 10,
    "date": 20220427,
    "hourmin": 2300,
    "time_ms": int(EARLY.timestamp()) * 1_000 + 7,
    "is_click": 1,
    "is_like": 0,
    "is_follow": 0,
    "is_comment": 1,
    "is_forward": 1,
    "is_hate": 0,
    "long_view": 1,
    "play_time_ms": 4_000,
    "duration_ms": 5_000,
    "profile_stay_time": 0,
    "comment_stay_time": 0,
    "is_profile_enter": 0,
    "is_rand": 0,
    "tab": 1,
}
USER_ROW = {
    "user_id": 1,
    "user_active_degree": "2_14_day_new",
    "is_live_streamer": -124,
    "is_video_author": 1,
    "fans_user_num": 8,
    "register_days": 20,
    "onehot_feat0": 3,
    "onehot_feat4": 2.0,
}
VIDEO_ROW = {
    "video_id": 10,
    "author_id": 77,
    "upload_dt": "2022-04-10",
    "video_duration": 5_000.0,
    "tag": "39,68",
}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def edition(tmp_path: Path) -> Path:
    """A tiny edition in nested CSVs: two users, one video with all and one with no features."""
    data = tmp_path / "KuaiRand-1K" / "data"
    write(data / "log_standard_4_22_to_5_08_1k.csv", LOG_ROW, LOG_ROW | {"user_id": 2})
    write(data / "user_features_1k.csv", USER_ROW, USER_ROW | {"user_id": 2, "register_days": "", "onehot_feat4": ""})
    write(data / "video_features_basic_1k.csv", VIDEO_ROW, {"video_id": 11} | dict.fromkeys(list(VIDEO_ROW)[1:], ""))
    return tmp_path


def source(folder: Path, first_day: date = date(2022, 4, 1)) -> KuaiRandSource:
    return KuaiRandSource(KuaiRandFeed(folder=str(folder), first_day=first_day))


def cleaned(folder: Path, day: date = DAY) -> CleanDay:
    reader = source(folder)
    return clean(reader.read_day(day), reader.feed, day)


def test_a_row_maps_to_the_schema(edition: Path) -> None:
    row = cleaned(edition).log.to_pylist()[0]
    del row["session_id"]
    assert row == {
        "user_id": 1,
        "video_id": 10,
        "creator_id": 77,
        "position": 0,
        "event_time": EARLY + timedelta(milliseconds=7),
        "watch_ms": 4_000,
        "duration_ms": 5_000,
        "click": 1,
        "finish": 0,
        "skip": 0,
        "long_view": 1,
        "like": 0,
        "follow": 0,
        "comment": 1,
        "share": 1,
        "dislike": 0,
        "profile_enter": 0,
        "surface": "1",
        "is_random": False,
        "propensity": None,
    }


def test_time_ms_alone_decides_the_day(edition: Path) -> None:
    """``date`` says the 27th here; the local day of ``time_ms`` is the 28th."""
    assert cleaned(edition).log.num_rows == 2
    assert source(edition).read_day(date(2022, 4, 27)).log.num_rows == 0


def test_tenure_counts_back_from_the_snapshot_day(edition: Path) -> None:
    users = cleaned(edition).users.to_pylist()
    # 8 May - 20 days = 18 April, local midnight: tenure 10 days on 28 April.
    assert users[0]["registered_at"] == datetime(2022, 4, 17, 16, tzinfo=UTC)
    assert users[1]["registered_at"] is None


def test_attributes_are_static_text_and_leak_nothing(edition: Path) -> None:
    reader = source(edition)
    assert reader.user_attributes == ("onehot_feat0", "onehot_feat4", "is_video_author", "is_live_streamer")
    users = cleaned(edition).users
    assert users.column_names == ["user_id", "registered_at", *(f"attr_{name}" for name in reader.user_attributes)]
    assert [list(row.values())[2:] for row in users.to_pylist()] == [
        ["3", "2", "1", "unknown"],
        ["3", None, "1", "unknown"],
    ]


def test_videos_have_the_first_tag_and_the_midnight_of_their_day(edition: Path) -> None:
    assert cleaned(edition).videos.to_pylist() == [
        {
            "video_id": 10,
            "uploaded_at": datetime(2022, 4, 9, 16, tzinfo=UTC),
            "creator_id": 77,
            "topic": "39",
            "duration_ms": 5_000,
        },
        {"video_id": 11, "uploaded_at": None, "creator_id": None, "topic": None, "duration_ms": None},
    ]


def test_a_file_that_is_there_twice_counts_once(edition: Path) -> None:
    write(edition / "again" / "copy.parquet", LOG_ROW, LOG_ROW | {"user_id": 2})
    day = cleaned(edition)
    assert day.log.num_rows == 2
    assert day.counts == {"duplicate": 2}


def test_a_log_may_be_split_by_policy_under_any_name_and_format(edition: Path) -> None:
    write(edition / "x" / "uniform.csv.gz", LOG_ROW | {"user_id": 3, "is_rand": 1})
    write(edition / "x" / "more.parquet", {n: float(v) for n, v in LOG_ROW.items()} | {"user_id": 4, "is_rand": 1})
    log = cleaned(edition).log
    assert log.column("is_random").to_pylist() == [False, False, True, True]
    assert log.column("surface").to_pylist() == ["1"] * 4
    assert {f.part: f.found for f in source(edition).check()}["log.is_random"] == "is_rand"


def test_leaking_and_timeless_files_are_left_alone_and_named(edition: Path) -> None:
    write(edition / "video_features_statistic_1k.csv", {"video_id": 10, "counts": 3, "show_cnt": 9, "tag": 1})
    write(edition / "exposure_clicks.parquet", {"user_id": 1, "video_id": 10, "is_click": 0})
    write(edition / "user_history.parquet", {"user_id": 1, "history_len": 1, "watch_seq": [10]})
    (edition / "README.md").write_text("prose")
    findings = {f.part: f.cost for f in source(edition).check()}
    assert "leakage" in findings["not read: video_features_statistic_1k.csv"]
    assert "without a time" in findings["not read: exposure_clicks.parquet"]
    assert "a history needs last_time_ms, like_seq" in findings["not read: user_history.parquet"]
    assert cleaned(edition).log.num_rows == 2


def test_check_names_what_absence_costs(edition: Path) -> None:
    findings = {f.part: f for f in source(edition).check()}
    assert findings["log.propensity"].found is None
    assert "off-policy" in findings["log.propensity"].cost
    assert "replay" in findings["log.is_random"].cost
    assert "sampled" in findings["requests"].cost
    assert findings["users.registered_at"].found == "register_days"
    assert findings["log.like"].cost == ""


def test_a_row_without_a_time_is_refused_once(edition: Path) -> None:
    write(edition / "more.csv", LOG_ROW | {"time_ms": "", "user_id": 5}, LOG_ROW | {"time_ms": "soon", "user_id": 6})
    reader = source(edition, first_day=DAY)
    assert clean(reader.read_day(DAY), reader.feed, DAY).counts == {"null_key": 2}
    assert reader.read_day(DAY + timedelta(days=1)).log.num_rows == 0


def test_a_cell_that_is_no_behaviour_is_refused(edition: Path) -> None:
    write(
        edition / "more.csv", *(LOG_ROW | {"is_like": cell, "user_id": 5 + i} for i, cell in enumerate(["x", 7, 0.5]))
    )
    assert cleaned(edition).counts == {"bad_behaviour": 3}


def test_a_day_without_rows_is_empty(edition: Path) -> None:
    with pytest.raises(EmptyDayError, match="2022-05-30"):
        cleaned(edition, date(2022, 5, 30))


@pytest.mark.parametrize(("left_out", "message"), [("log", "no log"), ("user", "no user"), ("video", "no basic video")])
def test_a_missing_table_is_an_error(edition: Path, left_out: str, message: str) -> None:
    for path in edition.rglob(f"{left_out}_*.csv"):
        path.unlink()
    with pytest.raises(SourceError, match=message):
        source(edition).read_day(DAY)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        source(tmp_path / "nowhere").read_day(DAY)
    with pytest.raises(SourceError, match="is not there"):
        detect_days(tmp_path / "nowhere")


@pytest.mark.parametrize("column", ["user_id", "video_id", "time_ms", "play_time_ms"])
def test_a_log_that_lacks_a_column_is_an_error_that_names_both(edition: Path, column: str) -> None:
    write(edition / "other.csv", {name: value for name, value in LOG_ROW.items() if name != column})
    with pytest.raises(SourceError, match=rf"other\.csv lacks the column {column}"):
        source(edition).read_day(DAY)


@pytest.mark.parametrize("name", ["cut.parquet", "cut.csv.gz", "cut.csv", "empty.csv"])
def test_a_damaged_file_is_an_error_that_names_it(edition: Path, name: str) -> None:
    path = write(edition / name, *[LOG_ROW | {"user_id": user} for user in range(2_000)])
    whole = path.read_bytes()
    # The cut of the CSV falls into a row: what is left has too few columns.
    path.write_bytes(b"" if name == "empty.csv" else whole[: whole.rindex(b",", 0, len(whole) // 2)])
    with pytest.raises(SourceError, match=name):
        source(edition).read_day(DAY)


def test_detect_days_reads_the_local_days_of_all_logs(edition: Path) -> None:
    later = int(datetime(2022, 5, 1, 15, 59, tzinfo=UTC).timestamp()) * 1_000
    write(edition / "later.parquet", LOG_ROW | {"time_ms": later})
    assert detect_days(edition) == (DAY, date(2022, 5, 1))


def test_the_slice_keeps_its_measured_facts(test_data: Path) -> None:
    folder = test_data / "kuairand"
    first, last = detect_days(folder)
    assert (first, last) == (date(2022, 4, 24), date(2022, 5, 4))
    reader = source(folder)
    refused: Counter[str] = Counter()
    raw, kept = [], []
    for day in day_range(first, last):
        tables = reader.read_day(day)
        result = clean(tables, reader.feed, day)
        refused += Counter(result.counts)
        raw.append(tables.log)
        kept.append(result.log)
        assert result.users.num_rows == 27_285
        assert result.videos.num_rows == 7_583
    delivered = pa.concat_tables(raw)
    rows = delivered.num_rows
    assert rows == 171_671
    # Some repeats differ in nothing but ``date`` and ``hourmin``, which are not read.
    assert refused["duplicate"] / rows == pytest.approx(0.0276, abs=0.0005)
    assert refused["no_duration"] / rows == pytest.approx(0.0125, abs=0.0005)
    assert set(refused) == {"duplicate", "no_duration"}

    positives = {"click": 76_099, "long_view": 53_544, "like": 2_996, "profile_enter": 3_213, "comment": 437}
    positives |= {"follow": 224, "share": 137, "dislike": 144}
    assert {name: pc.sum(delivered.column(name)).as_py() for name in positives} == positives
    watch, length = delivered.column("watch_ms"), delivered.column("duration_ms")
    assert pc.mean(watch).as_py() == pytest.approx(21_434, abs=1)
    assert pc.mean(pc.equal(watch, 0)).as_py() == pytest.approx(0.098, abs=0.001)
    assert pc.mean(pc.greater(watch, length)).as_py() == pytest.approx(0.15, abs=0.001)
    assert pc.mean(pc.equal(length, 0)).as_py() == pytest.approx(0.0154, abs=0.001)

    log = pa.concat_tables(kept)
    assert log.num_rows + refused.total() == rows
    # Zero durations are left only where nothing was watched, and they are null then.
    assert log.filter(pc.is_null(log.column("duration_ms"))).column("watch_ms").unique().to_pylist() == [0]
    sizes = log.group_by("session_id").aggregate([([], "count_all")]).column("count_all")
    # With the repeats in, 84 % of the sessions have one exposure.
    assert pc.mean(sizes).as_py() == pytest.approx(1.2, abs=0.05)
    assert pc.mean(pc.equal(sizes, 1)).as_py() == pytest.approx(0.865, abs=0.005)


def test_the_official_layout_reads_like_the_parquet_files(test_data: Path) -> None:
    """The fixture is 500 users of the same days: its rows are the slice's rows of these users."""
    few, all_users = cleaned(test_data / "kuairand_fixture"), cleaned(test_data / "kuairand")
    users = set(few.users.column("user_id").to_pylist())
    same = all_users.log.filter(pa.array([user in users for user in all_users.log.column("user_id").to_pylist()]))
    assert few.log.equals(same)


def test_open_source_gives_this_source(edition: Path) -> None:
    assert isinstance(open_source(KuaiRandFeed(folder=str(edition), first_day=DAY)), KuaiRandSource)
