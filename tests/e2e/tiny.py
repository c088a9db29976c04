"""A pipeline whose day takes seconds, and what a day in one process makes of it: what every executor must make too."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from components.config import Settings, load_pipeline
from components.context import Context
from components.lake import Lake
from tests.conftest import CHECKOUT

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 6)
DAY = date(2024, 1, 4)
NAME = "tiny"
DAG_ID = f"mfh_daily_{NAME}"

PIPELINE: dict[str, Any] = {
    "name": NAME,
    "feed": {
        "kind": "world",
        "first_day": str(FIRST),
        "last_day": str(LAST),
        "users": 250,
        "new_users_per_day": 10,
        "videos": 150,
        "new_videos_per_day": 15,
    },
    # Many small steps with checkpoints between, so that a training can be hit in the middle.
    "train": {"window_days": 1, "epochs": 8, "batch_size": 64, "checkpoint_steps": 50},
    "simulator": {"ensemble": 2, "epochs": 1, "rollouts": 1, "candidates": 10, "max_slots": 10, "shards": 2},
    "decision": {"min_users": 10},
    "sizes": {
        "level0_width": 8,
        "level1": {"kind": "ple", "widths": [8, 8], "experts": 1, "shared": 1},
        "deeper": {"kind": "cgc", "widths": [8], "experts": 1, "shared": 1},
        "tower_widths": [8],
        "small_tower_widths": [8],
    },
}


@dataclass(frozen=True)
class Reference:
    """A day that ran in one process on a folder, undisturbed."""

    context: Context
    day: date
    hashes: dict[str, str]


def write_pipeline(home: Path, **changes: Any) -> Path:
    """Put the pipeline's file where a stack on ``home`` finds it."""
    file = home / "pipelines" / f"{NAME}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(PIPELINE | changes))
    return file


def run_reference(home: Path, day: date) -> Reference:
    """Run a day in one process.

    Its threads and imports stay out of the test's process.
    """
    file = write_pipeline(home)
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MFH_", "AIRFLOW"))}
    env |= {"MFH_HOME": str(home), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "components.cli", "run", "--from", str(day), "--to", str(day)]
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    context = Context(load_pipeline(file), Settings(home=home, lake="", pipelines=""))
    return Reference(context, day, hashes(context, day))


def hashes(context: Context, day: date) -> dict[str, str]:
    """Content hash of every partition of a day, by dataset."""
    found: dict[str, str] = {}
    for lake in (context.data, context.runs):
        for path in lake.fs.glob(lake.path("*", f"ds={day}", "manifest.json")):
            dataset = str(path).split("/")[-3]
            found[dataset] = str(json.loads(lake.fs.cat_file(path))["content_hash"])
    return found


def half_written(lake: Lake) -> list[str]:
    """Files that a writer put aside and left there."""
    return [str(path) for path in lake.fs.find(lake.root) if "_staging" in str(path) or "mfh-checkpoint" in str(path)]
