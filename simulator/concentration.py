"""Do a few creators get all the attention? Concentration of impressions over creators, per arm.

Index: Herfindahl and Hirschman's, H = sum over creators of p_c^2 with p_c the creator's share of the arm's impressions
(Hirschman, American Economic Review 1964): the probability that two impressions drawn at random are of one creator,
from 1 / (number of creators) to 1. Its inverse is the number of equally shown creators with the same index.

H is not a mean over users, so it has no per-user values and no sums of squares. Impressions are added up per (arm,
group, bucket of users, creator), which shards do exactly, and the interval of the difference comes from the
delete-one-group jackknife over the buckets (Quenouille 1956; Shao and Tu, The Jackknife and Bootstrap, 1995, section
2.3): with G buckets se^2 = (G - 1) / G x sum over g of (H without g - mean)^2 and G - 1 degrees of freedom. A bucket
is left out of both arms at once: in the paired design the difference keeps what the arms have in common, in the split
one the arms' parts are independent and their variances add up. Assumptions: buckets are alike (a hash of the user) and
many enough; ensemble members and rollouts are added up, so their spread is not in it.

Where all creators are shown equally often, H is at its minimum and has no linear part: there the interval is too
wide. In small samples H is too large by about (1 - H) / impressions, in both arms alike; the difference is not
corrected.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.config import DecisionRule
from simulator.comparison import ARMS, estimate, level_estimate
from simulator.experiment import MetricResult
from simulator.inference import Effect, detectable, from_se
from simulator.metrics import GROUPS, SEGMENTS
from simulator.result import Segment

FloatArray = NDArray[np.float64]

FEWEST_BUCKETS = 8

# One row per (arm, group, bucket, creator) that was shown: impressions summed over users, members and rollouts.
CREATORS = pa.schema(
    [
        pa.field("arm", pa.string(), nullable=False),
        pa.field("group", pa.int8(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("creator_id", pa.int64(), nullable=False),
        pa.field("impressions", pa.float64(), nullable=False),
    ]
)


def shown_creators(
    arm: str, group: NDArray[np.int8], bucket: NDArray[np.int64], creator: NDArray[np.int64], reached: FloatArray
) -> pa.Table:
    """Add up what an arm's sessions showed.

    Args:
        arm: "treatment" or "baseline".
        group: int8 [S], the group of each session's user.
        bucket: int64 [S], the bucket of each session's user.
        creator: int64 [S, L], whose video stood in each slot; -1 where unknown or nothing was shown.
        reached: float64 [S, L], how often the slot was reached.

    Returns:
        ``CREATORS``; impressions without a known creator are left out.
    """
    session, slot = np.nonzero((creator >= 0) & (reached > 0))
    table = pa.table(
        {
            "arm": pa.array([arm] * len(session), pa.string()),
            "group": group[session],
            "bucket": bucket[session].astype(np.int32),
            "creator_id": creator[session, slot],
            "impressions": reached[session, slot],
        },
        schema=CREATORS,
    )
    return merge_creators([table])


def merge_creators(parts: list[pa.Table]) -> pa.Table:
    """Add up shards.

    Args:
        parts: Tables in ``CREATORS``, of disjoint sets of users or of whole buckets.

    Returns:
        One row per (arm, group, bucket, creator), in that order.
    """
    keys = ["arm", "group", "bucket", "creator_id"]
    table = pa.concat_tables([CREATORS.empty_table(), *parts])
    summed = table.group_by(keys, use_threads=False).aggregate([("impressions", "sum")])
    summed = summed.rename_columns([*keys, "impressions"]).cast(CREATORS)
    return summed.sort_by([(key, "ascending") for key in keys])


def concentration_results(
    creators: pa.Table, users: Mapping[Segment, int], rule: DecisionRule
) -> tuple[MetricResult, ...]:
    """The guardrail in every segment, of either design.

    Args:
        creators: ``CREATORS`` of both arms.
        users: Users of each segment, for the record.
        rule: Confidence and smallest number of users.

    Returns:
        Levels, difference (in percentage points of the index) and relative change, or why there are none.
    """
    found = []
    for segment in SEGMENTS:
        table = creators if segment == "all" else creators.filter(pc.equal(creators["group"], GROUPS.index(segment)))
        buckets = np.unique(table["bucket"].to_numpy())
        treatment, baseline = (_Indices.of(table.filter(pc.equal(table["arm"], arm)), buckets) for arm in ARMS)
        count = users.get(segment, 0)
        apart = _jackknife(treatment.whole - baseline.whole, treatment.without - baseline.without, rule.confidence)
        lift = _jackknife(
            treatment.whole / baseline.whole - 1, treatment.without / baseline.without - 1, rule.confidence
        )
        smallest, smallest_lift = (detectable(one, rule.confidence) for one in (apart, lift))
        found.append(
            MetricResult(
                name="creator_concentration",
                title="Concentration of creators (Herfindahl index)",
                role="guardrail",
                segment=segment,
                higher_is_better=False,
                users=count,
                treatment=level_estimate(_jackknife(treatment.whole, treatment.without, rule.confidence), "share"),
                baseline=level_estimate(_jackknife(baseline.whole, baseline.without, rule.confidence), "share"),
                difference=estimate(apart, "pp", 100.0),
                relative=estimate(lift, "percent", 100.0),
                exploratory=count < rule.min_users,
                detectable=None if smallest is None else 100 * smallest,
                detectable_percent=None if smallest_lift is None else 100 * smallest_lift,
            )
        )
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Indices:
    """One arm's index: of all users, and float64 [G] without each bucket's; NaN where no impression is left."""

    whole: float
    without: FloatArray

    @classmethod
    def of(cls, rows: pa.Table, buckets: NDArray[np.int32]) -> "_Indices":
        rows = rows.group_by(["bucket", "creator_id"], use_threads=False).aggregate([("impressions", "sum")])
        shown = rows["impressions_sum"].to_numpy()
        bucket = np.searchsorted(buckets, rows["bucket"].to_numpy())
        creator = np.unique(rows["creator_id"].to_numpy(), return_inverse=True)[1]
        per_creator = np.bincount(creator, shown)
        total, squares = float(per_creator.sum()), float((per_creator**2).sum())
        # The squares of what is left, without a table of buckets by creators.
        left = squares + np.bincount(bucket, shown * (shown - 2 * per_creator[creator]), len(buckets))
        rest = total - np.bincount(bucket, shown, len(buckets))
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(float(np.float64(squares) / total**2), np.where(rest > 1e-9 * total, left / rest**2, np.nan))


def _jackknife(whole: float, without: FloatArray, confidence: float) -> Effect:
    """Delete-one-bucket jackknife of any function of the arms' indices."""
    count = len(without)
    if count == 0 or not np.isfinite(whole):
        return Effect(None, reason="an arm has no impression whose creator is known")
    if count < FEWEST_BUCKETS:
        return Effect(whole, reason=f"{count} buckets of users are too few: {FEWEST_BUCKETS} are needed")
    if not np.isfinite(without).all():
        return Effect(whole, reason="all impressions of an arm lie in one bucket of users")
    spread = without - without.mean()
    se = float(np.sqrt((count - 1) / count * (spread**2).sum()))
    if se <= 1e-12 * max(abs(whole), 1e-12):
        return Effect(whole, reason=f"the index is the same ({whole:.4g}) without any bucket: no interval")
    return from_se(whole, se, count - 1, confidence)


def herfindahl(impressions: FloatArray) -> FloatArray:
    """Sum of squared shares, from a dense array.

    Args:
        impressions: float64 [..., C] per creator.

    Returns:
        float64 [...]; NaN without an impression.
    """
    total = impressions.sum(axis=-1)
    squares = (impressions * impressions).sum(axis=-1)
    found: FloatArray = np.divide(squares, total * total, out=np.full_like(total, np.nan), where=total > 0)
    return found
