"""The lake's promises, on a local folder and on an S3 endpoint by the same tests."""

import json
import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.config import Settings
from components.errors import LakeError, MissingPartitionError
from components.lake import MANIFEST, RUN_RECORD, Lake
from tests.servers import S3_KEY, s3

DAY = date(2022, 4, 28)
NEXT = date(2022, 4, 29)
KEY = S3_KEY


@pytest.fixture(scope="session")
def s3_endpoint(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server with an empty bucket ``lake``."""
    with s3(free_port(), tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def s3_settings(s3_endpoint: str) -> Settings:
    return Settings(
        lake=f"s3://lake/{uuid4().hex}", lake_endpoint=s3_endpoint, lake_access_key=KEY, lake_secret_key=KEY
    )


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def settings(request: pytest.FixtureRequest) -> Settings:
    return Settings() if request.param == "folder" else request.getfixturevalue("s3_settings")


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake.open(settings)


def rows(count: int, start: int = 0) -> pa.Table:
    numbers = range(start, start + count)
    return pa.table({"user_id": pa.array(numbers, pa.int64()), "name": [f"u{number}" for number in numbers]})


def put(lake: Lake, table: pa.Table, day: date = DAY, dataset: str = "log") -> str:
    with lake.write(dataset, day) as writer:
        writer.table(table)
    return lake.get(dataset, day).content_hash


def files(lake: Lake) -> list[str]:
    return (
        sorted(str(path).removeprefix(lake.root) for path in lake.fs.find(lake.root))
        if lake.fs.exists(lake.root)
        else []
    )


def test_a_partition_comes_back_as_it_was_written(lake: Lake) -> None:
    with lake.write("log", DAY, config_hash="abc", inputs={"b/2022-04-27": "2", "a/2022-04-27": "1"}) as writer:
        writer.table(rows(1_000))
        writer.table(rows(3), "users")
        writer.json("note.json", {"b": 1, "a": [1.5, None]})
        writer.text("page.html", "<p>für alle</p>")
        writer.bytes("weights", b"\x00\x01")
        writer.facts["refused"] = 7
    partition = lake.get("log", DAY)
    assert partition.table() == rows(1_000)
    assert partition.table(columns=["name"]).column_names == ["name"]
    assert partition.table("users").num_rows == 3
    assert partition.json("note.json") == {"a": [1.5, None], "b": 1}
    assert partition.bytes("page.html").decode() == "<p>für alle</p>"
    assert partition.bytes("weights") == b"\x00\x01"
    assert partition.has("note.json")
    assert not partition.has("note")
    manifest = partition.manifest
    assert (partition.rows, manifest.facts, manifest.config_hash) == (1_003, {"refused": 7}, "abc")
    assert list(manifest.inputs) == ["a/2022-04-27", "b/2022-04-27"]
    assert [entry.name for entry in manifest.files] == sorted(entry.name for entry in manifest.files)
    assert "user_id: int64" in str(next(entry for entry in manifest.files if entry.name == "part-0.parquet").schema)


def test_an_empty_table_is_a_partition(lake: Lake) -> None:
    put(lake, rows(0))
    assert lake.get("log", DAY).table().schema == rows(0).schema


def test_a_missing_partition_says_what_to_do(lake: Lake) -> None:
    assert lake.find("log", DAY) is None
    with pytest.raises(MissingPartitionError, match=r"no partition of 'log' for 2022-04-28 .*mfh run --from"):
        lake.get("log", DAY)
    with pytest.raises(MissingPartitionError):
        lake.dataset("log", [DAY])
    assert lake.days("log") == []


def test_what_has_no_manifest_does_not_exist(lake: Lake) -> None:
    put(lake, rows(5))
    put(lake, rows(5), NEXT)
    # As after a writer that was killed between its data and its manifest.
    lake.fs.rm_file(lake.path("log", f"ds={DAY}", MANIFEST))
    assert lake.find("log", DAY) is None
    assert lake.days("log") == [NEXT]
    put(lake, rows(5))
    assert lake.get("log", DAY).table() == rows(5)


def test_the_manifest_is_written_last(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[str] = []

    def fail(self: Lake, path: str, data: object) -> None:
        replaced.append(path.rsplit("/", maxsplit=1)[-1])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "_replace", fail)
        with pytest.raises(LakeError, match="No space left"):
            put(lake, rows(5))
    assert replaced == [RUN_RECORD]
    assert lake.find("log", DAY) is None
    # The data was in place already; a second writer of the same content takes it over.
    put(lake, rows(5))
    assert lake.get("log", DAY).rows == 5


def test_a_writer_that_fails_leaves_nothing(lake: Lake) -> None:
    def fail() -> None:
        with lake.write("log", DAY) as writer:
            writer.table(rows(5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files(lake) == []


def test_a_writer_that_fails_leaves_the_old_partition(lake: Lake) -> None:
    before = put(lake, rows(5))
    kept = files(lake)
    with pytest.raises(ValueError, match="JSON"), lake.write("log", DAY) as writer:
        writer.table(rows(6))
        writer.json("note.json", {"loss": math.nan})
    assert files(lake) == kept
    assert lake.get("log", DAY).content_hash == before


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_refuses_what_is_no_number(lake: Lake, number: float) -> None:
    with pytest.raises(ValueError, match="JSON"), lake.write("log", DAY) as writer:
        writer.json("note.json", {"loss": number})
    assert lake.find("log", DAY) is None


def test_equal_content_gives_an_equal_hash(lake: Lake) -> None:
    first = put(lake, rows(1_000))
    assert put(lake, rows(1_000)) == first
    assert put(lake, pa.concat_tables([rows(400), rows(600, 400)])) == first, "chunks are not content"
    assert put(lake, rows(1_000), NEXT) == first, "the day is not content"
    assert put(lake, rows(1_000, 1), NEXT) != first


def test_the_order_of_files_is_not_content(lake: Lake) -> None:
    for day, names in ((DAY, ("a", "b")), (NEXT, ("b", "a"))):
        with lake.write("log", day) as writer:
            for name in names:
                writer.text(name, name)
    assert lake.get("log", DAY).content_hash == lake.get("log", NEXT).content_hash


def test_what_differs_between_equal_runs_stands_outside_the_hash(lake: Lake) -> None:
    hashes = set()
    for attempt in (1, 2):
        with lake.write("log", DAY) as writer:
            writer.table(rows(3))
            writer.run["try"] = attempt
        hashes.add(lake.get("log", DAY).content_hash)
        assert json.loads(lake.fs.cat_file(lake.path("log", f"ds={DAY}", RUN_RECORD))) == {"try": attempt}
    assert len(hashes) == 1
    assert not lake.get("log", DAY).has(RUN_RECORD)


def test_a_replaced_partition_can_still_be_read_by_who_holds_it(lake: Lake) -> None:
    put(lake, rows(5))
    held = lake.get("log", DAY)
    put(lake, rows(9))
    assert lake.get("log", DAY).table() == rows(9)
    assert held.table() == rows(5)


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"[]", b'{"version": 1}', b'{"version": 1, "files": [{}]}'])
def test_a_damaged_manifest_is_an_error_that_names_it(lake: Lake, damage: bytes) -> None:
    put(lake, rows(5))
    lake.fs.pipe_file(lake.path("log", f"ds={DAY}", MANIFEST), damage)
    with pytest.raises(LakeError, match=rf"ds={DAY}/{MANIFEST}"):
        lake.find("log", DAY)


def test_a_manifest_of_another_version_is_refused(lake: Lake) -> None:
    put(lake, rows(5))
    lake.fs.pipe_file(lake.path("log", f"ds={DAY}", MANIFEST), b'{"version": 99}')
    with pytest.raises(LakeError, match="version 99"):
        lake.find("log", DAY)


def test_days_are_listed_in_order_and_per_dataset(lake: Lake) -> None:
    for day in (NEXT, date(2021, 12, 31), DAY):
        put(lake, rows(1), day)
    put(lake, rows(1), DAY, "users")
    assert lake.days("log") == [date(2021, 12, 31), DAY, NEXT]
    assert lake.days("users") == [DAY]


def test_a_scan_over_days_filters(lake: Lake) -> None:
    put(lake, rows(100))
    put(lake, rows(100, 100), NEXT)
    scan = lake.dataset("log", [DAY, NEXT])
    assert scan.count_rows() == 200
    found = scan.to_table(columns=["name"], filter=pc.field("user_id") >= 198)
    assert found.column("name").to_pylist() == ["u198", "u199"]


def test_scopes_do_not_see_each_other(lake: Lake) -> None:
    put(lake.scope("a"), rows(1))
    put(lake.scope("b", "c"), rows(2))
    assert lake.scope("a").get("log", DAY).rows == 1
    assert lake.scope("b").scope("c").get("log", DAY).rows == 2
    assert lake.days("log") == []


def test_threads_that_write_one_day_end_with_one_valid_partition(lake: Lake) -> None:
    tables = [rows(200, start) for start in (0, 0, 1, 2, 2, 3)]
    with ThreadPoolExecutor(len(tables)) as pool:
        hashes = list(pool.map(lambda table: _hash_of_write(lake, table), tables))
    partition = lake.get("log", DAY)
    assert partition.content_hash in hashes
    assert partition.table() in tables
    assert lake.days("log") == [DAY]


def _hash_of_write(lake: Lake, table: pa.Table) -> str:
    with lake.write("log", DAY) as writer:
        writer.table(table)
    # Another thread may have replaced it since: any valid partition is right.
    return lake.get("log", DAY).content_hash


def test_processes_that_write_one_day_end_with_one_valid_partition(settings: Settings, lake: Lake) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_often, args=(settings, start)) for start in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert lake.get("log", DAY).table() in [rows(50, start) for start in (0, 1)]
    assert not [name for name in files(lake) if "_staging/" in name or name.endswith(".tmp")]


def _write_often(settings: Settings, start: int) -> None:
    lake = Lake.open(settings)
    for _ in range(10):
        put(lake, rows(50, start))
        # What is read in between is whole as well.
        assert lake.get("log", DAY).table().num_rows == 50


def test_a_lake_below_a_file_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    lake = Lake.open(Settings(lake=str(tmp_path / "file" / "lake")))
    with pytest.raises(LakeError, match=r"'log' for 2022-04-28 could not be written .*mfh doctor"):
        put(lake, rows(1))


def test_a_full_disk_is_a_lake_error_and_changes_nothing(tmp_path: Path) -> None:
    # A file whose size is limited for this process fails the way a full disk does, in the middle of a write.
    lake = Lake(str(tmp_path / "lake"))
    before = put(lake, rows(10))
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_write_with_limit, args=(lake.root,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert lake.get("log", DAY).content_hash == before
    assert [name for name in files(lake) if "_staging" in name] == []


def _write_with_limit(root: str) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))
    with pytest.raises(LakeError, match="nothing was changed"):
        put(Lake(root), rows(100_000))


@pytest.mark.integration
def test_an_s3_lake_that_is_not_there_is_a_lake_error(s3_settings: Settings) -> None:
    lake = Lake.open(s3_settings.model_copy(update={"lake": "s3://no-such-bucket/x"}))
    with pytest.raises(LakeError, match="no-such-bucket"):
        put(lake, rows(1))
