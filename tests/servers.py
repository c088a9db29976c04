"""Servers that tests start for themselves, on free ports, and end again: PostgreSQL, Redis, an S3 endpoint."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pyarrow.fs import S3FileSystem

from tests.conftest import CHECKOUT, give_up

S3_KEY = "testing"


def answers(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(happened: Callable[[], bool], what: str, timeout_s: float = 60, poll_s: float = 0.2) -> None:
    """Wait until something holds; an assertion names it when it does not."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(poll_s)


@dataclass
class Server:
    """One program that can be started again after it was ended."""

    command: list[str]
    port: int
    log: Path
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, user=self.user, cwd="/")
        wait(lambda: answers(self.port) or self.process is None or self.process.poll() is not None, self.command[0])
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        if self.process is not None:
            # INT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
            self.process.send_signal(2)
            self.process.wait(timeout=30)
            self.process = None


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None and (installed := sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))):
        found = str(installed[-1])
    if found is None:
        give_up(f"{name} is missing; 'make test' installs it where it may, else: apt-get install {package}")
    return str(found)


@contextmanager
def postgres(port: int) -> Iterator[Server]:
    """A PostgreSQL of the test's own; its user ``postgres`` needs no password from 127.0.0.1."""
    folder = Path(tempfile.mkdtemp(prefix="mfh-postgres-"))
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    made = [_program("initdb", "postgresql"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
    try:
        subprocess.run([*made, "-E", "UTF8", "--locale=C"], check=True, capture_output=True, user=user, cwd="/")
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
        }
        command = [_program("postgres", "postgresql"), "-D", str(data), "-p", str(port)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = Server(command, port, folder / "server.log", user)
        server.log.touch()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def make_database(port: int, name: str) -> None:
    """Create an empty database."""
    import psycopg

    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())


@contextmanager
def redis(port: int, folder: Path) -> Iterator[Server]:
    """A Redis of the test's own that keeps what it holds when it is restarted."""
    kept = ["--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    command = [_program("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1", *kept]
    server = Server(command, port, folder / "redis.log")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def s3(port: int, folder: Path) -> Iterator[str]:
    """moto's server with an empty bucket ``lake``; gives its URL."""
    program = Path(os.environ.get("MFH_MOTO_SERVER") or CHECKOUT / ".venv-moto" / "bin" / "moto_server")
    if not program.exists():
        give_up(f"{program} is missing; 'make test' installs it")
    log = folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: process.poll() is not None or _serves(url), "moto")
        assert process.poll() is None, log.read_text()
        fs = S3FileSystem(
            endpoint_override=url, scheme="http", access_key=S3_KEY, secret_key=S3_KEY, allow_bucket_creation=True
        )
        fs.create_dir("lake")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _serves(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code < 500
    except httpx.TransportError:
        return False
