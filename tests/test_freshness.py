"""A report that is late is told about, one that is not never; with the day's own clock, and without backfills."""

import asyncio
import json
import logging
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.cli import app
from components.context import Context
from components.deadline import on_deadline
from components.freshness import Late, alert, due, find_late, last_due
from tests.receivers import http_receiver
from tests.small_lake import context_at, day_at

# The feed is in Shanghai: day 4, March 8, ends at 16:00 UTC, its report is due at 22:00 UTC.
DAY = day_at(4)
DUE = datetime(2024, 3, 8, 22, tzinfo=UTC)


def reported(context: Context, day: date) -> None:
    with context.runs.write("report", day) as writer:
        writer.text("day.html", "<p>")


def test_a_report_is_due_six_hours_after_its_day_by_the_feeds_own_clock(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    assert due(context.pipeline, context.settings, DAY) == DUE
    just_before = datetime(2024, 3, 8, 21, 59, 59, tzinfo=UTC)
    assert last_due(context.pipeline, context.settings, DUE) == DAY
    assert last_due(context.pipeline, context.settings, just_before) == day_at(3)
    assert last_due(context.pipeline, context.settings, datetime(2024, 3, 5, 22, tzinfo=UTC)) is None
    ended = context_at(tmp_path, last_day=day_at(5))
    assert last_due(ended.pipeline, ended.settings, datetime(2026, 1, 1, tzinfo=UTC)) == day_at(5)


def test_the_day_on_which_clocks_change_ends_when_it_ends(tmp_path: Path) -> None:
    """Berlin's 31 March 2024 has 23 hours: it ends at 22:00 UTC; the day before at 23:00."""
    context = context_at(tmp_path)
    feed = context.pipeline.feed.model_copy(update={"timezone": "Europe/Berlin"})
    pipeline = context.pipeline.model_copy(update={"feed": feed})
    assert due(pipeline, context.settings, date(2024, 3, 30)) == datetime(2024, 3, 31, 5, tzinfo=UTC)
    assert due(pipeline, context.settings, date(2024, 3, 31)) == datetime(2024, 4, 1, 4, tzinfo=UTC)


def test_late_is_what_is_due_and_not_there(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    late = find_late(context, DUE)
    assert late == Late("small", "2024-03-08", "2024-03-08T22:00:00+00:00", "docs/runbooks.md#a-late-report")
    reported(context, DAY)
    assert find_late(context, DUE) is None


@pytest.mark.parametrize(("status", "done"), [(200, "logged and sent"), (500, "logged; the webhook could not be")])
def test_an_alert_is_an_error_in_the_log_and_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, done: str
) -> None:
    with http_receiver(status) as received:
        url = received.url.replace("//", "//user:hunter2secret@")
        settings = context_at(tmp_path).settings.model_copy(update={"alert_url": received.url})
        late = Late("small", "2024-03-08", "2024-03-08T22:00:00+00:00", "docs/runbooks.md#a-late-report")
        assert alert(settings, late).startswith(done)
        alert(settings.model_copy(update={"alert_url": url}), late)
    assert json.loads(received.requests[0][2]) == {
        "event": "report_late",
        "pipeline": "small",
        "day": "2024-03-08",
        "due": "2024-03-08T22:00:00+00:00",
        "runbook": "docs/runbooks.md#a-late-report",
    }
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors[0].startswith("event=report_late pipeline=small day=2024-03-08")
    assert not any("hunter2secret" in text for text in errors)


@pytest.fixture
def installed(mfh_home: Path) -> Context:
    """A pipeline in the folder that Airflow reads."""
    context = context_at(mfh_home)
    (mfh_home / "pipelines").mkdir(parents=True)
    (mfh_home / "pipelines" / "small.yaml").write_text(context.pipeline.model_dump_json())
    return context


def run_of(kind: str) -> dict[str, Any]:
    return {"dag_run": {"run_type": kind, "data_interval_start": "2024-03-07T16:00:00Z"}}


def test_airflows_callback_alerts_for_a_scheduled_run_and_never_for_a_backfill(installed: Context) -> None:
    assert asyncio.run(on_deadline("small", run_of("backfill"))) == "a backfill is never late"
    assert asyncio.run(on_deadline("small", run_of("scheduled"))) == "logged; MFH_ALERT_URL is not set"
    reported(installed, DAY)
    assert asyncio.run(on_deadline("small", run_of("scheduled"))) == "the report is there"


def test_the_command_exits_with_one_when_a_report_is_late(installed: Context) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["freshness", "--at", DUE.isoformat()])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["day"] == "2024-03-08"
    reported(replace(installed), DAY)
    assert runner.invoke(app, ["freshness", "--at", DUE.isoformat()]).exit_code == 0
    assert runner.invoke(app, ["freshness", "--at", "2024-03-08T22:00:00"]).exit_code == 2, "a zone is needed"
    assert runner.invoke(app, ["freshness", "--at", "soon"]).exit_code == 2
