"""Users by app time: counted once each, in the bin that begins at their value, the log only for simulated users."""

import numpy as np
import pyarrow as pa
import pytest

from simulator.distributions import EDGES_S, app_time
from simulator.metrics import OUTCOMES


def outcomes(rows: list[tuple[int, str, int, float]]) -> pa.Table:
    """User, arm, member and seconds."""
    filled = [
        dict.fromkeys(OUTCOMES.names)
        | {"user_id": user, "arm": arm, "member": member, "app_time_s": seconds}
        | {"group": 0, "sessions": 1, "impressions": 1.0, "skips": 0.0}
        for user, arm, member, seconds in rows
    ]
    return pa.Table.from_pylist(filled, schema=OUTCOMES)


def test_users_are_counted_by_their_mean_over_members() -> None:
    simulated = outcomes(
        [
            (1, "treatment", 0, 10.0),
            (1, "treatment", 1, 30.0),
            (1, "baseline", 0, 0.0),
            (1, "baseline", 1, 0.0),
            (2, "treatment", 0, 90_000.0),
            (2, "treatment", 1, 90_000.0),
            (2, "baseline", 0, 59.9),
            (2, "baseline", 1, 59.9),
        ]
    )
    logged = outcomes([(1, "log", 0, 60.0), (2, "log", 0, 14.9), (3, "log", 0, 100.0)])
    found = app_time(simulated, logged)
    bins = {name: {EDGES_S[at]: n for at, n in enumerate(counts) if n} for name, counts in found.users.items()}
    # 20 s is the first user's mean; the third user was not simulated.
    assert bins == {
        "treatment": {15.0: 1, EDGES_S[-1]: 1},
        "baseline": {0.0: 1, 30.0: 1},
        "log": {60.0: 1, 0.0: 1},
    }
    assert found.quantiles["baseline"].middle == pytest.approx(59.9 / 2)
    assert found.quantiles["log"].low == pytest.approx(float(np.quantile([14.9, 60.0], 0.1)))


def test_an_empty_day_has_counts_of_nobody_and_no_quantiles() -> None:
    found = app_time(outcomes([]), outcomes([]))
    assert {sum(counts) for counts in found.users.values()} == {0}
    assert found.quantiles == {}
