"""KuaiRand (Gao et al., CIKM 2022): the official files of any edition, recognised by their columns.

What the data holds and what this reader makes of it:

- ``date`` and ``hourmin`` contradict ``time_ms`` now and then, so time is ``time_ms`` alone.
- User features are one snapshot: tenure is counted back from it. Follow and fan numbers and degrees of
  activity were measured after most of the exposures, so they are left out; only the encrypted features and
  who is an author or a live streamer are taken, which hardly move within a month.
- ``video_features_statistic`` averages the month, later days included: reading it would be leakage.
- Upload times are days, so an upload is the local midnight of its day.
- Rows carry no propensities, not even the random ones. What was shown at random can be replayed
  (``random_exposures``): rows of a log with ``is_rand``, and files of user_id, video_id and is_click without a time
  whose name says "random", which belong to no day and are read for nothing else.
- A file with the columns user_id, watch_seq, long_watch_seq, like_seq (lists of video ids) and last_time_ms says what
  users did up to that time. Its entries have no time of their own, so a day knows it, as counts and rates, only when
  all of it lies before that day.
"""

from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import pyarrow as pa

from components.config import KuaiRandFeed
from components.days import bounds_us
from components.errors import SourceError
from components.feed.findings import findings
from components.feed.past import EMPTY_HISTORY, joined, past
from components.feed.schema import ATTRIBUTE_PREFIX, TIME, DayTables
from components.feed.source import Finding
from components.feed.tables import (
    TableFile,
    flag,
    integer,
    is_table,
    local_midnights,
    milliseconds,
    open_table,
    quoted,
    text,
    time_between,
    time_us,
    truth,
)

Role = Literal["log", "users", "videos", "history", "random"]

ZONE = ZoneInfo("Asia/Shanghai")

_FLAGS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "share": "is_forward",
    "dislike": "is_hate",
    "profile_enter": "is_profile_enter",
}
_LOG_REQUIRED = ("user_id", "video_id", "time_ms", "play_time_ms")
# A file with two of these is meant as a log, whatever it lacks; clicks without a time have none of them.
_LOG_SIGNS = {"time_ms", "play_time_ms", "hourmin", "is_rand", "tab"}
_USER_SIGNS = {"register_days", "onehot_feat0"}
_VIDEO_SIGNS = {"author_id", "upload_dt", "video_duration", "tag"}
_LEFT_ALONE = {
    "show_cnt": "averages of the whole month, test days included: using them is leakage",
}
_HISTORY = {"user_id", "watch_seq", "long_watch_seq", "like_seq", "last_time_ms"}
_ATTRIBUTES = (*(f"onehot_feat{number}" for number in range(18)), "is_video_author", "is_live_streamer")
_UNKNOWN = "-124"

EXPOSURES = pa.schema([("user_id", pa.int64()), ("video_id", pa.int64()), ("event_time", TIME), ("click", pa.int8())])


class KuaiRandSource:
    """Reads any edition (-Pure, -1K, -27K), as the official CSVs or as Parquet files of the same columns.

    Files may lie in sub-folders and under any name, and a log may be split into many, by date or by policy;
    a row that two files share is a repeat, which the rules refuse. Behaviours that a file lacks are unknown.
    Only rows of the day that is asked for leave the files.
    """

    def __init__(self, feed: KuaiRandFeed) -> None:
        self.feed = feed
        self._pasts: dict[int, tuple[pa.Table, pa.Table]] = {}

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """Names of the static user attributes that the files have."""
        columns = {column for file in self._files["users"] for column in file.columns}
        return tuple(name for name in _ATTRIBUTES if name in columns)

    @property
    def has_past(self) -> bool:
        """Whether some day of the feed knows what users did in a history before it."""
        return bool(self._histories)

    def read_day(self, day: date) -> DayTables:
        """Read one local day.

        Args:
            day: The day.

        Returns:
            The day's log, and all users and videos.

        Raises:
            SourceError: When a file is missing or damaged, or a log lacks a column.
        """
        start, end = bounds_us(day, self.feed.zone)
        logs = [_log(file, start, end, with_timeless=day == self.feed.first_day) for file in self._files["log"]]
        users = pa.concat_tables([self._users(file) for file in self._files["users"]], promote_options="permissive")
        videos = pa.concat_tables([self._videos(file) for file in self._files["videos"]], promote_options="permissive")
        if self.has_past:
            of_users, of_videos = self._past(tuple(file for file, last in self._histories if last < start))
            users, videos = joined(users, of_users), joined(videos, of_videos)
        return DayTables(pa.concat_tables(logs, promote_options="permissive"), users, videos)

    def random_exposures(self) -> pa.Table:
        """Everything that was shown at random, whatever its day: what replay on uniform exposures reads.

        Returns:
            ``EXPOSURES`` in order of user, time and video, each row once; ``event_time`` is null where the file has
            no time. Rows without a user, a video or a click that is 0 or 1 are left out. No row where the edition has
            nothing random.

        Raises:
            SourceError: When a file is missing or damaged.
        """
        files = [file for file in self._files["log"] if _has_random(file)] + self._files["random"]
        parts = [_random(file) for file in files if "is_click" in file.columns]
        table = (
            pa.concat_tables([EXPOSURES.empty_table(), *parts])
            .group_by(EXPOSURES.names, use_threads=False)
            .aggregate([])
        )
        return table.sort_by([(name, "ascending") for name in EXPOSURES.names])

    def check(self) -> list[Finding]:
        """What maps, what is missing and what that costs, and which files are left alone and why."""
        logs, users, videos = (self._files[role] for role in ("log", "users", "videos"))
        found = {"users": _names(users), "videos": _names(videos)}
        found |= {f"log.{name}": column for name, column in _log_columns(logs[0]).items()}
        if not any(_has_random(file) for file in logs):
            found.pop("log.is_random", None)
        for ours, theirs, table in (
            ("users.registered_at", "register_days", users),
            ("videos.uploaded_at", "upload_dt", videos),
            ("videos.creator_id", "author_id", videos),
            ("videos.topic", "tag", videos),
            ("videos.duration_ms", "video_duration", videos),
        ):
            if any(theirs in file.columns for file in table):
                found[ours] = theirs
        if self.user_attributes:
            found["users.attributes"] = f"{len(self.user_attributes)} static features"
        if self.has_past:
            found["users.past"] = _names([file for file, _ in self._histories])
        left = [Finding(f"not read: {file.path.name}", None, why) for file, why in self._scan[1]]
        read = {file.path for file, _ in self._histories}
        why = f"it reaches beyond the day before the feed's last, {self.feed.last_day}"
        left += [
            Finding(f"not read: {file.path.name}", None, why)
            for file in self._files["history"]
            if file.path not in read
        ]
        if random := self._files["random"]:
            why = "clicks alone, without a time: they belong to no day and serve replay only"
            left.append(Finding("random exposures", _names(random), why))
        return [*findings(found), *left, *_cautions(logs)]

    @property
    def _files(self) -> dict[Role, list[TableFile]]:
        return self._scan[0]

    @cached_property
    def _scan(self) -> tuple[dict[Role, list[TableFile]], list[tuple[TableFile, str]]]:
        return _scan(Path(self.feed.folder).expanduser())

    @cached_property
    def _histories(self) -> list[tuple[TableFile, int]]:
        """Histories that some day of the feed may know, with the moment of their last entry in microseconds."""
        known_from = None if self.feed.last_day is None else bounds_us(self.feed.last_day, self.feed.zone)[0]
        found = []
        for file in self._files["history"]:
            last = file.rows({"last": f"max({time_us('last_time_ms', file.columns['last_time_ms'], 'ms')})"})
            moment = last.column("last")[0].as_py()
            if moment is not None and (known_from is None or moment < known_from):
                found.append((file, int(moment)))
        return found

    def _past(self, files: tuple[TableFile, ...]) -> tuple[pa.Table, pa.Table]:
        """The past of users and of videos in some histories; of nobody without any."""
        if (known := self._pasts.get(len(files))) is not None:
            return known
        lists = {"watched": "watch_seq", "long_viewed": "long_watch_seq", "liked": "like_seq"}
        select = {"user_id": integer("user_id")}
        select |= {ours: f"CAST({quoted(theirs)} AS BIGINT[])" for ours, theirs in lists.items()}
        tables = [EMPTY_HISTORY]
        for file in files:
            watched = f"len({quoted('watch_seq')})"
            shown = f"coalesce({integer('history_len')}, {watched})" if "history_len" in file.columns else watched
            tables.append(file.rows({**select, "impressions": f"CAST(coalesce({shown}, 0) AS BIGINT)"}))
        self._pasts[len(files)] = past(pa.concat_tables(tables, promote_options="permissive"))
        return self._pasts[len(files)]

    def _users(self, file: TableFile) -> pa.Table:
        select = {"user_id": integer("user_id")}
        if "register_days" in file.columns:
            days = integer("register_days")
            past = f"CASE WHEN {days} BETWEEN 0 AND 40000 THEN CAST({days} AS INTEGER) END"
            select["registered_at"] = f"DATE '{self.feed.snapshot_day}' - {past}"
        for name in self.user_attributes:
            if name in file.columns:
                value = f"regexp_replace({text(name)}, '\\.0$', '')"
                select[ATTRIBUTE_PREFIX + name] = f"CASE WHEN {value} = '{_UNKNOWN}' THEN 'unknown' ELSE {value} END"
        return self._at_midnight(file.rows(select), "registered_at")

    def _videos(self, file: TableFile) -> pa.Table:
        select = {"video_id": integer("video_id")}
        if "upload_dt" in file.columns:
            select["uploaded_at"] = f"TRY_CAST({quoted('upload_dt')} AS DATE)"
        if "author_id" in file.columns:
            select["creator_id"] = integer("author_id")
        if "tag" in file.columns:
            select["topic"] = f"nullif(trim(split_part({text('tag')}, ',', 1)), '')"
        if "video_duration" in file.columns:
            select["duration_ms"] = milliseconds("video_duration", file.columns["video_duration"], "ms")
        return self._at_midnight(file.rows(select), "uploaded_at")

    def _at_midnight(self, table: pa.Table, column: str) -> pa.Table:
        if column not in table.column_names:
            return table
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, local_midnights(table.column(column), self.feed.zone))


def detect_days(folder: str | Path) -> tuple[date, date]:
    """First and last local day of the logs in a folder, for a new pipeline file.

    Args:
        folder: Where the edition lies.

    Returns:
        The days of the earliest and of the latest row, in the zone of KuaiRand's users.

    Raises:
        SourceError: When the folder is no edition, or its logs hold no time.
    """
    files, _ = _scan(Path(folder).expanduser())
    moments: list[int] = []
    for file in files["log"]:
        time = time_us("time_ms", file.columns["time_ms"], "ms")
        row = file.rows({"first": f"min({time})", "last": f"max({time})"}).to_pylist()[0]
        moments += [moment for moment in row.values() if moment is not None]
    if not moments:
        raise SourceError(f"the logs in {folder} hold no row with a time_ms; copy or export them again")
    first, last = (datetime.fromtimestamp(moment // 1_000_000, UTC) for moment in (min(moments), max(moments)))
    return first.astimezone(ZONE).date(), last.astimezone(ZONE).date()


def _scan(folder: Path) -> tuple[dict[Role, list[TableFile]], list[tuple[TableFile, str]]]:
    """The files of an edition by what they are, and those that are left alone with the reason."""
    if not folder.is_dir():
        raise SourceError(f"feed.folder {folder} is not there; it must be the folder of a KuaiRand edition")
    files: dict[Role, list[TableFile]] = {"log": [], "users": [], "videos": [], "history": [], "random": []}
    left: list[tuple[TableFile, str]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and is_table(path)):
        file = open_table(path)
        role = _role(file.columns, path.name)
        if role in files:
            files[role].append(file)
        else:
            left.append((file, role))
    wanted: dict[Role, str] = {
        "log": "no log (a file with user_id, video_id, time_ms and play_time_ms)",
        "users": "no user features (a file with user_id and register_days)",
        "videos": "no basic video features (a file with video_id, author_id and upload_dt)",
    }
    for role_wanted, what in wanted.items():
        if not files[role_wanted]:
            raise SourceError(f"{folder} holds {what}; table files in it: {_names([f for f, _ in left]) or 'none'}")
    for file in files["log"]:
        if missing := [name for name in _LOG_REQUIRED if name not in file.columns]:
            raise SourceError(f"the log {file.path} lacks the column {', '.join(missing)}; it has {list(file.columns)}")
    return files, left


def _role(types: dict[str, str], name: str) -> str:
    """What a file with these columns and this name is: a role, or the reason to leave it alone."""
    columns = set(types)
    if len(_LOG_SIGNS & columns) >= 2:
        return "log"
    if "watch_seq" in columns:
        return _history_role(types)
    for sign, why in _LEFT_ALONE.items():
        if sign in columns:
            return why
    if {"user_id", "video_id"} <= columns:
        random = "is_click" in columns and "random" in name.lower()
        return "random" if random else "exposures without a time belong to no day"
    users = "user_id" in columns and _USER_SIGNS & columns
    videos = "video_id" in columns and _VIDEO_SIGNS & columns
    return "users" if users else "videos" if videos else "neither a log nor features of users or videos"


def _history_role(types: dict[str, str]) -> str:
    """The role of histories, or why they can not be read."""
    lists = [name for name in _HISTORY if name.endswith("_seq")]
    if set(types) >= _HISTORY and all(types[name].endswith("[]") for name in lists):
        return "history"
    return f"a history needs {', '.join(sorted(_HISTORY))}, the sequences as lists of video ids"


def _log_columns(file: TableFile) -> dict[str, str]:
    """Their column by ours, as far as the file has it."""
    wanted = {
        "user_id": "user_id",
        "video_id": "video_id",
        "event_time": "time_ms",
        "watch_ms": "play_time_ms",
        "duration_ms": "duration_ms",
        **_FLAGS,
        "surface": "tab",
        "is_random": "is_rand",
    }
    return {ours: theirs for ours, theirs in wanted.items() if theirs in file.columns}


def _log(file: TableFile, start_us: int, end_us: int, with_timeless: bool) -> pa.Table:
    kind = file.columns["time_ms"]
    select = {}
    for ours, theirs in _log_columns(file).items():
        if ours == "event_time":
            select[ours] = time_us(theirs, kind, "ms")
        elif ours in _FLAGS:
            select[ours] = flag(theirs)
        elif ours == "surface":
            select[ours] = f"regexp_replace({text(theirs)}, '\\.0$', '')"
        elif ours == "is_random":
            select[ours] = truth(theirs)
        else:
            select[ours] = milliseconds(theirs, file.columns[theirs], "ms") if ours.endswith("_ms") else integer(theirs)
    where = time_between("time_ms", kind, "ms", start_us, end_us)
    if with_timeless:
        # A row without a time belongs to no day; with the first one it is refused instead of vanishing.
        where = f"({where}) OR {select['event_time']} IS NULL"
    rows = file.rows(select, where)
    time = rows.column("event_time").cast(pa.int64()).cast(TIME)
    return rows.set_column(rows.schema.get_field_index("event_time"), "event_time", time)


def _random(file: TableFile) -> pa.Table:
    """The random exposures of a file."""
    timed = "time_ms" in file.columns
    select = {
        "user_id": integer("user_id"),
        "video_id": integer("video_id"),
        "event_time": time_us("time_ms", file.columns["time_ms"], "ms") if timed else "CAST(NULL AS BIGINT)",
        "click": flag("is_click"),
    }
    known = f"{select['user_id']} IS NOT NULL AND {select['video_id']} IS NOT NULL AND {select['click']} IN (0, 1)"
    rows = file.rows(select, f"{known} AND {truth('is_rand')}" if "is_rand" in file.columns else known)
    time = rows.column("event_time").cast(pa.int64()).cast(TIME)
    return rows.set_column(2, "event_time", time).select(EXPOSURES.names).cast(EXPOSURES)


def _has_random(file: TableFile) -> bool:
    if "is_rand" not in file.columns:
        return False
    return bool(file.rows({"any": f"bool_or({truth('is_rand')})"}).column("any")[0].as_py())


def _names(files: list[TableFile]) -> str:
    return ", ".join(file.path.name for file in files)


def _cautions(logs: list[TableFile]) -> list[Finding]:
    if not any("pure" in file.path.name.lower() for file in logs):
        return []
    cost = "the edition keeps a small sample of each user's feed: 'returned' means 'was shown a pool video again'"
    return [Finding("app time and next-day return", "proxies", cost)]
