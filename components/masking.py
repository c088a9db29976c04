"""Keeping secrets out of what people read: error messages, logs, representations."""

import logging
import re
from collections.abc import Iterable

MASK = "***"
# The password of scheme://user:password@host, up to the last @ before the path.
_USERINFO = re.compile(r"(?P<before>[a-z][a-z0-9+.\-]*://[^\s/:@'\"]*:)(?P<password>[^\s/'\"]*)(?=@)", re.IGNORECASE)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without passwords of URLs and without the given secrets.

    Args:
        text: For example the message of a database driver.
        secrets: Values that must not be shown; those shorter than four characters are left, since they would mask
            parts of ordinary words.

    Returns:
        The text with ``***`` in their place.
    """
    shown = _USERINFO.sub(rf"\g<before>{MASK}", text)
    for secret in secrets:
        if len(secret) >= 4:
            shown = shown.replace(secret, MASK)
    return shown


class MaskingFilter(logging.Filter):
    """Masks whatever passes through a handler, tracebacks included.

    Args:
        secrets: Values beside the passwords of URLs.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's message and traceback by masked ones; nothing is held back."""
        record.msg, record.args = mask(record.getMessage(), self._secrets), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask(record.exc_text, self._secrets)
        return True
