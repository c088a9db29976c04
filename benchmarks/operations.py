"""What running it every day costs: Airflow's own time per task, backfills side by side, parsing, recovery, memory.

Everything is measured on the embedded stack of ``make run``, with DAGs whose tasks do nothing or sleep, so that the
figures are Airflow's and not the day's. Claims: ``operations.task_overhead_s``, ``operations.backfill_scaling_4``,
``operations.parse_s_200_pipelines``, ``operations.recovery_s``, ``operations.memory_mb``.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from benchmarks.claims import Claim, Record, record
from components.errors import MfhError
from components.init import TEMPLATES
from deploy.local.client import AirflowApiError, AirflowClient
from deploy.local.environment import CHECKOUT
from deploy.local.processes import StackRecord, members
from deploy.local.stack import Stack

FIRST = date(2026, 1, 1)
ZONE = ZoneInfo("UTC")
CONCURRENCIES = (1, 2, 4)
PIPELINES = (1, 50, 200)
CHAIN = 5
SLEEP_S = 4.0
# Airflow kills a DAG file that takes longer.
PARSE_LIMIT_S = 30.0
PATIENCE_S = 300.0

DAGS = f'''
"""DAGs whose tasks do nothing, or sleep."""
import time
from datetime import datetime, timezone

from airflow.sdk import CronDataIntervalTimetable, dag, task


def chain(name, length, seconds, schedule):
    @dag(dag_id=name, schedule=schedule, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
         end_date=datetime(2026, 3, 1, tzinfo=timezone.utc), catchup=False, max_active_runs=8)
    def wire():
        before = None
        for number in range(length):
            @task(task_id=f"task_{{number}}")
            def work():
                time.sleep(seconds)

            one = work()
            if before is not None:
                before >> one
            before = one

    wire()


chain("one", 1, 0.0, None)
chain("chain", {CHAIN}, 0.0, None)
chain("sleeping", 1, {SLEEP_S}, CronDataIntervalTimetable("0 0 * * *", timezone="UTC"))
'''

PARSE = """
import json, resource, time
from airflow.sdk import DAG
begun, used = time.perf_counter(), time.process_time()
import dags.mfh_daily as module
found = [name for name in vars(module) if name.startswith("mfh_daily_")]
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - used, "dags": len(found),
                  "memory_mb": memory}))
"""


def run(days: int = 12, repeats: int = 5, port: int = 18_090) -> Record:
    """Measure.

    Args:
        days: Days of the backfills that are compared.
        repeats: Repetitions of what takes seconds; medians are reported.
        port: For Airflow's web server.

    Returns:
        Claims, and the rows that they come from.
    """
    rows = [row for count in PIPELINES for row in _parse(count, repeats)]
    with tempfile.TemporaryDirectory(prefix="mfh-bench-") as folder:
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "bench.py").write_text(DAGS, encoding="utf-8")
        with _running(Path(folder) / "home", port, dags) as (stack, client):
            rows.append({"what": "memory", "value": _memory_mb(stack), "unit": "MB"})
            rows += _overhead(client, repeats)
            rows += _backfills(stack, client, days)
            rows += _recoveries(stack, client, dags)
    config = {"days": days, "repeats": repeats, "chain": CHAIN, "sleep_s": SLEEP_S}
    return record(config, _claims(rows, days), rows)


def _claims(rows: list[dict[str, Any]], days: int) -> list[Claim]:
    def values(what: str, **wanted: Any) -> list[float]:
        return [row["value"] for row in rows if row["what"] == what and wanted.items() <= row.items()]

    parse = statistics.median(values("parse", pipelines=PIPELINES[-1]))
    one, most = values("backfill", concurrency=1)[0], values("backfill", concurrency=CONCURRENCIES[-1])[0]
    recoveries = {row["fault"]: row["value"] for row in rows if row["what"] == "recovery"}
    worst = max(recoveries, key=lambda fault: recoveries[fault])
    return [
        Claim(
            "operations.task_overhead_s",
            statistics.median(values("overhead")),
            "s",
            how=f"wall time of a chain of {CHAIN} tasks that do nothing, per task",
        ),
        Claim(
            "operations.backfill_scaling_4",
            one / most,
            "x",
            how=f"{days} days of a task that sleeps {SLEEP_S:.0f} s: {one:.0f} s one by one, {most:.0f} s four at once",
        ),
        Claim(
            "operations.parse_s_200_pipelines",
            parse,
            "s",
            target=f"< {PARSE_LIMIT_S:.0f}",
            holds=parse < PARSE_LIMIT_S,
            how="wall time of importing the DAG file, Airflow's own import aside",
        ),
        Claim(
            "operations.recovery_s",
            recoveries[worst],
            "s",
            how=f"longest of the faults ({worst}): from SIGKILL until what was asked for right then was done",
        ),
        Claim("operations.memory_mb", values("memory")[0], "MB", how="PSS of the idle embedded stack"),
    ]


@contextmanager
def _running(home: Path, port: int, dags: Path) -> Iterator[tuple[Stack, AirflowClient]]:
    stack = Stack(home, port, dags=dags, restarts=None)
    with stack, stack.client() as client:
        for name in ("one", "chain", "sleeping"):
            client.wait_for_dag(name)
        yield stack, client


def _parse(pipelines: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Import the DAG file in processes of their own, as Airflow's processor does."""
    template = (TEMPLATES / "world.yaml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="mfh-bench-") as folder:
        home = Path(folder)
        (home / "pipelines").mkdir()
        for number in range(pipelines):
            text = template.replace("name: world", f"name: world_{number}")
            (home / "pipelines" / f"world_{number}.yaml").write_text(text, encoding="utf-8")
        env = {name: text for name, text in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
        env |= {"MFH_HOME": folder, "AIRFLOW_HOME": str(home / "airflow"), "PYTHONPATH": str(CHECKOUT)}
        for _ in range(repeats):
            done = subprocess.run(
                [sys.executable, "-c", PARSE], env=env, cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise MfhError(f"the DAG file could not be imported with {pipelines} pipelines:\n{done.stderr}")
            seen = json.loads(done.stdout.splitlines()[-1])
            row = {"what": "parse", "pipelines": pipelines, "value": seen["seconds"], "unit": "s"}
            yield row | {name: seen[name] for name in ("cpu_s", "dags", "memory_mb")}


def _memory_mb(stack: Stack) -> float:
    found = StackRecord.read(stack.pid_file)
    processes = members(found.leaders.values()) if found else []
    return sum(float(process.memory_full_info().pss) for process in processes) / 1e6


def _trigger(client: AirflowClient, dag_id: str) -> str:
    answer = client.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None})
    return str(answer["dag_run_id"])


def _await_run(stack: Stack | None, client: AirflowClient, dag_id: str, run_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = client.call("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        return run if run["state"] in ("success", "failed") else None

    run = _until(stack, ended)
    if run["state"] != "success":
        raise MfhError(f"the run {run_id} of {dag_id} failed")
    return run


def _until(stack: Stack | None, ready: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """What ``ready`` gives once it gives something; a server that does not answer is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if stack is not None:
            stack.check()
        try:
            found = ready()
        except AirflowApiError:
            found = None
        if found is not None:
            return found
        time.sleep(0.1)
    raise MfhError(f"not within {PATIENCE_S:.0f} s")


def _overhead(client: AirflowClient, repeats: int) -> Iterator[dict[str, Any]]:
    for _ in range(repeats):
        begun = time.monotonic()
        _await_run(None, client, "chain", _trigger(client, "chain"))
        yield {"what": "overhead", "value": (time.monotonic() - begun) / CHAIN, "unit": "s"}


def _backfills(stack: Stack, client: AirflowClient, days: int) -> Iterator[dict[str, Any]]:
    for concurrency in CONCURRENCIES:
        backfill = client.create_backfill(
            "sleeping",
            FIRST,
            FIRST + timedelta(days=days - 1),
            ZONE,
            max_active_runs=concurrency,
            reprocess_behavior="completed",
        )
        begun = time.monotonic()
        # Runs that are reused show their old end until they are queued again.
        _until(
            stack, lambda: {} if any(run.state in ("queued", "running") for run in client.runs("sleeping")) else None
        )
        client.wait_backfill(backfill, ZONE, check=stack.check, timeout_s=3_600, poll_s=0.5)
        yield {"what": "backfill", "concurrency": concurrency, "value": time.monotonic() - begun, "unit": "s"}


def _recoveries(stack: Stack, client: AirflowClient, dags: Path) -> Iterator[dict[str, Any]]:
    """What was asked for at the moment of each kill, and when it was done; beside it, the same undisturbed."""

    def one_run() -> None:
        run = _until(stack, lambda: {"id": _trigger(client, "one")})
        _await_run(stack, client, "one", run["id"])

    def new_dag(name: str) -> None:
        (dags / f"{name}.py").write_text(DAGS.replace('"one"', f'"{name}"').split('chain("chain"')[0], encoding="utf-8")
        _until(stack, lambda: client.call("GET", f"dags/{name}"))

    asked: dict[str, tuple[str | None, Callable[[], None]]] = {
        "none: a run": (None, one_run),
        "scheduler": ("scheduler", one_run),
        "api-server": ("api-server", one_run),
        "none: a new DAG": (None, lambda: new_dag("undisturbed")),
        "dag-processor": ("dag-processor", lambda: new_dag("disturbed")),
    }
    for fault, (component, work) in asked.items():
        if component is not None:
            os.kill(stack.pid(component), signal.SIGKILL)
        begun = time.monotonic()
        work()
        what = "undisturbed" if component is None else "recovery"
        yield {"what": what, "fault": fault, "value": time.monotonic() - begun, "unit": "s"}
