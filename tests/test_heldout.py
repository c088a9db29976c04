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
from components.heldout import Heldout, load_heldout, pair_context, session_arrays
from components.respond import numeric_columns
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
K = 6
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
    return context_at(home, simulator={"candidates": candidates})


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


REQUESTS = {1: [11, 12, 13], 2: list(range(20, 40)), 3: [11, 11, 12, 12]}


def request_rows() -> list[Row]:
    return [shown(session, REQUESTS[session][0], at(DAY, 9), session_id=session) for session in REQUESTS]


def test_with_requests_a_session_could_show_what_it_was_offered(context: Context) -> None:
    write_heldout(context, request_rows(), requests=REQUESTS)
    found = candidates(load_heldout(context, DAY, 0.0))
    for session, offered in found.items():
        assert len(offered) == len(set(offered)) == min(K, len(set(REQUESTS[session])))
        assert set(offered) <= set(REQUESTS[session])


def test_requests_are_sampled_evenly(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=5)
    requests = {session: list(range(10, 20)) for session in range(400)}
    rows = [shown(session, 10, at(DAY, 9), session_id=session) for session in requests]
    write_heldout(context, rows, requests=requests)
    found = candidates(load_heldout(context, DAY, 0.0))
    counts = np.bincount([video for offered in found.values() for video in offered], minlength=20)[10:]
    # Each of ten videos has five places of ten: 200 of 400, give or take four standard deviations.
    assert counts.sum() == 2_000
    assert (abs(counts - 200) < 4 * 10).all()


def test_a_session_without_a_request_could_show_what_it_showed(context: Context) -> None:
    rows = [*request_rows(), shown(9, 12, at(DAY, 9), session_id=9)]
    write_heldout(context, rows, requests=REQUESTS | {77: [11]})
    assert candidates(load_heldout(context, DAY, 0.0))[9] == [12]


@pytest.mark.parametrize("requests", [None, REQUESTS], ids=["without requests", "with requests"])
def test_candidates_do_not_depend_on_the_run_nor_on_the_order_of_sessions(
    tmp_path: Path, requests: dict[int, list[int]] | None
) -> None:
    rows = many_rows() if requests is None else request_rows()
    found = []
    for name, reverse in (("a", False), ("b", False), ("c", True)):
        context = context_of(tmp_path / name)
        write_heldout(context, rows, requests=requests, reverse=reverse)
        found.append(candidates(load_heldout(context, DAY, 0.0)))
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
    both = session_arrays(context, held, np.arange(2))
    assert both.user_id.tolist() == [1, 2]
    assert both.user_features.shape == (2, len(numeric_columns(context, "user")))
    names = numeric_columns(context, "video")
    counter, age = names.index("video_impressions_1d"), names.index("log_video_age_days")
    for row, version in ((0, 0.0), (1, 1.0)):
        inside = both.candidates[row] >= 0
        assert set(both.video_features[row, inside, counter].tolist()) == {version}
        assert both.duration_s[row, inside] == pytest.approx(10.0, rel=1e-5)
    place = {int(held.ids[index]): slot for slot, index in enumerate(both.candidates[1]) if index >= 0}
    assert set(place) >= {12, 13, 20}
    assert [int(both.fresh[1, place[video]]) for video in (12, 13, 20)] == [1, 0, -1]
    ages = [float(both.video_features[1, place[video], age]) for video in (12, 13, 20)]
    assert ages == pytest.approx([np.log(4), np.log(5), np.nan], nan_ok=True)
    # Topics are codes: equal within a topic, -1 where there is none.
    assert both.topic[1, place[20]] == -1
    assert both.topic[1, place[12]] != both.topic[1, place[13]]
    padding = both.candidates < 0
    assert (both.topic[padding] == -1).all()
    assert (both.fresh[padding] == -1).all()


def test_pairs_are_the_real_candidates_in_order_with_the_row_of_their_version(tmp_path: Path) -> None:
    context = context_of(tmp_path, candidates=4)
    write_heldout(context, edge_rows())
    held = load_heldout(context, DAY, 0.0)
    session, video, request = pair_context(held, np.array([1, 0]))
    real = [(row, int(index)) for row in (1, 0) for index in held.offered[row] if index >= 0]
    assert session.tolist() == [row for row, _ in real]
    # Version 1's rows follow those of version 0.
    versions = held.videos["version"].to_numpy()[video]
    assert versions.tolist() == [row for row, _ in real]
    ids = held.videos["video_id"].to_numpy()[video]
    assert ids.tolist() == [int(held.ids[index]) for _, index in real]
    assert request.column_names == ["surface", "hour", "log_video_age_days"]
    assert request.num_rows == len(real)


def test_groups_are_those_of_the_threshold(context: Context) -> None:
    write_heldout(context, many_rows())
    assert set(load_heldout(context, DAY, 0.4).sessions["group"].to_pylist()) == {2}
    assert set(load_heldout(context, DAY, 0.5).sessions["group"].to_pylist()) == {1}
