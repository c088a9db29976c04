"""What a feed's source is, and which class reads which kind of feed."""

from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import Protocol

from components.config import Feed, FilesFeed, KuaiRandFeed, PythonFeed, WorldFeed
from components.errors import ConfigError, OutsideFeedError
from components.feature_list import Feature, catalogue, feature_list
from components.feed.schema import DayTables


@dataclass(frozen=True)
class Finding:
    """One line of ``mfh source check``: a part of the schema, what it maps to, and what its absence costs."""

    part: str
    found: str | None
    cost: str = ""


class Source(Protocol):
    """Reads a feed day by day. The same day always gives the same tables.

    A source that also has ``has_past = True`` delivers the columns of ``schema.PAST`` with users and videos.
    """

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """Names of the static user attributes, without the ``attr_`` prefix."""
        ...

    def read_day(self, day: date) -> DayTables:
        """The day's log and the users and videos known at its end.

        Args:
            day: A day that the feed covers.

        Returns:
            The day's tables; ``feed/canonical.py`` cleans them.

        Raises:
            SourceError: When files or columns are missing.
        """
        ...

    def check(self) -> list[Finding]:
        """What maps, what is missing, and what that costs."""
        ...


def open_source(feed: Feed) -> Source:
    """The source of a feed.

    Args:
        feed: The feed's settings.

    Returns:
        Its source, ready to read days.

    Raises:
        ConfigError: When a ``python`` feed names a class that can not be imported.
    """
    if isinstance(feed, WorldFeed):
        from components.feed.world import WorldSource

        return WorldSource(feed)
    if isinstance(feed, KuaiRandFeed):
        from components.feed.kuairand import KuaiRandSource

        return KuaiRandSource(feed)
    if isinstance(feed, FilesFeed):
        from components.feed.files import FilesSource

        return FilesSource(feed)
    return _python_source(feed)


def catalogue_of(feed: Feed) -> tuple[Feature, ...]:
    """Every feature of a feed, statistics that no model reads included: see ``components.feature_list``.

    Args:
        feed: The feed's settings.

    Returns:
        The list, in the order of the views' columns.
    """
    source = open_source(feed)
    return catalogue(source.user_attributes, past=getattr(source, "has_past", False))


def features_of(feed: Feed) -> tuple[Feature, ...]:
    """The features of a feed that models read: see ``components.feature_list``.

    Args:
        feed: The feed's settings.

    Returns:
        The list, in the order of the views' columns.
    """
    source = open_source(feed)
    return feature_list(source.user_attributes, past=getattr(source, "has_past", False))


def require_day(feed: Feed, day: date) -> None:
    """Refuse a day that the feed does not cover.

    Args:
        feed: The feed's settings.
        day: The day that was asked for.

    Raises:
        OutsideFeedError: With the feed's first and last day.
    """
    if day < feed.first_day or (feed.last_day is not None and day > feed.last_day):
        last = feed.last_day.isoformat() if feed.last_day else "open"
        raise OutsideFeedError(
            f"{day} is outside the feed, which runs from {feed.first_day} to {last}; "
            "choose a day inside it, or change feed.first_day / feed.last_day in the pipeline file"
        )


def _python_source(feed: PythonFeed) -> Source:
    module_name, _, class_name = feed.factory.partition(":")
    try:
        factory = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"feed.factory {feed.factory!r} can not be imported: {error}") from error
    source: Source = factory(feed)
    return source
