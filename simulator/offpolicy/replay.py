"""Replay on uniform exposures: what a policy's choice earned where chance happened to show it.

Li, Chu, Langford and Wang (WSDM 2011, algorithm 2): a round counts when the policy's choice is what was shown at
random; the mean reward of these rounds is unbiased for the policy's value. In our terms it is ``snips`` with a constant
propensity.

Over a pool of thousands a policy's choice is hardly ever what was shown. So each exposure's policy chooses among a
random set of K candidates that contains the logged one: K - 1 decoys are drawn uniformly and without replacement from
the rest of the pool that was eligible then. Given the set, each member is equally likely to be the logged one, so
the logged item's propensity is 1 / K. Estimand: the policy's mean reward when it ranks a random set of K of the pool.

Where the exposures are not quite uniform, and the pool's members are exposed in proportion to known ``rates`` f,
the same argument gives the propensity f(logged) / (sum of f over the set); sets then count in proportion to that sum.

Draws are keyed by (seed, user, exposure, place): sets depend neither on shards nor on the order of rounds.
"""

import numpy as np

from components.errors import ConfigError
from simulator import draws
from simulator.jit import compiled
from simulator.offpolicy.rounds import Candidates, FloatArray, IntArray

_PURPOSE = "replay decoys"


def random_sets(
    *, seed: int, size: int, user: IntArray, exposure: IntArray, logged: IntArray, eligible: IntArray
) -> Candidates:
    """A random candidate set around each of N uniform exposures.

    Args:
        seed: Of the draws.
        size: K, candidates of a set, at least 2; a smaller pool gives smaller sets.
        user: int64 [N].
        exposure: int64 [N], unique within a user.
        logged: int64 [N], the shown item's index in the pool.
        eligible: int64 [N], how many of the pool's members could be shown then: those with smaller indices, so a pool
            is ordered by when its members join. 1 to the pool's size.

    Returns:
        N sets of indices into the pool, the logged one first in each. A logged item that was not eligible has a set
        without it, so that its round is refused by the estimators.

    Raises:
        ConfigError: When K is below 2, lengths disagree, or a pool has no eligible member.
    """
    if size < 2:
        raise ConfigError(f"replay needs sets of at least 2 candidates to choose from, not {size}")
    if len({len(user), len(exposure), len(logged), len(eligible)}) != 1:
        raise ConfigError("replay: users, exposures, logged items and pools differ in length")
    if len(eligible) and (eligible.min() < 1 or logged.min() < 0):
        raise ConfigError("replay: an exposure's pool is empty, or its logged item is not in it")
    sizes = np.minimum(eligible, size)
    offsets = np.append(0, np.cumsum(sizes)).astype(np.int64)
    ids = _draw(draws.stream(seed, _PURPOSE), user, exposure, logged, eligible, offsets)
    return Candidates(offsets, ids, np.where(logged < eligible, offsets[:-1], -1))


def set_propensity(candidates: Candidates, rates: FloatArray | None = None) -> FloatArray:
    """Propensity of the logged item within its random set.

    Args:
        candidates: Of ``random_sets``.
        rates: float64 [pool], how often each member is exposed, any scale; None where exposures are uniform.

    Returns:
        float64 [N]: 1 / K, or the logged item's share of its set's rates; NaN where it is not in the set.
    """
    sizes = np.diff(candidates.offsets)
    known = candidates.logged >= 0
    if rates is None:
        return np.where(known, 1.0 / np.maximum(sizes, 1), np.nan)
    share = np.full(len(candidates), np.nan)
    of_set = np.add.reduceat(rates[candidates.ids], candidates.offsets[:-1]) if len(candidates) else np.empty(0)
    share[known] = rates[candidates.ids[candidates.logged[known]]] / of_set[known]
    return share


@compiled
def _draw(
    state: np.uint64, user: IntArray, exposure: IntArray, logged: IntArray, eligible: IntArray, offsets: IntArray
) -> IntArray:
    """The logged one and K - 1 of the others by Floyd's sampling (Bentley and Floyd, CACM 1987, algorithm F2)."""
    ids = np.empty(offsets[-1], dtype=np.int64)
    for i in range(len(user)):
        first, last = offsets[i], offsets[i + 1]
        inside = logged[i] < eligible[i]
        # Draws are from the pool without the logged item: indices from it on stand for the next ones.
        others = eligible[i] - 1 if inside else eligible[i]
        at = first
        if inside:
            ids[first] = logged[i]
            at += 1
        key = draws.mixed(draws.mixed(state, user[i]), exposure[i])
        start = at
        for j in range(others - (last - at), others):
            drawn = int(draws.unit(draws.mixed(key, j)) * (j + 1))
            other = drawn + 1 if inside and drawn >= logged[i] else drawn
            for k in range(start, at):
                if ids[k] == other:
                    # Already there: j itself can not be, since it was out of reach until now.
                    other = j + 1 if inside and j >= logged[i] else j
                    break
            ids[at] = other
            at += 1
    return ids
