"""What Airflow's processes read at their start: the order of runs, and what tasks find loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.environment import PRELOAD, airflow_settings
from tests.conftest import CHECKOUT

LOADED = """
import os, sys
import airflow_local_settings
print("colorsys" in sys.modules, "wave" in sys.modules, "MFH_PRELOAD" in os.environ)
"""

ALONE = """
import os, sys, threading
import airflow_local_settings
import torch
ours = [name for name in sys.modules if name.startswith("components")]
print(threading.active_count(), torch.cuda.is_initialized(), ours)
"""


def loads(script: str, home: Path, preload: str, more: str = "") -> str:
    """What a process prints whose Airflow's local settings preload those modules."""
    path = airflow_settings(home, 8_080, CHECKOUT / "dags")["PYTHONPATH"]
    # A file, as Airflow's processes are: PySpark takes a text for a run of its doctests, and exits.
    file = home / "script.py"
    file.write_text(script)
    command = [sys.executable, "-P", str(file)]
    env = {"PYTHONPATH": f"{path}:{more}", "MFH_PRELOAD": preload, "HOME": str(home)}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("preload", "loaded"), [("colorsys", (True, False)), ("colorsys,wave", (True, True)), ("", ())]
)
def test_what_forks_tasks_imports_what_it_is_told_and_its_tasks_do_not(
    tmp_path: Path, preload: str, loaded: tuple[bool, ...]
) -> None:
    expected = (*(loaded or (False, False)), False)
    assert loads(LOADED, tmp_path, preload) == " ".join(map(str, expected))


def test_a_module_that_ends_the_process_is_named(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        loads(LOADED, tmp_path, "leaves", str(tmp_path))
    assert "ImportError: leaves of MFH_PRELOAD ends this process" in caught.value.stderr


def test_what_is_preloaded_can_be_forked(tmp_path: Path) -> None:
    # A thread would not live on in a fork, nor an opened GPU; and changed steps are to be read by the next task.
    assert loads(ALONE, tmp_path, PRELOAD) == "1 False []"


POLICY = """
from types import SimpleNamespace as Made
from airflow_local_settings import task_instance_mutation_hook as hook
daily = Made(run_id="scheduled__2026", priority_weight=3, pool="default_pool")
backfill = Made(run_id="backfill__2026", priority_weight=17, pool="default_pool")
reused = Made(run_id="scheduled__2025", priority_weight=17, pool="gpu")
for _ in range(3):
    hook(daily, None), hook(backfill, None), hook(reused, Made(backfill_id=7))
for one in (daily, backfill, reused):
    print(one.priority_weight, one.pool)
"""


def test_the_policy_puts_whatever_is_no_backfill_first_and_says_so_only_once(tmp_path: Path) -> None:
    path = airflow_settings(tmp_path, 8_080, CHECKOUT / "dags")["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", POLICY],
        env={"PYTHONPATH": path, "MFH_BACKFILL_POOL": "backfill"},
        capture_output=True,
        text=True,
        check=True,
    )
    weights = [line.split() for line in done.stdout.splitlines()]
    assert weights == [["10003", "default_pool"], ["17", "backfill"], ["17", "gpu"]]
