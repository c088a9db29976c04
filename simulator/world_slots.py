"""What happens in one slot, as compiled loops over the visitors who are still there."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.feed.schema import BEHAVIOURS
from simulator.draws import gauss, mixed, unit
from simulator.jit import compiled
from simulator.world_behaviour import (
    INTERACTING,
    INTERACTIONS,
    LEAVING,
    MOMENT,
    OPENING,
    PAUSE,
    WATCH_TIME,
    WATCHING,
    Visitors,
    affinity,
    appeal,
    drivers,
    leaves,
    next_mood,
    opens_after_ms,
    satisfaction,
    sigmoid,
    swipe_pause_s,
    watch_ms,
)
from simulator.world_impressions import Impressions
from simulator.world_population import Videos, fading

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
Flags = NDArray[np.bool_]

_TOPICS_BACK = 3
# Draws per slot beyond one and a half times the wanted candidates, to make up for doubles and for videos already shown.
_SPARE = 4
# Keys of the ranker's draws behind those of the candidates' noise.
_KIND, _PICK = 1_000, 1_001
_CLICK, _FINISH, _SKIP, _LONG_VIEW = (BEHAVIOURS.index(name) for name in ("click", "finish", "skip", "long_view"))
_INTERACTIONS = tuple(BEHAVIOURS.index(name) for name in INTERACTIONS)
_LONG_VIEW_MS = 18_000


class Candidates(NamedTuple):
    """A day's distribution over live videos, for a draw in one look-up (Walker's alias method).

    Attributes:
        share: float64 [L], part of each cell that is its first video's.
        first: int32 [L], index into the videos.
        second: int32 [L], index into the videos.
    """

    share: F64
    first: I32
    second: I32


class Sessions(NamedTuple):
    """R sessions as they go on.

    Attributes:
        row: int64 [R], row of the user in the day's sums.
        seen: int32 [R, MAX_SLOTS], index of the videos shown so far.
        begin_s: float64 [R], seconds after local midnight.
        latest_s: float64 [R], after this no video starts.
        clock_s: float64 [R], when the next video starts.
        mood: float64 [R], running average of satisfaction.
    """

    row: I64
    seen: I32
    begin_s: F64
    latest_s: F64
    clock_s: F64
    mood: F64


def candidates_of(videos: Videos, day: int) -> Candidates:
    """What candidate generation draws from on a day.

    A video joins at the local midnight after its upload. Its weight is its popularity, which fades with age.

    Args:
        videos: At least all videos uploaded before the day.
        day: Day counted from the feed's first day.

    Returns:
        The distribution over live videos.
    """
    live = np.flatnonzero(videos.uploaded_day < day).astype(np.int32)
    weights = np.exp(videos.popularity[live]) * fading(day - videos.uploaded_day[live])
    share, second = _alias(weights * (len(live) / weights.sum()))
    return Candidates(share, live, live[second])


@compiled
def _alias(weights: F64) -> tuple[F64, I32]:
    """Cells of equal size for weights of mean 1: the first video's share of each, and the place of the second."""
    count = len(weights)
    rest = weights.copy()
    share, second = np.ones(count), np.arange(count).astype(np.int32)
    # Places below 1 from the front, others from the back.
    stack = np.empty(count, dtype=np.int64)
    small, large = 0, count
    for place in range(count):
        if rest[place] < 1.0:
            stack[small] = place
            small += 1
        else:
            large -= 1
            stack[large] = place
    while small > 0 and large < count:
        small -= 1
        poor, rich = stack[small], stack[large]
        share[poor], second[poor] = rest[poor], rich
        rest[rich] -= 1.0 - rest[poor]
        if rest[rich] < 1.0:
            large += 1
            stack[small] = rich
            small += 1
    return share, second


@compiled
def offer(
    visitors: Visitors, state: Sessions, here: I64, slot: int, candidates: Candidates, videos: I32, size: I64
) -> None:
    """Candidates of a slot: the first distinct ones of a sequence of draws that the session has not shown yet.

    Args:
        visitors: R visitors.
        state: Their sessions.
        here: int64 [N], who is still there.
        slot: Position in the session.
        candidates: The day's distribution.
        videos: int32 [N, K], filled with the candidates.
        size: int64 [N], filled with their numbers; behind them the first one is repeated.
    """
    cells, wanted = len(candidates.first), videos.shape[1]
    most = wanted + wanted // 2 + _SPARE
    for n in range(len(here)):
        i = here[n]
        at = mixed(visitors.offers[i], slot)
        found = 0
        # In a pool hardly larger than a session all may have been shown: then showing one again is the only way.
        for again in range(2):
            for draw in range(most):
                x = unit(mixed(at, draw)) * cells
                cell = int(x)
                video = candidates.first[cell] if x - cell < candidates.share[cell] else candidates.second[cell]
                new = True
                for k in range(found):
                    new = new and videos[n, k] != video
                if again == 0:
                    for k in range(slot):
                        new = new and state.seen[i, k] != video
                if new:
                    videos[n, found] = video
                    found += 1
                    if found == wanted:
                        break
            if found > 0:
                break
        size[n] = found
        for k in range(found, wanted):
            videos[n, k] = videos[n, 0]


@compiled
def rank(
    visitors: Visitors,
    here: I64,
    slot: int,
    videos: Videos,
    offered: I32,
    size: I64,
    uniform_share: float,
    place: I64,
    is_random: Flags,
    scores: F32,
    probabilities: F32,
) -> None:
    """What the production ranker shows.

    Args:
        visitors: R visitors.
        here: int64 [N], who is still there.
        slot: Position in the session.
        videos: All videos.
        offered: int32 [N, K], candidates.
        size: int64 [N], how many of them count.
        uniform_share: Share of slots that a uniform draw fills.
        place: int64 [N], filled with what is shown.
        is_random: bool [N], filled: whether a uniform draw chose it.
        scores: float32 [N, K], filled.
        probabilities: float32 [N, K], filled with those of the mixture.
    """
    weights = np.empty(offered.shape[1])
    for n in range(len(here)):
        i, count = here[n], size[n]
        at = mixed(visitors.ranking[i], slot)
        best = -np.inf
        for k in range(offered.shape[1]):
            video = offered[n, k]
            scores[n, k] = np.float32(
                0.9 * affinity(visitors.estimate, i, videos.latent, video)
                + 0.35 * videos.quality[video]
                + 0.2 * videos.popularity[video]
                + 0.45 * gauss(unit(mixed(at, k)))
            )
            if k < count:
                best = max(best, float(scores[n, k]))
        total = 0.0
        for k in range(count):
            # Probabilities come from the rounded score, the one that is logged.
            weights[k] = np.exp(float(scores[n, k]) - best)
            total += weights[k]
        for k in range(offered.shape[1]):
            probabilities[n, k] = np.float32(
                (1 - uniform_share) * weights[min(k, count - 1)] / total + uniform_share / count
            )
        is_random[n] = unit(mixed(at, _KIND)) < uniform_share
        pick = unit(mixed(at, _PICK))
        if is_random[n]:
            place[n] = int(pick * count)
            continue
        place[n] = count - 1
        below = 0.0
        for k in range(count):
            below += weights[k]
            if pick * total < below:
                place[n] = k
                break


@compiled
def live_through(
    chemistry: np.uint64,
    visitors: Visitors,
    state: Sessions,
    here: I64,
    slot: int,
    videos: Videos,
    day: int,
    skip_below_ms: int,
    shown: tuple[I32, I64, I64, Flags, F32, F32],
    sums: tuple[I64, F64, F64],
    stays: Flags,
    keep: bool,
    log: Impressions,
    start_us: int,
) -> None:
    """What the visitors do with the video that is shown: watch it, react, stay or leave.

    Args:
        chemistry: Stream of the chemistry between user and video.
        visitors: R visitors.
        state: Their sessions, advanced.
        here: int64 [N], who is still there.
        slot: Position in the session.
        videos: All videos.
        day: Day counted from the feed's first day.
        skip_below_ms: Watching less than this, and not to the end, is a skip.
        shown: Candidates int32 [N, K], how many count int64 [N], place of the shown one int64 [N], whether a
            uniform draw chose it bool [N], scores and probabilities float32 [N, K].
        sums: Impressions int64, seconds watched and satisfaction float64 of the day's users, increased.
        stays: bool [N], filled.
        keep: Whether to append the impressions to ``log``.
        log: With room for N more.
        start_us: Local midnight, microseconds since 1970.
    """
    offered, size, place, is_random, scores, probabilities = shown
    flags = np.zeros(len(BEHAVIOURS), dtype=np.int8)
    for n in range(len(here)):
        i = here[n]
        video = offered[n, place[n]]
        at = mixed(visitors.chance[i], slot)
        repeats = 0
        for back in range(max(slot - _TOPICS_BACK, 0), slot):
            repeats += videos.topic[state.seen[i, back]] == videos.topic[video]
        pleasure = satisfaction(
            appeal(visitors, i, videos, video, day),
            repeats,
            gauss(unit(mixed(mixed(chemistry, visitors.user_id[i]), videos.video_id[video]))),
            gauss(unit(mixed(at, MOMENT))),
        )
        duration = videos.duration_ms[video]
        watched = watch_ms(duration, pleasure, unit(mixed(at, WATCHING)), gauss(unit(mixed(at, WATCH_TIME))))
        state.seen[i, slot] = video
        if keep:
            finish = watched >= duration
            click = finish or (watched > 0 and watched >= opens_after_ms(gauss(unit(mixed(at, OPENING)))))
            flags[_CLICK], flags[_FINISH], flags[_LONG_VIEW] = click, finish, watched >= min(duration, _LONG_VIEW_MS)
            flags[_SKIP] = watched < skip_below_ms and not finish
            logits = drivers(visitors, i, videos, video, day, pleasure)
            for k in range(len(_INTERACTIONS)):
                flags[_INTERACTIONS[k]] = watched > 0 and unit(mixed(at, INTERACTING + k)) < sigmoid(logits[k])
            _append(log, visitors, i, slot, videos, video, watched, flags)
            row = log.filled[0]
            log.event_us[row] = start_us + int(state.clock_s[i] * 1e6 + 0.5)
            log.is_random[row] = is_random[n]
            log.propensity[row] = probabilities[n, place[n]]
            end = log.filled[1]
            for k in range(size[n]):
                log.candidates[end + k] = videos.video_id[offered[n, k]]
                log.scores[end + k] = scores[n, k]
                log.probabilities[end + k] = probabilities[n, k]
            log.ends[row + 1] = end + size[n]
            log.filled[0] += 1
            log.filled[1] += size[n]
        user = state.row[i]
        sums[0][user] += 1
        sums[1][user] += watched / 1000.0
        sums[2][user] += pleasure
        state.clock_s[i] += watched / 1000.0 + swipe_pause_s(gauss(unit(mixed(at, PAUSE))))
        state.mood[i] = next_mood(state.mood[i], pleasure)
        leave = leaves(visitors, i, state.mood[i], (state.clock_s[i] - state.begin_s[i]) / 60.0)
        stays[n] = unit(mixed(at, LEAVING)) >= leave and state.clock_s[i] <= state.latest_s[i]


@compiled
def _append(
    log: Impressions, visitors: Visitors, i: int, slot: int, videos: Videos, video: int, watched: int, flags: I8
) -> None:
    """The part of a new row that needs no candidates."""
    row = log.filled[0]
    log.user_id[row] = visitors.user_id[i]
    log.session[row] = visitors.session[i]
    log.slot[row] = slot
    log.video_id[row] = videos.video_id[video]
    log.creator_id[row] = videos.creator[video]
    log.watch_ms[row] = watched
    log.duration_ms[row] = videos.duration_ms[video]
    for k in range(len(flags)):
        log.behaviours[k, row] = flags[k]
