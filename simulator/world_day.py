"""One day of the world: who opens the app, and their sessions slot by slot under some policy.

All sessions with the same number in the day advance together, one slot at a time. Every draw is keyed by
(seed, user, day, session, slot), so another policy meets the same candidates and the same chance.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from components.config import WorldFeed
from simulator import draws
from simulator.world_behaviour import (
    MOST_REPEATS,
    Reactions,
    Visitors,
    comes_again_today,
    leaves,
    match,
    meet,
    moment,
    next_mood,
    react,
    satisfaction,
    swipe_pause_s,
    take,
    visit,
)
from simulator.world_population import Users, Videos

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

SESSIONS = 3
MAX_SLOTS = 60
# Weights of session starts by local hour.
HOURS = (2, 1, 0.6, 0.4, 0.4, 0.8, 2, 4, 4.5, 4, 4, 5, 7, 6, 4.5, 4.5, 5, 6, 7.5, 8.5, 10, 10.5, 8, 3.5)
_TOPICS_BACK = 3
# Draws per slot beyond one and a half times the wanted candidates, to make up for doubles and for videos already shown.
_SPARE = 4
# Entries of the candidate index per live video.
_ENTRIES = 64


@dataclass(frozen=True)
class Offer:
    """The candidate sets of one slot of R sessions.

    Attributes:
        visitors: R visitors.
        slot: Position in the session.
        videos: int64 [R, K], index into the world's videos.
        valid: bool [R, K], at least one per row; the others repeat a video or were shown before.
    """

    visitors: Visitors
    slot: int
    videos: I64
    valid: Flags


@dataclass(frozen=True)
class Choice:
    """What a chooser shows.

    Attributes:
        place: int64 [R], which candidate.
        is_random: bool [R], whether a uniform draw chose it.
        scores: float32 [R, K].
        probabilities: float32 [R, K], zero where not valid, or None where the policy is deterministic.
    """

    place: I64
    is_random: Flags
    scores: F32
    probabilities: F32 | None


class Chooser(Protocol):
    """Picks one candidate per session."""

    def choose(self, offer: Offer) -> Choice:
        """One valid candidate for every row of the offer."""
        ...


@dataclass(frozen=True)
class Production:
    """The logging policy: softmax over a noisy score, with a share of slots given to a uniform choice.

    The score is what the ranker believes the user's taste to be, plus quality, popularity and noise. It is logged,
    so that given the log the probabilities are known exactly.
    """

    settings: WorldFeed
    videos: Videos

    def choose(self, offer: Offer) -> Choice:
        """Draw from the mixture of softmax and uniform.

        Args:
            offer: R candidate sets.

        Returns:
            The choice with its scores and mixture probabilities.
        """
        visitors, seed = offer.visitors, self.settings.seed
        who, when = visitors.user_id[:, None], moment(visitors, offer.slot)[:, None]
        noise = draws.normal(seed, "ranker noise", who, when, np.arange(offer.videos.shape[1]))
        chance = draws.uniform(seed, "ranker choice", who, when, np.arange(2))
        score = (
            0.9 * match(visitors.estimate, self.videos, offer.videos)
            + 0.35 * self.videos.quality[offer.videos]
            + 0.2 * self.videos.popularity[offer.videos]
            + 0.45 * noise
        ).astype(np.float32)
        # Probabilities come from the rounded score, the one that is logged.
        masked = np.where(offer.valid, score.astype(np.float64), -np.inf)
        weights = np.exp(masked - masked.max(axis=1, keepdims=True))
        soft = weights / weights.sum(axis=1, keepdims=True)
        flat = offer.valid / offer.valid.sum(axis=1, keepdims=True)
        share = self.settings.uniform_share
        is_random = chance[:, 0] < share
        chosen = _draw(np.where(is_random[:, None], flat, soft), chance[:, 1])
        return Choice(chosen, is_random, score, ((1 - share) * soft + share * flat).astype(np.float32))


@dataclass
class Slots:
    """Columns of all impressions of a day, one array per slot of a round of sessions.

    The keys of ``columns`` are those that ``_record`` writes; ``stacked`` joins them.
    """

    columns: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)

    def add(self, **arrays: NDArray[np.generic]) -> None:
        """Append one slot's arrays."""
        for name, array in arrays.items():
            self.columns.setdefault(name, []).append(array)

    def stacked(self, name: str) -> NDArray[np.generic]:
        """One column over all slots."""
        return np.concatenate(self.columns[name])


@dataclass(frozen=True)
class DayRun:
    """What happened on a day to the O users who opened the app.

    Attributes:
        user: int64 [O], index into the users.
        happened: bool [O, SESSIONS].
        impressions: int64 [O].
        app_time_s: float64 [O], seconds watched.
        pleasure: float64 [O], mean satisfaction of the day.
        slots: All impressions; empty when they were not kept.
    """

    user: I64
    happened: Flags
    impressions: I64
    app_time_s: F64
    pleasure: F64
    slots: Slots


@dataclass(frozen=True)
class Stage:
    """Everything of a day that no policy changes.

    Attributes:
        settings: The world's settings.
        users: All users.
        videos: All videos.
        day: Day counted from the feed's first day.
        length_s: Seconds from local midnight to local midnight.
        chance_seed: Seed of the chance that users meet; the world's own reproduces the log.
    """

    settings: WorldFeed
    users: Users
    videos: Videos
    day: int
    length_s: float
    chance_seed: int


def session_starts(stage: Stage, user: I64) -> F64:
    """When users would open their sessions, in seconds after local midnight.

    Args:
        stage: The day.
        user: int64 [O], index into the users.

    Returns:
        float64 [O, SESSIONS], infinite where the day is over; far enough apart for a gap between sessions.
    """
    seed, ids = stage.settings.seed, stage.users.user_id[user]
    edges = np.concatenate([[0.0], np.cumsum(HOURS)])
    # The last half hour is left out, so that the last session of the day has room.
    share = np.interp(draws.uniform(seed, "first start", ids, stage.day), edges / edges[-1], np.linspace(0, 1, 25))
    starts = np.empty((len(user), SESSIONS))
    starts[:, 0] = 300.0 + share * (stage.length_s - 2100.0)
    for session in range(1, SESSIONS):
        pause = 9_000.0 * np.exp(0.8 * draws.normal(seed, "pause", ids, stage.day, session))
        starts[:, session] = starts[:, session - 1] + _apart_s(stage.settings) + pause
    starts[starts > stage.length_s - 1800.0] = np.inf
    return starts


def run_day(stage: Stage, user: I64, chooser: Chooser, sessions: Flags | None = None, keep: bool = True) -> DayRun:
    """Let the users who opened the app have their sessions.

    Args:
        stage: The day.
        user: int64 [O], index of the users who opened the app.
        chooser: Who fills the slots.
        sessions: bool [O, SESSIONS], which sessions take place; None lets the users decide.
        keep: Whether to keep every impression.

    Returns:
        The day's outcome per user, and its impressions.
    """
    starts = session_starts(stage, user)
    # A session ends early enough for the gap before the next start, and before midnight, even if its last
    # video is watched as often as can be.
    following = np.append(starts[:, 1:], np.full((len(user), 1), np.inf), axis=1) - _gap_s(stage.settings)
    longest_s = MOST_REPEATS * stage.videos.duration_ms.max() / 1000.0
    latest = np.minimum(following, stage.length_s) - longest_s
    tally = _Tally.empty(len(user), keep)
    pool = live_pool(stage)
    happened = np.zeros((len(user), SESSIONS), dtype=bool)
    rows = np.arange(len(user))
    for session in range(SESSIONS):
        if sessions is not None:
            rows = np.flatnonzero(sessions[:, session])
        elif session:
            visitors = visit(stage.settings.seed, stage.users, user[rows], stage.day, session)
            again = comes_again_today(stage.chance_seed, visitors, tally.mean_pleasure()[rows])
            rows = rows[again & np.isfinite(starts[rows, session])]
        happened[rows, session] = True
        visitors = visit(stage.settings.seed, stage.users, user[rows], stage.day, session)
        times = _Times(rows, starts[rows, session], latest[rows, session])
        _sessions(stage, visitors, times, chooser, pool=pool, tally=tally)
    return DayRun(user, happened, tally.impressions, tally.app_time_s, tally.mean_pleasure(), tally.slots)


@dataclass(frozen=True)
class _Times:
    """Where R sessions lie: their users' rows in the day, first moment, and last moment for a video to start."""

    rows: I64
    begin_s: F64
    latest_s: F64


@dataclass
class _Tally:
    """Sums per user of the day so far, each [O], and the impressions if they are kept."""

    impressions: I64
    app_time_s: F64
    pleasure: F64
    slots: Slots
    keep: bool

    @classmethod
    def empty(cls, count: int, keep: bool) -> "_Tally":
        return cls(np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count), Slots(), keep)

    def mean_pleasure(self) -> F64:
        mean: F64 = self.pleasure / np.maximum(self.impressions, 1)
        return mean

    def count(self, rows: I64, watch_ms: I64, pleasure: F64) -> None:
        # Each user has one session at a time, so no row comes twice.
        self.impressions[rows] += 1
        self.app_time_s[rows] += watch_ms / 1000.0
        self.pleasure[rows] += pleasure


def _sessions(stage: Stage, visitors: Visitors, times: _Times, chooser: Chooser, *, pool: I64, tally: _Tally) -> None:
    """Advance R sessions slot by slot until everybody has left."""
    clock = times.begin_s.copy()
    mood = np.zeros(len(clock))
    seen = np.full((len(clock), MAX_SLOTS), -1)
    here = np.arange(len(clock))
    for slot in range(MAX_SLOTS):
        if not len(here):
            break
        present = take(visitors, here)
        offer = _offer(stage, present, slot, pool, seen[here, :slot])
        choice = chooser.choose(offer)
        shown = offer.videos[np.arange(len(here)), choice.place]
        back = seen[here, max(slot - _TOPICS_BACK, 0) : slot]
        repeats = (stage.videos.topic[back] == stage.videos.topic[shown, None]).sum(axis=1).astype(np.float64)
        chance = meet(stage.chance_seed, present, slot)
        pleasure = satisfaction(stage.settings.seed, chance, present, stage.videos, shown, repeats=repeats)
        reaction = react(chance, present, stage.videos, shown, pleasure, skip_below_ms=stage.settings.skip_below_ms)
        if tally.keep:
            _record(tally.slots, offer, choice, clock[here], reaction)
        tally.count(times.rows[here], reaction.watch_ms, pleasure)
        seen[here, slot] = shown
        clock[here] += reaction.watch_ms / 1000.0 + swipe_pause_s(chance)
        mood[here] = next_mood(mood[here], pleasure)
        minutes = (clock[here] - times.begin_s[here]) / 60.0
        left = leaves(chance, present, mood[here], minutes)
        here = here[~left & (clock[here] <= times.latest_s[here])]


def _record(slots: Slots, offer: Offer, choice: Choice, clock_s: F64, reaction: Reactions) -> None:
    count = len(choice.place)
    slots.add(
        user=offer.visitors.user,
        session=offer.visitors.session,
        slot=np.full(count, offer.slot),
        video=offer.videos[np.arange(count), choice.place],
        clock_s=clock_s,
        place=choice.place,
        is_random=choice.is_random,
        candidates=offer.videos,
        valid=offer.valid,
        scores=choice.scores,
        watch_ms=reaction.watch_ms,
        **reaction.behaviours,
    )
    if choice.probabilities is not None:
        slots.add(probabilities=choice.probabilities)


def live_pool(stage: Stage) -> I64:
    """The index that candidate generation draws from: videos as often as their weight says.

    A video joins at the local midnight after its upload. Its weight is its popularity, which fades with age.

    Args:
        stage: The day.

    Returns:
        int64 [_ENTRIES x live videos], indices of videos. A look-up is several times faster than a search in
        cumulative weights.
    """
    live = np.flatnonzero(stage.videos.uploaded_day < stage.day)
    age = stage.day - stage.videos.uploaded_day[live]
    cumulative = np.cumsum(np.exp(stage.videos.popularity[live]) * (0.08 + np.exp(-age / 6.0)))
    count = _ENTRIES * len(live)
    levels = (np.arange(count) + 0.5) / count * cumulative[-1]
    entries: I64 = live[np.searchsorted(cumulative, levels)]
    return entries


def _offer(stage: Stage, visitors: Visitors, slot: int, pool: I64, seen: I64) -> Offer:
    """Candidates of a slot: the first distinct ones of a sequence of draws that the session has not shown yet."""
    wanted = stage.settings.slot_candidates
    places = np.arange(wanted + wanted // 2 + _SPARE)
    who, when = visitors.user_id[:, None], moment(visitors, slot)[:, None]
    u = draws.uniform(stage.settings.seed, "candidates", who, when, places)
    drawn = pool[(u * len(pool)).astype(np.int64)]
    order = np.argsort(drawn, axis=1, kind="stable")
    ranked = np.take_along_axis(drawn, order, axis=1)
    first = np.ones(drawn.shape, dtype=bool)
    np.put_along_axis(first, order[:, 1:], ranked[:, 1:] != ranked[:, :-1], axis=1)
    fresh = first & ~(drawn[:, :, None] == seen[:, None, :]).any(axis=2)
    # In a pool hardly larger than a session all may have been shown: then showing one again is the only way.
    fresh |= first & ~fresh.any(axis=1, keepdims=True)
    best = np.argsort(~fresh, axis=1, kind="stable")[:, :wanted]
    return Offer(visitors, slot, np.take_along_axis(drawn, best, axis=1), np.take_along_axis(fresh, best, axis=1))


def _draw(probabilities: F64, u: F64) -> I64:
    """One place per row by inversion; never one of probability zero."""
    cumulative = probabilities.cumsum(axis=1)
    place: I64 = (cumulative <= (u * cumulative[:, -1])[:, None]).sum(axis=1)
    return place


def _gap_s(settings: WorldFeed) -> float:
    return 60.0 * settings.session_gap_min + 60.0


def _apart_s(settings: WorldFeed) -> float:
    """Least time between two starts: the gap, the longest video, and half an hour of session."""
    return _gap_s(settings) + 900.0 + 1800.0
