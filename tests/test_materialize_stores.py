"""Materialization into every store, and into stores that die, forget, or are written by several at once."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from components.context import Context
from components.days import EVER
from components.errors import OnlineStoreError
from components.features import features
from components.materialize import INSTANT, Interval, available_at, interval, materialize, online_until
from components.store import open_store
from feature_repo.online.rows import Layout
from tests.online_servers import KINDS, OwnRedis, hang_up, store_url
from tests.small_lake import at, context_at, day_at
from tests.test_materialize import assert_online, build

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three days with snapshots and Feast's registry; nothing is online."""
    home = tmp_path_factory.mktemp("stores")
    build(home)
    features(context_at(home), day_at(2))
    open_store(context_at(home))
    return home


def using(home: Path, url: str, retry_s: float = 20.0) -> Context:
    context = context_at(home, online={"retry_s": retry_s})
    return replace(context, settings=context.settings.model_copy(update={"online_store": url}))


@pytest.fixture(params=KINDS)
def context(request: pytest.FixtureRequest, built: Path, tmp_path: Path) -> Iterator[Context]:
    """A copy of the lake with an empty store of each kind."""
    home = tmp_path / "home"
    shutil.copytree(built, home)
    with store_url(request.param, tmp_path) as url:
        chosen = using(home, url)
        empty(chosen)
        yield chosen
        empty(chosen)


def empty(context: Context) -> None:
    store = open_store(context)
    store._get_provider().online_store.teardown(store.config, store.list_feature_views(), [])


def test_every_store_holds_the_snapshot_of_the_newest_day(context: Context) -> None:
    materialize(context, day_at(1))
    assert_online(context, 1)
    materialize(context, day_at(2))
    assert_online(context, 2)
    assert "already holds" in materialize(context, day_at(1)).facts["skipped"]
    assert_online(context, 2)
    newest, held = online_until(open_store(context))
    assert newest == at(day_at(3), 1)
    assert {name: held[name] for name in ("user_counters", "video_profile")} == {
        "user_counters": at(day_at(3), 1),
        "video_profile": at(day_at(3), 0) - INSTANT,
    }


def test_two_days_at_once_on_two_machines_end_with_the_newer_one(built: Path, tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / "other"]
    for home in homes:
        shutil.copytree(built, home)
    with store_url("postgres", tmp_path) as url, ThreadPoolExecutor(2) as pool:
        # Each has locks and a registry of its own, so that nothing but the store keeps the days in order.
        given = [using(home, url) for home in homes]
        list(pool.map(materialize, given, [day_at(1), day_at(2)]))
        assert_online(given[0], 2)
        assert "already holds" in materialize(given[0], day_at(1)).facts["skipped"]


def test_a_store_that_was_emptied_is_made_whole(context: Context) -> None:
    materialize(context, day_at(1))
    empty(context)
    materialize(context, day_at(2))
    # Profiles and what is still alive of earlier days, not only what the last day brought.
    assert_online(context, 2)


def test_rows_from_before_a_change_of_features_are_written_anew(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        # Another hash is what another list of features would give.
        patched.setattr(Layout, "digest", 7)
        materialize(context, day_at(1))
    newest, held = online_until(open_store(context))
    assert (newest, held) == (at(day_at(2), 1), {})
    # An older day can not mend them, for its rows are behind those that are held.
    assert "already holds" in materialize(context, day_at(0)).facts["skipped"]
    materialize(context, day_at(2))
    assert_online(context, 2)


def before_group(number: int, action: Callable[[], object]) -> Callable[[int, int, str], None]:
    """A ``notify`` that acts once, before the group of views of that number is written."""
    done: list[int] = []

    def notify(count: int, total: int, what: str) -> None:
        if count == number and not done:
            done.append(count)
            action()

    return notify


@pytest.mark.parametrize(("group", "away_s"), [(0, 0.0), (1, 0.0), (1, 5.0)])
def test_redis_that_dies_in_the_middle_and_comes_back_empty_is_whole(
    built: Path, tmp_path: Path, free_port: Callable[[], int], group: int, away_s: float
) -> None:
    home = tmp_path / "home"
    shutil.copytree(built, home)
    server = OwnRedis(tmp_path, free_port())
    server.start()
    try:
        context = using(home, server.url)
        materialize(context, day_at(1))

        def die() -> None:
            server.kill()
            if away_s:
                threading.Timer(away_s, server.start).start()
            else:
                server.start()

        # Whether somebody asks it while it is away, or only when it is back and empty.
        result = materialize(replace(context, notify=before_group(group, die)), day_at(2))
        assert result.facts["store_lost"] >= 1
        assert_online(context, 2)
    finally:
        server.kill()


def test_postgres_that_hangs_up_in_the_middle_is_whole(built: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(built, home)
    with store_url("postgres", tmp_path) as url:
        context = using(home, url)
        materialize(context, day_at(1))
        result = materialize(replace(context, notify=before_group(1, lambda: hang_up(url))), day_at(2))
        assert result.facts["store_lost"] == 1
        assert_online(context, 2)


def test_a_store_that_stays_away_is_named_and_what_it_held_is_not_lost(
    built: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(built, home)
    with pytest.raises(OnlineStoreError, match=r"Redis at 127\.0\.0\.1"):
        materialize(using(home, f"redis://127.0.0.1:{free_port()}/0", retry_s=0), day_at(2))
    # Another store by a setting: nothing in it, so it gets everything.
    with store_url("sqlite", tmp_path) as url:
        materialize(using(home, url), day_at(2))
        assert_online(using(home, url), 2)


def test_a_view_is_read_from_where_the_store_ends_and_no_further_than_values_live(built: Path) -> None:
    context = context_at(built)
    day, ttl = day_at(5), timedelta(days=3)
    end, until = at(day_at(6), 0), at(day_at(6), 1)
    assert available_at(context, day) == until
    yesterday = at(day_at(5), 1)
    # The run's own interval, begun behind yesterday's snapshot.
    assert interval(context, day, ttl, yesterday) == Interval(yesterday + INSTANT, until)
    # The same day again reads its interval again.
    assert interval(context, day, ttl, until) == Interval(yesterday + INSTANT, until)
    # Days that were left out, up to what is still alive; all that lives when the store is empty.
    assert interval(context, day, ttl, yesterday - timedelta(days=1)).since == yesterday - timedelta(days=1) + INSTANT
    assert interval(context, day, ttl, yesterday - timedelta(days=9)).since == until - ttl
    assert interval(context, day, ttl, None).since == until - ttl
    # Profiles hold until they change.
    assert interval(context, day, None, None) == Interval(EVER, end - INSTANT)
    assert interval(context, day, timedelta(0), end - INSTANT) == Interval(at(day, 0), end - INSTANT)
