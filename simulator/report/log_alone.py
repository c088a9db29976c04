"""What the log alone says of both arms, and whether it agrees with the rollouts, arranged for reading."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulator.agreement import Agreement, AgreementCell
from simulator.experiment import Estimate
from simulator.inference import Effect
from simulator.offpolicy.record import Cell, OffPolicy, Part
from simulator.report import numbers
from simulator.report.segments import WORDS
from simulator.result import Segment, Unit

PARTS: dict[Part, str] = {
    "logged": "All logged slots",
    "uniform": "Slots that were filled uniformly",
    "random_sets": "Random exposures, equally likely",
    "measured_rates": "Random exposures, as likely as they were frequent",
    "sessions": "Sums over a session's first slots",
}
REWARDS = {
    "watch_s": "Seconds watched",
    "skip": "Skips",
    "click": "Clicks",
    "long_view": "Long views",
    "like": "Likes",
}
ESTIMATORS = {
    "ips": "IPS",
    "snips": "SNIPS",
    "dm": "Direct method",
    "dr": "Doubly robust",
    "sndr": "Self-normalised DR",
    "switch_dr": "Switch-DR",
    "dros": "DRos",
    "session_is": "Whole-session IS",
    "pdis": "Per-decision IS",
    "cascade_dr": "Cascade-DR",
}
# What stands open on the page; everything else is one click away.
_OPEN = ("watch_s", "skip", "click")
_FIRST: tuple[Segment, ...] = ("all", "new")


@dataclass(frozen=True)
class ReplayRow:
    """One estimator, or several that were refused for one reason; then ``reason`` stands for all numbers."""

    name: str
    treatment: Estimate | None = None
    baseline: Estimate | None = None
    difference: Estimate | None = None
    note: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ReplayGroup:
    """One reward of one part in one segment."""

    title: str
    rows: tuple[ReplayRow, ...]


@dataclass(frozen=True)
class ReplayTable:
    """Groups of one part: those that stand open, and the others."""

    part: Part
    title: str
    first: tuple[ReplayGroup, ...]
    others: tuple[ReplayGroup, ...]


@dataclass(frozen=True)
class WeightRow:
    """The weights of one arm, formatted."""

    part: str
    segment: Segment
    arm: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class HorizonRow:
    """How far the weights of both arms carry into sessions, formatted."""

    segment: Segment
    horizon: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ReplayView:
    """The replay section."""

    record: OffPolicy
    facts: tuple[tuple[str, str], ...]
    tables: tuple[ReplayTable, ...]
    weights: tuple[WeightRow, ...]
    horizons: tuple[HorizonRow, ...]


@dataclass(frozen=True)
class AgreementRow:
    """One reward in one segment, with estimates in the page's units."""

    cell: AgreementCell
    reward: str
    replay: Estimate
    rollouts: Estimate
    difference: Estimate


def replay_view(record: OffPolicy) -> ReplayView:
    """Arrange a day's off-policy estimates.

    Args:
        record: Of the day.

    Returns:
        The section.
    """
    return ReplayView(
        record=record,
        facts=(
            ("Rounds", numbers.whole(record.rounds)),
            ("Users", numbers.whole(record.users)),
            ("Share of the users", numbers.percentage(round(record.users_share, 3))),
        ),
        tables=tuple(_tables(record.cells)),
        weights=tuple(_weights(record)),
        horizons=tuple(_horizons(record)),
    )


def agreement_rows(record: Agreement) -> tuple[AgreementRow, ...]:
    """Arrange rung V4 of the day.

    Args:
        record: Of the day.

    Returns:
        One row per reward and segment.
    """
    return tuple(
        AgreementRow(
            cell=cell,
            reward=REWARDS.get(cell.reward, cell.reward),
            replay=_apart(cell.replay, cell.unit),
            rollouts=_apart(cell.rollouts, cell.unit),
            difference=_apart(cell.difference, cell.unit),
        )
        for cell in record.cells
    )


def _tables(cells: Sequence[Cell]) -> Iterable[ReplayTable]:
    for part, title in PARTS.items():
        groups: dict[tuple[str, Segment, int | None], list[Cell]] = {}
        for cell in cells:
            if cell.part == part:
                groups.setdefault((cell.reward, cell.segment, cell.horizon), []).append(cell)
        if not groups:
            continue
        first: list[ReplayGroup] = []
        others: list[ReplayGroup] = []
        # Sorting keeps the record's order of segments and horizons.
        for (reward, segment, horizon), members in sorted(groups.items(), key=lambda item: _place(item[0][0])):
            name = REWARDS.get(reward, reward)
            if part == "sessions":
                name = f"{name}, {_slots(horizon)}"
            stands_open = segment in _FIRST and reward in _OPEN and (part != "sessions" or reward == "watch_s")
            (first if stands_open else others).append(ReplayGroup(f"{name} · {WORDS[segment]}", tuple(_rows(members))))
        yield ReplayTable(part, title, tuple(first), tuple(others))


def _place(reward: str) -> int:
    return list(REWARDS).index(reward) if reward in REWARDS else len(REWARDS)


def _rows(cells: Sequence[Cell]) -> Iterable[ReplayRow]:
    refused: dict[str, list[str]] = {}
    for cell in cells:
        name = ESTIMATORS.get(cell.estimator, cell.estimator)
        effects = (cell.treatment, cell.baseline, cell.difference)
        if all(effect.value is None for effect in effects):
            refused.setdefault(cell.difference.reason or "the record gives no reason", []).append(name)
            continue
        yield ReplayRow(
            name=name,
            treatment=_level(cell.treatment, cell.unit),
            baseline=_level(cell.baseline, cell.unit),
            difference=_apart(cell.difference, cell.unit),
            # A value may stand without an interval, and then says why.
            note=cell.difference.reason if cell.difference.value is not None else None,
        )
    for reason, names in refused.items():
        yield ReplayRow(name=", ".join(names), reason=numbers.not_estimable(reason))


def _level(effect: Effect, unit: Unit) -> Estimate:
    return Estimate(value=effect.value, low=effect.low, high=effect.high, unit=unit, reason=effect.reason)


def _apart(effect: Effect, unit: Unit) -> Estimate:
    """A difference, of shares in percentage points."""
    factor = 100.0 if unit == "share" else 1.0
    value, low, high = (None if x is None else factor * x for x in (effect.value, effect.low, effect.high))
    shown: Unit = "pp" if unit == "share" else unit
    return Estimate(value=value, low=low, high=high, p_value=effect.p_value, unit=shown, reason=effect.reason)


def _weights(record: OffPolicy) -> Iterable[WeightRow]:
    for row in record.weights:
        w = row.weights
        numbers_of = (w.mean, w.quantile_99, w.largest)
        yield WeightRow(
            part=PARTS[row.part],
            segment=row.segment,
            arm=row.arm,
            cells=(
                numbers.whole(w.rounds),
                numbers.whole(w.users),
                numbers.whole(w.matched),
                _or_none(w.match_rate, "share"),
                _or_none(w.effective_rounds, "count"),
                _or_none(w.effective_users, "count"),
                *(_or_none(x, "count") for x in numbers_of),
                _or_none(w.top_share, "share"),
            ),
        )


def _horizons(record: OffPolicy) -> Iterable[HorizonRow]:
    by_arm = {(row.segment, row.horizon, row.arm): row for row in record.sessions}
    for segment, horizon in dict.fromkeys((row.segment, row.horizon) for row in record.sessions):
        cells = []
        for arm in ("treatment", "baseline"):
            row = by_arm.get((segment, horizon, arm))
            cells += [
                _or_none(None if row is None else row.effective_sessions, "count"),
                _or_none(None if row is None else row.mean_weight, "count"),
            ]
        sessions = next(row.sessions for row in record.sessions if (row.segment, row.horizon) == (segment, horizon))
        yield HorizonRow(segment, _slots(horizon), (numbers.whole(sessions), *cells))


def _or_none(value: float | None, unit: Unit) -> str:
    return "unknown" if value is None else numbers.number(value, unit)


def _slots(horizon: int | None) -> str:
    if horizon is None:
        return "all slots"
    return "first slot" if horizon == 1 else f"first {numbers.whole(horizon)} slots"
