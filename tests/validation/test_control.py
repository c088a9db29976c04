"""Learned limits: Qn against its known behaviour, false alarms against their budget, and faults that must stand out."""

from datetime import date, timedelta

import numpy as np
import pytest

from components.validation.control import MEMORY_DAYS, limits, qn, recent
from components.validation.summary import Measure, Summary, parse_summary

FIRST = date(2026, 1, 1)


def day(index: int) -> date:
    return FIRST + timedelta(days=index)


def shares(values: list[float], rows: int = 10_000, error: float = 0.01) -> list[tuple[date, Measure]]:
    return [(day(i), Measure(value, "share", rows, error)) for i, value in enumerate(values)]


def test_qn_has_known_answers() -> None:
    """By hand: of 1, 2, 4, 8, 16 the pairwise distances are 1 2 3 4 6 7 8 12 14 15; h = 3, so the third smallest."""
    assert qn([1, 2, 4, 8, 16]) == pytest.approx(2.2219 * 0.844 * 3)
    assert qn([5.0, 5.0, 5.0]) == 0


def test_qn_is_a_standard_deviation_and_takes_no_notice_of_two_outliers() -> None:
    draws = np.random.default_rng(3).normal(0, 2, (400, 20))
    clean = np.mean([qn(list(row)) for row in draws])
    assert clean == pytest.approx(2, rel=0.03)
    draws[:, :2] = 1_000
    assert np.mean([qn(list(row)) for row in draws]) == pytest.approx(clean, rel=0.25)


@pytest.mark.parametrize("value", [0.0, 1e-4, 0.3, 0.999, 1.0])
def test_a_share_comes_back_from_its_scale(value: float) -> None:
    one = Measure(value, "share", 1_000)
    assert one.value_at(one.position()) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("scale", ["count", "mean", "distance"])
def test_a_count_comes_back_from_its_scale(scale: str) -> None:
    for value in (0.0, 3.0, 1e9):
        one = Measure(value, scale)  # type: ignore[arg-type]
        assert one.value_at(one.position()) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_without_an_earlier_day_there_is_no_limit() -> None:
    assert limits(Measure(0.1, "share", 10, 0.1), day(3), [], 1e-4) is None


def test_limits_are_wide_after_one_day_and_narrow_after_many() -> None:
    steady = [0.3 + 0.002 * (-1) ** i for i in range(28)]
    width = []
    for known in (1, 4, 14, 28):
        found = limits(Measure(0.3, "share", 10_000, 0.01), day(28), shares(steady)[-known:], 1e-5)
        assert found is not None
        assert found.low < 0.3 < found.high
        width.append(found.high - found.low)
    assert width == sorted(width, reverse=True)
    assert width[0] > 2 * width[-1]


def test_the_weekday_has_its_own_centre_once_it_is_known() -> None:
    weekly = [10_000 if day(i).weekday() == 6 else 1_000 for i in range(28)]
    past = [(day(i), Measure(value, "count", 0, 0.0)) for i, value in enumerate(weekly)]
    sunday = next(i for i in range(28, 40) if day(i).weekday() == 6)
    on_sunday = limits(Measure(0, "count"), day(sunday), past, 1e-4)
    on_monday = limits(Measure(0, "count"), day(sunday + 1), past, 1e-4)
    assert on_sunday is not None
    assert on_monday is not None
    assert on_sunday.centre == pytest.approx(10_000)
    assert on_monday.centre == pytest.approx(1_000)
    assert on_monday.high < 10_000 < on_sunday.high
    assert "4 days of this weekday" in on_sunday.rule


@pytest.mark.parametrize("known", [3, 7, 14, 28])
@pytest.mark.parametrize("spread", [0.01, 0.05, 0.15])
def test_false_alarms_stay_within_their_share(known: int, spread: float) -> None:
    """Days that differ by lognormal factors, less and more than the prior expects."""
    rng = np.random.default_rng(known)
    alpha, worlds = 0.02, 1_500
    alarms = 0
    for _ in range(worlds):
        values = np.exp(rng.normal(0, spread, known + 1)) * 1_000
        past = [(day(i), Measure(float(v), "mean", 1e6)) for i, v in enumerate(values[:-1])]
        found = limits(Measure(0, "mean", 1e6), day(known), past, alpha)
        assert found is not None
        alarms += not found.low <= values[-1] <= found.high
    assert alarms / worlds <= alpha + 3 * (alpha / worlds) ** 0.5


def test_a_share_that_was_always_nothing_stands_out_soon() -> None:
    past = shares([0.0] * 14, rows=70_000, error=3_000**-0.5)
    found = limits(Measure(0.01, "share", 70_000, 0.05), day(14), past, 1e-5)
    assert found is not None
    assert found.low == 0
    assert 0 < found.high < 0.005


def test_a_day_without_events_is_not_excused_by_its_own_noise() -> None:
    past = shares([0.05, 0.052, 0.049, 0.051, 0.05] * 3, rows=70_000, error=0.012)
    gone = Measure(0.0, "share", 70_000, 1.0)
    found = limits(gone, day(15), past, 1e-5)
    assert found is not None
    assert found.low > 0.02


def test_only_the_recent_past_counts_in_any_order() -> None:
    days = [Summary(day(i)) for i in (50, 3, 49, 20, 19, 60)]
    assert [one.day for one in recent(days, day(50))] == [day(20), day(49)]
    assert (day(50) - day(20)).days == MEMORY_DAYS


def test_a_summary_survives_its_json() -> None:
    import json

    from components.validation.summary import Histogram

    one = Summary(
        day(1),
        {"a": Measure(0.1 + 0.2, "share", 3, 1 / 3)},
        {"h": Histogram({"+0001": 2}, 1, True, 4)},
        {"users": (1, 2)},
    )
    assert parse_summary(json.dumps(one.record()).encode()) == one
