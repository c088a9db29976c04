"""Which days the list shows, in which order: filters, sorting and pages over the rows of a catalogue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from deploy.airflow_ui.catalogue import NO_REPORT, UNREADABLE, Row

PAGE_ROWS = 50
# What an address may say beyond which a value is nobody's search.
LONGEST_QUERY = 200


def _known(value: float | None) -> tuple[bool, float]:
    return (value is not None, value if value is not None else 0.0)


SORTS: dict[str, Callable[[Row], Any]] = {
    "day": lambda row: (row.day, row.pipeline, row.written),
    "pipeline": lambda row: (row.pipeline, row.day),
    "verdict": lambda row: (row.decision, row.day),
    "lift": lambda row: _known(row.lift.value if row.lift else None),
    "return": lambda row: _known(row.back.value if row.back else None),
    "users": lambda row: row.users,
}
VERDICTS = ("ship", "hold", "not enough evidence", NO_REPORT, UNREADABLE)


@dataclass(frozen=True)
class Query:
    """What the address asks for; whatever it does not understand falls back to the default.

    Attributes:
        text: Words that must all occur in the day, pipeline, verdict, sentence or models.
        dag: One DAG, empty for all.
        verdict: One decision, empty for all.
        sort: A key of ``SORTS``.
        descending: Whether the largest comes first.
        page: From 1.
    """

    text: str = ""
    dag: str = ""
    verdict: str = ""
    sort: str = "day"
    descending: bool = True
    page: int = 1

    @classmethod
    def parse(cls, given: dict[str, str]) -> Self:
        """Read an address's parameters.

        Args:
            given: ``q``, ``dag``, ``verdict``, ``sort``, ``order``, ``page``; others are ignored.

        Returns:
            The query.
        """
        sort = given.get("sort", "day")
        page = given.get("page", "")
        return cls(
            text=given.get("q", "").strip()[:LONGEST_QUERY],
            dag=given.get("dag", ""),
            verdict=given.get("verdict", "") if given.get("verdict") in VERDICTS else "",
            sort=sort if sort in SORTS else "day",
            descending=given.get("order", "desc") != "asc",
            # More digits than a page number can have are not converted at all.
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )

    def address(self, **changes: Any) -> str:
        """The query string of this query with some parts changed, back on the first page unless a page is given."""
        other = replace(self, **{"page": 1} | changes)
        parts = {
            "q": other.text,
            "dag": other.dag,
            "verdict": other.verdict,
            "sort": "" if other.sort == "day" else other.sort,
            "order": "" if other.descending else "asc",
            "page": "" if other.page == 1 else str(other.page),
        }
        text = urlencode({name: value for name, value in parts.items() if value})
        return f"?{text}" if text else "?"

    def toggled(self, sort: str) -> str:
        """The query string of a click on a column's heading: sort by it, or the other way round."""
        return self.address(sort=sort, descending=not self.descending if sort == self.sort else True)

    def aria_sort(self, sort: str) -> str:
        """What a heading says to a screen reader."""
        if sort != self.sort:
            return "none"
        return "descending" if self.descending else "ascending"


@dataclass(frozen=True)
class Listing:
    """One page of the list."""

    rows: tuple[Row, ...]
    found: int
    page: int
    pages: int


def select(rows: Sequence[Row], query: Query) -> Listing:
    """Filter, sort and cut.

    Args:
        rows: All that the user may see.
        query: What was asked for.

    Returns:
        The page; a page beyond the last one is the last one. Rows without the number that they are sorted by come last,
        whichever the direction.
    """
    words = query.text.casefold().split()
    found = [
        row
        for row in rows
        if (not query.dag or row.dag_id == query.dag)
        and (not query.verdict or row.decision == query.verdict)
        and all(word in row.searchable for word in words)
    ]
    key = SORTS[query.sort]
    found.sort(key=SORTS["day"], reverse=True)
    if query.sort in ("lift", "return"):
        without = [row for row in found if not key(row)[0]]
        found = sorted((row for row in found if key(row)[0]), key=key, reverse=query.descending) + without
    else:
        found.sort(key=key, reverse=query.descending)
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(query.page, pages)
    return Listing(tuple(found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]), len(found), page, pages)
