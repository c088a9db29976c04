"""How a backfill is shown while it runs: a live table in a terminal, a line per change in a log file."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.local.client import DayProgress

DONE = ("success", "skipped")


class ProgressDisplay:
    """Shows the days of a backfill; use it as a context manager."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=2) if self._console.is_terminal else None
        self._said: dict[str, str] = {}
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to draw, in a terminal."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def show(self, progress: list[DayProgress]) -> None:
        """Show the present state of every day."""
        if self._live is not None:
            self._live.update(self._table(progress))
            return
        for day in progress:
            line = f"{day.day} state={day.state} tasks={_done(day)} {_detail(day)}".rstrip()
            # In a log file only what is new is worth a line.
            if self._said.get(str(day.day)) != line:
                self._said[str(day.day)] = line
                print(f"{self._elapsed()} {line}", flush=True)

    def _table(self, progress: list[DayProgress]) -> Table:
        table = Table("day", "state", "tasks", "now", title=f"backfill, {self._elapsed()}", title_justify="left")
        for day in progress:
            table.add_row(str(day.day), day.state, _done(day), _detail(day))
        return table

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._begun)
        return f"{seconds // 60:d}:{seconds % 60:02d}"


def _done(day: DayProgress) -> str:
    return f"{sum(day.tasks[state] for state in DONE)}/{day.tasks.total()}"


def _detail(day: DayProgress) -> str:
    parts = [f"running={','.join(sorted(day.running))}"] if day.running else []
    parts += [f"{state}={day.tasks[state]}" for state in ("up_for_retry", "failed") if day.tasks[state]]
    return " ".join(parts)
