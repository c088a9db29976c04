"""A user's own logs: Parquet or CSV files below one folder, described by a column mapping."""

import re
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.config import FilesFeed, TableMapping
from components.days import bounds_us
from components.errors import EmptyDayError, SourceError
from components.feed.canonical import stable_ids
from components.feed.findings import findings
from components.feed.schema import (
    ATTRIBUTE_PREFIX,
    BEHAVIOURS,
    LOG,
    LOG_REQUIRED,
    REQUESTS,
    TIME,
    USERS,
    VIDEOS,
    DayTables,
)
from components.feed.source import Finding
from components.feed.tables import (
    TEXT,
    TableFile,
    flag,
    local_midnights,
    milliseconds,
    open_table,
    probability,
    quoted,
    text,
    time_between,
    time_problem,
    time_us,
    truth,
)

_DAY = re.compile(r"\{day(?:_compact)?\}")
_DATE = r"\d{4}-\d{2}-\d{2}"
_IDS = ("user_id", "video_id", "creator_id", "session_id")
_TIMES = ("event_time", "registered_at", "uploaded_at")
_LENGTHS = ("watch_ms", "duration_ms")
# Behind these names a reading carries calendar days, which become local midnights.
_DAY_SUFFIX = "/day"

_TABLES: dict[str, tuple[pa.Schema, tuple[str, ...]]] = {
    "log": (LOG, LOG_REQUIRED),
    "users": (USERS, ("user_id",)),
    "videos": (VIDEOS, ("video_id",)),
    "requests": (REQUESTS, ("session_id", "slot", "candidates")),
}


class FilesSource:
    """Reads a user's own files. ``TableMapping`` says where they lie and which column is which.

    - With ``{day}`` or ``{day_compact}`` in its path a table is read whole, file by file: rows of another
      local day are then refused and kept aside. Without, the log is cut by time while it is read. Rows whose
      time is no time belong to no day: they come with the feed's first day, so that they are refused once and
      do not vanish.
    - Times: an offset or zone that is there is honoured. A timestamp without one is UTC, never local time.
      A registration or upload that is a plain date is the local midnight at which that date begins.
    - Ids may be integers or texts, see ``stable_ids``. Behaviours may be 0/1, booleans or yes/no.
    - Without a users or a videos table, those of the day's log stand in, with nothing else known about them.
    """

    def __init__(self, feed: FilesFeed) -> None:
        self.feed = feed
        self.folder = Path(feed.folder).expanduser()

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """Names of the static user attributes."""
        return self.feed.users.attributes if self.feed.users else ()

    def read_day(self, day: date) -> DayTables:
        """Read one local day.

        Args:
            day: The day.

        Returns:
            The day's log, and users, videos and requests as mapped.

        Raises:
            SourceError: When the mapping does not fit the files, or a file is missing or damaged.
            EmptyDayError: When the log's path names the day and there is no such file.
        """
        log = self._log(day)
        users = self._beside("users", day)
        videos = self._beside("videos", day)
        return DayTables(
            log=log,
            users=_of_log(log, USERS) if users is None else users,
            videos=_of_log(log, VIDEOS) if videos is None else videos,
            requests=self._requests(day, log),
        )

    def check(self) -> list[Finding]:
        """What each part of the schema maps to in the files of the first day, or what its absence costs."""
        found: dict[str, str] = {}
        for name, mapping in self._mappings.items():
            file = self._files(name, self.feed.first_day)[0]
            kinds = self._checked(name, file)
            found[name] = mapping.path
            for ours, theirs in mapping.columns.items():
                naive = kinds[ours] in ("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S")
                found[f"{name}.{ours}"] = (
                    f"{theirs} ({kinds[ours]}{', read as UTC' if naive else ''}) in {file.path.name}"
                )
            if mapping.attributes:
                found[f"{name}.attributes"] = ", ".join(mapping.attributes)
        return findings(found)

    @cached_property
    def _mappings(self) -> dict[str, TableMapping]:
        tables = {name: getattr(self.feed, name) for name in _TABLES}
        mappings = {name: mapping for name, mapping in tables.items() if mapping is not None}
        for name, mapping in mappings.items():
            schema, required = _TABLES[name]
            where = f"feed.{name}.columns"
            if unknown := sorted(set(mapping.columns) - set(schema.names)):
                raise SourceError(f"{where} maps names that the schema does not know: {unknown}; known: {schema.names}")
            if missing := [column for column in required if column not in mapping.columns]:
                raise SourceError(f"{where} must map {missing} as well; it maps {sorted(mapping.columns)}")
            if mapping.attributes and name != "users":
                raise SourceError(f"feed.{name}.attributes: only users have attributes")
        if "requests" in mappings and "session_id" not in mappings["log"].columns:
            raise SourceError("feed.requests needs feed.log.columns.session_id, or no request finds its exposures")
        return mappings

    def _files(self, name: str, day: date) -> list[TableFile]:
        pattern = self._mappings[name].path
        dated = pattern.replace("{day_compact}", f"{day:%Y%m%d}").replace("{day}", day.isoformat())
        if not self.folder.is_dir():
            raise SourceError(f"feed.folder {self.folder} is not there")
        try:
            paths = sorted(path for path in self.folder.glob(dated) if path.is_file())
        except (NotImplementedError, ValueError) as error:
            raise SourceError(f"feed.{name}.path {pattern!r} is not a path below feed.folder: {error}") from error
        if not paths:
            kind = EmptyDayError if name == "log" and dated != pattern else SourceError
            raise kind(f"no file {dated!r} in {self.folder}, which feed.{name}.path asks for on {day}")
        return [open_table(path) for path in paths]

    def _checked(self, name: str, file: TableFile) -> dict[str, str]:
        """Types of the mapped columns of a file, by our names."""
        mapping = self._mappings[name]
        for theirs in (*mapping.columns.values(), *mapping.attributes):
            if theirs not in file.columns:
                raise SourceError(f"{file.path} has no column {theirs!r} (feed.{name}); it has {list(file.columns)}")
        kinds = {ours: file.columns[theirs] for ours, theirs in mapping.columns.items()}
        for ours in set(_TIMES) & set(kinds):
            if problem := time_problem(kinds[ours], mapping.time_unit):
                raise SourceError(
                    f"{file.path}: {mapping.columns[ours]!r} ({ours}) does not fit feed.{name}: {problem}"
                )
        if kinds.get("event_time") == "DATE":
            raise SourceError(f"{file.path}: {mapping.columns['event_time']!r} is a DATE; an exposure needs its time")
        if name == "requests" and TEXT in (kinds[c] for c in ("candidates", "scores", "probabilities") if c in kinds):
            raise SourceError(f"{file.path}: requests need list columns, which only Parquet has")
        return kinds

    def _select(self, name: str, kinds: dict[str, str]) -> dict[str, str]:
        mapping = self._mappings[name]
        select: dict[str, str] = {}
        for ours, theirs in mapping.columns.items():
            kind = kinds[ours]
            if ours in _TIMES:
                select[ours] = time_us(theirs, kind, mapping.time_unit)
                if kind in (TEXT, "DATE") and ours != "event_time":
                    cell = quoted(theirs)
                    only = f"CASE WHEN regexp_full_match({cell}, '{_DATE}') THEN {cell} END" if kind == TEXT else cell
                    select[ours + _DAY_SUFFIX] = f"TRY_CAST({only} AS DATE)"
            elif ours in _LENGTHS:
                select[ours] = milliseconds(theirs, kind, mapping.duration_unit)
            else:
                select[ours] = _EXPRESSIONS[ours](theirs)
        return select

    def _read(self, name: str, file: TableFile, where: str = "") -> pa.Table:
        kinds = self._checked(name, file)
        select = self._select(name, kinds)
        for column in self._mappings[name].attributes:
            select[ATTRIBUTE_PREFIX + column] = _attribute(column, file.columns[column])
        return self._typed(file.rows(select, where), file)

    def _typed(self, rows: pa.Table, file: TableFile) -> pa.Table:
        columns: dict[str, pa.ChunkedArray] = {}
        for name in rows.column_names:
            column = rows.column(name)
            if name in (*_IDS, "candidates"):
                try:
                    column = _list_ids(column) if name == "candidates" else stable_ids(column)
                except SourceError as error:
                    raise SourceError(f"{file.path}, {name}: {error}") from error
            elif name in _TIMES:
                column = column.cast(pa.int64()).cast(TIME)
            elif name.endswith(_DAY_SUFFIX):
                moment = name.removesuffix(_DAY_SUFFIX)
                columns[moment] = pc.coalesce(local_midnights(column, self.feed.zone), columns[moment])
                continue
            columns[name] = column
        return pa.table(columns)

    def _log(self, day: date) -> pa.Table:
        mapping = self._mappings["log"]
        column = mapping.columns["event_time"]
        parts = []
        for file in self._files("log", day):
            where = ""
            if not _DAY.search(mapping.path):
                kind = self._checked("log", file)["event_time"]
                where = time_between(column, kind, mapping.time_unit, *bounds_us(day, self.feed.zone))
                if day == self.feed.first_day:
                    where = f"({where}) OR {time_us(column, kind, mapping.time_unit)} IS NULL"
            parts.append(self._read("log", file, where))
        return pa.concat_tables(parts, promote_options="permissive")

    def _beside(self, name: str, day: date) -> pa.Table | None:
        if name not in self._mappings:
            return None
        parts = [self._read(name, file) for file in self._files(name, day)]
        return pa.concat_tables(parts, promote_options="permissive")

    def _requests(self, day: date, log: pa.Table) -> pa.Table | None:
        if "requests" not in self._mappings:
            return None
        dated = bool(_DAY.search(self._mappings["requests"].path))
        sessions = pc.unique(log.column("session_id"))
        parts = []
        for file in self._files("requests", day):
            for batch in file.batches(self._select("requests", self._checked("requests", file))):
                part = self._typed(pa.Table.from_batches([batch]), file)
                parts.append(part if dated else part.filter(pc.is_in(part.column("session_id"), value_set=sessions)))
        return pa.concat_tables(parts, promote_options="permissive") if parts else REQUESTS.empty_table()


_EXPRESSIONS = {
    **dict.fromkeys((*_IDS, "candidates"), quoted),
    **dict.fromkeys(BEHAVIOURS, flag),
    **dict.fromkeys(("position", "slot"), lambda column: f"TRY_CAST({quoted(column)} AS INTEGER)"),
    **dict.fromkeys(("surface", "topic"), text),
    **dict.fromkeys(("scores", "probabilities"), lambda column: f"CAST({quoted(column)} AS FLOAT[])"),
    "is_random": truth,
    "propensity": probability,
}


def _attribute(column: str, kind: str) -> str:
    """SQL for an attribute as text; a whole float, as in a column that had gaps, loses its ``.0``."""
    return f"regexp_replace({text(column)}, '\\.0$', '')" if kind in ("DOUBLE", "FLOAT") else text(column)


def _list_ids(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of ids as lists of int64."""
    whole = lists.combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(whole), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ids = stable_ids(pc.list_flatten(whole)).combine_chunks()
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), ids, mask=pc.is_null(whole))])


def _of_log(log: pa.Table, schema: pa.Schema) -> pa.Table:
    """Users or videos as far as the log knows them: one row per id."""
    key = schema.names[0]
    known = [name for name in schema.names[1:] if name in log.column_names]
    # The largest value, so that the answer does not depend on the order of the rows.
    found = log.filter(pc.is_valid(log.column(key))).group_by(key).aggregate([(name, "max") for name in known])
    return found.rename_columns([name.removesuffix("_max") for name in found.column_names])
