"""One expectation on one number of a day, and how it reads to a person."""

import math
from dataclasses import dataclass
from typing import Literal

# refuse: rows went to quarantine, the day goes on; fail: nothing downstream starts; warn: said, and nothing else.
Level = Literal["refuse", "fail", "warn"]


@dataclass(frozen=True)
class Outcome:
    """An expectation, what was observed, and whether it holds.

    Attributes:
        table: Which table of the day: log, users, videos, user_features, …
        expectation: Name, unique within its table; stable from day to day, so that a person can let it pass by name.
        column: The column that it is about, empty for the whole table.
        observed: The number, None where it could not be computed.
        low: Smallest allowed value, None for none.
        high: Largest allowed value, None for none.
        level: What a broken expectation means.
        success: Whether it holds. A number that could not be computed holds nothing.
        rule: How the limits came about.
        detail: What else a person wants to know, already harmless as text.
        passed_by: Who let the broken expectation pass, empty for nobody.
    """

    table: str
    expectation: str
    column: str
    observed: float | None
    low: float | None
    high: float | None
    level: Level
    success: bool
    rule: str
    detail: str = ""
    passed_by: str = ""

    @property
    def limits(self) -> str:
        """The limits as text."""
        if self.low is None and self.high is None:
            return "a value"
        if self.low is None:
            return f"at most {shown(self.high)}"
        if self.high is None:
            return f"at least {shown(self.low)}"
        return f"{shown(self.low)} to {shown(self.high)}"

    @property
    def stops(self) -> bool:
        """Whether this outcome alone stops the day."""
        return self.level == "fail" and not self.success and not self.passed_by

    def sentence(self) -> str:
        """The outcome as a person on call reads it."""
        where = f"{self.table}.{self.column}" if self.column else self.table
        tail = f"; {self.detail}" if self.detail else ""
        passed = f"; passed by {self.passed_by}" if self.passed_by else ""
        observed = shown(self.observed)
        return f"{where}: {self.expectation} expects {self.limits} ({self.rule}), observed {observed}{tail}{passed}"


def shown(value: float | None) -> str:
    """A number in a message: six significant digits; None is said."""
    return "nothing" if value is None else f"{value:.6g}"


def within(
    table: str,
    expectation: str,
    observed: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    column: str = "",
    level: Level = "fail",
    rule: str,
    detail: str = "",
) -> Outcome:
    """Hold a number to limits, both included.

    Args:
        table: Which table.
        expectation: Name of the expectation.
        observed: The number; None or NaN fails.
        low: Smallest allowed value, None for none.
        high: Largest allowed value, None for none.
        column: The column that it is about.
        level: What a broken expectation means.
        rule: How the limits came about.
        detail: What else to say.

    Returns:
        The outcome.
    """
    # Infinite and undefined numbers are no observations either.
    value = float(observed) if observed is not None and math.isfinite(observed) else None
    inside = value is not None and (low is None or value >= low) and (high is None or value <= high)
    return Outcome(table, expectation, column, value, low, high, level, inside, rule, harmless(detail))


def harmless(text: str, limit: int = 300) -> str:
    r"""A text of unknown origin that no page, sheet or terminal takes for anything but text.

    Args:
        text: Anything: markup, formulas, control characters, right-to-left marks, a megabyte.
        limit: Characters to keep.

    Returns:
        Printable characters in their visible order; what else there was stands as ``\u`` escapes, ``<``, ``>``, ``&``,
        quotes, ``$`` and backticks too, and a first ``=``, ``+``, ``-`` or ``@`` follows an apostrophe.
    """
    cut = text[:limit]
    plain = "".join(one if one.isprintable() and one not in "<>&\"'`$" else f"\\u{ord(one):04x}" for one in cut)
    # Right-to-left letters are printable and turn what stands beside them, so that a message reads as another one.
    plain = "".join(one if ord(one) < 0x590 or not _turns(one) else f"\\u{ord(one):04x}" for one in plain)
    if plain[:1] in ("=", "+", "-", "@"):
        plain = f"'{plain}"
    return plain + (f"… ({len(text)} characters)" if len(text) > limit else "")


def _turns(letter: str) -> bool:
    from unicodedata import bidirectional

    return bidirectional(letter) in {"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "FSI", "PDF", "PDI"}
