"""One side of the join benchmark in a process of its own, so that its memory can be told from another's.

``python -m benchmarks.features_join SIDE HOME FOLDER`` prints seconds and the growth of its peak memory as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.features_data import context_at, feast_store, references

SIDES = ("ours", "file", "merge_asof")


def main(side: str, home: str, folder: str) -> None:
    """Prepare a side, join once, and print what it took.

    Args:
        side: One of ``SIDES``.
        home: Of the lake.
        folder: Holds ``requests.parquet`` and a file per view.
    """
    join = {"ours": _ours, "file": _file, "merge_asof": _merge_asof}[side](Path(home), Path(folder))
    frame = pq.read_table(Path(folder) / "requests.parquet").to_pandas()
    before = _reset_peak()
    began = time.perf_counter()
    rows, columns = join(frame)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "bytes": _status("VmHWM") - before, "rows": rows, "columns": columns}))


Join = Callable[[pd.DataFrame], tuple[int, int]]


def _ours(home: Path, folder: Path) -> Join:
    from components.store import open_store

    store = open_store(context_at(home))
    refs = references(store)

    def join(frame: pd.DataFrame) -> tuple[int, int]:
        table: pa.Table = store.get_historical_features(frame, refs).to_arrow()
        return table.num_rows, table.num_columns

    return join


def _file(home: Path, folder: Path) -> Join:
    files = {path.stem: path for path in folder.glob("*_*.parquet")}
    online = {"type": "sqlite", "path": str(folder / "unused.db")}
    store = feast_store(context_at(home), folder, online, files)
    refs = references(store)

    def join(frame: pd.DataFrame) -> tuple[int, int]:
        table: pa.Table = store.get_historical_features(frame, refs).to_arrow()
        return table.num_rows, table.num_columns

    return join


def _merge_asof(home: Path, folder: Path) -> Join:
    from components.store import open_store

    context = context_at(home)
    views = {view.name: view for view in open_store(context).list_feature_views()}

    def join(frame: pd.DataFrame) -> tuple[int, int]:
        frame = frame.sort_values("event_timestamp")
        for path in sorted(folder.glob("*_*.parquet")):
            view = views[path.stem]
            time_column = view.batch_source.timestamp_field
            rows = pq.read_table(path).to_pandas().sort_values(time_column)
            unit = frame["event_timestamp"].dtype
            rows[time_column] = rows[time_column].astype(unit)
            life: dict[str, Any] = {"tolerance": view.ttl} if view.ttl else {}
            frame = pd.merge_asof(
                frame,
                rows.rename(columns={time_column: f"{path.stem}_at"}),
                left_on="event_timestamp",
                right_on=f"{path.stem}_at",
                by=view.join_keys,
                **life,
            )
        return frame.shape

    return join


def _reset_peak() -> int:
    """Let the kernel forget the process's peak; what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:4])
