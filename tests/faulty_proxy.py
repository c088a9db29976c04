"""A proxy before a server of HTTP, which fails or is slow on demand."""

import socket
import threading
import time
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Mode = Literal["sound", "failing", "slow", "gone"]
BODY = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>broken</Message></Error>"
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
CHUNK = 65_536


class FaultyProxy:
    """Passes bytes on to a server; use it as a context manager.

    ``failing`` answers every request with 503, ``gone`` cuts every connection, ``slow`` waits before every answer.

    Args:
        target: URL of the server.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self.mode: Mode = "sound"
        self.delay_s = 0.0
        self.refused = 0
        self.delayed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, socket.create_connection(self._target, timeout=120) as server:
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
                while data := client.recv(CHUNK):
                    if self.mode == "gone":
                        self.refused += 1
                        return
                    if self.mode == "failing":
                        self.refused += 1
                        client.sendall(UNAVAILABLE)
                        return
                    server.sendall(data)
        except OSError:
            # Either side has gone; the other one is told by its connection being closed.
            return

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(CHUNK):
                if self.mode == "slow":
                    self.delayed += 1
                    time.sleep(self.delay_s)
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            return
