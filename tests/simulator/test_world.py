"""The world keeps its promises: one truth per seed, an honest log of it, and nothing latent in sight."""

from datetime import UTC, date, datetime, timedelta

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

FIRST = date(2024, 3, 4)
SMALL = WorldFeed(
    first_day=FIRST, users=800, new_users_per_day=20, videos=400, new_videos_per_day=30, timezone="Asia/Shanghai"
)
# Rates of the real feed that the world imitates.
RATES = {
    "click": 0.442,
    "long_view": 0.311,
    "like": 0.017,
    "profile_enter": 0.019,
    "comment": 0.0025,
    "follow": 0.0013,
    "share": 0.0009,
    "dislike": 0.0008,
}


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


def test_rates_are_those_of_the_real_feed(default_days):
    _, days = default_days
    log = pa.concat_tables([day.log for day in days]).to_pandas()
    assert 70_000 <= len(log) / 3 <= 90_000
    missed = {}
    for name, target in RATES.items():
        # Fifteen percent, and what a count of this size may miss by chance.
        allowed = 0.15 * target + 3 * np.sqrt(target / len(log))
        if abs(log[name].mean() - target) > allowed:
            missed[name] = (log[name].mean(), target)
    assert not missed
    seconds = log.watch_ms / 1000
    assert (seconds == 0).mean() == pytest.approx(0.0975, rel=0.15)
    assert (log.watch_ms >= log.duration_ms).mean() == pytest.approx(0.15, rel=0.15)
    assert seconds.mean() == pytest.approx(21.5, rel=0.15)
    assert seconds.median() == pytest.approx(4.6, rel=0.15)
    assert 10 <= len(log) / log.session_id.nunique() <= 20
    per_day = log.groupby(["user_id", log.event_time.dt.date]).session_id.nunique()
    assert per_day.between(1, 3).all()


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
