"""What is online is what the newest snapshot says, whatever is run afterwards."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from components.context import Context
from components.errors import MissingPartitionError
from components.feature_list import Entity, feature_list
from components.features import features
from components.materialize import materialize
from components.store import open_store
from tests.small_lake import Ended, at, context_at, day_at, settings_at, shown, users_table, videos_table, write_day

pytestmark = pytest.mark.integration

FEATURES = feature_list(Ended.user_attributes)
USERS, VIDEOS = (1, 2), (11, 12, 13)
JOINED = {3: at(day_at(1), 15), 4: None}


def build(home: Path) -> None:
    """A lake of three days."""
    context = context_at(home)
    for index in range(3):
        day = day_at(index)
        rows = [
            shown(user, VIDEOS[(slot + user) % 3], at(day, 9 + slot), watch_ms=1_000 * (index + slot + 1))
            for user in USERS
            for slot in range(2 + index)
        ]
        known = [*USERS, 4] if index == 0 else [*USERS, 3, 4]
        write_day(context, day, rows, users=users_table(known, JOINED), videos=videos_table(VIDEOS))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of three days with snapshots; nothing is online."""
    home = tmp_path_factory.mktemp("online")
    build(home)
    features(context_at(home), day_at(2))
    return home


@pytest.fixture(scope="module")
def registered(built: Path) -> Path:
    """The same with Feast's registry filled, which takes seconds."""
    open_store(context_at(built))
    return built


@pytest.fixture
def context(registered: Path, tmp_path: Path) -> Context:
    """A copy with an empty online store of its own."""
    home = tmp_path / "home"
    shutil.copytree(registered, home)
    chosen = context_at(home)
    assert chosen.settings == settings_at(home)
    return chosen


def online(context: Context, entity: Entity, one: int) -> dict[str, Any]:
    names = [f"{f.view}:{f.name}" for f in FEATURES if f.entity == entity]
    answer = open_store(context).get_online_features(names, [{f"{entity}_id": one}]).to_dict()
    return {name.split(":")[-1]: values[0] for name, values in answer.items() if name != f"{entity}_id"}


def snapshot(context: Context, entity: Entity, one: int, index: int) -> dict[str, Any]:
    """Counters of the day's snapshot and the profile."""
    counters = context.data.get(f"{entity}_features", day_at(index)).table().to_pylist()
    profiles = context.data.get(f"{entity}s", day_at(index)).table().to_pylist()
    counter = next((row for row in counters if row[f"{entity}_id"] == one), {})
    profile = next((row for row in profiles if row[f"{entity}_id"] == one), {})
    return {
        f.name: profile.get(f.source) if f.view.endswith("_profile") else counter.get(f.name)
        for f in FEATURES
        if f.entity == entity
    }


def assert_online(context: Context, index: int) -> None:
    entities: dict[Entity, tuple[int, ...]] = {"user": USERS, "video": VIDEOS}
    for entity, ids in entities.items():
        for one in ids:
            expected = snapshot(context, entity, one, index)
            found = online(context, entity, one)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                # Lists of keys are equal, those of numbers nearly so.
                keys = isinstance(value, list) and value and isinstance(value[0], str)
                assert found[name] == (value if keys else pytest.approx(value)), (entity, one, name)


def test_what_is_online_is_the_snapshot_of_the_day(context: Context) -> None:
    result = materialize(context, day_at(1))
    assert result.facts["views"] == ["user_counters", "user_profile", "video_counters", "video_profile"]
    assert result.facts["until"] == (at(day_at(2), 1)).isoformat()
    assert_online(context, 1)
    materialize(context, day_at(2))
    assert_online(context, 2)
    assert snapshot(context, "user", 1, 1) != snapshot(context, "user", 1, 2)


def test_an_older_day_leaves_newer_values_and_says_why(context: Context) -> None:
    materialize(context, day_at(2))
    result = materialize(context, day_at(0))
    assert result.facts == {"skipped": "the online store already holds 2024-03-06 17:00 UTC"}
    assert_online(context, 2)


def test_the_same_day_again_changes_nothing(context: Context) -> None:
    materialize(context, day_at(1))
    again = materialize(context, day_at(1))
    assert "skipped" not in again.facts
    assert_online(context, 1)


def test_everyone_known_before_the_first_day_is_online(context: Context) -> None:
    materialize(context, day_at(1))
    assert [online(context, "user", one)["user_plan"] for one in (1, 2, 3, 4, 99)] == ["p1", "p2", "p3", "p4", None]
    assert online(context, "user", 3)["user_impressions_14d"] is None


def test_a_day_that_was_left_out_leaves_nobody_out(context: Context) -> None:
    assert at(day_at(1), 0) < JOINED[3] < at(day_at(2), 0) - timedelta(hours=1)
    materialize(context, day_at(0))
    assert online(context, "user", 3)["user_plan"] is None
    materialize(context, day_at(2))
    assert online(context, "user", 3)["user_plan"] == "p3"


def test_a_day_without_snapshots_is_refused(context: Context) -> None:
    with pytest.raises(MissingPartitionError, match=f"'user_features' for {day_at(3)}"):
        materialize(context, day_at(3))
