"""V2: what counts as coming back, what the simulated log offers, and how the logging policy goes on behind it."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from components.checks import backtests
from components.checks.backtest import DEPTHS, Cell, _compare, as_logged, as_production, found_of, judged
from components.checks.worlds import Size, world_context
from components.context import Context
from components.errors import WindowError
from components.heldout import Heldout
from simulator.metrics import METRICS, OUTCOMES, SEGMENTS
from simulator.response_data import ResponseData
from simulator.serving import Sessions, Videos
from tests.checks.conftest import TINY

NARROW = np.tile([9.0, 10.0, 11.0], 100)  # half an interval: 0.09
WIDE = np.tile([0.0, 20.0], 50)  # 1.99, just below 20 % of the mean
WIDER = np.tile([0.0, 20.0], 20)  # 3.2


@pytest.mark.parametrize(
    ("logged", "simulated", "state"),
    [
        (NARROW, 10.0, "passed"),
        (NARROW, 10.49, "passed"),
        (NARROW, 9.51, "passed"),
        (NARROW, 10.51, "failed"),
        (NARROW, 9.49, "failed"),
        (WIDE, 11.9, "passed"),
        (WIDE, 12.1, "failed"),
        (WIDE, 7.9, "failed"),
        (WIDER, 10.0, "not powered"),
        (WIDER, 30.0, "not powered"),
        (-NARROW, -10.49, "passed"),
        (-NARROW, -10.51, "failed"),
        (np.append(NARROW, np.nan), 10.49, "passed"),
        (np.zeros(50), 0.0, "not powered"),
        (NARROW, None, "missing"),
        (NARROW, np.nan, "missing"),
        (NARROW[:1], 10.0, "missing"),
        (np.full(5, np.nan), 10.0, "missing"),
    ],
)
def test_what_comes_back(logged, simulated, state):
    cell = judged("app_time", "new", len(logged), logged, simulated)
    assert (cell.metric, cell.segment, cell.users, cell.state) == ("app_time", "new", len(logged), state)
    if state == "missing":
        assert (cell.logged, cell.low, cell.high) == (None, None, None)
    else:
        assert cell.logged == pytest.approx(np.nanmean(logged))
        assert cell.low <= cell.logged <= cell.high
        assert cell.simulated == simulated


def test_the_interval_is_students():
    cell = judged("app_time", "all", 4, np.array([1.0, 2.0, 3.0, 4.0]), 2.5)
    assert cell.high - cell.logged == pytest.approx(3.1824463 * np.std([1, 2, 3, 4], ddof=1) / 2)


# Video ids of the day, and the log of three sessions: user, session, videos in order.
IDS = np.array([10, 20, 30, 40])
LOG = ((1, 7, (40, 10, 30)), (2, 5, (30,)), (2, 6, (20, 99)))


def heldout(versions: dict[int, int]) -> Heldout:
    """Sessions in the given order, id to snapshot version; the arrays that a backtest does not read are empty."""
    owner = {session: user for user, session, _ in LOG}
    sessions = pa.table(
        {
            "session_id": pa.array(versions, pa.int64()),
            "user_id": [owner.get(one, 9) for one in versions],
            "version": pa.array(versions.values(), pa.int8()),
        }
    )
    nothing = np.empty((0, 0), dtype=np.int64)
    return Heldout(sessions, pa.table({}), IDS, nothing, np.zeros(4, dtype=np.int32), nothing)


def sessions_of(held: Heldout, sets: np.ndarray) -> Sessions:
    count = held.sessions.num_rows
    return Sessions(
        row=np.arange(count),
        user_id=held.sessions["user_id"].to_numpy(),
        session_id=held.sessions["session_id"].to_numpy(),
        group=np.zeros(count, dtype=np.int8),
        newness=np.zeros(count, dtype=np.float32),
        started_us=np.zeros(count, dtype=np.int64),
        user_features=np.zeros((count, 1), dtype=np.float32),
        interests=np.full((count, 1), -1, dtype=np.int32),
        sets=sets.astype(np.int32),
    )


def log_of(rows: tuple = LOG) -> ResponseData:
    flat = [(user, session, slot, video) for user, session, many in rows for slot, video in enumerate(many)]
    user, session, position, video = (np.array(column, dtype=np.int64) for column in zip(*flat, strict=True))
    count = len(flat)
    return ResponseData(
        user_id=user,
        video_id=video,
        day=np.zeros(count, dtype=np.int32),
        session_id=session,
        position=position.astype(np.int32),
        group=np.zeros(count, dtype=np.int8),
        newness=np.zeros(count, dtype=np.float32),
        topic=np.zeros(count, dtype=np.int32),
        user_features=np.zeros((count, 1), dtype=np.float32),
        video_features=np.zeros((count, 1), dtype=np.float32),
        duration_s=np.ones(count),
        watch_s=np.ones(count),
        behaviours=("like",),
        interactions=np.zeros((count, 1), dtype=np.int8),
        left=np.zeros(count, dtype=np.int8),
        returned=np.zeros(count, dtype=np.int8),
        propensity=np.full(count, np.nan),
    ).ordered()


VIDEOS = Videos(
    video_id=np.tile(IDS, 2),
    features=np.zeros((8, 1), dtype=np.float32),
    duration_s=np.ones(8),
    topic=np.zeros(8, dtype=np.int32),
    uploaded_us=np.zeros(8, dtype=np.int64),
    creator_id=np.zeros(8, dtype=np.int64),
    trending=np.zeros(8, dtype=np.int8),
    tail_creator=np.zeros(8, dtype=np.int8),
    new_age_days=1,
)


def test_reached_slots_offer_what_the_log_showed_and_later_ones_what_they_offered():
    # Not in the order of ids; session 6 is of the second snapshot, whose videos follow the first one's.
    held = heldout({7: 0, 5: 0, 6: 1})
    sets = np.tile([[0, 1], [1, 2], [2, 3], [0, 3]], (3, 1, 1)) + np.array([0, 0, 4])[:, None, None]
    found = as_logged(sessions_of(held, sets), held, log_of(), VIDEOS).sets
    assert found.shape == (3, 4, 2)
    assert found[0].tolist() == [[3, -1], [0, -1], [2, -1], [0, 3]]
    assert found[1].tolist() == [[2, -1], [1, 2], [2, 3], [0, 3]]
    # Its second video is none of the day's: what the slot offered stands in for it.
    assert found[2].tolist() == [[5, -1], [5, 6], [6, 7], [4, 7]]


def test_sessions_deeper_than_their_sets_get_room_and_one_more_slot():
    held = heldout({7: 0, 5: 0, 6: 0})
    sets = np.tile([[[0, 1, 2, 3]]], (3, 1, 1))
    before = sets.copy()
    found = as_logged(sessions_of(held, sets), held, log_of(), VIDEOS).sets
    assert found.shape == (3, 4, 4)
    assert found[0, :3, 0].tolist() == [3, 0, 2]
    assert (found[0, :3, 1:] == -1).all()
    assert found[0, 3].tolist() == found[1, 1].tolist() == [0, 1, 2, 3]
    assert np.array_equal(sets, before), "the sessions given stay as they are"


def test_rows_of_sessions_that_are_not_simulated_are_left_out():
    held = heldout({5: 0})
    found = as_logged(sessions_of(held, np.array([[[0, 1], [1, 2]]])), held, log_of(), VIDEOS).sets
    assert found.tolist() == [[[2, -1], [1, 2]]]


def chosen(scores, sessions: int = 30_000) -> np.ndarray:
    """Share of sessions in which each of three videos comes first."""
    table = pa.table({"user_id": np.arange(sessions) % 500, "session_id": np.arange(sessions) * 3})
    nothing = np.empty((0, 0), dtype=np.int64)
    held = Heldout(table, pa.table({}), IDS[:3], nothing, np.zeros(3, dtype=np.int32), nothing)
    ranking = as_production(SimpleNamespace(evidence=SimpleNamespace(scores=scores)), held)
    session, video = (a.ravel() for a in np.meshgrid(np.arange(sessions), np.arange(3), indexing="ij"))
    # Rows of the second snapshot are the same videos.
    found = ranking(session, video + 3 * (session % 2))
    assert np.array_equal(found, ranking(session, video)), "the same luck whenever a session asks"
    assert np.isfinite(found).all()
    first = Counter(found.reshape(sessions, 3).argmax(axis=1).tolist())
    return np.array([first[place] / sessions for place in range(3)])


def test_behind_the_log_videos_are_equal_without_production_scores():
    assert chosen(None) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_behind_the_log_production_scores_decide_by_a_softmax():
    by_id = dict(zip(IDS.tolist(), np.log([1.0, 2.0, 5.0]).tolist(), strict=False))

    def score(user, video):
        assert len(user) == len(video)
        return np.array([by_id[one] for one in video.tolist()])

    assert chosen(SimpleNamespace(score=score, mean=0.0)) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)
    # A video without a score counts as a middling one.
    by_id[30] = np.nan
    assert chosen(SimpleNamespace(score=score, mean=np.log(3.0))) == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.01)


def outcomes(users: int, seconds: float) -> pa.Table:
    """Half new, half highly active users whose seconds scatter a little."""
    known = {
        "user_id": np.arange(users),
        "group": np.arange(users) % 2 * 2,
        "arm": ["log"] * users,
        "member": np.zeros(users),
        "app_time_s": seconds + np.arange(users) % 3,
        "sessions": np.ones(users),
        "impressions": np.full(users, 10.0) + np.arange(users) % 3,
        "skips": np.full(users, 2.0) + np.arange(users) % 2,
    }
    arrays = [pa.array(known[f.name]).cast(f.type) if f.name in known else pa.nulls(users, f.type) for f in OUTCOMES]
    return pa.table(arrays, schema=OUTCOMES)


def test_every_metric_and_depth_of_every_segment_is_compared():
    depths = {segment: [] for segment in SEGMENTS}
    was, now = np.repeat([1, 2, 3, 15, 16, 60], 100), np.repeat([1, 2, 3, 15, 16, 60], [20, 10, 10, 20, 20, 20])
    depths["all"] = depths["high"] = [(was, now)]
    cells = _compare(outcomes(300, 100.0), outcomes(300, 120.0), depths)
    found = {(cell.metric, cell.segment): cell for cell in cells}
    assert len(found) == len(cells)
    assert {segment for _, segment in found} == set(SEGMENTS)
    assert {(m.name, s) for m in METRICS for s in SEGMENTS} <= set(found)
    names = [metric for metric, segment in found if segment == "high" and metric.startswith("depth")]
    assert names == ["depth 1", "depth 2 to 3", "depth 4 to 7", "depth 8 to 15", "depth 16 and more"]
    assert len(names) == len(DEPTHS)
    assert not [1 for metric, segment in found if segment == "new" and metric.startswith("depth")]
    states = {key: found[key].state for key in (("app_time", "all"), ("app_time", "low"), ("return", "all"))}
    assert list(states.values()) == ["failed", "missing", "missing"]
    assert (found["depth 1", "all"].simulated, found["depth 1", "all"].logged) == pytest.approx((0.2, 1 / 6))
    assert found["depth 16 and more", "high"].simulated == pytest.approx(0.4)
    assert found["depth 4 to 7", "all"].state == "not powered"


def cell(state: str, metric: str = "app_time", simulated: float | None = 10.0, segment: str = "all") -> Cell:
    return Cell(metric, segment, 100, 10.0, 9.0, 11.0, simulated, state)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["passed", "not powered"], "passed"),
        (["passed", "failed"], "failed"),
        (["not powered", "missing"], "not powered"),
        ([], "not powered"),
    ],
)
def test_the_state_of_a_feed(states, state):
    found = found_of("world", [cell(one) for one in states], {"days": 2})
    assert (found.rung, found.state, found.config) == ("V2 backtest", state, {"feed": "world", "days": 2})
    assert [one["state"] for one in found.rows] == states


def test_the_sentence_names_the_number_that_is_farthest_off():
    cells = [
        cell("passed"),
        cell("failed", "skip_share", 12.0),
        cell("failed", "return", 7.0, "new"),
        cell("not powered", simulated=90.0),
        cell("missing", simulated=None),
    ]
    found = found_of("kuairand", cells, {}, "Return is a proxy.")
    assert found.sentence == (
        "kuairand: 1 of 3 powered numbers came back; farthest off: return of new users, -30 %; 1 not powered. "
        "Return is a proxy."
    )
    assert found_of("world", cells[:1], {}).sentence == "world: 1 of 1 powered numbers came back; 0 not powered."


@pytest.fixture
def few_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days to fit and none before them."""
    monkeypatch.setattr(backtests, "FIT_DAYS", TINY.window_days)
    monkeypatch.setattr(backtests, "WARM_UP_DAYS", 0, raising=False)


def test_a_feed_of_too_few_days_is_refused(few_days: None, monkeypatch: pytest.MonkeyPatch):
    def short(seed: int, size: Size, folder: Path, days: int) -> Context:
        assert days == 6
        return world_context(seed, size, folder, days - 1)

    monkeypatch.setattr(backtests, "world_context", short)
    with pytest.raises(WindowError, match="3 days to fit, 2 to test and one for their return") as caught:
        backtests.backtests(lambda *told: None, None, TINY)
    assert "2026-01-01 to 2026-01-05" in str(caught.value)


@pytest.mark.integration
def test_the_logging_policy_of_a_tiny_world_from_end_to_end(few_days: None):
    """What comes back of so small a world is chance; that everything is compared, and where, is not."""
    told = []
    (found,) = backtests.backtests(lambda *one: told.append(one), None, TINY)
    cells = {(row["metric"], row["segment"]): row for row in found.rows}
    assert len(cells) == len(found.rows) == (len(METRICS) + len(DEPTHS)) * len(SEGMENTS)
    # The world begins on 1 January; the day after the last tested one tells who came back.
    assert (found.config["fit"], found.config["test"]) == ("2026-01-01 to 2026-01-03", "2026-01-04 to 2026-01-05")
    for name in ("app_time", "skip_share", "return"):
        assert all(cells[name, segment]["state"] != "missing" for segment in ("all", "new")), name
    users = [cells["app_time", segment]["users"] for segment in SEGMENTS]
    assert users[0] == sum(users[1:])
    for kind in ("logged", "simulated"):
        shares = [cells[metric, "all"][kind] for metric, segment in cells if segment == "all" and "depth" in metric]
        assert sum(shares) == pytest.approx(1.0)
    # An unseen day of the same people: wide of the mark would be a fault, whatever the state.
    app_time = cells["app_time", "all"]
    assert app_time["simulated"] == pytest.approx(app_time["logged"], rel=0.5)
    assert [what for _, _, what in told][-1].startswith("simulate ")
