"""The trust ladder, the backtest and the sensitivity, arranged for reading."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from simulator.experiment import Calibration, Estimate, Rung
from simulator.report import numbers
from simulator.report.segments import NAMES, Some, place, some
from simulator.result import Segment
from simulator.surroundings import BacktestCell, Certificate, VariedLift

_RUNGS = {
    "V1": "A/A: does it find lifts where there are none?",
    "V2": "Backtest: simulating the logging policy, do the logged numbers come back?",
    "V3": "Known truth: does the interval cover a lift that is known?",
    "V4": "Agreement: do replay and rollouts agree where both can speak?",
    "V5": "Reference: do the estimators equal a public library's?",
    "V6": "Sensitivity: does the verdict survive other assumptions?",
}
_FEEDS_SHOWN, _OPEN = 6, 16
_State = Literal["passed", "failed", "not powered", "missing"]
_STATES: tuple[_State, ...] = ("passed", "failed", "not powered", "missing")


@dataclass(frozen=True)
class BacktestRow:
    """One number of one feed; ``error`` is simulated against logged."""

    title: str
    segment: Segment
    users: str
    logged: Estimate
    simulated: str
    error: str
    state: str


@dataclass(frozen=True)
class BacktestTable:
    """One feed's numbers, and how many passed, failed, or could not tell."""

    feed: str
    tally: str
    rows: Some[BacktestRow]


@dataclass(frozen=True)
class SensitivityRow:
    """One variation: per segment app time and return, formatted."""

    variation: str
    cells: tuple[tuple[Estimate, str], ...]
    decision: str
    changed: bool


@dataclass(frozen=True)
class SensitivityTable:
    """One comparison of two models under every variation; the first row is the one that nothing was varied in."""

    title: str
    segments: tuple[Segment, ...]
    rows: Some[SensitivityRow]


@dataclass(frozen=True)
class CalibrationRow:
    """One metric in one segment, logged and simulated, formatted."""

    title: str
    segment: Segment
    cells: tuple[str, str, str, str]


def ladder(rungs: Iterable[Rung]) -> tuple[Rung, ...]:
    """All six rungs: one that the record does not have is missing, and the page says so.

    Args:
        rungs: Of the record.

    Returns:
        In order.
    """
    given = tuple(rungs)
    known = {rung.name.split(" ")[0].rstrip(":") for rung in given}
    absent = (
        Rung(name=name, question=question, state="missing", detail="The record says nothing about this rung.")
        for name, question in _RUNGS.items()
        if name not in known
    )
    return tuple(sorted((*given, *absent), key=lambda rung: rung.name))


def ladder_sentence(rungs: Iterable[Rung]) -> str:
    """The ladder in one sentence, for those who have ten seconds."""
    found = tuple(rungs)
    count = Counter(rung.state for rung in found)
    if count["passed"] == len(found):
        return "Every check of the simulation passed."
    parts = [f"{numbers.whole(count[state])} {state}" for state in _STATES if count[state]]
    advice = "treat the numbers as a hint" if count["failed"] else "the passed ones are what the numbers rest on"
    return f"Of {numbers.whole(len(found))} checks of the simulation {', '.join(parts)}: {advice}."


def calibration_rows(found: Iterable[Calibration], titles: dict[str, str]) -> tuple[CalibrationRow, ...]:
    """The log beside both simulated arms.

    Args:
        found: Of the record.
        titles: Metrics' names to titles.

    Returns:
        One row per metric and segment.
    """
    rows = []
    for one in found:
        values = (one.logged, one.baseline, one.treatment)
        cells = [numbers.not_estimable(one.reason) if x is None else numbers.number(x, one.unit) for x in values]
        error = _error(one.logged, one.baseline)
        rows.append(CalibrationRow(titles.get(one.metric, one.metric), one.segment, (*cells[:3], error)))  # type: ignore[arg-type]
    return tuple(sorted(rows, key=lambda row: place(row.segment) > len(NAMES)))


def backtest_tables(record: Certificate | None) -> tuple[BacktestTable, ...]:
    """What simulating the logging policy gave, per feed.

    Args:
        record: Of the experiment.

    Returns:
        One table per feed that was tested.
    """
    feeds: dict[str, list[BacktestCell]] = {}
    for cell in record.backtest if record else ():
        feeds.setdefault(cell.feed, []).append(cell)
    tables = []
    for feed, cells in list(feeds.items())[:_FEEDS_SHOWN]:
        count = Counter(cell.state for cell in cells)
        tally = ", ".join(f"{numbers.whole(count[state])} {state}" for state in _STATES)
        # What the feed does not log can not come back: it stands last.
        rows = [_backtest_row(cell) for cell in sorted(cells, key=lambda cell: cell.state == "missing")]
        tables.append(BacktestTable(feed, tally, some(rows, _OPEN)))
    return tuple(tables)


def sensitivity_tables(record: Certificate | None) -> tuple[SensitivityTable, ...]:
    """Lifts and decision of every comparison under every variation.

    Args:
        record: Of the experiment.

    Returns:
        One table per comparison.
    """
    pairs: dict[tuple[str, str], list[SensitivityRow]] = {}
    segments: dict[tuple[str, str], tuple[Segment, ...]] = {}
    first: dict[tuple[str, str], str] = {}
    for one in record.sensitivity if record else ():
        key = (one.treatment, one.baseline)
        first.setdefault(key, one.decision)
        segments.setdefault(key, tuple(lift.segment for lift in one.lifts))
        by_segment = {lift.segment: lift for lift in one.lifts}
        cells = tuple(_varied(by_segment.get(segment)) for segment in segments[key])
        row = SensitivityRow(one.variation, cells, one.decision, one.decision != first[key])
        pairs.setdefault(key, []).append(row)
    return tuple(
        SensitivityTable(f"{treatment} against {baseline}", segments[treatment, baseline], some(rows, 20))
        for (treatment, baseline), rows in list(pairs.items())[:_FEEDS_SHOWN]
    )


def _backtest_row(cell: BacktestCell) -> BacktestRow:
    why = "the feed does not log it" if cell.logged is None else None
    logged = Estimate(value=cell.logged, low=cell.low, high=cell.high, unit=cell.unit, reason=why)
    return BacktestRow(
        title=cell.title,
        segment=cell.segment,
        users=numbers.whole(cell.users),
        logged=logged,
        simulated=numbers.not_estimable("it was not simulated")
        if cell.simulated is None
        else numbers.number(cell.simulated, cell.unit),
        error=_error(cell.logged, cell.simulated),
        state=cell.state,
    )


def _error(logged: float | None, simulated: float | None) -> str:
    if logged is None or simulated is None or logged == 0:
        return numbers.not_estimable("it needs a logged number other than zero and a simulated one")
    return numbers.number(100 * (simulated / logged - 1), "percent", signed=True)


def _varied(lift: VariedLift | None) -> tuple[Estimate, str]:
    if lift is None:
        return Estimate(value=None, unit="percent", reason="not varied in this segment"), "none"
    why = "no lift was estimated" if lift.app_time is None else None
    app = Estimate(value=lift.app_time, low=lift.low, high=lift.high, unit="percent", reason=why)
    return app, "none" if lift.returning is None else numbers.number(lift.returning, "pp", signed=True)
