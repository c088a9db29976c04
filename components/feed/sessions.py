"""Sessions of a log that has none: cut where a user pauses, named so that every reading gives the same ids."""

import numpy as np
from numpy.typing import NDArray

from simulator.draws import bucket


def cut_sessions(user: NDArray[np.int64], time: NDArray[np.int64], gap_us: int) -> NDArray[np.int64]:
    """Session ids of rows ordered by user and time.

    Args:
        user: User ids.
        time: Moments in microseconds.
        gap_us: A pause of at least this long between two exposures of a user begins a session.

    Returns:
        Per row a hash of the user and the first moment of the session, never negative.
    """
    begins = np.ones(len(user), dtype=bool)
    begins[1:] = (user[1:] != user[:-1]) | (time[1:] - time[:-1] >= gap_us)
    first = time[begins][np.cumsum(begins) - 1]
    # 63 bits from two draws, so that an id is never negative.
    high, low = bucket(0, "session/high", 2**31, user, first), bucket(0, "session/low", 2**32, user, first)
    ids: NDArray[np.int64] = (high << 32) | low
    return ids


def count_within(user: NDArray[np.int64], session: NDArray[np.int64]) -> NDArray[np.int32]:
    """Rank of each row among the rows of its user's session, from 0, in the given order.

    Args:
        user: User ids.
        session: Session ids, which need not be unique over users.

    Returns:
        int32 of the same length.
    """
    order = np.lexsort((session, user))
    begins = np.ones(len(user), dtype=bool)
    begins[1:] = (user[order][1:] != user[order][:-1]) | (session[order][1:] != session[order][:-1])
    place = np.arange(len(user))
    rank = np.empty(len(user), dtype=np.int32)
    rank[order] = place - place[begins][np.cumsum(begins) - 1]
    return rank
