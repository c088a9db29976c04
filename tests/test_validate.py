"""The gates of a day on planted faults: what fails, what the message tells the person on call, what is kept."""

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
from components.validate import validate_features, validate_log
from components.validation.gate import PAGE, earlier_summaries
from tests.small_lake import FIRST, Row, at, context_at, day_at, log_table, shown, users_table, write, write_day

pytestmark = pytest.mark.integration


def clean_rows(day: date = FIRST) -> list[Row]:
    """Twelve impressions in which every behaviour occurs, but no dislike."""
    rows = [
        shown(user, video, at(day, 9, video), **{name: int(video == 1) for name in BEHAVIOURS if name != "dislike"})
        for user in (1, 2, 3)
        for video in (1, 2, 3, 4)
    ]
    fitting = {"click": 0, "finish": 0, "skip": 1, "watch_ms": 2_000}
    return [
        row | ({"click": 1, "finish": 1, "skip": 0, "watch_ms": 10_000} if row["like"] else fitting) for row in rows
    ]


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


def failed(context: Context, name: str = "validation_log", day: date = FIRST) -> set[str]:
    """Names of the expectations that stop the day."""
    outcomes = context.runs.get(name, day).json("result.json")["outcomes"]
    return {o["expectation"] for o in outcomes if not o["success"] and o["level"] == "fail"}


def test_a_clean_day_passes_and_counts_its_warnings(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows(), users=users_table([1, 2]))
    result = validate_log(context, FIRST)
    warned = [sentence.split(" expects")[0] for sentence in result.facts["warnings"]]
    assert sorted(warned) == ["log.dislike: any_dislike", "log.user_id: most_users_are_known"]
    assert "observed 0.333" in str(result.facts["warnings"])
    record = context.runs.get("validation_log", FIRST).json("result.json")
    assert record["success"] is True
    assert result.facts["expectations"] == len(record["outcomes"]) > 40
    assert sum(not outcome["success"] for outcome in record["outcomes"]) == 2
    assert Path(result.facts["data_docs"]).is_file()


def test_two_runs_have_equal_results_although_their_pages_differ(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows())
    first = validate_log(context, FIRST)
    partition = context.runs.get("validation_log", FIRST)
    assert validate_log(context, FIRST).outputs == first.outputs
    assert context.runs.get("validation_log", FIRST).bytes("result.json") == partition.bytes("result.json")


@pytest.mark.parametrize(
    ("change", "names", "words"),
    [
        (changed("watch_ms", 90_000_000), {"watch_ms_range"}, ["log.watch_ms", "at most 0", "observed 1"]),
        (changed("propensity", 0.0, 2), {"propensity_range"}, ["log.propensity", "observed 2"]),
        (changed("like", 2), {"like_values"}, ["log.like"]),
        (changed("position", 1), {"position_repeats"}, ["log.position"]),
        (changed("session_id", None), {"session_id_null"}, ["log.session_id"]),
        (changed("watch_ms", 0), {"finish_needs_watch", "long_view_needs_watch"}, ["log.finish", "log.long_view"]),
        (changed("skip", 1), {"skip_is_no_finish"}, ["log.skip"]),
        (changed("event_time", at(day_at(1), 9)), {"event_time_day"}, ["log.event_time"]),
        (changed("click", 0, 12), {"plausible_click_rate"}, ["log.click", "0.005 to 0.98", "observed 0"]),
        (lambda table: table.drop_columns(["surface"]), {"columns"}, ["surface: missing"]),
        (lambda table: table.append_column("extra", table["like"]), {"columns"}, ["extra: unknown"]),
        (
            lambda table: table.set_column(0, "user_id", table["user_id"].cast(pa.string())),
            {"columns"},
            ["user_id: string"],
        ),
    ],
    ids=[
        *("watch time", "propensity 0", "behaviour 2", "duplicate position", "no session", "label without watching"),
        *("skipped finish", "another day", "nothing clicked", "lost column", "new column", "other type"),
    ],
)
def test_a_fault_in_the_log_fails_and_is_named(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], names: set[str], words: list[str]
) -> None:
    context = context_of(tmp_path)
    plant(context, change)
    message = failure(context)
    # A watch time that is out of range may move the mean as well.
    assert names <= failed(context) <= names | {"plausible_mean_watch", "plausible_finish_rate"}
    assert [word for word in [str(FIRST), *names, *words] if word not in message] == []


def test_a_day_of_mostly_refused_rows_fails_and_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path, validation={"max_refused_share": 0.1})
    plant(context, lambda table: table, refused={"null_key": 2}, refused_share=2 / 14)
    message = failure(context)
    assert failed(context) == {"refused_share_allowed"}
    assert "at most 0.1" in message
    assert "observed 0.142857" in message


def test_a_behaviour_that_is_not_recorded_is_no_fault(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("click", None, rows=12))
    assert validate_log(context, FIRST).facts["expectations"] > 0


def test_several_faults_are_all_named_at_once(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, lambda table: changed("like", 2)(changed("propensity", 0.0)(table)))
    message = failure(context)
    assert failed(context) == {"propensity_range", "like_values"}
    assert message.count("\n  log.") == 2


def test_a_day_learns_from_the_days_that_passed(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    for index in range(3):
        write_day(context, day_at(index), clean_rows(day_at(index)))
        result = validate_log(context, day_at(index))
    assert result.facts["days_behind"] == 2
    partition = context.runs.get("validation_log", day_at(2))
    assert {f"summary_log/{day_at(i)}" for i in range(2)} <= set(partition.manifest.inputs)
    again = validate_log(context, day_at(2))
    assert again.outputs == result.outputs


def test_a_day_that_failed_teaches_nothing(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    plant(context, changed("like", 2))
    failure(context)
    assert earlier_summaries(context, "validation_log", day_at(1)) == []


def test_a_suite_that_breaks_is_a_failed_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(tmp_path)
    write_day(context, FIRST, clean_rows())
    validate_log(context, FIRST)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("<b>of a suite</b>")

    monkeypatch.setattr("components.validate.check_log", broken)
    message = failure(context)
    assert failed(context) == {"suite_runs"}
    assert "ZeroDivisionError" in message
    assert "<b>" not in Path(context.runs.get("validation_log", FIRST).aside(PAGE)).read_text(encoding="utf-8")


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
    names = {"user_like_rate_3d is outside 0 to 1", "video_impressions_7d is less than video_impressions_3d"}
    # Users' and videos' sums are those of one log, so the wrong sum is seen there as well.
    assert failed(context, "validation_features") == names | {"impressions_7d differs from the videos'"}
    words = ["user_features.user_like_rate_3d", "observed 1", "video_features.video_impressions_7d"]
    assert [word for word in words if word not in message] == []


def test_a_snapshot_without_a_feature_or_with_a_key_twice_fails(tmp_path: Path) -> None:
    context = with_snapshots(tmp_path)
    user = context.data.get("user_features", FIRST).table()
    write(context, "user_features", FIRST, user.drop_columns(["user_click_rate_1d"]))
    assert "user_click_rate_1d: missing" in failure(context, validate_features)
    write(context, "user_features", FIRST, pa.concat_tables([user, user.slice(0, 1)]))
    failure(context, validate_features)
    twice = {name for name in failed(context, "validation_features") if not name.endswith("differs from the videos'")}
    assert twice == {"one_row_per_key"}
