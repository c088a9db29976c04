"""Log lines that people read and machines parse: one event per line, as key=value or as JSON."""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from components.masking import MaskingFilter
from components.operations_settings import LogFormat


def line(fields: Mapping[str, Any], form: LogFormat) -> str:
    """One event as one line.

    Args:
        fields: Name to value; dates and the like become text.
        form: ``key_value`` (values that hold blanks or quotes are JSON strings) or ``json``.

    Returns:
        The line, without line breaks whatever the values hold.
    """
    if form == "json":
        return json.dumps(dict(fields), default=str, sort_keys=False)
    return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(value, str) and (not text or any(c.isspace() or c in "\"'=" or not c.isprintable() for c in text)):
        return json.dumps(text)
    return text.strip('"') if not isinstance(value, str | dict | list | tuple) else text


class _JsonLines(logging.Formatter):
    """Every record as one JSON object; a message that is one already is merged into it."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        entry = {"time": self.formatTime(record), "logger": record.name, "level": record.levelname.lower()}
        try:
            fields = json.loads(message)
        except ValueError:
            fields = None
        entry |= fields if isinstance(fields, dict) else {"message": message}
        if record.exc_info:
            entry["traceback"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_to_stderr(form: LogFormat, secrets: tuple[str, ...]) -> None:
    """Send the process's log to standard error, the pipeline's own from INFO on, secrets masked.

    Args:
        form: Format of the lines.
        secrets: Values that must not be shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s")
    handler.setFormatter(_JsonLines() if form == "json" else plain)
    handler.addFilter(MaskingFilter(secrets))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("mfh").setLevel(logging.INFO)
