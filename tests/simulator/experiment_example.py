"""A fixed experiment with everything a record may hold: it is made up, and describes no run."""

from typing import Literal

from simulator.experiment import (
    Arm,
    Calibration,
    DayData,
    Estimate,
    Experiment,
    Lineage,
    MetricResult,
    Quality,
    Rung,
    Variant,
    Verdict,
)
from simulator.inference import Effect
from simulator.offpolicy.record import OffPolicy
from simulator.result import Role, Segment, Unit
from simulator.surroundings import Certificate
from tests.simulator.diagnostics_example import diagnostics
from tests.simulator.hostile import HOSTILE, HOSTILE_ATTRIBUTE, HOSTILE_IMAGE
from tests.simulator.log_example import agreement, interactions, replay, series
from tests.simulator.surroundings_example import CONFIG, app_time, certificate, checks, depths, run

_USERS: dict[Segment, int] = {"all": 12_480, "new": 1_934, "low": 5_211, "high": 5_335}
_SEGMENTS: tuple[Segment, ...] = ("all", "new", "low", "high")
_DIFFERENCE: dict[Unit, Unit] = {"share": "pp"}


def estimable(value: float, half: float, unit: Unit, p: float | None = None) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, p_value=p, se=half / 1.97, unit=unit)


def metric(
    name: str,
    title: str,
    role: Role,
    segment: Segment,
    levels: tuple[float, float],
    *,
    unit: Unit = "s",
    half: float = 0.02,
    p: float = 0.0123,
    higher_is_better: bool = True,
    margin: float | None = None,
    exploratory: bool = False,
    users: int | None = None,
) -> MetricResult:
    """One metric from its two levels; ``half`` is half an interval's width as a share of the level."""
    baseline, treatment = levels
    points = 100.0 if unit == "share" else 1.0
    return MetricResult(
        name=name,
        title=title,
        role=role,
        segment=segment,
        higher_is_better=higher_is_better,
        users=_USERS[segment] if users is None else users,
        baseline=estimable(baseline, baseline * half, unit),
        treatment=estimable(treatment, treatment * half, unit),
        difference=estimable(points * (treatment - baseline), points * baseline * half, _DIFFERENCE.get(unit, unit), p),
        relative=estimable(100 * (treatment / baseline - 1), 100 * half, "percent", 1.3 * p if p < 0.5 else None),
        p_adjusted=min(1.0, 4 * p),
        margin=margin,
        exploratory=exploratory,
    )


def not_estimable(
    name: str, title: str, role: Role, segment: Segment, reason: str, *, unit: Unit = "share"
) -> MetricResult:
    return MetricResult(
        name=name,
        title=title,
        role=role,
        segment=segment,
        higher_is_better=True,
        users=0,
        baseline=Estimate(value=None, unit=unit, reason=reason),
        treatment=Estimate(value=None, unit=unit, reason=reason),
        difference=Estimate(value=None, unit=_DIFFERENCE.get(unit, unit), reason=reason),
        relative=Estimate(value=None, unit="percent", reason=reason),
    )


def _metrics() -> tuple[MetricResult, ...]:
    app, back = ("app_time", "App time per user and day"), ("return", "Next-day return")
    skip, dislike = ("skip_share", "Share of skipped videos"), ("dislikes", "Dislikes per user")
    found = [
        metric(*app, "primary", "all", (412.37, 431.06), half=0.011, p=0.00002),
        metric(*app, "primary", "new", (187.52, 205.91), half=0.034, p=0.0004),
        metric(*app, "primary", "low", (301.84, 309.15), half=0.026, p=0.0671, exploratory=True),
        metric(*app, "primary", "high", (1_602.4, 1_671.9), half=0.018, p=0.0009, exploratory=True),
        metric(*back, "primary", "all", (0.4132, 0.4219), unit="share", half=0.014, p=0.0031),
        metric(*back, "primary", "new", (0.2871, 0.3014), unit="share", half=0.045, p=0.0382),
        metric(*back, "primary", "low", (0.3514, 0.3498), unit="share", half=0.03, p=0.7716, exploratory=True),
        not_estimable(*back, "primary", "high", "the feed ends before the return day <b>of this segment</b>"),
        metric(*skip, "guardrail", "all", (0.3127, 0.3089), unit="share", higher_is_better=False, margin=2.0, p=0.2214),
        metric(
            *skip, "guardrail", "new", (0.4105, 0.4291), unit="share", higher_is_better=False, margin=2.0, half=0.02
        ),
        metric(
            *skip, "guardrail", "low", (0.3318, 0.3722), unit="share", higher_is_better=False, margin=2.0, half=0.02
        ),
        metric(
            *dislike, "guardrail", "all", (0.00312, 0.00298), unit="count", higher_is_better=False, p=0.6405, half=0.2
        ),
        metric("likes", f"Likes {HOSTILE}", "secondary", "all", (1.284, 1.377), unit="count", half=0.03),
        metric("impressions", "Impressions per user", "secondary", "all", (148.6, 152.9), unit="count", half=0.01),
        metric("topic_diversity", "Distinct topics per video", "secondary", "all", (0.214, 0.209), unit="share", p=0.1),
    ]
    found[0] = found[0].model_copy(
        update={"variants": variants(found[0]), "detectable": 6.51, "detectable_percent": 1.58}
    )
    found[8] = found[8].model_copy(update={"variants": variants(found[8])[:1], "detectable": 0.44})
    # A number can be missing in one column alone.
    found.append(
        found[11].model_copy(
            update={
                "segment": "new",
                "users": _USERS["new"],
                "baseline": Estimate(value=0.0, unit="count"),
                "relative": Estimate(value=None, unit="percent", reason="the baseline has no dislike to divide by"),
                "p_adjusted": None,
            }
        )
    )
    return tuple(found)


def variants(of: MetricResult) -> tuple[Variant, ...]:
    """The same comparison by every other method: a little narrower, a little lower, and one without a number."""
    d, r = of.difference, of.relative
    assert d.value is not None
    assert r.value is not None
    return (
        Variant(
            method="cuped",
            difference=estimable(0.97 * d.value, 0.61 * abs(d.value), d.unit, 0.0007),
            relative=estimable(0.97 * r.value, 0.61 * abs(r.value), "percent"),
            note="adjusted by up to 7 covariates from before the exposure; the difference's variance is 13 % smaller",
        ),
        Variant(
            method="winsorised",
            difference=Estimate(value=None, unit=d.unit, reason=f"every value was cut {HOSTILE}"),
            relative=Estimate(value=None, unit="percent", reason=f"every value was cut {HOSTILE}"),
            note="values above 3600, the 99 % quantile of all users in both arms, count as 3600",
        ),
        Variant(
            method="bootstrap",
            difference=estimable(d.value, 0.73 * abs(d.value), d.unit),
            relative=estimable(r.value, 0.73 * abs(r.value), "percent"),
            note="percentile interval of 2000 resamples of users",
        ),
    )


def _quality() -> tuple[Quality, ...]:
    rows: list[Quality] = []
    gains: tuple[tuple[float, Literal["treatment", "baseline"]], ...] = ((0.0, "baseline"), (0.0087, "treatment"))
    for task, level in (("long_view", 0.7312), ("like", 0.6844)):
        for shift, segment in enumerate(_SEGMENTS):
            impressions, positives = 184_230 - 20_011 * shift, 41_877 - 4_003 * shift
            for gain, arm in gains:
                value = level + gain - 0.0113 * shift
                measures: tuple[tuple[Literal["auc", "logloss"], float], ...] = (
                    ("auc", value),
                    ("logloss", 1.2 - value),
                )
                rows += [
                    Quality(
                        arm=arm,
                        task=task,
                        group=segment,
                        metric=name,
                        value=measured,
                        rows=impressions,
                        positives=positives,
                    )
                    for name, measured in measures
                ]
    reason = "no user of the group has both a positive and a negative"
    rows += [
        Quality(
            arm="treatment", task="like", group="new", metric="gauc", value=None, rows=211, positives=0, reason=reason
        ),
        Quality(
            arm="baseline", task="like", group="new", metric="gauc", value=None, rows=211, positives=0, reason=reason
        ),
        Quality(arm="treatment", task="completion", group="all", metric="mse", value=0.0713, rows=184_230),
        Quality(arm="baseline", task="completion", group="all", metric="mse", value=0.0741, rows=184_230),
        Quality(arm="treatment", task=f"task {HOSTILE}", group="all", metric="auc", value=0.5, rows=17),
    ]
    return tuple(rows)


def example() -> Experiment:
    """The record; every call builds an equal one."""
    return Experiment(
        day="2026-03-12",
        holdout_day="2026-03-11",
        return_day="2026-03-12",
        confidence=0.95,
        users=12_480,
        sessions=21_307,
        rollouts=2,
        verdict=Verdict(
            decision="not enough evidence",
            sentence="New users would have stayed 9.8 % longer with mfh, but more of them would have skipped videos, "
            "and whether that is within the margin is not certain.",
            reasons=(
                "App time of new users: the whole interval is above zero.",
                "Skips of new users: the interval reaches past the margin of 2 percentage points.",
                f"A reason with {HOSTILE_IMAGE}",
            ),
        ),
        caveats=(
            "Next-day return is a proxy: the response model predicts it; it was not observed for either arm.",
            "Topics are a proxy from video tags, which 8 % of the videos lack.",
            f"Hostile caveat {HOSTILE}",
        ),
        trust=(
            Rung(
                name="V1",
                question="A/A: does it find lifts where there are none?",
                state="passed",
                detail="Certificate: 8 of 8 cells inside the exact binomial band over 1,000 runs.",
            ),
            Rung(
                name="V2",
                question="Backtest: do the logged numbers come back?",
                state="not powered",
                detail="3 of 8 cells have an interval wider than ±20 %.",
            ),
            Rung(
                name="V3",
                question="Known truth: does the interval cover it?",
                state="failed",
                detail="Intervals of app time covered the truth in 86 of 100 worlds; 90 are needed.",
            ),
            Rung(
                name="V4",
                question="Agreement: do replay and rollouts agree?",
                state="passed",
                detail="The paired difference's interval contains 0.",
            ),
            Rung(
                name="V6",
                question="Sensitivity: does the verdict survive?",
                state="missing",
                detail=f"Not run. {HOSTILE}",
            ),
        ),
        sample_ratio="Not applicable: every held-out user is rolled out in both arms.",
        metrics=_metrics(),
        interactions=interactions(),
        replay=replay(),
        agreement=agreement(),
        calibration=(
            Calibration(metric="app_time", segment="all", unit="s", logged=405.11, baseline=412.37, treatment=431.06),
            Calibration(metric="app_time", segment="new", unit="s", logged=196.38, baseline=187.52, treatment=205.91),
            Calibration(metric="return", segment="all", unit="share", logged=0.4091, baseline=0.4132, treatment=0.4219),
            Calibration(
                metric="dislikes",
                segment="all",
                unit="count",
                logged=None,
                baseline=0.00312,
                treatment=0.00298,
                reason="this feed does not record dislikes",
            ),
        ),
        session_depth=depths(),
        app_time=app_time(),
        certificate=certificate(),
        quality=_quality(),
        arms=(
            Arm(
                role="treatment",
                model="mfh",
                kind="mfh",
                parameters=1_284_611,
                bundle="models/mfh/2026-03-12/4f1d90ac77be",
                first_day="2026-03-04",
                last_day="2026-03-10",
                rows=1_412_093,
                warnings=(
                    "The task like has 212 positives from new users.",
                    f"Feature {HOSTILE_ATTRIBUTE} is constant.",
                ),
            ),
            Arm(
                role="baseline",
                model="ple",
                kind="ple",
                parameters=1_190_207,
                bundle="models/ple/2026-03-12/b02e51f7c9d3",
                first_day="2026-03-04",
                last_day="2026-03-10",
                rows=1_412_093,
            ),
        ),
        data=(
            DayData(day="2026-03-10", rows=203_117, refused={}, expectations=31, failed_expectations=0),
            DayData(
                day="2026-03-11",
                rows=184_230,
                refused={"watch time is negative": 17, f"video {HOSTILE}": 3},
                expectations=31,
                failed_expectations=1,
            ),
        ),
        lineage=Lineage(
            pipeline="daily_world",
            source="world, 12,000 users a day, seed 7",
            config_hash="7d41c2be90aa3f15",
            code_version="0.1.0+g0c3f2ab",
            inputs={"interactions 2026-03-11": "91ac03de5577b2e0", "model_treatment": "4f1d90ac77be0a31"},
            reproduce="mfh run daily_world --day 2026-03-12 --again",
            config=CONFIG,
        ),
    )


def full() -> Experiment:
    """The example as a report's copy of it: with everything that stands beside the page."""
    inside = diagnostics().model_copy(update={"notes": ("The treatment began warm, 3 days before.",)})
    return example().model_copy(update={"series": series(), "diagnostics": inside, "checks": checks(), "run": run()})


def refused() -> Experiment:
    """The example where nothing beside the arms could be estimated: every reason that a record may give instead."""
    reason = "the log holds 17 slots only"
    cell = agreement().cells[1].model_copy(update={"rollouts": Effect(None, reason="no rollout of 410 began")})
    return full().model_copy(
        update={
            "replay": OffPolicy(day="2026-03-11", reason=reason),
            "agreement": agreement().model_copy(update={"cells": (cell,)}),
            "certificate": Certificate(simulator="0123456789ab", reason="the certificate is of another simulator"),
            "series": (series()[1],),
            "diagnostics": None,
            "app_time": None,
            "design": "split",
            "multiplicity": "benjamini-hochberg",
        }
    )


def without_new_users() -> Experiment:
    """The example on a day that no new user visited."""
    reason = "no new user opened a session on the held-out day"
    full = example()
    metrics = tuple(
        not_estimable(m.name, m.title, m.role, "new", reason, unit=m.baseline.unit) if m.segment == "new" else m
        for m in full.metrics
    )
    return full.model_copy(update={"metrics": metrics})
