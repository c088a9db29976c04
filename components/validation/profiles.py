"""Distributions of a day on fixed bins, and small samples of ids.

Bins are fixed by the kind of column, never by the data, so that any two days can be compared without their rows.
"""

from collections.abc import Mapping

import duckdb

from components.validation.outcome import harmless
from components.validation.scan import quoted_name
from components.validation.summary import Histogram

# Named categories that are kept; the others are one.
CATEGORIES = 64
OTHER = "(others)"
MISSING = "(null)"

# Smoothed rates of fewer impressions lie on a few points about the day's mean, which change bins when the mean moves.
RATE_EVIDENCE = 10

# Ids of the sample with the smallest hashes ("bottom k", Cohen and Kaplan 2007).
SAMPLE = 512

_PRIME = 2_305_843_009_213_693_951
_FACTOR = 7_046_029_254_386_353_087


def log_bins(value: str) -> str:
    """SQL of a bin of a count, duration or size: eight bins to a doubling, one for zero, one for less."""
    return f"CASE WHEN {value} < 0 THEN -1 ELSE CAST(floor(8 * log2(1 + {value})) AS INT) END"


def unit_bins(value: str, top: float = 1.0) -> str:
    """SQL of a bin of a rate between 0 and ``top``: forty equal ones, one below, one above."""
    return (
        f"CASE WHEN {value} < 0 THEN -1 WHEN {value} > {top} THEN 41 "
        f"ELSE least(CAST(floor(40 * {value} / {top}) AS INT), 39) END"
    )


def histogram_of(
    connection: duckdb.DuckDBPyConnection, source: str, bins: str, units: int, coverage: int = 0
) -> Histogram:
    """Rows by bin; null has a bin of its own.

    Args:
        connection: Sees the table.
        source: SQL of a relation.
        bins: SQL of a bin.
        units: Independent units behind the rows.
        coverage: See ``Histogram``.

    Returns:
        The histogram; bins in their order.
    """
    rows = connection.execute(
        f"SELECT {bins} AS bin, count(*) FROM {source} GROUP BY ALL ORDER BY bin NULLS LAST"  # noqa: S608
    ).fetchall()
    counts = {MISSING if one is None else f"{int(one):+05d}": int(count) for one, count in rows}
    return Histogram(counts, units, ordered=True, coverage=coverage)


def categories_of(connection: duckdb.DuckDBPyConnection, source: str, column: str, units: int) -> Histogram:
    """Rows by category: the most frequent by name, the others together.

    Args:
        connection: Sees the table.
        source: SQL of a relation.
        column: Of texts from outside, which the histogram names in harmless form.
        units: Independent units behind the rows.

    Returns:
        The histogram.
    """
    name = quoted_name(column)
    rows = connection.execute(
        f"SELECT {name}[:200], count(*) AS n FROM {source} GROUP BY 1 ORDER BY n DESC, 1 LIMIT {CATEGORIES + 1}"  # noqa: S608
    ).fetchall()
    (total,) = connection.execute(f"SELECT count(*) FROM {source}").fetchone() or (0,)  # noqa: S608
    counts: dict[str, int] = {}
    for value, count in rows[:CATEGORIES]:
        shown = MISSING if value is None else harmless(value, 60)
        counts[shown] = counts.get(shown, 0) + int(count)
    if (rest := int(total) - sum(counts.values())) > 0:
        counts[OTHER] = rest
    return Histogram(dict(sorted(counts.items())), units, ordered=False)


def sample_of(connection: duckdb.DuckDBPyConnection, source: str, column: str) -> tuple[int, ...]:
    """The distinct ids with the smallest hashes, as hashes.

    Args:
        connection: Sees the table.
        source: SQL of a relation.
        column: Of whole numbers.

    Returns:
        At most ``SAMPLE`` hashes, ascending.
    """
    hashed = f"((({quoted_name(column)}::HUGEINT % 1000000007 + 1000000007) * {_FACTOR}) % {_PRIME})::BIGINT"
    rows = connection.execute(
        f"SELECT DISTINCT {hashed} AS h FROM {source} WHERE {quoted_name(column)} IS NOT NULL ORDER BY h LIMIT {SAMPLE}"  # noqa: S608
    ).fetchall()
    return tuple(int(one) for (one,) in rows)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> float | None:
    """Estimate of the Jaccard similarity of two sets from their samples.

    Args:
        a: ``sample_of`` of one set.
        b: ``sample_of`` of the other.

    Returns:
        Common ids over all ids, None when there are none.
    """
    union = sorted({*a, *b})[: max(len(a), len(b))]
    if not union:
        return None
    common = set(a) & set(b)
    return sum(one in common for one in union) / len(union)


def shares(histogram: Histogram) -> Mapping[str, float]:
    """Counts as shares of all rows."""
    total = sum(histogram.counts.values())
    return {name: count / total for name, count in histogram.counts.items()} if total else {}
