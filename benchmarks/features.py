"""How fast features are built, joined, put online and read, against what one would use otherwise.

At ``scale`` 1: a day of 2 million impressions with a full window of history, a join of 1 million requests with the
whole service, 20,000 entities put online, and requests of one user with 200 videos. Sides of a ratio alternate in one
run.

- ``features.build_vs_rescan``: a day's snapshots from the day's rows and the small partials of earlier days, against
  the same snapshots from all raw days of the window.
- ``features.join_vs_file_store``, ``features.join_memory_vs_file_store``, ``features.join_vs_merge_asof``: the
  point-in-time join through Feast and the lake, against Feast's file (dask) store and pandas on the same rows.
- ``features.materialize_vs_feast.<store>``: rows a second into SQLite, Redis and PostgreSQL, against Feast's own engine
  and its own online store of that kind, over the same lake. ``features.materialize_vs_feast`` is the least of them.
- ``features.read_p99_ms.<store>``: features of one user and 200 videos; ``features.read_p99_ms`` is SQLite's.
- ``features.cost_growth``: a day's build with twice the window of history in the lake, over one with one window.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq

from benchmarks import features_data as data
from benchmarks.claims import Claim, Record, record
from benchmarks.features_join import SIDES
from components.context import Context
from components.days import EVER, bounds
from components.feature_list import LONGEST_WINDOW
from components.features import ENTITIES, PARTIALS, features
from components.materialize import available_at, rows_of
from components.online import OnlineFeatures
from components.online_settings import online_store
from components.store import open_store

if TYPE_CHECKING:
    from feast import FeatureStore

IMPRESSIONS, REQUESTS, KEYS = 2_000_000, 1_000_000, 20_000
CANDIDATES = 200

Notify = Callable[[int, int, str], None]


@dataclass
class Measured:
    """Figures of one run: seconds (or milliseconds, bytes) by what was measured."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, part: str, side: str, value: float, unit: str, **more: Any) -> None:
        """Keep one measurement."""
        self.rows.append({"part": part, "side": side, "value": value, "unit": unit, **more})

    def values(self, part: str, side: str, unit: str) -> list[float]:
        """All measurements of a side."""
        chosen = [row for row in self.rows if (row["part"], row["side"], row["unit"]) == (part, side, unit)]
        return [row["value"] for row in chosen]

    def median(self, part: str, side: str, unit: str) -> float:
        """Median over repetitions."""
        return statistics.median(self.values(part, side, unit))

    def has(self, part: str, side: str, unit: str) -> bool:
        """Whether a side was measured."""
        return bool(self.values(part, side, unit))


def run(
    scale: float = 1.0,
    repeats: int = 5,
    redis: str = "",
    postgres: str = "",
    notify: Notify = lambda done, total, what: None,
) -> Record:
    """Measure everything.

    Args:
        scale: Size, 1 is that of the claims.
        repeats: Of each side; medians are reported.
        redis: A database that may be written to, as ``MFH_ONLINE_STORE`` names it; empty to leave Redis out.
        postgres: The same of PostgreSQL; tables of the benchmark are dropped afterwards.
        notify: Called as work goes on.

    Returns:
        Claims and the measurements that they come from.
    """
    found = Measured()
    impressions, asked, keys = (max(200, round(scale * one)) for one in (IMPRESSIONS, REQUESTS, KEYS))
    with tempfile.TemporaryDirectory(prefix="mfh-bench-") as folder:
        home = Path(folder) / "home"
        context = data.context_at(home)
        notify(0, 5, "logs of the window")
        day = data.build(context, impressions)
        notify(1, 5, "build")
        _builds(found, context, day, repeats)
        notify(2, 5, "join")
        _joins(found, context, day, asked, Path(folder), repeats)
        notify(3, 5, "materialize and read")
        with _stores(Path(folder), redis, postgres) as stores:
            for kind, url, own in stores:
                _online(found, data.context_at(home, url), day, kind, own, keys, Path(folder), repeats)
        notify(4, 5, "twice the history")
        _growth(found, context, day, impressions, repeats)
        refs = len(data.references(open_store(context)))
    notify(5, 5, "features")
    config = {
        "scale": scale,
        "repeats": repeats,
        "impressions": impressions,
        "history_days": LONGEST_WINDOW,
        "requests": asked,
        "features": refs,
        "keys": keys,
        "candidates": CANDIDATES,
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    return record(config, _claims(found, config), found.rows)


def _builds(found: Measured, context: Context, day: date, repeats: int) -> None:
    """The day's snapshots from partials, and from all raw days of the window."""
    window = [day - timedelta(days=one) for one in range(LONGEST_WINDOW)]
    for _ in range(repeats):
        for side, gone in (("partials", [day]), ("rescan", window)):
            for one in gone:
                _forget(context, one)
            found.add("build", side, _seconds(partial(features, context, day)), "s")


def _forget(context: Context, day: date) -> None:
    """Take a day's partials away, as if they had never been made."""
    for name in (name for names in PARTIALS.values() for name in names):
        if context.data.find(name, day) is not None:
            context.data.fs.rm(context.data.path(name, f"ds={day}"), recursive=True)


def _growth(found: Measured, context: Context, day: date, impressions: int, repeats: int) -> None:
    """The same build with one window of history behind it, and with two."""
    later = day + timedelta(days=LONGEST_WINDOW)
    data.write_logs(context, impressions, [day + timedelta(days=one + 1) for one in range(LONGEST_WINDOW)])
    features(context, later)
    for _ in range(repeats):
        for side, one in (("one window", day), ("two windows", later)):
            _forget(context, one)
            found.add("growth", side, _seconds(partial(features, context, one)), "s")


def _joins(found: Measured, context: Context, day: date, asked: int, folder: Path, repeats: int) -> None:
    files = folder / "files"
    files.mkdir()
    data.export(context, day, files)
    pq.write_table(data.requests(context, day, asked), files / "requests.parquet")
    for _ in range(repeats):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.features_join", side, str(context.settings.home), str(files)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                # Out of memory is a result too: the other side did it.
                why = "killed, most likely for want of memory" if done.returncode < 0 else done.stderr[-500:]
                found.add("join", side, float("inf"), "failed", why=why)
                continue
            answer = json.loads(done.stdout.splitlines()[-1])
            found.add("join", side, answer["seconds"], "s", rows=answer["rows"], columns=answer["columns"])
            found.add("join", side, float(answer["bytes"]), "bytes")


Store = tuple[str, str, dict[str, Any]]


@contextmanager
def _stores(folder: Path, redis: str, postgres: str) -> Iterator[list[Store]]:
    """Kind, our URL, and Feast's own configuration of each store that there is; nothing of them is left."""
    stores: list[Store] = [
        ("sqlite", f"sqlite://{folder / 'ours.db'}", {"type": "sqlite", "path": str(folder / "feast.db")})
    ]
    if redis:
        own = online_store(redis, folder / "unused.db")
        stores.append(("redis", redis, {**own, "type": "redis"}))
    if not postgres:
        yield stores
        return
    import psycopg
    from psycopg import sql

    name = f"mfh_bench_{uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = urlsplit(postgres)._replace(path=f"/{name}").geturl()
            own = online_store(url, folder / "unused.db")
            yield [*stores, ("postgres", url, {**own, "type": "postgres"})]
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _online(
    found: Measured,
    context: Context,
    day: date,
    kind: str,
    own: dict[str, Any],
    keys: int,
    folder: Path,
    repeats: int,
) -> None:
    """Materialize users and videos into a store and read them back, by our way and as Feast comes."""
    registry = folder / kind
    registry.mkdir()
    with _smaller(context, day, keys) as snapshot:
        sides = {"ours": open_store(context), "feast": data.feast_store(context, registry, own, None)}
        names = [view.name for view in data._views(sides["ours"])]
        interval = (bounds(day, context.pipeline.feed.zone)[0], available_at(context, day))
        for _ in range(repeats):
            for side, store in sides.items():
                counters = [name for name in names if name.endswith("_counters")]
                seconds = _seconds(partial(store.materialize, *interval, feature_views=counters))
                found.add(f"materialize.{kind}", side, snapshot / seconds, "rows/s")
        for store in sides.values():
            store.materialize(EVER, interval[1], feature_views=[one for one in names if one.endswith("_profile")])
        _reads(found, context, day, kind, sides, keys)
        rows_of(sides["ours"]).teardown(sides["ours"].config, sides["ours"].list_feature_views(), [])
        sides["feast"].teardown()


@contextmanager
def _smaller(context: Context, day: date, keys: int) -> Iterator[int]:
    """The day's snapshots cut to so many entities in all, since Feast's own way takes hours for a full day."""
    kept = {}
    for entity in ENTITIES:
        kept[entity] = context.data.get(f"{entity}_features", day).table()
    cut = {entity: table.slice(0, keys // 2) for entity, table in kept.items()}
    try:
        for entity, table in cut.items():
            with context.data.write(f"{entity}_features", day) as writer:
                writer.table(table)
        yield sum(table.num_rows for table in cut.values())
    finally:
        for entity, table in kept.items():
            with context.data.write(f"{entity}_features", day) as writer:
                writer.table(table)


def _reads(
    found: Measured, context: Context, day: date, kind: str, sides: dict[str, "FeatureStore"], keys: int
) -> None:
    """One user and 200 videos: by our reader, and by Feast's ``get_online_features`` from either store."""
    moment = available_at(context, day)
    online = OnlineFeatures(context, data_features(context))
    refs = {
        entity: [ref for ref in data.references(sides["ours"]) if ref.startswith(f"{entity}_")] for entity in ENTITIES
    }
    draw = np.random.default_rng(4)
    users, videos = (context.data.get(f"{e}_features", day).table()[f"{e}_id"].to_numpy() for e in ENTITIES)

    def direct(user: int, candidates: np.ndarray) -> None:
        online.read("user", [user], moment)
        online.read("video", candidates, moment)

    def feast(store: "FeatureStore") -> Callable[[int, np.ndarray], None]:
        def read(user: int, candidates: np.ndarray) -> None:
            store.get_online_features(refs["user"], [{"user_id": user}]).to_dict()
            store.get_online_features(refs["video"], [{"video_id": one} for one in candidates.tolist()]).to_dict()

        return read

    ways: dict[str, Callable[[int, np.ndarray], None]] = {"ours": direct}
    ways |= {f"get_online_features, {'our' if side == 'ours' else 'its'} store": feast(s) for side, s in sides.items()}
    for number in range(120):
        user = int(draw.choice(users))
        candidates = draw.choice(videos, CANDIDATES, replace=len(videos) < CANDIDATES)
        for way, read in ways.items():
            milliseconds = 1_000 * _seconds(partial(read, user, candidates))
            # The first ones open connections and load code.
            if number >= 20:
                found.add(f"read.{kind}", way, milliseconds, "ms")


def data_features(context: Context) -> tuple[Any, ...]:
    """The features that models read."""
    from components.feed.source import features_of

    return features_of(context.pipeline.feed)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _claims(found: Measured, config: dict[str, Any]) -> list[Claim]:
    repeats, claims = config["repeats"], []

    def ratio(name: str, part: str, slow: str, fast: str, unit: str, target: float | None, how: str) -> None:
        if not (found.has(part, slow, unit) and found.has(part, fast, unit)):
            return
        value = found.median(part, slow, unit) / found.median(part, fast, unit)
        said = "" if target is None else f">= {target:g}"
        claims.append(Claim(name, value, "x", target=said, holds=None if target is None else value >= target, how=how))

    how = f"median of {repeats}, {config['impressions']} impressions a day, {config['history_days']} days of history"
    ratio("features.build_vs_rescan", "build", "rescan", "partials", "s", 5, how)
    joined = f"median of {repeats}, {config['requests']} requests x {config['features']} features, one process a side"
    ratio("features.join_vs_file_store", "join", "file", "ours", "s", 10, joined)
    if found.has("join", "file", "bytes"):
        share = found.median("join", "ours", "bytes") / found.median("join", "file", "bytes")
        how = f"growth of the peak of resident memory during the join; {joined}"
        claims.append(
            Claim("features.join_memory_vs_file_store", share, "x", target="<= 0.25", holds=share <= 0.25, how=how)
        )
    ratio("features.join_vs_merge_asof", "join", "merge_asof", "ours", "s", None, joined)
    kinds = [kind for kind in ("sqlite", "redis", "postgres") if found.has(f"materialize.{kind}", "ours", "rows/s")]
    for kind in kinds:
        how = f"rows a second, median of {repeats}, {config['keys']} entities of both counter views, over the same lake"
        ratio(f"features.materialize_vs_feast.{kind}", f"materialize.{kind}", "ours", "feast", "rows/s", 5, how)
    least = min((claim for claim in claims if "materialize" in claim.name), key=lambda claim: claim.value)
    claims.append(
        Claim(
            "features.materialize_vs_feast",
            least.value,
            "x",
            target=">= 5",
            holds=least.value >= 5,
            how=f"the least of {', '.join(kinds)}",
        )
    )
    for kind in kinds:
        p50, p99 = np.percentile(found.values(f"read.{kind}", "ours", "ms"), (50, 99))
        how = f"one user and {CANDIDATES} videos, p50 {p50:.1f} ms"
        claims.append(Claim(f"features.read_p99_ms.{kind}", float(p99), "ms", how=how))
        theirs = "get_online_features, its store"
        ratio(f"features.read_vs_feast.{kind}", f"read.{kind}", theirs, "ours", "ms", None, "medians of the same reads")
    first = next(claim for claim in claims if claim.name == "features.read_p99_ms.sqlite")
    claims.append(Claim("features.read_p99_ms", first.value, "ms", how=f"SQLite, {first.how}"))
    growth = found.median("growth", "two windows", "s") / found.median("growth", "one window", "s")
    how = f"build with twice the history in the lake over the same with one window, median of {repeats}"
    claims.append(Claim("features.cost_growth", growth, "x", target="<= 1.2", holds=growth <= 1.2, how=how))
    return claims
