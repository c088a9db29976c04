"""Metrics of every step: rows, rates, losses, lifts, durations; to StatsD or OpenTelemetry, as ``MFH_METRICS`` says.

Names are ``mfh.<what>``. OpenTelemetry carries pipeline, step, day's shard, task and segment as attributes; StatsD has
none, so they are parts of the name: ``<prefix>.<pipeline>.<step>.<what>[.<labels>]``.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from components.context import Context, StepResult
from components.errors import MfhError
from components.masking import mask

log = logging.getLogger("mfh")

TIMEOUT_S = 5


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    step: str
    day: date
    shard: int | None
    state: Literal["done", "failed"]
    seconds: float
    result: StepResult | None = None


@dataclass(frozen=True)
class Measurement:
    """One number. ``labels`` say of what: task, group, segment, metric."""

    name: str
    value: float
    kind: Literal["gauge", "count", "duration_s"] = "gauge"
    labels: dict[str, str] = field(default_factory=dict)


def send(context: Context, ended: Ended) -> None:
    """Send what there is to know of a step's end, where metrics are switched on.

    Args:
        context: Pipeline and settings.
        ended: How it ended.
    """
    url = context.settings.metrics
    if not url:
        return
    parts = urlsplit(url)
    try:
        found = measurements(context, ended)
        if parts.scheme == "statsd":
            _to_statsd(parts, context.pipeline.name, ended, found)
        else:
            _to_otlp(parts, context.pipeline.name, ended, found)
    except (OSError, ValueError, MfhError) as error:
        log.warning("metrics of step %s for %s were not sent to %s: %s", ended.step, ended.day, mask(url), error)


def measurements(context: Context, ended: Ended) -> list[Measurement]:
    """The numbers of a step's end.

    Args:
        context: Pipeline and settings; the lake is read for losses and lifts.
        ended: How it ended.

    Returns:
        Duration and state of every step; numeric facts; rows per second; losses of a training, lifts of an analysis.
    """
    found = [
        Measurement("step.duration", ended.seconds, "duration_s"),
        Measurement(f"step.{ended.state}", 1, "count"),
    ]
    if ended.result is None:
        return found
    facts = ended.result.facts
    found += [Measurement(name, float(value)) for name, value in _numbers(facts)]
    if isinstance(rows := facts.get("rows"), int) and ended.seconds > 0:
        found.append(Measurement("rows_per_s", rows / ended.seconds))
    if ended.step in {"train_treatment", "train_baseline"}:
        found += _losses(context, ended)
    if ended.step == "analyse":
        found += _lifts(context, ended)
    return found


def _numbers(facts: dict[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Numeric facts, nested ones with dots in their names."""
    for name, value in facts.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            yield f"{before}{name}", value
        elif isinstance(value, dict):
            yield from _numbers(value, f"{before}{name}.")


def _losses(context: Context, ended: Ended) -> list[Measurement]:
    """The losses at the step whose weights were kept."""
    content = context.runs.get(f"model_{ended.step.removeprefix('train_')}", ended.day).json("bundle.json")
    return [
        Measurement(f"loss.{part}", one[f"{part}_loss"], labels={"task": one["task"], "group": one["group"] or "all"})
        for one in content["history"]
        for part in ("train", "valid")
        if one["step"] == content["step"] and one[f"{part}_loss"] is not None
    ]


def _lifts(context: Context, ended: Ended) -> list[Measurement]:
    experiment = context.runs.get("experiment", ended.day).json("experiment.json")
    return [
        Measurement(
            f"lift_percent.{end}", one["relative"][end], labels={"metric": one["name"], "segment": one["segment"]}
        )
        for one in experiment["metrics"]
        if one["role"] in {"primary", "guardrail"}
        for end in ("value", "low", "high")
        if one["relative"][end] is not None
    ]


def _to_statsd(parts: SplitResult, pipeline: str, ended: Ended, found: Sequence[Measurement]) -> None:
    from statsd import StatsClient

    prefix = parts.path.strip("/").replace("/", ".") or "mfh"
    with StatsClient(parts.hostname or "", parts.port or 8125, maxudpsize=1_400).pipeline() as pipe:
        for one in found:
            shard = [] if ended.shard is None else [f"shard{ended.shard}"]
            name = ".".join(map(_safe, (prefix, pipeline, ended.step, *shard, one.name, *one.labels.values())))
            if one.kind == "duration_s":
                pipe.timing(name, one.value * 1_000)
            elif one.kind == "count":
                pipe.incr(name, int(one.value))
            elif one.value < 0:
                # A signed gauge is a change to StatsD, so it is set to nothing first.
                pipe.gauge(name, 0)
                pipe.gauge(name, one.value, delta=True)
            else:
                pipe.gauge(name, one.value)


def _safe(part: str) -> str:
    """A part of a StatsD name; nothing in it can end the name or the line."""
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", part)


def _to_otlp(parts: SplitResult, pipeline: str, ended: Ended, found: Sequence[Measurement]) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    endpoint = f"{parts.scheme.removeprefix('otlp+')}://{parts.netloc}{parts.path.rstrip('/')}/v1/metrics"
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint, timeout=TIMEOUT_S), 3_600_000)
    resource = Resource.create({"service.name": "mfh-pipeline"})
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    try:
        meter = provider.get_meter("mfh")
        known = {"pipeline": pipeline, "step": ended.step}
        if ended.shard is not None:
            known["shard"] = str(ended.shard)
        for one in found:
            attributes = known | one.labels
            if one.kind == "duration_s":
                meter.create_histogram(f"mfh.{one.name}", unit="s").record(one.value, attributes)
            elif one.kind == "count":
                meter.create_counter(f"mfh.{one.name}").add(one.value, attributes)
            else:
                meter.create_gauge(f"mfh.{one.name}").set(one.value, attributes)
    finally:
        # A step's process may end right after: what was recorded leaves now or never.
        provider.shutdown(timeout_millis=TIMEOUT_S * 1_000)
