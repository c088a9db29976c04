"""V1 on real rollouts: members that differ by luck alone, and the check as a whole on a tiny world."""

import numpy as np
import pyarrow.compute as pc
import pytest

from components.checks import aa
from components.checks.aa import Repeated, check_aa
from simulator.response_state import APPEALS, day_features
from simulator.session import RolloutSettings, rollout
from tests.checks.conftest import TINY

SETTINGS = RolloutSettings(seed=5, rollouts=2, max_slots=12)


@pytest.fixture(scope="module")
def outcomes(model, planted_few):
    arms = {"baseline": planted_few.arms["baseline"]}
    return rollout(planted_few.sessions, planted_few.videos, arms, Repeated(model, 3), SETTINGS).outcomes


def member(outcomes, number, name="app_time_s"):
    return outcomes.filter(pc.equal(outcomes["member"], number))[name].to_numpy()


def test_members_draw_different_luck(outcomes):
    seconds = [member(outcomes, number) for number in range(3)]
    users = [member(outcomes, number, "user_id").tolist() for number in range(3)]
    assert users[0] == users[1] == users[2]
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(seconds[one], seconds[two])
        # Of the same people with the same chances: alike on average, and no more than that.
        assert seconds[one].mean() == pytest.approx(seconds[two].mean(), rel=0.25)
        assert np.corrcoef(seconds[one], seconds[two])[0, 1] < 0.9


def test_the_first_member_is_the_model(model, planted_few, outcomes):
    arms = {"baseline": planted_few.arms["baseline"]}
    plain = rollout(planted_few.sessions, planted_few.videos, arms, model, SETTINGS).outcomes
    for name in ("user_id", "app_time_s", "impressions", "skips", "return_probability", "like"):
        assert member(outcomes, 0, name) == pytest.approx(member(plain, 0, name), rel=1e-9), name


def test_members_predict_the_same(model, planted_few):
    repeated = Repeated(model, 4)
    sessions = planted_few.sessions
    count = len(sessions.user_id)
    shown = np.random.default_rng(0).integers(0, len(planted_few.videos.video_id), count)
    pairs = sessions.pairs(planted_few.videos, np.arange(count), shown, np.zeros(count, dtype=np.float32))
    fold = repeated.fold(sessions.user_id)
    user = repeated.user_columns(sessions.user_id, sessions.group, sessions.newness, sessions.user_features)
    day = day_features(user, np.tile(model.centre(0).appeal, (count, 1)))
    assert day.shape[1] == user.shape[1] + len(APPEALS)
    assert (repeated.size, repeated.behaviours) == (4, model.behaviours)
    assert repeated.evidence is model.evidence
    assert np.array_equal(fold, model.fold(sessions.user_id))
    for number in range(4):
        assert repeated.scales(number) == model.scales(0)
        assert repeated.centre(number) is model.centre(0)
        for name, values in vars(model.appeal(0, pairs)).items():
            assert np.array_equal(getattr(repeated.appeal(number, pairs), name), values), name
        for mine, theirs in zip(
            repeated.leave_terms(number, fold, sessions.group, user),
            model.leave_terms(0, fold, sessions.group, user),
            strict=True,
        ):
            assert np.array_equal(mine, theirs)
        back = repeated.return_probability(number, fold, sessions.group, day)
        assert np.array_equal(back, model.return_probability(0, fold, sessions.group, day))


def test_the_same_pairs_are_predicted_once_and_others_anew(model, planted_few, monkeypatch):
    asked = []

    class Counting:
        def appeal(self, number, pairs, evidence):
            asked.append(number)
            return len(asked)

    repeated = Repeated(Counting(), 200)
    sessions = planted_few.sessions
    one, two = (
        sessions.pairs(planted_few.videos, np.arange(3), np.arange(3) + k, np.zeros(3, dtype=np.float32))
        for k in (0, 1)
    )
    assert [repeated.appeal(number, one) for number in range(3)] == [1, 1, 1]
    assert [repeated.appeal(number, two) for number in range(3)] == [2, 2, 2]
    assert repeated.appeal(0, one) == 3
    assert asked == [0, 0, 0]


@pytest.mark.integration
def test_the_check_on_a_tiny_world(monkeypatch: pytest.MonkeyPatch):
    # Two batches of streams.
    monkeypatch.setattr(aa, "_STREAMS", 50)
    told = []
    found = check_aa(lambda *one: told.append(one), runs=50, rollouts=2, size=TINY)
    assert found.rung == "V1 A/A"
    assert len(found.rows) == 24
    assert {row["kind"] for row in found.rows} == {"split", "flips", "streams"}
    assert {row["runs"] for row in found.rows} == {50}
    assert found.config["rollouts"] == 2
    assert found.config["size"]["users"] == TINY.users
    # So few users of low activity that some runs leave an arm without two of them: those cells say so.
    assert found.state in ("passed", "not powered"), found.sentence
    for row in found.rows:
        assert (row["rejections"] is None) == (row["reason"] is not None)
        assert row["rejections"] is not None or (row["kind"], row["segment"]) == ("split", "low")
    low, high = found.facts["band"]
    assert low <= 2.5 <= high
    assert told[-1][:2] == (50, 50)
