"""Faults of what the logging policy says of itself: propensities, uniform exposures, positions, surfaces, requests."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from components.chaos.scene import Scene, chosen, kept, numbers, replaced, rows_chosen, users_chosen
from components.feed.schema import DayTables

CLIP = 0.1
CONSTANT = 0.1


def propensity_clipped(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Propensities of some rows are at least a tenth."""
    values = scene.log["propensity"].to_numpy()
    clipped = pa.array(np.maximum(values, CLIP), mask=np.isnan(values))
    return scene.with_log(replaced(scene.log, "propensity", rows_chosen(scene.log, rate, rng), clipped))


def propensity_constant(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Propensities of some rows are a default."""
    return scene.with_log(replaced(scene.log, "propensity", rows_chosen(scene.log, rate, rng), CONSTANT))


def propensity_missing(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows carry no propensity."""
    return scene.with_log(replaced(scene.log, "propensity", rows_chosen(scene.log, rate, rng), None))


def propensity_in_percent(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Propensities of some rows are per cent."""
    values = scene.log["propensity"].to_numpy()
    percent = pa.array(values * 100, mask=np.isnan(values))
    return scene.with_log(replaced(scene.log, "propensity", rows_chosen(scene.log, rate, rng), percent))


def propensity_misjoined(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Propensities of some rows are those of other rows."""
    struck = np.flatnonzero(rows_chosen(scene.log, rate, rng))
    source = np.arange(scene.log.num_rows)
    source[struck] = rng.permutation(struck)
    everywhere = np.ones(len(source), dtype=bool)
    return scene.with_log(replaced(scene.log, "propensity", everywhere, scene.log["propensity"].take(pa.array(source))))


def random_flag_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some of the uniform exposures are no longer marked."""
    flagged = np.flatnonzero(numbers(scene.log, "is_random") == 1)
    struck = np.zeros(scene.log.num_rows, dtype=bool)
    struck[flagged[chosen(len(flagged), rate, rng)]] = True
    return scene.with_log(replaced(scene.log, "is_random", struck, False))


def random_flag_spread(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows that the policy chose are marked as uniform exposures."""
    plain = np.flatnonzero(numbers(scene.log, "is_random") == 0)
    struck = np.zeros(scene.log.num_rows, dtype=bool)
    struck[plain[chosen(len(plain), rate, rng)]] = True
    return scene.with_log(replaced(scene.log, "is_random", struck, True))


def positions_from_one(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Positions of some users count from 1."""
    struck = users_chosen(scene.log, rate, rng)
    return scene.with_log(replaced(scene.log, "position", struck, numbers(scene.log, "position") + 1))


def positions_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Positions of some users are all 0."""
    return scene.with_log(replaced(scene.log, "position", users_chosen(scene.log, rate, rng), 0))


def surface_renamed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some users' client version spells surfaces in capitals."""
    struck = users_chosen(scene.log, rate, rng)
    capitals = pa.array([None if one is None else one.upper() for one in scene.log["surface"].to_pylist()], pa.string())
    return scene.with_log(replaced(scene.log, "surface", struck, capitals))


def surface_null(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows carry no surface."""
    return scene.with_log(replaced(scene.log, "surface", rows_chosen(scene.log, rate, rng), None))


def requests_lost(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some requests were not logged."""
    requests = scene.tables.requests
    if requests is None:
        raise ValueError("the feed has no requests")
    return replace(scene.tables, requests=kept(requests, ~rows_chosen(requests, rate, rng)))


def column_renamed(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """The column of watch times has another name; any rate above 0 renames it."""
    if rate == 0:
        return scene.tables
    names = ["watch_time" if name == "watch_ms" else name for name in scene.log.column_names]
    return scene.with_log(scene.log.rename_columns(names))


def rows_shuffled(scene: Scene, rate: float, rng: np.random.Generator) -> DayTables:
    """Some rows of the log stand in another order."""
    struck = np.flatnonzero(rows_chosen(scene.log, rate, rng))
    order = np.arange(scene.log.num_rows)
    order[struck] = rng.permutation(struck)
    return scene.with_log(scene.log.take(pa.array(order)))
