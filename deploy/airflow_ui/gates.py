"""The gates of each day, as a calendar: did its log and its features pass validation?"""

import calendar
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

from components.day_checks import GATES, PASSES, gates_of
from components.errors import MfhError
from components.lake import MANIFEST, Lake
from components.report_index import arrow_of, configurations, days_of
from simulator.surroundings import Gate

# A day is as good as its worst gate. A gate of which nothing is known is worse than one that was let pass.
ORDER = ("passed", "warned", "overridden", "missing", "failed")


@dataclass(frozen=True)
class Cell:
    """One day of a calendar; ``state`` is None where nothing was validated."""

    day: date
    state: str | None


@dataclass(frozen=True)
class Month:
    """One month of one pipeline, in weeks from Monday; None stands for days of other months."""

    dag_id: str
    pipeline: str
    title: str
    weeks: tuple[tuple[Cell | None, ...], ...]
    previous: str | None
    next: str | None


class GateIndex:
    """Gates of a lake; a day's results are read once and kept until one of them is written again.

    Args:
        lake: The whole lake.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._arrow = arrow_of(lake)
        self._kept: dict[tuple[str, date], tuple[tuple[object, ...], tuple[Gate, ...]]] = {}

    def month(self, dag_id: str, pipeline: str, wanted: str | None) -> Month | None:
        """The calendar of one month.

        Args:
            dag_id: The pipeline's DAG, for links.
            pipeline: Its name.
            wanted: ``YYYY-MM``; None, or a month without a validated day, stands for the newest one with any.

        Returns:
            The month, None when no day was ever validated.
        """
        places = list(self._places(pipeline))
        months = sorted({f"{day:%Y-%m}" for _, day in places})
        if not months:
            return None
        chosen = wanted if wanted in months else months[-1]
        gates = self._gates((lake, day) for lake, day in places if f"{day:%Y-%m}" == chosen)
        states = {day: worst(found) for day, found in gates.items()}
        place = months.index(chosen)
        year, number = map(int, chosen.split("-"))
        weeks = calendar.Calendar().monthdatescalendar(year, number)
        return Month(
            dag_id=dag_id,
            pipeline=pipeline,
            title=f"{date(year, number, 1):%B %Y}",
            weeks=tuple(tuple(Cell(d, states.get(d)) if d.month == number else None for d in week) for week in weeks),
            previous=months[place - 1] if place else None,
            next=months[place + 1] if place + 1 < len(months) else None,
        )

    def day(self, pipeline: str, day: date) -> tuple[Gate, ...]:
        """The gates of one day.

        Args:
            pipeline: Its name.
            day: The day.

        Returns:
            Those that ran; empty when nothing was validated.
        """
        return self._gates((lake, one) for lake, one in self._places(pipeline) if one == day).get(day, ())

    def _places(self, pipeline: str) -> Iterator[tuple[Lake, date]]:
        for source, config_hash in configurations(self._lake, pipeline):
            lake = self._lake.scope(source, pipeline, config_hash)
            yield from ((lake, day) for day in sorted({day for name in GATES for day in days_of(lake, name)}))

    def _gates(self, places: Iterable[tuple[Lake, date]]) -> dict[date, tuple[Gate, ...]]:
        """By day; of one day under several configurations, those that were written last."""
        found: dict[date, tuple[int, tuple[Gate, ...]]] = {}
        for lake, day in places:
            # A person's decision to let a day pass is a partition of its own.
            files = [lake.path(name, f"ds={day}", MANIFEST) for name in (*GATES, PASSES)]
            stamps = [(info.mtime_ns or 0, info.size or 0) for info in self._arrow.get_file_info(files)]
            key = (str(PurePosixPath(lake.root)), day)
            kept = self._kept.get(key)
            if kept is None or kept[0] != tuple(stamps):
                self._kept[key] = kept = (tuple(stamps), _read(lake, day))
            written = max(mtime for mtime, _ in stamps)
            if kept[1] and written >= found.get(day, (0, ()))[0]:
                found[day] = (written, kept[1])
        return {day: gates for day, (_, gates) in found.items()}


def worst(gates: tuple[Gate, ...]) -> str:
    """The state of a day: that of its worst gate."""
    return max((gate.state for gate in gates), key=ORDER.index)


def _read(lake: Lake, day: date) -> tuple[Gate, ...]:
    try:
        return gates_of(lake, day)
    except (MfhError, OSError, ValueError) as error:
        return (Gate(name="gates", title="Gates", state="missing", detail=f"can not be read: {error}"),)
