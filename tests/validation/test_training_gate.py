"""The gates of training sets and models on planted faults: leaks, holes, imbalance, drift, predictions that are off."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.config import Pipeline, parse_pipeline
from components.feature_list import feature_list
from components.inputs import LOGARITHMIC, NUMERIC
from components.validation.log_gate import Verdict
from components.validation.model_gate import check_models, compare_models
from components.validation.model_profile import profiles_of
from components.validation.training_gate import TrainingSet, check_training_set

FIRST = date(2026, 1, 1)
FEATURES = feature_list(("plan",))
NUMBERS = [one for one in FEATURES if one.kind in NUMERIC]
TASKS = ("finish", "skip", "long_view", "like")
ROWS = 2_000


def pipeline() -> Pipeline:
    return parse_pipeline({"name": "gate", "feed": {"kind": "world", "first_day": FIRST}}, where="test")


def examples(seed: int, rows: int = ROWS, **columns: Any) -> pa.Table:
    """A day whose features know nothing of its labels; 200 users, a fifth of them new."""
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {
        "user_id": rng.integers(0, 200, rows),
        "video_id": rng.integers(0, 300, rows),
        "session_id": rng.integers(0, 900, rows),
        "position": rng.integers(0, 20, rows).astype(np.int32),
        "completion": rng.uniform(0, 1.5, rows).astype(np.float32),
        **{name: (rng.random(rows) < 0.3).astype(np.int8) for name in TASKS},
    }
    data["tenure_days"] = data["user_id"] % 5 * 20
    for one in NUMBERS:
        values = rng.gamma(2, 1.0, rows) if one.kind in LOGARITHMIC else rng.beta(2, 5, rows)
        data[one.name] = values.astype(np.float32)
    return pa.table(data | columns)


def judge(days: list[pa.Table], impressions: int = ROWS) -> Verdict:
    dated = {FIRST + timedelta(days=20 + i): table for i, table in enumerate(days)}
    given = TrainingSet(dated, dict.fromkeys(dated, impressions), FEATURES, threshold=1.5, feed_age_days=60)
    return check_training_set(given, pipeline())


def broken(verdict: Verdict, level: str) -> set[str]:
    return {one.expectation for one in verdict.outcomes if not one.success and one.level == level}


def clean() -> list[pa.Table]:
    return [examples(seed) for seed in range(4)]


def test_a_clean_training_set_passes_without_a_warning() -> None:
    verdict = judge(clean())
    assert (broken(verdict, "fail"), broken(verdict, "warn")) == (set(), set())
    names = {one.expectation for one in verdict.outcomes}
    assert {f"{one.name}_psi" for one in NUMBERS} <= names
    assert verdict.summary is not None
    assert verdict.summary.measures["group_share[new]"].value == pytest.approx(0.4, abs=0.1)


def test_a_feature_that_has_seen_the_label_fails_and_is_named() -> None:
    days = clean()
    rng = np.random.default_rng(9)
    leak = days[-1]["like"].to_numpy() + rng.uniform(0, 0.5, ROWS)
    index = days[-1].column_names.index("user_like_rate_1d")
    days[-1] = days[-1].set_column(index, "user_like_rate_1d", pa.array((leak / 1.6).astype(np.float32)))
    verdict = judge(days)
    assert "like_leak_fail" in broken(verdict, "fail")
    (found,) = (one for one in verdict.outcomes if one.expectation == "like_leak_fail")
    assert (found.column, found.detail) == ("user_like_rate_1d", "user_like_rate_1d")


def test_few_rows_are_no_evidence_of_a_leak() -> None:
    days = [examples(seed, rows=40) for seed in range(3)]
    few = np.zeros(40, dtype=np.int8)
    few[0] = 1
    index = days[-1].column_names.index("like")
    days[-1] = days[-1].set_column(index, "like", pa.array(few))
    assert not {one for one in broken(judge(days, 40), "fail") if "leak" in one}


def test_a_join_that_gains_or_loses_rows_fails() -> None:
    days = clean()
    days[1] = pa.concat_tables([days[1], days[1].slice(0, 5)])
    days[3] = days[3].slice(1)
    wrong = {f"examples[{FIRST + timedelta(days=20 + i)}]" for i in (1, 3)}
    assert wrong == broken(judge(days), "fail")


def test_a_task_without_a_positive_fails() -> None:
    nothing = np.zeros(ROWS, dtype=np.int8)
    days = [examples(seed, like=nothing) for seed in range(4)]
    assert broken(judge(days), "fail") == {"like_has_both"}


def test_a_feature_in_another_unit_and_a_lost_one_are_said() -> None:
    days = clean()
    other = pa.array(days[-1]["user_watch_s_7d"].to_numpy() + np.float32(np.log(1_000)))
    days[-1] = days[-1].set_column(days[-1].column_names.index("user_watch_s_7d"), "user_watch_s_7d", other)
    lost = pa.nulls(ROWS, pa.float32())
    days[-1] = days[-1].set_column(days[-1].column_names.index("video_like_rate_3d"), "video_like_rate_3d", lost)
    said = broken(judge(days), "warn")
    assert {"user_watch_s_7d_psi", "user_watch_s_7d_ks", "video_like_rate_3d_null_share"} <= said


def model_day(index: int, factor: float = 1.0, **changes: Any) -> Verdict:
    """Predictions that are calibrated up to a factor."""
    rng = np.random.default_rng(index)
    truth = rng.beta(2, 18, 5_000)
    label = (rng.random(5_000) < truth).astype(np.float64)
    predicted = np.clip(truth * factor, 0, 1)
    predicted = changes.get("predicted", lambda p: p)(predicted)
    user, group = rng.integers(0, 400, 5_000), rng.integers(0, 3, 5_000)
    profiles = profiles_of("treatment", "like", 1.0, label, predicted, group, user)
    return check_models(FIRST + timedelta(days=index), profiles)


def test_calibrated_models_pass_and_their_sums_are_right() -> None:
    verdict = model_day(0)
    assert [one.sentence() for one in verdict.outcomes if not one.success] == []
    assert verdict.summary is not None
    assert verdict.summary.measures["treatment_like_calibration[all]"].value == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("change", "expectation"),
    [
        (lambda p: np.where(np.arange(len(p)) == 3, np.nan, p), "treatment_like_are_numbers"),
        (lambda p: p + 1.0, "treatment_like_are_numbers"),
        (lambda p: np.full_like(p, 0.1), "treatment_like_differ"),
    ],
    ids=["nan", "above one", "constant"],
)
def test_predictions_that_are_none_fail(change: Any, expectation: str) -> None:
    assert expectation in broken(model_day(0, predicted=change), "fail")


def test_a_model_that_is_off_is_said() -> None:
    off = model_day(0, factor=2.0)
    assert broken(off, "fail") == set()
    assert "treatment_like_calibrated[all]" in broken(off, "warn")


def test_a_model_that_is_suddenly_off_fails() -> None:
    behind = [one.summary for one in (model_day(index) for index in range(8)) if one.summary is not None]

    def compared(factor: float) -> Verdict:
        today = model_day(8, factor=factor).summary
        assert today is not None
        return Verdict(tuple(compare_models(today, behind)), today)

    assert broken(compared(1.0), "fail") == set()
    assert broken(compared(4.0), "fail") == {"treatment_like_calibration[all]"}
    assert "treatment_like_psi" in broken(compared(4.0), "warn")
