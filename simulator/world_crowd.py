"""Users of a range of ids as they fare from day to day: what one day leaves behind for the next.

Users share nothing but the videos, which are a function of the seed. So a world is as many crowds as one likes, in
any order, thread or process; each holds the state of its own users and at most one day of their impressions.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import WorldFeed
from components.days import bounds_us
from simulator import draws
from simulator.world_behaviour import chance_stream, faded_habit, newness, next_habit, open_probability
from simulator.world_day import Chooser, DayRun, Production, Stage, run_day
from simulator.world_population import Users, Videos, make_users, make_videos, users_by
from simulator.world_slots import Candidates, candidates_of
from simulator.world_tables import impression_tables, user_table, video_table

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
Flags = NDArray[np.bool_]

# Populations are built this many days ahead, so that reading days in order rarely builds them anew.
_BUILD_AHEAD_DAYS = 16
# Mornings and distributions of candidates that are remembered: enough for a training window and the days around it.
_REMEMBERED_DAYS = 16


class Catalogue:
    """The videos of a world, day by day; crowds of several threads may share one."""

    def __init__(self, settings: WorldFeed) -> None:
        self.settings = settings
        self._lock = Lock()
        self._built_for = -1
        self._videos: Videos
        self._candidates: OrderedDict[int, Candidates] = OrderedDict()

    def on(self, day: int) -> tuple[Videos, Candidates]:
        """At least all videos uploaded by the end of a day, and what candidate generation draws from on it."""
        with self._lock:
            if day > self._built_for:
                self._built_for = day + _BUILD_AHEAD_DAYS
                self._videos = make_videos(self.settings, self._built_for)
            if day not in self._candidates:
                self._candidates[day] = candidates_of(self._videos, day)
                while len(self._candidates) > _REMEMBERED_DAYS:
                    self._candidates.popitem(last=False)
            return self._videos, self._candidates[day]

    def table(self, day: int) -> pa.Table:
        """The videos known at the end of a day, in the order of ids."""
        return video_table(self.settings, self.on(day)[0], day)


@dataclass(frozen=True)
class Morning:
    """The state of everybody before a day begins.

    Attributes:
        habit: float64 [U], average satisfaction of the days before.
        idle_days: float64 [U], full days since the last visit.
    """

    habit: F64
    idle_days: F64


class Crowd:
    """The users of a range of ids.

    Args:
        settings: The world's settings.
        catalogue: The world's videos.
        first: First id, from 1.
        last: Last id; None for everybody who will ever register.

    Attributes:
        settings: As given.
        catalogue: As given.
    """

    def __init__(self, settings: WorldFeed, catalogue: Catalogue, first: int = 1, last: int | None = None) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self._first, self._last = first, last
        self._users_for = -1
        self._users: Users
        self._mornings: OrderedDict[int, Morning] = OrderedDict()
        self._logged: tuple[int, DayRun] | None = None

    def impressions(self, day: int) -> tuple[pa.Table, pa.Table]:
        """Log and requests of these users on a day, row by row the same impressions, in no promised order.

        Args:
            day: Day counted from the feed's first day.

        Returns:
            Both tables; they hold the crowd's own memory of the day.
        """
        return impression_tables(self.log(day).log, day)

    def user_table(self, day: int) -> pa.Table:
        """Those of these users who are registered by the end of a day, in the order of ids."""
        return user_table(self.settings, self.users(day), self.known(day), day)

    def known(self, day: int) -> int:
        """How many of these users are registered by the end of a day."""
        last = users_by(self.settings, day)
        return max((last if self._last is None else min(last, self._last)) - self._first + 1, 0)

    def users(self, day: int) -> Users:
        """At least those of these users who register by the end of a day."""
        if day > self._users_for:
            self._users_for = day + _BUILD_AHEAD_DAYS
            self._users = make_users(self.settings, self._first, self._first + self.known(self._users_for) - 1)
        return self._users

    def stage(self, day: int) -> Stage:
        """Everything of a day that no policy changes."""
        videos, candidates = self.catalogue.on(day)
        start, end = bounds_us(self.settings.first_day + timedelta(days=day), self.settings.zone)
        return Stage(self.settings, self.users(day), videos, candidates, day, start, (end - start) / 1e6)

    def log(self, day: int) -> DayRun:
        """The logged day with its impressions; the last one is remembered."""
        if self._logged is None or self._logged[0] != day:
            self._logged = None
            run = self._run_logged(day, keep=True)
            self._remember(day + 1, self._evening(self._morning(day), run, day))
            self._logged = (day, run)
        return self._logged[1]

    def run(
        self, day: int, chooser: Callable[[Stage], Chooser], user: I64, chance: U64, sessions: Flags | None
    ) -> tuple[DayRun, F64]:
        """Another day for users who opened the app on it, with the history before it as logged.

        Args:
            day: Day counted from the feed's first day.
            chooser: Makes the one who fills the slots.
            user: int64 [O], index of users, perhaps in several copies.
            chance: uint64 [O], ``chance_stream`` of the seed whose chance each copy meets.
            sessions: bool [O, SESSIONS], which sessions take place; None lets the users decide.

        Returns:
            What happened, and each copy's probability of opening the app on the next day.
        """
        stage = self.stage(day)
        run = run_day(stage, user, chooser(stage), chance, sessions, keep=False)
        habit = next_habit(self._morning(day).habit[user], run.pleasure, newness(stage.users, user, day))
        return run, self._opening(user, day + 1, habit, np.zeros(len(user)))

    def _morning(self, day: int) -> Morning:
        """State before ``day``, replaying what lies between it and the nearest remembered day."""
        known = max((number for number in self._mornings if number <= day), default=None)
        if known is None:
            known, self._mornings[0] = 0, self._first_morning()
        for number in range(known, day):
            run = self._run_logged(number, keep=False)
            self._remember(number + 1, self._evening(self._mornings[number], run, number))
        return self._mornings[day]

    def _remember(self, day: int, morning: Morning) -> None:
        self._mornings[day] = morning
        self._mornings.move_to_end(day)
        while len(self._mornings) > _REMEMBERED_DAYS:
            self._mornings.popitem(last=False)

    def _first_morning(self) -> Morning:
        ids = np.arange(self._first, min(self._first + self.known(0) - 1, self.settings.users) + 1)
        habit = 0.25 * draws.normal(self.settings.seed, "first habit", ids)
        idle = np.floor(-1.2 * np.log(draws.uniform(self.settings.seed, "first idle", ids)))
        return self._with_newcomers(Morning(habit, idle), 0)

    def _with_newcomers(self, state: Morning, day: int) -> Morning:
        """Room for the users who register on ``day``."""
        missing = np.zeros(self.known(day) - len(state.habit))
        return Morning(np.append(state.habit, missing), np.append(state.idle_days, missing))

    def _evening(self, morning: Morning, run: DayRun, day: int) -> Morning:
        """State after ``day``, which is the next day's morning."""
        habit, idle = faded_habit(morning.habit), morning.idle_days + 1
        habit[run.user] = next_habit(morning.habit[run.user], run.pleasure, newness(self.users(day), run.user, day))
        idle[run.user] = 0
        return self._with_newcomers(Morning(habit, idle), day + 1)

    def _opening(self, user: I64, day: int, habit: F64, idle_days: F64) -> F64:
        """Probability that users open the app on ``day``; who registers on it opens it."""
        users = self.users(day)
        weekday = (self.settings.first_day + timedelta(days=day)).weekday()
        new = newness(users, user, day)
        chance = open_probability(users, user, weekday, habit=habit, idle_days=idle_days, new=new)
        return np.where(users.registered_day[user] == day, 1.0, chance)

    def _run_logged(self, day: int, keep: bool) -> DayRun:
        morning, stage = self._morning(day), self.stage(day)
        everybody = np.arange(self.known(day))
        opens = draws.uniform(self.settings.seed, "opens", stage.users.user_id[everybody], day)
        user = everybody[opens < self._opening(everybody, day, morning.habit, morning.idle_days)]
        chance = np.full(len(user), chance_stream(self.settings.seed))
        return run_day(stage, user, Production(self.settings, stage.videos), chance, keep=keep)
