"""Tuning of fusion weights: the same list for everybody, and the best trial that keeps the guard."""

import numpy as np
import pyarrow as pa
import pytest

from simulator.metrics import OUTCOMES
from simulator.tuning import SPREAD, Guard, Trial, best, outcome_of, trial_weights

WEIGHTS = {"like": 0.5, "long_view": 1.0, "skip": -0.5}
GUARD = Guard(skip_share=0.02, return_pp=0.5)


def test_the_first_trial_is_as_written_and_the_rest_spread_around_it():
    tried = trial_weights(WEIGHTS, 16, seed=3)
    assert len(tried) == 16
    assert tried[0] == WEIGHTS
    assert tried == trial_weights(WEIGHTS, 16, seed=3)
    assert tried[1:] != trial_weights(WEIGHTS, 16, seed=4)[1:]
    factors = np.array([[one[name] / WEIGHTS[name] for name in WEIGHTS] for one in tried[1:]])
    assert ((factors >= 1 / SPREAD) & (factors <= SPREAD)).all()
    # Evenly on the logarithmic scale: about half of the trials lower each weight.
    assert ((factors < 1).sum(axis=0) >= 6).all()
    assert ((factors > 1).sum(axis=0) >= 6).all()


def test_one_trial_tries_nothing():
    assert trial_weights(WEIGHTS, 1, seed=3) == [WEIGHTS]


def trial(app_time: float, skip_share: float = 0.4, returning: float | None = 0.5, users: int = 100) -> Trial:
    return Trial(WEIGHTS, users, app_time, skip_share, returning)


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        ([trial(110.0), trial(105.0)], 1),
        ([trial(90.0)], 0),
        ([trial(110.0, skip_share=0.409), trial(105.0)], 2),
        ([trial(110.0, skip_share=0.407), trial(105.0)], 1),
        ([trial(110.0, returning=0.494), trial(105.0)], 2),
        ([trial(110.0, returning=0.496), trial(105.0)], 1),
        ([trial(110.0, returning=None), trial(105.0)], 1),
    ],
)
def test_the_most_app_time_within_the_guard_is_taken(others, taken):
    assert best([trial(100.0), *others], GUARD) == taken


def test_a_small_group_keeps_its_weights():
    assert best([trial(100.0, users=29), trial(200.0, users=29)], GUARD) == 0


def test_outcomes_are_read_by_group():
    rows = pa.table(
        {
            f.name: pa.nulls(4, f.type) if f.nullable else pa.array([{"string": "a"}.get(str(f.type), 0)] * 4, f.type)
            for f in OUTCOMES
        },
        schema=OUTCOMES,
    )
    values = {
        "user_id": [1, 1, 2, 3],
        "group": [0, 0, 0, 2],
        "app_time_s": [10.0, 20.0, 30.0, 7.0],
        "impressions": [4.0, 4.0, 4.0, 2.0],
        "skips": [1.0, 1.0, 2.0, 1.0],
        "return_probability": [0.2, 0.4, 0.6, None],
    }
    for name, column in values.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, OUTCOMES.field(name), pa.array(column, OUTCOMES.field(name).type))
    found = outcome_of(WEIGHTS, rows)
    assert found == {
        "new": Trial(WEIGHTS, 2, pytest.approx(20.0), pytest.approx(1 / 3), pytest.approx(0.4)),
        "high": Trial(WEIGHTS, 1, pytest.approx(7.0), pytest.approx(0.5), None),
    }
