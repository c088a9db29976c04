"""Online stores for tests: a file, and databases of the test's own on the real servers of this machine."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import redis
from psycopg import sql

from tests.conftest import give_up

KINDS = ("sqlite", "redis", "postgres")

POSTGRES = os.environ.get("MFH_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("MFH_TEST_REDIS", "redis://127.0.0.1:6379/9")


@contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    """``MFH_ONLINE_STORE`` of an empty store, which is gone afterwards."""
    if kind == "sqlite":
        yield f"sqlite://{folder / 'online.db'}"
    elif kind == "postgres":
        with postgres_database() as url:
            yield url
    else:
        # Keys carry the project's name, which each test's feed makes its own.
        try:
            redis.Redis.from_url(REDIS).ping()
        except redis.ConnectionError as error:
            give_up(f"no Redis at {REDIS}: {error}; name one in MFH_TEST_REDIS")
        yield REDIS


@contextmanager
def postgres_database() -> Iterator[str]:
    """A database of its own on the server, dropped afterwards."""
    name = f"mfh_test_{uuid4().hex[:12]}"
    try:
        server = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        give_up(f"no PostgreSQL at {POSTGRES}: {error}; name one in MFH_TEST_POSTGRES")
    with server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(POSTGRES)._replace(path=f"/{name}").geturl()
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def hang_up(url: str) -> int:
    """End every session of a database, as a restart of the server does; how many there were."""
    name = urlsplit(url).path.strip("/")
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s"
        row = server.execute(query, (name,)).fetchone()
    assert row is not None
    return int(row[0])


class OwnRedis:
    """A Redis of the test's own that keeps nothing when it dies."""

    def __init__(self, folder: Path, port: int) -> None:
        if shutil.which("redis-server") is None:
            give_up("redis-server is not installed")
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)
        client = redis.Redis(port=self.port)
        for _ in range(100):
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None
