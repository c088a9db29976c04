"""The rule of promotion: the verdict comes first, every guardrail may keep from serving, a person may have to agree."""

from typing import Any

import pytest

from components.config import parse_pipeline
from components.errors import ConfigError
from components.promotion_rule import AgainstChampion, quality_guardrail, rule
from components.promotion_settings import PromotionSettings
from simulator.experiment import Decision, Experiment, Quality, Rung, Verdict
from tests.simulator.experiment_example import example


def auc(arm: str, task: str, value: float | None, group: str = "all", metric: str = "auc") -> Quality:
    return Quality.model_validate(
        {"arm": arm, "task": task, "group": group, "metric": metric, "value": value, "rows": 9}
    )


def decided(decision: Decision, *quality: Quality, trust: tuple[Rung, ...] = ()) -> Experiment:
    record = example()
    verdict = record.verdict.model_copy(update={"decision": decision})
    rows = quality or (auc("treatment", "like", 0.7), auc("baseline", "like", 0.7))
    return record.model_copy(update={"verdict": verdict, "quality": rows, "trust": trust})


def against(decision: Decision, value: float = 0.7) -> AgainstChampion:
    verdict = Verdict(decision=decision, sentence=f"against the champion: {decision}", reasons=())
    return AgainstChampion("7", (auc("baseline", "like", value),), verdict)


@pytest.mark.parametrize(
    ("decision", "approval", "alias"),
    [
        ("ship", "automatic", "champion"),
        ("ship", "manual", "candidate"),
        ("hold", "automatic", "challenger"),
        ("hold", "manual", "challenger"),
        ("not enough evidence", "automatic", "challenger"),
        ("not enough evidence", "manual", "challenger"),
    ],
)
def test_the_alias_follows_from_verdict_and_approval(decision: Decision, approval: Any, alias: str) -> None:
    assert rule(decided(decision), PromotionSettings(approval=approval)).alias == alias


def test_a_task_that_ranks_worse_keeps_from_serving() -> None:
    rows = [auc("treatment", "like", 0.70), auc("baseline", "like", 0.71), auc("treatment", "skip", 0.60)]
    kept = rule(decided("ship", *rows, auc("baseline", "skip", 0.615)), PromotionSettings())
    assert (kept.alias, kept.guardrails[0].state) == ("champion", "kept")
    worse = rule(decided("ship", *rows, auc("baseline", "skip", 0.6201)), PromotionSettings())
    assert (worse.alias, worse.guardrails[0].state) == ("challenger", "breached")
    assert worse.guardrails[0].detail == "AUC of skip -0.0201, at most 0.02 may be lost"
    assert "AUC of skip -0.0201" in worse.reason
    off = rule(decided("ship", *rows, auc("baseline", "skip", 0.9)), PromotionSettings(max_quality_loss=None))
    assert (off.alias, off.guardrails) == ("champion", ())


def test_only_auc_over_all_users_counts_and_what_can_not_be_compared_is_unknown() -> None:
    rows = [
        auc("treatment", "like", 0.5, group="new"),
        auc("baseline", "like", 0.9, group="new"),
        auc("treatment", "like", 0.5, metric="gauc"),
        auc("baseline", "like", 0.9, metric="gauc"),
        auc("treatment", "skip", None),
        auc("baseline", "skip", 0.9),
    ]
    found = quality_guardrail("quality", rows, 0.02)
    assert (found.state, found.detail) == ("unknown", "no task has an AUC of both models")
    ruling = rule(decided("ship", *rows), PromotionSettings())
    assert ruling.alias == "challenger", "what can not be checked does not serve"


def test_losing_against_the_champion_keeps_from_serving_and_not_winning_does_not() -> None:
    settings = PromotionSettings()
    assert rule(decided("ship"), settings, against("hold")).alias == "challenger"
    assert rule(decided("ship"), settings, against("not enough evidence")).alias == "champion"
    assert rule(decided("ship"), settings, against("ship")).alias == "champion"
    ruling = rule(decided("ship"), settings, against("ship", value=0.75))
    assert ruling.alias == "challenger"
    assert "quality against champion 7 breached: AUC of like -0.0500" in ruling.reason
    assert rule(decided("hold"), settings, against("ship")).alias == "challenger"


@pytest.mark.parametrize(
    ("state", "alias"), [("passed", "champion"), ("failed", "challenger"), ("missing", "challenger")]
)
def test_a_rung_that_is_asked_for_must_have_passed(state: Any, alias: str) -> None:
    rung = Rung(name="V3 known truth", question="?", state=state, detail="found so")
    settings = PromotionSettings(require_rungs=("V3",))
    assert rule(decided("ship", trust=(rung,)), settings).alias == alias
    assert rule(decided("ship", trust=()), settings).alias == "challenger"


def pipeline_of(promotion: Any) -> Any:
    feed = {"kind": "world", "first_day": "2026-01-01"}
    return parse_pipeline({"name": "small", "feed": feed, "promotion": promotion}, "test")


def test_manual_is_short_for_its_setting_and_changes_no_result() -> None:
    assert pipeline_of("manual").promotion == PromotionSettings(approval="manual")
    assert pipeline_of("manual").config_hash == pipeline_of({"champion": "rollouts"}).config_hash
    with pytest.raises(ConfigError, match=r"promotion\.approval: .*'automatic' or 'manual'"):
        pipeline_of("by vote")
