"""When a component that has ended is started again: at once the first time, later and later while it keeps ending."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
# A component that ran this long is sound again: Airflow's need half a minute to notice that their database is gone.
SOUND_AFTER_S = 120.0


@dataclass
class Restarts:
    """Restarts of one component.

    Args:
        limit: Ends in a row, each soon after a start, before it is given up; None never gives up.
        clock: Seconds that never run backwards.
    """

    limit: int | None
    clock: Callable[[], float] = monotonic
    in_a_row: int = 0
    due: float | None = None
    _started: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def ended(self) -> bool:
        """Note that the component was found ended; the first such note plans its restart.

        Returns:
            Whether it may be started again at all.
        """
        if self.due is None:
            sound = self.clock() - self._started >= SOUND_AFTER_S
            self.in_a_row = 1 if sound else self.in_a_row + 1
            self.due = self.clock() + min(FIRST_DELAY_S * 2 ** (self.in_a_row - 1), LONGEST_DELAY_S)
        return self.limit is None or self.in_a_row <= self.limit

    def is_due(self) -> bool:
        """Whether it is time to start the component that has ended."""
        return self.due is not None and self.clock() >= self.due

    def started(self) -> None:
        """Note that the component was started."""
        self._started, self.due = self.clock(), None
