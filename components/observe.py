"""The one place where every step begins and ends: its log line, its metrics, its lineage.

Nothing here can fail a step. What receives metrics or lineage may be down; then a warning says so.
"""

import logging
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from components.context import Context, StepResult
from components.lineage import open_lineage
from components.logs import line
from components.masking import mask
from components.telemetry import Ended, send

log = logging.getLogger("mfh")


def observed(
    function: Callable[..., StepResult], context: Context, name: str, day: date, arguments: dict[str, Any]
) -> StepResult:
    """Run a step's function, and tell whoever listens that it began and how it ended.

    Args:
        function: The step.
        context: Pipeline, settings, run.
        name: The step's name.
        day: Interval day.
        arguments: Further arguments of the function; ``shard`` names the shard.

    Returns:
        The step's result.
    """
    settings, shard = context.settings, arguments.get("shard")
    lineage = open_lineage(context, name, day, shard)
    lineage.started()
    began = time.monotonic()
    try:
        result = function(context, day, **arguments)
    except BaseException as error:
        seconds = time.monotonic() - began
        # The end of a task by signal is an end too.
        said = mask(f"{type(error).__name__}: {error}", settings.secrets)
        fields = {"step": name, "day": day, "state": "failed", "seconds": round(seconds, 1), "error": said}
        log.error("%s", line(fields, settings.log_format))
        send(context, Ended(name, day, shard, "failed", seconds))
        lineage.failed(said)
        raise
    seconds = time.monotonic() - began
    fields = {"step": name, "day": day, "state": "done", "seconds": round(seconds, 1), **result.facts}
    log.info("%s", mask(line(fields, settings.log_format), settings.secrets))
    send(context, Ended(name, day, shard, "done", seconds, result))
    lineage.done(result)
    return result
