"""Metrics of one user's simulated day, and sufficient statistics of them that add up."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.feed.schema import BEHAVIOURS
from simulator.result import Role, Segment, Unit

FloatArray = NDArray[np.float64]

# User groups; a group's code is its index. Fixed before exposure, as of the day's first session.
GROUPS: tuple[Segment, ...] = ("new", "low", "high")
SEGMENTS: tuple[Segment, ...] = ("all", *GROUPS)

# Behaviours that the response model predicts by a head of their own; skips follow from the seconds.
INTERACTIONS = tuple(name for name in BEHAVIOURS if name != "skip")

# What a person would call an interaction: chosen, not merely watched. A dislike is one too, but counts apart.
_CHOSEN = ("like", "follow", "comment", "share", "profile_enter")

# One row per (arm, member, user): means over the user's rollouts, so many rollouts never count as many users.
# Of the nullable columns, null means that the feed does not know it of any video:
# - topics: distinct topics, counted per session and added up;
# - fresh: impressions of videos of the new group, by age at the session's start;
# - trending: impressions of videos that trend. A video trends when its impressions of the last day, as of the session's
#   snapshot, are above 0 and at or above the 99th percentile of those of the videos that the day's sessions can be
#   offered in the same snapshot version;
# - tail_creator: impressions of videos by creators of the tail. Creators are ordered by their impressions in the
#   training window's log, most first, ties by id; the head is the shortest list that holds at least 80 % of them, the
#   tail is everyone else, those without an impression included. A video without a known creator counts as neither.
OUTCOMES = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("group", pa.int8(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("member", pa.int32(), nullable=False),
        pa.field("app_time_s", pa.float64(), nullable=False),
        pa.field("sessions", pa.int32(), nullable=False),
        pa.field("impressions", pa.float64(), nullable=False),
        pa.field("skips", pa.float64(), nullable=False),
        ("topics", pa.float64()),
        ("fresh", pa.float64()),
        ("trending", pa.float64()),
        ("tail_creator", pa.float64()),
        ("return_probability", pa.float64()),
        ("truncated", pa.float64()),
        *[(name, pa.float64()) for name in INTERACTIONS],
    ]
)


@dataclass(frozen=True)
class Metric:
    """One number per user and day.

    Attributes:
        name: Key.
        title: What people read.
        role: Primary, guardrail or secondary.
        unit: Of a level; a share's difference is given in percentage points.
        higher_is_better: Direction.
        value: From an outcome table to float64 [N], NaN where unknown.
    """

    name: str
    title: str
    role: Role
    unit: Unit
    higher_is_better: bool
    value: Callable[[pa.Table], FloatArray]

    @property
    def difference_unit(self) -> Unit:
        """Percentage points for shares, the level's own unit otherwise."""
        return "pp" if self.unit == "share" else self.unit

    @property
    def difference_factor(self) -> float:
        """From a difference of levels to ``difference_unit``."""
        return 100.0 if self.unit == "share" else 1.0


@dataclass(frozen=True)
class PairedSums:
    """Sufficient statistics of a paired comparison; users, shards and days add up with ``+``.

    Attributes:
        n: Users.
        t: Sum of the treatment's values.
        b: Sum of the baseline's values.
        tt: Sum of squares of the treatment's values.
        bb: Sum of squares of the baseline's values.
        tb: Sum of products.
    """

    n: int = 0
    t: float = 0.0
    b: float = 0.0
    tt: float = 0.0
    bb: float = 0.0
    tb: float = 0.0

    def __add__(self, other: "PairedSums") -> "PairedSums":
        return PairedSums(
            self.n + other.n,
            self.t + other.t,
            self.b + other.b,
            self.tt + other.tt,
            self.bb + other.bb,
            self.tb + other.tb,
        )

    @classmethod
    def of(cls, treatment: FloatArray, baseline: FloatArray) -> "PairedSums":
        """Sums over users.

        Args:
            treatment: float64 [n], one value per user.
            baseline: float64 [n], the same users in the same order.

        Returns:
            The sums.
        """
        return cls(
            len(treatment),
            float(treatment.sum()),
            float(baseline.sum()),
            float((treatment * treatment).sum()),
            float((baseline * baseline).sum()),
            float((treatment * baseline).sum()),
        )


@dataclass(frozen=True)
class ArmSums:
    """Sufficient statistics of one arm of the split design; they add up with ``+``.

    Attributes:
        n: Users.
        total: Sum of values.
        squares: Sum of squares.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "ArmSums") -> "ArmSums":
        return ArmSums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @classmethod
    def of(cls, values: FloatArray) -> "ArmSums":
        """Sums over the users of one arm.

        Args:
            values: float64 [n], one value per user.

        Returns:
            The sums.
        """
        return cls(len(values), float(values.sum()), float((values * values).sum()))


def column(table: pa.Table, name: str) -> FloatArray:
    """float64 [N] values of a numeric column, NaN for null."""
    values: FloatArray = table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _per_impression(name: str) -> Callable[[pa.Table], FloatArray]:
    def value(table: pa.Table) -> FloatArray:
        return column(table, name) / np.maximum(column(table, "impressions"), 1.0)

    return value


def _level(name: str) -> Callable[[pa.Table], FloatArray]:
    return lambda table: column(table, name)


def _interactions(table: pa.Table) -> FloatArray:
    counts = np.column_stack([column(table, name) for name in _CHOSEN])
    # Unrecorded behaviours are left out; a feed that records none of them has no such metric.
    known = ~np.isnan(counts)
    return np.where(known.any(axis=1), np.where(known, counts, 0.0).sum(axis=1), np.nan)


METRICS: tuple[Metric, ...] = (
    Metric("app_time", "App time per user and day", "primary", "s", True, _level("app_time_s")),
    Metric("return", "Next-day return", "primary", "share", True, _level("return_probability")),
    Metric("impressions", "Impressions per user", "secondary", "count", True, _level("impressions")),
    Metric("skip_share", "Share of skipped videos", "guardrail", "share", False, _per_impression("skips")),
    Metric("dislikes", "Dislikes per user", "guardrail", "count", False, _level("dislike")),
    Metric("interactions", "Interactions per user", "secondary", "count", True, _interactions),
    Metric("topic_diversity", "Distinct topics per video", "secondary", "share", True, _per_impression("topics")),
    Metric("fresh_share", "Share of fresh videos", "secondary", "share", True, _per_impression("fresh")),
    Metric("trending_share", "Share of trending videos", "guardrail", "share", False, _per_impression("trending")),
    Metric("tail_share", "Share of tail creators' videos", "guardrail", "share", True, _per_impression("tail_creator")),
)
