"""The written decision rule, and the state of the trust ladder."""

from collections.abc import Sequence

from components.config import DecisionRule
from simulator.agreement import Agreement
from simulator.experiment import Decision, Estimate, MetricResult, Rung, Verdict
from simulator.inference import SampleRatio
from simulator.result import Segment

# The trust ladder: rung to the question that it answers.
QUESTIONS = {
    "V1 A/A": "Does it find lifts where there are none?",
    "V2 backtest": "Simulating the logging policy, do the logged numbers come back?",
    "V3 known truth": "In worlds whose true lift is known, does the interval cover it?",
    "V4 agreement": "Do replay and rollouts agree where both can speak?",
    "V5 reference": "Do the estimators equal a public library's on its own data?",
    "V6 sensitivity": "Does the verdict survive other assumptions?",
}

_SEGMENT_NAMES: dict[Segment, str] = {
    "all": "All users",
    "new": "New users",
    "low": "Low-activity users",
    "high": "High-activity users",
}


def decide(
    metrics: Sequence[MetricResult],
    rule: DecisionRule,
    trust: Sequence[Rung] = (),
    sample_ratio: SampleRatio | None = None,
) -> Verdict:
    """Apply the rule to the estimates. Intervals are at the rule's confidence, not adjusted for multiplicity.

    A sample-ratio mismatch comes first: users did not fall into the arms as intended, no number can be trusted, and
    the decision is *hold* whatever the numbers say. Else, with the primary segment's relative lift of app time as the
    metric, and as guardrails the skip share and the next-day return, in the primary segment and over all users:

    - *hold*: the lift's interval is below 0, or a guardrail is breached (its interval lies beyond the margin);
    - *ship*: the lift's interval is above 0 and every guardrail's interval stays within its margin;
    - *not enough evidence*: everything else, and always below ``min_users`` or without an interval of the lift.

    With ``rule.lift`` "cuped" the lift is the one adjusted by covariates, where there is one. A failed rung of the
    trust ladder changes no number: it is named among the reasons, so that nobody reads the decision without it.

    Args:
        metrics: All results of the experiment.
        rule: Segment, margins, smallest number of users.
        trust: The trust ladder.
        sample_ratio: The check of the split design.

    Returns:
        The decision, a sentence for people, and what led to it.
    """
    verdict = _by_numbers(metrics, rule)
    doubts = tuple(f"{rung.name} failed: {rung.detail}" for rung in trust if rung.state == "failed")
    if sample_ratio is not None and sample_ratio.alert:
        sentence = f"Do not trust these results: the sample ratio is not as intended ({sample_ratio.sentence}): hold"
        reasons = (f"sample-ratio mismatch: {sample_ratio.sentence}", *doubts, *verdict.reasons)
        return Verdict(decision="hold", sentence=sentence, reasons=reasons)
    return verdict.model_copy(update={"reasons": (*verdict.reasons, *doubts)})


def _by_numbers(metrics: Sequence[MetricResult], rule: DecisionRule) -> Verdict:
    who = _SEGMENT_NAMES[rule.primary_segment]
    main = _find(metrics, "app_time", rule.primary_segment)
    if main is None:
        return _unknown(f"{who}: app time was not estimated", "there is no result for the primary metric")
    lift, how = _lift(main, rule)
    said = [f"app time {_percent(lift)}{how}"]
    returning = _find(metrics, "return", rule.primary_segment)
    if returning is not None:
        said.append(f"next-day return {_points(returning.difference)}")
    sentence = f"{who}: {', '.join(said)}"
    if main.users < rule.min_users:
        few = f"{main.users} users are fewer than the {rule.min_users} that the rule asks for"
        return _unknown(sentence, few)
    low, high = lift.low, lift.high
    if low is None or high is None:
        return _unknown(sentence, lift.reason or "app time has no interval")
    reasons, breached, open_ = _guardrails(metrics, rule)
    decision: Decision = "not enough evidence"
    if high < 0 or breached:
        decision = "hold"
    elif low > 0 and not open_:
        decision = "ship"
    where = "below" if high < 0 else "above" if low > 0 else "on both sides of"
    lead = f"{who}: the interval of the lift in app time lies {where} 0"
    return Verdict(decision=decision, sentence=f"{sentence}: {decision}", reasons=(lead, *reasons))


def trust_ladder(certified: Sequence[Rung] = (), agreement: Agreement | None = None) -> tuple[Rung, ...]:
    """Rungs V1 to V6: what is not shown for this version of the code is missing, and a report must say so.

    Args:
        certified: What a certificate says of the rungs; those that it does not name are missing.
        agreement: Rung V4 of the day, which goes before the certificate's; None where it was not computed.

    Returns:
        The rungs in order.
    """
    known = {rung.name: rung for rung in certified}
    found = [
        known.get(name, Rung(name=name, question=question, state="missing", detail="This was not checked."))
        for name, question in QUESTIONS.items()
    ]
    if agreement is not None and agreement.state != "missing":
        day = {"state": agreement.state, "detail": agreement.detail}
        found = [rung.model_copy(update=day) if rung.name == "V4 agreement" else rung for rung in found]
    return tuple(found)


def _guardrails(metrics: Sequence[MetricResult], rule: DecisionRule) -> tuple[list[str], bool, bool]:
    """What the guardrails say, whether one is breached, and whether one is neither kept nor breached."""
    reasons, breached, open_ = [], False, False
    for segment in dict.fromkeys((rule.primary_segment, "all")):
        for name in ("skip_share", "return"):
            result = _find(metrics, name, segment)
            title = f"{_SEGMENT_NAMES[segment]}, {'skip share' if name == 'skip_share' else 'next-day return'}"
            if result is None or result.difference.low is None or result.difference.high is None:
                why = "not estimated" if result is None else result.difference.reason or "no interval"
                reasons.append(f"{title}: {why}, so its margin can not be checked")
                open_ = True
                continue
            margin = result.margin if result.margin is not None else 0.0
            # Losses count up: of what should be low as it is, of what should be high with its sign turned.
            ends = (result.difference.low, result.difference.high)
            least, most = sorted(ends if not result.higher_is_better else (-ends[0], -ends[1]))
            state = "breaches" if least > margin else "stays within" if most <= margin else "may exceed"
            breached |= state == "breaches"
            open_ |= state == "may exceed"
            reasons.append(f"{title}: {_points(result.difference)} {state} the margin of {margin:g} pp")
    return reasons, breached, open_


def _lift(main: MetricResult, rule: DecisionRule) -> tuple[Estimate, str]:
    """The lift that decides, and what to say of it."""
    adjusted = next((v.relative for v in main.variants if v.method == "cuped" and v.relative.value is not None), None)
    if rule.lift == "cuped" and adjusted is not None:
        return adjusted, " (adjusted by covariates)"
    return main.relative, ""


def _find(metrics: Sequence[MetricResult], name: str, segment: Segment) -> MetricResult | None:
    return next((m for m in metrics if m.name == name and m.segment == segment), None)


def _unknown(sentence: str, reason: str) -> Verdict:
    return Verdict(
        decision="not enough evidence", sentence=f"{sentence}: not enough evidence, since {reason}", reasons=(reason,)
    )


def _percent(estimate: Estimate) -> str:
    return _with_interval(estimate, " %")


def _points(estimate: Estimate) -> str:
    return _with_interval(estimate, " pp")


def _with_interval(estimate: Estimate, unit: str) -> str:
    if estimate.value is None:
        return "unknown"
    value = f"{_rounded(estimate.value):+.1f}{unit}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{_rounded(estimate.low):.1f}, {_rounded(estimate.high):.1f}]"


def _rounded(value: float) -> float:
    """To the digit that is shown; what rounds to nothing has no sign."""
    return round(value, 1) + 0.0
