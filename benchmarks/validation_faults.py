"""What validation catches: every fault of the catalogue planted into days of worlds and of real logs, and clean days.

The record has one row per planted fault and one per clean day. It is saved after every part, since all parts take a
while: a record says in ``config.parts`` what it is of. Seeds are those of ``validation_days.REPORT_SEEDS``, which no
limit was tuned on.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from scipy.stats import beta

from benchmarks.claims import Claim, Record, record
from benchmarks.validation_days import REPORT_SEEDS, CleanDays, Judged, Notify, Size, judged, kuairand, stage, world
from benchmarks.validation_trials import Trial, enough, trials
from components.chaos import BY_NAME, FAULTS
from components.errors import ConfigError

Rates = Literal["grid", "stated", "none"]

PLANT_SEED = 7
CONFIDENCE = 0.95
FALSE_ALARMS = 0.01


@dataclass(frozen=True)
class Part:
    """Some clean days, and which rates are planted into the last of them.

    Attributes:
        name: What ``--parts`` calls it.
        size: Of the world; None for KuaiRand.
        seed: Of the world.
        days: Of the world.
        rates: All rates of the table, the stated ones, or none.
        features: Whether feature snapshots are judged and broken too.
    """

    name: str
    size: Size | None
    seed: int
    days: int
    rates: Rates
    features: bool = False

    def clean(self, folder: str | None) -> CleanDays | None:
        """The days; None where there is no KuaiRand."""
        if self.size is not None:
            return world(self.size, self.seed, self.days, self.features)
        # The slice of 25 April to 4 May holds an hour of the day before.
        return None if folder is None else kuairand(folder, skip=1, with_features=self.features)


PARTS = (
    Part("shipped", "shipped", REPORT_SEEDS[0], 35, "grid"),
    Part("small", "small", REPORT_SEEDS[1], 60, "stated", features=True),
    Part("small_2", "small", REPORT_SEEDS[2], 60, "none"),
    Part("middle", "middle", REPORT_SEEDS[3], 45, "stated"),
    Part("kuairand", None, 0, 0, "stated"),
)


def run(
    names: Sequence[str] | None = None,
    folder: str | None = None,
    *,
    save: Callable[[Record], None] = lambda record: None,
    notify: Notify = lambda done, total, what: None,
    parts: Sequence[Part] = PARTS,
) -> Record:
    """Judge the parts' days, and plant the catalogue into the last one of each.

    Args:
        names: Which parts; None is all.
        folder: A KuaiRand edition, None for none.
        save: Called with the record after every part.
        notify: Called with (done, total, what).
        parts: All parts.

    Returns:
        Claims, and a row per trial and clean day.

    Raises:
        ConfigError: When there is no such part.
    """
    if unknown := sorted(set(names or ()) - {part.name for part in parts}):
        raise ConfigError(f"no part {', '.join(unknown)}; the parts are {', '.join(part.name for part in parts)}")
    rows: list[dict[str, Any]] = []
    done: list[str] = []
    result = _record(rows, done)
    for part in parts:
        if (names is not None and part.name not in names) or (clean := part.clean(folder)) is None:
            continue
        rows += _part(part, clean, notify)
        done.append(part.name)
        result = _record(rows, done)
        save(result)
    return result


def _part(part: Part, clean: CleanDays, notify: Notify) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    last: list[Judged] = []
    for one in judged(clean, notify):
        rows.append(_day_row(clean, one))
        last = [*last[-1:], one]
    if part.rates == "none":
        return rows
    here = stage(clean, last)
    for number, fault in enumerate(FAULTS):
        notify(number, len(FAULTS), f"{clean.name}: {fault.name}")
        found = trials(here, [fault], PLANT_SEED, stated_only=part.rates == "stated")
        rows += [{"kind": "trial", **asdict(one), "by": list(one.by[:8])} for one in found]
    return rows


def _day_row(clean: CleanDays, one: Judged) -> dict[str, Any]:
    verdicts = [one.log] if one.features is None else [one.log, one.features]
    return {
        "kind": "day",
        "where": clean.name,
        "size": clean.size,
        "day": one.day.isoformat(),
        "weekend": one.day.weekday() >= 5,
        "features": one.features is not None,
        "failed": [outcome.sentence() for verdict in verdicts for outcome in verdict.failed],
        "warned": [outcome.sentence() for verdict in verdicts for outcome in verdict.warned],
    }


def trial_of(row: dict[str, Any]) -> Trial:
    """A trial from its row in a record.

    Args:
        row: Of kind ``trial``.

    Returns:
        The trial.
    """
    plain = {name: value for name, value in row.items() if name != "kind"}
    return replace(Trial(**plain), by=tuple(plain["by"]))


def _record(rows: list[dict[str, Any]], parts: list[str]) -> Record:
    config = {
        "parts": parts,
        "faults": len(FAULTS),
        "plant_seed": PLANT_SEED,
        "report_seeds": list(REPORT_SEEDS),
        "alarm": "a clean day that a gate stops",
    }
    return record(config, claims_of(rows), rows)


def claims_of(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Headline figures of a record's rows.

    Args:
        rows: Trials and clean days.

    Returns:
        Faults caught per severity and size, false alarms with their intervals.
    """
    found = [trial_of(row) for row in rows if row["kind"] == "trial"]
    claims: list[Claim] = []
    for size in dict.fromkeys(one.size for one in found):
        here = [one for one in found if one.size == size]
        for severity, what in (("critical", "kept out"), ("warning", "told"), ("harmless", "let through")):
            claims += _caught([one for one in here if BY_NAME[one.fault].severity == severity], severity, what, size)
        stopped = [one for one in here if _due(one) and one.answer != "nothing"]
        if stopped:
            meant = sum(one.intended for one in stopped) / len(stopped)
            claims.append(Claim(f"caught by a check that was meant to, {size}", meant, "share"))
    days = [row for row in rows if row["kind"] == "day"]
    for world_days, what in ((True, "clean days of the world"), (False, "KuaiRand days")):
        chosen = [row for row in days if (row["size"] != "KuaiRand") == world_days]
        if chosen:
            claims += [
                _alarms(chosen, "failed", f"{what} that a gate stopped", FALSE_ALARMS),
                _alarms(chosen, "warned", f"{what} with a warning", None),
            ]
    return claims


def _due(one: Trial) -> bool:
    """Whether the fault must be caught at this rate."""
    return one.rate >= BY_NAME[one.fault].stated


def _caught(found: Sequence[Trial], severity: str, what: str, size: str) -> list[Claim]:
    due = [one for one in found if _due(one)]
    if not due:
        return []
    missed = sorted({one.fault for one in due if not enough(BY_NAME[one.fault], one.answer)})
    names = len({one.fault for one in due})
    return [
        Claim(
            f"{severity} faults {what} from the stated rate on, {size}",
            (names - len(missed)) / names,
            "share of faults",
            target="1",
            holds=not missed,
            how=f"{severity}, {size}: {names} faults, {len(due)} trials; "
            + (f"missed: {', '.join(missed)}" if missed else "none missed"),
        )
    ]


def _alarms(days: Sequence[dict[str, Any]], kind: str, name: str, target: float | None) -> Claim:
    """A share of days with its Clopper-Pearson interval."""
    count, total = sum(bool(row[kind]) for row in days), len(days)
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return Claim(
        name,
        count / total,
        "share of days",
        low,
        high,
        target="" if target is None else f"at most {target:g}",
        holds=None if target is None else count / total <= target,
        how=f"{name}: {count} of {total} days, 95 % interval of Clopper and Pearson",
    )
