"""How the report writes numbers: one place for units, digits, signs and for what could not be estimated."""

import math

from simulator.experiment import Estimate
from simulator.result import Unit

MINUS = "\N{MINUS SIGN}"
# A number never parts from its unit at a line's end.
SPACE = "\N{NO-BREAK SPACE}"

_SUFFIX: dict[Unit, str] = {"s": "s", "share": "%", "pp": "pp", "percent": "%", "count": ""}


def number(value: float | None, unit: Unit, *, signed: bool = False, largest: float | None = None) -> str:
    """One number with its unit.

    Args:
        value: In the record's unit: a share is a fraction and shown as a percentage.
        unit: The record's unit.
        signed: Whether a plus sign is written; a minus sign always is.
        largest: The largest magnitude among the numbers beside this one, in the same unit; all of them get the
            digits that it needs. By default the value's own.

    Returns:
        Such as ``312.4 s``, ``+1.25 pp``, ``41.3 %``; ``not estimable`` with a reason when there is no finite number.
    """
    if value is None or not math.isfinite(value):
        return not_estimable(None if value is None else "the value is not a finite number")
    factor = 100.0 if unit == "share" else 1.0
    digits = _digits(factor * abs(value if largest is None else largest), unit)
    return _joined(_text(factor * value, digits, signed=signed), _SUFFIX[unit])


def value(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate's value with its unit, or why there is none.

    Args:
        estimate: From the record.
        signed: Whether a plus sign is written.

    Returns:
        The number, with the digits that its interval has, or ``not estimable: <reason>``.
    """
    if estimate.value is None:
        return not_estimable(estimate.reason)
    return number(estimate.value, estimate.unit, signed=signed, largest=_largest(estimate))


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """An estimate's interval.

    Args:
        estimate: From the record.
        signed: Whether plus signs are written.

    Returns:
        ``1.2 to 3.4 s``; ``at least …`` or ``at most …`` when one-sided; empty without an interval.
    """
    largest = _largest(estimate)
    low, high = (
        None if bound is None else number(bound, estimate.unit, signed=signed, largest=largest)
        for bound in (estimate.low, estimate.high)
    )
    if low is not None and high is not None:
        suffix = _SUFFIX[estimate.unit]
        # The unit once, after the second bound.
        return f"{low.removesuffix(suffix).rstrip(SPACE) if suffix else low} to {high}"
    if low is not None:
        return f"at least {low}"
    return "" if high is None else f"at most {high}"


def p_value(p: float | None, reason: str | None = None) -> str:
    """A p-value, or why there is none.

    Args:
        p: In [0, 1].
        reason: Why there is none.

    Returns:
        Three decimals, ``< 0.001`` or ``> 0.999``.
    """
    if p is None or not math.isfinite(p):
        return not_estimable(reason)
    if p < 0.001:
        return f"<{SPACE}0.001"
    return f">{SPACE}0.999" if p > 0.999 else f"{p:.3f}"


def quality(value: float | None, reason: str | None = None, *, signed: bool = False) -> str:
    """An offline model metric, with four decimals, or why there is none."""
    if value is None or not math.isfinite(value):
        return not_estimable(reason)
    return _text(value, 4 if abs(value) < 100 else 1, signed=signed)


def whole(value: int) -> str:
    """A count of things, with thousands separated by commas."""
    return _text(value, 0, signed=False)


def percentage(share: float) -> str:
    """A share as a percentage without needless digits: 0.95 is ``95 %``."""
    return _joined(f"{100 * share:.6g}", "%")


def duration(seconds: float) -> str:
    """Seconds as people say them: ``15 s``, ``2 min``, ``1.5 h``; three digits at most."""
    for unit, size in (("h", 3_600.0), ("min", 60.0)):
        if seconds >= size:
            return _joined(f"{seconds / size:.3g}", unit)
    return _joined(f"{seconds:.3g}", "s")


def not_estimable(reason: str | None) -> str:
    """The words that stand where a number can not."""
    return f"not estimable: {reason or 'the record gives no reason'}"


def _largest(estimate: Estimate) -> float | None:
    known = [abs(x) for x in (estimate.value, estimate.low, estimate.high) if x is not None and math.isfinite(x)]
    return max(known, default=None)


def _digits(magnitude: float, unit: Unit) -> int:
    """Enough decimals to tell two arms apart, no more than a daily experiment can tell."""
    if magnitude >= 1000 or (unit == "count" and magnitude >= 100):
        return 0
    if magnitude == 0 or (unit != "pp" and magnitude >= (1 if unit in ("share", "percent") else 10)):
        return 1
    # A rare interaction's rate keeps two digits however rare it is; beyond six decimals nothing is readable.
    return 2 if magnitude >= 0.1 else min(1 - math.floor(math.log10(magnitude)), 6)


def _text(value: float, digits: int, *, signed: bool) -> str:
    text = f"{abs(value):,.{digits}f}"
    # What rounds to zero has no sign.
    if not any(digit in text for digit in "123456789"):
        return text
    if value < 0:
        return MINUS + text
    return f"+{text}" if signed else text


def _joined(text: str, suffix: str) -> str:
    return f"{text}{SPACE}{suffix}" if suffix else text
