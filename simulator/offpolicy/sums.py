"""Sufficient statistics of logged rounds: sums per user, counts of what can not be used, and the weights' tail.

All of them add up over chunks and shards with ``+``. A user's sums are kept apart from other users' because the user
is the unit of analysis: intervals need the spread between users, and a difference of two arms needs it pair by pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from components.errors import ConfigError
from simulator.jit import compiled
from simulator.offpolicy.rounds import FloatArray, IntArray, Rounds

# Columns of the sums, each over a user's rounds; w = pi(a|x) / pi_0(a|x), the importance weight.
COLUMNS = ("rounds", "matched", "weight", "weighted_reward", "residual", "expected", "switched", "shrunk")

# Weights above this are refused: their squares would overflow.
LARGEST_WEIGHT = 1e150

# A weight's histogram bin: its exponent and the first 8 bits of its mantissa, so bins are at most 0.4 % wide.
_BIN_SHIFT = 44


@dataclass(frozen=True)
class Shrinkage:
    """Constants of the two estimators that trade variance for bias.

    Attributes:
        switch: lambda of Switch-DR: rounds with a larger weight rely on the reward model alone.
        dros: lambda of DRos: a weight w becomes lambda w / (w^2 + lambda).
    """

    switch: float = 10.0
    dros: float = 100.0

    def __post_init__(self) -> None:
        for name in ("switch", "dros"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"lambda of {name} is {getattr(self, name)}; it must be 0 or above")


@dataclass(frozen=True)
class Unusable:
    """How many rounds no weight, or no model value, can be computed for; they add up.

    Attributes:
        unknown: Propensity is missing.
        impossible: Propensity is 0 or below, or above 1.
        no_policy: The target's probability is missing, below 0 or above 1.
        overflowing: The weight is above ``LARGEST_WEIGHT``.
        no_reward: Reward is not finite.
        no_value: The reward model's value is not finite.
    """

    unknown: int = 0
    impossible: int = 0
    no_policy: int = 0
    overflowing: int = 0
    no_reward: int = 0
    no_value: int = 0

    def __add__(self, other: "Unusable") -> "Unusable":
        return Unusable(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class WeightTail:
    """Histogram of the positive weights; it adds up, and its quantiles are right within a bin (0.4 %).

    Attributes:
        key: int64 [B], ascending: the leading bits of the weights of a bin.
        count: int64 [B], weights in it.
        total: float64 [B], their sum.
        largest: The largest weight, 0 without any.
    """

    key: IntArray
    count: IntArray
    total: FloatArray
    largest: float

    @classmethod
    def of(cls, weights: FloatArray) -> "WeightTail":
        """Of positive, finite weights, float64 [N]."""
        bits = np.ascontiguousarray(weights).view(np.int64) >> _BIN_SHIFT
        key, at = np.unique(bits, return_inverse=True)
        count = np.bincount(at, minlength=len(key)).astype(np.int64)
        total = np.bincount(at, weights, minlength=len(key)).astype(np.float64)
        return cls(key.astype(np.int64), count, total, float(weights.max(initial=0.0)))

    def __add__(self, other: "WeightTail") -> "WeightTail":
        key, at = np.unique(np.concatenate([self.key, other.key]), return_inverse=True)
        count = np.zeros(len(key), dtype=np.int64)
        total = np.zeros(len(key))
        np.add.at(count, at, np.concatenate([self.count, other.count]))
        np.add.at(total, at, np.concatenate([self.total, other.total]))
        return WeightTail(key, count, total, max(self.largest, other.largest))

    def quantile(self, share: float, rounds: int) -> float:
        """The weight that ``share`` of all rounds do not exceed; rounds without a weight count as weight 0.

        Args:
            share: Between 0 and 1.
            rounds: All rounds, those of weight 0 too.

        Returns:
            The mean of the bin that the quantile falls into.
        """
        rank = int(np.ceil(share * rounds)) - (rounds - int(self.count.sum()))
        if rank <= 0:
            return 0.0
        at = int(np.searchsorted(np.cumsum(self.count), rank))
        return float(self.total[at] / self.count[at])

    def top_share(self, share: float, rounds: int) -> float | None:
        """Share of the weights' total that the largest ``share`` of all rounds hold; None when it is 0."""
        whole = float(self.total.sum())
        if whole == 0:
            return None
        left = min(int(np.ceil(share * rounds)), int(self.count.sum()))
        held = 0.0
        for count, total in zip(self.count[::-1], self.total[::-1], strict=True):
            taken = min(left, int(count))
            held += float(total) * taken / int(count)
            left -= taken
            if not left:
                break
        return held / whole


@dataclass(frozen=True)
class ClusterSums:
    """Sums of logged rounds per user, for one target policy, reward and reward model.

    Attributes:
        cluster: int64 [G], ascending, users with at least one round.
        sums: float64 [G, len(COLUMNS)].
        squares: Sum of w^2 over all rounds.
        unsupported: Sum over rounds of the target's probability outside of the logging policy's support.
        unusable: Rounds that stand in no sum but ``rounds``.
        tail: Of the weights.
        shrinkage: Constants that the sums were made with.
        modelled: Whether there is a reward model.
    """

    cluster: IntArray
    sums: FloatArray
    squares: float
    unsupported: float
    unusable: Unusable
    tail: WeightTail
    shrinkage: Shrinkage
    modelled: bool

    def __add__(self, other: "ClusterSums") -> "ClusterSums":
        return merge([self, other])

    @property
    def rounds(self) -> int:
        """All rounds, unusable ones too."""
        return int(self.column("rounds").sum())

    def column(self, name: str) -> FloatArray:
        """float64 [G], one of ``COLUMNS``."""
        values: FloatArray = self.sums[:, COLUMNS.index(name)]
        return values

    def total(self, name: str) -> float:
        """A column's sum over users."""
        return float(self.column(name).sum())

    @classmethod
    def of(cls, rounds: Rounds, shrinkage: Shrinkage) -> "ClusterSums":
        """Sum up a chunk of rounds.

        Args:
            rounds: N rounds, in any order; fastest where a user's rounds follow each other.
            shrinkage: Constants of Switch-DR and DRos.

        Returns:
            The sums. A user's sums keep the bits whatever the chunks, as long as no user is split between two.
        """
        modelled = rounds.value is not None
        none = np.empty(0)
        run, sums, weights, counts = _accumulate(
            rounds.cluster,
            np.ascontiguousarray(rounds.reward, np.float64),
            np.ascontiguousarray(rounds.propensity, np.float64),
            np.ascontiguousarray(rounds.target, np.float64),
            none if rounds.value is None else rounds.value,
            none if rounds.expected is None else rounds.expected,
            float(shrinkage.switch),
            float(shrinkage.dros),
        )
        cluster, totals = grouped(run, sums)
        positive = weights[weights > 0]
        return cls(
            cluster=cluster,
            sums=totals,
            squares=float(positive @ positive),
            unsupported=0.0 if rounds.unsupported is None else float(rounds.unsupported.sum()),
            unusable=Unusable(*(int(count) for count in counts)),
            tail=WeightTail.of(positive),
            shrinkage=shrinkage,
            modelled=modelled,
        )


def merge(parts: Sequence[ClusterSums]) -> ClusterSums:
    """Add up the sums of several chunks or shards at once.

    Args:
        parts: At least one, all of the same constants.

    Returns:
        The sums of all their rounds; users that several parts share are added up in the order of the parts.

    Raises:
        ConfigError: Without parts, or when they were made with different constants.
    """
    if not parts:
        raise ConfigError("there are no sums to add up")
    if any((part.shrinkage, part.modelled) != (parts[0].shrinkage, parts[0].modelled) for part in parts):
        raise ConfigError("sums with different lambdas, or with and without a reward model, can not be added up")
    cluster, sums = grouped(np.concatenate([p.cluster for p in parts]), np.concatenate([p.sums for p in parts]))
    unusable, tail = parts[0].unusable, parts[0].tail
    for part in parts[1:]:
        unusable, tail = unusable + part.unusable, tail + part.tail
    return ClusterSums(
        cluster=cluster,
        sums=sums,
        squares=sum(part.squares for part in parts),
        unsupported=sum(part.unsupported for part in parts),
        unusable=unusable,
        tail=tail,
        shrinkage=parts[0].shrinkage,
        modelled=parts[0].modelled,
    )


def grouped(cluster: IntArray, sums: FloatArray) -> tuple[IntArray, FloatArray]:
    """Add up the rows of equal clusters.

    Args:
        cluster: int64 [R].
        sums: float64 [R, C].

    Returns:
        Clusters ascending, int64 [G], and their sums, float64 [G, C].
    """
    if len(cluster) < 2 or (cluster[1:] > cluster[:-1]).all():
        return cluster, sums
    order = np.argsort(cluster, kind="stable")
    ordered = cluster[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return ordered[starts], np.add.reduceat(sums[order], starts, axis=0)


@compiled
def _accumulate(
    cluster: IntArray,
    reward: FloatArray,
    propensity: FloatArray,
    target: FloatArray,
    value: FloatArray,
    expected: FloatArray,
    switch: float,
    dros: float,
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """Runs of equal clusters with their sums, each round's weight (0 where unusable), and ``Unusable``'s counts."""
    rounds, modelled = len(cluster), len(value) > 0
    run, sums = np.empty(rounds, dtype=np.int64), np.empty((rounds, 8))
    weights, counts = np.zeros(rounds), np.zeros(6, dtype=np.int64)
    runs = 0
    for i in range(rounds):
        if runs == 0 or run[runs - 1] != cluster[i]:
            run[runs] = cluster[i]
            sums[runs] = 0.0
            runs += 1
        row = sums[runs - 1]
        row[0] += 1.0
        p, t, r = propensity[i], target[i], reward[i]
        w, usable = 0.0, False
        if np.isnan(p):
            counts[0] += 1
        elif not 0.0 < p <= 1.0:
            counts[1] += 1
        elif not -1e-9 <= t <= 1.0 + 1e-4:
            counts[2] += 1
        else:
            w = max(t, 0.0) / p
            usable = w <= LARGEST_WEIGHT
            counts[3] += not usable
        if not np.isfinite(r):
            counts[4] += 1
            usable = False
        if usable:
            weights[i] = w
            row[1] += w > 0.0
            row[2] += w
            row[3] += w * r
        if modelled:
            q, d = value[i], expected[i]
            if not (np.isfinite(q) and np.isfinite(d)):
                counts[5] += 1
                continue
            row[5] += d
            if usable:
                row[4] += w * (r - q)
                if w <= switch:
                    row[6] += w * (r - q)
                scale = 1.0 if np.isinf(dros) else (dros / (w * w + dros) if dros > 0.0 else 0.0)
                row[7] += scale * w * (r - q)
    return run[:runs], sums[:runs], weights, counts
