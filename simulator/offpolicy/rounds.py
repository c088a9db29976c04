"""Logged rounds, and how a target policy and a reward model over candidate sets become numbers per round.

A round is one decision of the logging policy: it chose one action out of a candidate set. Candidate sets are given
in CSR form, chunk by chunk, and are reduced at once to five numbers per round: nothing here ever has the shape
rounds x actions or users x items.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator.jit import compiled

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# A row of probabilities must add up to one within this; float32 rows of a thousand candidates do.
_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Rounds:
    """N logged rounds under one target policy and one reward model.

    Attributes:
        cluster: int64 [N], the user: rounds of one user are not independent.
        reward: float64 [N], r.
        propensity: float64 [N], pi_0(a|x): the logging policy's probability of the logged action, NaN = unknown.
        target: float64 [N], pi(a|x): the target policy's probability of the logged action; NaN where its
            probabilities are no distribution.
        value: float64 [N], q(x, a): the reward model at the logged action; None without a model.
        expected: float64 [N], sum over the candidates of pi(a|x) q(x, a); None without a model.
        unsupported: float64 [N], the target's probability of candidates that the logging policy can not choose or
            whose propensity is unknown; None where that is 0 by design.
        position: int32 [N], the place on the page, where there are several.
    """

    cluster: IntArray
    reward: FloatArray
    propensity: FloatArray
    target: FloatArray
    value: FloatArray | None = None
    expected: FloatArray | None = None
    unsupported: FloatArray | None = None
    position: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        rows = len(self.cluster)
        for name, array in self._arrays().items():
            if array.shape != (rows,):
                raise ConfigError(f"logged rounds: {name} has shape {array.shape}, cluster has {rows} rows")
        if (self.value is None) != (self.expected is None):
            raise ConfigError("logged rounds: a reward model gives both value and expected, or neither")

    def __len__(self) -> int:
        return len(self.cluster)

    def select(self, rows: NDArray[np.bool_] | IntArray | slice) -> "Rounds":
        """Some of the rounds.

        Args:
            rows: A mask bool [N], indices int64 [M], or a slice.

        Returns:
            Those rounds in the order given.
        """
        return replace(self, **{name: array[rows] for name, array in self._arrays().items()})

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: array for name, array in found.items() if array is not None}


@dataclass(frozen=True)
class Candidates:
    """Candidate sets of N rounds: M entries in all, those of round i from ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes:
        offsets: int64 [N + 1], from 0 to M, never falling.
        ids: int64 [M], the actions; nothing but a name.
        logged: int64 [N], entry of the logged action within 0 to M - 1; -1 where it is not among the candidates.
        probabilities: float64 [M], the logging policy's, NaN = unknown; None where every candidate can be chosen.
    """

    offsets: IntArray
    ids: IntArray
    logged: IntArray
    probabilities: FloatArray | None = None

    def __post_init__(self) -> None:
        entries = len(self.ids)
        shaped = len(self.offsets) == len(self.logged) + 1 and self.offsets[0] == 0 and self.offsets[-1] == entries
        if not shaped or (np.diff(self.offsets) < 0).any():
            raise ConfigError(
                f"candidate sets: offsets must rise from 0 to {entries} with one more entry than the "
                f"{len(self.logged)} rounds; they have {len(self.offsets)}"
            )
        if self.probabilities is not None and len(self.probabilities) != entries:
            raise ConfigError(f"candidate sets: {len(self.probabilities)} probabilities for {entries} candidates")
        inside = (self.logged >= self.offsets[:-1]) & (self.logged < self.offsets[1:])
        if not (inside | (self.logged == -1)).all():
            raise ConfigError("candidate sets: a logged action is an entry of another round; use -1 for none")

    def __len__(self) -> int:
        return len(self.logged)


def rounds_over(
    candidates: Candidates,
    policy: FloatArray,
    values: FloatArray | None,
    *,
    reward: FloatArray,
    propensity: FloatArray,
    cluster: IntArray,
) -> Rounds:
    """Reduce a target policy and a reward model over candidate sets to numbers per round.

    Args:
        candidates: N candidate sets of M entries.
        policy: float64 [M], pi(a|x) of the target; each round's must add up to one.
        values: float64 [M], q(x, a), or None without a reward model.
        reward: float64 [N].
        propensity: float64 [N], of the logged action; NaN = unknown.
        cluster: int64 [N], users.

    Returns:
        N rounds. A logged action outside of its candidate set has an unknown propensity, and probabilities that are
        no distribution are NaN: both are refused by the estimators, with their number.

    Raises:
        ConfigError: When lengths disagree.
    """
    entries = len(candidates.ids)
    for name, array in (("policy", policy), ("values", values)):
        if array is not None and len(array) != entries:
            raise ConfigError(f"candidate sets: {len(array)} numbers of the {name} for {entries} candidates")
    given = np.empty(0) if values is None else values
    logging = np.empty(0) if candidates.probabilities is None else candidates.probabilities
    chosen, value, expected, unsupported = _reduce(candidates.offsets, candidates.logged, policy, given, logging)
    return Rounds(
        cluster=cluster,
        reward=reward,
        propensity=np.where(candidates.logged < 0, np.nan, propensity),
        target=chosen,
        value=None if values is None else value,
        expected=None if values is None else expected,
        unsupported=unsupported,
    )


def greedy(offsets: IntArray, scores: FloatArray) -> FloatArray:
    """The policy that takes the best candidate; equal best ones share it evenly.

    A rule such as "the first of them" would favour whichever the sets happen to list first, the logged one perhaps.

    Args:
        offsets: int64 [N + 1], of the candidate sets.
        scores: float64 [M], higher is better. A set with a score that is not a number has NaN probabilities.

    Returns:
        float64 [M] probabilities.
    """
    return _greedy(offsets, scores)


@compiled
def _reduce(
    offsets: IntArray, logged: IntArray, policy: FloatArray, values: FloatArray, logging: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    rounds = len(logged)
    chosen, value = np.zeros(rounds), np.full(rounds, np.nan)
    expected, unsupported = np.zeros(rounds), np.zeros(rounds)
    for i in range(rounds):
        total, mean, outside, good = 0.0, 0.0, 0.0, True
        for j in range(offsets[i], offsets[i + 1]):
            p = policy[j]
            good &= p >= 0.0
            total += p
            # A model need not know what the target never chooses.
            if len(values) and p > 0.0:
                mean += p * values[j]
            if len(logging) and p > 0.0 and not logging[j] > 0.0:
                outside += p
        expected[i], unsupported[i] = mean, outside
        at = logged[i]
        if at >= 0:
            chosen[i] = policy[at]
            if len(values):
                value[i] = values[at]
        else:
            value[i] = 0.0
        if not good or not abs(total - 1.0) <= _SUM_TOLERANCE:
            chosen[i] = np.nan
    return chosen, value, expected, unsupported


@compiled
def _greedy(offsets: IntArray, scores: FloatArray) -> FloatArray:
    policy = np.zeros(len(scores))
    for i in range(len(offsets) - 1):
        first, last = offsets[i], offsets[i + 1]
        best, ties, good = -np.inf, 0, True
        for j in range(first, last):
            good &= not np.isnan(scores[j])
            if scores[j] > best:
                best, ties = scores[j], 0
            ties += scores[j] == best
        for j in range(first, last):
            if not good:
                policy[j] = np.nan
            elif scores[j] == best:
                policy[j] = 1.0 / ties
    return policy
