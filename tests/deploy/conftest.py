"""One embedded Airflow for the tests of deploy/: its DAGs take a second, and write down when they ran and with what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from deploy.local.client import AirflowClient
from deploy.local.processes import StackRecord, members
from deploy.local.stack import EMBEDDED_RESTARTS, Stack

ZONE = ZoneInfo("Asia/Shanghai")
START_TIMEOUT_S = 420

DAG = '''
"""DAGs with a zone and a pool. What each task did is a line of a file: dag, day, run's kind, parameter, begin, end."""
import json
import os
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from airflow.sdk import CronDataIntervalTimetable, Param, dag, get_current_context, task

ZONE = "Asia/Shanghai"
FOLDER = Path(os.environ["MFH_HOME"]) / "seen"


def trivial(name, seconds=0.0, growing=False, paused=False):
    @dag(
        dag_id=name,
        schedule=CronDataIntervalTimetable("0 0 * * *", timezone=ZONE),
        start_date=datetime(2022, 4, 1, tzinfo=ZoneInfo(ZONE)),
        end_date=None if growing else datetime(2022, 5, 4, tzinfo=ZoneInfo(ZONE)),
        catchup=False,
        max_active_runs=4,
        is_paused_upon_creation=paused,
        params={"treatment": Param("mfh", type="string", enum=["mfh", "ple"])},
    )
    def wire():
        @task(pool="gpu" if growing else "default_pool")
        def speak(data_interval_start=None):
            context = get_current_context()
            day = data_interval_start.astimezone(ZoneInfo(ZONE)).date().isoformat()
            begun = time.time()
            time.sleep(seconds)
            run = context["dag_run"]
            line = [name, day, run.run_type.value, context["params"]["treatment"], begun, time.time()]
            FOLDER.mkdir(exist_ok=True)
            with (FOLDER / "lines.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\\n")
            if (FOLDER / f"{name}-{day}-fails").exists():
                raise ValueError(f"nothing was logged on {day}")
            return day

        speak()

    wire()


for number in range(4):
    trivial(f"trivial_{number}")
trivial("trivial")
trivial("failing")
trivial("slow", seconds=2.0)
trivial("waiting", seconds=1.5, growing=True, paused=True)
'''


@dataclass
class Running:
    """An embedded Airflow, and what its tasks wrote down."""

    stack: Stack
    client: AirflowClient

    @property
    def seen(self) -> Path:
        """Folder of the notes."""
        return self.stack.home / "seen"


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Running]:
    """The stack of ``make run`` with the DAGs above."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "trivial.py").write_text(DAG)
    # The failing day of the tests fails from the start.
    (folder / "home" / "seen").mkdir(parents=True)
    (folder / "home" / "seen" / "failing-2022-05-02-fails").touch()
    stack = Stack(folder / "home", free_port(), dags=folder / "dags", restarts=EMBEDDED_RESTARTS)
    stack.start(START_TIMEOUT_S)
    record = StackRecord.read(stack.pid_file)
    assert record is not None
    try:
        with stack.client() as client:
            client.wait_for_dag("trivial")
            yield Running(stack, client)
    finally:
        stack.stop()
    assert members(record.leaders.values()) == []
    assert stack.running_port() is None
    assert not stack.pid_file.exists()
