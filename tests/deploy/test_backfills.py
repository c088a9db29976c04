"""Backfills on a real Airflow: any order, concurrency and way to run days again, and never before the daily run."""

import itertools
import json
import os
import signal
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from components.days import day_range
from deploy.local.client import AirflowApiError, Backfill, DagRun, Reprocess
from tests.deploy.conftest import ZONE, Running
from tests.servers import wait

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

FIRST, LAST = date(2022, 4, 10), date(2022, 4, 13)
ENDED = "2022-05-04"
PATIENCE_S = 420


@dataclass(frozen=True)
class Note:
    """What a task wrote down."""

    dag: str
    day: date
    kind: str
    treatment: str
    begun: float
    ended: float


def notes(running: Running, dag: str) -> list[Note]:
    """What the tasks of a DAG wrote down, in the order in which they began."""
    file = running.seen / "lines.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    # The schedule runs the newest day of a feed that has ended, once, when it finds the DAG.
    found = [Note(one[0], date.fromisoformat(one[1]), *one[2:]) for one in lines if one[0] == dag and one[1] != ENDED]
    return sorted(found, key=lambda note: note.begun)


def finish(running: Running, backfill: Backfill) -> dict[date, DagRun]:
    return running.client.wait_backfill(backfill, ZONE, check=running.stack.check, timeout_s=PATIENCE_S, poll_s=0.5)


def task_of(running: Running, run: DagRun) -> dict[str, Any]:
    """The one task of a run, as Airflow has it."""
    path = f"dags/{run.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/speak"
    task: dict[str, Any] = running.client.call("GET", path)
    return task


@pytest.mark.parametrize(("backwards", "dag"), [(False, "trivial_0"), (True, "trivial_1")])
def test_days_run_in_either_order(running: Running, backwards: bool, dag: str) -> None:
    backfill = running.client.create_backfill(dag, FIRST, LAST, ZONE, run_backwards=backwards)
    finish(running, backfill)
    days = list(day_range(FIRST, LAST))
    assert [note.day for note in notes(running, dag)] == (days[::-1] if backwards else days)


def test_no_more_days_run_at_once_than_allowed(running: Running) -> None:
    last = FIRST + timedelta(days=5)
    finish(running, running.client.create_backfill("slow", FIRST, last, ZONE, max_active_runs=2))
    found = notes(running, "slow")
    assert sorted(note.day for note in found) == list(day_range(FIRST, last))
    moments = sorted(itertools.chain.from_iterable([(note.begun, 1), (note.ended, -1)] for note in found))
    at_once = list(itertools.accumulate(change for _, change in moments))
    assert max(at_once) == 2


def test_days_that_ran_run_again_only_as_asked(running: Running) -> None:
    dag, bad = "trivial_2", FIRST + timedelta(days=1)
    marker = running.seen / f"{dag}-{bad}-fails"
    marker.touch()
    first = finish(running, running.client.create_backfill(dag, FIRST, LAST, ZONE, max_active_runs=4))
    assert [day for day, run in first.items() if run.state == "failed"] == [bad]
    marker.unlink()

    def again(mode: Reprocess) -> list[date]:
        before = len(notes(running, dag))
        # The end is marked some time after the last run; the client waits for that.
        backfill = running.client.create_backfill(
            dag, FIRST, LAST, ZONE, max_active_runs=4, reprocess_behavior=mode, conf={"treatment": "ple"}
        )
        finish(running, backfill)
        return sorted(note.day for note in notes(running, dag)[before:])

    assert again("failed") == [bad]
    assert again("completed") == list(day_range(FIRST, LAST))
    assert {note.treatment for note in notes(running, dag)[-4:]} == {"ple"}, "the parameters of the last backfill"
    runs = {run.day(ZONE): run.run_id for run in running.client.runs(dag)}
    assert runs == {day: run.run_id for day, run in first.items()}, "a day keeps its run"
    running.client.create_backfill(dag, FIRST, LAST, ZONE)
    assert {run.state for run in running.client.runs(dag)} == {"success"}, "with 'none', days that ran are left alone"
    assert len(notes(running, dag)) == 4 + 1 + 4


def test_parameters_come_with_a_backfill_and_malformed_ones_do_not(running: Running) -> None:
    with pytest.raises(AirflowApiError, match=r"treatment|nobody"):
        running.client.create_backfill("trivial_3", FIRST, FIRST, ZONE, conf={"treatment": "nobody"}, patience_s=5)
    backfill = running.client.create_backfill("trivial_3", FIRST, FIRST, ZONE, conf={"treatment": "ple"})
    finish(running, backfill)
    assert [(note.kind, note.treatment) for note in notes(running, "trivial_3")] == [("backfill", "ple")]


def test_a_backfill_pauses_and_goes_on(running: Running) -> None:
    first, last = date(2022, 4, 20), date(2022, 4, 25)
    backfill = running.client.create_backfill("slow", first, last, ZONE, max_active_runs=1)

    def ran() -> list[date]:
        return [note.day for note in notes(running, "slow") if note.day >= first]

    wait(lambda: len(ran()) >= 1, "the first day", PATIENCE_S)
    running.client.change_backfill(backfill, "pause")
    wait(
        lambda: all(run.state != "running" for run in running.client.runs("slow")),
        "what had started to end",
        PATIENCE_S,
    )
    paused = ran()
    states = {run.day(ZONE): run.state for run in running.client.runs("slow")}
    assert {states[day] for day in day_range(first, last) if day not in paused} == {"queued"}
    running.client.change_backfill(backfill, "unpause")
    runs = finish(running, backfill)
    assert {run.state for run in runs.values()} == {"success"}
    assert ran() == list(day_range(first, last)), "each day once"
    assert len(paused) < len(runs)


def test_a_scheduler_that_is_killed_is_started_again_and_the_backfill_ends(running: Running) -> None:
    first, last = date(2022, 4, 26), date(2022, 4, 29)
    backfill = running.client.create_backfill("slow", first, last, ZONE, max_active_runs=2)
    wait(lambda: any(note.day >= first for note in notes(running, "slow")), "the first day", PATIENCE_S)
    killed = running.stack.pid("scheduler")
    os.kill(killed, signal.SIGKILL)
    runs = finish(running, backfill)
    assert running.stack.pid("scheduler") != killed
    assert {day: run.state for day, run in runs.items()} == dict.fromkeys(day_range(first, last), "success")


def test_the_daily_run_passes_every_day_of_a_backfill_that_waits(running: Running) -> None:
    dag = "waiting"
    running.client.wait_for_dag(dag)
    last = FIRST + timedelta(days=7)
    # Of a paused DAG they stay queued; unpausing starts the newest scheduled run beside them. All want the one GPU.
    backfill = running.client.create_backfill(dag, FIRST, last, ZONE, max_active_runs=8)
    running.client.unpause(dag)
    finish(running, backfill)
    wait(lambda: any(note.kind == "scheduled" for note in notes(running, dag)), "the scheduled run", PATIENCE_S)
    kinds = [note.kind for note in notes(running, dag)]
    assert kinds.count("scheduled") == 1
    assert len(kinds) == len(backfill.days) + 1
    # One day of the backfill may have had the GPU already, and one more been handed to the executor.
    assert kinds.index("scheduled") <= 2, kinds
    weights = {
        run.run_id.partition("__")[0]: task_of(running, run)["priority_weight"] for run in running.client.runs(dag)
    }
    assert weights["scheduled"] > weights["backfill"]


def test_what_backfills_run_stands_in_a_pool_that_leaves_a_slot_to_the_daily_run(running: Running) -> None:
    pools = {pool["name"]: pool for pool in running.client.call("GET", "pools")["pools"]}
    parallelism = int(running.stack.environment()["AIRFLOW__CORE__PARALLELISM"])
    assert pools["backfill"]["slots"] == parallelism - 1
    runs = running.client.runs("trivial_0")
    found = {run.run_id.partition("__")[0]: task_of(running, run)["pool"] for run in runs}
    assert found["backfill"] == "backfill"
    assert found.get("scheduled", "default_pool") == "default_pool"
