"""Great Expectations on days with planted faults: what fails, and what the message tells the person on call."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.context import Context, StepResult
from components.errors import MissingPartitionError, ValidationFailedError
from components.features import features
from components.feed.schema import BEHAVIOURS
from components.validate import PAGE, validate_features, validate_log
from tests.small_lake import FIRST, Row, at, context_at, day_at, log_table, shown, users_table, write, write_day

pytestmark = pytest.mark.integration


def clean_rows(day: date = FIRST) -> list[Row]:
    """Twelve impressions in which every behaviour occurs, but no dislike."""
    rows = [
        shown(user, video, at(day, 9, video), **{name: int(video == 1) for name in BEHAVIOURS if name != "dislike"})
        for user in (1, 2, 3)
        for video in (1, 2, 3, 4)
    ]
    return [row | {"click": 1 - row["click"]} for row in rows]


def context_of(home: Path, **changes: Any) -> Context:
    return context_at(home, first_day=FIRST, train={"window_days": 1}, **changes)


def set_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The column replaced; it may hold nulls now, which the lake's writers never allow."""
    index = table.column_names.index(name)
    return table.set_column(index, name, pa.array(values, table.schema.field(name).type))


def plant(context: Context, change: Callable[[pa.Table], pa.Table], **facts: Any) -> None:
    """Write the day past ingest, which would refuse it."""
    write_day(context, FIRST, clean_rows())
    write(context, "log", FIRST, change(log_table(clean_rows())), **({"refused": {}, "refused_share": 0.0} | facts))


def changed(name: str, value: Any, rows: int = 1) -> Callable[[pa.Table], pa.Table]:
    """A fault: the first rows' value of a column replaced."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        return set_column(table, name, [value] * rows + values[rows:])

    return change


def failure(context: Context, step: Callable[[Context, date], StepResult] = validate_log, day: date = FIRST) -> str:
    """What the failed step says; its record and its page must be there."""
    with pytest.raises(ValidationFailedError) as caught:
        step(context, day)
    message = str(caught.value)
    page = Path(message.split("Full record: ")[1].split(". Mend", maxsplit=1)[0])
    assert page.name == PAGE
    assert page.read_text(encoding="utf-8").count("<html") >= 1
    name = message.split(" of ", maxsplit=1)[0]
    assert context.runs.get(name, day).json("result.json")["success"] is False
    return message


def failed(context: Context, name: str = "validation_log", day: date = FIRST) -> set[tuple[str, str]]:
    """Column and kind of the critical expectations that failed."""
    outcomes = context.runs.get(name, day).json("result.json")["outcomes"]
    return {(o["column"], o["expectation"]) for o in outcomes if not o["success"] and o["severity"] == "critical"}


def test_a_clean_day_passes_and_counts_its_warnings(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows(), users=users_table([1, 2]))
    result = validate_log(context, FIRST)
    warned = [sentence.split(":")[0] for sentence in result.facts["warnings"]]
    assert sorted(warned) == ["day.dislike_rate", "day.unknown_user_share"]
    assert "observed [0.333" in str(result.facts["warnings"])
    record = context.runs.get("validation_log", FIRST).json("result.json")
    assert record["success"] is True
    assert result.facts["expectations"] == len(record["outcomes"]) > 30
    assert sum(not outcome["success"] for outcome in record["outcomes"]) == 2
    assert Path(result.facts["data_docs"]).is_file()


def test_two_runs_have_equal_results_although_their_pages_differ(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows())
    first = validate_log(context, FIRST)
    partition = context.runs.get("validation_log", FIRST)
    assert validate_log(context, FIRST).outputs == first.outputs
    assert context.runs.get("validation_log", FIRST).bytes("result.json") == partition.bytes("result.json")


IN_RANGE, NOT_NULL = "expect_column_values_to_be_between", "expect_column_values_to_not_be_null"
IN_SET, UNIQUE = "expect_column_values_to_be_in_set", "expect_compound_columns_to_be_unique"


@pytest.mark.parametrize(
    ("change", "column", "expectation", "words"),
    [
        (changed("watch_ms", 90_000_000), "watch_ms", IN_RANGE, ["log.watch_ms", "max_value=21600000", "90000000"]),
        (changed("propensity", 0.0), "propensity", IN_RANGE, ["log.propensity", "strict_min=True", "[0.0]", "1 unex"]),
        (changed("like", 2), "like", IN_SET, ["log.like", "value_set=[0, 1]", "[2], 1 unexpected"]),
        (changed("position", 1), "", UNIQUE, ["log.table", "'session_id', 'position'", "2 unexpected rows"]),
    ],
    ids=["watch time", "propensity 0", "behaviour 2", "duplicate position"],
)
def test_a_fault_in_the_log_fails_and_is_named(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], column: str, expectation: str, words: list[str]
) -> None:
    context = context_of(tmp_path)
    plant(context, change)
    message = failure(context)
    # A watch time that is out of range may move the mean as well.
    assert (column, expectation) in failed(context) <= {(column, expectation), ("mean_watch_ms", IN_RANGE)}
    assert [word for word in [str(FIRST), expectation, *words] if word not in message] == []


def test_a_row_without_a_session_fails_and_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("session_id", None))
    message = failure(context)
    assert ("session_id", NOT_NULL) in failed(context)
    assert f"log.session_id: {NOT_NULL} expects" in message
    assert "1 unexpected rows" in message


def test_a_day_of_mostly_refused_rows_fails_and_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path, validation={"max_refused_share": 0.1})
    plant(context, lambda table: table, refused_share=0.11)
    message = failure(context)
    assert failed(context) == {("refused_share", IN_RANGE)}
    assert "day.refused_share" in message
    assert "max_value=0.1," in message
    assert "observed [0.11]" in message


def test_a_day_on_which_nothing_is_clicked_fails_and_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("click", 0, rows=12))
    message = failure(context)
    assert failed(context) == {("click_rate", IN_RANGE)}
    assert "day.click_rate" in message
    assert "min_value=0.005" in message
    assert "observed [0.0]" in message


def test_a_behaviour_that_is_not_recorded_is_no_fault(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("click", None, rows=12))
    assert validate_log(context, FIRST).facts["expectations"] > 0


def test_several_faults_are_all_named_at_once(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, lambda table: changed("like", 2)(changed("propensity", 0.0)(table)))
    message = failure(context)
    assert failed(context) == {("propensity", IN_RANGE), ("like", IN_SET)}
    assert message.count("\n  log.") == 2


def test_a_broken_earlier_day_stops_the_run_and_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    write_day(context, day_at(1), clean_rows(day_at(1)))
    write_day(context, day_at(2), clean_rows(day_at(2)))
    with pytest.raises(ValidationFailedError, match=f"validation_log of {FIRST}: 1 of"):
        validate_log(context, day_at(2))
    assert context.runs.find("validation_log", day_at(2)) is None
    # Once it is mended, the run goes through, and the day that passed is not checked again.
    write_day(context, FIRST, clean_rows())
    validate_log(context, day_at(2))
    page = Path(context.runs.get("validation_log", FIRST).aside(PAGE))
    before = page.read_bytes()
    validate_log(context, day_at(2))
    assert page.read_bytes() == before


def test_a_day_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingPartitionError, match="'log'"):
        validate_log(context_of(tmp_path), FIRST)


def with_snapshots(home: Path) -> Context:
    context = context_of(home)
    write_day(context, FIRST, clean_rows())
    features(context, FIRST)
    return context


def test_clean_snapshots_pass(tmp_path: Path) -> None:
    context = with_snapshots(tmp_path)
    result = validate_features(context, FIRST)
    assert result.facts["warnings"] == []
    assert result.facts["expectations"] > 80
    assert Path(result.facts["data_docs"]).is_file()


def test_faults_in_snapshots_fail_and_are_named(tmp_path: Path) -> None:
    context = with_snapshots(tmp_path)
    user = context.data.get("user_features", FIRST).table()
    write(context, "user_features", FIRST, set_column(user, "user_like_rate_3d", [1.5, 0.5, 0.5]))
    video = context.data.get("video_features", FIRST).table()
    write(context, "video_features", FIRST, set_column(video, "video_impressions_7d", [2.0, 3.0, 3.0, 3.0]))
    message = failure(context, validate_features)
    pair = "expect_column_pair_values_a_to_be_greater_than_b"
    assert failed(context, "validation_features") == {("user_like_rate_3d", IN_RANGE), ("", pair)}
    words = [
        "user_features.user_like_rate_3d",
        "max_value=1.000001",
        "[1.5]",
        "video_features.table",
        "column_A=video_impressions_7d, column_B=video_impressions_3d",
    ]
    assert [word for word in words if word not in message] == []
