"""Pipeline files: what is refused and how it is said, parameters of a run, hashes, environment variables."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import (
    PARAMS,
    KuaiRandFeed,
    Pipeline,
    Settings,
    WorldFeed,
    find_pipeline,
    load_pipeline,
    parse_pipeline,
)
from components.errors import ConfigError

WORLD = {"kind": "world", "first_day": "2026-01-01"}
KUAIRAND = {"kind": "kuairand", "folder": "logs", "first_day": "2022-04-25", "last_day": "2022-05-04"}


def pipeline(**changes: Any) -> Pipeline:
    return parse_pipeline({"name": "demo", "feed": WORLD} | changes, where="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"colour: Extra inputs"),
        ({"train": {"window": 7}}, r"train\.window: Unexpected keyword"),
        ({"feed": WORLD | {"folder": "x"}}, r"feed\.world\.folder: Extra inputs"),
        ({"feed": WORLD | {"kind": "kafka"}}, r"feed: .*'kafka'.*'world', 'kuairand'"),
        ({"feed": WORLD | {"timezone": "Mars/Base"}}, r"unknown time zone 'Mars/Base'"),
        ({"feed": WORLD | {"last_day": "2025-01-01"}}, r"last_day is before first_day"),
        ({"name": "Two Words"}, r"name: String should match pattern"),
        ({"treatment": "pel"}, r"treatment 'pel' is neither .* nor a model of the zoo: single, .*, mtnas"),
        ({"treatment": "ple"}, r"treatment and baseline are the same"),
        ({"tasks": [{"name": "skip"}, {"name": "skip"}]}, r"listed twice"),
        ({"tasks": [{"name": "like"}]}, r"weighs tasks that are not trained: \['long_view', 'skip'\]"),
        ({"train": {"window_days": 0}}, r"train: Value error, window_days must be above 0"),
    ],
)
def test_a_wrong_pipeline_is_refused_with_the_path_of_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        pipeline(**change)
    assert str(caught.value).startswith("test is not a valid pipeline:\n  ")


def test_a_pipeline_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        pipeline().name = "other"  # type: ignore[misc]


def test_parameters_of_a_run_replace_settings() -> None:
    changed = pipeline().override(
        {"window_days": 3, "train_seed": 5, "simulation_seed": 6, "shards": 9, "promote": False, "treatment": None}
    )
    assert (changed.train.window_days, changed.train.seed, changed.simulator.seed) == (3, 5, 6)
    assert (changed.simulator.shards, changed.promote, changed.treatment) == (9, False, "mfh")
    assert pipeline().override({}) == pipeline()


@pytest.mark.parametrize("name", PARAMS)
def test_every_parameter_names_a_setting(name: str) -> None:
    value: Any = pipeline().model_dump()
    for key in PARAMS[name]:
        value = value[key]
    assert pipeline().override({name: value}) == pipeline()


@pytest.mark.parametrize(
    ("params", "message"),
    [({"window": 3}, "unknown parameter 'window'"), ({"treatment": "ple"}, "same model"), ({"shards": 0}, "shards")],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline().override(params)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "somebody"},
        {"description": "words"},
        {"promote": False},
        {"simulator": {"shards": 7}},
        {"feed": WORLD | {"last_day": "2026-02-01"}},
    ],
)
def test_what_changes_no_result_changes_no_hash(change: dict[str, Any]) -> None:
    assert pipeline(**change).config_hash == pipeline().config_hash
    assert pipeline(**change).source_id == pipeline().source_id


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"seed": 8}},
        {"simulator": {"seed": 12}},
        {"feed": WORLD | {"seed": 2}},
        {"groups": {"activity_days": 7}},
    ],
)
def test_what_changes_a_result_changes_the_hash(change: dict[str, Any]) -> None:
    assert pipeline(**change).config_hash != pipeline().config_hash


def test_where_data_lies_is_no_part_of_the_hash_but_of_the_source() -> None:
    here, there = pipeline(feed=KUAIRAND), pipeline(feed=KUAIRAND | {"folder": "elsewhere"})
    assert here.config_hash == there.config_hash
    assert here.source_id != there.source_id
    assert here.source_id.startswith("kuairand-")


def test_pipelines_over_one_feed_share_its_data() -> None:
    assert pipeline(name="other", train={"seed": 8}).source_id == pipeline().source_id
    assert pipeline(features={"ttl_days": 4}).source_id != pipeline().source_id


def test_hashes_do_not_depend_on_the_process() -> None:
    # Written down once: a change of these moves every user's experiments to another folder.
    text = yaml.safe_dump({"name": "demo", "feed": WORLD})
    again = parse_pipeline(yaml.safe_load(text), where="test")
    assert again.config_hash == pipeline().config_hash
    assert len(again.config_hash) == 12


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_a_file_may_use_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = "{kind: kuairand, folder: '${LOGS}/pure', first_day: 2022-04-25}"
    path = write(tmp_path, "demo", f"name: demo\nfeed: {feed}\n")
    monkeypatch.delenv("LOGS", raising=False)
    with pytest.raises(ConfigError, match=r"uses \$\{LOGS\}, but that environment variable is not set"):
        load_pipeline(path)
    monkeypatch.setenv("LOGS", "/data")
    feed_read = load_pipeline(path).feed
    assert isinstance(feed_read, KuaiRandFeed)
    assert (feed_read.folder, feed_read.first_day) == ("/data/pure", date(2022, 4, 25))


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- a", "must hold a mapping"), ("", "must hold a mapping")]
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pipeline(write(tmp_path, "demo", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml can not be read"):
        load_pipeline(tmp_path / "gone.yaml")


def test_the_only_pipeline_is_found_and_several_are_a_choice() -> None:
    settings = Settings()
    with pytest.raises(ConfigError, match=r"no pipeline file in .*'mfh init'"):
        find_pipeline(settings, None)
    path = write(settings.pipelines_dir, "one", "name: one\nfeed: {kind: world, first_day: 2026-01-01}\n")
    assert find_pipeline(settings, None).name == "one"
    assert isinstance(find_pipeline(settings, str(path)).feed, WorldFeed)
    write(settings.pipelines_dir, "two", "name: two\nfeed: {kind: world, first_day: 2026-01-01}\n")
    with pytest.raises(ConfigError, match="several pipelines: one, two"):
        find_pipeline(settings, None)
    assert find_pipeline(settings, "two").name == "two"
    with pytest.raises(ConfigError, match="no pipeline 'three'"):
        find_pipeline(settings, "three")


def test_settings_come_from_the_environment(mfh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    assert settings.home == mfh_home
    assert settings.lake_root == str(mfh_home / "lake")
    assert settings.mlflow_tracking_uri == f"sqlite:///{mfh_home}/mlflow/mlflow.db"
    monkeypatch.setenv("MFH_LAKE", "s3://bucket/lake")
    monkeypatch.setenv("MFH_LAKE_SECRET_KEY", "hush")
    assert Settings().lake_root == "s3://bucket/lake"
    assert "hush" not in repr(Settings())
