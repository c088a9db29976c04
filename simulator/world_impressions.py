"""Impressions as columns that compiled loops fill and Arrow reads without a copy."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.feed.schema import BEHAVIOURS

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]
Flags = NDArray[np.bool_]


class Impressions(NamedTuple):
    """Columns of N impressions with their candidate sets, in room for more.

    Attributes:
        filled: int64 [2], impressions and candidates that are there.
        user_id: int64 [N].
        video_id: int64 [N].
        creator_id: int64 [N].
        session: int64 [N], number within the day.
        slot: int32 [N].
        event_us: int64 [N], microseconds since 1970.
        watch_ms: int64 [N].
        duration_ms: int64 [N].
        behaviours: int8 [BEHAVIOURS, N] of 0 and 1.
        is_random: bool [N].
        propensity: float64 [N].
        ends: int32 [N + 1], where the candidate sets end, behind a zero.
        candidates: int64 [ends[N]], video ids.
        scores: float32 [ends[N]].
        probabilities: float32 [ends[N]].
    """

    filled: I64
    user_id: I64
    video_id: I64
    creator_id: I64
    session: I64
    slot: I32
    event_us: I64
    watch_ms: I64
    duration_ms: I64
    behaviours: I8
    is_random: Flags
    propensity: F64
    ends: I32
    candidates: I64
    scores: F32
    probabilities: F32

    def trimmed(self) -> "Impressions":
        """Views of the columns without the room behind them."""
        rows, flat = (int(count) for count in self.filled)
        lengths = [2] + [rows] * 11 + [rows + 1] + [flat] * 3
        return _columns(column[..., :length] for column, length in zip(_arrays(self), lengths, strict=True))


def empty_impressions(room: int, wanted: int) -> Impressions:
    """No impressions, and room for some.

    Args:
        room: For so many.
        wanted: Candidates of each.

    Returns:
        Columns whose content has no meaning yet.
    """
    numbers = [np.empty(room, dtype=kind) for kind in (*["int64"] * 4, "int32", *["int64"] * 3)]
    behaviours = np.empty((len(BEHAVIOURS), room), dtype=np.int8)
    others = [np.empty(room, dtype=np.bool_), np.empty(room), np.zeros(room + 1, dtype=np.int32)]
    lists = [np.empty(room * wanted, dtype=kind) for kind in ("int64", "float32", "float32")]
    return _columns([np.zeros(2, dtype=np.int64), *numbers, behaviours, *others, *lists])


def roomier(log: Impressions, more: int) -> Impressions:
    """The same impressions with room for at least ``more``; half as much again where it must grow."""
    room, rows = len(log.user_id), int(log.filled[0])
    if rows + more <= room:
        return log
    wanted = len(log.candidates) // max(room, 1)
    larger = empty_impressions(max(rows + more, room + room // 2), wanted)
    for old, new in zip(_arrays(log), _arrays(larger), strict=True):
        new[..., : old.shape[-1]] = old
    return larger


def _arrays(log: Impressions) -> tuple[NDArray[Any], ...]:
    return tuple(log)


def _columns(arrays: Iterable[NDArray[Any]]) -> Impressions:
    return Impressions._make(arrays)
