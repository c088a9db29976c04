"""The analyse step's own parts: flags of the log as rollouts count them, and what every reader must know."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.analyse import _caveats, _replay, logged_flags, without_secrets
from components.context import Context, inputs_of
from components.errors import MissingPartitionError
from components.heldout import load_heldout, video_arrays
from components.respond import response_data
from simulator.agreement import Agreement
from simulator.decision import trust_ladder
from simulator.inference import Effect
from simulator.offpolicy.record import Cell, OffPolicy
from tests.small_lake import LONG_AGO, Row, at, context_at, day_at, feature_columns, log_table, shown, write
from tests.test_heldout import write_heldout
from tests.test_respond import TENURE

HELD, DAY = day_at(0), day_at(1)
RECORD = {"activity_threshold": 0.0, "train_days": [HELD.isoformat()]}
NOTHING = OffPolicy(day=HELD.isoformat(), reason="the feed logs nothing to replay")


def rows() -> list[Row]:
    """Video 11 is an hour old when it is shown; creator 9 has one impression of ten."""
    seen = [shown(user, video, at(HELD, 9, user), session_id=user) for user in range(3) for video in (11, 12, 13)]
    return [*seen, shown(3, 90, at(HELD, 9), session_id=3)]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    context = context_at(tmp_path)
    write_heldout(context, rows(), uploaded={11: at(HELD, 8), 12: None, 13: LONG_AGO})
    return context


def write_examples(context: Context) -> None:
    table = log_table(rows())
    for entity in ("user", "video"):
        for name, column in feature_columns(entity, table.num_rows, 0.5):
            table = table.append_column(name, column)
    table = table.append_column("tenure_days", np.full((1, table.num_rows), TENURE))
    for name in ("log_tenure_days", "log_video_age_days"):
        table = table.append_column(name, np.ones((1, table.num_rows), np.float32))
    write(context, "examples", HELD, table)


def test_flags_of_the_log_are_those_of_the_rollouts(context: Context) -> None:
    write_examples(context)
    data = response_data(context, [HELD], 0.0, until=DAY)
    flags = logged_flags(context, HELD, data, RECORD)
    assert {len(flag) for flag in flags.values()} == {len(data.user_id)}
    by_video = {
        video: {name: set(f[data.video_id == video]) for name, f in flags.items()} for video in (11, 12, 13, 90)
    }
    assert by_video[11]["fresh"] == {1}
    assert by_video[12]["fresh"] == {-1}
    assert by_video[13]["fresh"] == {0}
    held = load_heldout(context, HELD, 0.0)
    videos = video_arrays(context, held, [HELD])
    # Counters are those of the snapshot that was there when the session began.
    (version,) = set(held.sessions["version"].to_pylist())
    for video, found in by_video.items():
        row = np.flatnonzero(videos.video_id == video)[version]
        assert found["tail_creator"] == {videos.tail_creator[row]}
        assert found["trending"] == {videos.trending[row]} == {version}


def test_an_impression_that_is_not_held_out_has_no_flag(context: Context) -> None:
    write_examples(context)
    data = response_data(context, [HELD], 0.0, until=DAY)
    video, session = data.video_id.copy(), data.session_id.copy()
    video[0], session[1] = 999, 999
    data = replace(data, video_id=video, session_id=session)
    flags = logged_flags(context, HELD, data, RECORD)
    assert all(flag[0] == flag[1] == -1 for flag in flags.values())


def estimated(reward: str = "click") -> OffPolicy:
    effect = Effect(0.1, 0.0, 0.2)
    cell = Cell(
        part="random_sets",
        segment="all",
        reward=reward,
        unit="share",
        estimator="ips",
        treatment=effect,
        baseline=effect,
        difference=effect,
    )
    return OffPolicy(day=HELD.isoformat(), cells=(cell,))


def test_caveats_of_propensities_follow_what_replay_found(tmp_path: Path) -> None:
    context = context_at(tmp_path)
    write_heldout(context, [row | {"propensity": None} for row in rows()])
    unknown = _caveats(context, HELD, trust_ladder(), NOTHING)
    assert any("no off-policy estimate can check it" in one for one in unknown)
    assert any("logs no candidate sets" in one for one in unknown)
    assert any("what replay says of click" in one for one in _caveats(context, HELD, trust_ladder(), estimated()))


def test_a_log_with_propensities_that_can_not_be_replayed_says_so(context: Context) -> None:
    found = _caveats(context, HELD, trust_ladder(), NOTHING)
    assert any("could not be asked" in one and "nothing to replay" in one for one in found)
    assert not any("asked" in one for one in _caveats(context, HELD, trust_ladder(), estimated()))


def test_a_rung_of_the_day_does_not_stand_for_the_others(context: Context) -> None:
    agreed = Agreement(day=HELD.isoformat(), state="passed", detail="they agree")
    found = _caveats(context, HELD, trust_ladder(agreement=agreed), estimated())
    assert any("Neither A/A runs nor worlds of known truth" in one for one in found)


def test_a_replay_of_other_models_is_refused(context: Context) -> None:
    for name in ("training_set", "response", "model_treatment", "model_baseline"):
        with context.runs.write(name, DAY) as writer:
            writer.json("part.json", name)
    parts = [context.runs.get(name, DAY) for name in ("training_set", "response", "model_treatment", "model_baseline")]
    with context.runs.write("replay", DAY, inputs=inputs_of(*parts)) as writer:
        writer.json("replay.json", {})
    assert _replay(context, DAY).manifest.dataset == "replay"
    with context.runs.write("model_treatment", DAY) as writer:
        writer.json("part.json", "another")
    with pytest.raises(MissingPartitionError, match="mfh step replay"):
        _replay(context, DAY)


def test_a_report_shows_settings_and_no_password(tmp_path: Path) -> None:
    identity = context_at(tmp_path).pipeline.identity
    identity["feed"]["options"] = {"db_password": "hunter2", "API_KEY": "k", "table": "events"}
    shown_settings = without_secrets(identity)
    assert shown_settings["feed"]["options"] == {"db_password": "(hidden)", "API_KEY": "(hidden)", "table": "events"}
    # Nothing of the pipeline's own settings sounds like a secret.
    own = context_at(tmp_path).pipeline.identity
    assert without_secrets(own) == own
