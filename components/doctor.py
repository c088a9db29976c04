"""Doctor: what a machine needs for the pipeline, checked one by one, with how to mend what is not right.

Light imports only: it must work where half of the packages are missing.
"""

import os
import platform
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from components.config import FilesFeed, KuaiRandFeed, Pipeline, Settings
from components.masking import mask

MIN_PYTHON = (3, 11)
MIN_FREE_GB = 3.0
LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
# What the pipeline's results and Airflow's peace depend on; the other pins are theirs.
WATCHED = (
    "apache-airflow",
    "torch",
    "feast",
    "great-expectations",
    "pyarrow",
    "numpy",
    "pandas",
    "scipy",
    "duckdb",
    "mlflow-skinny",
    "pydantic",
    "fastapi",
    "sqlalchemy",
)


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        ok: Whether it is right; None for what is only worth knowing.
        detail: What was found.
        mend: What to do, empty when nothing has to be done.
    """

    name: str
    ok: bool | None
    detail: str
    mend: str = ""


def checkup(settings: Settings, pipeline: Pipeline | None, port: int) -> list[Check]:
    """Look at everything that a run on this machine needs.

    Args:
        settings: Where things live.
        pipeline: Whose data is looked for, None when there is no pipeline file yet.
        port: Where the UI would listen.

    Returns:
        The findings, in the order in which they matter.
    """
    # It shares this module's record.
    from components.doctor_operations import operations_checks

    return [
        check_python(),
        *check_packages(LOCK),
        check_disk(settings.home),
        check_home(settings.home),
        check_lake(settings),
        check_pipeline(settings, pipeline),
        *([] if pipeline is None else [check_data(pipeline)]),
        *operations_checks(settings, pipeline),
        check_port(port),
        check_airflow(settings.home),
        check_gpu(),
    ]


def check_python() -> Check:
    """Whether this Python is new enough."""
    found = f"{platform.python_version()} ({sys.executable})"
    wanted = ".".join(map(str, MIN_PYTHON))
    ok = sys.version_info >= MIN_PYTHON
    return Check("python", ok, found, "" if ok else f"install Python {wanted}, then 'make run'")


def check_packages(lock: Path) -> list[Check]:
    """Whether the packages have the versions of the lock.

    Args:
        lock: A requirements file with pins; an installed package has none, then versions are only shown.

    Returns:
        One finding for all that is right, and one for each package that is not.
    """
    pins = read_pins(lock) if lock.is_file() else {}
    findings = []
    right = []
    for name in WATCHED:
        wanted = pins.get(name)
        try:
            found = version(name)
        except PackageNotFoundError:
            findings.append(Check(name, False, "not installed", "'make install' installs it"))
            continue
        # A build for one kind of machine has a local suffix, such as 2.13.0+cpu.
        if wanted is not None and found.partition("+")[0] != wanted:
            mend = "'make install' after removing .venv"
            findings.append(Check(name, False, f"{found}, the lock has {wanted}", mend))
        else:
            right.append(f"{name} {found}")
    how = "as in requirements.lock" if pins else "no requirements.lock to compare with"
    # Without a lock nothing was compared, so nothing is known to be right.
    summary = Check("packages", True if pins and right else None, f"{', '.join(right) or 'none'} ({how})")
    return [summary, *findings]


def read_pins(lock: Path) -> dict[str, str]:
    """Package name to pinned version, of a requirements file."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;+]+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): pin for name, pin in pins}


def check_disk(home: Path) -> Check:
    """Whether a run's lake, models and logs fit."""
    free = shutil.disk_usage(_existing(home)).free / 1e9
    mend = f"free some space, or set MFH_HOME to a folder on another disk ({MIN_FREE_GB:.0f} GB are needed)"
    return Check("disk", free >= MIN_FREE_GB, f"{free:.1f} GB free at {home}", mend if free < MIN_FREE_GB else "")


def check_home(home: Path) -> Check:
    """Whether the machine's folder can be written."""
    place = _existing(home)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Check("home", False, f"{place} can not be written", "set MFH_HOME to a folder of yours")
    return Check("home", True, str(home))


def check_lake(settings: Settings) -> Check:
    """Whether the lake can be written: a small file is put there and removed again."""
    # pyarrow's file systems take a second to import.
    from components.lake import Lake

    root = settings.lake_root
    try:
        lake = Lake.open(settings)
        probe = lake.path("_doctor", f"probe-{uuid4().hex}")
        lake.fs.makedirs(lake.path("_doctor"), exist_ok=True)
        lake.fs.pipe_file(probe, b"probe")
        lake.fs.rm_file(probe)
        if lake.is_local:
            Path(lake.path("_doctor")).rmdir()
    except Exception as error:  # noqa: BLE001 - every object store has errors of its own
        mend = "check MFH_LAKE, MFH_LAKE_ENDPOINT and the keys, or the folder's permissions"
        return Check("lake", False, f"{mask(root)} can not be written: {mask(str(error), settings.secrets)}", mend)
    return Check("lake", True, mask(root))


def check_pipeline(settings: Settings, pipeline: Pipeline | None) -> Check:
    """Whether there is a pipeline file."""
    if pipeline is None:
        return Check("pipeline", None, f"none in {settings.pipelines_dir}", "'mfh init' or 'make run' writes one")
    return Check("pipeline", True, f"{pipeline.name}, feed {pipeline.feed.kind}, config {pipeline.config_hash}")


def check_data(pipeline: Pipeline) -> Check:
    """Whether the feed's folder is there and readable."""
    feed = pipeline.feed
    if not isinstance(feed, KuaiRandFeed | FilesFeed):
        return Check("data", True, f"feed {feed.kind!r} reads no folder")
    folder = Path(feed.folder).expanduser()
    mend = f"set feed.folder of pipeline {pipeline.name!r} to where the logs are"
    if not folder.is_dir():
        return Check("data", False, f"{folder} is not a folder", mend)
    if not os.access(folder, os.R_OK | os.X_OK):
        return Check("data", False, f"{folder} can not be read", "give this user the right to read it")
    files = [path for pattern in ("*.csv", "*.csv.gz", "*.parquet") for path in folder.rglob(pattern)]
    if not files:
        return Check("data", False, f"{folder} holds no CSV or Parquet file", mend)
    unreadable = [path for path in files if not os.access(path, os.R_OK)]
    if unreadable:
        return Check(
            "data", False, f"{len(unreadable)} of {len(files)} files can not be read, first {unreadable[0]}", mend
        )
    return Check(
        "data", True, f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB in {folder}"
    )


def check_port(port: int) -> Check:
    """Whether the UI could listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            mend = f"'make run PORT={port + 1}', or end what listens there ('make stop' if it is this pipeline's)"
            return Check("port", False, f"{port} is taken ({error.strerror})", mend)
    return Check("port", True, f"{port} is free")


def check_airflow(home: Path) -> Check:
    """What there is of an Airflow; the first run makes it."""
    database = home / "airflow" / "airflow.db"
    if not database.exists():
        return Check("airflow", None, f"no database yet; 'make run' makes {database}")
    stat = database.stat()
    changed = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    return Check("airflow", None, f"{database}, {stat.st_size / 1e6:.1f} MB, last written {changed}")


def check_gpu() -> Check:
    """Whether an NVIDIA GPU is here; torch is not imported for it."""
    # The driver's own list: no process and no import needed.
    gpus = Path("/proc/driver/nvidia/gpus")
    try:
        count = len(list(gpus.iterdir()))
    except OSError:
        count = 0
    return Check("gpu", None, f"{count} NVIDIA GPU(s)" if count else "none found; training uses the CPU")


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
