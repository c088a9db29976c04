"""How people in the world behave: what pleases them, how they watch and react, when they leave and come back.

Each function is one mechanism. Satisfaction drives all of them; a log shows it only through noisy watching.
The groups differ by two continuous traits: *newness*, exp(-tenure / 10 days), and *activity*.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from simulator import draws
from simulator.world_population import LATENT, Users, Videos

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I8 = NDArray[np.int8]
Flags = NDArray[np.bool_]

NEWNESS_DAYS = 10.0
# Logit of the daily open rate, Monday to Sunday.
WEEKDAY_OPENS = (-0.08, -0.10, -0.06, -0.02, 0.06, 0.16, 0.14)
# Longest watching: three times through.
MOST_REPEATS = 3.0
INTERACTIONS = ("like", "follow", "comment", "share", "dislike", "profile_enter")


@dataclass(frozen=True)
class Visitors:
    """R users, each in one session of one day, as far as their behaviour needs them.

    Attributes:
        user: int64 [R], index into ``Users``.
        user_id: int64 [R].
        day: int64 [R], counted from the feed's first day.
        session: int64 [R], number of the session within the day, from 0.
        newness: float64 [R], 1 at registration, fading over weeks.
        activity: float64 [R] in (0, 1).
        taste: float64 [R, LATENT], what the user is after in this session.
        estimate: float64 [R, LATENT], what the production ranker takes the taste for.
        patience: float64 [R].
        expressive: float64 [R].
    """

    user: I64
    user_id: I64
    day: I64
    session: I64
    newness: F64
    activity: F64
    taste: F64
    estimate: F64
    patience: F64
    expressive: F64


@dataclass(frozen=True)
class Chance:
    """The chance that R users meet in one slot; independent columns.

    Attributes:
        uniforms: float64 [R, 2 + INTERACTIONS]: watching, leaving, and one per interaction.
        normals: float64 [R, 4]: the moment, watch time, opening, the pause before the next video.
    """

    uniforms: F64
    normals: F64


@dataclass(frozen=True)
class Reactions:
    """What R users do with one video each.

    Attributes:
        watch_ms: int64 [R].
        behaviours: int8 [R] of 0 and 1 per behaviour, named as in the log's schema.
    """

    watch_ms: I64
    behaviours: dict[str, I8]


def take(visitors: Visitors, rows: I64 | Flags) -> Visitors:
    """The visitors of some rows."""
    return Visitors(**{column.name: getattr(visitors, column.name)[rows] for column in fields(Visitors)})


def newness(users: Users, index: I64, day: int) -> F64:
    """How new users are on a day: 1 on the day of registration, 1/e ten days later; float64 [len(index)]."""
    tenure = np.maximum(day - users.registered_day[index], 0)
    new: F64 = np.exp(-tenure / NEWNESS_DAYS)
    return new


def visit(seed: int, users: Users, index: I64, day: int, session: int) -> Visitors:
    """Users as they come to a session.

    Tastes turn slowly from day to day. New users' tastes are broader (weaker against everything else that
    pleases) and change more from session to session; the production ranker knows them less well.

    Args:
        seed: The world's seed.
        users: All users.
        index: int64 [R], who comes.
        day: Day counted from the feed's first day.
        session: Number of the session within the day.

    Returns:
        R visitors.
    """
    new = newness(users, index, day)
    taste = settled_taste(users, index, day)
    axis = np.arange(LATENT)
    mood = draws.normal(seed, "session mood", users.user_id[index, None], day, session, axis) / np.sqrt(LATENT)
    return Visitors(
        user=index,
        user_id=users.user_id[index],
        day=np.full(len(index), day),
        session=np.full(len(index), session),
        newness=new,
        activity=users.activity[index],
        taste=(1 - 0.35 * new[:, None]) * taste + (0.12 + 0.45 * new[:, None]) * mood,
        estimate=taste + (0.4 + 0.6 * new[:, None]) * users.misjudged[index],
        patience=users.patience[index],
        expressive=users.expressive[index],
    )


def settled_taste(users: Users, index: I64, day: int) -> F64:
    """The day's taste without a session's mood: float64 [len(index), LATENT], unit length."""
    passed = day - np.maximum(users.registered_day[index], 0)
    angle = (users.drift_per_day[index] * np.maximum(passed, 0))[:, None]
    turned = np.cos(angle) * users.taste[index] + np.sin(angle) * users.drift[index]
    unit: F64 = turned / np.sqrt((turned**2).sum(axis=1, keepdims=True))
    return unit


def match(taste: F64, videos: Videos, shown: I64) -> F64:
    """Affinity of taste vectors [R, LATENT] to videos [R, K]: float64 [R, K], of about unit spread."""
    # einsum sums each row in a fixed order, so that a user's numbers do not depend on who else is in the batch.
    score: F64 = 2.2 * np.einsum("rl,rkl->rk", taste, videos.latent[shown])
    return score


def appeal(visitors: Visitors, videos: Videos, shown: I64) -> F64:
    """Expected satisfaction with videos, before what was shown earlier and before chance.

    Established users look for their own tastes, the more so the more active; new ones for what is well made
    and pleases everybody. Very active users want fresh videos, occasional ones short videos.

    Args:
        visitors: R visitors.
        videos: All videos.
        shown: int64 [R, K], index into ``videos``.

    Returns:
        float64 [R, K], about standardised over what the production ranker shows.
    """
    new, active = visitors.newness[:, None], visitors.activity[:, None]
    age = visitors.day[:, None] - videos.uploaded_day[shown]
    return (
        (0.75 + 0.3 * active - 0.2 * new) * match(visitors.taste, videos, shown)
        + (0.28 + 0.25 * new) * videos.quality[shown]
        + 0.12 * new * videos.popularity[shown]
        + 0.3 * active * (1 - new) * np.exp(-age / 3.0)
        - 0.22 * (1 - active) * videos.length[shown]
        - 0.69
    )


def moment(visitors: Visitors, slot: int) -> I64:
    """One integer for day, session and slot, as a key of draws beside the user: int64 [R]."""
    return (visitors.day * 4 + visitors.session) * 1_000 + slot


def meet(seed: int, visitors: Visitors, slot: int) -> Chance:
    """The chance of one slot, the same whatever is shown: only the slot is a key, so arms share it."""
    who, when = visitors.user_id[:, None], moment(visitors, slot)[:, None]
    return Chance(
        draws.uniform(seed, "slot chance", who, when, np.arange(2 + len(INTERACTIONS))),
        draws.normal(seed, "slot noise", who, when, np.arange(4)),
    )


def satisfaction(seed: int, chance: Chance, visitors: Visitors, videos: Videos, shown: I64, *, repeats: F64) -> F64:
    """Satisfaction with the video that is shown.

    Besides the appeal: the third video of a topic in a row tires, every pair of user and video has its own
    chemistry, and every moment its own chance.

    Args:
        seed: The world's seed.
        chance: The slot's chance.
        visitors: R visitors.
        videos: All videos.
        shown: int64 [R].
        repeats: float64 [R], how many of the last three videos had the same topic.

    Returns:
        float64 [R].
    """
    chemistry = draws.normal(seed, "chemistry", visitors.user_id, videos.video_id[shown])
    expected = appeal(visitors, videos, shown[:, None])[:, 0] - 0.16 * repeats
    return expected + 0.3 * chemistry + 0.35 * chance.normals[:, 0]


def react(
    chance: Chance, visitors: Visitors, videos: Videos, shown: I64, pleasure: F64, *, skip_below_ms: int
) -> Reactions:
    """Watching and interactions.

    A video is scrolled past before it plays, skipped within seconds, or watched; long ones are watched longer but
    to a smaller part, and a few are watched again. Interactions need playing. They follow satisfaction, but what
    makes a like, a comment or a follow differs between new and established, occasional and very active users.

    Args:
        chance: The slot's chance.
        visitors: R visitors.
        videos: All videos.
        shown: int64 [R].
        pleasure: float64 [R], satisfaction.
        skip_below_ms: Watching less than this, and not to the end, is a skip.

    Returns:
        The reactions of R users.
    """
    watch_ms = _watch(chance, videos, shown, pleasure)
    duration = videos.duration_ms[shown]
    finish = watch_ms >= duration
    # Opening a video happens a few seconds in; who finishes a very short one has opened it too.
    opens_after = 6_500 * np.exp(0.25 * chance.normals[:, 2])
    flags = {
        "click": (watch_ms >= opens_after) | finish,
        "finish": finish,
        "skip": (watch_ms < skip_below_ms) & ~finish,
        "long_view": watch_ms >= np.minimum(duration, 18_000),
    }

    new, active = visitors.newness, visitors.activity
    own = match(visitors.taste, videos, shown[:, None])[:, 0]
    quality, maker = videos.quality[shown], videos.creator_appeal[shown]
    fresh = np.exp(-(visitors.day - videos.uploaded_day[shown]) / 3.0)
    warm = visitors.expressive + 0.5 * pleasure
    drivers = {
        "like": -4.96 + warm + (1 - new) * 0.6 * own + new * 0.7 * quality + 0.5 * (active - 0.5),
        "follow": -7.98 + warm + (0.6 - 0.3 * new) * maker + 0.5 * own + 0.8 * new,
        "comment": -6.84 + warm + 1.6 * (active - 0.5) + 0.5 * active * np.abs(own) - 0.7 * new,
        "share": -7.83 + warm + 0.7 * quality * (1 - 0.5 * active) + 0.6 * active * fresh - 0.5 * new,
        "dislike": -7.75 + 0.6 * visitors.expressive - 1.0 * pleasure + 0.5 * (1 - new) * active,
        "profile_enter": -4.46 + 0.6 * warm + 0.6 * maker + 0.5 * new,
    }
    played = watch_ms > 0
    for column, name in enumerate(INTERACTIONS, start=2):
        flags[name] = played & (chance.uniforms[:, column] < _sigmoid(drivers[name]))
    return Reactions(watch_ms, {name: flag.astype(np.int8) for name, flag in flags.items()})


def leaves(chance: Chance, visitors: Visitors, mood: F64, minutes: F64) -> Flags:
    """Who closes the app after a slot.

    Recent satisfaction keeps people, time tires them. New users have no patience yet and react more strongly.

    Args:
        chance: The slot's chance.
        visitors: R visitors.
        mood: float64 [R], running average of satisfaction.
        minutes: float64 [R], length of the session so far.

    Returns:
        bool [R].
    """
    new = visitors.newness
    tired = 0.07 * minutes + 0.1 * visitors.session
    left: Flags = chance.uniforms[:, 1] < _sigmoid(
        -3.0 - visitors.patience + tired - (0.6 + 0.4 * new) * mood + 0.5 * new
    )
    return left


def next_mood(mood: F64, pleasure: F64) -> F64:
    """Running average of satisfaction within a session; about the last four videos count."""
    return mood + 0.28 * (pleasure - mood)


def comes_again_today(seed: int, visitors: Visitors, pleasure: F64) -> Flags:
    """Who opens a further session on the same day, by activity and the day's mean satisfaction: bool [R]."""
    logit = 1.1 + 2.2 * (visitors.activity - 0.5) + 0.5 * pleasure - 0.9 * visitors.session
    chance = draws.uniform(seed, "comes again", visitors.user_id, visitors.day, visitors.session)
    again: Flags = chance < _sigmoid(logit)
    return again


def next_habit(habit: F64, pleasure: F64, new: F64) -> F64:
    """Habit after a day's visit: an average of the days' satisfaction; first impressions weigh more."""
    return habit + (0.3 + 0.35 * new) * (pleasure - habit)


def faded_habit(habit: F64) -> F64:
    """Habit after a day without a visit: memories fade."""
    return 0.97 * habit


def open_probability(users: Users, index: I64, weekday: int, *, habit: F64, idle_days: F64, new: F64) -> F64:
    """Probability of opening the app on a day.

    Args:
        users: All users.
        index: int64 [R], whose.
        weekday: 0 for Monday.
        habit: float64 [R], average satisfaction of the days before.
        idle_days: float64 [R], full days since the last visit.
        new: float64 [R], newness; a new user is not attached yet.

    Returns:
        float64 [R].
    """
    absence = 0.22 * np.minimum(idle_days, 12.0)
    logit = 0.25 + users.open_logit[index] + WEEKDAY_OPENS[weekday] + 2.6 * habit - absence - 0.5 * new
    return _sigmoid(logit)


def swipe_pause_s(chance: Chance) -> F64:
    """Seconds between the end of a video and the start of the next one: float64 [R]."""
    pause: F64 = 1.1 * np.exp(0.5 * chance.normals[:, 3])
    return pause


def _watch(chance: Chance, videos: Videos, shown: I64, pleasure: F64) -> I64:
    length = videos.duration_ms[shown] / 1000.0
    noise, mode = chance.normals[:, 1], chance.uniforms[:, 0]
    never = _sigmoid(-2.36 - 0.6 * pleasure)
    soon = never + (1 - never) * _sigmoid(-0.2 - 0.9 * pleasure)
    seconds = np.exp(3.0 + 0.5 * np.log(length / 50.0) + 0.4 * pleasure + 1.15 * noise)
    # Past the end the video starts again, and most let it run for a moment only.
    again = length * np.minimum((np.maximum(seconds, length) / length) ** 0.4, MOST_REPEATS)
    watched = np.where(seconds < length, seconds, again)
    watched = np.where(mode < soon, np.minimum(1.7 * np.exp(0.8 * noise), length * 0.9), watched)
    watched = np.where(mode < never, 0.0, watched)
    return np.round(watched * 1000).astype(np.int64)


def _sigmoid(logit: F64) -> F64:
    probability: F64 = 1.0 / (1.0 + np.exp(-logit))
    return probability
