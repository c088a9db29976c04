"""The reports of a lake, for whoever lists, opens or compares them: the command line and Airflow's pages.

A list reads one small file per report (``summary.json``, beside the page). Names that come from an address or a person
are checked before they become part of a path, and nothing outside a pipeline's report folders is ever read.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from components.day_checks import GATES, gates_of
from components.errors import ConfigError, LakeError, MissingPartitionError, NewerSchemaError, RecordError
from components.lake import MANIFEST, Lake
from simulator.experiment import SCHEMA_VERSION, Experiment
from simulator.report.compare import Comparison, compare
from simulator.report.summary import SCHEMA_VERSION as SUMMARY_VERSION
from simulator.report.summary import GateChip, Summary, summarise

PAGE, RECORD, SUMMARY = "report.html", "experiment.json", "summary.json"

_PIPELINE = re.compile(r"[a-z][a-z0-9_]{0,40}")
_CONFIG_HASH = re.compile(r"[0-9a-f]{12}")
_DOCUMENT = re.compile(r"\.\./\.\./([a-z_]+/ds=\d{4}-\d{2}-\d{2}/[a-z_]+\.html)")

# Files that are read at once: an object store answers slowly, but many at a time.
_READERS = 16


@dataclass(frozen=True)
class ReportEntry:
    """One day of one pipeline under one configuration.

    Attributes:
        pipeline: Its name.
        source: Folder of the feed in the lake.
        config_hash: Of the configuration.
        day: Interval day.
        state: ``ready``; ``no report``: analysed, but the page was not written yet; ``unreadable``: half-written,
            damaged, or of a newer version, as ``problem`` says.
        problem: What is wrong and what to do; None when ready.
        summary: What a list shows; None unless ready.
    """

    pipeline: str
    source: str
    config_hash: str
    day: date
    state: Literal["ready", "no report", "unreadable"]
    problem: str | None = None
    summary: Summary | None = None

    @property
    def folder(self) -> str:
        """Folder of the page, relative to the lake's root."""
        return f"{self.source}/{self.pipeline}/{self.config_hash}/report/ds={self.day}"


def pipelines_with_reports(lake: Lake) -> tuple[str, ...]:
    """Names of the pipelines that have analysed a day.

    Args:
        lake: The whole lake.

    Returns:
        In alphabetical order.
    """
    found = set()
    for source in folders(lake, ""):
        for name in folders(lake, source):
            if _PIPELINE.fullmatch(name) and any(
                _CONFIG_HASH.fullmatch(config) for config in folders(lake, f"{source}/{name}")
            ):
                found.add(name)
    return tuple(sorted(found))


def list_reports(lake: Lake, pipeline: str | None = None) -> list[ReportEntry]:
    """Every day that was analysed, under every configuration.

    Args:
        lake: The whole lake (``Lake.open(settings)``).
        pipeline: Only this one's; None for all.

    Returns:
        Newest day first; of one day the newest report first. Days that can not be read are in it and say why.

    Raises:
        ConfigError: When the name can not be a pipeline's.
    """
    names = pipelines_with_reports(lake) if pipeline is None else (_checked(pipeline),)
    places = [place for name in names for place in _places(lake, name)]
    with ThreadPoolExecutor(_READERS) as pool:
        entries = list(pool.map(lambda place: read_entry(lake, *place), places))
    return sorted(entries, key=newest, reverse=True)


def locate(lake: Lake, pipeline: str, day: date | str, config_hash: str | None = None) -> ReportEntry:
    """One report.

    Args:
        lake: The whole lake.
        pipeline: Its name.
        day: Interval day, as a date or as YYYY-MM-DD.
        config_hash: Of which configuration; None for the one that was written last.

    Returns:
        An entry that is ready.

    Raises:
        ConfigError: When a name, a day or a hash can not be one: nothing is looked for then.
        MissingPartitionError: When the day was not analysed, or has no report yet.
        RecordError: When it is half-written, damaged, or of a newer version (``NewerSchemaError``).
    """
    wanted = _as_day(day)
    if config_hash is not None and not _CONFIG_HASH.fullmatch(config_hash):
        raise ConfigError(f"{config_hash!r} is no hash of a configuration: it has twelve digits, 0 to 9 and a to f")
    name = _checked(pipeline)
    places = [p for p in _places(lake, name) if p[3] == wanted and config_hash in (None, p[2])]
    entries = sorted((read_entry(lake, *place) for place in places), key=newest, reverse=True)
    if not entries:
        known = [place[3] for place in _places(lake, name)]
        there = f"the newest day of {name!r} is {max(known)}" if known else f"{name!r} has no report yet"
        raise MissingPartitionError(f"no report of {name!r} for {wanted}; {there}; 'mfh run' makes them")
    entry = next((one for one in entries if one.state == "ready"), entries[0])
    if entry.state == "no report":
        raise MissingPartitionError(str(entry.problem))
    if entry.state == "unreadable":
        # Reading it again raises the error of its own kind.
        _summary(lake, entry.folder, entry.day)
        raise RecordError(str(entry.problem))
    return entry


def read_record(lake: Lake, entry: ReportEntry) -> Experiment:
    """Every number of a report.

    Args:
        lake: The whole lake.
        entry: Of ``locate`` or ``list_reports``.

    Returns:
        The report's copy of ``experiment.json``.

    Raises:
        MissingPartitionError: When it is not there.
        RecordError: When it is damaged, or of a newer version (``NewerSchemaError``).
    """
    path = f"{entry.folder}/{RECORD}"
    text = _read(lake, path)
    if text is None:
        # Reports of earlier versions kept no copy; the record as it was analysed says the same but for the series.
        runs = lake.scope(entry.source, entry.pipeline, entry.config_hash)
        partition = runs.get("experiment", entry.day)
        path, text = partition.url(RECORD), partition.bytes(RECORD)
    return parse_record(text, path)


def read_page(lake: Lake, entry: ReportEntry) -> bytes:
    """The page of a report.

    Args:
        lake: The whole lake.
        entry: Of ``locate`` or ``list_reports``.

    Returns:
        ``report.html``, in UTF-8.

    Raises:
        MissingPartitionError: When it is not there.
    """
    page = _read(lake, f"{entry.folder}/{PAGE}")
    if page is None:
        raise MissingPartitionError(f"{entry.folder} has no {PAGE}; run 'mfh step report --date {entry.day}' again")
    return page


def compare_reports(lake: Lake, first: ReportEntry, second: ReportEntry) -> Comparison:
    """What changed from one report to another.

    Args:
        lake: The whole lake.
        first: The earlier, or what the other is held against.
        second: The other; of the same pipeline or of another one.

    Returns:
        Data, models, configuration, and lifts with the interval of their difference.

    Raises:
        MissingPartitionError: When a record is not there.
        RecordError: When one can not be read.
    """
    return compare(read_record(lake, first), read_record(lake, second))


def read_document(lake: Lake, entry: ReportEntry, href: str) -> bytes:
    """A page that a report links to: Data Docs, a feature report.

    Args:
        lake: The whole lake.
        entry: Of the report.
        href: As it stands in the record's ``checks.documents``; nothing else is read.

    Returns:
        The page, in UTF-8.

    Raises:
        MissingPartitionError: When the report links to no such page, or it is gone.
        RecordError: When the record can not be read.
    """
    checks = read_record(lake, entry).checks
    known = {document.href for document in checks.documents} if checks else set()
    match = _DOCUMENT.fullmatch(href) if href in known else None
    if match is None:
        raise MissingPartitionError(f"the report of {entry.pipeline!r} for {entry.day} links to no page {href!r}")
    path = f"{entry.source}/{entry.pipeline}/{entry.config_hash}/{match[1]}"
    page = _read(lake, path)
    if page is None:
        raise MissingPartitionError(f"{path} is gone; run the step that writes it again")
    return page


def gate_calendar(lake: Lake, pipeline: str) -> dict[date, tuple[GateChip, ...]]:
    """The gates of every day of a pipeline, also of days that stopped at one and have no report.

    Args:
        lake: The whole lake.
        pipeline: Its name.

    Returns:
        By day, the newest report's where a day has several; a gate that can not be read is ``missing`` and says why.

    Raises:
        ConfigError: When the name can not be a pipeline's.
    """
    entries = list_reports(lake, pipeline)
    found = {one.day: one.summary.gates for one in reversed(entries) if one.summary is not None}
    for source in folders(lake, ""):
        for config in folders(lake, f"{source}/{pipeline}"):
            if _CONFIG_HASH.fullmatch(config):
                runs = lake.scope(source, pipeline, config)
                days = {day for name in GATES for day in _days(lake, f"{source}/{pipeline}/{config}/{name}")}
                found |= {day: _gates_alone(runs, day) for day in days - set(found)}
    return dict(sorted(found.items()))


def _gates_alone(runs: Lake, day: date) -> tuple[GateChip, ...]:
    try:
        return tuple(GateChip(name=one.title, state=one.state, detail=one.detail) for one in gates_of(runs, day))
    except (LakeError, RecordError) as error:
        return (GateChip(name="Gates", state="missing", detail=str(error)),)


def parse_record(text: bytes, where: str) -> Experiment:
    """A record from its file.

    Args:
        text: Content of ``experiment.json``.
        where: What to name in an error.

    Returns:
        The record.

    Raises:
        NewerSchemaError: When a newer version wrote it.
        RecordError: When it is no record, or cut off.
    """
    try:
        _refuse_newer(text, SCHEMA_VERSION, where)
        return Experiment.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise RecordError(
            f"{where} is no record of an experiment: {place}: {first['msg']}; run 'mfh step analyse' and "
            "'mfh step report' of that day again"
        ) from error


def _refuse_newer(text: bytes, known: int, where: str) -> None:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise RecordError(
            f"{where} is damaged or cut off ({error}); run 'mfh step report' of that day again"
        ) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise RecordError(f"{where} names no schema version, so it is no record of ours")
    if version > known:
        raise NewerSchemaError(
            f"{where} has schema version {version}, this version reads up to {known}; install the version that wrote "
            "it, or run the day again with this one"
        )


def _places(lake: Lake, pipeline: str) -> Iterator[tuple[str, str, str, date]]:
    """Source, pipeline, configuration and day of everything that was analysed or reported."""
    for source in folders(lake, ""):
        for config in folders(lake, f"{source}/{pipeline}"):
            if _CONFIG_HASH.fullmatch(config):
                root = f"{source}/{pipeline}/{config}"
                days = {day for dataset in ("experiment", "report") for day in _days(lake, f"{root}/{dataset}")}
                yield from ((source, pipeline, config, day) for day in sorted(days))


def read_entry(lake: Lake, source: str, pipeline: str, config_hash: str, day: date) -> ReportEntry:
    """One report from its summary, whatever state it is in; the names must be checked ones."""
    entry = ReportEntry(pipeline, source, config_hash, day, "unreadable")
    state: Literal["no report", "unreadable"] = "unreadable"
    try:
        return ReportEntry(pipeline, source, config_hash, day, "ready", None, _summary(lake, entry.folder, day))
    except MissingPartitionError as error:
        state, problem = "no report", str(error)
    except RecordError as error:
        problem = str(error)
    return ReportEntry(pipeline, source, config_hash, day, state, problem)


def _summary(lake: Lake, folder: str, day: date) -> Summary:
    text = _read(lake, f"{folder}/{SUMMARY}")
    again = f"run 'mfh step report --date {day}' again"
    if not lake.fs.exists(lake.path(folder, MANIFEST)):
        if lake.fs.exists(lake.path(folder)):
            raise RecordError(f"{folder} is half-written: it has no {MANIFEST}; wait for its run to end, or {again}")
        raise MissingPartitionError(f"{day} was analysed but has no report yet; run 'mfh step report --date {day}'")
    where = f"{folder}/{SUMMARY}"
    if text is None:
        source, pipeline, config_hash = folder.split("/")[:3]
        # A report of an earlier version: its summary comes from the whole record.
        return summarise(read_record(lake, ReportEntry(pipeline, source, config_hash, day, "ready")))
    _refuse_newer(text, SUMMARY_VERSION, where)
    try:
        return Summary.model_validate_json(text)
    except ValidationError as error:
        raise RecordError(f"{where} is no summary of a report ({error.errors()[0]['msg']}); {again}") from error


def newest(entry: ReportEntry) -> tuple[date, str]:
    """By what reports are in order, the last one first: day, then time of writing."""
    return entry.day, (entry.summary.written_at if entry.summary else None) or ""


def _read(lake: Lake, path: str) -> bytes | None:
    place = lake.path(path)
    # A link inside a local lake leads nowhere else: a page served from it is never someone else's file.
    if lake.is_local and not Path(place).resolve().is_relative_to(Path(lake.root).resolve()):
        raise RecordError(f"{path} leads out of the lake; remove the link and run the day again")
    try:
        data: bytes = lake.fs.cat_file(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} can not be read: {error}; check permissions ('mfh doctor' does)") from error
    return data


def folders(lake: Lake, path: str) -> list[str]:
    """Names of the folders directly below a path; none when it is not there."""
    try:
        found = lake.fs.ls(lake.path(path) if path else lake.root, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(str(one["name"]).rstrip("/").rsplit("/", 1)[-1] for one in found if one["type"] == "directory")


def _days(lake: Lake, path: str) -> list[date]:
    found = []
    for name in folders(lake, path):
        try:
            found.append(date.fromisoformat(name.removeprefix("ds=")))
        except ValueError:
            # A folder that is no day is none of ours.
            continue
    return found


def _checked(pipeline: str) -> str:
    if not _PIPELINE.fullmatch(pipeline):
        raise ConfigError(f"{pipeline!r} can not be a pipeline: names are small letters, digits and underscores")
    return pipeline


def _as_day(day: date | str) -> date:
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise ConfigError(f"{day!r} is not a day (YYYY-MM-DD)") from error
