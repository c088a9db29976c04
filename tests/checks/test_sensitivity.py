"""V6: what a variation changes and what it leaves, and which changes of the verdict are found."""

from dataclasses import replace

import numpy as np
import pytest

from components.checks.sensitivity import COMPARED, _judged, _row, _scaled
from components.config import DecisionRule
from simulator.response import ResponseModel
from simulator.response_state import APPEALS, day_features, leave_state
from simulator.session import RolloutSettings, rollout
from tests.simulator.conftest import Planted

KEPT = APPEALS.index("kept_logit")
USERS = 60


def users_of(model: ResponseModel, planted: Planted):
    """Fold, group and columns of the first users."""
    s = planted.sessions.select(np.arange(USERS))
    return model.fold(s.user_id), s.group, model.user_columns(s.user_id, s.group, s.newness, s.user_features)


def leaving(model: ResponseModel, planted: Planted, above: float, other: float) -> np.ndarray:
    """Logits of leaving when appeal is so far above the centre, at some place of a session."""
    fold, group, user = users_of(model, planted)
    rng = np.random.default_rng(0)
    appeal = np.tile(model.centre(0).appeal, (USERS, 1)) + other * rng.normal(size=(USERS, len(APPEALS)))
    appeal[:, KEPT] = model.centre(0).appeal[KEPT] + above
    position = rng.integers(1, 9, USERS).astype(float)
    state = leave_state(position, appeal, rng.uniform(0, 1, USERS), rng.uniform(1, 90, USERS))
    offset, slopes = model.leave_terms(0, fold, group, user)
    return offset + (slopes * state).sum(axis=1)


def returning(model: ResponseModel, planted: Planted, above: float, other: float) -> np.ndarray:
    """Logits of returning, likewise."""
    fold, group, user = users_of(model, planted)
    rng = np.random.default_rng(1)
    appeal = np.tile(model.centre(0).appeal, (USERS, 1)) + other * rng.normal(size=(USERS, len(APPEALS)))
    appeal[:, KEPT] = model.centre(0).appeal[KEPT] + above
    features, fits = day_features(user, appeal), model.members[0].returning
    return np.where(fold == 0, *(fit.logit(features, group) for fit in fits))


@pytest.mark.parametrize("factor", [0.5, 1.5])
@pytest.mark.parametrize(("which", "what"), [("leave", leaving), ("returning", returning)])
def test_the_centre_stays_and_the_slope_is_scaled(model, planted_few, factor, which, what):
    varied = _scaled(model, **{which: factor})
    for other in (0.0, 1.0):
        centre = what(model, planted_few, 0.0, other)
        assert what(varied, planted_few, 0.0, other) == pytest.approx(centre, abs=1e-9)
        moved = what(model, planted_few, 1.0, other) - centre
        assert np.abs(moved).min() > 0.01, "appeal moves everybody"
        assert what(varied, planted_few, 1.0, other) - centre == pytest.approx(factor * moved, abs=1e-9)


def test_the_other_outcome_and_the_given_model_stay_as_they_are(model, planted_few):
    before = [part(model, planted_few, 1.0, 1.0) for part in (leaving, returning)]
    less, back = _scaled(model, leave=0.5), _scaled(model, returning=0.5)
    assert np.array_equal(returning(less, planted_few, 1.0, 1.0), before[1])
    assert np.array_equal(leaving(back, planted_few, 1.0, 1.0), before[0])
    assert [
        np.array_equal(part(model, planted_few, 1.0, 1.0), b)
        for part, b in zip((leaving, returning), before, strict=True)
    ]
    assert np.array_equal(leaving(_scaled(model), planted_few, 1.0, 1.0), before[0])


def test_a_model_without_returning_is_varied_too(model, planted_few):
    without = replace(model, members=tuple(replace(m, returning=None, return_fit=None) for m in model.members))
    varied = _scaled(without, leave=0.5, returning=0.5)
    assert varied.members[0].returning is None
    assert varied.size == model.size


def test_a_row_compares_two_of_the_arms(model, planted_few):
    arms = planted_few.arms
    three = {"mfh": arms["treatment"], "popularity": arms["baseline"], "single_half": arms["baseline"]}
    outcomes = rollout(planted_few.sessions, planted_few.videos, three, model, RolloutSettings(5, 2, 10)).outcomes
    rule = DecisionRule(min_users=10)
    row = _row("as it is", outcomes, ("mfh", "popularity"), rule)
    assert (row["variation"], row["treatment"], row["baseline"]) == ("as it is", "mfh", "popularity")
    assert row["low_all"] < row["app_time_all"] < row["high_all"]
    assert row["app_time_all"] > 0, "the arm that knows what people like"
    assert row["decision"] in ("ship", "hold", "not enough evidence")
    back = _row("as it is", outcomes, ("popularity", "mfh"), rule)
    assert back["app_time_all"] < 0
    assert back["return_new"] == pytest.approx(-row["return_new"])


def rows_of(**changes: dict) -> list[dict]:
    """Three variations of both comparisons, all alike, with changes by variation of the second comparison."""
    found = []
    for name in ("as it is", "other luck", "half"):
        for pair in COMPARED:
            row = {"variation": name, "treatment": pair[0], "baseline": pair[1], "decision": "ship"}
            row |= {"app_time_all": 2.0, "app_time_new": 1.0}
            found.append(row | (changes.get(name, {}) if pair == COMPARED[1] else {}))
    return found


def test_nothing_changed():
    state, sentence = _judged(rows_of())
    assert state == "passed"
    assert "2 comparisons are the same under 2 variations" in sentence
    # Sizes may differ as long as signs do not.
    assert _judged(rows_of(half={"app_time_all": 40.0, "app_time_new": 0.001}))[0] == "passed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"app_time_all": -0.1}, "half: sign of all."),
        ({"app_time_new": -3.0}, "half: sign of new."),
        ({"app_time_all": -0.1, "app_time_new": -3.0}, "half: sign of all, new."),
        ({"decision": "hold"}, "half: ship becomes hold."),
        ({"app_time_new": -3.0, "decision": "hold"}, "half: sign of new."),
    ],
)
def test_a_changed_sign_or_decision_is_found(change, words):
    state, sentence = _judged(rows_of(half=change))
    assert state == "failed"
    assert sentence == f"Under 2 variations of 2 comparisons, 1 changed: mfh over single_half, {words}"


def test_all_that_changed_is_counted():
    popularity, half_trained = ({**row, "variation": "other fusion"} for row in rows_of()[:2])
    several = rows_of(half={"decision": "hold"})
    several += [popularity | {"app_time_all": -1.0}, half_trained | {"app_time_new": -1.0}]
    state, sentence = _judged(several)
    assert state == "failed"
    assert "Under 3 variations of 2 comparisons, 3 changed: mfh over popularity, other fusion" in sentence
    # What has no estimate has no sign; its decision tells.
    assert _judged(rows_of(half={"app_time_new": None}))[0] == "passed"
