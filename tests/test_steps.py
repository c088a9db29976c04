"""What runs of a day when one of its steps fails, without Airflow."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from components.context import Context, StepResult
from components.errors import SkewError, ValidationFailedError
from components.steps import run_day
from tests.small_lake import FIRST, context_at


def ran(monkeypatch: pytest.MonkeyPatch, context: Context, failing: Mapping[str, Exception]) -> list[str]:
    done: list[str] = []

    def step(_: Context, name: str, day: date, shard: int | None = None) -> list[StepResult]:
        if name in failing:
            raise failing[name]
        done.append(name)
        return [StepResult(name, day)]

    monkeypatch.setattr("components.steps.run_step", step)
    if failing:
        with pytest.raises(type(next(iter(failing.values()))), match="first"):
            run_day(context, FIRST)
    else:
        assert [one.step for one in run_day(context, FIRST)] == done
    return done


def test_wrong_values_online_stop_promotion_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context = context_at(tmp_path)
    every = ran(monkeypatch, context, {})
    assert every[-2:] == ["report", "promote"]
    done = ran(monkeypatch, context, {"check_skew": SkewError("first")})
    assert done == [one for one in every if one not in ("check_skew", "promote")]


def test_a_day_that_its_gate_stops_ends_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = {"validate_log": ValidationFailedError("first"), "report": ValidationFailedError("second")}
    assert ran(monkeypatch, context_at(tmp_path), failing) == ["ingest"]
