"""How users are spread over app time, in each arm and in the log: what a mean does not show."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulator.comparison import ARMS
from simulator.metrics import column
from simulator.surroundings import Distribution, Quantiles

LOG = "log"

# Seconds; each bin ends at about twice its beginning, as app time is heavy-tailed.
EDGES_S = (0.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 1800.0, 3600.0, 7200.0)
_QUANTILES = (0.1, 0.5, 0.9)


def app_time(outcomes: pa.Table, logged: pa.Table) -> Distribution:
    """Users by seconds watched on the held-out day.

    Args:
        outcomes: Simulated ``metrics.OUTCOMES``; a user's value in an arm is the mean over its members.
        logged: ``analysis.logged_outcomes``; users without a simulation are left out.

    Returns:
        Counts of users per bin and quantiles, of both arms and of the log; one without a user has no quantiles.
    """
    simulated = pc.unique(outcomes.column("user_id"))
    tables = {arm: outcomes.filter(pc.equal(outcomes.column("arm"), arm)) for arm in ARMS}
    tables[LOG] = logged.filter(pc.is_in(logged.column("user_id"), value_set=simulated))
    values = {name: _per_user(table) for name, table in tables.items()}
    return Distribution(
        unit="s",
        edges=EDGES_S,
        users={name: _counts(seconds) for name, seconds in values.items()},
        quantiles={name: _quantiles(seconds) for name, seconds in values.items() if len(seconds)},
    )


def _per_user(table: pa.Table) -> NDArray[np.float64]:
    means = table.group_by("user_id").aggregate([("app_time_s", "mean")])
    return column(means, "app_time_s_mean")


def _counts(seconds: NDArray[np.float64]) -> tuple[int, ...]:
    # A value on an edge belongs to the bin that begins there.
    counts = np.bincount(np.searchsorted(EDGES_S, seconds, side="right") - 1, minlength=len(EDGES_S))
    return tuple(int(count) for count in counts)


def _quantiles(seconds: NDArray[np.float64]) -> Quantiles:
    low, middle, high = (float(q) for q in np.quantile(seconds, _QUANTILES))
    return Quantiles(low=low, middle=middle, high=high)
