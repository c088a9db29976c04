"""One fault at one rate on one day: what the gate does about it, and whether that is enough."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from benchmarks.validation_days import Stage, judge_snapshots
from components.chaos import Fault, plant, plant_bytes, plant_snapshot, unmet
from components.chaos.fault import SNAPSHOTS
from components.config import FilesFeed, TableMapping
from components.errors import EmptyDayError, SourceError
from components.feature_list import Entity
from components.feed.canonical import clean
from components.feed.files import FilesSource
from components.feed.schema import DayTables
from components.feed.source import features_of
from components.validation.log_gate import Verdict, check_delivery
from components.validation.outcome import Outcome

Answer = Literal["stopped", "refused", "warned", "nothing"]
RATES = (0.01, 0.05, 0.2, 1.0)


@dataclass(frozen=True)
class Trial:
    """What came of one planted fault.

    Attributes:
        fault: Its name.
        where: Name of the clean days.
        size: Their size.
        rate: At which it was planted.
        answer: ``stopped``: nothing downstream starts. ``refused``: every bad row went to quarantine, no good one is
            missing, and the day goes on. ``warned``: the day goes on with the fault in it, and somebody is told
            more than on the clean day. ``nothing`` otherwise.
        by: Names of the checks that the fault broke and the clean day did not, those that stop first.
        intended: Whether one of them is one that was meant to.
        reached: Bad rows that are in the log, None where the day stopped before there was one.
    """

    fault: str
    where: str
    size: str
    rate: float
    answer: Answer
    by: tuple[str, ...]
    intended: bool
    reached: int | None


def enough(fault: Fault, answer: Answer) -> bool:
    """Whether an answer is what a fault of its severity needs.

    Args:
        fault: The fault.
        answer: What the gate did.

    Returns:
        For a critical fault, whether it was kept from everything downstream; for a warning, whether anybody was
        told; for a harmless one, whether the day went on.
    """
    if fault.severity == "critical":
        return answer in ("stopped", "refused")
    return answer != "nothing" if fault.severity == "warning" else answer != "stopped"


def rates_of(fault: Fault) -> tuple[float, ...]:
    """The rates at which a fault is tried: those of the table, and its own."""
    return tuple(sorted({*RATES, fault.stated}))


def trials(stage: Stage, faults: Sequence[Fault], seed: int, stated_only: bool = False) -> Iterator[Trial]:
    """Plant faults into a stage, one at a time.

    Args:
        stage: The day.
        faults: Which; those that the feed can not have are left out.
        seed: Of the planting.
        stated_only: Whether only the rate at which it must be caught is tried.

    Yields:
        One trial per fault and rate.
    """
    for fault in faults:
        if unmet(fault, stage.scene.tables) or (fault.where in SNAPSHOTS and stage.today.features is None):
            continue
        attempt = _snapshot_trial if fault.where in SNAPSHOTS else _trial
        for rate in (fault.stated,) if stated_only else rates_of(fault):
            yield attempt(stage, fault, rate, seed)


def _snapshot_trial(stage: Stage, fault: Fault, rate: float, seed: int) -> Trial:
    """A fault of a snapshot: the log was good, and its features' gate decides."""
    today, day = stage.today, stage.scene.day
    entity: Entity = "user" if fault.where == "user_features" else "video"
    before = stage.snapshots_before[entity]
    broken = plant_snapshot(fault, today.snapshots[entity], before, day, rate, seed)
    features = features_of(stage.clean.pipeline.feed)
    verdict = judge_snapshots(stage.clean, features, day, today.snapshots | {entity: broken}, today.feature_history)
    by = tuple(dict.fromkeys(_names(verdict, today.features or verdict)))
    answer: Answer = "stopped" if verdict.stops else "warned" if by else "nothing"
    return Trial(fault.name, stage.clean.name, stage.clean.size, rate, answer, by, _intended(fault, by), None)


def _intended(fault: Fault, by: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, check) for name in by for check in fault.checks)


def _trial(stage: Stage, fault: Fault, rate: float, seed: int) -> Trial:
    """A fault of what is delivered: ingest's rules and the log's gate decide."""
    pipeline, day, name, size = stage.clean.pipeline, stage.scene.day, stage.clean.name, stage.clean.size
    try:
        tables = _delivered(stage, fault, rate, seed)
    except (SourceError, EmptyDayError):
        return Trial(fault.name, name, size, rate, "stopped", ("source",), "source" in fault.checks, None)
    verdict = check_delivery(tables, day, pipeline, stage.today.log_history)
    by = tuple(dict.fromkeys(_names(verdict, stage.today.log)))
    if verdict.stops:
        return Trial(fault.name, name, size, rate, "stopped", by, _intended(fault, by), None)
    reached, lost = _harm(stage, tables)
    refused = _refused(verdict) - _refused(stage.today.log)
    answer: Answer = "nothing"
    if refused > 0 and reached == 0 and lost <= refused:
        answer = "refused"
    elif by:
        answer = "warned"
    return Trial(fault.name, name, size, rate, answer, by, _intended(fault, by), reached)


def _delivered(stage: Stage, fault: Fault, rate: float, seed: int) -> DayTables:
    """The day's tables as a broken source delivers them; a broken file goes through its reader, which may raise."""
    scene = stage.scene
    if fault.where != "file":
        return plant(fault, scene, rate, seed)
    suffix = "csv" if fault.csv else "parquet"
    columns = {name: name for name in scene.log.column_names}
    before = None if scene.before is None else _content(scene.before.log, suffix)
    broken = plant_bytes(fault, _content(scene.log, suffix), before, scene.day, rate, seed)
    with TemporaryDirectory(prefix="mfh-faults-") as folder:
        if broken is not None:
            (Path(folder) / f"{scene.day}.{suffix}").write_bytes(broken)
        feed = FilesFeed(
            folder=folder,
            timezone=scene.zone.key,
            first_day=scene.day,
            log=TableMapping(path=f"{{day}}.{suffix}", columns=columns),
        )
        log = FilesSource(feed).read_day(scene.day).log
    return DayTables(log, scene.users, scene.videos, scene.tables.requests)


def _content(log: pa.Table, suffix: str) -> bytes:
    sink = pa.BufferOutputStream()
    if suffix == "csv":
        pacsv.write_csv(log, sink)
    else:
        pq.write_table(log, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _names(verdict: Verdict, clean_day: Verdict) -> Iterator[str]:
    """Names of what is broken and was not on the clean day, in the order of weight."""
    known = {_name(one) for one in (*clean_day.failed, *clean_day.refused, *clean_day.warned)}
    for one in (*verdict.failed, *verdict.refused, *verdict.warned):
        more = one.level == "refuse" and _rows(verdict, one) > _rows(clean_day, one)
        if more or _name(one) not in known:
            yield _name(one)


def _name(one: Outcome) -> str:
    if one.expectation == "delivery_can_be_read":
        return "source"
    if one.expectation.startswith("refused["):
        return f"refused.{one.expectation.removeprefix('refused[').removesuffix(']')}"
    return f"{one.table}.{one.expectation}"


def _rows(verdict: Verdict, like: Outcome) -> float:
    return next((one.observed or 0.0 for one in verdict.refused if one.expectation == like.expectation), 0.0)


def _refused(verdict: Verdict) -> float:
    return sum(one.observed or 0.0 for one in verdict.refused)


def _harm(stage: Stage, tables: DayTables) -> tuple[int, int]:
    """Rows of the log that the clean day does not have, and rows of the clean day that the log does not have."""
    pipeline, day = stage.clean.pipeline, stage.scene.day
    delivered = [name for name in stage.scene.log.column_names if name in tables.log.column_names]
    good = clean(stage.scene.tables, pipeline.feed, day).log.select(delivered)
    bad = clean(tables, pipeline.feed, day).log.select(delivered)
    with duckdb.connect() as connection:
        connection.register("good", good)
        connection.register("bad", bad)
        counts = [
            connection.execute(f"SELECT count(*) FROM (FROM {a} EXCEPT ALL FROM {b})").fetchone() or (0,)  # noqa: S608
            for a, b in (("bad", "good"), ("good", "bad"))
        ]
    return int(counts[0][0]), int(counts[1][0])
