"""Which days a run reads: never one newer than itself, never one before the feed."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import Pipeline
from components.window import holdout_day, snapshot_days, train_days
from tests.small_lake import FIRST, context_at, day_at


def pipeline(window_days: int, first_day: date = FIRST, ttl_days: int = 3) -> Pipeline:
    changes = {"train": {"window_days": window_days}, "features": {"ttl_days": ttl_days}}
    return context_at(Path("unused"), first_day=first_day, **changes).pipeline


def test_the_window_ends_two_days_before_the_run_and_the_day_between_is_held_out() -> None:
    assert train_days(pipeline(3), day_at(10)) == [day_at(6), day_at(7), day_at(8)]
    assert holdout_day(day_at(10)) == day_at(9)


@pytest.mark.parametrize(("index", "expected"), [(4, [0, 1, 2]), (3, [0, 1]), (2, [0]), (1, []), (0, [])])
def test_the_window_is_cut_at_the_first_day_of_the_feed(index: int, expected: list[int]) -> None:
    assert train_days(pipeline(3), day_at(index)) == [day_at(one) for one in expected]


def test_snapshots_reach_back_to_all_that_the_first_training_day_can_see() -> None:
    # A value lives three days, and until the day's snapshot has come (lag) that is the one of four days before.
    first_training_day = day_at(20) - timedelta(days=2)
    assert snapshot_days(pipeline(1), day_at(20))[0] == first_training_day - timedelta(days=4)
    assert snapshot_days(pipeline(1, ttl_days=1), day_at(20))[0] == first_training_day - timedelta(days=2)


@given(window=st.integers(1, 30), index=st.integers(0, 60), ttl=st.integers(1, 5))
def test_a_run_never_needs_anything_newer_than_itself_nor_older_than_the_feed(
    window: int, index: int, ttl: int
) -> None:
    chosen, day = pipeline(window, ttl_days=ttl), day_at(index)
    training, snapshots = train_days(chosen, day), snapshot_days(chosen, day)
    assert all(FIRST <= one <= day - timedelta(days=2) for one in training)
    assert all(FIRST <= one <= day for one in snapshots)
    assert len(training) == min(window, max(0, index - 1))
    assert snapshots == sorted(set(snapshots))
    # The online store is given the run's own day; every training day and the held-out one see the day before.
    assert snapshots[-1] == day
    seen = {one - timedelta(days=1) for one in [*training, holdout_day(day)]}
    assert {one for one in seen if one >= FIRST} <= set(snapshots)
