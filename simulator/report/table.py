"""The metrics of an experiment as one flat table, for spreadsheets and notebooks."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from simulator.experiment import Estimate, Experiment, MetricResult

_PARTS = ("baseline", "treatment", "difference", "relative")
_FIELDS = (("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()), ("se", pa.float64()))

# One row per metric, segment and method; ``plain`` is the record's own, the others are its variants, whose levels are
# those of the plain row. An empty number has its reason beside it.
SCHEMA = pa.schema(
    [
        pa.field("pipeline", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),
        pa.field("day", pa.string(), nullable=False),
        pa.field("holdout_day", pa.string(), nullable=False),
        pa.field("treatment_model", pa.string()),
        pa.field("baseline_model", pa.string()),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("exploratory", pa.bool_(), nullable=False),
        pa.field("higher_is_better", pa.bool_(), nullable=False),
        pa.field("users", pa.int64(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        *[
            pa.field(f"{part}_{name}", dtype)
            for part in _PARTS
            for name, dtype in (*_FIELDS, ("unit", pa.string()), ("reason", pa.string()))
        ],
        pa.field("p_value", pa.float64()),
        pa.field("p_adjusted", pa.float64()),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("margin", pa.float64()),
        pa.field("detectable", pa.float64()),
        pa.field("detectable_percent", pa.float64()),
        pa.field("note", pa.string()),
    ]
)

# What a spreadsheet would run as a formula instead of showing it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def metrics_table(experiment: Experiment) -> pa.Table:
    """All metrics of a record.

    Args:
        experiment: The record.

    Returns:
        ``SCHEMA``, in the record's order.
    """
    models = {arm.role: arm.model for arm in experiment.arms}
    shared = {
        "pipeline": experiment.lineage.pipeline,
        "config_hash": experiment.lineage.config_hash,
        "day": experiment.day,
        "holdout_day": experiment.holdout_day,
        "treatment_model": models.get("treatment"),
        "baseline_model": models.get("baseline"),
        "decision": experiment.verdict.decision,
        "confidence": experiment.confidence,
    }
    rows = [shared | row for metric in experiment.metrics for row in _rows(metric)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def harmless(table: pa.Table) -> pa.Table:
    """The table for a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe before it.

    Args:
        table: Any table.

    Returns:
        The same table with text columns made safe; numbers stay as they are.
    """
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            values = [_quoted(one) for one in table.column(at).to_pylist()]
            table = table.set_column(at, field, pa.array(values, pa.string()))
    return table


def _quoted(text: str | None) -> str | None:
    return f"'{text}" if text is not None and text.startswith(_FORMULA) else text


def _rows(metric: MetricResult) -> Iterator[dict[str, Any]]:
    levels = _columns("baseline", metric.baseline) | _columns("treatment", metric.treatment)
    described = {
        "metric": metric.name,
        "title": metric.title,
        "role": metric.role,
        "segment": metric.segment,
        "exploratory": metric.exploratory,
        "higher_is_better": metric.higher_is_better,
        "users": metric.users,
    }
    yield {
        **described,
        **levels,
        **_columns("difference", metric.difference),
        **_columns("relative", metric.relative),
        "method": "plain",
        "p_value": metric.difference.p_value,
        "p_adjusted": metric.p_adjusted,
        "margin": metric.margin,
        "detectable": metric.detectable,
        "detectable_percent": metric.detectable_percent,
    }
    for variant in metric.variants:
        yield {
            **described,
            **levels,
            **_columns("difference", variant.difference),
            **_columns("relative", variant.relative),
            "method": variant.method,
            "p_value": variant.difference.p_value,
            "note": variant.note,
        }


def _columns(part: str, estimate: Estimate) -> dict[str, Any]:
    fields = ("value", "low", "high", "se", "unit", "reason")
    return {f"{part}_{name}": getattr(estimate, name) for name in fields}
