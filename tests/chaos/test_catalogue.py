"""What holds for every fault of the catalogue."""

import fnmatch
from dataclasses import replace

import pyarrow as pa
import pytest

from components.chaos import BY_NAME, FAULTS, Fault, Scene, fault_named, plant
from components.chaos.fault import SNAPSHOTS, TABLES
from components.chaos.planting import generator, unmet
from components.errors import ConfigError, MfhError
from components.feed.canonical import REASONS, clean
from components.feed.schema import LOG, DayTables
from components.feed_settings import FeedSettings
from tests.chaos.conftest import DAY, ZONE

OF_TABLES = [fault for fault in FAULTS if fault.where in TABLES]
# Faults whose story needs more than one table to change.
WIDER = {
    "bot_users": {"log", "users"},
    "all_user_ids_rehashed": {"log", "users", "requests"},
    "creators_merged": {"log", "videos"},
}
# What decides these alone is the order of the day, not a draw.
NO_DRAW = {
    "missing_hours",
    "partial_day",
    "labels_delayed",
    "users_stale",
    "videos_stale",
    "column_renamed",
}


def changed_tables(before: DayTables, after: DayTables) -> set[str]:
    return {name for name in TABLES if not getattr(before, name).equals(getattr(after, name))}


def test_the_catalogue_is_large_and_every_name_is_used_once() -> None:
    assert len(FAULTS) >= 36
    assert len(BY_NAME) == len(FAULTS)
    assert {fault.where for fault in FAULTS} == {*TABLES, *SNAPSHOTS, "file"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_entry_is_whole(fault: Fault) -> None:
    assert fault.meaning.endswith(".")
    assert fault.cause.endswith(".")
    assert 0 < fault.stated <= 1
    # A harmless fault is one that no check shall catch.
    assert bool(fault.checks) == (fault.severity != "harmless")
    reasons = {check.removeprefix("refused.") for check in fault.checks if check.startswith("refused.")}
    assert all(fnmatch.filter(REASONS, reason) for reason in reasons)


@pytest.mark.parametrize("fault", OF_TABLES, ids=lambda fault: fault.name)
def test_a_rate_of_zero_changes_nothing(fault: Fault, scene: Scene) -> None:
    # The function itself, past anything that could answer for it.
    planted = fault.plant(scene, 0.0, generator(fault, DAY, 1))
    assert changed_tables(scene.tables, planted) == set()


@pytest.mark.parametrize("fault", OF_TABLES, ids=lambda fault: fault.name)
def test_a_planted_fault_changes_its_table_and_keeps_its_columns(fault: Fault, scene: Scene) -> None:
    planted = plant(fault, scene, 0.5, seed=1)
    assert changed_tables(scene.tables, planted) == WIDER.get(fault.name, {fault.where})
    for name in TABLES:
        old, new = getattr(scene.tables, name), getattr(planted, name)
        if fault.name != "column_renamed":
            assert new.column_names == old.column_names
            assert new.schema.types == old.schema.types


@pytest.mark.parametrize("fault", OF_TABLES, ids=lambda fault: fault.name)
def test_the_seed_alone_decides_what_is_struck(fault: Fault, scene: Scene) -> None:
    first, again, other = (plant(fault, scene, 0.5, seed=seed) for seed in (1, 1, 2))
    assert changed_tables(first, again) == set()
    assert bool(changed_tables(first, other)) == (fault.name not in NO_DRAW)


@pytest.mark.parametrize("fault", OF_TABLES, ids=lambda fault: fault.name)
def test_a_planted_day_is_cleaned_or_refused_but_breaks_nothing(fault: Fault, scene: Scene) -> None:
    feed = FeedSettings(timezone=ZONE.key, first_day=DAY)
    for rate in (0.05, 1.0):
        try:
            cleaned = clean(plant(fault, scene, rate, seed=1), feed, DAY)
        except MfhError as error:
            assert len(str(error)) > 20
        else:
            assert cleaned.log.schema.equals(LOG)


def test_a_fault_that_the_feed_can_not_have_is_refused_in_words(scene: Scene) -> None:
    fault = fault_named("propensity_clipped")
    bare = replace(scene.tables, log=scene.log.drop_columns(["propensity"]))
    empty = replace(scene.tables, log=scene.log.drop_columns(["propensity"]).append_column("propensity", nulls(scene)))
    for tables in (bare, empty):
        assert unmet(fault, tables) == "log.propensity"
        with pytest.raises(ConfigError, match=r"needs log\.propensity, which this feed does not deliver"):
            plant(fault, replace(scene, tables=tables), 0.5, seed=1)
    with pytest.raises(ConfigError, match="needs requests"):
        plant(fault_named("requests_lost"), replace(scene, tables=replace(scene.tables, requests=None)), 0.5, seed=1)


def nulls(scene: Scene) -> pa.Array:
    return pa.nulls(scene.log.num_rows, pa.float64())


def test_wrong_rates_names_and_first_days_are_refused_in_words(scene: Scene) -> None:
    fault = fault_named("replayed_yesterday")
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="share from 0 to 1"):
            plant(fault, scene, rate, seed=1)
    with pytest.raises(ConfigError, match="day before 2024-03-05"):
        plant(fault, replace(scene, before=None), 0.5, seed=1)
    with pytest.raises(ConfigError, match="no fault 'watch_in_second'; 'mfh chaos list' shows all"):
        fault_named("watch_in_second")
