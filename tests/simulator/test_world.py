"""The world keeps its promises: one truth per seed, an honest log of it, and nothing latent in sight."""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest

from components.config import WorldFeed
from components.days import bounds_us
from components.feed.schema import BEHAVIOURS, LOG, REQUESTS, USERS, VIDEOS
from components.feed.world import WorldSource, shared_world
from simulator.world import World
from simulator.world_behaviour import settled_taste
from simulator.world_population import ATTRIBUTES, TOPICS, make_users, make_videos
from simulator.world_tables import in_order_of_time

FIRST = date(2024, 3, 4)
SMALL = WorldFeed(
    first_day=FIRST, users=800, new_users_per_day=20, videos=400, new_videos_per_day=30, timezone="Asia/Shanghai"
)


_READ_ELSEWHERE = """
import sys
from datetime import date
from components.config import WorldFeed
from simulator.world import World
from tests.simulator.test_world import fingerprint, tables_of
for table in tables_of(World(WorldFeed.model_validate_json(sys.argv[1])), date.fromisoformat(sys.argv[2])):
    print(fingerprint(table))
"""


def fingerprint(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sha256(sink.getvalue()).hexdigest()


def on(offset: int) -> date:
    return FIRST + timedelta(days=offset)


def tables_of(world: World, day: date) -> tuple[pa.Table, ...]:
    found = world.day_tables(day)
    assert found.requests is not None
    return found.log, found.users, found.videos, found.requests


def moments(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy()


@pytest.fixture(scope="module")
def small() -> World:
    return World(SMALL)


@pytest.fixture(scope="module")
def week(small):
    """The tables of days 0 to 5 of the small world, read in order."""
    return [tables_of(small, on(day)) for day in range(6)]


@pytest.fixture(scope="module")
def default_days():
    """Three days of the world as it comes, and the world."""
    world = World(WorldFeed(first_day=FIRST))
    return world, [world.day_tables(on(day)) for day in range(3)]


def test_a_fresh_world_asked_for_day_5_tells_what_one_read_in_order_told(week):
    for fresh, read in zip(tables_of(World(SMALL), on(5)), week[5], strict=True):
        assert fresh.equals(read)


@pytest.mark.parametrize("size", [37, 400, 10_000])
def test_blocks_of_users_are_the_world_in_pieces(week, size):
    crowds = list(World(SMALL).crowds(on(3), size))
    assert len(crowds) == -(-880 // size)
    for day in (0, 3):
        pieces = [crowd.impressions(day) for crowd in crowds]
        log, requests = in_order_of_time(*(pa.concat_tables(tables) for tables in zip(*pieces, strict=True)))
        users = pa.concat_tables([crowd.user_table(day) for crowd in crowds])
        assert log.equals(week[day][0])
        assert requests.equals(week[day][3])
        assert users.equals(week[day][1])


def test_another_process_sees_the_same_world(week):
    told = subprocess.run(
        [sys.executable, "-c", _READ_ELSEWHERE, SMALL.model_dump_json(), str(on(4))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [fingerprint(table) for table in week[4]]


def test_days_can_be_read_in_any_order(small, week):
    for day in (2, 0):
        for again, before in zip(tables_of(small, on(day)), week[day], strict=True):
            assert again.equals(before)


def test_far_more_days_than_are_remembered_can_be_read_in_any_order():
    settings = SMALL.model_copy(update={"users": 12, "videos": 60, "new_users_per_day": 1})
    world = World(settings)
    in_order = [world.day_tables(on(day)).log for day in range(20)]
    hopping = World(settings)
    for day in (19, 1, 18, 0):
        assert hopping.day_tables(on(day)).log.equals(in_order[day])


def test_another_seed_is_another_world(small, week):
    other = World(SMALL.model_copy(update={"seed": 2})).day_tables(FIRST)
    assert not other.log.equals(week[0][0])
    assert other.users.column("attr_interest") != week[0][1].column("attr_interest")


def test_a_longer_feed_and_a_later_day_leave_the_population_as_it_is():
    early, late = make_users(SMALL, 1, 800), make_users(SMALL, 701, 900)
    assert np.array_equal(early.taste[700:], late.taste[:100])
    early_v, late_v = make_videos(SMALL, 1), make_videos(SMALL, 9)
    assert np.array_equal(early_v.latent, late_v.latent[: len(early_v.latent)])
    source = WorldSource(SMALL.model_copy(update={"last_day": on(9)}))
    assert source.world is WorldSource(SMALL).world is shared_world(SMALL)


def test_the_tables_have_the_schema_and_all_of_it(week):
    log, users, videos, requests = week[3]
    assert log.schema.equals(LOG)
    assert videos.schema.equals(VIDEOS)
    assert requests.schema.equals(REQUESTS)
    assert users.schema.names == [*USERS.names, *(f"attr_{name}" for name in ATTRIBUTES)]
    assert all(column.null_count == 0 for table in week[3] for column in table.columns)
    for name in BEHAVIOURS:
        assert set(log.column(name).unique().to_pylist()) <= {0, 1}
    watch, length = log.column("watch_ms").to_numpy(), log.column("duration_ms").to_numpy()
    assert watch.min() == 0
    assert (watch <= 3 * length).all()
    assert length.min() >= 5_000
    assert length.max() <= 300_000
    finish, skip = log.column("finish").to_numpy(), log.column("skip").to_numpy()
    assert np.array_equal(finish == 1, watch >= length)
    assert np.array_equal(skip == 1, (watch < SMALL.skip_below_ms) & (finish == 0))


def test_propensities_are_those_of_the_logged_candidate_sets(week):
    log, _, _, requests = week[4]
    assert requests.num_rows == log.num_rows
    probabilities = requests.column("probabilities").combine_chunks()
    first = probabilities.offsets.to_numpy()[:-1]
    p, videos = probabilities.values.to_numpy(), requests.column("candidates").combine_chunks().values.to_numpy()
    assert np.allclose(np.add.reduceat(p.astype(np.float64), first), 1, atol=1e-6)
    size = np.diff(probabilities.offsets.to_numpy())
    row = np.repeat(np.arange(len(size)), size)
    assert (size <= SMALL.slot_candidates).all()
    assert (size == SMALL.slot_candidates).mean() > 0.98
    assert len(np.unique(np.stack([row, videos]), axis=1).T) == len(videos), "no candidate twice in a set"

    assert log.column("session_id") == requests.column("session_id")
    assert log.column("position").to_numpy().tolist() == requests.column("slot").to_numpy().tolist()
    shown = videos == log.column("video_id").to_numpy()[row]
    assert np.array_equal(row[shown], np.arange(log.num_rows)), "exactly one candidate is the one that was shown"
    assert np.array_equal(p[shown].astype(np.float64), log.column("propensity").to_numpy())

    # The logged score explains the logged probability: softmax, mixed with the uniform share.
    score = np.exp(requests.column("scores").combine_chunks().values.to_numpy().astype(np.float64))
    soft = score / np.add.reduceat(score, first)[row]
    mixed = (1 - SMALL.uniform_share) * soft + SMALL.uniform_share / size[row]
    assert np.allclose(mixed, p, atol=1e-6)


def test_the_shown_video_is_drawn_with_its_propensity(default_days):
    _, days = default_days
    log = pa.concat_tables([day.log for day in days])
    probabilities = pa.concat_tables([day.requests for day in days]).column("probabilities").combine_chunks()
    p, first = probabilities.values.to_numpy().astype(np.float64), probabilities.offsets.to_numpy()[:-1]
    # E[p(shown)] is the sum of p squared, slot by slot.
    excess = log.column("propensity").to_numpy() - np.add.reduceat(p**2, first)
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
    uniform = log.column("is_random").to_numpy(zero_copy_only=False)
    rate, n = WorldFeed(first_day=FIRST).uniform_share, len(uniform)
    assert abs(uniform.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    # On uniform slots the choice does not follow the probabilities.
    size = np.diff(probabilities.offsets.to_numpy())
    flat = log.column("propensity").to_numpy()[uniform] - np.add.reduceat(p, first)[uniform] / size[uniform]
    assert abs(flat.mean()) < 4 * flat.std() / np.sqrt(len(flat))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_uniform_share_reaches_its_ends(share):
    log, _, _, requests = tables_of(World(SMALL.model_copy(update={"uniform_share": share, "users": 200})), FIRST)
    assert set(log.column("is_random").to_pylist()) == {bool(share)}
    if share == 1:
        size = np.diff(requests.column("candidates").combine_chunks().offsets.to_numpy())
        assert np.allclose(log.column("propensity").to_numpy(), 1 / size)


def test_no_video_comes_twice_in_a_session(week):
    for log, *_ in week:
        pairs = np.stack([log.column("session_id").to_numpy(), log.column("video_id").to_numpy()])
        assert np.unique(pairs, axis=1).shape[1] == log.num_rows


def test_a_pool_smaller_than_a_session_is_shown_again():
    tiny = SMALL.model_copy(update={"users": 20, "new_users_per_day": 0, "videos": 2, "new_videos_per_day": 0})
    world = World(tiny)
    log = world.day_tables(FIRST).log
    assert set(log.column("video_id").to_pylist()) == {1, 2}
    assert world.outcomes(None, FIRST).num_rows > 0


@pytest.mark.parametrize(
    ("zone", "first"),
    [("Asia/Shanghai", FIRST), ("UTC", FIRST), ("Europe/Berlin", date(2024, 3, 30)), ("America/New_York", FIRST)],
)
def test_events_lie_in_the_local_day_and_sessions_keep_their_distance(zone, first):
    settings = SMALL.model_copy(update={"timezone": zone, "first_day": first, "users": 400})
    world = World(settings)
    for day in (first, first + timedelta(days=1)):
        log, users, videos, _ = tables_of(world, day)
        time = moments(log.column("event_time"))
        start, end = bounds_us(day, settings.zone)
        assert start <= time.min()
        ends = time + 1000 * log.column("watch_ms").to_numpy()
        assert ends.max() < end
        frame = log.select(["user_id", "session_id", "position"]).to_pandas().assign(time=time, ends=ends)
        frame = frame.sort_values(["user_id", "time"])
        same = frame.user_id.eq(frame.user_id.shift())
        pause_s = (frame.time - frame.ends.shift())[same] / 1e6
        within = frame.session_id.eq(frame.session_id.shift())[same]
        assert pause_s[within].min() > 0
        assert pause_s[within].max() < 60
        assert pause_s[~within].min() > 60 * settings.session_gap_min
        assert frame.position.eq(frame.groupby("session_id").cumcount()).all()

        known = dict(
            zip(users.column("user_id").to_pylist(), moments(users.column("registered_at")).tolist(), strict=True)
        )
        assert (frame.time > frame.user_id.map(known)).all(), "nobody is shown anything before registering"
        assert max(known.values()) < end
        born = dict(
            zip(videos.column("video_id").to_pylist(), moments(videos.column("uploaded_at")).tolist(), strict=True)
        )
        assert (time > np.array([born[v] for v in log.column("video_id").to_pylist()])).all()
        assert max(born.values()) < end


def test_people_open_the_app_in_the_evening_rather_than_at_night(default_days):
    time = default_days[1][0].log.to_pandas().groupby("session_id").event_time.min()
    by_hour = np.bincount(time.dt.hour, minlength=24)
    assert by_hour[20:22].mean() > 5 * by_hour[2:5].mean()


def test_newcomers_register_day_by_day(small, week):
    for day, (log, users, videos, _) in enumerate(week):
        assert users.num_rows == SMALL.users + SMALL.new_users_per_day * (day + 1)
        assert videos.num_rows == SMALL.videos + SMALL.new_videos_per_day * (day + 1)
        registered = users.column("registered_at").to_pylist()
        start = datetime.fromtimestamp(bounds_us(on(day), SMALL.zone)[0] / 1e6, UTC)
        today = {u for u, at in zip(users.column("user_id").to_pylist(), registered, strict=True) if at >= start}
        assert len(today) == SMALL.new_users_per_day
        assert today <= set(log.column("user_id").to_pylist()), "who registers opens the app on that day"
    year_before = datetime.fromtimestamp(bounds_us(FIRST, SMALL.zone)[0] / 1e6, UTC) - timedelta(days=366)
    assert min(registered) > year_before


def test_nothing_latent_is_told(small, week):
    """Attributes know something of tastes, as at a real sign-up, but far from all; no column is a latent one."""
    _, users, videos, _ = week[0]
    latent_names = {"taste", "latent", "quality", "popularity", "activity", "patience", "misjudged", "drift"}
    for table in week[0]:
        assert not latent_names & {name.removeprefix("attr_") for name in table.column_names}
    truth, shelf = make_users(SMALL, 1, SMALL.users + SMALL.new_users_per_day), make_videos(SMALL, 0)
    interest = np.array([TOPICS.index(topic) for topic in users.column("attr_interest").to_pylist()])
    topic = np.array([TOPICS.index(topic) for topic in videos.column("topic").to_pylist()])
    assert np.array_equal(topic, shelf.topic)
    affinity = settled_taste(truth, np.arange(len(interest)), 0) @ shelf.latent.T
    stated = affinity[topic[None, :] == interest[:, None]].mean() - affinity[topic[None, :] != interest[:, None]].mean()
    assert 0.2 < stated / affinity.std() < 1.5
    for codes in truth.attributes.values():
        one_hot = np.eye(codes.max() + 1)[codes]
        for hidden in (*truth.taste.T, truth.activity, truth.patience, truth.open_logit):
            means = np.linalg.lstsq(one_hot, hidden, rcond=None)[0]
            assert np.var(one_hot @ means) / np.var(hidden) < 0.5
    for observed in (videos.column("creator_id").to_numpy(), shelf.duration_ms, videos.column("video_id").to_numpy()):
        for hidden in (*shelf.latent.T, shelf.quality, shelf.popularity):
            assert abs(np.corrcoef(observed, hidden)[0, 1]) < 0.4
    for observed in (users.column("user_id").to_numpy(), moments(users.column("registered_at"))):
        for hidden in (*truth.taste.T, truth.activity, truth.patience):
            assert abs(np.corrcoef(observed, hidden)[0, 1]) < 0.15


def test_nothing_measured_is_a_function_of_something_latent(small, week):
    """No column of the log or of its requests explains a trait's variance, however it may be bent.

    What the production ranker says of a video may tell much of the video's appeal, since it is a good one, but not all.
    """
    log, _, _, requests = week[3]
    user, video = log.column("user_id").to_numpy() - 1, log.column("video_id").to_numpy() - 1
    truth, shelf = make_users(SMALL, 1, int(user.max()) + 1), make_videos(SMALL, 3)
    latent = {
        "taste": truth.taste[user],
        "misjudged": truth.misjudged[user],
        "traits": np.stack([truth.activity, truth.patience, truth.expressive, truth.open_logit], axis=1)[user],
        "latent": shelf.latent[video],
        "hidden": np.stack([shelf.quality, shelf.popularity, shelf.creator_appeal], axis=1)[video],
        "match": (truth.taste[user] * shelf.latent[video]).sum(axis=1, keepdims=True),
        "appeal": small.expected_satisfaction(user + 1, video[:, None] + 1, on(3)),
    }
    shown = requests.column("candidates").combine_chunks()
    first = shown.offsets.to_numpy()[:-1]
    scores = requests.column("scores").combine_chunks().values.to_numpy()
    place = np.flatnonzero(shown.values.to_numpy() == log.column("video_id").to_numpy().repeat(np.diff(shown.offsets)))
    told = {name: log.column(name).cast(pa.float64()).to_numpy() for name in ("watch_ms", "duration_ms", *BEHAVIOURS)}
    told |= {
        "position": log.column("position").to_numpy(),
        "time": moments(log.column("event_time")),
        "propensity": log.column("propensity").to_numpy(),
        "score": scores[place],
        "best score": np.maximum.reduceat(scores, first),
        "least score": np.minimum.reduceat(scores, first),
    }
    assert set(log.column_names) - set(told) == {
        *("user_id", "video_id", "creator_id", "session_id", "event_time", "surface", "is_random"),
    }
    for name, values in told.items():
        edges = np.unique(np.quantile(values, np.linspace(0, 1, 41)[1:-1]))
        group = np.searchsorted(edges, values)
        size = np.maximum(np.bincount(group), 1)
        for trait, columns in latent.items():
            most = 0.75 if "score" in name or name == "propensity" else 0.3
            for hidden in columns.T:
                means = np.bincount(group, weights=hidden) / size
                assert np.var(means[group]) / np.var(hidden) < most, (name, trait)


def test_days_before_the_world_are_refused(small):
    with pytest.raises(ValueError, match="before the world's first day"):
        small.day_tables(on(-1))


def test_the_source_has_every_part():
    source = WorldSource(SMALL)
    assert source.user_attributes == tuple(ATTRIBUTES)
    # Nothing lies before a world's first day.
    assert [line.part for line in source.check() if not line.found or line.cost] == ["users.past"]
    day = source.read_day(FIRST)
    assert {f"attr_{name}" for name in source.user_attributes} <= set(day.users.column_names)
