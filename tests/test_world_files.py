"""``mfh world`` writes a feed that reads back as the built-in world, in any number of pieces."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components import world_files
from components.cli import app
from components.config import Settings, WorldFeed, find_pipeline, load_pipeline
from components.context import Context
from components.errors import ConfigError, LakeError
from components.feed.canonical import clean
from components.feed.source import open_source
from components.ingest import ingest
from components.world_files import write_world
from simulator.world import World

SMALL = WorldFeed(
    first_day=date(2026, 1, 1), users=300, new_users_per_day=9, videos=200, new_videos_per_day=20, timezone="Asia/Tokyo"
)
SECOND = date(2026, 1, 2)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out: Path = tmp_path_factory.mktemp("world") / "feed"
    facts = write_world(SMALL, 3, out, shards=4, workers=2)
    assert facts.impressions == json.loads((out / "world.json").read_text())["impressions"] > 5_000
    assert facts.bytes == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return out


def rows(out: Path, table: str, day: date) -> pa.Table:
    parts = sorted((out / table / f"day={day}").glob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(part).read() for part in parts])


def test_a_day_of_the_files_is_the_day_of_the_built_in_world(written):
    feed = load_pipeline(written / "pipeline.yaml").feed
    for day in (SMALL.first_day, SECOND, date(2026, 1, 3)):
        ours = clean(open_source(feed).read_day(day), feed, day)
        built_in = clean(World(SMALL).day_tables(day), SMALL, day)
        assert ours.refused.num_rows == 0
        assert ours.notes == ()
        for table in ("log", "users", "videos", "requests"):
            assert getattr(ours, table).equals(getattr(built_in, table)), table


def test_ingest_writes_the_same_partitions(written, tmp_path):
    pipeline = load_pipeline(written / "pipeline.yaml")
    built_in = pipeline.model_copy(update={"feed": SMALL, "name": "built_in"})
    hashes = []
    for one in (pipeline, built_in):
        context = Context(one, Settings(home=tmp_path / one.name))
        ingest(context, SECOND)
        hashes.append([context.data.get(name, SECOND).content_hash for name in ("log", "users", "videos", "requests")])
    assert hashes[0] == hashes[1]


def test_the_pipeline_is_whole_and_every_column_maps(written):
    pipeline = find_pipeline(Settings(), str(written / "pipeline.yaml"))
    assert pipeline.name == "world_files"
    assert pipeline.feed.last_day == date(2026, 1, 3)
    assert pipeline.treatment == "mfh"
    lines = open_source(pipeline.feed).check()
    assert [line.part for line in lines if not line.found or line.cost] == ["users.past"]


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (9, 3), (40, 2)])
def test_shards_and_workers_change_no_row(written, tmp_path, shards, workers):
    out = tmp_path / "again"
    write_world(SMALL, 2, out, shards=shards, workers=workers)
    keys = {"log": ["user_id", "event_time"], "requests": ["session_id", "slot"]}
    for table, key in (*keys.items(), ("users", ["user_id"]), ("videos", ["video_id"])):
        order = [(name, "ascending") for name in key]
        assert rows(out, table, SECOND).sort_by(order).equals(rows(written, table, SECOND).sort_by(order)), table


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty; name another folder"):
        write_world(SMALL, 1, tmp_path)
    with pytest.raises(ConfigError, match="holds no world"):
        write_world(SMALL, 1, tmp_path, force=True)
    assert (tmp_path / "log" / "mine.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="is a file"):
        write_world(SMALL, 1, tmp_path / "log" / "mine.txt")


def test_force_replaces_a_world_and_leaves_other_files(tmp_path):
    write_world(SMALL, 2, tmp_path, shards=3)
    (tmp_path / "notes.txt").write_text("mine")
    write_world(SMALL, 1, tmp_path, shards=2, force=True)
    assert len(list((tmp_path / "log").rglob("*.parquet"))) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_world_that_could_not_be_written_says_so_and_is_not_whole(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world_files, "_write_day", full)
    with pytest.raises(LakeError, match="No space left"):
        write_world(SMALL, 1, tmp_path / "feed", shards=3, workers=2)
    assert json.loads((tmp_path / "feed" / "world.json").read_text())["impressions"] is None
    assert not (tmp_path / "feed" / "pipeline.yaml").exists()


def test_the_command_writes_what_it_is_asked_for(tmp_path):
    out = tmp_path / "feed"
    options = "--users 50 --days 2 --videos 60 --new-users 5 --new-videos 0 --seed 7 --first-day 2025-03-01 --shards 2"
    done = CliRunner().invoke(app, ["world", *options.split(), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "impressions" in done.output
    feed = json.loads((out / "world.json").read_text())["feed"]
    asked = {"users": 50, "videos": 60, "new_users_per_day": 5, "new_videos_per_day": 0, "seed": 7}
    assert asked.items() <= feed.items()
    assert feed["first_day"] == "2025-03-01"
    assert rows(out, "users", date(2025, 3, 2)).num_rows == 60


@pytest.mark.parametrize(
    ("option", "message"),
    [("--first-day=yesterday", "not a date"), ("--timezone=Mars", "unknown time zone"), ("--users=0", "users")],
)
def test_the_command_refuses_what_makes_no_sense(tmp_path, option, message):
    done = CliRunner().invoke(app, ["world", "--users=5", "--days=1", "--out", str(tmp_path / "feed"), option])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
    assert not (tmp_path / "feed").exists()
