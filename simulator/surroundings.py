"""What surrounds an experiment in its record: distributions, what a certificate found, the day's gates, the run."""

from typing import Literal

from pydantic import Field

from simulator.result import Result, Segment, Unit


class Quantiles(Result):
    """Of users' values, in the distribution's unit."""

    low: float = Field(description="10 % quantile")
    middle: float = Field(description="Median")
    high: float = Field(description="90 % quantile")


class Distribution(Result):
    """How users are spread over values of one metric, in each arm and in the log.

    ``edges`` are the lower ends of the bins; a bin holds values from its own edge to below the next one's, the last is
    open. ``users`` counts users per bin; an arm's value of a user is the mean of the user's rollouts, so that arms are
    spread less than the log, where a user has one day.
    """

    unit: Unit
    edges: tuple[float, ...]
    users: dict[str, tuple[int, ...]] = Field(description="Counts per bin, per arm and 'log'")
    quantiles: dict[str, Quantiles] = Field(default_factory=dict)


class BacktestCell(Result):
    """One logged number of days that the response model never saw, and what simulating the logging policy gives.

    ``low`` and ``high`` are the logged number's own 95 % interval. Missing: the feed does not log it.
    """

    feed: str
    metric: str
    title: str
    unit: Unit
    segment: Segment
    users: int
    logged: float | None
    low: float | None
    high: float | None
    simulated: float | None
    state: Literal["passed", "failed", "not powered", "missing"]


class VariedLift(Result):
    """A comparison's lifts in one segment: app time in percent with its interval, return in percentage points."""

    segment: Segment
    app_time: float | None
    low: float | None
    high: float | None
    returning: float | None


class Variation(Result):
    """One assumption varied: a comparison's lifts under it, and the decision that would follow."""

    variation: str
    treatment: str
    baseline: str
    lifts: tuple[VariedLift, ...]
    decision: str


class Certificate(Result):
    """What the certificate of this very simulator says in figures; ``reason`` says why there is none."""

    simulator: str = Field(description="Hash of the code and settings that simulated this experiment")
    machine: str = ""
    backtest: tuple[BacktestCell, ...] = ()
    sensitivity: tuple[Variation, ...] = ()
    reason: str | None = None


class Gate(Result):
    """One gate of the day's data: what was checked, whether it held, and who let it pass where it did not."""

    name: str
    title: str
    state: Literal["passed", "warned", "failed", "overridden", "missing"]
    detail: str
    checks: int | None = None
    failed: int | None = None
    warnings: tuple[str, ...] = ()
    override: str | None = Field(None, description="Who let a failed day pass, and why")


class Drift(Result):
    """How far one feature of the day lies from the days before it."""

    feature: str
    group: str = ""
    measure: str = Field("PSI", description="What ``value`` is")
    value: float | None
    limit: float | None = None
    state: Literal["passed", "warned", "failed", "missing"] = "passed"
    reason: str | None = None


class Skew(Result):
    """How many online feature values differ from the offline join's, of those that were compared."""

    entity: str
    compared: int
    mismatched: int
    share: float | None
    limit: float | None = None
    state: Literal["passed", "warned", "failed", "missing"] = "passed"
    detail: str = ""


class Document(Result):
    """A page that lies beside this one in the lake; ``href`` is relative to the report's folder."""

    title: str
    # Nothing but a page of another dataset of the same configuration: no address, no script.
    href: str = Field(pattern=r"^\.\./\.\./[a-z_]+/ds=\d{4}-\d{2}-\d{2}/[a-z_]+\.html$")


class DayChecks(Result):
    """Data and features of the day; what a day does not have is named in ``absent``, with the reason."""

    gates: tuple[Gate, ...] = ()
    drift: tuple[Drift, ...] = ()
    skew: tuple[Skew, ...] = ()
    documents: tuple[Document, ...] = ()
    absent: dict[str, str] = Field(default_factory=dict)


class Run(Result):
    """Which run wrote the report: it differs between equal runs, so it stands in the report's copy alone."""

    run_id: str
    attempt: int | None = None
    written_at: str = Field(description="UTC")
