"""Bad logs through the command line: one sentence that says what, where and how to mend it, or a quarantine.

Whatever goes wrong, nothing half-written is left in the lake.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import Settings, load_pipeline
from components.context import Context
from components.lake import MANIFEST

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST = date(2024, 3, 1)
DAY = FIRST + timedelta(days=3)
COLUMNS = {"user_id": "uid", "video_id": "clip", "event_time": "at", "watch_ms": "seen", "duration_ms": "length"}
HEADER = "uid,clip,at,seen,length,liked"

Row = tuple[Any, ...]


def rows_of(day: date, users: int = 12, plays: int = 6) -> list[Row]:
    """A day as it should be: each user plays some videos in the morning, some to the end, some not."""
    morning = datetime(day.year, day.month, day.day, 9, tzinfo=UTC)
    return [
        (user, 100 + (user + play) % 9, micros(morning + timedelta(minutes=play, seconds=user)), watched, 9_000, like)
        for user in range(users)
        for play in range(plays)
        for watched, like in [((user * 7 + play * 3) % 10 * 1_100, int((user + play) % 5 == 0))]
    ]


def micros(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


@dataclass
class Feed:
    """A person's logs, one CSV per day, and the ``mfh`` command over them."""

    home: Path
    logs: Path
    mapping: dict[str, Any] = field(default_factory=lambda: {"path": "{day}.csv", "columns": dict(COLUMNS)})
    feed: dict[str, Any] = field(default_factory=dict)

    def write(self, day: date, rows: list[Row]) -> None:
        """One day's file."""
        self.logs.mkdir(parents=True, exist_ok=True)
        lines = [HEADER, *(",".join("" if cell is None else str(cell) for cell in row) for row in rows)]
        (self.logs / f"{day}.csv").write_text("\n".join(lines) + "\n")

    def mfh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as a person would, at a home of its own."""
        feed = {
            "kind": "files",
            "folder": str(self.logs),
            "first_day": FIRST,
            "last_day": DAY,
            "log": self.mapping | {"time_unit": "us"},
        }
        (self.home / "pipelines").mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump({"name": "own", "feed": feed | self.feed} | PIPELINE))
        env = {name: text for name, text in os.environ.items() if not name.startswith("MFH_")}
        env |= {"MFH_HOME": str(self.home), "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200"}
        command = [sys.executable, "-m", "components.cli", *arguments]
        return subprocess.run(
            command, env=env, cwd=self.home.parent, capture_output=True, text=True, check=False, timeout=200
        )

    @property
    def file(self) -> Path:
        """The pipeline file."""
        return self.home / "pipelines" / "own.yaml"

    @property
    def context(self) -> Context:
        """The pipeline, to look into its lake."""
        return Context(load_pipeline(self.file), Settings(home=self.home))

    def half_written(self) -> list[Path]:
        """Day folders without a manifest, and what lies in the staging folder."""
        lake = self.home / "lake"
        days = [path for path in lake.rglob("ds=*") if not (path / MANIFEST).is_file()]
        return days + list(lake.rglob("_staging/*")) + list(lake.rglob(f"{MANIFEST}.*"))

    def datasets(self) -> set[str]:
        """Names of the datasets that hold anything."""
        return {path.parent.parent.name for path in (self.home / "lake").rglob(MANIFEST)}


PIPELINE: dict[str, Any] = {
    "tasks": [{"name": name} for name in ("completion", "finish", "skip", "like")],
    "sizes": {
        "level0_width": 8,
        "level1": {"widths": [8, 8]},
        "deeper": {"kind": "cgc", "widths": [8]},
        "tower_widths": [8],
    },
    "train": {"window_days": 2, "epochs": 1},
    "simulator": {
        "shards": 1,
        "ensemble": 1,
        "epochs": 1,
        "rollouts": 1,
        "fusion": {"completion": 1.0, "like": 0.5, "skip": -0.5},
    },
    "decision": {"min_users": 5},
}


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    feed = Feed(tmp_path / "home", tmp_path / "logs")
    for offset in range(4):
        feed.write(FIRST + timedelta(days=offset), rows_of(FIRST + timedelta(days=offset)))
    feed.mapping["columns"]["like"] = "liked"
    return feed


def refused(feed: Feed, *arguments: str) -> str:
    """The one message of a command that must fail by a named error."""
    done = feed.mfh(*arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert feed.half_written() == []
    # The log may have said it as well, in lines that begin with their time.
    named = [line for line in done.stderr.splitlines() if re.match(r"\w+Error: ", line)]
    assert len(named) == 1, done.stderr
    return done.stderr[done.stderr.index(named[0]) :]


def ingested(feed: Feed) -> tuple[dict[str, Any], list[str]]:
    """Facts of an ingest that must succeed, and the reasons in its quarantine."""
    done = feed.mfh("step", "ingest", "--date", str(DAY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert feed.half_written() == []
    facts: dict[str, Any] = json.loads(done.stdout)["facts"]
    quarantine = feed.context.data.find("quarantine", DAY)
    return facts, [] if quarantine is None else quarantine.table()["reason"].to_pylist()


def ingest_refused(feed: Feed) -> str:
    message = refused(feed, "step", "ingest", "--date", str(DAY))
    assert feed.datasets() == set()
    return message


def test_an_unknown_column_of_theirs_is_named_with_those_that_are_there(feed: Feed) -> None:
    feed.mapping["columns"]["like"] = "heart"
    message = ingest_refused(feed)
    assert message.startswith("SourceError: ")
    assert "heart" in message
    assert f"{DAY}.csv" in message
    assert "liked" in message


def test_an_unknown_column_of_ours_is_named_with_those_that_are_known(feed: Feed) -> None:
    feed.mapping["columns"]["applause"] = "liked"
    message = ingest_refused(feed)
    assert "feed.log.columns" in message
    assert "applause" in message
    assert "long_view" in message


def test_a_missing_file_is_named_with_the_setting_that_asks_for_it(feed: Feed) -> None:
    feed.mapping["path"] = "plays.parquet"
    message = ingest_refused(feed)
    assert message.startswith("SourceError: ")
    assert "plays.parquet" in message
    assert "feed.log.path" in message


@pytest.mark.parametrize("kind", ["no file", "no row", "no usable row"])
def test_an_empty_day_is_an_error_that_names_the_day(feed: Feed, kind: str) -> None:
    if kind == "no file":
        (feed.logs / f"{DAY}.csv").unlink()
    else:
        feed.write(DAY, [] if kind == "no row" else [(None, *row[1:]) for row in rows_of(DAY)])
    message = ingest_refused(feed)
    assert message.startswith("EmptyDayError: ")
    assert str(DAY) in message


def test_an_unknown_kind_of_feed_is_named_with_those_that_there_are(feed: Feed) -> None:
    feed.feed = {"kind": "tape"}
    message = ingest_refused(feed)
    assert message.startswith("ConfigError: ")
    assert "own.yaml" in message
    for kind in ("tape", "world", "kuairand", "files", "python"):
        assert kind in message


def test_a_day_outside_the_feed_is_an_error_that_names_its_ends(feed: Feed) -> None:
    message = refused(feed, "step", "ingest", "--date", "2024-04-01")
    assert message.startswith("OutsideFeedError: ")
    assert str(FIRST) in message
    assert str(DAY) in message


def test_a_window_without_earlier_days_is_an_error_that_says_from_when_on_it_works(feed: Feed) -> None:
    assert feed.mfh("step", "ingest", "--date", str(FIRST)).returncode == 0
    message = refused(feed, "step", "dataset", "--date", str(FIRST))
    assert message.startswith("WindowError: ")
    assert "two days after the feed's first" in message
    assert str(FIRST) in message
    assert "training_set" not in feed.datasets()


def test_a_step_before_its_time_says_which_one_is_missing(feed: Feed) -> None:
    message = refused(feed, "step", "report", "--date", str(DAY))
    assert message.startswith("MissingPartitionError: ")
    assert "'experiment'" in message
    assert "mfh run" in message


def test_repeated_rows_are_kept_once_and_the_rest_is_counted(feed: Feed) -> None:
    rows = rows_of(DAY)
    feed.write(DAY, rows + rows[:5])
    facts, reasons = ingested(feed)
    assert facts["rows"] == len(rows)
    assert facts["refused"] == {"duplicate": 5}
    assert reasons == ["duplicate"] * 5


def test_impossible_times_are_set_aside_and_counted(feed: Feed) -> None:
    rows = rows_of(DAY)
    clip, at, seen, length, like = rows[0][1:]
    bad: list[Row] = [
        (900, clip, -5_000_000, seen, length, like),
        (901, clip, at * 1_000_000, seen, length, like),
        (902, clip, 10**30, seen, length, like),
        (903, clip, micros(datetime(2124, 3, 4, tzinfo=UTC)), seen, length, like),
        (904, clip, at, -1, length, like),
        (905, clip, at, 10**12, length, like),
        (906, 8_001, at, 500, None, like),
        (907, 8_002, at, 500, -3, like),
        (908, clip, at, "soon", length, like),
    ]
    feed.write(DAY, rows + bad)
    facts, reasons = ingested(feed)
    assert facts["rows"] == len(rows)
    assert facts["refused"] == {
        "null_key": reasons.count("null_key"),
        "outside_day": 4 - reasons.count("null_key"),
        "null_watch": 1,
        "negative_watch": 1,
        "absurd_watch": 1,
        "no_duration": 2,
    }
    assert len(reasons) == len(bad) == facts["delivered"] - facts["rows"]


def test_a_day_with_too_many_refused_rows_stops_at_its_validation(feed: Feed) -> None:
    rows = rows_of(DAY)
    feed.write(DAY, rows + [(*row[:3], -1, *row[4:]) for row in rows_of(DAY, users=8)])
    facts, reasons = ingested(feed)
    assert facts["refused"] == {"negative_watch": 48}
    assert len(reasons) == 48
    message = refused(feed, "step", "validate_log", "--date", str(DAY))
    assert message.startswith("ValidationFailedError: ")
    assert "refused_share" in message
    assert "0.4" in message
    page = message.split("Full record: ")[1].split(" ")[0].rstrip(".")
    assert Path(page).is_file()
    assert not feed.datasets() & {"user_features", "training_set"}


def test_days_of_one_user_go_through_or_say_what_is_too_thin(feed: Feed) -> None:
    for offset in range(4):
        feed.write(FIRST + timedelta(days=offset), rows_of(FIRST + timedelta(days=offset), users=1, plays=9))
    message = refused(feed, "run", "--from", str(DAY), "--to", str(DAY))
    assert message.startswith("TrainingError: ")
    assert str(DAY) in message
