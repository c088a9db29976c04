"""A short-video world whose truth can be asked for: the default feed, and what the simulator is checked against.

What happens in it (constants beside each mechanism in ``world_population``, ``world_behaviour``, ``world_day``):

- **People** have a latent taste in 8 dimensions around three favourite topics, an activity, a daily open rate and a
  patience. A year's population is there on the first day, new ones register every day. New users' tastes are
  broader, change more from session to session and are less well known to the production ranker; quality and
  popularity weigh more for them, first impressions count for more, and they leave sooner. All of this fades with
  exp(-tenure / 10 days). Tastes drift slowly.
- **Videos** have a latent position near their topic, quality, a lognormal length of 5 to 300 s and one of a
  power law of creators. New ones join at the midnight after their upload; popularity fades with age. What is offered
  on the first day is equally good, long and well liked in every world, so that all seeds have the real feed's rates.
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
or process (``crowds`` are blocks of users that need each other for nothing). Latent traits stay inside; ``outcomes``
and ``expected_satisfaction`` tell the truth to checks only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import WorldFeed
from components.feed.schema import DayTables
from simulator import draws
from simulator.world_behaviour import appeals, chance_stream, settled_taste, visit
from simulator.world_crowd import Catalogue, Crowd
from simulator.world_day import Choice, Chooser, Offer, Production, Stage
from simulator.world_population import Videos, users_by
from simulator.world_tables import in_order_of_time

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

OUTCOMES = pa.schema(
    [
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("app_time_s", pa.float64(), nullable=False),
        pa.field("sessions", pa.int64(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("returned", pa.bool_(), nullable=False),
        pa.field("return_probability", pa.float64(), nullable=False),
    ]
)


class Policy(Protocol):
    """What ranks the candidates of a slot; the highest score is shown."""

    def score(self, user_ids: I64, sessions: I64, candidates: I64) -> NDArray[np.floating]:
        """Scores of the candidates of N visitors, who are all in the same slot of their session.

        Args:
            user_ids: int64 [N]; a user may stand there in several copies that meet another chance.
            sessions: int64 [N], number of the session within the day, from 0; ``world_tables.session_id`` turns it into
                the log's.
            candidates: int64 [N, K], video ids.

        Returns:
            [N, K], finite.
        """
        ...


@dataclass(frozen=True)
class _Ranked:
    """A policy as a chooser: the best candidate that counts."""

    policy: Policy
    videos: Videos

    def choose(self, offer: Offer) -> Choice:
        """The candidate with the highest score; the first of equals."""
        visitors, here = offer.visitors, offer.here
        given = self.policy.score(visitors.user_id[here], visitors.session[here], self.videos.video_id[offer.videos])
        scores = np.asarray(given)
        if scores.shape != offer.videos.shape:
            raise ValueError(f"a policy returned scores of shape {scores.shape} for candidates {offer.videos.shape}")
        counts = np.arange(scores.shape[1]) < offer.size[:, None]
        if not np.isfinite(scores[counts]).all():
            raise ValueError("a policy returned scores that are not finite")
        place = np.where(counts, scores, -np.inf).argmax(axis=1)
        floats = scores.astype(np.float32, order="C")
        return Choice(place, np.zeros(len(place), dtype=np.bool_), floats, floats)


class World:
    """The world of one feed's settings.

    Args:
        settings: The feed.

    Attributes:
        settings: As given.
        catalogue: The videos, day by day.
    """

    def __init__(self, settings: WorldFeed) -> None:
        self.settings = settings
        self.catalogue = Catalogue(settings)
        self._everybody = Crowd(settings, self.catalogue)

    def day_tables(self, day: date) -> DayTables:
        """The log of a day and everything known at its end.

        Args:
            day: Local day, not before the feed's first.

        Returns:
            Log with session ids, positions and propensities, and requests, in order of time; users with sign-up
            attributes and videos in order of their ids.
        """
        number = self._number(day)
        log, requests = in_order_of_time(*self._everybody.impressions(number))
        return DayTables(log, self._everybody.user_table(number), self.catalogue.table(number), requests)

    def crowds(self, last_day: date, size: int) -> Iterator[Crowd]:
        """The world in blocks of users, each of which can be read day by day in bounded memory, in any thread.

        Args:
            last_day: Blocks hold whoever registers by its end.
            size: Users per block.

        Yields:
            Crowds in the order of user ids.
        """
        last = users_by(self.settings, self._number(last_day))
        for first in range(1, last + 1, size):
            yield Crowd(self.settings, self.catalogue, first, min(first + size - 1, last))

    def outcomes(
        self,
        policy: Policy | None,
        day: date,
        users: I64 | None = None,
        seed: int | Sequence[int] | None = None,
        sessions: Literal["logged", "free"] = "logged",
    ) -> pa.Table:
        """What a policy would truly have done on one day, with history before it as logged.

        Candidates and session starts, and with the world's own seed every user's chance too, are those of
        the log (common random numbers).

        Args:
            policy: Fills all slots of the day; None is the logging policy with its logged draws.
            day: Local day.
            users: Ids of the users to follow; None follows everybody who opened the app. Who did not is left out.
            seed: Another draw of the chance that users meet, or several at once, which cost less than one by one:
                a mean over them has less noise. None is the log's.
            sessions: Keep the logged sessions, or let satisfaction decide on the second and third.

        Returns:
            A table with the columns of ``OUTCOMES``, one row per seed and user, in the order of seeds as given and of
            ids. ``returned`` is opening the app on the next day, ``return_probability`` its probability given this
            day.
        """
        number = self._number(day)
        logged = self._everybody.log(number)
        user_id = self._everybody.users(number).user_id
        kept = slice(None) if users is None else np.isin(user_id[logged.user], users)
        seeds = [self.settings.seed] if seed is None else [seed] if isinstance(seed, int) else list(seed)
        if not seeds:
            raise ValueError("no seed to draw the chance with")
        user = np.tile(logged.user[kept], len(seeds))
        copies = len(user) // len(seeds)
        streams = np.repeat(np.array([chance_stream(one) for one in seeds]), copies)

        def chooser(stage: Stage) -> Chooser:
            return Production(self.settings, stage.videos) if policy is None else _Ranked(policy, stage.videos)

        happened = np.tile(logged.happened[kept], (len(seeds), 1)) if sessions == "logged" else None
        run, probability = self._everybody.run(number, chooser, user, streams, happened)
        opens = [draws.uniform(one, "opens", user_id[user[:copies]], number + 1) for one in seeds]
        columns = {
            "seed": np.repeat(np.array(seeds, dtype=np.int64), copies),
            "user_id": user_id[user],
            "app_time_s": run.app_time_s,
            "sessions": run.happened.sum(axis=1),
            "impressions": run.impressions,
            "returned": np.concatenate(opens) < probability,
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
        stage = self._everybody.stage(number)
        index = user_ids - 1
        visitors = visit(self.settings.seed, stage.users, index, number, 0, np.zeros(len(index), dtype=np.uint64))
        broad = 1 - 0.35 * visitors.newness[:, None]
        settled = visitors._replace(taste=broad * settled_taste(stage.users, index, number))
        return appeals(settled, stage.videos, candidates - 1, number)

    def _number(self, day: date) -> int:
        number = (day - self.settings.first_day).days
        if number < 0:
            raise ValueError(f"{day} is before the world's first day {self.settings.first_day}")
        return number
