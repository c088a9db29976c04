"""Settings of a feed: where its logs come from, its calendar, and the rules that turn watching into labels."""

from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Record(BaseModel):
    """A frozen configuration record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeedSettings(Record):
    """What every feed has: its calendar and the rules that turn watching into labels."""

    timezone: str = "UTC"
    first_day: date
    last_day: date | None = None
    session_gap_min: int = Field(30, gt=0)
    skip_below_ms: int = Field(3_000, gt=0)
    max_watch_ms: int = Field(6 * 3_600_000, gt=0)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"unknown time zone {value!r}; use an IANA name such as 'Asia/Shanghai'")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "FeedSettings":
        if self.last_day is not None and self.last_day < self.first_day:
            raise ValueError("last_day is before first_day")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The feed's time zone; local midnight is the edge of every partition."""
        return ZoneInfo(self.timezone)


class WorldFeed(FeedSettings):
    """The built-in world: synthetic users and videos with candidate sets and propensities."""

    kind: Literal["world"] = "world"
    seed: int = 1
    users: int = Field(6_000, gt=0)
    new_users_per_day: int = Field(60, ge=0)
    videos: int = Field(1_500, gt=0)
    new_videos_per_day: int = Field(100, ge=0)
    slot_candidates: int = Field(12, gt=1)
    uniform_share: float = Field(0.05, ge=0, le=1)


class KuaiRandFeed(FeedSettings):
    """Any KuaiRand edition: a folder of official CSVs or of Parquet files with the official columns."""

    kind: Literal["kuairand"] = "kuairand"
    timezone: str = "Asia/Shanghai"
    folder: str
    snapshot_day: date = date(2022, 5, 8)


class TableMapping(Record):
    """Where one table of a user's own logs lies, and which of its columns is which of ours.

    ``path`` is a glob below the feed's folder. ``{day}`` in it is replaced by the day (YYYY-MM-DD),
    ``{day_compact}`` by YYYYMMDD; without either, the whole table is read and the day cut by time.
    ``columns`` maps our column name to theirs.
    """

    path: str
    columns: dict[str, str]
    time_unit: Literal["timestamp", "s", "ms", "us", "iso"] = "timestamp"
    duration_unit: Literal["s", "ms"] = "ms"
    attributes: tuple[str, ...] = ()


class FilesFeed(FeedSettings):
    """A user's own logs: Parquet or CSV files described by a column mapping."""

    kind: Literal["files"] = "files"
    folder: str
    log: TableMapping
    users: TableMapping | None = None
    videos: TableMapping | None = None
    requests: TableMapping | None = None


class PythonFeed(FeedSettings):
    """A feed that a mapping can't describe: one class, named as ``package.module:Class``."""

    kind: Literal["python"] = "python"
    factory: str
    options: dict[str, str | int | float | bool] = {}


Feed = Annotated[WorldFeed | KuaiRandFeed | FilesFeed | PythonFeed, Field(discriminator="kind")]
