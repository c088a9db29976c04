"""What is served is what was trained on: scores and values from the online store equal those of the offline join."""

import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from components.check_skew import check_skew, compare, mismatches, read_skew, sample
from components.cli import app
from components.context import Context
from components.dataset import read_examples
from components.errors import BundleError, MissingPartitionError, SkewError
from components.feed.source import features_of
from components.materialize import available_at, materialize, rows_of
from components.models import bundle
from components.online import OnlineFeatures
from components.scorer import OnlineScorer, Request
from components.steps import run_step
from components.store import open_store
from components.train import bundle_files
from tests.small_lake import settings_at
from tests.test_train import pipeline

pytestmark = pytest.mark.integration

DAY = date(2026, 1, 5)
HELD = date(2026, 1, 4)
ONLINE = date(2026, 1, 3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny world with a trained treatment; online is the snapshot that the held-out day's requests see."""
    home = tmp_path_factory.mktemp("served")
    context = Context(pipeline(epochs=1), settings_at(home))
    for step in ("ingest", "features", "dataset", "train_treatment"):
        run_step(context, step, DAY)
    materialize(context, ONLINE)
    return home


@pytest.fixture(scope="module")
def context(built: Path) -> Context:
    return Context(pipeline(epochs=1), settings_at(built))


@pytest.fixture
def changed(built: Path, tmp_path: Path) -> Context:
    """A copy that a test may break."""
    home = tmp_path / "home"
    shutil.copytree(built, home)
    return Context(pipeline(epochs=1), settings_at(home))


@pytest.fixture(scope="module")
def fitted(context: Context) -> bundle.Fitted:
    return bundle.load(bundle_files(context.runs.get("model_treatment", DAY)))


@pytest.fixture(scope="module")
def scorer(context: Context, fitted: bundle.Fitted) -> OnlineScorer:
    return OnlineScorer(context, fitted)


def seen_rows(context: Context, fitted: bundle.Fitted) -> pa.Table:
    """Impressions of the held-out day that saw the snapshot, of users and videos that it knew."""
    table = read_examples(context, [HELD], fitted.extra["activity_threshold"])
    table = table.filter(pc.greater_equal(table["event_time"], pa.scalar(available_at(context, ONLINE))))
    for entity in ("user", "video"):
        known = context.data.get(f"{entity}s", ONLINE).table()[f"{entity}_id"]
        table = table.filter(pc.is_in(table[f"{entity}_id"], known))
    return table


def test_online_scores_are_those_of_the_offline_join_at_the_same_moment(
    context: Context, fitted: bundle.Fitted, scorer: OnlineScorer
) -> None:
    table = seen_rows(context, fitted)
    users = pc.unique(table["user_id"]).to_pylist()[:12]
    checked = 0
    for user in users:
        rows = table.filter(pc.equal(table["user_id"], user))
        moment = rows["event_time"][0].as_py()
        rows = rows.filter(pc.equal(rows["event_time"], rows["event_time"][0]))
        videos = tuple(rows["video_id"].to_pylist())
        scores = scorer.score(Request(user, videos, moment, rows["surface"][0].as_py()))
        np.testing.assert_array_equal(scores.values, fitted.predict(rows))
        assert scores.unknown == {"user": 0, "video": 0}
        checked += len(videos)
    assert checked >= 12


def test_every_candidate_of_a_request_scores_as_if_it_were_shown(
    context: Context, fitted: bundle.Fitted, scorer: OnlineScorer
) -> None:
    """Many candidates of one request: the offline side is the join of (user, video) rows at that moment."""
    from components.dataset import _add_ages
    from components.inputs import crosses, model_inputs, user_group
    from components.models.crosses import cross_columns
    from components.point_in_time import historical_features

    table = seen_rows(context, fitted)
    user, moment = table["user_id"][0].as_py(), table["event_time"][0].as_py()
    videos = sorted(set(table["video_id"].to_pylist()))[:40]
    stamps = pa.chunked_array([pa.array([moment] * len(videos), pa.timestamp("us", "UTC"))])
    ids = [pa.chunked_array([pa.array(one, pa.int64())]) for one in ([user] * len(videos), videos)]
    features = features_of(context.pipeline.feed)
    offline = historical_features(context, *ids, stamps, features)
    offline = offline.append_column("user_id", ids[0]).append_column("video_id", ids[1])
    offline = model_inputs(_add_ages(context, HELD, offline, stamps), features)
    for name, column in cross_columns(offline, crosses()).items():
        offline = offline.append_column(name, column)
    offline = offline.append_column("surface", pa.array(["home"] * len(videos)))
    hour = moment.astimezone(context.pipeline.feed.zone).hour
    offline = offline.append_column("hour", pa.array([hour] * len(videos), pa.int8()))
    activity = offline[f"user_impressions_{context.pipeline.groups.activity_days}d"]
    threshold = fitted.extra["activity_threshold"]
    group = user_group(offline["tenure_days"], activity, threshold, context.pipeline.groups)
    expected = fitted.predict(offline.append_column("group", group))
    found = scorer.score(Request(user, tuple(videos), moment, "home"))
    np.testing.assert_array_equal(found.values, expected)
    assert len(np.unique(found.values[:, 0])) > 10


def test_strangers_get_defaults_and_are_counted(scorer: OnlineScorer, context: Context) -> None:
    before = dict(scorer.online.unknown)
    moment = available_at(context, ONLINE) + timedelta(hours=1)
    known = context.data.get("videos", ONLINE).table()["video_id"][0].as_py()
    scores = scorer.score(Request(10**12, (known, -5, 10**12), moment))
    assert scores.unknown == {"user": 1, "video": 2}
    assert {name: scorer.online.unknown[name] - before.get(name, 0) for name in ("user", "video")} == scores.unknown
    assert np.isfinite(scores.values).all()
    # Nobody knows anything of either.
    np.testing.assert_array_equal(scores.values[1], scores.values[2])


def test_values_that_are_too_old_for_the_request_are_not_seen(scorer: OnlineScorer, context: Context) -> None:
    user = context.data.get("user_features", ONLINE).table()["user_id"][0].as_py()
    moment = available_at(context, ONLINE)
    later = moment + timedelta(days=context.pipeline.features.ttl_days, microseconds=1)
    now, then = (scorer.online.read("user", [user], one) for one in (moment, later))
    assert now.table["user_impressions_14d"][0].as_py() > 0
    assert then.table["user_impressions_14d"][0].as_py() is None
    assert then.known.tolist() == [True], "the profile holds until it changes"


def test_a_bundle_of_another_pipeline_is_refused(context: Context, fitted: bundle.Fitted) -> None:
    with pytest.raises(BundleError, match="feature service 'other_v9'"):
        OnlineScorer(context, replace(fitted, extra=fitted.extra | {"feature_service": "other_v9"}))
    bare = {k: v for k, v in fitted.extra.items() if k != "activity_threshold"}
    with pytest.raises(BundleError, match="activity_threshold"):
        OnlineScorer(context, replace(fitted, extra=bare))


def test_the_command_scores_a_request(
    context: Context, scorer: OnlineScorer, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(context.pipeline.model_dump(mode="json")), encoding="utf-8")
    monkeypatch.setenv("MFH_HOME", str(built))
    user = context.data.get("user_features", ONLINE).table()["user_id"][0].as_py()
    videos = context.data.get("video_features", ONLINE).table()["video_id"].to_pylist()[:3]
    options = ["score", "-p", str(file), "--user", str(user), "--candidates", ",".join(map(str, [*videos, 10**12]))]
    done = CliRunner().invoke(app, [*options, "--date", str(DAY), "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert record["unknown"] == {"user": 0, "video": 1}
    moment = datetime.fromisoformat(record["at"])
    assert moment == available_at(context, ONLINE)
    expected = scorer.score(Request(user, (*videos, 10**12), moment)).values[:, 0].tolist()
    assert [row["completion"] for row in record["scores"]] == pytest.approx(expected)

    folder = tmp_path / "bundle"
    folder.mkdir()
    for name, data in bundle_files(context.runs.get("model_treatment", DAY)).items():
        (folder / name).write_bytes(data)
    again = CliRunner().invoke(app, [*options, "--bundle", str(folder), "--json", str(tmp_path / "again.json")])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "again.json").read_text(encoding="utf-8")) == record


def test_what_is_online_equals_the_offline_join_field_by_field(context: Context) -> None:
    result = check_skew(context, ONLINE)
    record = read_skew(context, ONLINE)
    fields = len([f for f in features_of(context.pipeline.feed) if f.entity in ("user", "video")])
    assert result.facts == {"compared": record["compared"], "mismatches": 0, "rate": 0.0}
    assert record["compared"] > 100 * fields / 2
    assert record["entities"].keys() == {"user", "video"}
    assert (record["rate"], record["not_compared"], record["shown"]) == (0.0, None, [])


def test_a_value_that_was_changed_online_fails_the_day(changed: Context) -> None:
    ids = sample(changed, "user", ONLINE, changed.pipeline.online.skew_users)
    store = open_store(changed)
    view = store.get_feature_view("user_counters")
    table = changed.data.get("user_features", ONLINE).table()
    known = set(table["user_id"].to_pylist())
    victim = next(one for one in ids.tolist() if one in known)
    row = table.filter(pc.equal(table["user_id"], victim))
    wrong = row.set_column(row.column_names.index("user_watch_s_7d"), "user_watch_s_7d", pa.array([-1.0], pa.float32()))
    rows_of(store).write_table(store.config, view, wrong, available_at(changed, ONLINE))
    with pytest.raises(SkewError, match=f"user_watch_s_7d of user {victim}: online -1.0, offline"):
        check_skew(changed, ONLINE)
    record = read_skew(changed, ONLINE)
    assert record["by_feature"] == {"user_watch_s_7d": 1}
    assert record["rate"] == 1 / record["compared"]
    allowed = changed.pipeline.model_copy(
        update={"online": changed.pipeline.online.model_copy(update={"max_mismatch_rate": 0.01})}
    )
    assert check_skew(replace(changed, pipeline=allowed), ONLINE).facts["mismatches"] == 1
    # A newer day online does not make good what was found.
    materialize(changed, HELD)
    with pytest.raises(SkewError, match=f"user_watch_s_7d of user {victim}: online -1.0, offline"):
        check_skew(changed, ONLINE)


def test_an_old_day_is_not_compared_and_says_why(changed: Context) -> None:
    # What an earlier test found would stand.
    shutil.rmtree(changed.runs.path("skew"), ignore_errors=True)
    materialize(changed, HELD)
    result = check_skew(changed, ONLINE)
    assert result.facts["rate"] is None
    assert "holds a newer day" in result.facts["not_compared"]
    assert read_skew(changed, ONLINE)["compared"] == 0
    assert check_skew(changed, HELD).facts["mismatches"] == 0


def test_a_comparison_stands_when_a_newer_day_has_come_online(changed: Context) -> None:
    first = check_skew(changed, ONLINE)
    materialize(changed, HELD)
    again = check_skew(changed, ONLINE)
    assert again.outputs == first.outputs
    assert again.facts["compared"] == first.facts["compared"] > 0
    assert "holds a newer day" in again.facts["not_compared"]
    # Of other snapshots it says nothing.
    table = changed.data.get("user_features", ONLINE).table()
    with changed.data.write("user_features", ONLINE) as writer:
        writer.table(table.slice(1))
    assert check_skew(changed, ONLINE).facts["compared"] == 0


def test_a_day_that_is_not_online_can_not_be_compared(changed: Context) -> None:
    with pytest.raises(SkewError, match=f"mfh step materialize --date {HELD}"):
        check_skew(changed, HELD)
    with pytest.raises(MissingPartitionError):
        check_skew(changed, date(2026, 1, 6))


def test_a_feature_that_is_missing_everywhere_is_equal(changed: Context) -> None:
    """A behaviour that a feed does not record gives null rates on both sides."""
    for day in (date(2026, 1, 2), ONLINE):
        table = changed.data.get("user_features", day).table()
        place = table.column_names.index("user_like_rate_7d")
        nulls = pa.nulls(table.num_rows, pa.float32())
        with changed.data.write("user_features", day) as writer:
            writer.table(table.set_column(place, "user_like_rate_7d", nulls))
    materialize(changed, ONLINE)
    assert check_skew(changed, ONLINE).facts["mismatches"] == 0
    online = OnlineFeatures(changed, features_of(changed.pipeline.feed))
    ids = changed.data.get("user_features", ONLINE).table()["user_id"].to_numpy()[:5]
    assert online.read("user", ids, None).table["user_like_rate_7d"].null_count == 5


def test_nothing_is_compared_where_nothing_is_asked_for(context: Context) -> None:
    settings = context.pipeline.online.model_copy(update={"skew_users": 0, "skew_videos": 0})
    skew = compare(replace(context, pipeline=context.pipeline.model_copy(update={"online": settings})), ONLINE)
    assert (skew.compared, skew.rate, skew.entities) == (0, None, {"user": 0, "video": 0})


def test_missing_nan_and_empty_are_one_and_other_values_are_not() -> None:
    features = [one for one in features_of(pipeline().feed) if one.name in ("user_last_videos", "user_watch_s_1d")]
    ids = np.arange(5)
    online = pa.table(
        {"user_watch_s_1d": [None, float("nan"), 1.0, 1.0, 0.0], "user_last_videos": [[], None, [1], [1], [2]]}
    )
    offline = pa.table(
        {"user_watch_s_1d": [float("nan"), None, 1.0, 1.5, None], "user_last_videos": [None, [], [1], [2], []]}
    )
    found = mismatches("user", ids, online, offline, features)
    assert {(one.id, one.feature) for one in found} == {
        (3, "user_watch_s_1d"),
        (4, "user_watch_s_1d"),
        (3, "user_last_videos"),
        (4, "user_last_videos"),
    }
