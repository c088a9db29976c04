"""The held-out sessions as arrays: which videos each could show, and what is known of them."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.context import Context
from components.feed.schema import TIME
from components.heldout import Heldout, load_heldout, pair_context, session_arrays, video_arrays
from components.respond import numeric_columns
from simulator.serving import Sessions
from tests.small_lake import (
    LONG_AGO,
    Row,
    at,
    context_at,
    day_at,
    feature_columns,
    log_table,
    shown,
    write,
    write_day,
)

DAY = day_at(0)
SWITCH = at(DAY, 1)
K, SLOTS = 6, 5
LATE = at(DAY, 20)


def write_heldout(
    context: Context,
    rows: Iterable[Row],
    *,
    requests: dict[int, list[int]] | None = None,
    uploaded: dict[int, datetime | None] | None = None,
    reverse: bool = False,
) -> None:
    """The day's log, and sessions and videos as the dataset step leaves them."""
    kept = list(rows)
    offered = [
        {"session_id": session, "slot": slot, "candidates": ids[slot::2]}
        for session, ids in (requests or {}).items()
        for slot in (0, 1)
    ]
    write_day(context, DAY, kept, requests=offered if requests is not None else None)
    log = log_table(kept)
    table = log.group_by(["session_id", "user_id"], use_threads=False).aggregate(
        [("event_time", "min"), ("video_id", "count")]
    )
    table = table.rename_columns({"event_time_min": "started_at", "video_id_count": "depth"})
    if reverse:
        table = table.take(pa.array(range(table.num_rows)[::-1]))
    count = table.num_rows
    for name, column in (
        ("surface", pa.array(["feed"] * count)),
        ("hour", pa.array([9] * count, pa.int8())),
        ("version", pc.cast(pc.greater_equal(table["started_at"], pa.scalar(SWITCH, TIME)), pa.int8())),
        ("tenure_days", pa.array([400] * count, pa.int64())),
        ("log_tenure_days", pa.array([2.5] * count, pa.float32())),
        *feature_columns("user", count, 0.5),
    ):
        table = table.append_column(name, column)
    write(context, "sessions", DAY, table)
    ids = sorted(set(log["video_id"].to_pylist()) | {video for many in (requests or {}).values() for video in many})
    write(
        context, "session_videos", DAY, pa.concat_tables([videos(ids, version, uploaded or {}) for version in (0, 1)])
    )


def videos(ids: list[int], version: int, uploaded: dict[int, datetime | None]) -> pa.Table:
    """Videos of ten seconds whose counters are the version, and whose topic is the id's last digit."""
    columns = dict(feature_columns("video", len(ids), float(version)))
    columns["video_creator_id"] = pa.array([one // 10 for one in ids], pa.int64())
    columns["video_topic"] = pa.array([f"t{one % 10}" if one % 10 else "" for one in ids])
    columns["video_duration_ms"] = pa.array([np.log1p(10_000.0)] * len(ids), pa.float32())
    moments = pa.array([uploaded.get(one, LONG_AGO) for one in ids], TIME)
    return pa.table(
        {
            "video_id": pa.array(ids, pa.int64()),
            "version": pa.array([version] * len(ids), pa.int8()),
            "uploaded_at": moments,
            **columns,
        }
    )


def context_of(home: Path, candidates: int = K) -> Context:
    return context_at(home, simulator={"candidates": candidates, "max_slots": SLOTS})


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return context_of(tmp_path)


def candidates(held: Heldout) -> dict[int, list[int]]:
    """Video ids by session, in the order of the places."""
    found = {}
    for session, row in zip(held.sessions["session_id"].to_pylist(), held.offered, strict=True):
        inside = row >= 0
        assert not (np.diff(inside.astype(int)) > 0).any(), "padding is at the end"
        found[session] = held.ids[row[inside]].tolist()
    return found


def many_rows() -> list[Row]:
    """Thirty sessions of one to four videos out of forty."""
    return [
        shown(user, 10 + (7 * user + 11 * slot) % 40, at(DAY, 2 + user % 20, slot), session_id=user + 1_000)
        for user in range(30)
        for slot in range(1 + user % 4)
    ]


def shown_by_session(rows: Iterable[Row]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for row in rows:
        found.setdefault(row["session_id"], set()).add(row["video_id"])
    return found


def test_without_requests_a_session_could_show_what_it_showed_and_what_others_showed(context: Context) -> None:
    rows = many_rows()
    write_heldout(context, rows)
    found = candidates(load_heldout(context, DAY, 0.0))
    everything = {row["video_id"] for row in rows}
    for session, own in shown_by_session(rows).items():
        offered = found[session]
        assert len(offered) == len(set(offered)) == K
        assert set(offered[: len(own)]) == own, "what was shown comes first"
        assert set(offered) <= everything


def test_a_session_that_showed_more_than_there_are_places_is_cut(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=2)
    write_heldout(context, many_rows())
    own = shown_by_session(many_rows())
    for session, offered in candidates(load_heldout(context, DAY, 0.0)).items():
        assert len(offered) == len(set(offered)) == 2
        assert len(set(offered) & own[session]) == min(2, len(own[session]))


def test_videos_are_drawn_as_often_as_they_were_exposed(tmp_path: Path) -> None:
    # Video 1 has 90 of 100 exposures: nearly every session of another video is offered it.
    context = context_of(tmp_path, candidates=3)
    rows = [shown(user, 1 if user < 90 else user, at(DAY, 9), session_id=user) for user in range(100)]
    write_heldout(context, rows)
    found = candidates(load_heldout(context, DAY, 0.0))
    others = [found[session] for session in range(90, 100)]
    assert all(1 in offered for offered in others)
    offered_rarely = {video for offered in found.values() for video in offered} - {1}
    assert len(offered_rarely) > 5


def test_nothing_is_offered_before_its_upload_unless_it_was_shown(context: Context) -> None:
    early = [shown(user, 11 + user % 3, at(DAY, 9), session_id=user) for user in range(20)]
    late = [shown(user, 99, at(DAY, 21), session_id=user) for user in range(20, 60)]
    # One session saw it being uploaded, and two minutes later itself.
    across = [shown(70, 11, at(DAY, 19, 59), session_id=70), shown(70, 99, at(DAY, 20, 1), session_id=70)]
    write_heldout(context, [*early, *late, *across], uploaded={99: LATE, 12: None})
    found = candidates(load_heldout(context, DAY, 0.0))
    assert all(99 not in found[session] for session in range(20))
    assert all(found[session] for session in range(20))
    assert all(99 in found[session] for session in range(20, 60))
    assert set(found[70][:2]) == {11, 99}
    assert any(12 in found[session] for session in range(20) if session % 3 != 1), "an unknown upload is no bar"


# Every session's candidates of slot 0 and of slot 1 by turns (see ``write_heldout``).
REQUESTS = {1: [11, 12, 13, 14], 2: list(range(20, 40)), 3: [11, 15, 12, 16]}


def request_rows() -> list[Row]:
    return [shown(session, REQUESTS[session][0], at(DAY, 9), session_id=session) for session in REQUESTS]


def slot_ids(held: Heldout, sessions: Sessions) -> dict[int, list[list[int]]]:
    """Video ids by session and slot, whatever their snapshot version."""
    return {
        int(session): [held.ids[row[row >= 0] % len(held.ids)].tolist() for row in slots]
        for session, slots in zip(sessions.session_id, sessions.sets, strict=True)
    }


def test_with_requests_a_slot_offers_what_the_log_offered_in_it(context: Context) -> None:
    write_heldout(context, request_rows(), requests=REQUESTS)
    held = load_heldout(context, DAY, 0.0)
    assert held.offered.shape == (3, 0)
    sessions = session_arrays(context, held, np.arange(3))
    assert sessions.sets.shape == (3, SLOTS, K)
    for session, slots in slot_ids(held, sessions).items():
        for slot in (0, 1):
            logged = REQUESTS[session][slot::2]
            assert len(slots[slot]) == len(set(slots[slot])) == min(K, len(logged))
            assert set(slots[slot]) <= set(logged)


def test_a_slot_beyond_the_log_borrows_the_set_of_another_request(context: Context) -> None:
    requests = {session: [100 * session, 100 * session + 1, 100 * session + 2] for session in range(1, 101)}
    rows = [shown(session, 100 * session, at(DAY, 9), session_id=session) for session in requests]
    write_heldout(context, rows, requests=requests)
    held = load_heldout(context, DAY, 0.0)
    found = slot_ids(held, session_arrays(context, held, np.arange(100)))
    logged = {tuple(sorted(ids[slot::2])) for ids in requests.values() for slot in (0, 1)}
    borrowed = [tuple(sorted(one)) for slots in found.values() for one in slots[2:]]
    assert set(borrowed) <= logged, "a whole set of one request"
    # 300 draws of 200 requests: nearly four in five are drawn, none much more often than others.
    assert len(set(borrowed)) > 130
    assert max(borrowed.count(one) for one in set(borrowed)) < 9
    own = [one[0] // 100 == session for session, slots in found.items() for one in slots[2:]]
    assert sum(own) < 15, "not the session's own"


def test_borrowed_videos_were_there_when_the_session_began(context: Context) -> None:
    early = [shown(user, 11, at(DAY, 9), session_id=user) for user in range(20)]
    late = [shown(user, 99, at(DAY, 21), session_id=user) for user in range(20, 80)]
    requests = {user: [11, 11, 99, 12] for user in range(20)} | {user: [99, 98, 97, 96] for user in range(20, 80)}
    new = dict.fromkeys((96, 97, 98, 99), LATE)
    write_heldout(context, [*early, *late], requests=requests, uploaded=new | {12: None})
    held = load_heldout(context, DAY, 0.0)
    found = slot_ids(held, session_arrays(context, held, np.arange(80)))
    for user in range(20):
        assert set(found[user][0]) == {11, 99}, "what the log offered is offered"
        for slot in found[user][2:]:
            # Three of four sets were not there at all: others are drawn instead, and no slot is empty.
            assert slot
            assert not set(slot) & set(new)
    assert any(set(slot) & set(new) for user in range(20, 80) for slot in found[user][2:])
    assert any(12 in slot for user in range(20) for slot in found[user][2:]), "an unknown upload is no bar"


def test_a_session_without_a_request_borrows_every_slot(context: Context) -> None:
    rows = [*request_rows(), shown(9, 12, at(DAY, 9), session_id=9)]
    write_heldout(context, rows, requests=REQUESTS | {77: [11]})
    held = load_heldout(context, DAY, 0.0)
    assert held.requests is not None
    assert len(held.requests.slot) == 6, "the session 77 is none of the day's"
    sessions = session_arrays(context, held, np.arange(4))
    slots = slot_ids(held, sessions)[9]
    everything = {video for ids in REQUESTS.values() for video in ids}
    assert all(slots)
    assert {video for slot in slots for video in slot} <= everything


def test_some_sessions_are_offered_what_they_are_offered_among_all(context: Context) -> None:
    write_heldout(context, request_rows(), requests=REQUESTS)
    held = load_heldout(context, DAY, 0.0)
    whole = session_arrays(context, held, np.arange(3))
    part = session_arrays(context, held, np.array([2, 0]))
    assert part.row.tolist() == [2, 0]
    assert np.array_equal(part.sets, whole.sets[[2, 0]])


def test_requests_are_thinned_evenly(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=5)
    requests = {session: [video for video in range(10, 20) for _ in (0, 1)] for session in range(400)}
    rows = [shown(session, 10, at(DAY, 9), session_id=session) for session in requests]
    write_heldout(context, rows, requests=requests)
    held = load_heldout(context, DAY, 0.0)
    found = slot_ids(held, session_arrays(context, held, np.arange(400)))
    for slot in (0, 1):
        counts = np.bincount([video for slots in found.values() for video in slots[slot]], minlength=20)[10:]
        # Each of ten videos has five places of ten: 200 of 400, give or take four standard deviations.
        assert counts.sum() == 2_000
        assert (abs(counts - 200) < 4 * 10).all()
    assert any(slots[0] != slots[1] for slots in found.values()), "every request has a draw of its own"


@pytest.mark.parametrize("requests", [None, REQUESTS], ids=["without requests", "with requests"])
def test_candidates_do_not_depend_on_the_run_nor_on_the_order_of_sessions(
    tmp_path: Path, requests: dict[int, list[int]] | None
) -> None:
    rows = many_rows() if requests is None else request_rows()
    found = []
    for name, reverse in (("a", False), ("b", False), ("c", True)):
        context = context_of(tmp_path / name)
        write_heldout(context, rows, requests=requests, reverse=reverse)
        held = load_heldout(context, DAY, 0.0)
        found.append(slot_ids(held, session_arrays(context, held, np.arange(held.sessions.num_rows))))
    assert list(found[0]) != list(found[2])
    assert found[0] == found[1] == found[2]


def test_another_seed_gives_other_candidates(tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        context = context_at(tmp_path, simulator={"candidates": K, "seed": seed})
        write_heldout(context, many_rows())
        found.append(candidates(load_heldout(context, DAY, 0.0)))
    assert found[0] != found[1]


def edge_rows() -> list[Row]:
    """A session before and one after the day's snapshot has come, over videos of all ages."""
    before, after = at(DAY, 0, 30), at(DAY, 12)
    return [
        shown(1, 11, before, session_id=1),
        shown(2, 12, after, session_id=2),
        shown(2, 13, after + timedelta(minutes=1), session_id=2),
        shown(2, 20, after + timedelta(minutes=2), session_id=2),
    ]


def test_arrays_read_the_snapshot_that_was_there_and_the_age_at_the_start(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=4)
    after = at(DAY, 12)
    uploaded = {12: after - timedelta(days=3), 13: after - timedelta(days=4), 20: None}
    write_heldout(context, edge_rows(), uploaded=uploaded)
    held = load_heldout(context, DAY, 0.0)
    both, videos = session_arrays(context, held, np.arange(2)), video_arrays(context, held, [])
    assert both.user_id.tolist() == [1, 2]
    assert both.user_features.shape == (2, len(numeric_columns(context, "user")))
    # Without requests one set is worked through.
    assert both.sets.shape == (2, 1, 4)
    counter = numeric_columns(context, "video").index("video_impressions_1d")
    for row, version in ((0, 0.0), (1, 1.0)):
        rows = both.sets[row, 0][both.sets[row, 0] >= 0]
        assert set(videos.features[rows, counter].tolist()) == {version}
        assert videos.duration_s[rows] == pytest.approx(10.0, rel=1e-5)
    place = {int(videos.video_id[one]): int(one) for one in both.sets[1, 0] if one >= 0}
    assert set(place) >= {12, 13, 20}
    rows = np.array([place[video] for video in (12, 13, 20)])
    pairs = both.pairs(videos, np.array([1, 1, 1]), rows, np.zeros(3, dtype=np.float32))
    assert pairs.video_id.tolist() == [12, 13, 20]
    # The log's columns: numeric inputs, the age last, and whether an attribute names the topic.
    names = [*numeric_columns(context, "video"), "names_topic"]
    assert pairs.video_features.shape == (3, len(names))
    ages = pairs.video_features[:, names.index("log_video_age_days")].tolist()
    assert ages == pytest.approx([np.log(4), np.log(5), np.nan], nan_ok=True)
    assert both.age_days(videos, np.array([1, 1, 1]), rows).tolist() == pytest.approx([3, 4, np.nan], nan_ok=True)
    # Topics are codes: equal within a topic, -1 where there is none.
    assert pairs.topic[2] == -1
    assert pairs.topic[0] != pairs.topic[1]
    assert [held.topics[code] for code in pairs.topic[:2]] == ["t2", "t3"]


def test_pairs_are_asked_in_the_order_given_with_the_age_at_the_start(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=4)
    after = at(DAY, 12)
    write_heldout(context, edge_rows(), uploaded={12: after - timedelta(days=3), 20: None})
    held = load_heldout(context, DAY, 0.0)
    # Version 1's rows follow those of version 0.
    asked = np.array([1, 0, 1]), np.array([1, 0, 3]) + np.array([1, 0, 1]) * len(held.ids)
    session, video, request = pair_context(held, *asked)
    assert session.tolist() == [1, 0, 1]
    assert held.videos["version"].to_numpy()[video].tolist() == [1, 0, 1]
    assert held.videos["video_id"].to_numpy()[video].tolist() == [12, 11, 20]
    assert request.column_names == ["surface", "hour", "log_video_age_days"]
    ages = request["log_video_age_days"].to_pylist()
    assert ages[0] == pytest.approx(np.log(4))
    assert ages[2] is None


def test_groups_are_those_of_the_threshold(context: Context) -> None:
    write_heldout(context, many_rows())
    assert set(load_heldout(context, DAY, 0.4).sessions["group"].to_pylist()) == {2}
    assert set(load_heldout(context, DAY, 0.5).sessions["group"].to_pylist()) == {1}
