"""How people in the world behave: what pleases them, how they watch and react, when they leave and come back.

Each function is one mechanism. Satisfaction drives all of them; a log shows it only through noisy watching.
The groups differ by two continuous traits: *newness*, exp(-tenure / 10 days), and *activity*. What happens slot by
slot is compiled and works on one user and one video at a time; what happens once a day works on arrays of users.
"""

from math import cos, exp, log, sin, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.draws import gauss, mixed, stream, unit
from simulator.jit import compiled
from simulator.world_population import LATENT, Users, Videos

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
Flags = NDArray[np.bool_]

NEWNESS_DAYS = 10.0
# Logit of the daily open rate, Monday to Sunday.
WEEKDAY_OPENS = (-0.08, -0.10, -0.06, -0.02, 0.06, 0.16, 0.14)
# Longest watching: three times through.
MOST_REPEATS = 3.0
INTERACTIONS = ("like", "follow", "comment", "share", "dislike", "profile_enter")

# Keys of the draws that a user meets in one slot, behind the slot's state: uniforms for watching and leaving, one per
# interaction, then the numbers that become normals.
WATCHING, LEAVING, INTERACTING = 0, 1, 2
MOMENT, WATCH_TIME, OPENING, PAUSE = 8, 9, 10, 11
# The place of a slot that stands for the time between sessions.
_BETWEEN = 1_000


class Visitors(NamedTuple):
    """R visits: users, each in one session of one day, as far as their behaviour needs them.

    Attributes:
        user: int64 [R], index into ``Users``.
        user_id: int64 [R].
        session: int64 [R], number of the session within the day, from 0.
        newness: float64 [R], 1 at registration, fading over weeks.
        activity: float64 [R] in (0, 1).
        taste: float64 [R, LATENT], what the user is after in this session.
        estimate: float64 [R, LATENT], what the production ranker takes the taste for.
        patience: float64 [R].
        expressive: float64 [R].
        offers: uint64 [R], state of the draws of candidates; a slot is mixed into it.
        ranking: uint64 [R], the same for the production ranker.
        chance: uint64 [R], the same for the chance that users meet.
    """

    user: I64
    user_id: I64
    session: I64
    newness: F64
    activity: F64
    taste: F64
    estimate: F64
    patience: F64
    expressive: F64
    offers: U64
    ranking: U64
    chance: U64


def newness(users: Users, index: I64, day: int) -> F64:
    """How new users are on a day: 1 on the day of registration, 1/e ten days later; float64 [len(index)]."""
    tenure = np.maximum(day - users.registered_day[index], 0)
    new: F64 = np.exp(-tenure / NEWNESS_DAYS)
    return new


def chance_stream(seed: int) -> np.uint64:
    """Where all draws of the chance that users meet start."""
    return stream(seed, "slot chance")


def visit(seed: int, users: Users, index: I64, day: int, session: int, chance: U64) -> Visitors:
    """Users as they come to a session.

    Tastes turn slowly from day to day. New users' tastes are broader (weaker against everything else that
    pleases) and change more from session to session; the production ranker knows them less well.

    Args:
        seed: The world's seed.
        users: All users.
        index: int64 [R], who comes; somebody may come in several copies.
        day: Day counted from the feed's first day.
        session: Number of the session within the day.
        chance: uint64 [R], ``chance_stream`` of the seed whose chance each copy meets.

    Returns:
        R visitors.
    """
    new = newness(users, index, day)
    user_id = users.user_id[index]
    taste, estimate = np.empty((len(index), LATENT)), np.empty((len(index), LATENT))
    states = np.empty((3, len(index)), dtype=np.uint64)
    streams = (stream(seed, "session mood"), stream(seed, "candidates"), stream(seed, "ranker"))
    settled = settled_taste(users, index, day)
    _arrive(streams, user_id, day, session, new, settled, users.misjudged[index], chance, taste, estimate, states)
    return Visitors(
        user=index,
        user_id=user_id,
        session=np.full(len(index), session),
        newness=new,
        activity=users.activity[index],
        taste=taste,
        estimate=estimate,
        patience=users.patience[index],
        expressive=users.expressive[index],
        offers=states[0],
        ranking=states[1],
        chance=states[2],
    )


@compiled
def _arrive(
    streams: tuple[np.uint64, np.uint64, np.uint64],
    user_id: I64,
    day: int,
    session: int,
    new: F64,
    settled: F64,
    misjudged: F64,
    chance: U64,
    taste: F64,
    estimate: F64,
    states: U64,
) -> None:
    """Fill taste, estimate [R, LATENT] and states [3, R] of R visitors."""
    for i in range(len(user_id)):
        mood = mixed(mixed(mixed(streams[0], user_id[i]), day), session)
        for axis in range(settled.shape[1]):
            turn = gauss(unit(mixed(mood, axis))) / sqrt(settled.shape[1])
            taste[i, axis] = (1 - 0.35 * new[i]) * settled[i, axis] + (0.12 + 0.45 * new[i]) * turn
            estimate[i, axis] = settled[i, axis] + (0.4 + 0.6 * new[i]) * misjudged[i, axis]
        when = day * 4 + session
        states[0, i] = mixed(mixed(streams[1], user_id[i]), when)
        states[1, i] = mixed(mixed(streams[2], user_id[i]), when)
        states[2, i] = mixed(mixed(chance[i], user_id[i]), when)


def settled_taste(users: Users, index: I64, day: int) -> F64:
    """The day's taste without a session's mood: float64 [len(index), LATENT], unit length."""
    settled = np.empty((len(index), LATENT))
    _settle(users.taste, users.drift, users.drift_per_day, users.registered_day, index, day, settled)
    return settled


@compiled
def _settle(taste: F64, drift: F64, per_day: F64, registered_day: I64, index: I64, day: int, settled: F64) -> None:
    for i in range(len(index)):
        user = index[i]
        angle = per_day[user] * max(day - max(registered_day[user], 0), 0)
        square = 0.0
        for axis in range(settled.shape[1]):
            settled[i, axis] = cos(angle) * taste[user, axis] + sin(angle) * drift[user, axis]
            square += settled[i, axis] * settled[i, axis]
        for axis in range(settled.shape[1]):
            settled[i, axis] /= sqrt(square)


@compiled
def affinity(taste: F64, i: int, latent: F64, video: int) -> float:
    """How well taste ``i`` of ``taste`` [R, LATENT] meets a video of ``latent`` [V, LATENT]; of about unit spread."""
    total = 0.0
    for axis in range(latent.shape[1]):
        total += taste[i, axis] * latent[video, axis]
    return 2.2 * total


@compiled
def appeal(visitors: Visitors, i: int, videos: Videos, video: int, day: int) -> float:
    """Expected satisfaction with a video, before what was shown earlier and before chance.

    Established users look for their own tastes, the more so the more active; new ones for what is well made
    and pleases everybody. Very active users want fresh videos, occasional ones short videos.

    Args:
        visitors: R visitors.
        i: Which of them.
        videos: All videos.
        video: Index into ``videos``.
        day: Day counted from the feed's first day.

    Returns:
        Appeal, about standardised over what the production ranker shows.
    """
    new, active = visitors.newness[i], visitors.activity[i]
    age = day - videos.uploaded_day[video]
    expected: float = (
        (0.75 + 0.3 * active - 0.2 * new) * affinity(visitors.taste, i, videos.latent, video)
        + (0.28 + 0.25 * new) * videos.quality[video]
        + 0.12 * new * videos.popularity[video]
        + 0.3 * active * (1 - new) * exp(-age / 3.0)
        - 0.22 * (1 - active) * videos.length[video]
        - 0.69
    )
    return expected


@compiled
def appeals(visitors: Visitors, videos: Videos, shown: I64, day: int) -> F64:
    """``appeal`` of videos [R, K] to R visitors: float64 [R, K]."""
    values = np.empty(shown.shape)
    for i in range(shown.shape[0]):
        for k in range(shown.shape[1]):
            values[i, k] = appeal(visitors, i, videos, shown[i, k], day)
    return values


@compiled
def satisfaction(expected: float, repeats: int, chemistry: float, chance: float) -> float:
    """Satisfaction with the video that is shown.

    Besides the appeal: the third video of a topic in a row tires, every pair of user and video has its own
    chemistry, and every moment its own chance.

    Args:
        expected: The appeal.
        repeats: How many of the last three videos had the same topic.
        chemistry: Standard normal of user and video.
        chance: Standard normal of the moment.

    Returns:
        Satisfaction in about standard deviations.
    """
    return expected - 0.16 * repeats + 0.3 * chemistry + 0.35 * chance


@compiled
def watch_ms(duration_ms: int, pleasure: float, mode: float, noise: float) -> int:
    """How long a video is watched.

    It is scrolled past before it plays, skipped within seconds, or watched; long ones are watched longer but to
    a smaller part, and a few are watched again.

    Args:
        duration_ms: Length of the video.
        pleasure: Satisfaction.
        mode: Uniform draw that decides between the three.
        noise: Standard normal of the watch time.

    Returns:
        Milliseconds.
    """
    length = duration_ms / 1000.0
    never = sigmoid(-2.36 - 0.6 * pleasure)
    if mode < never:
        return 0
    if mode < never + (1 - never) * sigmoid(-0.2 - 0.9 * pleasure):
        seconds = min(1.7 * exp(0.8 * noise), length * 0.9)
    else:
        seconds = exp(3.05 + 0.5 * log(length / 50.0) + 0.4 * pleasure + 1.19 * noise)
        if seconds >= length:
            # Past the end the video starts again, and most let it run for a moment only.
            seconds = length * min((seconds / length) ** 0.4, MOST_REPEATS)
    return int(seconds * 1000.0 + 0.5)


@compiled
def opens_after_ms(noise: float) -> float:
    """Opening a video happens a few seconds in; who finishes a very short one has opened it too."""
    return 6_500.0 * exp(0.25 * noise)


@compiled
def drivers(
    visitors: Visitors, i: int, videos: Videos, video: int, day: int, pleasure: float
) -> tuple[float, float, float, float, float, float]:
    """Logits of ``INTERACTIONS`` with a video that plays.

    They follow satisfaction, but what makes a like, a comment or a follow differs between new and established,
    occasional and very active users.

    Args:
        visitors: R visitors.
        i: Which of them.
        videos: All videos.
        video: Index into ``videos``.
        day: Day counted from the feed's first day.
        pleasure: Satisfaction.

    Returns:
        One logit per interaction.
    """
    new, active = visitors.newness[i], visitors.activity[i]
    own = affinity(visitors.taste, i, videos.latent, video)
    quality, maker = videos.quality[video], videos.creator_appeal[video]
    fresh = exp(-(day - videos.uploaded_day[video]) / 3.0)
    warm = visitors.expressive[i] + 0.5 * pleasure
    return (
        -4.95 + warm + (1 - new) * 0.6 * own + new * 0.7 * quality + 0.5 * (active - 0.5),
        -7.87 + warm + (0.6 - 0.3 * new) * maker + 0.5 * own + 0.8 * new,
        -6.83 + warm + 1.6 * (active - 0.5) + 0.5 * active * abs(own) - 0.7 * new,
        -7.84 + warm + 0.7 * quality * (1 - 0.5 * active) + 0.6 * active * fresh - 0.5 * new,
        -7.75 + 0.6 * visitors.expressive[i] - 1.0 * pleasure + 0.5 * (1 - new) * active,
        -4.46 + 0.6 * warm + 0.6 * maker + 0.5 * new,
    )


@compiled
def leaves(visitors: Visitors, i: int, mood: float, minutes: float) -> float:
    """Probability of closing the app after a slot.

    Recent satisfaction keeps people, time tires them. New users have no patience yet and react more strongly.

    Args:
        visitors: R visitors.
        i: Which of them.
        mood: Running average of satisfaction.
        minutes: Length of the session so far.

    Returns:
        The probability.
    """
    new = visitors.newness[i]
    tired = 0.07 * minutes + 0.1 * visitors.session[i]
    return sigmoid(-3.0 - visitors.patience[i] + tired - (0.6 + 0.4 * new) * mood + 0.5 * new)


@compiled
def next_mood(mood: float, pleasure: float) -> float:
    """Running average of satisfaction within a session; about the last four videos count."""
    return mood + 0.28 * (pleasure - mood)


@compiled
def swipe_pause_s(noise: float) -> float:
    """Seconds between the end of a video and the start of the next one."""
    return 1.1 * exp(0.5 * noise)


@compiled
def sigmoid(logit: float) -> float:
    """The probability of a logit."""
    return 1.0 / (1.0 + exp(-logit))


def comes_again_today(visitors: Visitors, pleasure: F64) -> Flags:
    """Who opens a further session on the same day, by activity and the day's mean satisfaction: bool [R]."""
    logit = 1.1 + 2.2 * (visitors.activity - 0.5) + 0.5 * pleasure - 0.9 * visitors.session
    again: Flags = _between_sessions(visitors.chance) < _sigmoids(logit)
    return again


@compiled
def _between_sessions(states: U64) -> F64:
    values = np.empty(len(states))
    for i in range(len(states)):
        values[i] = unit(mixed(states[i], _BETWEEN))
    return values


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
    return _sigmoids(logit)


def _sigmoids(logit: F64) -> F64:
    probability: F64 = 1.0 / (1.0 + np.exp(-logit))
    return probability
