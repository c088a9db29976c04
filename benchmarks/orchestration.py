"""What Airflow costs: one day through Airflow on the embedded defaults, against the same day in one process.

Each repetition runs both sides on a fresh lake, one after the other. Airflow's start is not counted: it
happens once, not once a day. Claims: ``orchestration.overhead`` (ratio of wall times), ``orchestration.day_s``.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, Record, record
from components.config import Pipeline, load_pipeline
from components.init import TEMPLATES
from deploy.local.stack import Stack

# The world's default 6,000 users give about 73,000 impressions on its first days.
IMPRESSIONS_PER_USER = 12.2
TARGET = 1.5
STEP_LINE = re.compile(r"step=(\w+) day=\S+ seconds=([\d.]+)")


def run(impressions: int = 1_000_000, repeats: int = 5, port: int = 18_080) -> Record:
    """Measure both sides.

    Args:
        impressions: About so many on the measured day.
        repeats: Repetitions of both sides; medians are reported.
        port: For Airflow's web server.

    Returns:
        Claims, and one row per repetition, side and task.
    """
    first = date(2026, 1, 1)
    day = first + timedelta(days=2)
    rows: list[dict[str, Any]] = []
    walls: dict[str, list[float]] = {"plain": [], "airflow": []}
    exposures = 0
    for repeat in range(repeats):
        for side, measure in (("plain", _plain), ("airflow", _airflow)):
            with tempfile.TemporaryDirectory(prefix="mfh-bench-") as folder:
                home = Path(folder)
                pipeline = _write_pipeline(home, first, day, impressions)
                wall, tasks, exposures = measure(home, pipeline, day, port)
                walls[side].append(wall)
                rows.append({"repeat": repeat, "side": side, "task": "day", "seconds": wall})
                rows += [{"repeat": repeat, "side": side, "task": name, "seconds": s} for name, s in tasks.items()]
    plain, airflow = (statistics.median(walls[side]) for side in ("plain", "airflow"))
    overhead = airflow / plain
    added = _added_per_task(rows)
    claims = [
        Claim(
            name="orchestration.overhead",
            value=overhead,
            unit="x",
            target=f"<= {TARGET}",
            holds=overhead <= TARGET,
            how=f"day through Airflow {airflow:.0f} s over one process {plain:.0f} s, median of {repeats}",
        ),
        Claim(name="orchestration.day_s", value=airflow, unit="s", how=f"through Airflow, {exposures} impressions"),
        Claim(
            name="orchestration.added_per_task_s",
            value=added,
            unit="s",
            how="median over tasks of task instance seconds minus the same step's seconds in one process",
        ),
    ]
    config = {"impressions": exposures, "window_days": 1, "repeats": repeats, "day": day.isoformat()}
    return record(config, claims, rows)


def _write_pipeline(home: Path, first: date, day: date, impressions: int) -> Pipeline:
    text = (TEMPLATES / "world.yaml").read_text(encoding="utf-8")
    users = round(impressions / IMPRESSIONS_PER_USER)
    text = re.sub(r"last_day: .*", f"last_day: {day}\n  users: {users}\n  new_users_per_day: {users // 100}", text)
    text = re.sub(r"window_days: \d+", "window_days: 1", text)
    target = home / "pipelines" / "world.yaml"
    target.parent.mkdir(parents=True)
    target.write_text(text, encoding="utf-8")
    return load_pipeline(target)


def _plain(home: Path, pipeline: Pipeline, day: date, _port: int) -> tuple[float, dict[str, float], int]:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "components.cli", "run", "--from", str(day), "--to", str(day)],
        env=os.environ | {"MFH_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"mfh run failed:\n{done.stderr[-3000:]}")
    tasks: dict[str, float] = {}
    for name, seconds in STEP_LINE.findall(done.stderr):
        tasks[name] = tasks.get(name, 0.0) + float(seconds)
    rows = re.search(r"step=ingest .*? rows=(\d+)", done.stderr)
    return wall, tasks, int(rows[1]) if rows else 0


def _airflow(home: Path, pipeline: Pipeline, day: date, port: int) -> tuple[float, dict[str, float], int]:
    from components.config import Settings
    from components.lake import Lake

    dag_id = f"mfh_daily_{pipeline.name}"
    with Stack(home, port) as stack, stack.client() as client:
        client.wait_for_dag(dag_id)
        client.unpause(dag_id)
        began = time.perf_counter()
        backfill = client.create_backfill(dag_id, day, day, pipeline.feed.zone)
        run_id = ""
        while True:
            state = [run for run in client.runs(dag_id) if run.day(pipeline.feed.zone) == day]
            if state and state[0].state in ("success", "failed"):
                run_id = state[0].run_id
                break
            stack.check()
            time.sleep(0.5)
        wall = time.perf_counter() - began
        if state[0].state == "failed":
            raise RuntimeError(f"backfill {backfill.backfill_id} failed, see {stack.log_file('scheduler')}")
        tasks: dict[str, float] = {}
        for task in client.task_instances(dag_id, run_id):
            tasks[task.task_id] = tasks.get(task.task_id, 0.0) + (task.duration_s or 0.0)
    lake = Lake.open(Settings(home=home)).scope(pipeline.source_id)
    return wall, tasks, lake.get("log", day).rows


def _added_per_task(rows: list[dict[str, Any]]) -> float:
    def median(side: str, task: str) -> float:
        seconds: list[float] = [r["seconds"] for r in rows if r["side"] == side and r["task"] == task]
        return statistics.median(seconds)

    names = {r["task"] for r in rows if r["side"] == "plain"} & {r["task"] for r in rows if r["side"] == "airflow"}
    return statistics.median([median("airflow", name) - median("plain", name) for name in sorted(names - {"day"})])
