"""Drift against earlier days: what chance and many rare categories show is no alarm, what is new or moved is one."""

from datetime import date, timedelta

import numpy as np
import pytest

from components.validation.drift import drift, shift
from components.validation.summary import Histogram, Summary

FIRST = date(2026, 1, 1)


def summaries(histograms: list[Histogram], name: str = "column") -> list[Summary]:
    return [Summary(FIRST + timedelta(days=i), {}, {name: one}) for i, one in enumerate(histograms)]


def ordered(values: np.ndarray, units: int, coverage: int = 0) -> Histogram:
    bins, counts = np.unique(np.floor(values * 4).astype(int), return_counts=True)
    return Histogram({f"{b:+05d}": int(c) for b, c in zip(bins, counts, strict=True)}, units, True, coverage)


def categories(values: np.ndarray) -> Histogram:
    names, counts = np.unique(values, return_counts=True)
    return Histogram({f"c{n}": int(c) for n, c in zip(names, counts, strict=True)}, len(values), ordered=False)


def broken(days: list[Histogram], level: str = "fail") -> set[str]:
    *history, today = summaries(days)
    found = drift("log", today, history, 1e-3, fails={"column": "fail"})
    return {one.expectation for one in found if not one.success and one.level == level}


def test_the_index_and_the_distance_have_known_answers() -> None:
    """By hand: 0.5/0.5 against 0.9/0.1 gives 0.4 ln 9 and 0.4, but for half a unit in each bin."""
    now, past = Histogram({"+0000": 50, "+0001": 50}, 10**9), Histogram({"+0000": 90, "+0001": 10}, 10**9)
    moved = shift(now, [past])
    assert moved.psi == pytest.approx(0.4 * np.log(9), rel=1e-6)
    assert moved.ks == pytest.approx(0.4)
    assert shift(past, [past]).psi == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rows", [60, 1_000])
def test_chance_alone_is_no_drift(rows: int) -> None:
    rng = np.random.default_rng(rows)
    assert [w for _ in range(60) if (w := broken([ordered(rng.normal(0, 1, rows), rows) for _ in range(8)]))] == []


@pytest.mark.parametrize("known", [3, 7, 20])
def test_another_unit_is_a_drift_after_few_days_too(known: int) -> None:
    rng = np.random.default_rng(known)
    days = [ordered(rng.normal(0, 1, 2_000), 2_000) for _ in range(known)]
    assert broken([*days, ordered(rng.normal(7, 1, 2_000), 2_000)]) == {"column_psi"}


def test_windows_that_are_less_full_are_not_compared() -> None:
    rng = np.random.default_rng(1)
    days = [ordered(rng.normal(i, 1, 500), 500, coverage=i) for i in range(6)]
    assert drift("log", summaries(days)[-1], summaries(days)[:-1], 1e-3) == []


def test_many_rare_categories_are_no_alarm() -> None:
    rng = np.random.default_rng(2)
    days = [categories(rng.integers(0, 800, 300)) for _ in range(5)]
    assert "column_new_share" not in broken(days)


def test_a_column_of_other_categories_fails() -> None:
    rng = np.random.default_rng(3)
    days = [categories(rng.integers(0, 8, 300)) for _ in range(5)]
    days[-1] = Histogram({f"new{name}": count for name, count in days[-1].counts.items()}, 300, ordered=False)
    assert {"column_new_share", "column_psi"} <= broken(days)
