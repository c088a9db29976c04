"""Notices reach a real web server and a real mail server on this machine; a lost one changes nothing."""

import json
import logging
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.config import Settings
from components.validation.notify import Notice, tell
from components.validation.notify_settings import NotifySettings

NOTICE = Notice(
    "gate_failed",
    "world",
    "2026-03-01",
    "validation_log",
    ("log.like: like_rate expects 0.01 to 0.03 (learned), observed 0.5", "log: rows\r\nBcc: eve@example.org"),
    "/lake/data_docs.html",
)
PORT = Callable[[], int]


@contextmanager
def web_server(port: int, status: int = 200) -> Iterator[list[dict[str, object]]]:
    """Keeps the JSON objects that are posted to it."""
    kept: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


@contextmanager
def mail_server(port: int) -> Iterator[list[tuple[list[str], EmailMessage]]]:
    """As much of SMTP (RFC 5321) as a client without encryption speaks; keeps recipients and messages."""
    kept: list[tuple[list[str], EmailMessage]] = []

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 test")
            to: list[str] = []
            while line := self.rfile.readline().decode().strip():
                verb = line[:4].upper()
                if verb == "RCPT":
                    to.append(line.split(":", 1)[1].strip().strip("<>"))
                if verb == "DATA":
                    self.say("354 go on")
                    lines = []
                    while (part := self.rfile.readline().decode()) != ".\r\n":
                        lines.append(part)
                    kept.append((to, message_from_string("".join(lines), policy=policy.default)))
                self.say("221 bye" if verb == "QUIT" else "250 ok")
                if verb == "QUIT":
                    return

    with socketserver.TCPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield kept
        server.shutdown()
        thread.join()


def settings(**values: object) -> NotifySettings:
    return NotifySettings(timeout_s=5, **values)  # type: ignore[arg-type]


def test_a_failure_is_posted_and_mailed(free_port: PORT) -> None:
    web, mail = free_port(), free_port()
    with web_server(web) as posted, mail_server(mail) as mailed:
        tell(
            NOTICE,
            settings(
                webhook=f"http://127.0.0.1:{web}/hook/secret",
                smtp_host="127.0.0.1",
                smtp_port=mail,
                MFH_NOTIFY_FROM="gate@example.org",
                to="ann@example.org, bob@example.org",
            ),
        )
    (body,) = posted
    assert body["event"] == "gate_failed"
    assert body["day"] == "2026-03-01"
    assert body["page"] == "/lake/data_docs.html"
    assert "like_rate" in str(body["text"])
    ((to, message),) = mailed
    assert to == ["ann@example.org", "bob@example.org"]
    assert message["Subject"] == "world: validation_log of 2026-03-01 failed (2)"
    assert message["Bcc"] is None
    assert "observed 0.5" in message.get_content()


def test_a_warning_is_logged_and_wakes_nobody(free_port: PORT, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caplog.set_level(logging.WARNING, "mfh")
    with web_server(port) as posted:
        warning = Notice("gate_warned", "world", "2026-03-01", "validation_log", ("a", "b"), "page")
        tell(warning, settings(webhook=f"http://127.0.0.1:{port}/"))
    assert posted == []
    assert "event=gate_warned" in caplog.text


def test_a_lost_notice_is_logged_without_its_secret(free_port: PORT, caplog: pytest.LogCaptureFixture) -> None:
    web, nothing = free_port(), free_port()
    caplog.set_level(logging.ERROR, "mfh")
    with web_server(web, status=500):
        tell(
            NOTICE,
            settings(
                webhook=f"http://127.0.0.1:{web}/hook/secret", smtp_host="127.0.0.1", smtp_port=nothing, to="ann@x.org"
            ),
        )
    assert "channel=webhook reason=HTTPStatusError" in caplog.text
    assert "channel=smtp" in caplog.text
    assert "secret" not in caplog.text


def test_channels_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WEBHOOK": "http://x/", "FROM": "a@b.c", "SMTP_PORT": "2525", "TO": "d@e.f"}.items():
        monkeypatch.setenv(f"MFH_NOTIFY_{name}", value)
    found = Settings().notify
    assert (found.webhook, found.sender, found.smtp_port, found.to) == ("http://x/", "a@b.c", 2525, "d@e.f")
    assert "http://x/" not in repr(found)
