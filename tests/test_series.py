"""The running series reads the experiments of this pipeline up to the day, and none after it."""

from datetime import date
from pathlib import Path

import pytest

from components.context import Context
from components.series import experiments_until, running_series, series_of
from simulator.experiment import Estimate, Experiment, MetricResult
from tests.simulator.experiment_example import example
from tests.small_lake import context_at, day_at


def result(name: str, value: float | None, se: float | None = 1.5, users: int = 400) -> MetricResult:
    def estimate(unit: str) -> Estimate:
        if value is None:
            return Estimate(value=None, unit=unit, reason="only one user: a variance needs two")
        return Estimate(value=value, low=value - 3, high=value + 3, se=se, unit=unit)

    first = example().metrics[0]
    given = {"name": name, "segment": "new", "users": users, "relative": estimate("percent")}
    return first.model_copy(update=given | {"difference": estimate("pp")})


def record(day: date, *metrics: MetricResult) -> Experiment:
    return example().model_copy(update={"day": day.isoformat(), "metrics": metrics})


def write(context: Context, day: date, value: float) -> None:
    experiment = record(day, result("app_time", value), result("return", value / 10))
    with context.runs.write("experiment", day) as writer:
        writer.text("experiment.json", experiment.model_dump_json())


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


def test_a_backfilled_day_sees_only_days_before_it(context: Context) -> None:
    for index, value in ((4, 9.0), (2, 4.0), (1, 2.0)):
        write(context, day_at(index), value)
    assert [r.day for r, _ in experiments_until(context, day_at(2))] == [str(day_at(1)), str(day_at(2))]
    found = {(s.metric, s.segment): s for s in running_series(context, day_at(2))}
    series = found["app_time", "new"]
    assert [p.day for p in series.points] == [str(day_at(1)), str(day_at(2))]
    assert [p.value for p in series.points] == [2.0, 4.0]
    assert [p.estimate for p in series.points] == pytest.approx([2.0, 3.0])
    assert series.unit == "percent"
    assert series.reason is None
    assert found["return", "new"].unit == "pp"
    assert found["return", "new"].points[1].estimate == pytest.approx(0.3)
    # Neither later days nor the order in which days ran change what a day shows.
    later = {(s.metric, s.segment): s for s in running_series(context, day_at(4))}["app_time", "new"]
    assert later.points[:2] == series.points
    assert len(later.points) == 3


def test_another_configuration_has_a_series_of_its_own(context: Context, tmp_path: Path) -> None:
    write(context, day_at(1), 2.0)
    assert experiments_until(context_at(tmp_path, decision={"min_users": 7}), day_at(1)) == []


def test_one_day_is_no_series(context: Context) -> None:
    write(context, day_at(1), 2.0)
    found = {(s.metric, s.segment): s for s in running_series(context, day_at(1))}
    assert len(found["app_time", "new"].points) == 1
    assert found["app_time", "new"].reason == "only one day has an estimate: a series needs two"
    assert found["app_time", "all"].reason == "no day has an estimate"
    assert found["app_time", "all"].left_out == {str(day_at(1)): "the metric was not estimated"}


def test_days_without_an_estimate_are_left_out_with_a_reason() -> None:
    records = [
        record(day_at(0), result("app_time", 1.0)),
        record(day_at(1), result("app_time", None)),
        record(day_at(2), result("app_time", 2.0, se=None)),
        record(day_at(3), result("app_time", 4.0, users=800)),
    ]
    series = series_of(records, "app_time", "new", 0.95)
    assert series.left_out == {
        str(day_at(1)): "only one user: a variance needs two",
        str(day_at(2)): "the record holds no standard error; analyse the day again",
    }
    assert [p.users for p in series.points] == [400, 1200]
    assert series.points[1].estimate == pytest.approx((400 * 1 + 800 * 4) / 1200)
