"""The one list of features: Feast views, expectations, the encoder's inputs and the docs all come from it.

A counter feature is a sum (or a smoothed rate of two sums) of per-day partials over a rolling window of days
that ends with the snapshot's day, so that a snapshot costs the day's rows plus small partials and depends
on no other snapshot.
"""

from dataclasses import dataclass
from typing import Literal

from components.feed.schema import ATTRIBUTE_PREFIX

Entity = Literal["user", "video"]
Kind = Literal["count", "rate", "list", "category", "id", "number"]

WINDOWS = (1, 3, 7, 14)
LONGEST_WINDOW = max(WINDOWS)

# A rate is (sum + PRIOR_STRENGTH x mean) / (rows + PRIOR_STRENGTH), the mean being that of all entities.
PRIOR_STRENGTH = 10.0

# Behaviours whose rates are worth a feature, as columns of the per-day partials.
RATES = ("completion", "click", "finish", "skip", "long_view", "like")
SUMS = ("impressions", "watch_s", "sessions")


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: Column name, unique over all entities.
        entity: Whose feature it is.
        kind: Decides dtype, default and how the encoder reads it.
        view: Feast feature view that serves it.
        meaning: One sentence for people.
        source: Column of the partials (counters) or of the profile tables.
        window_days: Rolling window, None for profiles and lists.
    """

    name: str
    entity: Entity
    kind: Kind
    view: str
    meaning: str
    source: str
    window_days: int | None = None

    @property
    def dtype(self) -> str:
        """Arrow type of the column."""
        return {"list": "list<int64>", "category": "string", "id": "int64", "number": "int64"}.get(self.kind, "float32")

    @property
    def default(self) -> float | str | int | None:
        """Value for an entity without a row: zero counts, no category; an unknown rate stays missing."""
        defaults: dict[Kind, float | str | int] = {"count": 0.0, "category": "", "id": -1}
        return defaults.get(self.kind)


def _counters(entity: Entity) -> list[Feature]:
    view = f"{entity}_counters"
    found = []
    for window in WINDOWS:
        for column in SUMS:
            if entity == "video" and column == "sessions":
                continue
            meaning = {
                "impressions": "Impressions",
                "watch_s": "Seconds watched",
                "sessions": "Sessions",
            }[column]
            name = f"{entity}_{column}_{window}d"
            text = f"{meaning} in the last {window} days"
            found.append(Feature(name, entity, "count", view, text, column, window))
        for column in RATES:
            name = f"{entity}_{column}_rate_{window}d"
            text = f"Smoothed mean of {column} over the last {window} days"
            found.append(Feature(name, entity, "rate", view, text, column, window))
    return found


def _past() -> list[Feature]:
    meanings: dict[str, tuple[Kind, str]] = {
        "past_impressions": ("count", "Impressions in the history that came with the feed"),
        "past_long_view_rate": ("rate", "Smoothed share of long views in that history"),
        "past_like_rate": ("rate", "Smoothed share of likes in that history"),
    }
    entities: tuple[Entity, ...] = ("user", "video")
    return [
        Feature(f"{entity}_{name}", entity, kind, f"{entity}_profile", meaning, name)
        for entity in entities
        for name, (kind, meaning) in meanings.items()
    ]


def _profiles(user_attributes: tuple[str, ...]) -> list[Feature]:
    found = [
        Feature(
            f"user_{name}",
            "user",
            "category",
            "user_profile",
            f"Static attribute {name!r}, known at sign-up",
            f"{ATTRIBUTE_PREFIX}{name}",
        )
        for name in user_attributes
    ]
    found += [
        Feature("video_creator_id", "video", "id", "video_profile", "Who made the video", "creator_id"),
        Feature("video_topic", "video", "category", "video_profile", "First topic of the video", "topic"),
        Feature("video_duration_ms", "video", "number", "video_profile", "Length in milliseconds", "duration_ms"),
    ]
    return found


def feature_list(user_attributes: tuple[str, ...], *, past: bool = False) -> tuple[Feature, ...]:
    """All features of a feed; ``feed.source.features_of`` gives those of a feed's settings.

    Args:
        user_attributes: Names of the feed's static user attributes.
        past: Whether the feed came with a history from before its log.

    Returns:
        The features, in the order of the views' columns.
    """
    last = Feature(
        "user_last_videos",
        "user",
        "list",
        "user_counters",
        "Last watched videos of the window, newest first",
        "last_videos",
        LONGEST_WINDOW,
    )
    known = _past() if past else []
    return (*_counters("user"), last, *_counters("video"), *_profiles(user_attributes), *known)


def counters(features: tuple[Feature, ...], entity: Entity) -> list[Feature]:
    """The features of an entity that a daily snapshot holds."""
    return [f for f in features if f.entity == entity and f.view == f"{entity}_counters"]


def fingerprint(features: tuple[Feature, ...]) -> str:
    """A text that changes when the list changes: part of a feature service's identity."""
    from hashlib import sha256

    return sha256(repr(features).encode()).hexdigest()[:12]
