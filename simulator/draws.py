"""Counter-based random numbers: a draw depends on its keys alone, not on order, shard or batch.

Every draw is a hash of (seed, purpose, key, key, ...) mixed by the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014). The same user, day, slot and purpose get the same number in every arm (common random
numbers), in every shard and in every order of computation.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """Uniform draws on the open interval (0, 1).

    Args:
        seed: The experiment's or the world's seed.
        purpose: What the number is for; different purposes give independent streams.
        *keys: Integers or integer arrays that broadcast against each other, e.g. user ids and slots.

    Returns:
        float64 array of the broadcast shape of the keys.
    """
    bits = _hash(seed, purpose, keys)
    # 52 bits, shifted by half a step: never 0, and exactly representable, so never rounded up to 1.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """Standard normal draws by inversion; arguments as in ``uniform``."""
    values: NDArray[np.float64] = ndtri(uniform(seed, purpose, *keys))
    return values


def bucket(seed: int, purpose: str, count: int, *keys: ArrayLike) -> NDArray[np.int64]:
    """Integers from 0 to ``count`` - 1, equally likely; arguments as in ``uniform``."""
    return (uniform(seed, purpose, *keys) * count).astype(np.int64)


def _hash(seed: int, purpose: str, keys: tuple[ArrayLike, ...]) -> NDArray[np.uint64]:
    start = int.from_bytes(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little")
    state = np.asarray(start, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            value = np.asarray(key).astype(np.int64).astype(np.uint64)
            state = _finalise((state + _GOLDEN) ^ _finalise(value + _GOLDEN))
    return state


def _finalise(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
