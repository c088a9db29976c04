"""Fixed interactions, replay, agreement and running series, with everything that they may hold: made up, of no run."""

from dataclasses import replace

from simulator.agreement import Agreement, AgreementCell
from simulator.experiment import Estimate, Interaction, Series, SeriesPoint
from simulator.inference import Effect
from simulator.offpolicy import Weights
from simulator.offpolicy.record import ArmSessions, ArmWeights, Cell, OffPolicy
from simulator.result import Segment
from tests.simulator.hostile import HOSTILE, HOSTILE_IMAGE


def _effect(value: float, half: float, p: float | None = None) -> Effect:
    return Effect(value, value - half, value + half, p, half / 2, 900.0)


def replay() -> OffPolicy:
    """Two parts of a log: what was estimated, what stands without an interval, and what was refused."""
    thin = Effect(None, reason=f"treatment: the effective sample size is 23.0 of 244 rounds, below 100 {HOSTILE}")
    cells = [
        Cell(
            part="logged",
            segment="all",
            reward="watch_s",
            unit="s",
            estimator="dr",
            treatment=_effect(30.16, 1.35),
            baseline=_effect(29.76, 1.34),
            difference=_effect(0.393, 0.592, 0.1934),
        ),
        Cell(
            part="logged",
            segment="all",
            reward="watch_s",
            unit="s",
            estimator="dm",
            treatment=_effect(28.35, 0.16),
            baseline=_effect(28.27, 0.17),
            difference=Effect(0.0861, reason="it is the same for every user (a constant reward?), so there is none"),
        ),
        Cell(
            part="logged",
            segment="low",
            reward="like",
            unit="share",
            estimator="snips",
            treatment=_effect(0.0314, 0.0021),
            baseline=_effect(0.0299, 0.0022),
            difference=_effect(0.0015, 0.0009, 0.0021),
        ),
    ]
    refused = Cell(
        part="uniform",
        segment="new",
        reward="skip",
        unit="share",
        estimator="ips",
        treatment=thin,
        baseline=thin,
        difference=thin,
    )
    summed = Cell(
        part="sessions",
        segment="all",
        reward="watch_s",
        unit="s",
        estimator="cascade_dr",
        treatment=_effect(61.7, 5.3),
        baseline=_effect(60.2, 5.1),
        difference=_effect(1.47, 2.91, 0.3224),
    )
    cells += [refused.model_copy(update={"estimator": name}) for name in ("ips", "snips", "dr")]
    cells += [summed.model_copy(update={"horizon": horizon}) for horizon in (2, None)]
    weights = Weights(
        rounds=73_387,
        users=3_001,
        matched=9_203,
        match_rate=0.1254,
        mean=1.0007,
        largest=164.02,
        quantile_99=18.29,
        top_share=0.3046,
        effective_rounds=4_272.5,
        effective_users=1_266.7,
    )
    unknown = replace(weights, match_rate=None, mean=None, largest=None, quantile_99=None, top_share=None)
    return OffPolicy(
        day="2026-03-11",
        rounds=73_387,
        users=3_001,
        users_share=0.568,
        left_out={f"a candidate has no features {HOSTILE}": 41},
        notes=("Equal scores share.", f"A note with {HOSTILE_IMAGE}"),
        cells=tuple(cells),
        weights=(
            ArmWeights(part="logged", segment="all", arm="treatment", weights=weights),
            ArmWeights(part="uniform", segment="new", arm="baseline", weights=unknown),
        ),
        sessions=(
            ArmSessions(
                segment="all",
                arm="treatment",
                horizon=2,
                sessions=4_595,
                mean_weight=0.9321,
                effective_sessions=221.4,
            ),
        ),
    )


def agreement() -> Agreement:
    """Seconds agree; skips of new users can not be told."""
    reason = "treatment: the effective sample size is 29.3 of 410 rounds, below 100"
    return Agreement(
        day="2026-03-11",
        state="passed",
        detail="In the first slot replay and the response model give the same difference of the arms.",
        estimator="dr",
        cell_confidence=0.99375,
        cells=(
            AgreementCell(
                segment="all",
                reward="watch_s",
                unit="s",
                slots=4_595,
                users=3_001,
                level=22.3,
                replay=_effect(0.222, 2.566, 0.81),
                rollouts=_effect(0.143, 0.349, 0.26),
                difference=_effect(0.079, 2.556, 0.93),
                state="passed",
            ),
            AgreementCell(
                segment="new",
                reward="skip",
                unit="share",
                slots=410,
                users=260,
                level=0.39,
                replay=Effect(None, reason=reason),
                rollouts=_effect(-0.0078, 0.0077, 0.005),
                difference=Effect(None, reason=reason),
                state="not powered",
                reason=reason,
            ),
        ),
    )


def series() -> tuple[Series, ...]:
    """One that has three days and left one out, and one that has a single day."""
    points = tuple(
        SeriesPoint(
            day=f"2026-03-{10 + i}",
            users=1_900 * (i + 1),
            value=value,
            estimate=mean,
            low=mean - 9.1 / (i + 1),
            high=mean + 9.1 / (i + 1),
        )
        for i, (value, mean) in enumerate(((4.13, 4.13), (11.27, 7.7), (9.81, 8.4)))
    )
    return (
        Series(
            metric="app_time",
            title=f"App time {HOSTILE}",
            segment="new",
            unit="percent",
            confidence=0.95,
            points=points,
            left_out={"2026-03-09": "no user with this metric"},
        ),
        Series(
            metric="return",
            title="Next-day return",
            segment="low",
            unit="pp",
            confidence=0.95,
            points=points[:1],
            reason="only one day has an estimate: a series needs two",
        ),
    )


def interactions() -> tuple[Interaction, ...]:
    """One that has a number and one that has none."""
    others: tuple[Segment, ...] = ("low", "high")
    reason = "no user with this metric"
    none = Estimate(value=None, unit="pp", reason=reason)
    return (
        Interaction(
            metric="app_time",
            title="App time per user and day",
            segment="new",
            others=others,
            difference=Estimate(value=5.41, low=1.59, high=9.23, p_value=0.0057, se=1.95, unit="pp"),
        ),
        Interaction(metric="return", title="Next-day return", segment="new", others=others, difference=none),
    )
