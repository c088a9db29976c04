"""One day of the world: who opens the app, and their sessions slot by slot under some policy.

All sessions with the same number in the day advance together, one slot at a time. Every draw is keyed by
(seed, user, day, session, slot), so another policy meets the same candidates and the same chance, and a user's day
is the same in any company.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from components.config import WorldFeed
from simulator import draws
from simulator.world_behaviour import MOST_REPEATS, Visitors, comes_again_today, visit
from simulator.world_impressions import Impressions, empty_impressions, roomier
from simulator.world_population import LONGEST_S, Users, Videos
from simulator.world_slots import Candidates, Sessions, live_through, offer, rank

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
Flags = NDArray[np.bool_]

SESSIONS = 3
MAX_SLOTS = 60
# Weights of session starts by local hour.
HOURS = (2, 1, 0.6, 0.4, 0.4, 0.8, 2, 4, 4.5, 4, 4, 5, 7, 6, 4.5, 4.5, 5, 6, 7.5, 8.5, 10, 10.5, 8, 3.5)
# Room for this many impressions per user is made at first; pages that are never written cost nothing.
_ROOM = 32


@dataclass(frozen=True)
class Offer:
    """The candidate sets of one slot of N sessions.

    Attributes:
        visitors: All visits of the round; N of them are still there.
        here: int64 [N], which.
        slot: Position in the session.
        videos: int32 [N, K], index into the world's videos.
        size: int64 [N], how many of a row's candidates count, at least 1; the first one is repeated behind them.
    """

    visitors: Visitors
    here: I64
    slot: int
    videos: I32
    size: I64


@dataclass(frozen=True)
class Choice:
    """What a chooser shows.

    Attributes:
        place: int64 [N], which candidate.
        is_random: bool [N], whether a uniform draw chose it.
        scores: float32 [N, K].
        probabilities: float32 [N, K]; what lies behind a row's size has no meaning.
    """

    place: I64
    is_random: Flags
    scores: F32
    probabilities: F32


class Chooser(Protocol):
    """Picks one candidate per session."""

    def choose(self, offer: Offer) -> Choice:
        """One candidate that counts for every row of the offer."""
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
            offer: N candidate sets.

        Returns:
            The choice with its scores and mixture probabilities.
        """
        count, wanted = offer.videos.shape
        place, is_random = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.bool_)
        scores, probabilities = (np.empty((count, wanted), dtype=np.float32) for _ in range(2))
        rank(
            offer.visitors, offer.here, offer.slot, self.videos, offer.videos, offer.size, self.settings.uniform_share,
            place, is_random, scores, probabilities,
        )  # fmt: skip
        return Choice(place, is_random, scores, probabilities)


@dataclass(frozen=True)
class DayRun:
    """What happened on a day to the O users who opened the app.

    Attributes:
        user: int64 [O], index into the users.
        happened: bool [O, SESSIONS].
        impressions: int64 [O].
        app_time_s: float64 [O], seconds watched.
        pleasure: float64 [O], mean satisfaction of the day.
        log: All impressions; none when they were not kept.
    """

    user: I64
    happened: Flags
    impressions: I64
    app_time_s: F64
    pleasure: F64
    log: Impressions


class Stage(NamedTuple):
    """Everything of a day that no policy changes.

    Attributes:
        settings: The world's settings.
        users: All users.
        videos: All videos.
        candidates: What candidate generation draws from.
        day: Day counted from the feed's first day.
        start_us: Local midnight, microseconds since 1970.
        length_s: Seconds from local midnight to local midnight.
    """

    settings: WorldFeed
    users: Users
    videos: Videos
    candidates: Candidates
    day: int
    start_us: int
    length_s: float


def session_starts(settings: WorldFeed, user_id: I64, day: int, length_s: float) -> F64:
    """When users would open their sessions, in seconds after local midnight.

    Args:
        settings: The world's settings.
        user_id: int64 [O].
        day: Day counted from the feed's first day.
        length_s: Seconds from local midnight to local midnight.

    Returns:
        float64 [O, SESSIONS], infinite where the day is over; far enough apart for a gap between sessions.
    """
    edges = np.concatenate([[0.0], np.cumsum(HOURS)])
    # The last half hour is left out, so that the last session of the day has room.
    first = draws.uniform(settings.seed, "first start", user_id, day)
    share = np.interp(first, edges / edges[-1], np.linspace(0, 1, 25))
    starts = np.empty((len(user_id), SESSIONS))
    starts[:, 0] = 300.0 + share * (length_s - 2100.0)
    for session in range(1, SESSIONS):
        pause = 9_000.0 * np.exp(0.8 * draws.normal(settings.seed, "pause", user_id, day, session))
        starts[:, session] = starts[:, session - 1] + _apart_s(settings) + pause
    starts[starts > length_s - 1800.0] = np.inf
    return starts


def run_day(
    stage: Stage, user: I64, chooser: Chooser, chance: U64, sessions: Flags | None = None, keep: bool = True
) -> DayRun:
    """Let the users who opened the app have their sessions.

    Args:
        stage: The day.
        user: int64 [O], index of the users who opened the app; the same user may stand there in several copies.
        chooser: Who fills the slots.
        chance: uint64 [O], ``chance_stream`` of the seed whose chance each copy meets.
        sessions: bool [O, SESSIONS], which sessions take place; None lets the users decide.
        keep: Whether to keep every impression.

    Returns:
        The day's outcome per user, and its impressions.
    """
    settings, count = stage.settings, len(user)
    starts = session_starts(settings, stage.users.user_id[user], stage.day, stage.length_s)
    # A session ends early enough for the gap before the next start, and before midnight, even if its last
    # video is watched as often as can be.
    following = np.append(starts[:, 1:], np.full((count, 1), np.inf), axis=1) - _gap_s(settings)
    latest = np.minimum(following, stage.length_s) - MOST_REPEATS * LONGEST_S
    tally = _Tally(
        np.zeros(count, dtype=np.int64),
        np.zeros(count),
        np.zeros(count),
        empty_impressions(_ROOM * count if keep else 0, settings.slot_candidates),
    )
    happened = np.zeros((count, SESSIONS), dtype=np.bool_)
    rows = np.arange(count)
    for session in range(SESSIONS):
        if sessions is not None:
            rows = np.flatnonzero(sessions[:, session])
        visitors = visit(settings.seed, stage.users, user[rows], stage.day, session, chance[rows])
        if sessions is None and session:
            again = comes_again_today(visitors, tally.mean_pleasure()[rows]) & np.isfinite(starts[rows, session])
            rows = rows[again]
            visitors = Visitors(*(column[again] for column in visitors))
        happened[rows, session] = True
        begin = starts[rows, session]
        state = Sessions(
            row=rows,
            seen=np.empty((len(rows), MAX_SLOTS), dtype=np.int32),
            begin_s=begin,
            latest_s=latest[rows, session],
            clock_s=begin.copy(),
            mood=np.zeros(len(rows)),
        )
        _slots(stage, visitors, state, chooser, tally, keep)
    return DayRun(user, happened, tally.impressions, tally.app_time_s, tally.mean_pleasure(), tally.log.trimmed())


@dataclass
class _Tally:
    """Sums per user of the day so far, each [O], and the impressions if they are kept."""

    impressions: I64
    app_time_s: F64
    pleasure: F64
    log: Impressions

    def mean_pleasure(self) -> F64:
        mean: F64 = self.pleasure / np.maximum(self.impressions, 1)
        return mean


def _slots(stage: Stage, visitors: Visitors, state: Sessions, chooser: Chooser, tally: _Tally, keep: bool) -> None:
    """Advance the visitors slot by slot until everybody has left."""
    here = np.arange(len(state.row))
    for slot in range(MAX_SLOTS):
        if not len(here):
            break
        videos = np.empty((len(here), stage.settings.slot_candidates), dtype=np.int32)
        size = np.empty(len(here), dtype=np.int64)
        offer(visitors, state, here, slot, stage.candidates, videos, size)
        choice = chooser.choose(Offer(visitors, here, slot, videos, size))
        if keep:
            tally.log = roomier(tally.log, len(here))
        stays = np.empty(len(here), dtype=np.bool_)
        shown = (videos, size, choice.place, choice.is_random, choice.scores, choice.probabilities)
        sums = (tally.impressions, tally.app_time_s, tally.pleasure)
        live_through(
            draws.stream(stage.settings.seed, "chemistry"), visitors, state, here, slot, stage.videos, stage.day,
            stage.settings.skip_below_ms, shown, sums, stays, keep, tally.log, stage.start_us,
        )  # fmt: skip
        here = here[stays]


def _gap_s(settings: WorldFeed) -> float:
    return 60.0 * settings.session_gap_min + 60.0


def _apart_s(settings: WorldFeed) -> float:
    """Least time between two starts: the gap, the longest video, and half an hour of session."""
    return _gap_s(settings) + MOST_REPEATS * LONGEST_S + 1800.0
