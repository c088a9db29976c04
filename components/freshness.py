"""Is the daily report there in time? Asked by a deadline of the DAG run, and by ``mfh freshness`` from outside Airflow.

The second is needed because a scheduler that is down misses deadlines silently: run it from a machine's own timer.
"""

import json
import logging
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.error import URLError

from components.config import Pipeline, Settings
from components.context import Context
from components.days import bounds
from components.logs import line
from components.masking import mask

log = logging.getLogger("mfh")

TIMEOUT_S = 10


@dataclass(frozen=True)
class Late:
    """A report that is not there although it was due.

    Attributes:
        pipeline: The pipeline's name.
        day: Interval day, ISO 8601.
        due: When its report was due, ISO 8601 in UTC.
        runbook: Where what to do is written.
    """

    pipeline: str
    day: str
    due: str
    runbook: str


def due(pipeline: Pipeline, settings: Settings, day: date) -> datetime:
    """The moment by which the report of a day has to be there: so long after the local midnight that ends it."""
    return bounds(day, pipeline.feed.zone)[1] + timedelta(minutes=settings.report_due_min)


def last_due(pipeline: Pipeline, settings: Settings, now: datetime) -> date | None:
    """The newest day whose report was due before a moment.

    Args:
        pipeline: Its feed tells the days.
        settings: Tells how long a report may take.
        now: The moment.

    Returns:
        The day, never after the feed's last one; None when none was due yet.
    """
    day = now.astimezone(pipeline.feed.zone).date()
    while due(pipeline, settings, day) > now:
        day -= timedelta(days=1)
    if pipeline.feed.last_day is not None:
        day = min(day, pipeline.feed.last_day)
    # The first days of a feed have nothing to train on, so no report either.
    return day if day >= pipeline.feed.first_day + timedelta(days=2) else None


def find_late(context: Context, now: datetime) -> Late | None:
    """The newest report that was due, if it is not there.

    Args:
        context: Pipeline and settings.
        now: The moment.

    Returns:
        What is late, or None.

    Raises:
        LakeError: When the lake can not be read.
    """
    day = last_due(context.pipeline, context.settings, now)
    return None if day is None else missing(context, day)


def missing(context: Context, day: date) -> Late | None:
    """A day's report as late, unless it is there."""
    if context.runs.find("report", day) is not None:
        return None
    settings = context.settings
    when = due(context.pipeline, settings, day).isoformat()
    return Late(context.pipeline.name, day.isoformat(), when, f"{settings.runbooks}#a-late-report")


def alert(settings: Settings, late: Late) -> str:
    """Tell people: an error in the log, and the webhook where one is set.

    Args:
        settings: Tells the webhook.
        late: What is late.

    Returns:
        What was done.
    """
    fields = {"event": "report_late", **asdict(late)}
    log.error("%s", line(fields, settings.log_format))
    if not settings.alert_url:
        return "logged; MFH_ALERT_URL is not set"
    # The scheme is http or https: settings refuse any other.
    request = urllib.request.Request(  # noqa: S310
        settings.alert_url, json.dumps(fields).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            return "logged and sent"
    except (URLError, OSError) as error:
        said = mask(f"{settings.alert_url}: {error}", settings.secrets)
        log.error("%s", line({"event": "alert_not_sent", "error": said}, settings.log_format))
        return "logged; the webhook could not be reached"


def now_utc() -> datetime:
    """This moment; what watches the clock may ask for it, a step never does."""
    return datetime.now(UTC)
