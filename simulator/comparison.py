"""Two arms' per-user outcomes as comparisons: one per metric, segment and ensemble member.

*Paired*: every user has one row in each arm. *Split*: every user has a row in one arm; ``assign`` makes that of
outcomes in which every user has both, by a hash of the user, as an online experiment would.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator import draws, inference
from simulator.experiment import Estimate
from simulator.inference import Effect, Moments
from simulator.metrics import GROUPS, ArmSums, Metric, PairedSums
from simulator.result import Segment, Unit

FloatArray = NDArray[np.float64]
Design = Literal["paired", "split"]

ARMS = ("treatment", "baseline")


@dataclass(frozen=True, eq=False)
class Comparison:
    """The users of one metric, segment and ensemble member whose value is known.

    Attributes:
        design: Whether both arms hold the same users.
        t_id: int64 [n_t], users of the treatment, ascending.
        t: float64 [n_t], their values.
        b_id: int64 [n_b], users of the baseline; ``t_id`` when paired.
        b: float64 [n_b], their values.
    """

    design: Design
    t_id: NDArray[np.int64]
    t: FloatArray
    b_id: NDArray[np.int64]
    b: FloatArray

    @property
    def arms(self) -> tuple[ArmSums, ArmSums]:
        """Sums of the treatment and of the baseline."""
        return ArmSums.of(self.t), ArmSums.of(self.b)

    @property
    def moments(self) -> Moments | str:
        """Moments of the comparison, or why there are none."""
        if self.design == "paired":
            return inference.paired(PairedSums.of(self.t, self.b))
        return inference.welch(*self.arms)

    def capped(self, largest: float) -> "Comparison":
        """The same users; values above ``largest`` count as ``largest``."""
        cut = np.minimum(self.t, largest), np.minimum(self.b, largest)
        return Comparison(self.design, self.t_id, cut[0], self.b_id, cut[1])


def joined(parts: Sequence[Comparison]) -> Comparison:
    """Several segments' users as one comparison.

    Args:
        parts: Of the same design and ensemble member, with no user in two of them; at least one.

    Returns:
        All their users.
    """
    t_id, t, b_id, b = (np.concatenate([getattr(p, name) for p in parts]) for name in ("t_id", "t", "b_id", "b"))
    return Comparison(parts[0].design, t_id, t, b_id, b)


class Arms:
    """Outcomes of both arms, by ensemble member, in order of users.

    Args:
        outcomes: ``metrics.OUTCOMES`` with the arms "treatment" and "baseline".
        design: Whether every user was simulated in both arms or in one.
    """

    def __init__(self, outcomes: pa.Table, design: Design) -> None:
        self.design = design
        self._tables: list[tuple[pa.Table, pa.Table]] = []
        by_arm = [outcomes.filter(pc.equal(outcomes.column("arm"), arm)) for arm in ARMS]
        for member in sorted(pc.unique(outcomes.column("member")).to_pylist()):
            t, b = (t.filter(pc.equal(t.column("member"), member)).sort_by("user_id") for t in by_arm)
            for arm, table in zip(ARMS, (t, b), strict=True):
                users = table.column("user_id").to_numpy()
                if len(np.unique(users)) != len(users):
                    raise ConfigError(
                        f"member {member}, arm {arm}: {len(users)} rows of {len(np.unique(users))} users; "
                        "reduce the rows of a user to one first"
                    )
            if design == "paired" and not t.column("user_id").equals(b.column("user_id")):
                raise ConfigError(
                    f"paired design, member {member}: the arms must hold the same users, one row each; "
                    f"found {t.num_rows} and {b.num_rows} rows"
                )
            self._tables.append((t, b))

    def members(self, metric: Metric, segment: Segment) -> list[Comparison]:
        """One comparison per ensemble member.

        Args:
            metric: What is compared.
            segment: Whose users.

        Returns:
            Users with a known value; in both arms when paired.
        """
        found = []
        for tables in self._tables:
            ids, values = [], []
            for table in tables:
                value = metric.value(table)
                known = ~np.isnan(value)
                if segment != "all":
                    known &= table.column("group").to_numpy() == GROUPS.index(segment)
                ids.append(table.column("user_id").to_numpy())
                values.append((value, known))
            (t, known_t), (b, known_b) = values
            if self.design == "paired":
                known_t = known_b = known_t & known_b
            found.append(Comparison(self.design, ids[0][known_t], t[known_t], ids[1][known_b], b[known_b]))
        return found


def assign(outcomes: pa.Table, seed: int, treatment_share: float = 0.5) -> pa.Table:
    """Randomise users to arms: of each user only the rows of the user's own arm stay.

    Args:
        outcomes: ``metrics.OUTCOMES`` in which every user has both arms.
        seed: Of the assignment, which is a hash of (seed, user).
        treatment_share: Probability of the treatment.

    Returns:
        About half of the rows, in their order: the outcomes of a split design.
    """
    mine = treated(outcomes.column("user_id").to_numpy(), seed, treatment_share)
    is_treatment = pc.equal(outcomes.column("arm"), "treatment").to_numpy(zero_copy_only=False)
    return outcomes.filter(pa.array(mine == is_treatment))


def treated(user_id: NDArray[np.int64], seed: int, treatment_share: float = 0.5) -> NDArray[np.bool_]:
    """Bool [N]: whether users belong to the treatment of a split design (see ``assign``)."""
    mine: NDArray[np.bool_] = draws.uniform(seed, "arm", user_id) < treatment_share
    return mine


def users_of(members: Sequence[Comparison]) -> int:
    """Users that a comparison rests on: the smaller arm's, of the member with fewest."""
    return min((min(len(m.t), len(m.b)) for m in members), default=0)


def estimate(effect: Effect, unit: Unit, factor: float) -> Estimate:
    """An effect for the record.

    An effect without an interval is no evidence, so it is reported as its reason, which names the value.

    Args:
        effect: From ``inference``.
        unit: Of the estimate.
        factor: From the effect's unit to ``unit``.

    Returns:
        The estimate, or why there is none.
    """
    if effect.value is None or effect.low is None or effect.high is None:
        return Estimate(value=None, unit=unit, reason=effect.reason or "no interval can be computed")
    return Estimate(
        value=effect.value * factor,
        low=effect.low * factor,
        high=effect.high * factor,
        p_value=effect.p_value,
        se=None if effect.se is None else effect.se * factor,
        unit=unit,
    )


def level_estimate(effect: Effect, unit: Unit) -> Estimate:
    """A level describes: it stays even where equal users leave it without an interval. It tests nothing."""
    if effect.value is None:
        return Estimate(value=None, unit=unit, reason=effect.reason)
    return Estimate(value=effect.value, low=effect.low, high=effect.high, se=effect.se, unit=unit)
