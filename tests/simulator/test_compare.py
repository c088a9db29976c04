"""What changed between two reports: known answers, coverage of the interval, and reasons where there is no number."""

import math

import numpy as np
import pytest

from simulator.experiment import Estimate, Experiment
from simulator.report.compare import change_of, compare, flat_settings
from tests.simulator.experiment_example import example, full, without_new_users


def estimate(value: float | None, se: float | None = 1.0, multiple: float = 2.0, unit: str = "percent") -> Estimate:
    if value is None:
        return Estimate(value=None, unit=unit, reason="no user came")
    half = None if se is None else multiple * se
    low, high = (None, None) if half is None else (value - half, value + half)
    return Estimate(value=value, low=low, high=high, se=se, unit=unit)


def changed(**changes: object) -> Experiment:
    return example().model_copy(update=changes)


def test_a_change_adds_variances_and_keeps_the_wider_multiple() -> None:
    found = change_of(estimate(2.0, se=3.0, multiple=1.96), estimate(7.0, se=4.0, multiple=2.1))
    assert found.value == pytest.approx(5.0)
    assert found.se == pytest.approx(5.0)
    assert found.low == pytest.approx(5.0 - 2.1 * 5.0)
    assert found.high == pytest.approx(5.0 + 2.1 * 5.0)
    assert found.unit == "pp"


def test_shares_change_in_percentage_points_and_seconds_in_seconds() -> None:
    assert change_of(estimate(0.30, 0.01, unit="share"), estimate(0.35, 0.01, unit="share")).value == pytest.approx(5.0)
    assert change_of(estimate(1.0, unit="pp"), estimate(3.0, unit="pp")).unit == "pp"
    assert change_of(estimate(1.0, unit="s"), estimate(3.0, unit="s")).unit == "s"


def test_the_interval_covers_a_known_change() -> None:
    """4,000 pairs of days of 60 users with a true change of 2: a 95 % interval holds it in 95 % of them."""
    rng = np.random.default_rng(20260313)
    users, days = 60, 4_000
    samples = rng.normal([[0.0], [2.0]], [[9.0], [4.0]], size=(days, 2, users))
    means, errors = samples.mean(axis=2), samples.std(axis=2, ddof=1) / math.sqrt(users)
    t = 2.001  # the 97.5 % quantile of Student's t with 59 degrees of freedom
    inside = 0
    for (a, b), (se_a, se_b) in zip(means, errors, strict=True):
        found = change_of(estimate(float(a), float(se_a), t), estimate(float(b), float(se_b), t))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 2.0 <= found.high
    # Three standard errors of a share of 0.95 among 4,000; the multiple is a little too large by design.
    assert 0.940 <= inside / days <= 0.965


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (estimate(None), estimate(1.0), "the first has none: no user came"),
        (estimate(1.0), estimate(None), "the second has none: no user came"),
        (estimate(1.0), estimate(1.0, unit="s"), "units differ: percent and s"),
    ],
)
def test_what_can_not_be_compared_says_why(first: Estimate, second: Estimate, reason: str) -> None:
    found = change_of(first, second)
    assert (found.value, found.reason) == (None, reason)


def test_without_a_standard_error_there_is_a_change_and_no_interval() -> None:
    found = change_of(estimate(1.0, se=None), estimate(3.5))
    assert (found.value, found.low, found.high) == (2.5, None, None)


def test_a_report_compared_with_itself_differs_in_nothing() -> None:
    found = compare(full(), full())
    assert found.data == found.models == found.config == found.gates == ()
    assert {one.change.value for one in found.lifts if one.change.reason is None} == {0.0}
    assert {one.change for one in found.numbers if one.change is not None} == {0.0}
    assert all(one.change in (0.0, None) for one in found.quality)


def test_every_kind_of_change_is_named() -> None:
    e = example()
    lineage = e.lineage.model_copy(
        update={
            "config_hash": "0123456789ab",
            "code_version": "0.2.0",
            "config": {**e.lineage.config, "train": {"window_days": 9, "seed": 3}, "fresh": {}},
        }
    )
    arms = (e.arms[0].model_copy(update={"bundle": "another", "parameters": 7}), e.arms[1])
    second = changed(
        lineage=lineage, arms=arms, users=e.users * 2, data=(e.data[0],), holdout_day="2026-03-12", confidence=0.9
    )
    found = compare(e, second)
    config = {one.what: (one.first, one.second) for one in found.config}
    assert config["train.window_days"] == ("7", "9")
    assert config["train.seed"] == ("none", "3")
    assert config["fresh"] == (None, "none")
    assert config["config hash"][1] == "0123456789ab"
    assert "tasks[0].weight" not in config
    models = {one.what: (one.first, one.second) for one in found.models}
    assert set(models) == {"code version", "treatment, parameters", "treatment, bundle"}
    assert models["treatment, parameters"] == ("1,284,611", "7")
    data = {one.what: (one.first, one.second) for one in found.data}
    assert data["held-out day"] == ("2026-03-11", "2026-03-12")
    assert data["refused rows, watch time is negative"] == ("17", None)
    users = next(one for one in found.numbers if one.what == "users")
    assert (users.first, users.second, users.change) == (e.users, 2 * e.users, 100.0)
    assert found.lifts[0].confidence == 0.9
    assert any("0.95 and 0.9" in note for note in found.notes)


def test_a_segment_of_one_side_alone_says_so() -> None:
    e = example()
    found = compare(e, changed(metrics=e.metrics[:1]))
    gone = next(one for one in found.lifts if one.segment == "low")
    assert gone.second is None
    assert "does not have this metric and segment" in str(gone.change.reason)
    none = next(one for one in compare(e, without_new_users()).lifts if one.segment == "new")
    assert "no new user opened a session" in str(none.change.reason)


def test_a_record_without_configuration_is_compared_by_its_hash() -> None:
    e = example()
    old = changed(lineage=e.lineage.model_copy(update={"config": {}, "config_hash": "0123456789ab"}))
    found = compare(old, e)
    assert [one.what for one in found.config] == ["config hash"]
    assert any("earlier version" in note for note in found.notes)


def test_settings_are_flattened_to_paths() -> None:
    nested = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": None}, {"e": True}], "f": {}, "g": ""}
    assert dict(flat_settings(nested)) == {
        "a.b": "1",
        "a.c": "1, 2",
        "d[0].e": "none",
        "d[1].e": "True",
        "f": "none",
        "g": "none",
    }
