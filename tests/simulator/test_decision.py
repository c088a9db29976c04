import pytest

from components.config import DecisionRule
from simulator.agreement import Agreement
from simulator.decision import decide, trust_ladder
from simulator.experiment import Estimate, MetricResult, Rung, Variant
from simulator.inference import sample_ratio

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


def test_the_days_agreement_is_rung_v4():
    rungs = trust_ladder(agreement=Agreement(day="2026-01-01", state="failed", detail="they disagree on seconds"))
    assert {r.name: (r.state, r.detail) for r in rungs if r.state != "missing"} == {
        "V4 agreement": ("failed", "they disagree on seconds")
    }
    assert decide(metrics(), RULE, rungs).reasons[-1] == "V4 agreement failed: they disagree on seconds"


def test_a_sample_ratio_mismatch_holds_whatever_the_numbers_say():
    verdict = decide(metrics(), RULE, sample_ratio=sample_ratio(5500, 4500))
    assert verdict.decision == "hold"
    assert verdict.sentence.startswith("Do not trust these results")
    assert "5500 : 4500 users" in verdict.reasons[0]
    assert decide([], RULE, sample_ratio=sample_ratio(5500, 4500)).decision == "hold"
    assert decide(metrics(), RULE, sample_ratio=sample_ratio(5010, 4990)).decision == "ship"


def test_a_failed_rung_is_named_and_changes_no_number():
    states = {"V1 A/A": "passed", "V2 backtest": "not powered", "V3 known truth": "failed", "V4 agreement": "missing"}
    trust = [Rung(name=n, question="?", state=s, detail=f"detail of {n}") for n, s in states.items()]
    verdict = decide(metrics(), RULE, trust)
    assert verdict.decision == decide(metrics(), RULE).decision == "ship"
    assert [r for r in verdict.reasons if "detail" in r] == ["V3 known truth failed: detail of V3 known truth"]
    assert "V3 known truth failed" in decide([], RULE, trust).reasons[-1]
    alert = decide(metrics(), RULE, trust, sample_ratio(5500, 4500))
    assert any("V3 known truth failed" in reason for reason in alert.reasons)


def adjusted(interval):
    relative = estimate(*interval, "percent")
    variant = Variant(method="cuped", difference=estimate(1, 2, "s"), relative=relative, note="by 3 covariates")
    first, *rest = metrics(app_time=(-1.0, 4.0))
    return [first.model_copy(update={"variants": (variant,)}), *rest]


def test_the_adjusted_lift_decides_where_the_rule_says_so():
    rule = RULE.model_copy(update={"lift": "cuped"})
    assert decide(adjusted((0.5, 2.5)), RULE).decision == "not enough evidence"
    verdict = decide(adjusted((0.5, 2.5)), rule)
    assert verdict.decision == "ship"
    assert "+1.5 % [0.5, 2.5] (adjusted by covariates)" in verdict.sentence
    # Without an adjusted lift the plain one decides, and the sentence does not claim otherwise.
    fallback = decide(adjusted((None, None)), rule)
    assert fallback.decision == "not enough evidence"
    assert "adjusted" not in fallback.sentence
