"""A small client of Airflow's REST API: the calls that the UI makes to backfill days and to follow them."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import date, datetime
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote
from zoneinfo import ZoneInfo

import httpx

from components.days import day_range, midnight
from components.errors import MfhError

Reprocess = Literal["none", "failed", "completed"]
FINISHED_RUN = frozenset({"success", "failed"})
# Fails to be imported while any pipeline file can not be read.
PIPELINE_FILES = "mfh_pipeline_files.py"
PAGE = 100
# What Airflow answers while its database is locked.
LOCKED = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.INTERNAL_SERVER_ERROR)
# Longer than a connection waits for SQLite's lock, so that an answer comes in any case.
ANSWER_S = 120
PATIENCE_S = 180


class AirflowApiError(MfhError):
    """Airflow refused a call, or a run that was asked for can not come about."""


@dataclass(frozen=True)
class DagRun:
    """One run of a DAG. ``start`` is its interval's start, which names its day; the run id carries the end."""

    dag_id: str
    run_id: str
    state: str
    start: datetime | None

    def day(self, zone: ZoneInfo) -> date | None:
        """The day that the run is for, in the feed's zone."""
        return self.start.astimezone(zone).date() if self.start else None


@dataclass(frozen=True)
class TaskRun:
    """One task instance of a run."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    state: str
    duration_s: float | None

    @property
    def label(self) -> str:
        """Task id, with the index of a mapped task."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class DayProgress:
    """How far one day of a backfill is."""

    day: date
    state: str
    tasks: Counter[str] = field(default_factory=Counter)
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backfill:
    """A backfill that Airflow accepted."""

    backfill_id: int
    dag_id: str
    days: tuple[date, ...]


class AirflowClient:
    """Signed in to one Airflow. Use it as a context manager, or call ``close``.

    Args:
        url: Base URL of the API server.
        user: Name to sign in with.
        password: Its password.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._credentials = {"username": user, "password": password}
        # Not through a proxy that is set for the internet.
        self._http = httpx.Client(base_url=url, timeout=ANSWER_S, trust_env=False)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        """One call below ``/api/v2``, signed in when needed.

        Args:
            method: HTTP method.
            path: Path below ``/api/v2``, quoted.
            body: JSON body.
            **query: Query parameters.

        Returns:
            The decoded answer, None when it is empty.

        Raises:
            AirflowApiError: When Airflow can not be reached or answers with an error.
        """
        answer = self._send(method, path, body, query)
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _refused(method, path, answer)

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Make a pool, or give it that many slots."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        answer = self._post("pools", body, LOCKED, PATIENCE_S)
        if answer.status_code == httpx.codes.CONFLICT:
            self.call("PATCH", f"pools/{quote(name)}", {"pool": name} | {k: body[k] for k in body if k != "name"})
        elif not answer.is_success:
            raise _refused("POST", "pools", answer)

    def import_errors(self) -> dict[str, str]:
        """DAG files that Airflow could not import: file name to stack trace."""
        found = self.call("GET", "importErrors", limit=PAGE)["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def wait_for_dag(self, dag_id: str, timeout_s: float = 120) -> None:
        """Wait until Airflow has found and parsed a DAG.

        Args:
            dag_id: The DAG.
            timeout_s: How long to wait.

        Raises:
            AirflowApiError: When a DAG file can not be imported (with the stack trace), or after the timeout.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._send("GET", f"dags/{quote(dag_id)}", None, {})
            if answer.is_success and not answer.json()["is_stale"]:
                return
            if not answer.is_success and answer.status_code != httpx.codes.NOT_FOUND:
                raise _refused("GET", f"dags/{dag_id}", answer)
            late = time.monotonic() > deadline
            for file, trace in self.import_errors().items():
                # Other pipelines' files may be wrong without harm.
                if late or not file.endswith(PIPELINE_FILES):
                    raise AirflowApiError(f"{file} can not be imported, so {dag_id!r} is unknown:\n{trace}")
            if late:
                raise AirflowApiError(
                    f"Airflow has found no DAG {dag_id!r} within {timeout_s:.0f} s; is its pipeline file in the "
                    "folder of pipelines ('mfh doctor' shows which)?"
                )
            time.sleep(1)

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run; a backfill of a paused one stays queued."""
        self.call("PATCH", f"dags/{quote(dag_id)}", {"is_paused": False}, update_mask="is_paused")

    def create_backfill(
        self,
        dag_id: str,
        first: date,
        last: date,
        zone: ZoneInfo,
        *,
        max_active_runs: int = 1,
        reprocess_behavior: Reprocess = "none",
        run_backwards: bool = False,
        conf: dict[str, Any] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Backfill:
        """Create a backfill of the days ``first`` to ``last``, both included: the call that the UI makes.

        Airflow selects the runs whose interval starts between two moments, both included; those are the
        local midnights that begin ``first`` and ``last``.

        Args:
            dag_id: The DAG.
            first: First day.
            last: Last day.
            zone: The feed's time zone.
            max_active_runs: How many days may run at once.
            reprocess_behavior: Which days that ran before run again: none, the failed ones, all completed ones.
            run_backwards: The newest day first.
            conf: Parameters of the runs.
            patience_s: How long to go on trying while an earlier backfill of this DAG has not ended (Airflow marks
                one as ended up to half a minute after its last run) or while SQLite is locked by the scheduler.

        Returns:
            What Airflow accepted.

        Raises:
            AirflowApiError: When Airflow refuses: an unknown DAG, days in the future, none that has ended.
        """
        body = {
            "dag_id": dag_id,
            "from_date": midnight(first, zone).isoformat(),
            "to_date": midnight(last, zone).isoformat(),
            "max_active_runs": max_active_runs,
            "reprocess_behavior": reprocess_behavior,
            "run_backwards": run_backwards,
            "dag_run_conf": conf or {},
        }
        # A conflict is another backfill that is about to end.
        answer = self._post("backfills", body, (httpx.codes.CONFLICT, *LOCKED), patience_s)
        if not answer.is_success:
            raise _refused("POST", f"backfills of {dag_id} for {first} to {last}", answer)
        return Backfill(answer.json()["id"], dag_id, tuple(day_range(first, last)))

    def change_backfill(self, backfill: Backfill, change: Literal["pause", "unpause", "cancel"]) -> None:
        """Pause a backfill, go on with it, or give it up; runs that have started go on to their end."""
        self.call("PUT", f"backfills/{backfill.backfill_id}/{change}")

    def runs(self, dag_id: str) -> list[DagRun]:
        """All runs of a DAG, in the order of their days."""
        found = self._pages(f"dags/{quote(dag_id)}/dagRuns", "dag_runs")
        runs = [DagRun(dag_id, run["dag_run_id"], run["state"], _moment(run["data_interval_start"])) for run in found]
        return sorted(runs, key=lambda run: (run.start.timestamp() if run.start else 0.0, run.run_id))

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskRun]:
        """The task instances of a run, in Airflow's order."""
        found = self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        return [
            TaskRun(
                dag_id=dag_id,
                run_id=run_id,
                task_id=task["task_id"],
                map_index=task["map_index"],
                try_number=task["try_number"],
                state=task["state"] or "none",
                duration_s=task["duration"],
            )
            for task in found
        ]

    def task_log(self, task: TaskRun, lines: int = 40) -> str:
        """The end of a task's log as plain lines.

        Args:
            task: The task instance; its last try is shown.
            lines: How many lines.

        Returns:
            The lines, with the exception of a failure written out.
        """
        path = f"{_run_path(task.dag_id, task.run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.try_number}"
        content = self.call("GET", path, full_content=True, map_index=task.map_index)["content"]
        text = "\n".join(_log_lines(entry) for entry in content)
        return "\n".join(text.splitlines()[-lines:])

    def wait_backfill(
        self,
        backfill: Backfill,
        zone: ZoneInfo,
        *,
        notify: Callable[[list[DayProgress]], None] = lambda progress: None,
        check: Callable[[], None] = lambda: None,
        timeout_s: float = 3_600,
        poll_s: float = 2.0,
    ) -> dict[date, DagRun]:
        """Wait until every day of a backfill has succeeded or failed.

        The runs are watched, not the backfill itself, which Airflow marks as ended half a minute later.

        Args:
            backfill: What ``create_backfill`` returned.
            zone: The feed's time zone.
            notify: Called at each look with the progress of every day.
            check: Called at each look; may raise, for example when a component of Airflow has ended.
            timeout_s: How long to wait.
            poll_s: Seconds between two looks.

        Returns:
            The finished run of each day.

        Raises:
            AirflowApiError: After the timeout, or when Airflow made no run for a day.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            check()
            runs = {day: run for run in self.runs(backfill.dag_id) if (day := run.day(zone)) in backfill.days}
            if missing := [str(day) for day in backfill.days if day not in runs]:
                raise AirflowApiError(
                    f"Airflow made no run of {backfill.dag_id} for {', '.join(missing)}: a day is run only after it "
                    "has ended, and none before the DAG's start date"
                )
            notify([self._progress(day, runs[day]) for day in backfill.days])
            if all(run.state in FINISHED_RUN for run in runs.values()):
                return runs
            if time.monotonic() > deadline:
                states = ", ".join(f"{day} {runs[day].state}" for day in backfill.days)
                raise AirflowApiError(f"the backfill has not ended within {timeout_s:.0f} s: {states}")
            time.sleep(poll_s)

    def _progress(self, day: date, run: DagRun) -> DayProgress:
        tasks = self.task_instances(run.dag_id, run.run_id)
        running = tuple(task.label for task in tasks if task.state == "running")
        return DayProgress(day, run.state, Counter(task.state for task in tasks), running)

    def _pages(self, path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, limit=PAGE, offset=len(found))
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def _post(self, path: str, body: dict[str, Any], passing: Collection[int], patience_s: float) -> httpx.Response:
        """The answer to a POST, asked again for some time while its status is one of those that pass."""
        deadline = time.monotonic() + patience_s
        while True:
            answer = self._send("POST", path, body, {})
            if answer.status_code not in passing or time.monotonic() > deadline:
                return answer
            time.sleep(2)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any]) -> httpx.Response:
        try:
            if "Authorization" not in self._http.headers:
                self._sign_in()
            answer = self._http.request(method, f"/api/v2/{path}", json=body, params=query)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                # The token has expired, or the server came back with other secrets.
                self._sign_in()
                answer = self._http.request(method, f"/api/v2/{path}", json=body, params=query)
        except httpx.TransportError as error:
            raise AirflowApiError(
                f"Airflow at {self._http.base_url} does not answer {method} {path}: {error}"
            ) from error
        return answer

    def _sign_in(self) -> None:
        answer = self._http.post("/auth/token", json=self._credentials)
        if not answer.is_success:
            raise _refused("POST", "auth/token", answer)
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _refused(method: str, path: str, answer: httpx.Response) -> AirflowApiError:
    try:
        detail = answer.json().get("detail", answer.text)
    except ValueError:
        detail = answer.text
    return AirflowApiError(f"Airflow answered {method} {path} with {answer.status_code}: {detail}")


def _run_path(dag_id: str, run_id: str) -> str:
    # Run ids carry ':' and '+'.
    return f"dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _log_lines(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    time_of_day = str(entry.get("timestamp") or "")[11:19]
    lines = [f"{time_of_day} {str(entry.get('level', '')).upper():7} {entry.get('event', '')}"]
    for error in entry.get("error_detail") or []:
        frames = error.get("frames") or []
        lines += [f"    {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}" for frame in frames[-6:]]
        lines.append(f"    {error.get('exc_type')}: {error.get('exc_value')}")
    return "\n".join(lines)
