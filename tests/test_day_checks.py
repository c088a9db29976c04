"""A day's gates as the report shows them, from results of this version and of earlier ones."""

from pathlib import Path
from typing import Any

import pytest

from components.context import Context
from components.day_checks import day_checks
from components.errors import RecordError
from tests.small_lake import context_at, day_at

DAY = day_at(3)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_at(tmp_path)


def outcome(success: bool, **changes: Any) -> dict[str, Any]:
    found = {"table": "log", "expectation": "mean_watch", "column": "watch_ms", "observed": 12.3456789}
    return (
        found
        | {"low": 20.0, "high": None, "level": "fail", "success": success, "rule": "35 days", "detail": ""}
        | changes
    )


def write(context: Context, gate: str, outcomes: list[dict[str, Any]]) -> None:
    with context.runs.write(gate, DAY) as writer:
        writer.json("result.json", {"success": True, "outcomes": outcomes})
        writer.aside["data_docs.html"] = b"docs"


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([outcome(True)], "passed"),
        ([outcome(True), outcome(False, level="warn")], "warned"),
        ([outcome(True), outcome(False, level="refuse")], "passed"),
        ([outcome(False)], "failed"),
        ([outcome(False, passed_by="ann")], "overridden"),
        ([outcome(False, passed_by="ann"), outcome(False, expectation="rows")], "failed"),
        # As earlier versions wrote them.
        ([{**outcome(False), "severity": "critical"} | {"limits": "4"}], "failed"),
    ],
)
def test_the_state_of_a_gate(context: Context, outcomes: list[dict[str, Any]], state: str) -> None:
    write(context, "validation_log", outcomes)
    (gate,) = day_checks(context, DAY).gates
    assert (gate.title, gate.state, gate.checks) == ("Log", state, len(outcomes))
    assert gate.failed == sum(not one["success"] and one.get("level") != "refuse" for one in outcomes)
    assert len(gate.warnings) == gate.failed


def test_results_of_an_earlier_version_say_how_severe_they_are(context: Context) -> None:
    old = {"table": "log", "expectation": "e", "column": "", "limits": "a value", "observed": "5", "unexpected": 1}
    write(context, "validation_log", [old | {"severity": "warning", "success": False}])
    (gate,) = day_checks(context, DAY).gates
    assert gate.state == "warned"
    assert gate.warnings == ("log: e expects a value, observed 5",)


def test_who_let_a_gate_pass_and_why_is_shown(context: Context) -> None:
    write(context, "validation_log", [outcome(False, passed_by="ann")])
    decision = {"table": "log", "expectation": "mean_watch", "who": "ann", "reason": "the feed moved to seconds"}
    with context.runs.write("gate_passes", DAY) as writer:
        writer.json("passes.json", [decision | {"reason": "too hasty"}, decision])
    (gate,) = day_checks(context, DAY).gates
    assert gate.override == "log.mean_watch by ann: the feed moved to seconds"
    assert gate.warnings == ("log.watch_ms: mean_watch expects at least 20, observed 12.3457",)


def test_what_the_day_does_not_have_is_named(context: Context) -> None:
    write(context, "validation_features", [outcome(True)])
    found = day_checks(context, DAY)
    assert [gate.name for gate in found.gates] == ["validation_features"]
    assert {"Log", "Training set", "Models"} <= set(found.absent)
    assert [one.href for one in found.documents] == [f"../../validation_features/ds={DAY}/data_docs.html"]


def test_a_result_that_can_not_be_understood_says_which(context: Context) -> None:
    write(context, "validation_log", [{"nothing": "known"}])
    with pytest.raises(RecordError, match=r"validation_log/.*result\.json is no result of a gate"):
        day_checks(context, DAY)


def test_drift_is_read_from_the_feature_report(context: Context) -> None:
    features = [{"name": "age_days", "psi": 0.31}, {"name": "topic", "psi": 0.02}, {"name": "fresh", "psi": None}]
    with context.runs.write("feature_report", DAY) as writer:
        writer.json("feature_report.json", {"day": str(DAY), "features": features})
        writer.aside["feature_report.html"] = b"page"
    found = day_checks(context, DAY)
    assert [(one.feature, one.value, one.state) for one in found.drift] == [
        ("age_days", 0.31, "warned"),
        ("topic", 0.02, "passed"),
        ("fresh", None, "missing"),
    ]
    assert found.drift[2].reason
    assert [one.href for one in found.documents] == [f"../../feature_report/ds={DAY}/feature_report.html"]
    assert "Skew" in found.absent


@pytest.mark.parametrize(
    ("compared", "mismatches", "state", "share"),
    [(400, 0, "passed", 0.0), (400, 1, "warned", 0.0025), (0, 0, "missing", None)],
)
def test_skew_is_read_with_what_differs(
    context: Context, compared: int, mismatches: int, state: str, share: float | None
) -> None:
    record = {"entities": {"user": 200, "video": 150}, "compared": compared, "mismatches": mismatches}
    more = {"by_feature": {"age_days": mismatches} if mismatches else None}
    more |= {"not_compared": None if compared else "the online store holds a newer day"}
    with context.runs.write("skew", DAY) as writer:
        writer.json("skew.json", record | more)
    (found,) = day_checks(context, DAY).skew
    assert (found.entity, found.share) == ("200 users, 150 videos", share)
    # A pipeline that allows none fails; then the day has no report, unless the limit was raised since.
    assert found.state in ({state, "failed"} if mismatches else {state})
    words = {0: "every value is the same", 1: "age_days: 1"}[mismatches] if compared else "newer day"
    assert words in found.detail


@pytest.mark.parametrize(("dataset", "name"), [("feature_report", "feature_report.json"), ("skew", "skew.json")])
def test_a_strange_record_says_which_file(context: Context, dataset: str, name: str) -> None:
    with context.runs.write(dataset, DAY) as writer:
        writer.json(name, {"features": [{}], "compared": 1})
    with pytest.raises(RecordError, match=name):
        day_checks(context, DAY)
