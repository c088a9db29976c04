"""Counter-based random numbers: a draw depends on its keys alone, not on order, shard or batch.

Every draw is a hash of (seed, purpose, key, key, ...) mixed by the finaliser of SplitMix64 (Steele, Lea and
Flood, OOPSLA 2014). The same user, day, slot and purpose get the same number in every arm (common random
numbers), in every shard and in every order of computation.

``uniform``, ``normal`` and ``bucket`` work on arrays. Compiled loops start from ``stream`` and go on with ``mixed``,
``unit`` and ``gauss``, one number at a time: the same keys give the same bits either way.
"""

from hashlib import blake2b
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.jit import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S12, _S27, _S30, _S31 = np.uint64(12), np.uint64(27), np.uint64(30), np.uint64(31)

# Wichura, Applied Statistics 37 (1988), algorithm AS 241 (PPND16): numerators and denominators of three ranges.
_CENTRE_A = (
    3.3871328727963666080, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
)  # fmt: skip
_CENTRE_B = (
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
)  # fmt: skip
_MIDDLE_A = (
    1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
    1.27045825245236838258, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
)  # fmt: skip
_MIDDLE_B = (
    1.0, 2.05319162663775882187, 1.67638483018380384940, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
)  # fmt: skip
_TAIL_A = (
    6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
)  # fmt: skip
_TAIL_B = (
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
)  # fmt: skip


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
    return ((bits >> _S12).astype(np.float64) + 0.5) * 2.0**-52


def normal(seed: int, purpose: str, *keys: ArrayLike) -> NDArray[np.float64]:
    """Standard normal draws by inversion; arguments as in ``uniform``."""
    u = uniform(seed, purpose, *keys)
    return _gauss_all(np.ascontiguousarray(u).ravel()).reshape(u.shape)


def bucket(seed: int, purpose: str, count: int, *keys: ArrayLike) -> NDArray[np.int64]:
    """Integers from 0 to ``count`` - 1, equally likely; arguments as in ``uniform``."""
    return (uniform(seed, purpose, *keys) * count).astype(np.int64)


def stream(seed: int, purpose: str) -> np.uint64:
    """Where the hash of (seed, purpose) starts; a compiled loop mixes the keys into it with ``mixed``."""
    return np.uint64(int.from_bytes(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little"))


@compiled
def _finalised(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@compiled
def mixed(state: np.uint64, key: int) -> np.uint64:
    """The state with one more integer key mixed in."""
    return _finalised((state + _GOLDEN) ^ _finalised(np.uint64(key) + _GOLDEN))


@compiled
def unit(state: np.uint64) -> float:
    """The uniform draw on (0, 1) of a state that holds all its keys."""
    return (float(state >> _S12) + 0.5) * 2.0**-52


@compiled
def gauss(u: float) -> float:
    """The standard normal quantile of ``u`` in (0, 1); relative error about 1e-16 (AS 241, PPND16)."""
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * _polynomial(_CENTRE_A, r) / _polynomial(_CENTRE_B, r)
    r = sqrt(-log(u if q < 0 else 1.0 - u))
    if r <= 5.0:
        value = _polynomial(_MIDDLE_A, r - 1.6) / _polynomial(_MIDDLE_B, r - 1.6)
    else:
        value = _polynomial(_TAIL_A, r - 5.0) / _polynomial(_TAIL_B, r - 5.0)
    return -value if q < 0 else value


@compiled
def _polynomial(c: tuple[float, ...], x: float) -> float:
    return ((((((c[7] * x + c[6]) * x + c[5]) * x + c[4]) * x + c[3]) * x + c[2]) * x + c[1]) * x + c[0]


@compiled
def _gauss_all(u: NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.empty(len(u))
    for i in range(len(u)):
        values[i] = gauss(u[i])
    return values


def _hash(seed: int, purpose: str, keys: tuple[ArrayLike, ...]) -> NDArray[np.uint64]:
    state = np.asarray(stream(seed, purpose))
    with np.errstate(over="ignore"):
        for key in keys:
            value = np.asarray(key).astype(np.int64).astype(np.uint64)
            state = _finalise((state + _GOLDEN) ^ _finalise(value + _GOLDEN))
    return state


def _finalise(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)
