"""Processes of the stack: found again by another process, and stopped without leaving orphans."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil  # type: ignore[import-untyped]

# The clock that start times are counted on may be adjusted; process ids are not reused within seconds.
CLOCK_TOLERANCE_S = 5.0


@dataclass(frozen=True)
class Leader:
    """First process of a component; it leads a session of its own, which its descendants stay in."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """The leader that runs now under a process id."""
        return cls(pid, float(psutil.Process(pid).create_time()))

    def process(self) -> psutil.Process | None:
        """The process if it is still the same one and alive, else None."""
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < CLOCK_TOLERANCE_S
            if same and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


@dataclass(frozen=True)
class StackRecord:
    """What runs, as the pid file holds it; ``stopping`` once someone has begun to end it."""

    port: int
    owner: int
    leaders: dict[str, Leader]
    stopping: bool = False

    def write(self, path: Path) -> None:
        """Put the record in place in one move, so that no reader sees half of it."""
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        aside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record, or None when there is no pid file or it is damaged."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            leaders = {name: Leader(**leader) for name, leader in data["leaders"].items()}
            stopping = bool(data.get("stopping"))
            return cls(port=int(data["port"]), owner=int(data["owner"]), leaders=leaders, stopping=stopping)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    @property
    def alive(self) -> bool:
        """Whether any component still runs."""
        return any(leader.process() is not None for leader in self.leaders.values())


def spawn(command: list[str], env: Mapping[str, str], cwd: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a component in a session of its own, its output appended to a log file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def members(leaders: Iterable[Leader]) -> list[psutil.Process]:
    """Every living process of the leaders' sessions, orphans included.

    Sessions, not process groups: Airflow gives each running task a group of its own.

    Args:
        leaders: First processes of the components, alive or not.

    Returns:
        The processes; of a leader whose process id now belongs to another program, none.
    """
    sessions = set()
    for leader in leaders:
        taken = psutil.pid_exists(leader.pid) and leader.process() is None
        if not taken or _is_zombie(leader.pid):
            sessions.add(leader.pid)
    found = []
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(pid) in sessions and not _is_zombie(pid):
                found.append(psutil.Process(pid))
    return found


def terminate(leaders: Mapping[str, Leader], order: Iterable[Iterable[str]], grace_s: float) -> None:
    """Ask the components to end, in stages, then kill whatever is left of their sessions.

    Args:
        leaders: Components by name.
        order: Names of the components of each stage; a stage starts when the one before has ended.
        grace_s: How long a stage may take before the next one starts.
    """
    for stage in order:
        chosen = [leaders[name] for name in stage if name in leaders]
        for leader in chosen:
            if (process := leader.process()) is not None:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGTERM)
        _wait_gone(chosen, grace_s)
    # Idle workers of a killed scheduler ignore TERM.
    for process in members(leaders.values()):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait_gone(list(leaders.values()), 5)


def _wait_gone(leaders: list[Leader], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and members(leaders):
        time.sleep(0.2)


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
