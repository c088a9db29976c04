"""Promotion in a real MLflow registry on SQLite: which alias moves, and when nothing may."""

from dataclasses import replace
from datetime import date

import pytest

from components.context import Context, StepResult
from components.errors import MissingPartitionError
from components.promote import promote
from simulator.experiment import Decision
from tests.registry_lake import NAME, analysed, client_of
from tests.small_lake import day_at

pytest_plugins = ["tests.registry_lake"]
pytestmark = pytest.mark.integration


@pytest.fixture
def context(registry_context: Context) -> Context:
    return registry_context


def promoted(context: Context, day: date, decision: Decision = "ship") -> StepResult:
    analysed(context, day, decision)
    return promote(context, day)


def aliases(context: Context) -> dict[str, tuple[str, str]]:
    """Day and role of the version behind each alias."""
    client = client_of(context)
    found = {}
    for alias, version in client.get_registered_model(NAME).aliases.items():
        tags = client.get_model_version(NAME, version).tags
        found[alias] = (tags["day"], tags["role"])
    return found


def versions(context: Context) -> list[tuple[str, str]]:
    found = client_of(context).search_model_versions(f"name='{NAME}'")
    return sorted((version.tags["day"], version.tags["role"]) for version in found)


def both(index: int) -> list[tuple[str, str]]:
    return [(str(day_at(index)), "baseline"), (str(day_at(index)), "treatment")]


def test_a_treatment_that_ships_becomes_the_champion(context: Context) -> None:
    result = promoted(context, day_at(3), "ship")
    assert aliases(context) == {"champion": (str(day_at(3)), "treatment")}
    assert versions(context) == both(3)
    assert result.facts["decision"] == "ship"
    assert result.facts["aliases"] == f"champion -> version {result.facts['versions']['treatment']}"


@pytest.mark.parametrize("decision", ["not enough evidence", "hold"])
def test_without_a_win_the_treatment_challenges_and_the_baseline_serves(context: Context, decision: Decision) -> None:
    promoted(context, day_at(3), decision)
    assert aliases(context) == {
        "challenger": (str(day_at(3)), "treatment"),
        "champion": (str(day_at(3)), "baseline"),
    }


def test_a_champion_stays_until_a_treatment_wins(context: Context) -> None:
    promoted(context, day_at(3), "ship")
    promoted(context, day_at(4), "not enough evidence")
    assert aliases(context) == {
        "champion": (str(day_at(3)), "treatment"),
        "challenger": (str(day_at(4)), "treatment"),
    }
    promoted(context, day_at(5), "ship")
    assert aliases(context) == {
        "champion": (str(day_at(5)), "treatment"),
        "challenger": (str(day_at(4)), "treatment"),
    }


def test_a_challenger_that_wins_is_no_challenger_any_more(context: Context) -> None:
    promoted(context, day_at(3), "hold")
    promoted(context, day_at(3), "ship")
    assert aliases(context) == {"champion": (str(day_at(3)), "treatment")}


def test_an_older_day_is_registered_and_moves_no_alias(context: Context) -> None:
    promoted(context, day_at(5), "not enough evidence")
    before = aliases(context)
    result = promoted(context, day_at(4), "ship")
    assert aliases(context) == before
    assert versions(context) == both(4) + both(5)
    assert result.facts["aliases"] == f"aliases left alone: the registry already knows {day_at(5)}"


def test_promote_false_registers_and_moves_nothing(context: Context) -> None:
    left = replace(context, pipeline=context.pipeline.override({"promote": False}))
    result = promoted(left, day_at(3), "ship")
    assert aliases(context) == {}
    assert versions(context) == both(3)
    assert result.facts["aliases"] == "aliases left alone: promote is false"
    assert result.facts["decision"] == "ship"


def test_the_same_day_again_makes_no_second_version(context: Context) -> None:
    first = promoted(context, day_at(3))
    again = promote(replace(context, run={"try": 2}), day_at(3))
    assert versions(context) == both(3)
    assert again.record() == first.record()
    runs = client_of(context).search_runs([client_of(context).get_experiment_by_name(NAME).experiment_id])
    assert [run.info.run_name for run in runs] == [str(day_at(3))], "one run per day and configuration"


def test_other_weights_of_the_same_day_are_another_version(context: Context) -> None:
    promoted(context, day_at(3))
    analysed(context, day_at(3), "ship", weights=" refitted")
    result = promote(context, day_at(3))
    assert versions(context) == sorted(both(3) + both(3))
    version = client_of(context).get_model_version_by_alias(NAME, "champion")
    assert str(version.version) == result.facts["versions"]["treatment"]
    assert version.tags["bundle"] == context.runs.get("model_treatment", day_at(3)).content_hash


def test_the_record_of_the_decision_does_not_depend_on_the_registry(context: Context) -> None:
    first = promoted(context, day_at(3), "hold").outputs
    promoted(context, day_at(6), "ship")
    assert promote(context, day_at(3)).outputs == first
    record = context.runs.get("promotion", day_at(3)).json("decision.json")
    (guardrail,) = record.pop("guardrails")
    assert (guardrail["name"], guardrail["state"]) == ("quality against the baseline", "kept")
    assert record == {
        "decision": "hold",
        "alias": "challenger",
        "reason": "the verdict is hold",
        "bundle": context.runs.get("model_treatment", day_at(3)).content_hash,
        "model": NAME,
    }


def test_a_day_that_was_not_analysed_is_refused(context: Context) -> None:
    with pytest.raises(MissingPartitionError, match="'experiment'"):
        promote(context, day_at(3))
