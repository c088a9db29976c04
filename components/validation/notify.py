"""Telling people about a gate: the log always, a webhook and mail where they are set.

A message that can not be delivered is logged and changes nothing: the day stops or goes on as its gate decided.
"""

import logging
import smtplib
import ssl
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from typing import Literal

from components.validation.notify_settings import NotifySettings

logger = logging.getLogger("mfh")

Event = Literal["gate_failed", "gate_passed", "gate_warned"]


@dataclass(frozen=True)
class Notice:
    """What people are told.

    Attributes:
        event: What happened.
        pipeline: Of which pipeline.
        day: Of which day, ISO format.
        gate: At which gate.
        lines: A sentence per broken expectation.
        page: Where the Data Docs are.
    """

    event: Event
    pipeline: str
    day: str
    gate: str
    lines: tuple[str, ...]
    page: str

    @property
    def title(self) -> str:
        """One line."""
        words = {"gate_failed": "failed", "gate_passed": "failed and was let pass", "gate_warned": "warns"}
        return f"{self.pipeline}: {self.gate} of {self.day} {words[self.event]} ({len(self.lines)})"

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([self.title, *(f"- {line}" for line in self.lines), f"Data Docs: {self.page}"])


def tell(notice: Notice, settings: NotifySettings) -> None:
    """Deliver a notice to every channel.

    Args:
        notice: What to say.
        settings: The channels.
    """
    level = logging.WARNING if notice.event == "gate_warned" else logging.ERROR
    logger.log(level, "event=%s %s", notice.event, notice.text.replace("\n", " | "))
    if notice.event == "gate_warned":
        # A warning is for who reads the log or the page; nobody is woken by it.
        return
    if settings.webhook:
        _post(notice, settings)
    if settings.smtp_host and settings.to:
        _mail(notice, settings)


def _post(notice: Notice, settings: NotifySettings) -> None:
    import httpx

    try:
        # "text" is what chat services show; the rest is for programs.
        body = {"text": notice.text, **asdict(notice)}
        httpx.post(settings.webhook, json=body, timeout=settings.timeout_s).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The URL may hold a secret, and some errors quote it.
        logger.error("event=notice_lost channel=webhook reason=%s", type(error).__name__)


def _mail(notice: Notice, settings: NotifySettings) -> None:
    message = EmailMessage()
    # A header holds one line.
    message["Subject"] = " ".join(notice.title.split())
    message["From"] = settings.sender
    message["To"] = settings.to
    message.set_content(notice.text)
    try:
        with _server(settings) as server:
            if settings.smtp_security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if settings.smtp_user:
                server.login(settings.smtp_user, settings.smtp_password)
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        logger.error("event=notice_lost channel=smtp host=%s reason=%s", settings.smtp_host, type(error).__name__)


def _server(settings: NotifySettings) -> smtplib.SMTP:
    where = (settings.smtp_host, settings.smtp_port)
    if settings.smtp_security == "tls":
        return smtplib.SMTP_SSL(*where, timeout=settings.timeout_s, context=ssl.create_default_context())
    return smtplib.SMTP(*where, timeout=settings.timeout_s)
