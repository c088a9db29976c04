"""What a gate costs: a synthetic day's log through ours, and through Great Expectations' own pandas path.

Every measurement is a process of its own, so that its peak memory (VmHWM) is its own; imports are counted apart.
Both sides read the same Parquet file and end with a checkpoint's Data Docs page. Ours answers more expectations (all
that a day with a week behind it has), theirs are 40 about the same rows: nulls, ranges, sets, one compound key.

Claims: ``validation.seconds``, ``validation.memory_gib``, ``validation.rows_per_s``, ``validation.vs_gx_pandas``
(all of ours over their 40), ``validation.vs_gx_pandas_per_expectation``, ``validation.memory_vs_gx_pandas``; with a
large day ``validation.growth`` (cost per row, large over small) and ``validation.large_memory_gib``.
"""

import re
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.claims import Claim
from components.config import Pipeline, parse_pipeline
from components.feed.schema import BEHAVIOURS, LOG, USERS, VIDEOS

if TYPE_CHECKING:
    from great_expectations.expectations import Expectation

DAY = date(2026, 3, 2)
BLOCK = 131_072
PER_SESSION, PER_USER = 16, 32
VIDEO_COUNT = 5_000
TARGET_S, TARGET_GIB = 10.0, 2.0
TARGET_GROWTH = 1.5
DAYS_BEHIND = 7

Notify = Callable[[int, int, str], None]


def speed(rows: int, large: int, repeats: int, notify: Notify) -> tuple[list[Claim], list[dict[str, Any]]]:
    """Measure both sides, alternating.

    Args:
        rows: Of the day that both sides judge.
        large: Of a day that ours judges once, 0 for none.
        repeats: Repetitions; medians are reported.
        notify: Called while it works.

    Returns:
        Claims, and a row per measurement.
    """
    measured: list[dict[str, Any]] = []
    total = 2 * repeats + bool(large)
    with tempfile.TemporaryDirectory(prefix="mfh-bench-") as name:
        folder = Path(name)
        write_day(folder / "small", rows)
        for repeat in range(repeats):
            for side in ("ours", "gx_pandas"):
                notify(len(measured), total, f"{side} {rows:,} rows")
                measured.append(_apart(side, folder / "small") | {"repeat": repeat})
        if large:
            notify(len(measured), total, f"write {large:,} rows")
            write_day(folder / "large", large)
            measured.append(_apart("ours", folder / "large") | {"repeat": 0})
    notify(total, total, "measured")
    return _claims(measured, rows, large), measured


def _claims(measured: list[dict[str, Any]], rows: int, large: int) -> list[Claim]:
    def middle(side: str, key: str) -> float:
        return float(statistics.median(one[key] for one in measured if one["side"] == side and one["rows"] == rows))

    seconds, memory = middle("ours", "seconds"), middle("ours", "gib")
    whole = seconds + middle("ours", "import_s")
    expectations = measured[0]["expectations"]
    how = f"{rows:,} rows x {len(LOG)} columns, {expectations:.0f} expectations, two threads, median over processes"
    found = [
        Claim(
            *("validation.seconds", whole, "s"),
            target=f"<= {TARGET_S:g}",
            holds=whole <= TARGET_S,
            how=f"{how}, imports included",
        ),
        Claim("validation.memory_gib", memory, "GiB", target=f"<= {TARGET_GIB:g}", holds=memory <= TARGET_GIB, how=how),
        Claim("validation.rows_per_s", rows / seconds, "rows/s", how=f"{how}, imports not counted"),
        Claim(
            *("validation.vs_gx_pandas", middle("gx_pandas", "cpu_s") / middle("ours", "cpu_s"), "x"),
            how="Great Expectations over pandas with 40 expectations, its CPU seconds over ours with all of a day",
        ),
        Claim(
            "validation.vs_gx_pandas_per_expectation",
            middle("gx_pandas", "cpu_s")
            / middle("gx_pandas", "expectations")
            / (middle("ours", "cpu_s") / expectations),
            "x",
            how="the same for one expectation",
        ),
        Claim("validation.memory_vs_gx_pandas", middle("gx_pandas", "gib") / memory, "x", how="peak over peak"),
    ]
    if large:
        (big,) = (one for one in measured if one["rows"] == large)
        growth = big["seconds"] / large / (seconds / rows)
        found += [
            Claim(
                *("validation.growth", growth, "x"),
                target=f"<= {TARGET_GROWTH:g}",
                holds=growth <= TARGET_GROWTH,
                how=f"cost per row at {large:,} rows over that at {rows:,}",
            ),
            Claim("validation.large_memory_gib", big["gib"], "GiB", how=f"peak of the process at {large:,} rows"),
        ]
    return found


def write_day(folder: Path, rows: int, seed: int = 1) -> None:
    """Write a plausible day: sessions of 16 impressions, two a user, behaviours that follow from watching.

    Args:
        folder: Takes ``log.parquet``, ``users.parquet`` and ``videos.parquet``.
        rows: Of the log.
        seed: Of the draws.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    length = np.exp(rng.normal(10.5, 0.7, VIDEO_COUNT)).astype(np.int64) + 1_000
    users = -(-rows // PER_USER)
    long_ago = np.datetime64("2025-06-01T00:00:00", "us")
    videos = {
        "video_id": np.arange(VIDEO_COUNT),
        "uploaded_at": pa.array(np.full(VIDEO_COUNT, long_ago), VIDEOS.field("uploaded_at").type),
        "creator_id": np.arange(VIDEO_COUNT) % 100,
        "topic": [f"t{one % 20}" for one in range(VIDEO_COUNT)],
        "duration_ms": length,
    }
    people = {
        "user_id": np.arange(users),
        "registered_at": pa.array(np.full(users, long_ago), USERS.field("registered_at").type),
    }
    pq.write_table(pa.table(videos, schema=VIDEOS), folder / "videos.parquet")
    pq.write_table(pa.table(people, schema=USERS), folder / "users.parquet")
    with pq.ParquetWriter(folder / "log.parquet", LOG, compression="zstd") as writer:
        for first in range(0, rows, BLOCK):
            writer.write_table(_block(rng, np.arange(first, min(first + BLOCK, rows)), length))


def _block(rng: np.random.Generator, row: np.ndarray, length: np.ndarray) -> pa.Table:
    size = len(row)
    video = rng.integers(0, VIDEO_COUNT, size)
    watched = np.where(rng.random(size) < 0.1, 0, rng.gamma(0.6, 0.5, size) * length[video]).astype(np.int64)
    finish = watched >= length[video]
    # Two sessions a user, at other hours of the day; an impression every two minutes at most.
    session = row // PER_SESSION
    start = np.datetime64(DAY, "us") + ((session * 7_919) % (23 * 3_600)).astype("timedelta64[s]")
    time_of = start + (row % PER_SESSION * 100).astype("timedelta64[s]")
    drawn = {name: rng.random(size) < 0.02 for name in BEHAVIOURS}
    labels = drawn | {
        "click": watched > 0,
        "finish": finish,
        "skip": (watched < 3_000) & ~finish,
        "long_view": watched > 18_000,
    }
    columns = {
        "user_id": row // PER_USER,
        "video_id": video,
        "creator_id": video % 100,
        "session_id": session,
        "position": (row % PER_SESSION).astype(np.int32),
        "event_time": pa.array(time_of, LOG.field("event_time").type),
        "watch_ms": np.minimum(watched, 99_000),
        "duration_ms": length[video],
        **{name: values.astype(np.int8) for name, values in labels.items()},
        "surface": pa.array(np.where(rng.random(size) < 0.2, "search", "feed")),
        "is_random": rng.random(size) < 0.05,
        "propensity": rng.uniform(0.01, 0.9, size),
    }
    columns["finish"] = (columns["watch_ms"] >= length[video]).astype(np.int8)
    columns["skip"] = ((columns["watch_ms"] < 3_000) & (columns["finish"] == 0)).astype(np.int8)
    return pa.table(columns, schema=LOG)


def _apart(side: str, folder: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, side, folder).result()


def _measure(side: str, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    work = _ours if side == "ours" else _gx_pandas
    _import(side)
    imported, busy = time.perf_counter(), time.process_time()
    expectations, page = work(folder)
    done = time.perf_counter()
    return {
        "side": side,
        "rows": pq.ParquetFile(folder / "log.parquet").metadata.num_rows,
        "expectations": expectations,
        "page_bytes": page,
        "import_s": imported - began,
        "seconds": done - imported,
        # Tells how much of the seconds was waiting, where other programs had the processors.
        "cpu_s": time.process_time() - busy,
        "import_cpu_s": busy,
        "gib": _peak_gib(),
    }


def _import(side: str) -> None:
    from components.validation.engine import checkpoint
    from components.validation.outcome import within

    # Ours imports Great Expectations when it first needs it.
    checkpoint("warm", side, [within("log", "warm", 1, low=1, rule="a first use")])


def _pipeline() -> Pipeline:
    return parse_pipeline({"name": "bench", "feed": {"kind": "world", "first_day": DAY}}, where="benchmark")


def _ours(folder: Path) -> tuple[int, int]:
    import pyarrow.dataset as ds

    from components.validation.engine import checkpoint
    from components.validation.log_gate import Day, check_log

    users, videos = (pq.read_table(folder / f"{name}.parquet") for name in ("users", "videos"))
    day = Day(DAY, ds.dataset(folder / "log.parquet"), users, videos, {})
    # A week behind it, as a day of an old feed has: the small day's own numbers, dated back.
    small = folder.parent / "small"
    known, catalogue = (pq.read_table(small / f"{name}.parquet") for name in ("users", "videos"))
    head = pq.ParquetFile(small / "log.parquet").read_row_group(0)
    before = check_log(Day(DAY, head, known, catalogue, {}), _pipeline(), []).summary
    assert before is not None
    behind = [replace(before, day=DAY - timedelta(days=back)) for back in range(1, DAYS_BEHIND + 1)]
    verdict = check_log(day, _pipeline(), behind)
    _, page = checkpoint("validation_log", "benchmark", verdict.outcomes)
    return len(verdict.outcomes), len(page)


def _gx_pandas(folder: Path) -> tuple[int, int]:
    import great_expectations as gx
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    frame = pq.read_table(folder / "log.parquet").to_pandas()
    suite = _forty()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("log")
    batch = asset.add_batch_definition_whole_dataframe("day")
    expectations = context.suites.add(gx.ExpectationSuite(name="log", expectations=suite))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="log", data=batch, suite=expectations))
    point = context.checkpoints.add(gx.Checkpoint(name="log", validation_definitions=[definition]))
    (result,) = point.run(batch_parameters={"dataframe": frame}).run_results.values()
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=False).render(result))
    return len(suite), len(page)


def _forty() -> list["Expectation"]:
    """What a person would write on the log's rows."""
    import great_expectations.expectations as gxe

    suite: list[Expectation] = [
        gxe.ExpectTableColumnsToMatchSet(column_set=list(LOG.names), exact_match=True),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["session_id", "position"]),
    ]
    suite += [gxe.ExpectColumnValuesToNotBeNull(column=name) for name in LOG.names]
    suite += [gxe.ExpectColumnValuesToBeInSet(column=name, value_set=[0, 1]) for name in BEHAVIOURS]
    suite += [
        gxe.ExpectColumnValuesToBeBetween(column="watch_ms", min_value=0, max_value=21_600_000),
        gxe.ExpectColumnValuesToBeBetween(column="duration_ms", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="position", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="propensity", min_value=0, max_value=1, strict_min=True),
        gxe.ExpectColumnValuesToBeBetween(column="user_id", min_value=0),
        gxe.ExpectColumnValuesToBeBetween(column="video_id", min_value=0),
    ]
    return suite


def _peak_gib() -> float:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", text)
    return int(kib) / 2**20
