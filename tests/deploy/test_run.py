"""``make run``: which days, which pipeline file, and what it says when something is wrong."""

from collections import Counter
from datetime import UTC, date, datetime

import pytest

from components.config import Pipeline, WorldFeed
from components.errors import ConfigError
from deploy.local import run
from deploy.local.client import DayProgress
from deploy.local.progress import ProgressDisplay

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


def pipeline(last: date | None, zone: str = "UTC") -> Pipeline:
    return Pipeline(name="demo", feed=WorldFeed(first_day=date(2026, 1, 5), last_day=last, timezone=zone))


@pytest.mark.parametrize(
    ("last", "days", "expected"),
    [
        (date(2026, 1, 8), 3, (date(2026, 1, 6), date(2026, 1, 8))),
        (date(2026, 1, 8), 1, (date(2026, 1, 8), date(2026, 1, 8))),
        (date(2026, 1, 8), 99, (date(2026, 1, 5), date(2026, 1, 8))),
        (None, 2, (date(2026, 1, 8), date(2026, 1, 9))),
        (date(2026, 3, 1), 2, (date(2026, 1, 8), date(2026, 1, 9))),
    ],
)
def test_the_last_days_that_have_ended(last: date | None, days: int, expected: tuple[date, date]) -> None:
    assert run.backfill_days(pipeline(last), days, NOON) == expected


def test_a_day_ends_in_the_feeds_zone() -> None:
    late = datetime(2026, 1, 10, 17, tzinfo=UTC)
    assert run.backfill_days(pipeline(None), 1, late)[1] == date(2026, 1, 9)
    assert run.backfill_days(pipeline(None, "Asia/Shanghai"), 1, late)[1] == date(2026, 1, 10)


def test_a_feed_that_has_not_begun_is_refused() -> None:
    with pytest.raises(ConfigError, match="no day of it has ended yet"):
        run.backfill_days(pipeline(None), 1, datetime(2026, 1, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--days", "0"], "at least one day"),
        (["--data", "x", "--pipeline", "y.yaml"], "exclude each other"),
        (["--pipeline", "gone.yaml"], "gone.yaml can not be read"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "end_on_term", lambda: None)
    assert run.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_in_a_log_file_only_what_is_new_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    day = date(2026, 1, 8)
    with ProgressDisplay() as display:
        for tasks in ({"none": 2}, {"none": 2}, {"success": 1, "running": 1}):
            display.show([DayProgress(day, "running", Counter(tasks), ("train",) if "running" in tasks else ())])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "2026-01-08 state=running tasks=0/2",
        "2026-01-08 state=running tasks=1/2 running=train",
    ]
