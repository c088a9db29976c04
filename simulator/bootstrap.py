"""User-level bootstrap of differences and relative lifts, by Poisson counts that need no other user.

Unit of analysis: the user. In resample r every user counts c times, c ~ Poisson(1), drawn by a hash of (seed, user, r)
(Chamandy, Muralidharan, Najmi and Naidu, Estimating Uncertainty for Massive Data Streams, Google 2012, section 3;
Hanley and MacGibbon, Computer Methods and Programs in Biomedicine 2006). A user's counts depend on no other user, so
the weighted sums of shards, days and segments add up, whatever the order. No user is put into a bucket with others.
The number of users in a resample varies, as under multinomial counts it does not; a mean or a ratio of means divides
by it, and the two agree as users grow.

The counts' distribution is Poisson(1) rounded to multiples of 2^-16 and cut at 8: its mean and variance lie within
0.0001 of 1.

Intervals are percentile intervals (Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, section
10.4). With an ensemble, resample r is of member r mod M, and users are resampled within each member (Schomaker and
Heumann, Statistics in Medicine 2018, method "MI Boot"). The distances from the estimate to the percentiles, which keep
the resamples' skewness, are then both stretched as much as Rubin's rules stretch a normal interval of users alone:
times sqrt(total / within variance) times the t quantile over the normal one. Percentiles of all members' resamples
pooled would leave out what few members do not tell. One member gives the plain percentile interval.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from math import exp, factorial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from components.errors import ConfigError
from simulator import draws
from simulator.inference import Effect, rubin
from simulator.jit import compiled

FloatArray = NDArray[np.float64]

# Users per block: sums of blocks are added in order, so the bits do not depend on the number of threads.
BLOCK = 16_384
FEWEST_RESAMPLES = 100

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)


def _limits() -> tuple[np.uint16, ...]:
    """Of a 16-bit number u: a Poisson(1) count is the number of limits that u reaches."""
    shares = [exp(-1) / factorial(k) for k in range(8)]
    return tuple(np.uint16(min(round(65536 * sum(shares[: k + 1])), 65535)) for k in range(8))


_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = _limits()


@dataclass(frozen=True, eq=False)
class Resamples:
    """Weighted sums of R resamples, and the sums that they vary around; users, shards and days add up with ``+``.

    Attributes:
        n_t: Users of the treatment.
        n_b: Users of the baseline, the same users in the paired design.
        t: Sum of the treatment's values.
        b: Sum of the baseline's values.
        count_t: float64 [R], how many users of the treatment each resample holds.
        count_b: float64 [R], of the baseline.
        total_t: float64 [R], sum of the treatment's values.
        total_b: float64 [R], of the baseline's.
    """

    n_t: int
    n_b: int
    t: float
    b: float
    count_t: FloatArray
    count_b: FloatArray
    total_t: FloatArray
    total_b: FloatArray

    def __add__(self, other: "Resamples") -> "Resamples":
        return Resamples(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def resample_paired(
    user_id: NDArray[np.int64],
    treatment: FloatArray,
    baseline: FloatArray,
    draw: "Draw",
    threads: int = 1,
) -> Resamples:
    """Resample users that were simulated in both arms.

    Args:
        user_id: int64 [n], what a user's counts are keyed by.
        treatment: float64 [n], one value per user.
        baseline: float64 [n], the same users in the same order.
        draw: Seed, resamples, and the member that the values are of.
        threads: Threads; they change the time, never the bits.

    Returns:
        Sums; memory beside the input does not grow with n.
    """
    count, total_t, total_b = _sums(user_id, treatment, baseline, draw, threads)
    n = len(user_id)
    return Resamples(n, n, float(treatment.sum()), float(baseline.sum()), count, count, total_t, total_b)


def resample_split(
    treatment_id: NDArray[np.int64],
    treatment: FloatArray,
    baseline_id: NDArray[np.int64],
    baseline: FloatArray,
    draw: "Draw",
    threads: int = 1,
) -> Resamples:
    """Resample users of the split design, each arm's by themselves.

    Args:
        treatment_id: int64 [n_t], users of the treatment.
        treatment: float64 [n_t], one value per user.
        baseline_id: int64 [n_b], users of the baseline, others than the treatment's.
        baseline: float64 [n_b], one value per user.
        draw: As for ``resample_paired``.
        threads: As for ``resample_paired``.

    Returns:
        Sums.
    """
    count_t, total_t, _ = _sums(treatment_id, treatment, np.zeros(len(treatment)), draw, threads)
    count_b, _, total_b = _sums(baseline_id, np.zeros(len(baseline)), baseline, draw, threads)
    return Resamples(
        n_t=len(treatment_id),
        n_b=len(baseline_id),
        t=float(treatment.sum()),
        b=float(baseline.sum()),
        count_t=count_t,
        count_b=count_b,
        total_t=total_t,
        total_b=total_b,
    )


@dataclass(frozen=True)
class Draw:
    """Which resamples are drawn.

    Attributes:
        seed: Of every count.
        resamples: R over all members.
        member: Ensemble member that the values are of; it gets resamples member, member + members, ...
        members: Ensemble members, M.
    """

    seed: int
    resamples: int
    member: int = 0
    members: int = 1

    def __post_init__(self) -> None:
        if self.resamples < FEWEST_RESAMPLES or not 0 <= self.member < self.members:
            raise ConfigError(
                f"bootstrap: {self.resamples} resamples, member {self.member} of {self.members}; "
                f"at least {FEWEST_RESAMPLES} resamples and a member below the number of members are needed"
            )


def bootstrap(members: Sequence[Resamples], confidence: float, what: Literal["difference", "relative"]) -> Effect:
    """Percentile interval of E[T] - E[B] or of E[T] / E[B] - 1 over users.

    Args:
        members: One per ensemble member, of the same users.
        confidence: Of the two-sided interval.
        what: The difference, or the relative lift as a fraction.

    Returns:
        The estimate with its interval and standard error, users and ensemble, or why there is none. There is no
        p-value: a percentile interval is no test.
    """
    smallest = min((min(m.n_t, m.n_b) for m in members), default=0)
    if smallest < 2:
        return Effect(None, reason="no user to resample" if smallest == 0 else "only one user: nothing to resample")
    if what == "relative" and any(m.b <= 0 for m in members):
        return Effect(None, reason="the baseline's mean is not above 0: a relative lift needs one that is")
    values, spread = [], []
    for m in members:
        unusable = int(((m.count_t <= 0) | (m.count_b <= 0) | ((what == "relative") & (m.total_b <= 0))).sum())
        if unusable:
            where = "an empty arm" if what == "difference" else "an empty arm or a baseline that is not above 0"
            return Effect(None, reason=f"{unusable} of {len(m.count_t)} resamples have {where}: too few users")
        t, b = m.total_t / m.count_t, m.total_b / m.count_b
        values.append(_compared(m.t / m.n_t, m.b / m.n_b, what))
        spread.append(t - b if what == "difference" else t / b - 1)
        if np.ptp(spread[-1]) <= 1e-12 * (np.abs(t).max() if what == "difference" else 1.0):
            # Without variation between users nothing is known of other users, whatever the ensemble says.
            same = f"every user has the same value ({values[-1]:.4g}): no interval can be computed"
            return Effect(values[-1], reason=same)
    value, variances = float(np.mean(values)), [float(one.var(ddof=1)) for one in spread]
    ends = np.array([0.5 - confidence / 2, 0.5 + confidence / 2])
    total, df = rubin(values, variances, smallest - 1.0)
    if len(members) == 1:
        low, high = np.quantile(spread[0], ends)
        return Effect(value, float(low), float(high), se=float(np.sqrt(total)))
    apart = np.quantile(np.concatenate([one - v for one, v in zip(spread, values, strict=True)]), ends)
    stretch = np.sqrt(total / np.mean(variances)) * stats.t.ppf(ends[1], df) / stats.norm.ppf(ends[1])
    low, high = value + apart * stretch
    return Effect(value, float(low), float(high), se=float(np.sqrt(total)), df=df)


def _compared(t: float, b: float, what: Literal["difference", "relative"]) -> float:
    return t - b if what == "difference" else t / b - 1


def _sums(
    user_id: NDArray[np.int64], t: FloatArray, b: FloatArray, draw: Draw, threads: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    # Compiled functions hand plain integers back; a signed one would turn the hash into floating point.
    state = np.uint64(draws.mixed(draws.stream(draw.seed, "bootstrap"), draw.member))
    size = len(range(draw.member, draw.resamples, draw.members))
    user_id = np.ascontiguousarray(user_id, dtype=np.int64)
    t, b = (np.ascontiguousarray(values, dtype=np.float64) for values in (t, b))

    def block(start: int) -> FloatArray:
        rows = slice(start, start + BLOCK)
        sums = np.zeros((3, size))
        _add(state, user_id[rows], t[rows], b[rows], sums)
        return sums

    starts = range(0, len(user_id), BLOCK)
    found = np.zeros((3, size))
    with ThreadPoolExecutor(threads) as pool:
        # A few blocks at a time: what waits to be added up stays small however many users there are.
        for i in range(0, len(starts), 4 * threads):
            for sums in pool.map(block, starts[i : i + 4 * threads]):
                found += sums
    return found[0], found[1], found[2]


@compiled
def _add(state: np.uint64, user_id: NDArray[np.int64], t: FloatArray, b: FloatArray, sums: FloatArray) -> None:
    """Add users' counts and weighted values to the resamples' sums [3, R].

    A user's 64-bit words are the stream of SplitMix64 that the user's hash starts; each gives four counts.
    """
    count, total_t, total_b = sums[0], sums[1], sums[2]
    words = np.empty((len(count) + 3) // 4, dtype=np.uint64)
    lanes = words.view(np.uint16)
    for i in range(len(user_id)):
        counter = draws.mixed(state, user_id[i])
        for w in range(len(words)):
            x = counter + _GOLDEN * np.uint64(w + 1)
            x = (x ^ (x >> _S30)) * _MIX_1
            x = (x ^ (x >> _S27)) * _MIX_2
            words[w] = x ^ (x >> _S31)
        y, z = t[i], b[i]
        for r in range(len(count)):
            u = lanes[r]
            # Comparisons instead of a search: the compiler turns them into vector instructions.
            c = float(
                np.uint16(u >= _L0)
                + np.uint16(u >= _L1)
                + np.uint16(u >= _L2)
                + np.uint16(u >= _L3)
                + np.uint16(u >= _L4)
                + np.uint16(u >= _L5)
                + np.uint16(u >= _L6)
                + np.uint16(u >= _L7)
            )
            count[r] += c
            total_t[r] += c * y
            total_b[r] += c * z
