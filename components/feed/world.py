"""The built-in world as a feed: every column, candidate sets and propensities, and nothing to download."""

from datetime import date
from functools import lru_cache

from components.config import WorldFeed
from components.feed.findings import findings
from components.feed.schema import ATTRIBUTE_PREFIX, LOG, REQUESTS, USERS, VIDEOS, DayTables
from components.feed.source import Finding, require_day
from simulator.world import World
from simulator.world_population import ATTRIBUTES


@lru_cache(maxsize=2)
def shared_world(feed: WorldFeed) -> World:
    """This process's world of these settings; days read in order cost each day once."""
    return World(feed)


class WorldSource:
    """Reads the days of a world."""

    def __init__(self, feed: WorldFeed) -> None:
        self.feed = feed
        # Where the feed ends changes nothing in the world.
        self.world = shared_world(feed.model_copy(update={"last_day": None}))

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """Names of the static user attributes, without the ``attr_`` prefix."""
        return tuple(ATTRIBUTES)

    def read_day(self, day: date) -> DayTables:
        """The day's log and requests, and the users and videos known at its end.

        Args:
            day: A local day of the feed.

        Returns:
            The day's tables.

        Raises:
            OutsideFeedError: When the feed does not cover the day.
        """
        require_day(self.feed, day)
        return self.world.day_tables(day)

    def check(self) -> list[Finding]:
        """Every part of the schema is there, under its own name."""
        found = dict.fromkeys(("users", "videos", "requests"), "simulated")
        for table, schema in (("log", LOG), ("users", USERS), ("videos", VIDEOS), ("requests", REQUESTS)):
            found |= {f"{table}.{name}": name for name in schema.names}
        found["users.attributes"] = ", ".join(ATTRIBUTE_PREFIX + name for name in ATTRIBUTES)
        return findings(found)
