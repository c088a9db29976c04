"""Rows that contradict themselves, or each other: labels that their own watching rules out, one place shown twice."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

# Lengths are often rounded to the second, watching is not.
FINISH_SLACK_MS = 1_000

LABEL_REASONS = ("unwatched_finish", "unwatched_long_view", "finished_skip", "repeated_position")


def contradictions(log: pa.Table, duration: pa.ChunkedArray) -> dict[str, Mask]:
    """Which rows can not have happened.

    Args:
        log: Rows as delivered; labels, session and position may be absent.
        duration: Length of each row's video in milliseconds, null = unknown.

    Returns:
        A mask per reason of ``LABEL_REASONS``: finished without being watched to the end, viewed long without
        playing, skipped and finished at once, at a position of a session that an earlier row has.
    """
    watch = log.column("watch_ms")
    short = pc.less(watch, pc.subtract(duration, FINISH_SLACK_MS))
    finish, long_view, skip = (_is_one(log, name) for name in ("finish", "long_view", "skip"))
    return {
        "unwatched_finish": finish & _true(short),
        "unwatched_long_view": long_view & _true(pc.less_equal(watch, 0)),
        "finished_skip": finish & skip,
        "repeated_position": _repeated(log),
    }


def _repeated(log: pa.Table) -> Mask:
    if not {"session_id", "position"} <= set(log.column_names):
        return np.zeros(log.num_rows, dtype=bool)
    keys = [log.column(name) for name in ("session_id", "position")]
    known = np.flatnonzero(_true(pc.and_(pc.is_valid(keys[0]), pc.is_valid(keys[1]))))
    pairs = np.stack([pc.take(key, pa.array(known)).to_numpy().astype(np.int64) for key in keys], axis=1)
    repeated = np.zeros(log.num_rows, dtype=bool)
    if len(pairs):
        order = np.lexsort((np.arange(len(pairs)), pairs[:, 1], pairs[:, 0]))
        same = (pairs[order][1:] == pairs[order][:-1]).all(axis=1)
        repeated[known[order[1:][same]]] = True
    return repeated


def _is_one(log: pa.Table, name: str) -> Mask:
    if name not in log.column_names:
        return np.zeros(log.num_rows, dtype=bool)
    return _true(pc.equal(log.column(name), 1))


def _true(mask: pa.ChunkedArray) -> Mask:
    """A comparison as a numpy mask; null, the answer for an unknown value, is false."""
    result: Mask = pc.fill_null(mask, False).combine_chunks().to_numpy(zero_copy_only=False)
    return result
