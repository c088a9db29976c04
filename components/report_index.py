"""The reports of a lake kept in memory, for a server that lists them again and again.

One recursive listing per configuration says what is there and when it was written; only what is new or has changed
since is read, and of that only the small summary beside each page. So a thousand reports cost a listing.
"""

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from threading import Lock

from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, LocalFileSystem, PyFileSystem

from components.errors import ConfigError
from components.lake import MANIFEST, Lake
from components.reports import SUMMARY, ReportEntry, folders, newest, pipelines_with_reports, read_entry

# A listing this young is not made again: a page and its neighbours ask within moments.
FRESH_S = 2.0
_READERS = 16
NAME, _HASH = re.compile(r"[a-z][a-z0-9_]{0,40}"), re.compile(r"[0-9a-f]{12}")
_FOLDER = re.compile(r"ds=\d{4}-\d{2}-\d{2}")
_FILES = (MANIFEST, SUMMARY)
# Per file that matters its time of writing in ns and its size; a day that was analysed and not reported has none.
Stamp = tuple[tuple[str, int, int], ...]
# Feed's folder, pipeline, configuration's hash, day.
Place = tuple[str, str, str, date]


@dataclass
class _Pipeline:
    """What is known of one pipeline."""

    entries: dict[Place, tuple[Stamp, ReportEntry]] = field(default_factory=dict)
    ordered: tuple[ReportEntry, ...] = ()
    listed_at: float | None = None
    lock: Lock = field(default_factory=Lock)


class ReportIndex:
    """Entries of ``components.reports``, remembered between calls. Safe to share between threads.

    Args:
        lake: The whole lake.
        fresh_s: For how many seconds a listing is taken as it is.
    """

    def __init__(self, lake: Lake, fresh_s: float = FRESH_S) -> None:
        self._lake = lake
        self._fresh_s = fresh_s
        self._known: dict[str, _Pipeline] = {}
        self._names: tuple[float, tuple[str, ...]] | None = None
        self._lock = Lock()

    def reports(self, pipeline: str) -> tuple[ReportEntry, ...]:
        """Every day of a pipeline that was analysed, under every configuration.

        Args:
            pipeline: Its name.

        Returns:
            As ``components.reports.list_reports`` gives them: newest day first, of one day the newest report first.

        Raises:
            ConfigError: When the name can not be a pipeline's.
        """
        if not NAME.fullmatch(pipeline):
            raise ConfigError(f"{pipeline!r} can not be a pipeline: names are small letters, digits and underscores")
        with self._lock:
            known = self._known.setdefault(pipeline, _Pipeline())
        with known.lock:
            now = time.monotonic()
            if known.listed_at is None or now - known.listed_at >= self._fresh_s:
                self._refresh(pipeline, known)
                known.listed_at = now
            return known.ordered

    def pipelines(self) -> tuple[str, ...]:
        """Names of the pipelines that have analysed a day, in alphabetical order."""
        with self._lock:
            now = time.monotonic()
            if self._names is None or now - self._names[0] >= self._fresh_s:
                self._names = (now, pipelines_with_reports(self._lake))
            return self._names[1]

    def _refresh(self, pipeline: str, known: _Pipeline) -> None:
        stamps = dict(_stamps(self._lake, pipeline))
        # What changes while it is read is read again next time: the stamp is older than the content.
        changed = [place for place, stamp in stamps.items() if known.entries.get(place, (None,))[0] != stamp]
        if changed or stamps.keys() != known.entries.keys():
            read = dict(zip(changed, self._read(changed), strict=True))
            known.entries = {
                place: (stamp, read[place] if place in read else known.entries[place][1])
                for place, stamp in stamps.items()
            }
            known.ordered = tuple(sorted((entry for _, entry in known.entries.values()), key=newest, reverse=True))

    def _read(self, places: list[Place]) -> Iterable[ReportEntry]:
        # One at a time where there is little to gain; an object store answers slowly, but many at a time.
        if len(places) < _READERS:
            return [read_entry(self._lake, *place) for place in places]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda place: read_entry(self._lake, *place), places))


def configurations(lake: Lake, pipeline: str) -> list[tuple[str, str]]:
    """Where a pipeline has results: feed's folder and configuration's hash, in order.

    Args:
        lake: The whole lake.
        pipeline: Its name, a plain one.

    Returns:
        Pairs; empty where it has never run.
    """
    sources = folders(lake, "")
    pairs = ((source, name) for source in sources for name in folders(lake, f"{source}/{pipeline}"))
    return [pair for pair in pairs if _HASH.fullmatch(pair[1])]


def days_of(lake: Lake, dataset: str) -> list[date]:
    """Days of a dataset that have a folder, whether or not it is whole, by one listing that does not descend.

    Args:
        lake: The lake that holds the dataset.
        dataset: Its name.

    Returns:
        In order.
    """
    infos = arrow_of(lake).get_file_info(FileSelector(lake.path(dataset), allow_not_found=True))
    return sorted(day for info in infos if info.type == FileType.Directory and (day := _day(info.base_name)))


def _stamps(lake: Lake, pipeline: str) -> Iterator[tuple[Place, Stamp]]:
    arrow = arrow_of(lake)
    for source, config_hash in configurations(lake, pipeline):
        root = lake.path(source, pipeline, config_hash)
        analysed = days_of(lake.scope(source, pipeline, config_hash), "experiment")
        found: dict[date, list[tuple[str, int, int]]] = {day: [] for day in analysed}
        for info in arrow.get_file_info(FileSelector(f"{root}/report", allow_not_found=True, recursive=True)):
            parts = info.path.removeprefix(f"{root}/report/").split("/")
            folder = len(parts) > 1 or info.type == FileType.Directory
            if folder and (day := _day(parts[0])):
                stamp = found.setdefault(day, [])
                if len(parts) == 2 and info.base_name in _FILES:
                    stamp.append((info.base_name, info.mtime_ns or 0, info.size or 0))
        for day, stamp in found.items():
            yield (source, pipeline, config_hash, day), tuple(sorted(stamp))


def _day(name: str) -> date | None:
    try:
        # Only as the lake writes it: fromisoformat also takes 20260131.
        return date.fromisoformat(name[3:]) if _FOLDER.fullmatch(name) else None
    except ValueError:
        return None


def arrow_of(lake: Lake) -> FileSystem:
    """Arrow's own file system of a lake: it lists a whole tree in one call, an object store in a few."""
    if lake.is_local:
        return LocalFileSystem()
    return lake.arrow_fs if isinstance(lake.arrow_fs, FileSystem) else PyFileSystem(FSSpecHandler(lake.arrow_fs))
