"""The audit record of promotion: who moved which alias, when, why, from what to what.

    <lake>/_audit/<pipeline>/20260115T000312.123456Z-1f0c9a2e.json

One file per action, written before the alias moves and never changed. Each names the hash of the one before, so that
a record that was changed or removed is seen; MLflow keeps the newest one's hash, so that removing the newest is seen
too. Names carry the moment and a random part: writers of several machines never meet in one file.
"""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from components.context import Context
from components.errors import LakeError
from components.lake import Lake
from components.partition import json_bytes

FOLDER = "_audit"
Action = Literal["promote", "approve", "rollback", "failed"]


@dataclass(frozen=True)
class Event:
    """One action on the registry.

    Attributes:
        at: When, ISO 8601 in UTC.
        who: A person at a machine, or a run of Airflow.
        action: What was done; ``failed`` follows an action whose alias could not be moved.
        why: The reason that was given, or the rule's.
        moves: Alias to the versions before and after; None for nobody.
        day: Interval day of the version that moved, empty where several did.
        previous: Hash of the event before, empty for the first.
        facts: Run id, try, guardrails.
    """

    at: str
    who: str
    action: Action
    why: str
    moves: dict[str, tuple[str | None, str | None]]
    day: str = ""
    previous: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hash of the event, which the next one names."""
        return hashlib.sha256(json_bytes(asdict(self))).hexdigest()


def append(
    context: Context, action: Action, why: str, moves: dict[str, tuple[str | None, str | None]], **more: Any
) -> Event:
    """Write an event. Whoever calls this holds the registry's lock.

    Args:
        context: Pipeline, settings and run; the run says who.
        action: What is about to be done.
        why: The reason.
        moves: Alias to versions before and after.
        **more: ``day`` and ``facts`` of the event.

    Returns:
        The event as written.

    Raises:
        LakeError: When it can not be written; then nothing may be done.
    """
    lake = _lake(context)
    events = read(context)
    now = datetime.now(UTC)
    previous = events[-1].digest if events else ""
    event = Event(now.isoformat(), actor(context), action, why, moves, previous=previous, **more)
    path = lake.path(f"{now:%Y%m%dT%H%M%S.%f}Z-{uuid4().hex[:8]}.json")
    try:
        if lake.is_local:
            _create(Path(path), json_bytes(asdict(event)))
        else:
            lake.fs.pipe_file(path, json_bytes(asdict(event)))
    except OSError as error:
        raise LakeError(
            f"the audit record {path} could not be written: {error}; no alias was moved. Check free space and "
            "permissions ('mfh doctor' does)"
        ) from error
    return event


def read(context: Context) -> list[Event]:
    """All events, oldest first.

    Args:
        context: Pipeline and settings.

    Returns:
        The events.

    Raises:
        LakeError: When one can not be read.
    """
    lake = _lake(context)
    found = []
    for path in sorted(str(one) for one in lake.fs.glob(lake.path("*.json"))):
        try:
            data = json.loads(lake.fs.cat_file(path))
            data["moves"] = {alias: (before, after) for alias, (before, after) in data["moves"].items()}
            found.append(Event(**data))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise LakeError(f"the audit record {path} is damaged: {type(error).__name__}: {error}") from error
    return found


def broken(events: Sequence[Event], newest: str = "") -> list[str]:
    """What is wrong with the chain of events.

    Args:
        events: Oldest first.
        newest: Hash of the newest event as MLflow remembers it, empty where it remembers none.

    Returns:
        One sentence per event whose predecessor is missing or was changed; empty when the record is whole. Two
        events that name the same predecessor are no fault: two machines wrote at once.
    """
    known = {"", *(event.digest for event in events)}
    found = [
        f"the event before {event.at} ({event.action} by {event.who}) is missing or was changed"
        for event in events
        if event.previous not in known
    ]
    if newest not in known:
        found.append("the newest event is missing or was changed: MLflow remembers another one")
    return found


def champions(events: Sequence[Event]) -> list[str]:
    """Versions that have served and were not rolled back, the present champion last.

    Args:
        events: Oldest first.

    Returns:
        Version numbers. Rolling back takes away those above the version that it went to.
    """
    stack: list[str] = []
    for event in _done(events):
        _, after = event.moves.get("champion", (None, None))
        if after is None:
            continue
        if event.action == "rollback" and after in stack:
            del stack[len(stack) - stack[::-1].index(after) :]
        elif not stack or stack[-1] != after:
            stack.append(after)
    return stack


def actor(context: Context) -> str:
    """Who acts: the run of Airflow, or the person at the command line.

    Args:
        context: Its ``run`` tells.

    Returns:
        For example ``airflow run scheduled__2026-01-15`` or ``ada@build-7``.
    """
    if run_id := context.run.get("run_id"):
        return f"airflow run {run_id}"
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user may have no name.
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _done(events: Sequence[Event]) -> list[Event]:
    """Events without those whose alias could not be moved."""
    failed = {event.previous for event in events if event.action == "failed"}
    return [event for event in events if event.action != "failed" and event.digest not in failed]


def _lake(context: Context) -> Lake:
    return Lake.open(context.settings).scope(FOLDER, context.pipeline.name)


def _create(path: Path, data: bytes) -> None:
    """A new file that is whole from its first moment on and never replaces another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    try:
        aside.write_bytes(data)
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
