"""The built-in world as Parquet files that a ``files`` feed reads, of any size in bounded memory.

    log/day=2026-01-01/part-00000.parquet        one file per day and block of users, also of
    requests/day=2026-01-01/part-00000.parquet   candidate sets with scores and propensities, and of
    users/day=2026-01-01/part-00000.parquet      users known at the end of the day
    videos/day=2026-01-01/part-00000.parquet     videos known at the end of the day
    pipeline.yaml                                a pipeline over these files
    world.json                                   the world's settings; impressions are null until the feed is whole

A thread takes a block of users through all days. Users share nothing but the videos, so the rows do not depend on the
number of blocks or threads.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from components.config import FilesFeed, TableMapping, WorldFeed
from components.errors import ConfigError, LakeError
from components.feed.schema import ATTRIBUTE_PREFIX, LOG, REQUESTS, USERS, VIDEOS
from components.init import TEMPLATES
from simulator.world import World
from simulator.world_crowd import Crowd
from simulator.world_population import ATTRIBUTES, users_by

BLOCK_USERS = 16_384
_TABLES = ("log", "requests", "users", "videos")
_GROUP_ROWS = 1 << 20
# Columns whose values repeat, by their paths in Parquet, and those that a reader searches by.
_REPEATED = (
    *("user_id", "session_id", "video_id", "creator_id", "duration_ms", "surface", "candidates.list.element"),
    *("topic", *ATTRIBUTES),
)
_SEARCHED = ("user_id", "session_id", "video_id", "event_time")
# A list without nulls takes fewer levels to write.
_WRITTEN_REQUESTS = pa.schema(
    [
        (field.name, pa.list_(pa.field("element", field.type.value_type, nullable=False)))
        if pa.types.is_list(field.type)
        else field
        for field in REQUESTS
    ]
)
_PIPELINE, _FACTS = "pipeline.yaml", "world.json"


@dataclass(frozen=True)
class WrittenWorld:
    """What was written.

    Attributes:
        impressions: Rows of the log.
        bytes: Size of all files.
        seconds: Wall time of all of it.
    """

    impressions: int
    bytes: int
    seconds: float


def write_world(
    settings: WorldFeed,
    days: int,
    out: Path,
    shards: int | None = None,
    workers: int | None = None,
    force: bool = False,
    notify: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> WrittenWorld:
    """Write the first days of a world.

    Args:
        settings: The world.
        days: Days from its first one.
        out: Folder that is empty or not there.
        shards: Blocks of users, each one file per day and table; None is about one per 16,384 users, equally
            many per worker.
        workers: Threads; None is one per core.
        force: Replace a world that lies in the folder; other files there are left alone.
        notify: Called with (done, total, what).

    Returns:
        How much was written.

    Raises:
        ConfigError: When the folder is not empty and ``force`` is not given, or it holds no world to replace.
        LakeError: When the folder can not be written.
    """
    began = time.perf_counter()
    threads = workers or os.cpu_count() or 1
    users = users_by(settings, days - 1)
    # A multiple of the threads, so that none of them is idle at the end.
    count = min(users, shards or -(-users // (BLOCK_USERS * threads)) * threads)
    last_day = settings.first_day + timedelta(days=days - 1)
    world = World(settings)
    try:
        _make_room(out, force)
        _write_facts(out, settings, days, None)
        for number in range(days):
            _write(world.catalogue.table(number), _file(out, "videos", settings, number, 0))
        impressions = 0
        with ThreadPoolExecutor(threads) as pool:
            blocks = enumerate(world.crowds(last_day, -(-users // count)))
            written = [pool.submit(_write_block, crowd, days, out, number) for number, crowd in blocks]
            try:
                for done, block in enumerate(as_completed(written)):
                    impressions += block.result()
                    notify(done + 1, len(written), "blocks of users")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        (out / _PIPELINE).write_text(_pipeline_text(settings, days, out), encoding="utf-8")
        _write_facts(out, settings, days, impressions)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    except OSError as error:
        raise LakeError(f"the world can not be written to {out}: {error}; what is there is not whole") from error
    return WrittenWorld(impressions, size, time.perf_counter() - began)


def files_feed(settings: WorldFeed, days: int, out: Path) -> FilesFeed:
    """The feed that reads a written world back.

    Args:
        settings: The world.
        days: Days that were written.
        out: Where.

    Returns:
        The mapping; every column has its own name.
    """

    def mapping(table: str, schema: pa.Schema, attributes: tuple[str, ...] = ()) -> TableMapping:
        columns = {name: name for name in schema.names}
        return TableMapping(path=f"{table}/day={{day}}/*.parquet", columns=columns, attributes=attributes)

    return FilesFeed(
        timezone=settings.timezone,
        first_day=settings.first_day,
        last_day=settings.first_day + timedelta(days=days - 1),
        session_gap_min=settings.session_gap_min,
        skip_below_ms=settings.skip_below_ms,
        max_watch_ms=settings.max_watch_ms,
        folder=str(out.resolve()),
        log=mapping("log", LOG),
        users=mapping("users", USERS, tuple(ATTRIBUTES)),
        videos=mapping("videos", VIDEOS),
        requests=mapping("requests", REQUESTS),
    )


def _make_room(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; --out names a folder")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise ConfigError(f"{out} is not empty; name another folder, or replace the world in it with --force")
        if not (out / _FACTS).is_file():
            raise ConfigError(f"{out} is not empty and holds no world ({_FACTS}) that --force could replace")
        for table in _TABLES:
            shutil.rmtree(out / table, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _write_facts(out: Path, settings: WorldFeed, days: int, impressions: int | None) -> None:
    facts = {"days": days, "impressions": impressions, "feed": settings.model_dump(mode="json")}
    (out / _FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write_block(crowd: Crowd, days: int, out: Path, block: int) -> int:
    """All days of a block of users; how many impressions they were."""
    return sum(_write_day(crowd, day, out, block) for day in range(days))


def _write_day(crowd: Crowd, day: int, out: Path, block: int) -> int:
    if crowd.known(day):
        users = crowd.user_table(day)
        plain = users.rename_columns([name.removeprefix(ATTRIBUTE_PREFIX) for name in users.column_names])
        _write(plain, _file(out, "users", crowd.settings, day, block))
    log, requests = crowd.impressions(day)
    if log.num_rows:
        _write(log, _file(out, "log", crowd.settings, day, block))
        # Scores and probabilities are noise to a compressor; ids of candidates shrink fivefold by their dictionary.
        path = _file(out, "requests", crowd.settings, day, block)
        _write(requests.cast(_WRITTEN_REQUESTS), path, compression="none")
    return int(log.num_rows)


def _file(out: Path, table: str, settings: WorldFeed, day: int, block: int) -> Path:
    return out / table / f"day={settings.first_day + timedelta(days=day)}" / f"part-{block:05}.parquet"


def _write(table: pa.Table, path: Path, compression: str = "zstd") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        path,
        compression=compression,
        use_dictionary=_REPEATED,
        write_statistics=_SEARCHED,
        row_group_size=_GROUP_ROWS,
    )


def _pipeline_text(settings: WorldFeed, days: int, out: Path) -> str:
    """The built-in world's pipeline over these files."""
    feed = files_feed(settings, days, out).model_dump(mode="json", exclude_defaults=True)
    block = yaml.safe_dump({"feed": {"kind": "files", **feed}}, sort_keys=False)
    text = (TEMPLATES / "world.yaml").read_text(encoding="utf-8")
    text = re.sub(r"feed:\n(?: +.*\n)+", lambda _: block, text)
    text = text.replace("name: world\n", "name: world_files\n", 1)
    return text.replace(text.splitlines()[0], "# The built-in world as files, written by 'mfh world'.", 1)
