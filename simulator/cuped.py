"""Regression adjustment by covariates from before the exposure (CUPED), from sums that add up.

Source: Deng, Xu, Kohavi and Walker, Improving the Sensitivity of Online Controlled Experiments by Utilizing
Pre-Experiment Data, WSDM 2013, equation 4, with several covariates at once: theta = S_xx^-1 S_xy replaces
Cov(Y, X) / Var(X). One theta for both arms, from all users together, as there; no interactions between arm and
covariates.

What each design gains differs:

- *split*: the arms hold other users, so their covariates' means differ by chance; the adjusted mean of an arm is
  mean(Y) - theta' (mean(X of the arm) - mean(X of all)), its variance that of Y - theta' X. Estimand: E[T] - E[B] over
  users, as without adjustment.
- *paired*: both arms hold the same users, so the covariates' means are equal and the point estimate does not move.
  What remains is the variance of the two values given the covariates. Estimand: the mean over users who are like
  the day's users in their covariates, which is the population that a held-out day asks about; the unadjusted
  interval also allows for a day of users with other covariates.

Assumptions: the covariates are fixed before the exposure, in both arms alike; and there are many users per covariate,
so that theta's own error does not count: of the covariates that vary among the users, the first n / 20 are used, in the
table's order, which is chosen before the day. The variance is multiplied by (n - p) / (n - p - K) for what K fitted
coefficients take away, p being the number of means.

A covariate that is unknown for some users counts as 0 for them, beside a covariate "unknown" of 0 and 1: the same
regression as filling in the mean of those who have one, as the paper does for users without history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.errors import ConfigError
from simulator.inference import Moments, satterthwaite

FloatArray = NDArray[np.float64]

# With fewer users than this per covariate, theta follows the noise.
USERS_PER_COVARIATE = 20

_ROUNDING = 1e-13
# Covariates whose correlation matrix has an eigenvalue below this say nothing that others do not say.
_COLLINEAR = 1e-8


@dataclass(frozen=True, eq=False)
class CrossSums:
    """Sums over users of one or two outcomes and K covariates; users, shards and days add up with ``+``.

    Attributes:
        n: Users.
        total: float64 [P], sums; outcomes first, then covariates.
        products: float64 [P, P], sums of products.
    """

    n: int
    total: FloatArray
    products: FloatArray

    def __add__(self, other: "CrossSums") -> "CrossSums":
        return CrossSums(self.n + other.n, self.total + other.total, self.products + other.products)

    @classmethod
    def of(cls, outcomes: Sequence[FloatArray], covariates: FloatArray) -> "CrossSums":
        """Sums over users.

        Args:
            outcomes: Arrays float64 [n]: treatment and baseline when paired, one arm's values when split.
            covariates: float64 [n, K], finite.

        Returns:
            The sums.
        """
        columns = np.column_stack([*outcomes, covariates])
        return cls(len(columns), columns.sum(axis=0), columns.T @ columns)

    def covariance(self) -> FloatArray:
        """float64 [P, P] sample covariance; at least two users."""
        found: FloatArray = (self.products - np.outer(self.total, self.total) / self.n) / (self.n - 1)
        return found


@dataclass(frozen=True, eq=False)
class Covariates:
    """What is known of users before the exposure.

    Attributes:
        user_id: int64 [U], ascending.
        values: float64 [U, K], NaN where unknown.
    """

    user_id: NDArray[np.int64]
    values: FloatArray

    @classmethod
    def of(cls, table: pa.Table) -> "Covariates":
        """Read a table.

        Args:
            table: ``user_id`` and numeric columns; null and NaN mean unknown.

        Returns:
            The covariates.

        Raises:
            ConfigError: When a user occurs twice.
        """
        table = table.sort_by("user_id")
        users = table.column("user_id").to_numpy()
        if len(np.unique(users)) != len(users):
            raise ConfigError(
                f"covariates: {len(users)} rows of {len(np.unique(users))} users; one row per user is needed"
            )
        columns = [
            table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in table.column_names
            if name != "user_id"
        ]
        return cls(users, np.column_stack(columns) if columns else np.zeros((len(users), 0)))

    @property
    def count(self) -> int:
        """K."""
        return int(self.values.shape[1])

    def matrix(self, user_id: NDArray[np.int64]) -> FloatArray:
        """Covariates of some users.

        Args:
            user_id: int64 [n].

        Returns:
            float64 [n, K + U]: values with 0 for unknown, and for each of the U columns that some, but not all, of
            these users lack one of 0 and 1 that says so. A user without a row lacks every column.
        """
        found = np.full((len(user_id), self.count), np.nan)
        if len(self.user_id):
            row = np.minimum(np.searchsorted(self.user_id, user_id), len(self.user_id) - 1)
            there = self.user_id[row] == user_id
            found[there] = self.values[row[there]]
        unknown = ~np.isfinite(found)
        partly = unknown.any(axis=0) & ~unknown.all(axis=0)
        return np.column_stack([np.where(unknown, 0.0, found), unknown[:, partly].astype(np.float64)])


def adjusted_paired(sums: CrossSums) -> Moments | str:
    """Moments of the paired comparison given the covariates.

    Args:
        sums: Of (treatment, baseline, K covariates).

    Returns:
        Means as they are, and variances of what the covariates leave; or why there are none.
    """
    if sums.n < 2:
        return "no user with this metric" if sums.n == 0 else "only one user: a variance needs two"
    theta = _coefficients(sums, outcomes=2)
    if isinstance(theta, str):
        return theta
    coefficients, rank = theta
    n = sums.n
    left = np.vstack([np.eye(2), -coefficients])
    variance = left.T @ sums.covariance() @ left * (n - 1) / (n - 1 - rank) / n
    return Moments(
        users=n,
        treatment=float(sums.total[0]) / n,
        baseline=float(sums.total[1]) / n,
        var_treatment=max(float(variance[0, 0]), 0.0),
        var_baseline=max(float(variance[1, 1]), 0.0),
        covariance=float(variance[0, 1]),
        df=n - 1 - rank,
        rounding=_ROUNDING * float(np.trace(sums.products[:2, :2])) / (n * (n - 1)),
    )


def adjusted_split(treatment: CrossSums, baseline: CrossSums) -> Moments | str:
    """Moments of the split comparison of covariate-adjusted means, with Welch's degrees of freedom.

    Args:
        treatment: Of (value, K covariates) of the treatment's users.
        baseline: Of the baseline's users.

    Returns:
        Adjusted means and their variances, or why there are none.
    """
    if min(treatment.n, baseline.n) < 2:
        return "an arm has fewer than two users with this metric"
    both = treatment + baseline
    theta = _coefficients(both, outcomes=1)
    if isinstance(theta, str):
        return theta
    coefficients, rank = theta
    left = np.concatenate([[1.0], -coefficients[:, 0]])
    lost = (both.n - 2) / (both.n - 2 - rank)
    means, variances, rounding = [], [], 0.0
    for arm in (treatment, baseline):
        apart = arm.total[1:] / arm.n - both.total[1:] / both.n
        means.append(float(arm.total[0] / arm.n - coefficients[:, 0] @ apart))
        variances.append(max(float(left @ arm.covariance() @ left), 0.0) * lost / arm.n)
        rounding += _ROUNDING * float(arm.products[0, 0]) / (arm.n * (arm.n - 1))
    df = satterthwaite(variances, (treatment.n - 1, baseline.n - 1))
    return Moments(min(treatment.n, baseline.n), means[0], means[1], variances[0], variances[1], 0.0, df, rounding)


def _coefficients(sums: CrossSums, outcomes: int) -> tuple[FloatArray, int] | str:
    """The K x outcomes array theta by least squares, 0 for constant covariates, and the rank; or why there is none."""
    count = len(sums.total) - outcomes
    if count == 0:
        return "no covariate is known"
    covariance = sums.covariance()
    variance = np.diag(covariance)[outcomes:]
    # A variance of this size beside the mean square is rounding.
    varies = variance > _ROUNDING * 100 * np.diag(sums.products)[outcomes:] / sums.n
    if not varies.any():
        return "no covariate varies among these users: there is nothing to adjust by"
    allowed = sums.n // USERS_PER_COVARIATE
    if allowed == 0:
        return f"{sums.n} users are too few for a covariate: {USERS_PER_COVARIATE} are needed for each"
    varies[np.flatnonzero(varies)[allowed:]] = False
    sd = np.sqrt(variance[varies])
    inner = np.flatnonzero(varies) + outcomes
    correlation = covariance[np.ix_(inner, inner)] / np.outer(sd, sd)
    values, vectors = np.linalg.eigh(correlation)
    kept = values > _COLLINEAR * len(values)
    rank = int(kept.sum())
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    theta = np.zeros((count, outcomes))
    theta[varies] = inverse @ (covariance[inner, :outcomes] / sd[:, None]) / sd[:, None]
    return theta, rank
