"""Who lives in the world: users and videos with their latent traits, all of it a function of (seed, id).

Nothing here depends on the day that is asked for: user 17 is the same user in every process, and a larger
world holds the smaller one's first users. Index ``i`` of the videos stands for id ``i + 1``; users come as any
range of ids.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from components.config import WorldFeed
from simulator import draws

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

LATENT = 8
TOPICS = (
    "animals", "beauty", "cars", "comedy", "cooking", "dance", "education", "family",
    "fashion", "fitness", "games", "handcraft", "music", "news", "sports", "travel",
)  # fmt: skip
COUNTRIES = ("br", "de", "id", "in", "mx", "us")
DEVICES = ("android_low", "android_high", "ios", "tablet")
CHANNELS = ("organic", "invited", "search_ad", "video_ad")

_COUNTRY_SHARES = (0.22, 0.08, 0.20, 0.25, 0.13, 0.12)
_DEVICE_SHARES = (0.42, 0.26, 0.27, 0.05)
_CHANNEL_SHARES = (0.46, 0.18, 0.14, 0.22)
# Users who came by an advertisement are less attached, invited ones more; on the logit of the daily open rate.
_CHANNEL_OPENS = np.array([0.1, 0.3, -0.1, -0.45])

_YEAR_DAYS = 365
SHORTEST_S, LONGEST_S = 5.0, 300.0
_MEDIAN_S, _LENGTH_SPREAD = 52.0, 1.05
# A power law over creators: they have this power of their share of ranks as the share of uploads.
_CREATOR_POWER = 0.4


@dataclass(frozen=True)
class Users:
    """Traits of U users; only ``user_id``, registration and the coded attributes ever leave the world.

    Attributes:
        user_id: int64 [U], consecutive.
        registered_day: int64 [U], day of registration counted from the feed's first day; negative before it.
        registered_share: float64 [U], moment within that day for users who registered before the first day.
        taste: float64 [U, LATENT], unit length, at registration.
        drift: float64 [U, LATENT], unit length, the direction that the taste turns to.
        drift_per_day: float64 [U], radians.
        misjudged: float64 [U, LATENT], what the production ranker has wrong about the taste.
        activity: float64 [U] in (0, 1), how much the user uses such apps.
        open_logit: float64 [U], daily open rate of a contented user on a plain day.
        patience: float64 [U], on the logit of leaving.
        expressive: float64 [U], on the logit of every interaction.
        attributes: int64 [U] codes of ``ATTRIBUTES``' values, by name.
    """

    user_id: I64
    registered_day: I64
    registered_share: F64
    taste: F64
    drift: F64
    drift_per_day: F64
    misjudged: F64
    activity: F64
    open_logit: F64
    patience: F64
    expressive: F64
    attributes: dict[str, I64]


class Videos(NamedTuple):
    """Traits of V videos, in a form that compiled loops can read.

    ``latent``, ``quality`` and ``popularity`` never leave the world.

    Attributes:
        video_id: int64 [V].
        uploaded_day: int64 [V], counted from the feed's first day; negative before it.
        uploaded_share: float64 [V], moment within that day, in (0, 1).
        creator: int64 [V], creator ids from 1.
        creator_appeal: float64 [V], mean 0 and variance 1 over what all creators upload.
        topic: int64 [V], index into ``TOPICS``.
        latent: float64 [V, LATENT], unit length.
        quality: float64 [V], about standard normal.
        popularity: float64 [V], log of the weight in candidate generation before it fades.
        duration_ms: int64 [V].
        length: float64 [V], standardised log duration.
    """

    video_id: I64
    uploaded_day: I64
    uploaded_share: F64
    creator: I64
    creator_appeal: F64
    topic: I64
    latent: F64
    quality: F64
    popularity: F64
    duration_ms: I64
    length: F64


# Variance of quality, and its mean as popularity weighs it: the covariance of the two.
_QUALITY_VARIANCE = 0.5**2 + 0.85**2
_QUALITY_OFFERED = 0.35 * _QUALITY_VARIANCE + 0.15 * 0.5


# Names of the static user attributes and the values behind their codes.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "country": COUNTRIES,
    "device": DEVICES,
    "channel": CHANNELS,
    "interest": TOPICS,
}


def fading(age_days: F64 | I64) -> F64:
    """What is left of the popularity of videos in candidate generation: [len(age_days)]."""
    left: F64 = 0.08 + np.exp(-age_days / 6.0)
    return left


def users_by(settings: WorldFeed, day: int) -> int:
    """Number of users registered by the end of ``day``, counted from the feed's first day."""
    return settings.users + settings.new_users_per_day * (day + 1)


def videos_by(settings: WorldFeed, day: int) -> int:
    """Number of videos uploaded by the end of ``day``, counted from the feed's first day."""
    return settings.videos + settings.new_videos_per_day * (day + 1)


def make_users(settings: WorldFeed, first: int, last: int) -> Users:
    """The users of a range of ids.

    Args:
        settings: The world's settings.
        first: First id, from 1.
        last: Last id, included.

    Returns:
        Their traits, in the order of their ids.
    """
    seed = settings.seed
    ids = np.arange(first, last + 1)
    before = ids <= settings.users
    arrival = (ids - settings.users - 1) // max(settings.new_users_per_day, 1)
    registered = np.where(before, -1 - draws.bucket(seed, "user registered", _YEAR_DAYS, ids), arrival)

    country = _category(seed, "user country", _COUNTRY_SHARES, ids)
    channel = _category(seed, "user channel", _CHANNEL_SHARES, ids)
    likes = _favourites(seed, ids, country)
    blend = np.zeros((len(ids), len(TOPICS)))
    np.put_along_axis(blend, likes, np.array([[1.0, 0.7, 0.45]]), axis=1)
    taste = _unit(_blend(blend, _topic_centres(seed)) + 0.35 * _vectors(seed, "user taste", ids))

    activity = 1 / (1 + np.exp(-1.2 * draws.normal(seed, "user activity", ids)))
    return Users(
        user_id=ids,
        registered_day=registered,
        registered_share=draws.uniform(seed, "user registered at", ids),
        taste=taste,
        drift=_unit(_vectors(seed, "user drift", ids)),
        drift_per_day=0.012 * np.exp(0.5 * draws.normal(seed, "user drift rate", ids)),
        misjudged=_vectors(seed, "user misjudged", ids),
        activity=activity,
        open_logit=3.4 * (activity - 0.5) + _CHANNEL_OPENS[channel] + 0.5 * draws.normal(seed, "user open", ids),
        patience=0.45 * draws.normal(seed, "user patience", ids) + 0.8 * (activity - 0.5),
        expressive=0.6 * draws.normal(seed, "user expressive", ids),
        attributes={
            "country": country,
            "device": _category(seed, "user device", _DEVICE_SHARES, ids),
            "channel": channel,
            "interest": _stated_interest(seed, ids, likes),
        },
    )


def make_videos(settings: WorldFeed, day: int) -> Videos:
    """All videos uploaded by the end of ``day``.

    Args:
        settings: The world's settings.
        day: Day counted from the feed's first day.

    Returns:
        Their traits, in the order of their ids.
    """
    seed = settings.seed
    ids = np.arange(1, videos_by(settings, day) + 1)
    before = ids <= settings.videos
    per_day = max(settings.new_videos_per_day, 1)
    # The stock reaches back as many days as the daily uploads needed to build it up, so that day 0 is no edge.
    reach = int(np.clip(settings.videos // per_day, 7, 60))
    uploaded = np.where(
        before, -1 - draws.bucket(seed, "video uploaded", reach, ids), (ids - settings.videos - 1) // per_day
    )
    creators = max(settings.videos // 5, 8)
    rank = np.floor(creators * draws.uniform(seed, "video creator", ids) ** (1 / _CREATOR_POWER))
    creator = 1 + rank.astype(np.int64)
    creator_appeal = _creator_appeal(seed, creators)[creator - 1]
    # Creators keep to their topic most of the time.
    shares = _topic_shares(seed)
    own = _category(seed, "creator topic", tuple(shares), creator)
    other = _category(seed, "video topic", tuple(shares), ids)
    topic = np.where(draws.uniform(seed, "video keeps topic", ids) < 0.7, own, other)
    quality = 0.5 * creator_appeal + 0.85 * draws.normal(seed, "video quality", ids)
    spread = draws.normal(seed, "video length", ids)
    fame = 0.8 * draws.normal(seed, "video popularity", ids) + 0.15 * creator_appeal
    offered = np.exp(fame + 0.35 * quality)[: settings.videos] * fading(-uploaded[: settings.videos])
    quality = _QUALITY_OFFERED + np.sqrt(_QUALITY_VARIANCE) * _levelled(quality, offered)
    spread = _levelled(spread, offered)
    seconds = np.clip(_MEDIAN_S * np.exp(_LENGTH_SPREAD * spread), SHORTEST_S, LONGEST_S)
    return Videos(
        video_id=ids,
        uploaded_day=uploaded,
        uploaded_share=draws.uniform(seed, "video uploaded at", ids),
        creator=creator,
        creator_appeal=creator_appeal,
        topic=topic,
        latent=_unit(_topic_centres(seed)[topic] + 0.65 * _vectors(seed, "video latent", ids)),
        quality=quality,
        popularity=fame + 0.35 * quality,
        duration_ms=np.round(seconds * 1000).astype(np.int64),
        length=np.log(seconds / _MEDIAN_S) / _LENGTH_SPREAD,
    )


def _levelled(values: F64, offered: F64) -> F64:
    """Values [V] shifted and scaled to mean 0 and variance 1 over the first videos, weighted by how much is offered.

    A few hits make much of what is seen. Without this their luck would move watch times and shares of the whole feed
    from seed to seed. A handful of videos is shifted, hardly scaled.
    """
    stock = len(offered)
    centred = values - np.average(values[:stock], weights=offered)
    levelled: F64 = centred / np.sqrt(max(np.average(centred[:stock] ** 2, weights=offered), 0.5))
    return levelled


def _creator_appeal(seed: int, creators: int) -> F64:
    """Appeal of every creator: [creators].

    Creators stand in a random order, each taking room by the share of uploads, and have the normal quantile of their
    place: who is liked is chance, but what is uploaded is equally liked in every world. With independent draws the
    luck of the few who make much of what is seen would move visits of profiles by a third from seed to seed.
    """
    shares = np.diff(np.linspace(0.0, 1.0, creators + 1) ** _CREATOR_POWER)
    order = np.argsort(draws.uniform(seed, "creator appeal", np.arange(1, creators + 1)))
    place = np.empty(creators)
    place[order] = shares[order].cumsum() - shares[order] / 2
    appeal = ndtri(place)
    appeal -= (shares * appeal).sum()
    scaled: F64 = appeal / np.sqrt((shares * appeal**2).sum())
    return scaled


def _favourites(seed: int, ids: I64, country: I64) -> I64:
    """Each user's three favourite topics, dearest first: [U, 3]; topics differ in fame, and by country."""
    topics = np.arange(len(TOPICS))
    fame = 0.5 * np.log(_topic_shares(seed))
    local = 0.6 * draws.normal(seed, "country topic", np.arange(len(COUNTRIES))[:, None], topics)
    # The largest of log weights plus Gumbel noise are a draw without replacement.
    gumbel = -np.log(-np.log(draws.uniform(seed, "user topics", ids[:, None], topics)))
    return np.argsort(-(fame + local[country] + gumbel), axis=1, kind="stable")[:, :3]


def _stated_interest(seed: int, ids: I64, likes: I64) -> I64:
    """The topic ticked at sign-up: the dearest for half of the users, any topic for a third, else another favourite."""
    u = draws.uniform(seed, "user interest", ids)
    anything = draws.bucket(seed, "user interest any", len(TOPICS), ids)
    return np.select([u < 0.5, u < 0.6, u < 0.67], [likes[:, 0], likes[:, 1], likes[:, 2]], anything)


def _topic_centres(seed: int) -> F64:
    """Latent position of every topic: [TOPICS, LATENT], unit length, summing to zero before scaling."""
    centres = _vectors(seed, "topic centre", np.arange(len(TOPICS)))
    return _unit(centres - centres.mean(axis=0))


def _topic_shares(seed: int) -> F64:
    """Share of every topic among the videos: [TOPICS], a power law over a random order."""
    rank = np.argsort(draws.uniform(seed, "topic rank", np.arange(len(TOPICS))))
    shares = 1.0 / (rank + 3.0)
    normalised: F64 = shares / shares.sum()
    return normalised


def _category(seed: int, purpose: str, shares: tuple[float, ...], ids: I64) -> I64:
    edges = np.cumsum(shares)[:-1] / np.sum(shares)
    return np.searchsorted(edges, draws.uniform(seed, purpose, ids), side="right")


def _vectors(seed: int, purpose: str, ids: I64) -> F64:
    """Normal vectors of about unit length: [len(ids), LATENT]."""
    vectors: F64 = draws.normal(seed, purpose, ids[:, None], np.arange(LATENT)) / np.sqrt(LATENT)
    return vectors


def _blend(weights: F64, centres: F64) -> F64:
    # einsum adds in a fixed order per row; a BLAS product may not, and then a user would depend on the batch.
    result: F64 = np.einsum("ut,tl->ul", weights, centres)
    return result


def _unit(vectors: F64) -> F64:
    scaled: F64 = vectors / np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    return scaled
