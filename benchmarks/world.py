"""How fast the built-in world is written and how much memory that takes: generation, Parquet files, candidate sets.

Every measurement is a process of its own, so that its peak memory (VmHWM) is its own. What compiles is compiled before
the clock starts. The feed goes to a temporary folder and is deleted. Blocks of users are the unit of memory, so the
peak depends on workers and users per block, not on the number of blocks: a run of another size shows it. Rows tell what
other processes took of the machine meanwhile, since two workers need two cores.

Claims: ``world.written_per_s`` (two workers), ``world.one_worker_per_s``, ``world.peak_memory``,
``world.memory_growth``, ``world.cpu_per_impression``, ``world.bytes_per_impression``, ``world.outcomes_s``.
"""

import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims import Claim, Record, record
from components.config import WorldFeed
from components.world_files import BLOCK_USERS, write_world
from simulator.world import World

TARGET_PER_S = 1e6
TARGET_GIB = 8.0
TARGET_IMPRESSIONS = 100_000_000
# The world's impressions per user and day, and what a written one takes, with room to spare.
IMPRESSIONS_PER_USER = 12.2
BYTES_PER_IMPRESSION = 200
# A small world of the trust ladder: some 960 users open the app on a day.
SMALL = WorldFeed(first_day=date(2026, 1, 1), users=1_900, new_users_per_day=20, videos=1_120, new_videos_per_day=80)


def run(
    impressions: int = 10_000_000,
    largest: int = TARGET_IMPRESSIONS,
    days: int = 4,
    repeats: int = 3,
    workers: int = 2,
    folder: Path | None = None,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Record:
    """Measure.

    Args:
        impressions: About so many are written to measure the speed.
        largest: About so many are written once, by the parallel workers, to measure memory.
        days: Days that they are spread over.
        repeats: Repetitions of both numbers of workers; medians are reported.
        workers: Threads of the parallel runs.
        folder: Where the temporary folder is made; None is the system's.
        notify: Called with (done, total, what).

    Returns:
        Claims, and one row per run.

    Raises:
        OSError: When the disk has no room for it.
    """
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    need = max(impressions, largest) * BYTES_PER_IMPRESSION
    if free < need:
        raise OSError(f"{max(impressions, largest)} impressions need {need} bytes of disk; {free} are free")
    plan = [(impressions, count) for _ in range(repeats) for count in (1, workers)] + [(largest, workers)]
    rows = []
    for done, (size, count) in enumerate(plan):
        notify(done, len(plan), f"{size} impressions, {count} workers")
        rows.append(_measured(size, days, count, folder))
    notify(len(plan), len(plan), "written")
    config = {
        "impressions": rows[0]["impressions"],
        "largest": rows[-1]["impressions"],
        "days": days,
        "repeats": repeats,
        "workers": workers,
        "block_users": BLOCK_USERS,
        "candidates": WorldFeed(first_day=SMALL.first_day).slot_candidates,
        "outcomes_users": SMALL.users,
    }
    return record(config, _claims(rows, workers, _outcomes_s()), rows)


def _claims(rows: list[dict[str, Any]], workers: int, outcomes_s: float) -> list[Claim]:
    timed, largest = rows[:-1], rows[-1]
    parallel = [row for row in timed if row["workers"] == workers]
    rate = statistics.median(row["per_s"] for row in parallel)
    peak = largest["peak_gib"]
    others = max(row["others_share"] for row in parallel)
    written = "generation and Parquet files with candidate sets, scores and probabilities; median of the repetitions"
    at_target = largest["impressions"] >= 0.98 * TARGET_IMPRESSIONS
    return [
        Claim(
            name="world.written_per_s",
            value=rate,
            unit="impressions/s",
            low=min(row["per_s"] for row in parallel),
            high=max(row["per_s"] for row in parallel),
            target=f">= {TARGET_PER_S:.0e}",
            holds=rate >= TARGET_PER_S,
            how=f"{workers} workers, {written}; interval: slowest and fastest; other processes took up to "
            f"{100 * others:.0f} % of the machine",
        ),
        Claim(
            name="world.one_worker_per_s",
            value=statistics.median(row["per_s"] for row in timed if row["workers"] == 1),
            unit="impressions/s",
            how=f"1 worker, {written}",
        ),
        Claim(
            name="world.peak_memory",
            value=peak,
            unit="GiB",
            target=f"<= {TARGET_GIB:g} at {TARGET_IMPRESSIONS:.0e}",
            holds=peak <= TARGET_GIB if at_target else None,
            how=f"VmHWM of the writing process at {largest['impressions']} impressions, {workers} workers",
        ),
        Claim(
            name="world.memory_growth",
            value=peak / parallel[0]["peak_gib"],
            unit="x",
            how=f"that peak over the peak at {parallel[0]['impressions']} impressions",
        ),
        Claim(
            name="world.cpu_per_impression",
            value=1e6 * statistics.median(row["cpu_seconds"] / row["impressions"] for row in parallel),
            unit="us",
            how=f"processor time of all {workers} workers, which other processes on the machine change little",
        ),
        Claim(
            name="world.bytes_per_impression",
            value=largest["bytes"] / largest["impressions"],
            unit="B",
            how="all files",
        ),
        Claim(
            name="world.outcomes_s",
            value=outcomes_s,
            unit="s",
            how=f"truth of one policy on one day of a world of {SMALL.users} users, its scoring free; median of 9",
        ),
    ]


def _measured(impressions: int, days: int, workers: int, folder: Path | None) -> dict[str, Any]:
    # A fresh process: its peak is that of this run, and threads do not survive a fork.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_write, impressions, days, workers, folder).result()


def _write(impressions: int, days: int, workers: int, folder: Path | None) -> dict[str, Any]:
    users = round(impressions / days / IMPRESSIONS_PER_USER)
    settings = WorldFeed(first_day=SMALL.first_day, users=users, new_users_per_day=users // 100)
    with tempfile.TemporaryDirectory(prefix="mfh-world-", dir=folder) as name:
        write_world(SMALL, 1, Path(name) / "compiled")
        started, busy = time.process_time(), _busy_s()
        written = write_world(settings, days, Path(name) / "feed", workers=workers)
        cpu_s, busy_s = time.process_time() - started, _busy_s() - busy
    return {
        "workers": workers,
        "impressions": written.impressions,
        "seconds": written.seconds,
        "cpu_seconds": cpu_s,
        "per_s": written.impressions / written.seconds,
        "bytes": written.bytes,
        "peak_gib": _peak_gib(),
        "others_share": max(busy_s - cpu_s, 0.0) / (os.cpu_count() or 1) / written.seconds,
    }


def _peak_gib() -> float:
    """Largest resident memory of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise OSError("/proc/self/status tells no VmHWM; peak memory is measured on Linux only")
    return int(found[1]) / 2**20


def _busy_s() -> float:
    """Processor seconds of the whole machine so far that were neither idle nor waiting for a disk."""
    user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


class _Free:
    """A policy whose scores cost nothing."""

    def score(
        self, user_ids: NDArray[np.int64], sessions: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Zeros [N, K]."""
        return np.zeros(candidates.shape)


def _outcomes_s() -> float:
    world, day = World(SMALL), SMALL.first_day + timedelta(days=4)
    world.outcomes(_Free(), day)
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        world.outcomes(_Free(), day)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
