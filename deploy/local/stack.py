"""Airflow on one machine: four components on the embedded defaults, started, watched and stopped together."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx

from components.errors import MfhError
from deploy.local.client import AirflowClient
from deploy.local.environment import (
    BACKFILL_POOL,
    CHECKOUT,
    LOOPBACK,
    PRELOAD,
    USER,
    airflow_settings,
    password_file,
    process_environment,
    read_password,
)
from deploy.local.processes import Leader, StackRecord, spawn, terminate
from deploy.local.supervision import Restarts

# As a file: with ``-m`` Airflow is imported before there is a main module, which PySpark takes for its doctests.
AIRFLOW = Path(sysconfig.get_path("scripts")) / "airflow"
# Without --skip-serve-logs each opens a log server on all interfaces; the API server reads the files itself.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
API_SERVER = "api-server"
HEALTH_KEYS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
POOLS = {"gpu": "one training at a time", "online_store": "one writer of the online store at a time"}
MIN_FREE_GB = 3.0
# What ends by itself on a machine of one's own is tried again a few times, then shown.
EMBEDDED_RESTARTS = 3


class StackError(MfhError):
    """Airflow can not be started or does not stay up: port taken, no disk, a component that ended."""


class Stack:
    """The components of one machine's Airflow, everything of it below ``home``.

    Args:
        home: The machine's folder (MFH_HOME).
        port: Where the UI listens on 127.0.0.1.
        dags: Folder of DAG files, None for the checkout's.
        extra: Variables that replace the defaults.
        notify: Told what is going on, one sentence at a time.
        components: Name of each component and its arguments to ``airflow``.
        restarts: Ends in a row after which ``check`` gives a component up instead of starting it again; None never
            does. Airflow's components end when their database goes away, for example.
    """

    # The components that fork a process per task.
    forks_tasks: ClassVar[frozenset[str]] = frozenset({"scheduler"})

    def __init__(
        self,
        home: Path,
        port: int,
        dags: Path | None = None,
        extra: dict[str, str] | None = None,
        notify: Callable[[str], None] = lambda what: None,
        components: Mapping[str, tuple[str, ...]] = COMPONENTS,
        restarts: int | None = 0,
    ) -> None:
        self.home = home.expanduser().resolve()
        self.port = port
        self.dags = dags or CHECKOUT / "dags"
        self._extra = extra or {}
        self._notify = notify
        self._components = dict(components)
        self._limit = restarts
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts: dict[str, Restarts] = {}
        # Everything that was started, so that what outlives its killed component is found and ended too.
        self._leaders: dict[str, Leader] = {}

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid_file(self) -> Path:
        """Tells other processes what runs on this home."""
        return self.home / "airflow" / "stack.json"

    @property
    def password_file(self) -> Path:
        """Where the UI's password is."""
        return password_file(self.home)

    def log_file(self, component: str) -> Path:
        """Where a component's output goes."""
        return self.home / "airflow" / "logs" / f"stack-{component}.log"

    def environment(self) -> dict[str, str]:
        """Airflow's settings as environment variables; the home's secrets are made on first use."""
        return airflow_settings(self.home, self.port, self.dags) | self._extra

    def client(self) -> AirflowClient:
        """A client of this stack's API, signed in as its admin."""
        return AirflowClient(self.url, USER, read_password(self.home))

    def running_port(self) -> int | None:
        """The port of a stack that already runs on this home, whoever started it; None when none does."""
        record = StackRecord.read(self.pid_file)
        return record.port if record is not None and record.alive else None

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has stopped the stack or is stopping it; that its components ended is no such thing."""
        return (record := StackRecord.read(self.pid_file)) is None or record.stopping

    @property
    def owns(self) -> bool:
        """Whether this object started what runs, so that ending it is its duty."""
        return bool(self._children)

    def start(self, deadline_s: float = 240) -> None:
        """Start all components and wait until each of them is healthy.

        Args:
            deadline_s: How long that may take.

        Raises:
            StackError: When it runs already, the port is taken, the disk is full, or a component ends; nothing
                of it runs then.
        """
        if (port := self.running_port()) is not None:
            raise StackError(
                f"Airflow already runs for {self.home} at http://{LOOPBACK}:{port}; use that one, or end it with "
                "'make stop'"
            )
        # Leftovers of a stack that was killed, such as workers that outlived their scheduler.
        self.stop()
        check_disk(self.home)
        check_port(self.port)
        try:
            self._start(deadline_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace_s: float = 20) -> None:
        """End every process of the stack, whoever started it. Does nothing when none runs.

        Args:
            grace_s: How long components may take to end by themselves; a task still running then is killed, and
                retried by the next start.
        """
        record = StackRecord.read(self.pid_file)
        if record is not None:
            # Whoever looks after the components must not start them again behind this.
            replace(record, stopping=True).write(self.pid_file)
            terminate(record.leaders, stop_order(record.leaders), grace_s)
        for child in self._children.values():
            child.wait(timeout=10)
        self._children.clear()
        self._leaders.clear()
        self._restarts.clear()
        self.pid_file.unlink(missing_ok=True)

    def check(self) -> None:
        """Look after the components that this object started; what has ended starts again, as ``restarts`` allows.

        Does nothing while another program stops the stack, or has stopped it.

        Raises:
            StackError: When one has ended and is not started again, with the end of its log.
        """
        for name, child in list(self._children.items()):
            if (status := child.poll()) is None:
                continue
            if self.is_stopped:
                return
            if not self._restarts[name].ended():
                raise StackError(
                    f"Airflow's {name} ended with status {status}. The end of {self.log_file(name)}:\n"
                    + _tail(self.log_file(name))
                )
            if self._restarts[name].is_due():
                self._notify(f"{name} ended with status {status}; starting it again")
                self._spawn(name, process_environment(self.environment()))

    def pid(self, component: str) -> int:
        """Process id of a component that this object started."""
        return self._children[component].pid

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _start(self, deadline_s: float) -> None:
        self.log_file("x").parent.mkdir(parents=True, exist_ok=True)
        read_password(self.home)
        env = process_environment(self.environment())
        self._migrate(env)
        self._notify("starting Airflow's components")
        for name in self._components:
            self.log_file(name).unlink(missing_ok=True)
            # What ends before it was ever healthy ends of its settings: trying again would only hide why.
            self._restarts[name] = Restarts(0)
            self._spawn(name, env)
        self._await_health(deadline_s)
        self._restarts = {name: Restarts(self._limit) for name in self._components}
        with self.client() as client:
            for pool, purpose in POOLS.items():
                client.ensure_pool(pool, 1, purpose)
            # One slot is left to what is no backfill.
            slots = max(1, int(env["AIRFLOW__CORE__PARALLELISM"]) - 1)
            client.ensure_pool(BACKFILL_POOL, slots, "what backfills run at once, the other pools aside")
        self._notify(f"Airflow is up at {self.url}")

    def _spawn(self, name: str, env: dict[str, str]) -> None:
        command = [sys.executable, str(AIRFLOW), *self._components[name]]
        own = {"MFH_PRELOAD": env.get("MFH_PRELOAD", PRELOAD) if name in self.forks_tasks else ""}
        self._children[name] = spawn(command, env | own, CHECKOUT, self.log_file(name))
        self._restarts[name].started()
        if (before := self._leaders.get(name)) is not None:
            self._leaders[f"{name} of pid {before.pid}"] = before
        self._leaders[name] = Leader.of(self._children[name].pid)
        # After each, so that a start that is killed half way can be cleaned up.
        StackRecord(self.port, os.getpid(), self._leaders).write(self.pid_file)

    def _migrate(self, env: dict[str, str]) -> None:
        # Saves ten seconds of every start but the first: the mark names the release that made the database.
        mark = self.home / "airflow" / "migrated"
        release = version("apache-airflow-core")
        database = env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        # Only of a file can be told whether it is still the same one; and a server's URL may hold a password.
        is_file = database.startswith("sqlite:///")
        known = mark.exists() and mark.read_text(encoding="utf-8") == f"{release} {database}"
        if is_file and known and Path(database.removeprefix("sqlite:///")).exists():
            return
        self._notify("preparing Airflow's database")
        command = [sys.executable, str(AIRFLOW), "db", "migrate"]
        log = self.log_file("migrate")
        with log.open("wb") as output:
            done = subprocess.run(command, env=env, cwd=CHECKOUT, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise StackError(f"Airflow's database could not be prepared. The end of {log}:\n{_tail(log)}")
        if is_file:
            write_ahead(Path(database.removeprefix("sqlite:///")))
            mark.write_text(f"{release} {database}", encoding="utf-8")

    def _await_health(self, deadline_s: float) -> None:
        deadline = time.monotonic() + deadline_s
        state: dict[str, str] = {}
        while time.monotonic() < deadline:
            self.check()
            state = _health(self.url)
            if all(state.get(key) == "healthy" for key in HEALTH_KEYS):
                return
            time.sleep(0.5)
        waiting = ", ".join(f"{key} {state.get(key, 'silent')}" for key in HEALTH_KEYS if state.get(key) != "healthy")
        raise StackError(
            f"Airflow is not healthy after {deadline_s:.0f} s: {waiting}; logs are in {self.log_file('x').parent}"
        )


def stop_order(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Stages in which components are asked to end: the API server last, so that tasks that end can still report."""
    chosen = tuple(names)
    return tuple(name for name in chosen if not name.startswith(API_SERVER)), tuple(
        name for name in chosen if name.startswith(API_SERVER)
    )


def write_ahead(database: Path) -> None:
    """Let an SQLite file be read while it is written; the file keeps that.

    With SQLite's default, the rollback journal, a component that has not read to the end of an answer keeps all others
    from writing, itself included: each such meeting costs the whole time that a connection waits for a lock.

    Args:
        database: The file.
    """
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def check_disk(home: Path) -> None:
    """Refuse to start on a nearly full disk.

    Args:
        home: The machine's folder; it need not exist.

    Raises:
        StackError: When less than ``MIN_FREE_GB`` are free.
    """
    free = free_gb(home)
    if free < MIN_FREE_GB:
        raise StackError(
            f"only {free:.1f} GB are free at {home}, {MIN_FREE_GB:.0f} GB are needed; free some, or choose another "
            "disk with MFH_HOME=<folder>"
        )


def free_gb(path: Path) -> float:
    """Free space in GB (10^9 bytes) on the disk that holds ``path`` or will hold it."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free / 1e9


def port_is_free(port: int) -> bool:
    """Whether a server can listen on that port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def check_port(port: int) -> None:
    """Refuse to start on a port that another program has.

    Args:
        port: The port.

    Raises:
        StackError: When it is taken.
    """
    if not port_is_free(port):
        raise StackError(
            f"port {port} on {LOOPBACK} is taken by another program; choose another one: 'make run PORT={port + 1}'"
        )


def _health(url: str) -> dict[str, str]:
    try:
        answer = httpx.get(f"{url}/api/v2/monitor/health", timeout=5, trust_env=False)
        parts: dict[str, Any] = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return {name: str(part.get("status")) for name, part in parts.items() if isinstance(part, dict)}


def _tail(path: Path, lines: int = 25) -> str:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return "\n".join("  " + line for line in text.splitlines()[-lines:])
