"""How sessions and users are spread, arranged for reading: session depths and app time of both arms and the log."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from simulator.report import charts, numbers
from simulator.report.segments import some
from simulator.surroundings import Distribution

_RANK = {"treatment": 0, "baseline": 1, "log": 2}
# Arms and the log are three; a record with more is drawn no further.
_NAMES_SHOWN = 6


@dataclass(frozen=True)
class Spread:
    """Counts in bins.

    Attributes:
        names: Arms and ``log``, in the order of the columns.
        totals: Sessions or users per name, formatted.
        rows: Per bin its label and per name the number and the share, formatted.
        quantiles: 10 %, 50 % and 90 % with, per name, the value, formatted; empty where the record has none.
        chart: The drawing; None when no name has anything.
    """

    names: tuple[str, ...]
    totals: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    quantiles: tuple[tuple[str, tuple[str, ...]], ...]
    chart: Markup | None


def depths(found: Mapping[str, tuple[int, ...]]) -> Spread | None:
    """Session depths in bins that double: 1, 2, 3-4, 5-8 and so on.

    Args:
        found: Per name sessions by number of impressions, from one on.

    Returns:
        The section; None for a record without depths.
    """
    if not found:
        return None
    bins = _bins(max(len(counts) for counts in found.values()))
    labels = ["–".join(dict.fromkeys(map(numbers.whole, ends))) for ends in bins]
    counts = {name: [sum(found[name][first - 1 : last]) for first, last in bins] for name in _ordered(found)}
    title = "Sessions by number of impressions shown, in percent of each arm's sessions"
    return _spread("depth", title, labels, counts, "impressions in the session")


def app_time(found: Distribution | None) -> Spread | None:
    """Users by app time of the day.

    Args:
        found: Of the record.

    Returns:
        The section; None for a record without it.
    """
    if found is None or not found.users:
        return None
    ends = [*found.edges[1:], None]
    labels = [_between(low, high) for low, high in zip(found.edges, ends, strict=True)]
    counts = {name: list(found.users[name]) for name in _ordered(found.users)}
    title = "Users by app time of the day, in percent of each arm's users"
    short = ["0" if edge == 0 else numbers.duration(edge) for edge in found.edges]
    spread = _spread("time", title, labels, counts, "app time, from (each bin to the next)", short)
    quantiles = tuple(
        (label, tuple(_quantile(found, name, key) for name in spread.names))
        for label, key in (("10 % of users below", "low"), ("Median user", "middle"), ("90 % of users below", "high"))
    )
    return Spread(spread.names, spread.totals, spread.rows, quantiles if found.quantiles else (), spread.chart)


def _quantile(found: Distribution, name: str, key: str) -> str:
    if name not in found.quantiles:
        return numbers.not_estimable("no user")
    return numbers.number(getattr(found.quantiles[name], key), found.unit)


def _spread(
    ident: str,
    title: str,
    labels: Sequence[str],
    counts: Mapping[str, Sequence[int]],
    axis: str,
    short: Sequence[str] | None = None,
) -> Spread:
    names = tuple(counts)
    totals = {name: sum(counts[name]) for name in names}
    shares = {name: [c / totals[name] for c in counts[name]] for name in names if totals[name] > 0}
    rows = tuple(
        (
            label,
            tuple(
                (
                    numbers.whole(counts[name][at]),
                    numbers.number(shares[name][at], "share") if name in shares else "none",
                )
                for name in names
            ),
        )
        for at, label in enumerate(labels)
    )
    percent = {name: [100 * share for share in values] for name, values in shares.items()}
    chart = charts.bins(ident, title, list(short or labels), percent, axis) if percent else None
    return Spread(names, tuple(numbers.whole(totals[name]) for name in names), rows, (), chart)


def _ordered(names: Mapping[str, object]) -> tuple[str, ...]:
    return some(sorted(names, key=lambda name: (_RANK.get(name, len(_RANK)), name)), _NAMES_SHOWN, 0).first


def _bins(deepest: int) -> list[tuple[int, int]]:
    bins, first, last = [], 1, 1
    while first <= deepest:
        bins.append((first, min(last, deepest)))
        first, last = last + 1, 2 * last
    return bins


def _between(low: float, high: float | None) -> str:
    if high is None:
        return f"{numbers.duration(low)} and more"
    return f"under {numbers.duration(high)}" if low == 0 else f"{numbers.duration(low)} to {numbers.duration(high)}"
