import pytest

from components.config import DecisionRule
from simulator.decision import decide, trust_ladder
from simulator.experiment import Estimate, MetricResult

RULE = DecisionRule(min_users=100, max_skip_rate_increase=0.02, max_return_loss_pp=0.5)


def estimate(low, high, unit):
    if low is None:
        return Estimate(value=None, unit=unit, reason="every user has the same value (0): no interval")
    return Estimate(value=(low + high) / 2, low=low, high=high, unit=unit)


def result(name, interval, segment="new", users=500):
    share = name != "app_time"
    margins = {"skip_share": 2.0, "return": 0.5}
    return MetricResult(
        name=name,
        title=name,
        role="primary",
        segment=segment,
        higher_is_better=name != "skip_share",
        users=users,
        baseline=estimate(1, 2, "share"),
        treatment=estimate(1, 2, "share"),
        difference=estimate(*(interval if share else (1, 2)), "pp" if share else "s"),
        relative=estimate(*((1, 2) if share else interval), "percent"),
        margin=margins.get(name),
    )


def metrics(app_time=(1.9, 6.3), returning=(0.1, 1.5), skips=(-1.0, 0.5), *, all_skips=(-1.0, 0.5), users=500):
    return [
        result("app_time", app_time, users=users),
        result("return", returning, users=users),
        result("skip_share", skips, users=users),
        result("return", (0.2, 0.9), "all"),
        result("skip_share", all_skips, "all"),
    ]


@pytest.mark.parametrize(
    ("changes", "decision"),
    [
        ({}, "ship"),
        ({"app_time": (-6.0, -1.0)}, "hold"),
        ({"app_time": (-1.0, 4.0)}, "not enough evidence"),
        ({"skips": (2.1, 4.0)}, "hold"),
        ({"skips": (1.0, 4.0)}, "not enough evidence"),
        ({"all_skips": (2.1, 4.0)}, "hold"),
        ({"returning": (-2.0, -0.6)}, "hold"),
        ({"returning": (-2.0, 0.6)}, "not enough evidence"),
        ({"returning": (-0.5, 0.6)}, "ship"),
        ({"returning": (None, None)}, "not enough evidence"),
        ({"app_time": (None, None)}, "not enough evidence"),
        ({"users": 99}, "not enough evidence"),
        ({"app_time": (-6.0, -1.0), "users": 99}, "not enough evidence"),
        ({"app_time": (0.0, 4.0)}, "not enough evidence"),
    ],
)
def test_the_written_rule(changes, decision):
    verdict = decide(metrics(**changes), RULE)
    assert verdict.decision == decision
    assert verdict.reasons
    assert decision in verdict.sentence


def test_the_sentence_a_product_manager_reads_first():
    verdict = decide(metrics(), RULE)
    assert verdict.sentence == "New users: app time +4.1 % [1.9, 6.3], next-day return +0.8 pp [0.1, 1.5]: ship"


def test_missing_estimates_are_explained():
    assert "was not estimated" in decide([], RULE).sentence
    assert "same value" in decide(metrics(app_time=(None, None)), RULE).sentence
    assert "99 users are fewer than the 100" in decide(metrics(users=99), RULE).sentence


def test_the_ladder_claims_nothing():
    rungs = trust_ladder()
    assert [r.name[:2] for r in rungs] == ["V1", "V2", "V3", "V4", "V5", "V6"]
    assert {r.state for r in rungs} == {"missing"}
