"""The result of one simulated A/B test: ``experiment.json``, from which every number of the report comes."""

from typing import Literal

from pydantic import Field, JsonValue

from simulator.agreement import Agreement
from simulator.offpolicy.record import OffPolicy
from simulator.report.diagnostics import Diagnostics
from simulator.result import Result, Role, Segment, Unit
from simulator.surroundings import Certificate, DayChecks, Distribution, Run

# 2: app time's distribution, what the certificate found, the configuration; and what only the report's own copy has:
# running series, diagnostics, the day's gates, the run. Records of version 1 are read as well.
SCHEMA_VERSION = 2

Decision = Literal["ship", "hold", "not enough evidence"]


class Estimate(Result):
    """A number with its confidence interval, or the reason why there is none.

    ``value`` is None exactly when ``reason`` is given.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    se: float | None = Field(None, description="Standard error, in the value's unit")
    unit: Unit
    reason: str | None = None


class Variant(Result):
    """The same comparison by another method, beside the plain one.

    ``cuped``: adjusted by covariates from before the exposure; ``winsorised``: with the largest users' values cut;
    ``bootstrap``: with a percentile interval of a user-level bootstrap. ``note`` says what was done.
    """

    method: Literal["cuped", "winsorised", "bootstrap"]
    difference: Estimate
    relative: Estimate
    note: str


class MetricResult(Result):
    """One metric in one segment: both arms, their difference and their relative lift.

    ``difference`` is treatment minus baseline in the metric's unit (percentage points for shares);
    ``relative`` is treatment over baseline minus one, in percent. ``p_adjusted`` is corrected over all metrics and
    segments of the experiment, by the decision rule's method. ``margin`` is a guardrail's allowed worsening.
    ``detectable`` is the smallest true difference that a test finds with 80 % power, in the difference's unit;
    ``detectable_percent`` the smallest relative lift.
    """

    name: str
    title: str
    role: Role
    segment: Segment
    higher_is_better: bool
    users: int
    baseline: Estimate
    treatment: Estimate
    difference: Estimate
    relative: Estimate
    p_adjusted: float | None = None
    margin: float | None = None
    exploratory: bool = False
    detectable: float | None = None
    detectable_percent: float | None = None
    variants: tuple[Variant, ...] = ()


class Interaction(Result):
    """Whether one segment's relative lift is another than that of all other users, in percentage points of lift."""

    metric: str
    title: str
    segment: Segment
    others: tuple[Segment, ...]
    difference: Estimate


class SeriesPoint(Result):
    """One day of a running series: the day's own estimate, and the running one with its confidence sequence."""

    day: str
    users: int
    value: float
    estimate: float
    low: float
    high: float


class Series(Result):
    """The running estimate of one metric over days; its intervals hold on all days at once, however often one looks.

    ``users`` of a point counts user-days so far. ``left_out`` says which earlier days have no place in it, and why.
    ``reason`` says why there is no series yet; the points that there are stay.
    """

    metric: str
    title: str
    segment: Segment
    unit: Unit
    confidence: float
    points: tuple[SeriesPoint, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)
    reason: str | None = None


class Calibration(Result):
    """The log beside the simulated baseline arm, on the held-out day; a sanity check, not rung V2."""

    metric: str
    segment: Segment
    unit: Unit
    logged: float | None
    baseline: float | None
    treatment: float | None
    reason: str | None = None


class Rung(Result):
    """One rung of the trust ladder (simulation.md's V1 to V6)."""

    name: str
    question: str
    state: Literal["passed", "failed", "not powered", "missing"]
    detail: str


class Verdict(Result):
    """The decision and why, in words that a product manager reads first."""

    decision: Decision
    sentence: str
    reasons: tuple[str, ...]


class Quality(Result):
    """One offline metric of one arm on the held-out day."""

    arm: Literal["treatment", "baseline"]
    task: str
    group: Segment
    metric: Literal["auc", "gauc", "logloss", "mse"]
    value: float | None
    rows: int
    positives: int | None = None
    reason: str | None = None


class Arm(Result):
    """One arm's model."""

    role: Literal["treatment", "baseline"]
    model: str
    kind: str
    parameters: int
    bundle: str
    first_day: str
    last_day: str
    rows: int
    warnings: tuple[str, ...] = ()


class DayData(Result):
    """What the day's data looked like."""

    day: str
    rows: int
    refused: dict[str, int]
    expectations: int
    failed_expectations: int


class Lineage(Result):
    """What made this result and how to make it again.

    ``inputs`` are content hashes of the partitions that went in, by ``dataset/day``. ``config`` is every setting that
    can change a result, as the pipeline's file and the run's parameters gave it.
    """

    pipeline: str
    source: str
    config_hash: str
    code_version: str
    inputs: dict[str, str]
    reproduce: str
    config: dict[str, JsonValue] = Field(default_factory=dict)


class Experiment(Result):
    """One simulated A/B test of two model bundles on the sessions of one held-out day.

    The ``experiment`` partition holds the record as it was analysed, hashed. The report holds a copy beside its page,
    to which it adds what varies or comes later: ``series``, ``diagnostics``, ``checks`` and ``run``; every number of
    the page is in that copy.
    """

    schema_version: int = SCHEMA_VERSION
    day: str
    holdout_day: str
    return_day: str
    design: Literal["paired", "split"] = "paired"
    confidence: float
    multiplicity: Literal["holm", "benjamini-hochberg"] = "holm"
    users: int
    sessions: int
    rollouts: int
    verdict: Verdict
    caveats: tuple[str, ...] = ()
    trust: tuple[Rung, ...]
    sample_ratio: str
    metrics: tuple[MetricResult, ...]
    interactions: tuple[Interaction, ...] = ()
    series: tuple[Series, ...] = ()
    replay: OffPolicy | None = None
    agreement: Agreement | None = None
    calibration: tuple[Calibration, ...] = ()
    session_depth: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="Sessions by number of impressions shown (index 0 = one), per arm and 'log'"
    )
    app_time: Distribution | None = None
    certificate: Certificate | None = None
    quality: tuple[Quality, ...] = ()
    diagnostics: Diagnostics | None = None
    checks: DayChecks | None = None
    arms: tuple[Arm, ...]
    data: tuple[DayData, ...] = ()
    lineage: Lineage
    run: Run | None = None
