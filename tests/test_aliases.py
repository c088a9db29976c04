"""What people do to the champion: approve, roll back, read the record; and what the registry may not silently hold."""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components import audit
from components.aliases import approve, problems, roll_back
from components.cli import app
from components.context import Context
from components.errors import LakeError, ModelRegistryError
from components.feature_list import service_name
from components.feed.source import features_of
from components.model_registry import Registry
from components.promote import promote
from tests.registry_lake import NAME, analysed, client_of
from tests.small_lake import day_at

pytest_plugins = ["tests.registry_lake"]
pytestmark = pytest.mark.integration


@pytest.fixture
def context(registry_context: Context) -> Context:
    return registry_context


def manual(context: Context) -> Context:
    data = context.pipeline.model_dump(mode="json") | {"promotion": "manual"}
    return replace(context, pipeline=type(context.pipeline).model_validate(data))


def shipped(context: Context, index: int) -> str:
    """A day whose treatment wins; the number of its version."""
    analysed(context, day_at(index), "ship")
    versions: dict[str, str] = promote(context, day_at(index)).facts["versions"]
    return versions["treatment"]


def aliases(context: Context) -> dict[str, str]:
    return {name: str(number) for name, number in client_of(context).get_registered_model(NAME).aliases.items()}


def test_by_hand_a_win_only_names_a_candidate_until_a_person_approves(context: Context) -> None:
    context = manual(context)
    first, second = shipped(context, 3), shipped(context, 4)
    assert aliases(context) == {"candidate": second}
    with pytest.raises(ModelRegistryError, match="does not wait for approval"):
        approve(context, first, "looks fine")
    event = approve(context, second, "looks fine  to me")
    assert aliases(context) == {"champion": second}
    assert (event.action, event.why) == ("approve", "looks fine to me")
    assert event.moves == {"champion": (None, second), "candidate": (second, None)}
    tags = client_of(context).get_model_version(NAME, second).tags
    assert (tags["champion_by"], tags["champion_why"]) == (event.who, "looks fine to me")
    approve(context, first, "compare", anyway=True)
    assert aliases(context) == {"champion": first}


def test_rolling_back_goes_down_the_champions_one_by_one(context: Context) -> None:
    first, second, third = (shipped(context, index) for index in (3, 4, 5))
    assert aliases(context)["champion"] == third
    assert roll_back(context, "worse online").moves == {"champion": (third, second)}
    assert roll_back(context, "worse still").moves == {"champion": (second, first)}
    with pytest.raises(ModelRegistryError, match="knows no champion before"):
        roll_back(context, "to nothing")
    roll_back(context, "it was the feed", to=third)
    assert aliases(context) == {"champion": third}


def test_a_retry_of_the_day_does_not_bring_back_what_was_rolled_back(context: Context) -> None:
    first, second = shipped(context, 3), shipped(context, 4)
    event = roll_back(context, "complaints")
    result = promote(context, day_at(4))
    assert aliases(context) == {"champion": first}
    assert f"version {second} was rolled back ({event.at} by {event.who}: complaints)" in result.facts["aliases"]
    approve(context, second, "the complaints were about something else", anyway=True)
    assert aliases(context) == {"champion": second}
    assert promote(context, day_at(4)).facts["aliases"] == f"champion -> version {second}"
    third = shipped(context, 5)
    assert aliases(context) == {"champion": third}, "a new day's treatment is another model"


def test_every_move_is_in_the_record_with_who_when_why_from_and_to(context: Context) -> None:
    run = replace(context, run={"run_id": "scheduled__2024-03-08", "try": 2})
    first, second = shipped(run, 3), shipped(run, 4)
    promote(run, day_at(4))
    roll_back(context, "complaints")
    events = audit.read(context)
    assert [(e.action, e.moves["champion"]) for e in events] == [
        ("promote", (None, first)),
        ("promote", (first, second)),
        ("rollback", (second, first)),
    ], "a retry that changes nothing is no event"
    assert events[0].who == "airflow run scheduled__2024-03-08"
    assert events[0].facts["try"] == 2
    assert events[0].facts["guardrails"][0]["state"] == "kept"
    assert events[2].who == audit.actor(context) != events[0].who
    assert [e.previous for e in events] == ["", events[0].digest, events[1].digest]
    assert events[0].at < events[1].at < events[2].at


def test_a_record_that_was_changed_or_removed_is_seen(context: Context) -> None:
    for index in (3, 4, 5):
        shipped(context, index)
    assert problems(context) == []
    folder = Path(context.settings.lake_root) / "_audit" / "small"
    files = sorted(folder.iterdir())
    whole = [file.read_text() for file in files]
    files[1].write_text(whole[1].replace("every guardrail is kept", "because I say so"))
    assert len(problems(context)) == 1
    assert "is missing or was changed" in problems(context)[0]
    files[1].write_text(whole[1])
    files[0].unlink()
    assert "is missing or was changed" in problems(context)[0]
    files[0].write_text(whole[0])
    files[2].unlink()
    assert problems(context) == ["the newest event is missing or was changed: MLflow remembers another one"]
    files[2].write_text("{}")
    with pytest.raises(LakeError, match="damaged"):
        problems(context)


def test_what_can_not_be_recorded_is_not_done(context: Context) -> None:
    first, second = shipped(context, 3), shipped(context, 4)
    folder = Path(context.settings.lake_root) / "_audit" / "small"
    kept = folder.rename(folder.with_name("kept"))
    folder.write_text("a file where the record's folder should be")
    with pytest.raises(LakeError, match="no alias was moved"):
        roll_back(context, "worse", to=first)
    assert aliases(context) == {"champion": second}
    folder.unlink()
    kept.rename(folder)
    assert roll_back(context, "worse", to=first).moves == {"champion": (second, first)}


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\x1b[2Jb"])
def test_a_reason_is_needed_and_readable(context: Context, reason: str) -> None:
    number = shipped(context, 3)
    with pytest.raises(ModelRegistryError, match="printable characters"):
        approve(context, number, reason, anyway=True)


@pytest.mark.parametrize("number", ["99", "", "1' OR name='x", "../1", "1\n"])
def test_a_version_that_is_none_is_refused_with_those_that_there_are(context: Context, number: str) -> None:
    shipped(context, 3)
    with pytest.raises(ModelRegistryError, match=r"has no version .*; the newest are 1, 2"):
        approve(context, number, "why not", anyway=True)


def test_a_version_without_its_bundle_or_with_another_can_not_serve(context: Context) -> None:
    first, second = shipped(context, 3), shipped(context, 4)
    folder = Path(Registry(context).version(first).folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes() + b"!")
    with pytest.raises(ModelRegistryError, match="is not the one that was registered"):
        roll_back(context, "worse")
    shutil.rmtree(folder)
    with pytest.raises(ModelRegistryError, match="has no bundle in the lake any more"):
        roll_back(context, "worse")
    assert aliases(context) == {"champion": second}
    assert problems(context) == [], "nobody needs the first one"
    shutil.rmtree(Registry(context).version(second).folder)
    (found,) = problems(context)
    assert f"version {second} of 'mfh_small' has no bundle" in found


def test_a_bundle_of_another_feature_service_can_not_serve(context: Context) -> None:
    analysed(context, day_at(3), "ship", service="mfh_ranking_v0")
    number = promote(context, day_at(3)).facts["versions"]["treatment"]
    (found,) = problems(context)
    assert f"version {number} of 'mfh_small' reads the feature service 'mfh_ranking_v0'" in found
    assert f"serves {service_name(features_of(context.pipeline.feed))!r}" in found


def test_an_alias_to_a_deleted_version_is_found_and_mended_by_a_roll_back(context: Context) -> None:
    first, second = shipped(context, 3), shipped(context, 4)
    # As a server of another release may leave it: the alias outlives the version.
    with sqlite3.connect(context.settings.home / "mlflow" / "mlflow.db") as database:
        database.execute("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = ?", (second,))
    with pytest.raises(
        ModelRegistryError, match=f"'champion' of 'mfh_small' points to version {second}, which was deleted"
    ):
        Registry(context).behind("champion")
    (found,) = problems(context)
    assert "was deleted" in found
    roll_back(context, "it was deleted")
    assert aliases(context) == {"champion": first}
    assert problems(context) == []


def test_a_registry_that_is_away_is_an_error_without_its_password(context: Context) -> None:
    uri = "postgresql+psycopg2://mlflow:hunter2secret@127.0.0.1:1/mlflow"
    away = replace(context, settings=context.settings.model_copy(update={"mlflow_uri": uri}))
    with pytest.raises(ModelRegistryError) as caught:
        Registry(away)
    assert "mlflow:***@127.0.0.1:1" in str(caught.value)
    assert "hunter2secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_the_commands_do_it_and_show_the_record(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = shipped(context, 3), shipped(context, 4)
    monkeypatch.setenv("MFH_HOME", str(context.settings.home))
    context.settings.pipelines_dir.mkdir()
    (context.settings.pipelines_dir / "small.yaml").write_text(context.pipeline.model_dump_json())
    runner = CliRunner()
    done = runner.invoke(app, ["model", "rollback", "--reason", "complaints"])
    assert done.exit_code == 0, done.output
    assert f"champion: {second} -> {first}; complaints" in done.output
    done = runner.invoke(app, ["model", "approve", second, "--anyway", "--reason", "no, fine"])
    assert f"champion: {first} -> {second}; no, fine" in done.output
    done = runner.invoke(app, ["model", "history", "--json", "-"])
    record = json.loads(done.output)
    assert record["aliases"] == {"champion": second}
    assert [event["action"] for event in record["events"]] == ["promote", "promote", "rollback", "approve"]
    assert record["broken"] == []
    done = runner.invoke(app, ["model", "history"])
    assert done.exit_code == 0
    assert "complaints" in done.output
    assert runner.invoke(app, ["model", "rollback"]).exit_code == 2, "a reason is asked for"
