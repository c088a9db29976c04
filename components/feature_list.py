"""The one list of features: Feast views, expectations, the encoder's inputs and the docs all come from it.

A windowed feature is a sum (or a smoothed rate of two sums) of per-day partials over a rolling window of days
that ends with the snapshot's day, so that a snapshot costs the day's rows plus small partials and depends
on no other snapshot.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from components.feed.schema import ATTRIBUTE_PREFIX, BEHAVIOURS

Entity = Literal["user", "video", "pair", "request"]
Kind = Literal[
    "count", "rate", "list", "category", "id", "number", "amount", "level", "names", "ids", "numbers", "moment", "cross"
]
Role = Literal["input", "part", "statistic"]
Default = float | str | int | None

WINDOWS = (1, 3, 7, 14, 30)
LONGEST_WINDOW = max(WINDOWS)

# A rate is (sum + PRIOR_STRENGTH x mean) / (rows + PRIOR_STRENGTH), the mean being that of all entities.
PRIOR_STRENGTH = 10.0

# Behaviours whose rates are features, as columns of the per-day partials.
RATES = ("completion", *BEHAVIOURS)
SUMS = ("impressions", "watch_s", "sessions")

# What the encoder reads of them: more windows and rare behaviours cost training time and gave it nothing.
MODEL_RATES = ("completion", "click", "finish", "skip", "long_view", "like")
MODEL_WINDOWS = (1, 3, 7, 14)

# A user's rate on a topic or of a creator is drawn towards the user's own rate, with the weight of so many rows.
AFFINITY_STRENGTH = 5.0
# So many topics and creators of each user are kept, those seen most.
TOP_AFFINITIES = 12

# Entries of the last watched videos that the encoder reads; the stored lists are as long as ``features.last_videos``.
HISTORY_READ = 20

_DTYPES: dict[Kind, str] = {
    "list": "list<int64>",
    "ids": "list<int64>",
    "names": "list<string>",
    "numbers": "list<float>",
    "category": "string",
    "id": "int64",
    "number": "int64",
    "moment": "timestamp",
}


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: Column name, unique over all entities.
        entity: Whose feature it is; ``pair`` and ``request`` are computed when a candidate is scored.
        kind: Decides dtype, default and how the encoder reads it.
        view: Feast feature view that serves it.
        meaning: One sentence for people.
        source: Column of the log (windowed features), of the profile tables or of other features that it comes from.
        window_days: Rolling window, None for profiles, and what is computed on demand.
        role: ``input``: the encoder reads the column; ``part``: an input is computed from it when a pair is scored;
            ``statistic``: kept for people and other models.
    """

    name: str
    entity: Entity
    kind: Kind
    view: str
    meaning: str
    source: str
    window_days: int | None = None
    role: Role = "input"

    @property
    def dtype(self) -> str:
        """Arrow type of the column."""
        return _DTYPES.get(self.kind, "float32")

    @property
    def default(self) -> Default:
        """Value for an entity without a row: zero counts, no category; an unknown rate stays missing."""
        defaults: dict[Kind, Default] = {"count": 0.0, "category": "", "id": -1, "cross": 0.0}
        return defaults.get(self.kind)

    @property
    def is_list(self) -> bool:
        """Whether a value is a list; the default is then an empty one."""
        return self.kind in ("list", "ids", "names", "numbers")


@dataclass(frozen=True)
class Affinity:
    """What users have seen most of: their topics, or their creators.

    Attributes:
        name: Singular, a part of column names.
        kind: Of the list of keys.
        item: The video's column that a key is compared with.
    """

    name: Literal["topic", "creator"]
    kind: Kind
    item: str

    @property
    def keys(self) -> str:
        """Column of the keys."""
        return f"user_{self.name}s"

    @property
    def shares(self) -> str:
        """Column of the keys' shares of the user's impressions."""
        return f"user_{self.name}_shares"

    def lifts(self, behaviour: str) -> str:
        """Column of the keys' lifts of a behaviour."""
        return f"user_{self.name}_{behaviour}_lifts"


AFFINITIES = (Affinity("topic", "names", "video_topic"), Affinity("creator", "ids", "video_creator_id"))


def snapshot_view(entity: Entity, role: Role) -> str:
    """The view of a snapshot's column: what models read goes online, statistics stay offline."""
    return f"{entity}_statistics" if role == "statistic" else f"{entity}_counters"


def _windowed(
    entity: Entity, kind: Kind, name: str, meaning: str, source: str, days: int, role: Role = "statistic"
) -> Feature:
    return Feature(name, entity, kind, snapshot_view(entity, role), meaning, source, days, role)


def _counters(entity: Entity) -> Iterator[Feature]:
    sums = {"impressions": "Impressions", "watch_s": "Seconds watched", "sessions": "Sessions"}
    for window in WINDOWS:
        read: Role = "input" if window in MODEL_WINDOWS else "statistic"
        last = "the last day" if window == 1 else f"the last {window} days"
        for column, what in sums.items():
            if entity == "user" or column != "sessions":
                name = f"{entity}_{column}_{window}d"
                yield _windowed(entity, "count", name, f"{what} in {last}", column, window, read)
        for column in RATES:
            role: Role = read if column in MODEL_RATES else "statistic"
            text = f"Smoothed mean of {column} over {last}"
            yield _windowed(entity, "rate", f"{entity}_{column}_rate_{window}d", text, column, window, role)
        for column in BEHAVIOURS:
            text = f"Number of {column} in {last}"
            yield _windowed(entity, "count", f"{entity}_{column}_count_{window}d", text, column, window)


def _user_habits() -> Iterator[Feature]:
    days = LONGEST_WINDOW
    lists: tuple[tuple[str, str, str, Role], ...] = (
        ("user_last_videos", "watched", "watch_ms", "input"),
        ("user_last_long_viewed", "long-watched", "long_view", "statistic"),
        ("user_last_liked", "liked", "like", "statistic"),
    )
    for name, what, source, role in lists:
        yield _windowed("user", "list", name, f"Last {what} videos of the window, newest first", source, days, role)
    active = f"Days with an impression among the last {days}"
    yield _windowed("user", "amount", f"user_active_days_{days}d", active, "event_time", days, "input")
    idle = "Days since the last day with an impression, 0 = the snapshot's own"
    yield _windowed("user", "amount", "user_idle_days", idle, "event_time", days, "input")
    hours = "Share of impressions by local hour of the day, 24 numbers"
    yield _windowed("user", "numbers", f"user_hour_shares_{days}d", hours, "event_time", days)
    for one in AFFINITIES:
        text = f"{one.name.capitalize()}s seen most, at most {TOP_AFFINITIES}, most seen first"
        yield _windowed("user", one.kind, one.keys, text, one.item.removeprefix("video_"), days, "part")
        text = f"Their shares of the user's impressions, in the order of {one.keys}"
        yield _windowed("user", "numbers", one.shares, text, "impressions", days, "part")
        # Of rarer behaviours a user's rows on one topic tell nothing, and each costs as much as all windows of a user.
        for column in MODEL_RATES:
            text = f"Smoothed mean of {column} on each of {one.keys}, less the user's own"
            yield _windowed("user", "numbers", one.lifts(column), text, column, days, "part")


def _video_habits() -> Iterator[Feature]:
    days = LONGEST_WINDOW
    idle = "Days since the last day with an impression, 0 = the snapshot's own"
    yield _windowed("video", "amount", "video_idle_days", idle, "event_time", days, "input")
    fresh = "Impressions of the last day as a share of those of the last 7"
    yield _windowed("video", "level", "video_freshness", fresh, "impressions", 7, "input")
    text = f"Impressions of all videos of its creator in the last {days} days"
    yield _windowed("video", "amount", f"video_creator_impressions_{days}d", text, "impressions", days, "input")
    for column in RATES:
        name = f"video_creator_{column}_rate_{days}d"
        text = f"Smoothed mean of {column} over all videos of its creator in the last {days} days"
        role: Role = "input" if column in MODEL_RATES else "statistic"
        yield _windowed("video", "level", name, text, column, days, role)


def _past() -> Iterator[Feature]:
    meanings: dict[str, tuple[Kind, str]] = {
        "past_impressions": ("count", "Impressions in the history that came with the feed"),
        "past_long_view_rate": ("rate", "Smoothed share of long views in that history"),
        "past_like_rate": ("rate", "Smoothed share of likes in that history"),
    }
    entities: tuple[Entity, ...] = ("user", "video")
    for entity in entities:
        for name, (kind, meaning) in meanings.items():
            yield Feature(f"{entity}_{name}", entity, kind, f"{entity}_profile", meaning, name)


def _profiles(user_attributes: tuple[str, ...]) -> Iterator[Feature]:
    for name in user_attributes:
        text = f"Static attribute {name!r}, known at sign-up"
        yield Feature(f"user_{name}", "user", "category", "user_profile", text, f"{ATTRIBUTE_PREFIX}{name}")
    yield Feature("video_creator_id", "video", "id", "video_profile", "Who made the video", "creator_id")
    yield Feature("video_topic", "video", "category", "video_profile", "First topic of the video", "topic")
    yield Feature("video_duration_ms", "video", "number", "video_profile", "Length in milliseconds", "duration_ms")


def _moments() -> Iterator[Feature]:
    """What the on-demand view computes ages from."""
    for entity, what, source in (("user", "Sign-up", "registered_at"), ("video", "Upload", "uploaded_at")):
        name, view = f"{entity}_{source}", f"{entity}_profile"
        yield Feature(name, entity, "moment", view, f"{what} (UTC)", source, role="statistic")  # type: ignore[arg-type]


def _fresh() -> Iterator[Feature]:
    """What the push source counts between two snapshots."""
    day = "known so far of the local day of the user's last event"
    sums = {"impressions": "Impressions", "watch_s": "Seconds watched", "long_views": "Long views", "likes": "Likes"}
    sources = {"impressions": "event_time", "watch_s": "watch_ms", "long_views": "long_view", "likes": "like"}
    for name, what in sums.items():
        text = f"{what} {day}"
        yield Feature(f"user_fresh_{name}", "user", "level", "user_fresh", text, sources[name], role="statistic")
    text = f"Last videos {day}, newest first"
    yield Feature("user_fresh_videos", "user", "list", "user_fresh", text, "video_id", role="statistic")


def _crosses() -> Iterator[Feature]:
    for one in AFFINITIES:
        seen = f"Share of the user's impressions that was of the candidate's {one.name}"
        yield Feature(f"pair_{one.name}_share", "pair", "cross", "pair_crosses", seen, one.shares, LONGEST_WINDOW)
        for column in MODEL_RATES:
            text = f"User's smoothed mean of {column} on the candidate's {one.name}, less the user's own"
            name, source = f"pair_{one.name}_{column}_lift", one.lifts(column)
            yield Feature(name, "pair", "cross", "pair_crosses", text, source, LONGEST_WINDOW)


def _requests() -> Iterator[Feature]:
    view = "request_features"
    tenure, age = "log(1 + days since sign-up) at the request", "log(1 + days since upload) at the request"
    yield Feature("log_tenure_days", "request", "level", view, tenure, "user_registered_at")
    yield Feature("log_video_age_days", "request", "level", view, age, "video_uploaded_at")
    yield Feature("hour", "request", "id", view, "Local hour of the request", "event_time")


def catalogue(user_attributes: tuple[str, ...], *, past: bool = False) -> tuple[Feature, ...]:
    """Every feature of a feed, what is kept beside the models' inputs included.

    Args:
        user_attributes: Names of the feed's static user attributes.
        past: Whether the feed came with a history from before its log.

    Returns:
        The features, in the order of the views' columns.
    """
    parts = [_counters("user"), _user_habits(), _counters("video"), _video_habits(), _profiles(user_attributes)]
    parts += [_past()] if past else []
    return tuple(feature for part in (*parts, _moments(), _fresh(), _crosses(), _requests()) for feature in part)


def feature_list(user_attributes: tuple[str, ...], *, past: bool = False) -> tuple[Feature, ...]:
    """What the models read of a feed, directly or crossed; ``feed.source.features_of`` gives that of a feed's settings.

    Args:
        user_attributes: Names of the feed's static user attributes.
        past: Whether the feed came with a history from before its log.

    Returns:
        The features of users, videos and pairs, in the order of the views' columns.
    """
    known = catalogue(user_attributes, past=past)
    return tuple(f for f in known if f.role != "statistic" and f.entity != "request")


def counters(features: tuple[Feature, ...], entity: Entity) -> list[Feature]:
    """Those of some features that a daily snapshot of an entity holds."""
    views = (f"{entity}_counters", f"{entity}_statistics")
    return [f for f in features if f.entity == entity and f.view in views]


def snapshot_features(entity: Entity) -> list[Feature]:
    """Columns of a daily snapshot, which are the same for every feed."""
    return counters(catalogue(()), entity)


def service_name(features: tuple[Feature, ...]) -> str:
    """The Feast service of a version of the models' inputs: another list is another service, and both stay registered.

    Args:
        features: What the models read (``feature_list``).

    Returns:
        The name that bundles record.
    """
    return f"mfh_ranking_{fingerprint(features)}"


def fingerprint(features: tuple[Feature, ...]) -> str:
    """A text that changes when the list changes: part of a feature service's identity."""
    return sha256(repr(features).encode()).hexdigest()[:12]
