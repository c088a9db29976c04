"""Airflow on the embedded defaults: started, backfilled by the call that the UI makes, stopped without a trace."""

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Thread

import httpx
import psutil
import pytest

from deploy.local import stack as stack_module
from deploy.local.client import AirflowApiError, DayProgress
from deploy.local.environment import CHECKOUT, process_environment
from deploy.local.processes import Leader, StackRecord, members, spawn, terminate
from deploy.local.stack import COMPONENTS, EMBEDDED_RESTARTS, Stack, StackError
from tests.deploy.conftest import START_TIMEOUT_S, ZONE, Running

FIRST, LAST = date(2022, 4, 28), date(2022, 4, 30)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_backfill_runs_exactly_the_days_asked_for(running: Running) -> None:
    seen: list[list[DayProgress]] = []
    backfill = running.client.create_backfill("trivial", FIRST, LAST, ZONE, max_active_runs=2)
    runs = running.client.wait_backfill(backfill, ZONE, notify=seen.append, check=running.stack.check, timeout_s=420)
    assert {day: run.state for day, run in runs.items()} == dict.fromkeys(backfill.days, "success")
    assert list(backfill.days) == [FIRST, date(2022, 4, 29), LAST]
    backfilled = [run for run in running.client.runs("trivial") if run.run_id.startswith("backfill")]
    assert [run.day(ZONE) for run in backfilled] == list(backfill.days)
    assert [day.tasks["success"] for day in seen[-1]] == [1, 1, 1]


@pytest.mark.parametrize("ahead", [True, False])
def test_a_read_that_is_not_done_keeps_nobody_from_writing(tmp_path: Path, ahead: bool) -> None:
    file = tmp_path / "airflow.db"
    with closing(sqlite3.connect(file)) as reader, closing(sqlite3.connect(file, timeout=0.1)) as writer:
        reader.execute("CREATE TABLE numbers (number)")
        reader.executemany("INSERT INTO numbers VALUES (?)", ((number,) for number in range(9)))
        reader.commit()
        if ahead:
            stack_module.write_ahead(file)
        unread = reader.execute("SELECT number FROM numbers")
        unread.fetchone()
        writer.execute("INSERT INTO numbers VALUES (9)")
        if ahead:
            writer.commit()
        else:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                writer.commit()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_database_of_the_stack_is_read_while_it_is_written(running: Running) -> None:
    with closing(sqlite3.connect(running.stack.home / "airflow" / "airflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_scheduler_alone_and_what_it_forks_have_loaded_what_tasks_need(running: Running) -> None:
    def has_torch(pid: int) -> bool:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()

    scheduler = running.stack.pid("scheduler")
    workers = [child.pid for child in psutil.Process(scheduler).children()]
    assert workers
    assert all(has_torch(pid) for pid in (scheduler, *workers))
    assert not any(has_torch(running.stack.pid(name)) for name in COMPONENTS if name != "scheduler")


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_failed_day_shows_its_log_and_may_be_run_again(running: Running) -> None:
    running.client.wait_for_dag("failing")
    day = date(2022, 5, 2)
    backfill = running.client.create_backfill("failing", day, day, ZONE)
    run = running.client.wait_backfill(backfill, ZONE, timeout_s=420)[day]
    assert run.state == "failed"
    (task,) = running.client.task_instances("failing", run.run_id)
    assert (task.label, task.state) == ("speak", "failed")
    assert "ValueError: nothing was logged on 2022-05-02" in running.client.task_log(task)
    # An earlier backfill is marked as ended some time after its last run; the client waits for that.
    again = running.client.create_backfill("failing", day, day, ZONE, reprocess_behavior="failed")
    assert running.client.wait_backfill(again, ZONE, timeout_s=420)[day].run_id == run.run_id
    (task,) = running.client.task_instances("failing", run.run_id)
    assert task.try_number == 2


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_what_airflow_refuses_is_said(running: Running) -> None:
    with pytest.raises(AirflowApiError, match=r"404.*nowhere"):
        running.client.create_backfill("nowhere", FIRST, LAST, ZONE)
    broken = running.stack.dags / "broken.py"
    broken.write_text("from airflow.sdk import dag\nimport no_such_module\n")
    try:
        with pytest.raises(AirflowApiError, match=r"(?s)broken\.py can not be imported.*no_such_module"):
            running.client.wait_for_dag("broken", timeout_s=90)
    finally:
        broken.unlink()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_stack_is_private_and_known_to_others(running: Running) -> None:
    stack = running.stack
    assert {pool["name"]: pool["slots"] for pool in running.client.call("GET", "pools")["pools"]}.items() >= {
        "gpu": 1,
        "online_store": 1,
    }.items()
    for name in ("secrets.json", stack.password_file.name):
        assert stat.S_IMODE((stack.home / "airflow" / name).stat().st_mode) == 0o600
    record = StackRecord.read(stack.pid_file)
    assert record is not None
    addresses = {
        connection.laddr.ip
        for process in members(record.leaders.values())
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}
    assert httpx.get(f"{stack.url}/api/v2/dags", trust_env=False).status_code == 401
    other = Stack(stack.home, stack.port + 1, dags=stack.dags)
    assert other.running_port() == stack.port
    with pytest.raises(StackError, match=rf"already runs .*:{stack.port}; .*make stop"):
        other.start()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_component_that_ends_is_named_with_its_log(tmp_path: Path, free_port: Callable[[], int]) -> None:
    # The scheduler dies of a setting that the migration does not read.
    extra = {"AIRFLOW__CORE__EXECUTOR": "no.such.Executor"}
    stack = Stack(tmp_path / "home", free_port(), dags=tmp_path, extra=extra)
    with pytest.raises(StackError, match=r"(?s)Airflow's .* ended with status 1.*stack-.*\.log.*no\.such"):
        stack.start(START_TIMEOUT_S)
    assert stack.running_port() is None
    assert not stack.pid_file.exists()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_what_another_program_stops_is_not_started_again(tmp_path: Path, free_port: Callable[[], int]) -> None:
    said: list[str] = []
    stack = Stack(tmp_path / "home", free_port(), dags=tmp_path, notify=said.append, restarts=EMBEDDED_RESTARTS)
    with stack:
        record = StackRecord.read(stack.pid_file)
        assert record is not None
        stopper = Thread(target=Stack(stack.home, stack.port).stop)
        stopper.start()
        while stopper.is_alive():
            stack.check()
        stack.check()
        assert stack.running_port() is None
        assert members(record.leaders.values()) == []
    assert not [line for line in said if "again" in line]


def test_a_taken_port_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=rf"port {port} .* taken .*make run PORT={port + 1}"):
            Stack(tmp_path / "home", port).start()
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_refused_before_anything_is_made(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_module, "free_gb", lambda path: 1.25)
    with pytest.raises(StackError, match=r"only 1\.2 GB are free .*MFH_HOME"):
        Stack(tmp_path / "home", free_port()).start()
    assert not (tmp_path / "home").exists()


def test_the_environment_is_the_homes_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/elsewhere")
    stack = Stack(tmp_path, 9_123)
    settings = stack.environment()
    assert settings == stack.environment(), "secrets are made once"
    assert settings != Stack(tmp_path / "other", 9_123).environment()
    env = process_environment(settings)
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert "AIRFLOW_CONFIG" not in env
    assert env["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:9123"
    assert env["AIRFLOW__CORE__DAGS_FOLDER"] == str(CHECKOUT / "dags")
    assert env["MFH_HOME"] == str(tmp_path)
    assert "127.0.0.1" in env["NO_PROXY"]


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_orphans_and_stubborn_processes_are_ended(tmp_path: Path) -> None:
    log = tmp_path / "out.log"
    process = spawn([sys.executable, "-c", STUBBORN], os.environ, tmp_path, log)
    leader = Leader.of(process.pid)
    while not log.read_text():
        time.sleep(0.05)
    assert len(members([leader])) == 2
    # As after a crash: the child, in a process group of its own, outlives its parent.
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert leader.process() is None
    assert [orphan.pid for orphan in members([leader])] == [int(log.read_text())]
    terminate({"x": leader}, [("x",)], grace_s=0.2)
    assert members([leader]) == []


def test_a_process_id_that_now_belongs_to_another_program_is_left_alone() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        stale = Leader(other.pid, psutil.Process(other.pid).create_time() - 3_600)
        assert stale.process() is None
        assert members([stale]) == []
        terminate({"x": stale}, [("x",)], grace_s=0.2)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_damaged_pid_file_means_that_nothing_runs(tmp_path: Path, free_port: Callable[[], int]) -> None:
    stack = Stack(tmp_path, free_port())
    stack.pid_file.parent.mkdir()
    stack.pid_file.write_text("{")
    assert stack.running_port() is None
    stack.stop()
    assert not stack.pid_file.exists()


def test_every_component_stops_in_some_stage_and_the_api_server_in_the_last() -> None:
    order = stack_module.stop_order([*COMPONENTS, "worker-gpu", "api-server of pid 7"])
    assert sorted(name for stage in order for name in stage) == sorted(
        [*COMPONENTS, "worker-gpu", "api-server of pid 7"]
    )
    assert order[-1] == ("api-server", "api-server of pid 7")
