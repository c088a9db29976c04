"""Covariates come from each user's first session of the held-out day, as of its start."""

from pathlib import Path

import pyarrow as pa
import pytest

from components.covariates import covariates
from tests.small_lake import at, context_at, day_at, write

DAY = day_at(2)


def sessions(rows: list[dict]) -> pa.Table:
    known = {"user_sessions_14d": 1.0, "user_completion_rate_14d": 0.5, "user_long_view_rate_14d": 0.2}
    return pa.Table.from_pylist([known | row for row in rows])


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    context = context_at(tmp_path)
    rows = [
        {"user_id": 5, "session_id": 2, "started_at": at(DAY, 20), "user_impressions_14d": 9.0, "user_plan": "late"},
        {"user_id": 5, "session_id": 3, "started_at": at(DAY, 8), "user_impressions_14d": 4.0, "user_plan": "b"},
        {"user_id": 1, "session_id": 1, "started_at": at(DAY, 9), "user_impressions_14d": 0.0, "user_plan": "a"},
        {"user_id": 7, "session_id": 4, "started_at": at(DAY, 9), "user_impressions_14d": 2.0, "user_plan": "a"},
    ]
    for row, tenure in zip(rows, (2.0, 1.0, None, 0.0), strict=True):
        row |= {"user_watch_s_14d": 3.0, "log_tenure_days": tenure}
    write(context, "sessions", DAY, sessions(rows))
    return covariates(context, DAY)


def test_one_row_per_user_from_the_first_session(table: pa.Table) -> None:
    assert table["user_id"].to_pylist() == [1, 5, 7]
    assert table["user_impressions_14d"].to_pylist() == [0.0, 4.0, 2.0]
    assert table["log_tenure_days"].to_pylist() == [None, 1.0, 0.0]
    assert all(
        t == pa.float64() for name, t in zip(table.column_names, table.schema.types, strict=True) if name != "user_id"
    )


def test_attributes_become_indicators_of_all_values_but_one(table: pa.Table) -> None:
    assert [name for name in table.column_names if "=" in name] == ["user_plan=a"]
    assert table["user_plan=a"].to_pylist() == [1.0, 0.0, 1.0]
