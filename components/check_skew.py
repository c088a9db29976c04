"""Skew step: what is served online is what the offline join gives, field by field, or the day fails.

For users and videos of the day, the online store and the point-in-time join are asked the same question at the moment
from which the day's snapshot is visible.
"""

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.context import Context, StepResult, inputs_of
from components.errors import SkewError
from components.feature_list import Feature
from components.features import ENTITIES
from components.feed.schema import TIME
from components.feed.source import features_of
from components.materialize import available_at
from components.online import OnlineFeatures
from components.point_in_time import historical_features

RECORD = "skew.json"

# So many mismatches are written out.
SHOWN = 20


@dataclass(frozen=True)
class Mismatch:
    """One value that differs."""

    entity: str
    id: int
    feature: str
    online: Any
    offline: Any

    def __str__(self) -> str:
        return f"{self.feature} of {self.entity} {self.id}: online {self.online!r}, offline {self.offline!r}"


@dataclass(frozen=True)
class Skew:
    """The outcome of a comparison.

    Attributes:
        day: Whose snapshot.
        moment: At which both sides were asked (UTC).
        entities: How many users and videos.
        compared: Values.
        mismatches: Values that differ.
        by_feature: Mismatches of each feature that has any.
        shown: The first of them.
        not_compared: Why nothing was compared, where nothing was.
    """

    day: str
    moment: str
    entities: dict[str, int]
    compared: int = 0
    mismatches: int = 0
    by_feature: dict[str, int] | None = None
    shown: tuple[Mismatch, ...] = ()
    not_compared: str | None = None

    @property
    def rate(self) -> float | None:
        """Share of values that differ; None where nothing was compared."""
        return self.mismatches / self.compared if self.compared else None


def check_skew(context: Context, day: date) -> StepResult:
    """Compare online values with the offline join for users and videos of a day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day, materialized.

    Returns:
        Hash of the record, values compared and mismatch rate; or why nothing was compared: the online store holds a
        newer day, as it should when an old day is run again. An earlier comparison of these very snapshots stands then.

    Raises:
        SkewError: When more values differ than ``online.max_mismatch_rate`` allows, or the store lacks the day.
        MissingPartitionError: When the day's snapshots are not in the lake.
        OnlineStoreError: When the store can not be reached.
    """
    snapshots = [context.data.get(f"{entity}_features", day) for entity in ENTITIES]
    skew = compare(context, day)
    partition, not_compared = context.runs.find("skew", day), skew.not_compared
    if not_compared is None or partition is None or partition.manifest.inputs != inputs_of(*snapshots):
        with context.runs.write("skew", day, context.pipeline.config_hash, inputs_of(*snapshots)) as writer:
            writer.json(RECORD, asdict(skew) | {"rate": skew.rate})
        partition = context.runs.get("skew", day)
    # Else what was found when the day was the newest stands: a day that runs again gives the same bytes and fails where
    # it failed.
    record = partition.json(RECORD)
    if record["rate"] is not None and record["rate"] > context.pipeline.online.max_mismatch_rate:
        worst = "\n".join(f"  {Mismatch(**one)}" for one in record["shown"][:5])
        raise SkewError(
            f"{record['mismatches']} of {record['compared']} values of {day} differ between the online store and the "
            f"offline join (rate {record['rate']:.2g}, allowed {context.pipeline.online.max_mismatch_rate:g}):\n"
            f"{worst}\n"
            f"Full record: {partition.url(RECORD)}. 'mfh step materialize --date {day}' writes the store anew; if "
            "the values still differ, something else writes to it, or the snapshots were changed since"
        )
    facts = {name: record[name] for name in ("compared", "mismatches", "rate")}
    if not_compared is not None:
        facts["not_compared"] = not_compared
    return StepResult("check_skew", day, inputs_of(partition), facts)


def compare(context: Context, day: date) -> Skew:
    """The comparison of a day.

    Args:
        context: Pipeline and settings.
        day: A day whose snapshots are in the lake.

    Returns:
        What was found.

    Raises:
        SkewError: When the online store ends before the day.
    """
    moment = available_at(context, day)
    features = features_of(context.pipeline.feed)
    online = OnlineFeatures(context, features)
    skew = Skew(day.isoformat(), moment.isoformat(), dict.fromkeys(ENTITIES, 0))
    if (reason := _not_comparable(online, day, moment)) is not None:
        return replace(skew, not_compared=reason)
    wanted = {"user": context.pipeline.online.skew_users, "video": context.pipeline.online.skew_videos}
    compared, entities, found = 0, dict.fromkeys(map(str, ENTITIES), 0), list[Mismatch]()
    for entity in ENTITIES:
        chosen = [feature for feature in features if feature.entity == entity]
        ids = sample(context, entity, day, wanted[entity])
        if not len(ids):
            continue
        entities[entity] = len(ids)
        offline = joined(context, entity, ids, moment, features)
        found += mismatches(entity, ids, online.read(entity, ids, moment).table, offline, chosen)
        compared += len(ids) * len(chosen)
    if found and (reason := _not_comparable(online, day, moment)) is not None:
        # A newer day came in while the two sides were read.
        return replace(skew, not_compared=reason)
    counts = Counter(one.feature for one in found)
    return replace(
        skew,
        entities=entities,
        compared=compared,
        mismatches=len(found),
        by_feature=dict(sorted(counts.items())),
        shown=tuple(found[:SHOWN]),
    )


def _not_comparable(online: OnlineFeatures, day: date, moment: datetime) -> str | None:
    until = online.until()
    if until is None or until < moment:
        held = "is empty" if until is None else f"ends at {until:%F %R} UTC"
        raise SkewError(
            f"the online store {held}, before the snapshot of {day}; run 'mfh step materialize --date {day}'"
        )
    return None if until == moment else f"the online store holds a newer day (up to {until:%F %R} UTC)"


def sample(context: Context, entity: str, day: date, size: int) -> NDArray[np.int64]:
    """Entities of a day to compare: of its snapshot, of its profiles, and one that nobody has ever seen.

    Args:
        context: Pipeline and settings.
        entity: ``user`` or ``video``.
        day: A day whose snapshots are in the lake.
        size: How many at most, half of them from the snapshot; 0 for none.

    Returns:
        int64, ascending; the same day gives the same sample.
    """
    if size == 0:
        return np.array([], np.int64)
    draw = np.random.default_rng(day.toordinal())
    chosen: set[int] = set()
    known = 0
    for dataset in (f"{entity}_features", f"{entity}s"):
        ids = context.data.get(dataset, day).table(columns=[f"{entity}_id"])[f"{entity}_id"].to_numpy()
        count = min(len(ids), (size + 1) // 2)
        chosen.update(draw.choice(np.sort(ids), count, replace=False).tolist())
        known = max(known, int(ids.max(initial=0)))
    return np.array([*sorted(chosen)[:size], known + 1], np.int64)


def joined(
    context: Context, entity: str, ids: NDArray[np.int64], moment: datetime, features: tuple[Feature, ...]
) -> pa.Table:
    """What the offline join gives for entities at a moment, in the order of ``ids``."""
    keys = pa.chunked_array([pa.array(ids)])
    stamps = pa.chunked_array([pa.repeat(pa.scalar(moment, TIME), len(ids))])
    user, video = (keys, None) if entity == "user" else (None, keys)
    return historical_features(context, user, video, stamps, features)


def mismatches(
    entity: str, ids: NDArray[np.int64], online: pa.Table, offline: pa.Table, features: list[Feature]
) -> list[Mismatch]:
    """Values that differ; a missing value, NaN and an empty list are one and the same, as they are to every model.

    Args:
        entity: ``user`` or ``video``.
        ids: N entities.
        online: N rows with the features' columns.
        offline: N rows with the features' columns.
        features: Which columns are compared.

    Returns:
        One for each (entity, feature) that differs, bit for bit.
    """
    found = []
    for feature in features:
        pairs = zip(ids.tolist(), online[feature.name].to_pylist(), offline[feature.name].to_pylist(), strict=True)
        for one, left, right in pairs:
            a, b = _plain(left), _plain(right)
            if a != b:
                found.append(Mismatch(entity, one, feature.name, a, b))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value] or None
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def read_skew(context: Context, day: date) -> dict[str, Any]:
    """The record of a day's comparison.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        The fields of ``Skew``, with ``rate``.

    Raises:
        MissingPartitionError: When the day was not compared.
    """
    record: dict[str, Any] = context.runs.get("skew", day).json(RECORD)
    return record
