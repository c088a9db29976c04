"""A short-video world whose truth can be asked for: the default feed, and what the simulator is checked against.

What happens in it (constants beside each mechanism in ``world_population``, ``world_behaviour``, ``world_day``):

- **People** have a latent taste in 8 dimensions around three favourite topics, an activity, a daily open rate and a
  patience. A year's population is there on the first day, new ones register every day. New users' tastes are
  broader, change more from session to session and are less well known to the production ranker; quality and
  popularity weigh more for them, first impressions count for more, and they leave sooner. All of this fades with
  exp(-tenure / 10 days). Tastes drift slowly.
- **Videos** have a latent position near their topic, quality, a lognormal length of 5 to 300 s and one of a
  power law of creators. New ones join at the midnight after their upload; popularity fades with age.
- **The logging policy** draws a slot's candidates by popularity and freshness, and shows one by a softmax over a
  noisy score, or, in a share of slots, uniformly. Scores and mixture probabilities are logged. No video is shown
  twice in a session.
- **Satisfaction** is affinity, quality, freshness, brevity in proportions that depend on newness and activity,
  minus weariness of a repeated topic, plus chance. Watching is a noisy view of it: unplayed, skipped, partial,
  repeated. Interactions are rare and follow satisfaction by other drivers per group.
- **Staying**: after every slot a user leaves by recent satisfaction, minutes and patience. One to three
  sessions a day, the next more likely after a good one. **Returning** on the next day depends on the open rate,
  weekday, days of absence and habit, an average of daily satisfaction: so day d+1 depends on day d.

Every number is a draw keyed by what it is for (``draws``): the same settings give the same world in any order, shard
or process. Latent traits stay inside; ``outcomes`` and ``expected_satisfaction`` tell the truth to checks only.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import WorldFeed
from components.days import bounds_us
from components.feed.schema import DayTables
from simulator import draws
from simulator.world_behaviour import (
    appeal,
    faded_habit,
    newness,
    next_habit,
    open_probability,
    settled_taste,
    visit,
)
from simulator.world_day import Choice, Chooser, DayRun, Offer, Production, Stage, run_day
from simulator.world_population import Users, Videos, make_users, make_videos, users_by
from simulator.world_tables import Clock, day_tables

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

OUTCOMES = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("app_time_s", pa.float64(), nullable=False),
        pa.field("sessions", pa.int64(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("returned", pa.bool_(), nullable=False),
        pa.field("return_probability", pa.float64(), nullable=False),
    ]
)

# Populations are built this many days ahead, so that reading days in order rarely builds them anew.
_BUILD_AHEAD_DAYS = 16
# Mornings that are remembered: enough for a training window and the days around it.
_MORNINGS = 16


class Policy(Protocol):
    """What ranks the candidates of a slot; the highest score is shown."""

    def score(self, user_ids: I64, candidates: I64) -> NDArray[np.floating]:
        """Scores [N, K] for users [N] and their candidate video ids [N, K]."""
        ...


@dataclass(frozen=True)
class Morning:
    """The state of everybody before a day begins.

    Attributes:
        habit: float64 [U], average satisfaction of the days before.
        idle_days: float64 [U], full days since the last visit.
    """

    habit: F64
    idle_days: F64


@dataclass(frozen=True)
class _Ranked:
    """A policy as a chooser: the best valid candidate."""

    policy: Policy
    videos: Videos

    def choose(self, offer: Offer) -> Choice:
        """The valid candidate with the highest score; the first of equals."""
        scores = np.asarray(self.policy.score(offer.visitors.user_id, self.videos.video_id[offer.videos]))
        if scores.shape != offer.videos.shape:
            raise ValueError(f"a policy returned scores of shape {scores.shape} for candidates {offer.videos.shape}")
        if not np.isfinite(scores[offer.valid]).all():
            raise ValueError("a policy returned scores that are not finite")
        place = np.where(offer.valid, scores, -np.inf).argmax(axis=1)
        return Choice(place, np.zeros(len(place), dtype=bool), scores.astype(np.float32), None)


class World:
    """The world of one feed's settings."""

    def __init__(self, settings: WorldFeed) -> None:
        self.settings = settings
        self._built_for = -1
        self._users: Users
        self._videos: Videos
        self._mornings: OrderedDict[int, Morning] = OrderedDict()
        self._logged: tuple[int, DayRun] | None = None

    def day_tables(self, day: date) -> DayTables:
        """The log of a day and everything known at its end.

        Args:
            day: Local day, not before the feed's first.

        Returns:
            Log with session ids, positions and propensities; users with sign-up attributes; videos; requests.
        """
        number = self._number(day)
        run = self._log(number)
        users, videos = self._population(number)
        return day_tables(Clock(self.settings), number, users, videos, run)

    def outcomes(
        self,
        policy: Policy | None,
        day: date,
        users: I64 | None = None,
        seed: int | None = None,
        sessions: Literal["logged", "free"] = "logged",
    ) -> pa.Table:
        """What a policy would truly have done on one day, with history before it as logged.

        Candidates and session starts, and with the world's own seed every user's chance too, are those of
        the log (common random numbers).

        Args:
            policy: Fills all slots of the day; None is the logging policy with its logged draws.
            day: Local day.
            users: Ids of the users to follow; None follows everybody who opened the app. Who did not is left out.
            seed: Another draw of the chance that users meet; None is the log's.
            sessions: Keep the logged sessions, or let satisfaction decide on the second and third.

        Returns:
            A table with the columns of ``OUTCOMES``, one row per user in the order of ids. ``returned`` is
            opening the app on the next day, ``return_probability`` its probability given this day.
        """
        number = self._number(day)
        logged = self._log(number)
        everyone, videos = self._population(number)
        kept = slice(None) if users is None else np.isin(everyone.user_id[logged.user], users)
        chance = self.settings.seed if seed is None else seed
        stage = self._stage(number, chance)
        chooser: Chooser = Production(self.settings, videos) if policy is None else _Ranked(policy, videos)
        happened = logged.happened[kept] if sessions == "logged" else None
        run = run_day(stage, logged.user[kept], chooser, happened, keep=False)
        evening = self._evening(self._morning(number), run, number)
        probability = self._opening(evening, run.user, number + 1)
        opens = draws.uniform(chance, "opens", everyone.user_id[run.user], number + 1)
        columns = {
            "user_id": everyone.user_id[run.user],
            "app_time_s": run.app_time_s,
            "sessions": run.happened.sum(axis=1),
            "impressions": run.impressions,
            "returned": opens < probability,
            "return_probability": probability,
        }
        return pa.table(columns, schema=OUTCOMES)

    def expected_satisfaction(self, user_ids: I64, candidates: I64, day: date) -> F64:
        """The true appeal of videos to users on a day, as only an oracle knows it; no arm may read it.

        Args:
            user_ids: int64 [N].
            candidates: int64 [N, K] video ids.
            day: Local day.

        Returns:
            float64 [N, K], in standard deviations of satisfaction, without a session's mood and without chance.
        """
        number = self._number(day)
        users, videos = self._population(number)
        index = user_ids - 1
        visitors = visit(self.settings.seed, users, index, number, 0)
        broad = 1 - 0.35 * visitors.newness[:, None]
        settled = replace(visitors, taste=broad * settled_taste(users, index, number))
        return appeal(settled, videos, candidates - 1)

    def _number(self, day: date) -> int:
        number = (day - self.settings.first_day).days
        if number < 0:
            raise ValueError(f"{day} is before the world's first day {self.settings.first_day}")
        return number

    def _population(self, day: int) -> tuple[Users, Videos]:
        """Users and videos up to at least the end of ``day``."""
        if day > self._built_for:
            self._built_for = day + _BUILD_AHEAD_DAYS
            self._users = make_users(self.settings, self._built_for)
            self._videos = make_videos(self.settings, self._built_for)
        return self._users, self._videos

    def _stage(self, day: int, chance_seed: int) -> Stage:
        users, videos = self._population(day)
        start, end = bounds_us(self.settings.first_day + timedelta(days=day), self.settings.zone)
        return Stage(self.settings, users, videos, day, (end - start) / 1e6, chance_seed)

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
        while len(self._mornings) > _MORNINGS:
            self._mornings.popitem(last=False)

    def _first_morning(self) -> Morning:
        ids = np.arange(1, self.settings.users + 1)
        habit = 0.25 * draws.normal(self.settings.seed, "first habit", ids)
        idle = np.floor(-1.2 * np.log(draws.uniform(self.settings.seed, "first idle", ids)))
        return self._with_newcomers(Morning(habit, idle), 0)

    def _with_newcomers(self, state: Morning, day: int) -> Morning:
        """Room for the users who register on ``day``."""
        missing = users_by(self.settings, day) - len(state.habit)
        return Morning(np.append(state.habit, np.zeros(missing)), np.append(state.idle_days, np.zeros(missing)))

    def _evening(self, morning: Morning, run: DayRun, day: int) -> Morning:
        """State after ``day``, which is the next day's morning."""
        users, _ = self._population(day)
        habit, idle = faded_habit(morning.habit), morning.idle_days + 1
        habit[run.user] = next_habit(morning.habit[run.user], run.pleasure, newness(users, run.user, day))
        idle[run.user] = 0
        return self._with_newcomers(Morning(habit, idle), day + 1)

    def _opening(self, state: Morning, index: I64, day: int) -> F64:
        """Probability that users open the app on ``day``; who registers on it opens it."""
        users, _ = self._population(day)
        weekday = (self.settings.first_day + timedelta(days=day)).weekday()
        new = newness(users, index, day)
        chance = open_probability(
            users, index, weekday, habit=state.habit[index], idle_days=state.idle_days[index], new=new
        )
        return np.where(users.registered_day[index] == day, 1.0, chance)

    def _log(self, day: int) -> DayRun:
        """The logged day with its impressions; the last one is remembered."""
        if self._logged is None or self._logged[0] != day:
            run = self._run_logged(day, keep=True)
            self._remember(day + 1, self._evening(self._morning(day), run, day))
            self._logged = (day, run)
        return self._logged[1]

    def _run_logged(self, day: int, keep: bool) -> DayRun:
        morning = self._morning(day)
        stage = self._stage(day, self.settings.seed)
        everybody = np.arange(users_by(self.settings, day))
        opens = draws.uniform(self.settings.seed, "opens", stage.users.user_id[everybody], day)
        openers = everybody[opens < self._opening(morning, everybody, day)]
        return run_day(stage, openers, Production(self.settings, stage.videos), keep=keep)
