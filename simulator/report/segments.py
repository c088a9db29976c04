"""What the page calls segments, their order, and how many of a thousand it shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from simulator.result import Segment

T = TypeVar("T")

# Rows of one metric that stand open, and those that are one click away. A record with more of them is read in its
# export: a page of thousands of rows is read by nobody, and a phone can not open it.
OPEN, FOLDED = 8, 120


class _Names(dict[Segment, str]):
    """Names of the pipeline's own segments; another one is called what it is called."""

    def __missing__(self, segment: Segment) -> str:
        return segment


NAMES = _Names({"all": "All users", "new": "New users", "low": "Low activity", "high": "High activity"})
# For figures, which have less room than tables, and for the middle of a sentence.
SHORT = _Names({"all": "all", "new": "new", "low": "low", "high": "high"})
WORDS = _Names({"all": "all users", "new": "new users", "low": "low activity", "high": "high activity"})


def place(segment: Segment) -> int:
    """Where a segment stands: the pipeline's own first, in their order, all others after them as they come."""
    return list(NAMES).index(segment) if segment in NAMES else len(NAMES)


@dataclass(frozen=True)
class Some(Generic[T]):
    """Of many things those that stand open, those that are folded away, and how many are not on the page at all."""

    first: tuple[T, ...]
    folded: tuple[T, ...] = ()
    left_out: int = 0


def some(things: Sequence[T], first: int = OPEN, folded: int = FOLDED) -> Some[T]:
    """Divide what a page shows of many things.

    Args:
        things: All of them, the most important first.
        first: How many stand open.
        folded: How many more are one click away.

    Returns:
        All things in order, and the number of those that are left out.
    """
    return Some(tuple(things[:first]), tuple(things[first : first + folded]), max(len(things) - first - folded, 0))
