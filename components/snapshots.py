"""Snapshots: the columns of the feature list as of the end of a day, as sums of per-day partials."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.feature_list import (
    AFFINITIES,
    AFFINITY_STRENGTH,
    LONGEST_WINDOW,
    MODEL_RATES,
    PRIOR_STRENGTH,
    RATES,
    SUMS,
    TOP_AFFINITIES,
    WINDOWS,
    Affinity,
    Entity,
    snapshot_features,
)
from components.feed.schema import BEHAVIOURS
from components.partials import HOURS, LISTS, MICRO

# Partials by age, the days before the snapshot's day (0 for the day itself): tables, or datasets, of which
# one is read at a time.
Partials = Mapping[int, Any]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Columns that are summed over windows; the first one is ``impressions``.
_STORED = ("impressions", "watch_ms", "sessions", *(f"{name}_{what}" for name in RATES for what in ("sum", "n")))


def snapshot_of(partials: Mapping[str, Partials], entity: Entity, last_videos: int) -> pa.Table:
    """A snapshot from the partials of its window.

    Args:
        partials: Of each dataset (see ``components.features``), by age.
        entity: Whose features.
        last_videos: Length of the lists of videos.

    Returns:
        One row per entity seen in the longest window, by id: ``<entity>_id`` and the columns of the feature list.
    """
    table = window_sums(partials[f"{entity}_partial"], entity, last_videos)
    if entity == "user":
        for one in AFFINITIES:
            found = affinities(partials[f"user_{one.name}_partial"], table, one)
            for name in found.column_names[1:]:
                table = table.append_column(name, found[name])
    return table.select([f"{entity}_id", *(f.name for f in snapshot_features(entity))])


def window_sums(partials: Partials, entity: Entity, last_videos: int) -> pa.Table:
    """Sums, smoothed rates and lists from per-day partials, one day at a time in memory.

    Args:
        partials: What ``partials.partial_of`` gave for each day, by age.
        entity: Whose features.
        last_videos: Length of the lists of videos (users only).

    Returns:
        One row per entity seen in the longest window, by id.
    """
    key = f"{entity}_id"
    ids = np.unique(np.concatenate([_table(part, [key])[key].to_numpy() for part in partials.values()]))
    # float64 [windows, entities, columns]: sums of integers, so that no order of days changes a bit.
    totals = np.zeros((len(WINDOWS), len(ids), len(_STORED)))
    idle, active = np.full(len(ids), LONGEST_WINDOW), np.zeros(len(ids))
    habits: _Habits | _Creators = _Habits(len(ids)) if entity == "user" else _Creators(len(ids))
    for age, part in sorted(partials.items()):
        day = _table(part)
        at = np.searchsorted(ids, day[key].to_numpy())
        totals[np.searchsorted(WINDOWS, age, side="right") :, at] += _matrix(day, _STORED)
        idle[at] = np.minimum(idle[at], age)
        active[at] += 1
        habits.add(day, at)
    found: dict[str, Any] = {key: pa.array(ids)}
    means = {}
    for window, total in zip(WINDOWS, totals, strict=True):
        sums = dict(zip(_STORED, total.T, strict=True))
        for name in SUMS:
            values = sums["watch_ms"] / 1000 if name == "watch_s" else sums[name]
            found[f"{entity}_{name}_{window}d"] = _floats(values)
        means = {name: _mean(sums[f"{name}_sum"].sum(), sums[f"{name}_n"].sum(), name) for name in RATES}
        for name in RATES:
            rate = _smoothed(sums[f"{name}_sum"], sums[f"{name}_n"], means[name], name)
            found[f"{entity}_{name}_rate_{window}d"] = _floats(rate)
        found |= {f"{entity}_{name}_count_{window}d": _floats(sums[f"{name}_sum"]) for name in BEHAVIOURS}
    found[f"{entity}_idle_days"] = _floats(idle)
    if entity == "user":
        found[f"user_active_days_{LONGEST_WINDOW}d"] = _floats(active)
    else:
        short, long = (totals[WINDOWS.index(window)][:, 0] for window in (1, 7))
        found["video_freshness"] = _floats(np.divide(short, long, out=np.zeros(len(ids)), where=long > 0))
    found |= habits.columns(totals[-1], means, last_videos)
    return pa.table(found)


class _Habits:
    """Users' hours and last videos, from their days, newest first."""

    def __init__(self, users: int) -> None:
        self.hours = np.zeros((users, len(HOURS)))
        self.lists: dict[str, list[tuple[IntArray, IntArray]]] = {name: [] for name in LISTS}

    def add(self, day: pa.Table, at: IntArray) -> None:
        """Add an earlier day; ``at`` says which user each of its rows is."""
        self.hours[at] += _matrix(day, [f"hour_{hour}" for hour in HOURS])
        for name, parts in self.lists.items():
            column = day[name].combine_chunks()
            parts.append((at[pc.list_parent_indices(column).to_numpy()], pc.list_flatten(column).to_numpy()))

    def columns(self, totals: FloatArray, _means: Mapping[str, float], last_videos: int) -> dict[str, pa.Array]:
        """The features, from the sums over the longest window."""
        shares = (self.hours / totals[:, :1]).astype(np.float32).ravel()
        edges = np.arange(len(totals) + 1) * len(HOURS)
        found = {f"user_hour_shares_{LONGEST_WINDOW}d": _lists(edges, shares)}
        for name, parts in self.lists.items():
            owner, videos = (np.concatenate(column) for column in zip(*parts, strict=True))
            # Days come newest first, and so do the videos of each.
            order = np.argsort(owner, kind="stable")
            sizes = np.bincount(owner, minlength=len(totals))
            place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            edges = np.append(0, np.cumsum(np.minimum(sizes, last_videos)))
            found[f"user_{name}"] = _lists(edges, videos[order[place < last_videos]])
        return found


class _Creators:
    """What all videos of each video's creator got, from the days of the longest window, newest first."""

    def __init__(self, videos: int) -> None:
        self.creator = np.full(videos, -1, dtype=np.int64)

    def add(self, day: pa.Table, at: IntArray) -> None:
        """Add an earlier day; ``at`` says which video each of its rows is."""
        known = pc.fill_null(day["creator_id"], -1).to_numpy()
        self.creator[at] = np.where(self.creator[at] < 0, known, self.creator[at])

    def columns(self, totals: FloatArray, means: Mapping[str, float], _last_videos: int) -> dict[str, pa.Array]:
        """The features, from the sums over the longest window; null where the creator is unknown."""
        _, code = np.unique(self.creator, return_inverse=True)
        made = np.zeros((code.max(initial=0) + 1, len(_STORED)))
        np.add.at(made, code, totals)
        sums = dict(zip(_STORED, np.where(self.creator[:, None] < 0, np.nan, made[code]).T, strict=True))
        found = {f"video_creator_impressions_{LONGEST_WINDOW}d": _floats(sums["impressions"])}
        for name in RATES:
            rate = _smoothed(sums[f"{name}_sum"], sums[f"{name}_n"], means[name], name)
            found[f"video_creator_{name}_rate_{LONGEST_WINDOW}d"] = _floats(rate)
        return found


def _mean(total: float, rows: float, name: str) -> float:
    return total / _scale(name) / rows if rows else np.nan


def _smoothed(total: FloatArray, rows: FloatArray, mean: float, name: str) -> FloatArray:
    return (total / _scale(name) + PRIOR_STRENGTH * mean) / (rows + PRIOR_STRENGTH)


def _scale(name: str) -> int:
    """Sums stay integers until their last use."""
    return MICRO if name == "completion" else 1


def _floats(values: NDArray[Any]) -> pa.Array:
    return pa.array(values.astype(np.float32), from_pandas=True)


def _lists(edges: IntArray, values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(edges.astype(np.int32)), pa.array(values))


def _table(part: Any, columns: list[str] | None = None) -> pa.Table:
    if isinstance(part, pa.Table):
        return part if columns is None else part.select(columns)
    return part.to_table(columns=columns)


def _matrix(day: pa.Table, names: Iterable[str]) -> FloatArray:
    return np.column_stack([day[name].to_numpy() for name in names])


def affinities(partials: Partials, users: pa.Table, affinity: Affinity) -> pa.Table:
    """The topics or creators that each user saw most, and how the user behaved there.

    A lift is the smoothed rate less the user's own: with n rows of sum s and an own rate r it is
    (s + K r) / (n + K) - r = (s - n r) / (n + K).

    Args:
        partials: What ``partials.affinity_partial_of`` gave for each day of the longest window, by age.
        users: U rows of ``window_sums``, whose rates over the longest window are the users' own.
        affinity: Which list.

    Returns:
        U rows in the order of ``users``: ``user_id``, keys, shares and lifts; empty lists where nothing is known.
    """
    lists = [f"list(key ORDER BY place) AS {affinity.keys}", f"list(share ORDER BY place) AS {affinity.shares}"]
    lists += [f"list({name}_lift ORDER BY place) AS {affinity.lifts(name)}" for name in MODEL_RATES]
    sums = ", ".join(_sums(name) for name in MODEL_RATES)
    lifts = ", ".join(
        f"coalesce(({name}_sum / {_scale(name)} - {name}_n * user_{name}_rate_{LONGEST_WINDOW}d)"
        f" / ({name}_n + {AFFINITY_STRENGTH}), 0)::FLOAT AS {name}_lift"
        for name in MODEL_RATES
    )
    names = [affinity.keys, affinity.shares, *(affinity.lifts(name) for name in MODEL_RATES)]
    with _opened(partials) as connection:
        connection.register("users", users)
        return connection.sql(
            f"""
            WITH summed AS (SELECT user_id, key, sum(impressions) AS seen, {sums} FROM partials GROUP BY user_id, key),
                 placed AS (
                    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY seen DESC, key) AS place,
                           (seen / sum(seen) OVER (PARTITION BY user_id))::FLOAT AS share
                    FROM summed QUALIFY place <= {TOP_AFFINITIES}
                 ),
                 lifted AS (SELECT user_id, key, place, share, {lifts} FROM placed JOIN users USING (user_id)),
                 listed AS (SELECT user_id, {", ".join(lists)} FROM lifted GROUP BY user_id)
            SELECT user_id, {", ".join(f"coalesce({name}, []) AS {name}" for name in names)}
            FROM users LEFT JOIN listed USING (user_id) ORDER BY user_id
            """  # noqa: S608 - every name comes from the feature list
        ).to_arrow_table()


@contextmanager
def _opened(partials: Partials) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to which ``partials`` are the rows of all days with their ``age``, read once and as they come.

    One stream of batches instead of a union of days: a union with this many columns takes longer to plan than to run.
    """
    schema = next(iter(partials.values())).schema.append(pa.field("age", pa.int64()))

    def batches() -> Iterator[pa.RecordBatch]:
        for age, part in partials.items():
            for batch in part.to_batches():
                yield batch.append_column("age", pa.array(np.full(batch.num_rows, age)))

    with duckdb.connect() as connection:
        connection.execute("SET threads TO 1")
        connection.register("partials", pa.RecordBatchReader.from_batches(schema, batches()))
        yield connection


def _sums(name: str) -> str:
    return f"sum({name}_sum) AS {name}_sum, sum({name}_n) AS {name}_n"
