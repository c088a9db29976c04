"""What the pages show of the lake: pipelines, reports, gates. Reads only, and only what its callers may see."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from threading import Lock

from components.config import Pipeline, Settings, load_pipeline
from components.errors import ConfigError, MfhError
from components.lake import Lake
from components.report_index import ReportIndex
from components.reports import ReportEntry, compare_reports, read_document, read_page, read_record
from deploy.airflow_ui.gates import GateIndex
from simulator.experiment import Estimate
from simulator.report.compare import Comparison
from simulator.report.summary import Lift

DAG_PREFIX = "mfh_daily_"
_DATASET, _DOCUMENT = re.compile(r"[a-z_]+"), re.compile(r"[a-z_]+\.html")
# Shown in place of a decision.
NO_REPORT, UNREADABLE = "no report", "unreadable"


@dataclass(frozen=True)
class Row:
    """One report in the list.

    Attributes:
        entry: From the lake.
        current: Whether its settings are those of the pipeline file as it is now.
    """

    entry: ReportEntry
    current: bool

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""
        return self.entry.pipeline

    @property
    def dag_id(self) -> str:
        """The DAG whose readers may see it."""
        return f"{DAG_PREFIX}{self.entry.pipeline}"

    @property
    def day(self) -> date:
        """Interval day."""
        return self.entry.day

    @property
    def settings(self) -> str:
        """Hash of its configuration."""
        return self.entry.config_hash

    @property
    def decision(self) -> str:
        """The verdict, or why there is none."""
        return self.entry.summary.decision if self.entry.summary else self.entry.state

    @property
    def sentence(self) -> str:
        """The verdict's sentence, or what is wrong."""
        return self.entry.summary.sentence if self.entry.summary else self.entry.problem or ""

    @property
    def written(self) -> str:
        """When the report was written, ISO; empty where unknown."""
        return (self.entry.summary.written_at if self.entry.summary else None) or ""

    @property
    def users(self) -> int:
        """Users of the held-out day; 0 without a record."""
        return self.entry.summary.users if self.entry.summary else 0

    @property
    def models(self) -> str:
        """Treatment against baseline."""
        return f"{self.entry.summary.treatment} against {self.entry.summary.baseline}" if self.entry.summary else ""

    @cached_property
    def lift(self) -> Estimate | None:
        """The lift that decides."""
        return estimate_of(self.entry.summary.lift) if self.entry.summary else None

    @cached_property
    def back(self) -> Estimate | None:
        """The difference in next-day return, of the segment that decides."""
        summary = self.entry.summary
        if summary is None or summary.lift is None:
            return None
        found = (one for one in summary.lifts if (one.metric, one.segment) == ("return", summary.lift.segment))
        return estimate_of(next(found, None))

    @property
    def address(self) -> str:
        """Path of its page below the pages' prefix."""
        return f"/dags/{self.dag_id}/days/{self.day}?settings={self.settings}"

    @property
    def key(self) -> str:
        """What names it in a form."""
        return f"{self.dag_id}~{self.day}~{self.settings}"

    @cached_property
    def searchable(self) -> str:
        """All that a search looks at, in small letters."""
        parts = (self.pipeline, str(self.day), self.decision, self.sentence, self.models, self.settings)
        return " ".join(parts).casefold()


class Catalogue:
    """The lake as the pages see it. Made once per server process; what was read is kept until it changes.

    Args:
        settings: Where things live; None for those of the environment.
        fresh_s: For how many seconds a listing of the lake is taken as it is; None for the index's own.
    """

    def __init__(self, settings: Settings | None = None, fresh_s: float | None = None) -> None:
        self._settings = settings or Settings()
        self.lake = Lake.open(self._settings)
        self._index = ReportIndex(self.lake) if fresh_s is None else ReportIndex(self.lake, fresh_s)
        self.gates = GateIndex(self.lake)
        self._files: dict[Path, tuple[int, Pipeline | str]] = {}
        self._lock = Lock()

    def pipelines(self) -> dict[str, Pipeline | None]:
        """Every pipeline that has a file or a report, by DAG id; None for those whose file is missing or broken."""
        found: dict[str, Pipeline | None] = {f"{DAG_PREFIX}{name}": None for name in self._index.pipelines()}
        for file in sorted(self._settings.pipelines_dir.glob("*.yaml")):
            loaded = self._load(file)
            if isinstance(loaded, Pipeline):
                found[f"{DAG_PREFIX}{loaded.name}"] = loaded
        return found

    def pipeline(self, dag_id: str) -> Pipeline | None:
        """The pipeline of a DAG, None where it has no readable file."""
        return self.pipelines().get(dag_id)

    def rows(self, dag_ids: Iterable[str]) -> list[Row]:
        """Reports of several DAGs, newest first.

        Args:
            dag_ids: Those that the user may read.

        Returns:
            One row per day and configuration.
        """
        known = self.pipelines()
        rows = []
        for dag_id in dag_ids:
            pipeline = known.get(dag_id)
            name = dag_id.removeprefix(DAG_PREFIX)
            hash_now = pipeline.config_hash if pipeline else None
            rows += [Row(entry, hash_now in (None, entry.config_hash)) for entry in self._index.reports(name)]
        return sorted(rows, key=lambda row: (row.day, row.pipeline, row.written), reverse=True)

    def of_day(self, dag_id: str, day: date) -> list[Row]:
        """Reports of one day: those under the settings of the pipeline's file first, then the newest."""
        found = [row for row in self.rows([dag_id]) if row.day == day]
        return sorted(found, key=lambda row: row.current, reverse=True)

    def page(self, row: Row) -> bytes:
        """The report's page; MfhError when it can not be read."""
        self._inside(row)
        return read_page(self.lake, row.entry)

    def document(self, row: Row, dataset: str, name: str) -> bytes:
        """A page that the report links to, such as Data Docs; MfhError when it links to no such page."""
        if not _DATASET.fullmatch(dataset) or not _DOCUMENT.fullmatch(name):
            raise MfhError(f"the report of {row.day} links to no page of that name")
        self._inside(row, f"{dataset}/ds={row.day}")
        return read_document(self.lake, row.entry, f"../../{dataset}/ds={row.day}/{name}")

    def record(self, row: Row) -> bytes:
        """The report's ``experiment.json``, as JSON; MfhError when it can not be read."""
        self._inside(row)
        return read_record(self.lake, row.entry).model_dump_json(indent=1).encode()

    def compare(self, first: Row, second: Row) -> Comparison:
        """What changed from one report to another; MfhError when a record can not be read."""
        self._inside(first)
        self._inside(second)
        return compare_reports(self.lake, first.entry, second.entry)

    def _inside(self, row: Row, *more: str) -> None:
        """Refuse a report of which a part is a link that leads out of the lake."""
        if not self.lake.is_local:
            return
        entry = row.entry
        root = Path(self.lake.root).resolve()
        runs = Path(self.lake.path(entry.source, entry.pipeline, entry.config_hash))
        for folder in (runs / "report" / f"ds={entry.day}", *(runs / one for one in more)):
            if any(not file.resolve().is_relative_to(root) for file in (folder, *folder.glob("*"))):
                raise MfhError(f"a file of {entry.folder} is a link that leads out of the lake; remove the link")

    def _load(self, file: Path) -> Pipeline | str:
        with self._lock:
            try:
                stamp = file.stat().st_mtime_ns
                kept = self._files.get(file)
                if kept is None or kept[0] != stamp:
                    self._files[file] = kept = (stamp, _loaded(file))
            except OSError as error:
                return str(error)
            return kept[1]


def _loaded(file: Path) -> Pipeline | str:
    try:
        return load_pipeline(file)
    except ConfigError as error:
        # Airflow shows it as an import error of the DAG file; reports that it wrote earlier stay readable.
        return str(error)


def estimate_of(lift: Lift | None) -> Estimate | None:
    """A lift of a summary as the estimate that it was."""
    if lift is None:
        return None
    return Estimate(value=lift.value, low=lift.low, high=lift.high, unit=lift.unit, reason=lift.reason)
