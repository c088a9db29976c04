import csv
import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.config import FilesFeed, TableMapping
from components.errors import EmptyDayError, SourceError
from components.feed.canonical import CleanDay, clean, stable_ids
from components.feed.files import FilesSource

DAY = date(2024, 3, 5)
NOON = datetime(2024, 3, 5, 12, tzinfo=UTC)
COLUMNS = {"user_id": "uid", "video_id": "clip", "event_time": "at", "watch_ms": "seen", "duration_ms": "length"}


def write_csv(path: Path, header: str, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("\n".join([header, *lines]) + "\n")


def write_parquet(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def feed_of(folder: Path, log: TableMapping, **more: Any) -> FilesFeed:
    return FilesFeed(folder=str(folder), first_day=more.pop("first_day", date(2024, 3, 1)), log=log, **more)


def read(feed: FilesFeed, day: date = DAY) -> CleanDay:
    return clean(FilesSource(feed).read_day(day), feed, day)


def id_of(text: str) -> int:
    return int(stable_ids(pa.array([text]))[0].as_py())


@pytest.fixture
def csv_feed(tmp_path: Path) -> FilesFeed:
    """Texts as ids, ISO times, seconds, yes/no: one CSV over several days, with users and videos."""
    write_csv(
        tmp_path / "logs" / "plays.csv",
        "uid,clip,at,seen,length,liked,opened,page",
        "ann,c-1,2024-03-05T00:00:00+01:00,4.5,9,yes,1,home",
        'bob,c-1,2024-03-05 12:00:00,9,9,no,0,"search, best"',
        "bob,c-2,2024-03-05T12:00:05Z,1.25,9,,true,home",
        "bob,c-2,2024-03-05T23:59:59.999999+00:00,2,9,true,false,",
        "ann,c-2,2024-03-06T00:00:00Z,2,9,no,0,home",
    )
    write_csv(tmp_path / "users.csv", "who,since,city", "ann,2024-02-01,Oslo", "bob,2024-02-01T10:00:00Z,", "cy,,Rome")
    write_csv(tmp_path / "clips.csv.gz", "id,up,maker,theme,len", "c-1,2024-03-01,m1,cats,9", "c-2,2024-03-06,m2,,9.5")
    return feed_of(
        tmp_path,
        TableMapping(
            path="logs/*.csv",
            columns=COLUMNS | {"like": "liked", "click": "opened", "surface": "page"},
            time_unit="iso",
            duration_unit="s",
        ),
        users=TableMapping(
            path="users.csv",
            columns={"user_id": "who", "registered_at": "since"},
            time_unit="iso",
            attributes=("city",),
        ),
        videos=TableMapping(
            path="clips.csv.gz",
            columns={
                "video_id": "id",
                "uploaded_at": "up",
                "creator_id": "maker",
                "topic": "theme",
                "duration_ms": "len",
            },
            time_unit="iso",
            duration_unit="s",
        ),
    )


def test_csv_with_other_names_text_ids_and_seconds(csv_feed: FilesFeed) -> None:
    day = read(csv_feed)
    by_time = day.log.sort_by("event_time").to_pylist()
    # The first row's offset puts it on the 4th; the last one is on the 6th.
    assert [row["user_id"] for row in by_time] == [id_of("bob")] * 3
    assert [row["video_id"] for row in by_time] == [id_of("c-1"), id_of("c-2"), id_of("c-2")]
    assert [row["watch_ms"] for row in by_time] == [9_000, 1_250, 2_000]
    assert [row["like"] for row in by_time] == [0, None, 1]
    assert [row["click"] for row in by_time] == [0, 1, 0]
    assert [row["surface"] for row in by_time] == ["search, best", "home", None]
    assert by_time[0]["event_time"] == NOON
    assert by_time[0]["creator_id"] == id_of("m1")
    assert day.counts == {}


def test_offsets_are_honoured(csv_feed: FilesFeed) -> None:
    row = read(csv_feed, date(2024, 3, 4)).log.to_pylist()[0]
    assert row["event_time"] == datetime(2024, 3, 4, 23, tzinfo=UTC)


def test_the_feeds_zone_cuts_the_day_and_dates_are_local_midnights(csv_feed: FilesFeed) -> None:
    oslo = csv_feed.model_copy(update={"timezone": "Europe/Oslo"})
    day = read(oslo)
    assert day.log.num_rows == 3
    users = {row["user_id"]: row for row in day.users.to_pylist()}
    assert users[id_of("ann")]["registered_at"] == datetime(2024, 1, 31, 23, tzinfo=UTC)
    assert users[id_of("bob")]["registered_at"] == datetime(2024, 2, 1, 10, tzinfo=UTC)
    assert users[id_of("cy")]["registered_at"] is None
    assert [users[id_of(name)]["attr_city"] for name in ("ann", "bob", "cy")] == ["Oslo", None, "Rome"]


def test_videos_of_tomorrow_are_not_known_today(csv_feed: FilesFeed) -> None:
    videos = read(csv_feed).videos.to_pylist()
    assert [(row["video_id"], row["topic"], row["duration_ms"]) for row in videos] == [(id_of("c-1"), "cats", 9_000)]


def parquet_day(folder: Path, day: date, users: list[int], **more: Any) -> None:
    n = len(users)
    start = datetime(day.year, day.month, day.day, 10, tzinfo=UTC)
    columns = {
        "uid": pa.array(users, pa.int32()),
        "clip": pa.array([7] * n, pa.uint32()),
        "at": [int((start + timedelta(seconds=i)).timestamp()) for i in range(n)],
        "seen": pa.array([1_000] * n, pa.int32()),
        "length": pa.array([2_000] * n, pa.int32()),
    }
    write_parquet(folder / f"day={day}" / "part-0.parquet", **(columns | more))


@pytest.fixture
def parquet_feed(tmp_path: Path) -> FilesFeed:
    """One folder per day, integer ids, seconds since 1970; two files on the 5th."""
    parquet_day(tmp_path, DAY, [1, 2], win=[True, None], uniform=[1, 0], p=[0.5, None])
    more = tmp_path / f"day={DAY}" / "part-1.parquet"
    pq.write_table(pq.read_table(tmp_path / f"day={DAY}" / "part-0.parquet", partitioning=None).slice(0, 1), more)
    parquet_day(tmp_path, date(2024, 3, 6), [3], win=[False], uniform=[0], p=[0.1])
    mapping = TableMapping(
        path="day={day}/*.parquet",
        columns=COLUMNS | {"like": "win", "is_random": "uniform", "propensity": "p"},
        time_unit="s",
    )
    return feed_of(tmp_path, mapping, first_day=DAY)


def test_parquet_day_folders(parquet_feed: FilesFeed) -> None:
    day = read(parquet_feed)
    assert day.counts == {"duplicate": 1}
    rows = day.log.select(["user_id", "video_id", "like", "is_random", "propensity"]).to_pylist()
    assert [list(row.values()) for row in rows] == [[1, 7, 1, True, 0.5], [2, 7, None, False, None]]
    assert read(parquet_feed, date(2024, 3, 6)).log.column("user_id").to_pylist() == [3]


def test_rows_of_another_day_in_a_days_folder_are_refused(parquet_feed: FilesFeed) -> None:
    parquet_day(Path(parquet_feed.folder), date(2024, 3, 7), [1, 2], win=[None] * 2, uniform=[0] * 2, p=[None] * 2)
    Path(parquet_feed.folder, "day=2024-03-07").rename(Path(parquet_feed.folder, "day=2024-03-08"))
    with pytest.raises(EmptyDayError, match="outside_day 2"):
        read(parquet_feed, date(2024, 3, 8))


def test_a_day_without_its_folder_is_empty(parquet_feed: FilesFeed) -> None:
    with pytest.raises(EmptyDayError, match="day=2024-03-09"):
        read(parquet_feed, date(2024, 3, 9))


def test_compact_days_in_paths(tmp_path: Path) -> None:
    write_csv(tmp_path / "log_20240305.csv", "uid,clip,at,seen,length", f"1,2,{int(NOON.timestamp() * 1e6)},1,2")
    feed = feed_of(tmp_path, TableMapping(path="log_{day_compact}.csv", columns=COLUMNS, time_unit="us"))
    assert read(feed).log.column("event_time").to_pylist() == [NOON]


def test_without_users_and_videos_those_of_the_log_stand_in(parquet_feed: FilesFeed) -> None:
    day = read(parquet_feed)
    assert day.users.to_pylist() == [{"user_id": 1, "registered_at": None}, {"user_id": 2, "registered_at": None}]
    assert day.videos.to_pylist() == [
        {"video_id": 7, "uploaded_at": None, "creator_id": None, "topic": None, "duration_ms": 2_000}
    ]
    assert day.notes == ()


@pytest.mark.parametrize(
    ("stamps", "unit"),
    [
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us")), "timestamp"),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")), "timestamp"),
        (pa.array([NOON], pa.timestamp("ms", tz="Asia/Tokyo")), "timestamp"),
        (pa.array(["2024-03-05T21:00:00+09:00"]), "timestamp"),
        (pa.array(["2024-03-05 12:00:00"]), "iso"),
        (pa.array([NOON.timestamp()]), "s"),
        (pa.array([int(NOON.timestamp())], pa.int32()), "s"),
        (pa.array([int(NOON.timestamp()) * 1_000]), "ms"),
        (pa.array([str(int(NOON.timestamp()) * 1_000)]), "ms"),
    ],
)
def test_times_of_every_kind(tmp_path: Path, stamps: pa.Array, unit: str) -> None:
    """A time without an offset is UTC, whatever the feed's zone is."""
    write_parquet(tmp_path / "log.parquet", uid=[1], clip=[2], at=stamps, seen=[1], length=[2])
    mapping = TableMapping.model_validate({"path": "log.parquet", "columns": COLUMNS, "time_unit": unit})
    feed = feed_of(tmp_path, mapping, timezone="Asia/Shanghai")
    assert read(feed).log.column("event_time").to_pylist() == [NOON]


def test_times_that_are_none_are_refused_once(tmp_path: Path) -> None:
    times = [int(NOON.timestamp()) * 1_000, None, 2**63 - 1, -(2**62), -5]
    write_parquet(tmp_path / "log.parquet", uid=[1] * 5, clip=[2] * 5, at=times, seen=[1] * 5, length=[2] * 5)
    feed = feed_of(tmp_path, TableMapping(path="log.parquet", columns=COLUMNS, time_unit="ms"), first_day=DAY)
    # Null, and two that no microsecond counter can hold; 1969 is simply another day.
    assert read(feed).counts == {"null_key": 3}
    with pytest.raises(EmptyDayError):
        read(feed, DAY + timedelta(days=1))


def test_cells_that_are_no_numbers(tmp_path: Path) -> None:
    noon = "2024-03-05T12:00:00Z"
    write_csv(
        tmp_path / "log.csv",
        "uid,clip,at,seen,length,liked,p",
        f"1,1,{noon},1,5,1,0.5",
        f"2,1,{noon},much,5,1,0.5",
        f"3,2,{noon},1,unknown,1,0.5",
        f"4,1,{noon},1,5,maybe,0.5",
        f"5,1,{noon},1,5,1,high",
        f"6,1,{noon},-1,5,1,0.5",
        f",1,{noon},1,5,1,0.5",
    )
    columns = COLUMNS | {"like": "liked", "propensity": "p"}
    feed = feed_of(tmp_path, TableMapping(path="log.csv", columns=columns, time_unit="iso"))
    assert read(feed).counts == {
        "null_key": 1,
        "null_watch": 1,
        "negative_watch": 1,
        "no_duration": 1,
        "bad_behaviour": 1,
        "bad_propensity": 1,
    }


def test_a_column_that_is_not_there_is_named_with_those_that_are(parquet_feed: FilesFeed) -> None:
    columns = parquet_feed.log.columns | {"share": "shared"}
    feed = parquet_feed.model_copy(update={"log": parquet_feed.log.model_copy(update={"columns": columns})})
    for attempt in (lambda: read(feed), FilesSource(feed).check):
        with pytest.raises(SourceError, match=r"part-0\.parquet has no column 'shared'.*'uid', 'clip'"):
            attempt()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": COLUMNS | {"mood": "m"}}, r"does not know: \['mood'\]"),
        ({"columns": {"user_id": "uid"}}, r"must map \['video_id', 'event_time', 'watch_ms'\]"),
        ({"time_unit": "timestamp"}, "use 's', 'ms' or 'us'"),
        ({"path": "nothing.parquet"}, r"no file 'nothing\.parquet'"),
        ({"path": "/etc/log.parquet"}, "not a path below"),
        ({"path": "notes.txt"}, r"notes\.txt is none of"),
        ({"path": "broken.parquet"}, r"broken\.parquet can not be read"),
        ({"attributes": ("uid",)}, "only users have attributes"),
    ],
)
def test_a_mapping_that_does_not_fit_is_an_error(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_parquet(tmp_path / "log.parquet", uid=[1], clip=[2], at=[3], seen=[1], length=[2])
    (tmp_path / "notes.txt").write_text("prose")
    (tmp_path / "broken.parquet").write_bytes((tmp_path / "log.parquet").read_bytes()[:200])
    mapping = {"path": "log.parquet", "columns": COLUMNS, "time_unit": "s"} | change
    with pytest.raises(SourceError, match=message):
        read(feed_of(tmp_path, TableMapping.model_validate(mapping)))


@pytest.mark.parametrize(
    ("stamps", "unit", "message"),
    [
        (pa.array([NOON], pa.timestamp("us", tz="UTC")), "ms", "use 'timestamp'"),
        (pa.array([DAY]), "timestamp", "an exposure needs its time"),
    ],
)
def test_a_time_of_another_kind_is_an_error(tmp_path: Path, stamps: pa.Array, unit: str, message: str) -> None:
    write_parquet(tmp_path / "log.parquet", uid=[1], clip=[2], at=stamps, seen=[1], length=[2])
    mapping = TableMapping.model_validate({"path": "log.parquet", "columns": COLUMNS, "time_unit": unit})
    with pytest.raises(SourceError, match=message):
        read(feed_of(tmp_path, mapping))


def test_fractions_as_ids_are_an_error_that_names_the_column(tmp_path: Path) -> None:
    write_parquet(tmp_path / "log.parquet", uid=[1.5], clip=[2], at=[NOON], seen=[1], length=[2])
    with pytest.raises(SourceError, match=r"log\.parquet, user_id"):
        read(feed_of(tmp_path, TableMapping(path="log.parquet", columns=COLUMNS)))


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not there"):
        read(feed_of(tmp_path / "nowhere", TableMapping(path="*.csv", columns=COLUMNS)))


def test_ids_agree_between_text_and_numbers(tmp_path: Path) -> None:
    """A CSV has texts, a Parquet file numbers: one feed may mix them."""
    write_parquet(tmp_path / "log.parquet", uid=[17], clip=["42"], at=[NOON], seen=[1], length=[2])
    write_csv(tmp_path / "users.csv", "uid,plan", "17,gold", "18,free")
    users = TableMapping(path="users.csv", columns={"user_id": "uid"}, attributes=("plan",))
    day = read(feed_of(tmp_path, TableMapping(path="log.parquet", columns=COLUMNS), users=users))
    assert day.log.column("user_id").to_pylist() == [17]
    assert day.log.column("video_id").to_pylist() == [42]
    assert day.users.column("attr_plan").to_pylist() == ["gold", "free"]
    assert FilesSource(feed_of(tmp_path, TableMapping(path="x", columns=COLUMNS), users=users)).user_attributes == (
        "plan",
    )


def test_attributes_of_columns_with_gaps_lose_the_point(tmp_path: Path) -> None:
    write_parquet(tmp_path / "log.parquet", uid=[1], clip=[2], at=[NOON], seen=[1], length=[2])
    write_parquet(tmp_path / "users.parquet", uid=[1, 2, 3], level=[3.0, None, 2.5])
    users = TableMapping(path="users.parquet", columns={"user_id": "uid"}, attributes=("level",))
    day = read(feed_of(tmp_path, TableMapping(path="log.parquet", columns=COLUMNS), users=users))
    assert day.users.column("attr_level").to_pylist() == ["3", None, "2.5"]


def requests_feed(folder: Path, path: str, **columns: str) -> FilesFeed:
    write_parquet(folder / "log.parquet", uid=[1], clip=[2], at=[NOON], seen=[1], length=[2], sid=["s1"])
    write_parquet(
        folder / f"sets-{DAY}.parquet",
        sid=["s1", "s2"],
        n=[0, 0],
        shown=[["a", "b"], ["c"]],
        prob=[[0.25, 0.75], [1.0]],
    )
    mapping = {"session_id": "sid", "slot": "n", "candidates": "shown", "probabilities": "prob"}
    log = TableMapping(path="log.parquet", columns=COLUMNS | columns)
    return feed_of(folder, log, requests=TableMapping(path=path, columns=mapping))


@pytest.mark.parametrize(("path", "sessions"), [("sets-{day}.parquet", ["s1", "s2"]), ("sets-*.parquet", ["s1"])])
def test_requests_come_by_day_or_by_the_days_sessions(tmp_path: Path, path: str, sessions: list[str]) -> None:
    day = read(requests_feed(tmp_path, path, session_id="sid"))
    assert day.requests is not None
    found = {row["session_id"]: row for row in day.requests.to_pylist()}
    assert set(found) == {id_of(text) for text in sessions}
    assert found[id_of("s1")]["candidates"] == [id_of("a"), id_of("b")]
    assert found[id_of("s1")]["probabilities"] == [0.25, 0.75]
    assert found[id_of("s1")]["scores"] is None
    assert day.log.column("session_id").to_pylist() == [id_of("s1")]


def test_requests_without_sessions_in_the_log_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="session_id"):
        read(requests_feed(tmp_path, "sets-{day}.parquet"))


def test_requests_need_lists(tmp_path: Path) -> None:
    feed = requests_feed(tmp_path, "sets.csv", session_id="sid")
    with (tmp_path / "sets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sid", "n", "shown", "prob"], ["s1", 0, "[1, 2]", "[0.5, 0.5]"]])
    with pytest.raises(SourceError, match="only Parquet"):
        read(feed)


def test_check_says_what_was_found_and_what_absence_costs(csv_feed: FilesFeed) -> None:
    findings = {finding.part: finding for finding in FilesSource(csv_feed).check()}
    assert findings["log.like"].found == "liked (VARCHAR) in plays.csv"
    assert findings["users.attributes"].found == "city"
    assert findings["videos.topic"].cost == ""
    assert findings["log.follow"].cost == "the task 'follow' can not be trained"
    assert "off-policy" in findings["log.propensity"].cost
    assert "replay" in findings["log.is_random"].cost
    assert "requests.scores" not in findings


def test_check_of_a_bare_log(tmp_path: Path) -> None:
    naive = pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us"))
    write_parquet(tmp_path / "log.parquet", uid=[1], clip=[2], at=naive, seen=[1], length=[2])
    findings = {
        f.part: f for f in FilesSource(feed_of(tmp_path, TableMapping(path="*.parquet", columns=COLUMNS))).check()
    }
    assert findings["log.event_time"].found == "at (TIMESTAMP, read as UTC) in log.parquet"
    assert "no new users" in findings["users"].cost
    assert "sampled" in findings["requests"].cost
    assert "users.registered_at" not in findings
