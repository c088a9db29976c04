"""Feast's registry is filled by set-up, and a run that may not fill it says what is missing."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.context import Context
from components.errors import FeatureRegistryError
from components.event_rows import EVENT_COLUMNS, fresh_rows
from components.feature_list import feature_list, service_name
from components.feature_registry import apply, is_registered
from components.feed.schema import TIME
from components.feed.source import features_of
from components.fresh import FreshWindow, push_events
from components.store import offline_engine, open_store
from tests.small_lake import Ended, at, context_at, day_at, log_table, shown, write_day

pytestmark = pytest.mark.integration

DAY = day_at(2)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A registered pipeline with a day of one user's log."""
    context = context_at(tmp_path_factory.mktemp("registry"))
    write_day(context, DAY, events())
    open_store(context)
    return context


def events() -> list[dict[str, object]]:
    moments = [at(DAY, 9, minute) for minute in (0, 5, 10)]
    videos = zip((11, 12, 13), moments, strict=True)
    return [shown(7, video, moment, long_view=1, like=int(video == 11)) for video, moment in videos]


def never(context: Context, **changes: object) -> Context:
    settings = context.settings.model_copy(update={"feast_apply": "never", **changes})
    return replace(context, settings=settings)


def test_set_up_registers_entities_views_and_the_service_of_the_models_inputs_once(context: Context) -> None:
    store = open_store(never(context))
    assert is_registered(context, store)
    assert not apply(context, store), "a second time there is nothing to do"
    assert {view.name for view in store.list_feature_views()} >= {"user_counters", "user_fresh", "video_statistics"}
    assert {view.name for view in store.list_on_demand_feature_views()} == {"request_features", "pair_crosses"}
    service = store.get_feature_service(service_name(features_of(context.pipeline.feed)))
    served = {feature.name for view in service.feature_view_projections for feature in view.features}
    assert served == {f.name for f in feature_list(Ended.user_attributes) if f.entity != "pair"}


def test_a_run_that_may_not_apply_refuses_a_registry_of_another_project(context: Context, tmp_path: Path) -> None:
    other = context_at(tmp_path, features={"ttl_days": 5})
    registry = f"sqlite:///{context.settings.home / 'feast' / context.pipeline.source_id / 'registry.db'}"
    with pytest.raises(FeatureRegistryError, match="mfh features apply") as refused:
        open_store(never(other, feast_registry=registry))
    mine = "mfh_" + context.pipeline.source_id.replace("-", "_")
    assert f"it holds {mine}" in str(refused.value)
    assert is_registered(context, open_store(never(context))), "the other project is untouched"


def batch(rows: list[dict[str, object]]) -> pa.Table:
    return log_table(rows).select(EVENT_COLUMNS)


NAMES = ["user_fresh:user_fresh_impressions", "user_fresh:user_fresh_likes", "user_fresh:user_fresh_videos"]


def online(context: Context, user: int) -> list[object]:
    answer = open_store(context).get_online_features(NAMES, [{"user_id": user}]).to_dict()
    return [answer[name.split(":")[1]][0] for name in NAMES]


def test_a_new_users_first_minutes_reach_the_online_store_in_whatever_order_they_come(context: Context) -> None:
    window, rows = FreshWindow(), events()
    assert online(context, 7) == [None, None, None]
    first = push_events(context, window, batch(rows[1:2]), at(DAY, 9, 6))
    assert (first.users, first.taken, first.duplicate) == (1, 1, 0)
    assert online(context, 7) == [1.0, 0.0, [12]]
    # An earlier event comes late, a known one comes again.
    second = push_events(context, window, batch(rows), at(DAY, 9, 11))
    assert (second.taken, second.duplicate) == (2, 1)
    assert online(context, 7) == [3.0, 1.0, [13, 12, 11]]
    offline = fresh_rows(batch(rows)).to_pylist()[-1]
    assert [offline[name.split(":")[1]] for name in NAMES] == online(context, 7)


def test_offline_an_event_counts_once_its_watching_has_ended_and_it_was_delivered(context: Context) -> None:
    known = at(DAY, 9) + timedelta(seconds=5 + 10)
    moments = [at(DAY, 9), known - timedelta(microseconds=1), known]
    frame = pa.table({"user_id": [7] * 3, "event_timestamp": pa.array(moments, TIME)}).to_pandas()
    with offline_engine():
        found = open_store(context).get_historical_features(frame, NAMES[:1]).to_arrow()
    values = pc.fill_null(found.sort_by("event_timestamp")["user_fresh_impressions"], 0).to_pylist()
    # The impression at 9:00 never sees its own outcome.
    assert values == [0.0, 0.0, 1.0]


def test_events_behind_the_watermark_or_from_a_clock_ahead_are_counted_and_left_out(context: Context) -> None:
    rows = [shown(8, 11, at(day_at(1), 23, 59)), shown(8, 12, at(DAY, 9)), shown(8, 13, at(DAY, 10))]
    pushed = push_events(context, FreshWindow(), batch(rows), at(DAY, 9, 1))
    assert (pushed.late, pushed.future, pushed.taken) == (1, 1, 1)
    assert online(context, 8) == [1.0, 0.0, [12]]


def test_a_consumer_whose_clock_jumps_back_a_day_or_has_no_zone_is_refused(context: Context) -> None:
    window = FreshWindow()
    push_events(context, window, batch([shown(9, 11, at(DAY, 9))]), at(DAY, 9, 1))
    with pytest.raises(ValueError, match="jumped back"):
        push_events(context, window, batch([shown(9, 12, at(DAY, 9))]), at(day_at(1), 9))
    with pytest.raises(ValueError, match="zone"):
        push_events(context, window, batch([shown(9, 12, at(DAY, 9))]), at(DAY, 9).replace(tzinfo=None))
    assert online(context, 9) == [1.0, 0.0, [11]]


def test_on_demand_views_give_what_the_training_set_reads(context: Context) -> None:
    names = [f"request_features:{name}" for name in ("log_tenure_days", "log_video_age_days", "hour")]
    asked = {"user_id": 7, "video_id": 11, "request_time": at(DAY, 9)}
    store = open_store(context)
    found = store.get_online_features([*names, "pair_crosses:pair_topic_share"], [asked]).to_dict()
    assert found["hour"] == [9]
    assert found["pair_topic_share"] == [0.0]
