"""Validate steps: Great Expectations checkpoints on a day's log and on its feature snapshots.

A failed critical expectation fails the day: the result and its page are written first, so that the person
on call has something to read, then the step raises and nothing downstream starts.
"""

import logging
import os
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from components.context import Context, StepResult, inputs_of
from components.errors import ValidationFailedError
from components.expectations import day_suite, feature_suite, log_suite
from components.features import ENTITIES
from components.feed.schema import BEHAVIOURS
from components.feed.source import features_of
from components.ingest import ensure_days
from components.lake import Partition
from components.locks import exclusive
from components.window import holdout_day, train_days

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations import Expectation

PAGE = "data_docs.html"


@dataclass(frozen=True)
class Outcome:
    """One expectation's result."""

    table: str
    expectation: str
    column: str
    limits: str
    observed: str
    unexpected: int
    severity: str
    success: bool

    def sentence(self) -> str:
        """The failure as a person on call reads it."""
        count = f", {self.unexpected} unexpected rows" if self.unexpected else ""
        where = f"{self.table}.{self.column or 'table'}"
        return f"{where}: {self.expectation} expects {self.limits}, observed {self.observed}{count}"


def validate_log(context: Context, day: date) -> StepResult:
    """Check the log of a day and its totals, and those of window days that were not checked yet.

    Args:
        context: Pipeline, settings, run.
        day: A day whose log is in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When a critical expectation fails, on the day or on a day of its window.
        MissingPartitionError: When the log is not in the lake.
    """
    context.data.get("log", day)
    earlier = [*train_days(context.pipeline, day), holdout_day(day)]
    for log in ensure_days(context, earlier):
        one = date.fromisoformat(log.manifest.day)
        with exclusive(context.lock(f"validation-{context.pipeline.config_hash}", one)):
            done = context.runs.find("validation_log", one)
            if done is None or done.manifest.inputs != inputs_of(log) or not done.json("result.json")["success"]:
                _validate_one_log(context, one)
    return _validate_one_log(context, day)


def _validate_one_log(context: Context, day: date) -> StepResult:
    log = context.data.get("log", day)
    table = log.table()
    totals, recorded = day_totals(context, day, log, table)
    checks = {
        "log": (table.to_pandas(), log_suite(context.pipeline)),
        "day": (totals.to_pandas(), day_suite(context.pipeline, recorded)),
    }
    return _run(context, day, "validation_log", checks, [log])


def validate_features(context: Context, day: date) -> StepResult:
    """Check the user and video snapshots of a day.

    Args:
        context: Pipeline, settings, run.
        day: A day whose snapshots are in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When a critical expectation fails.
        MissingPartitionError: When a snapshot is not in the lake.
    """
    features = features_of(context.pipeline.feed)
    snapshots = {entity: context.data.get(f"{entity}_features", day) for entity in ENTITIES}
    checks = {}
    for entity, snapshot in snapshots.items():
        table = snapshot.table()
        # Lists have no expectation and cost pandas dearly.
        flat = table.select([f.name for f in table.schema if not pa.types.is_list(f.type)])
        checks[f"{entity}_features"] = (flat.to_pandas(), feature_suite(features, entity))
    return _run(context, day, "validation_features", checks, list(snapshots.values()))


def day_totals(context: Context, day: date, log: Partition, table: pa.Table) -> tuple[pa.Table, set[str]]:
    """Totals of a day as a table of one row.

    Args:
        context: Pipeline and settings.
        day: The day.
        log: The log's partition; its facts hold what ingest refused.
        table: The log's rows.

    Returns:
        rows, refused_share, mean_watch_ms, users, unknown_user_share, unknown_video_share and ``<behaviour>_rate``
        of what is recorded; and the names of the recorded behaviours.
    """
    recorded = {name for name in BEHAVIOURS if table[name].null_count < table.num_rows}
    values: dict[str, float] = {
        "rows": table.num_rows,
        "refused_share": float(log.manifest.facts.get("refused_share", 0.0)),
        "mean_watch_ms": pc.mean(table["watch_ms"]).as_py(),
        "users": pc.count_distinct(table["user_id"]).as_py(),
    }
    for entity in ENTITIES:
        known = context.data.get(f"{entity}s", day).table(columns=[f"{entity}_id"])[f"{entity}_id"]
        inside = pc.is_in(table[f"{entity}_id"], known)
        values[f"unknown_{entity}_share"] = 1.0 - pc.mean(inside).as_py()
    for name in recorded:
        values[f"{name}_rate"] = pc.mean(table[name]).as_py()
    return pa.table({name: [value] for name, value in values.items()}), recorded


def _run(
    context: Context,
    day: date,
    name: str,
    checks: dict[str, tuple["pd.DataFrame", list["Expectation"]]],
    inputs: list[Partition],
) -> StepResult:
    outcomes, pages = [], []
    for done, (table, (frame, suite)) in enumerate(checks.items()):
        context.notify(done, len(checks), f"validate {table}")
        found, page = checkpoint(table, frame, suite)
        outcomes += found
        pages.append(page)
    context.notify(len(checks), len(checks), "validated")
    failed = [one for one in outcomes if not one.success and one.severity == "critical"]
    warned = [one for one in outcomes if not one.success and one.severity != "critical"]
    with context.runs.write(name, day, context.pipeline.config_hash, inputs_of(*inputs)) as writer:
        writer.json("result.json", {"success": not failed, "outcomes": [asdict(one) for one in outcomes]})
        # The pages carry times and random ids, so they stand outside the content hash.
        writer.aside[PAGE] = "\n".join(pages).encode()
    partition = context.runs.get(name, day)
    if failed:
        lines = "\n".join(f"  {one.sentence()}" for one in failed)
        raise ValidationFailedError(
            f"{name} of {day}: {len(failed)} of {len(outcomes)} expectations failed:\n{lines}\n"
            f"Full record: {partition.aside(PAGE)}. Mend the feed and run the day again; nothing downstream ran."
        )
    facts = {
        "expectations": len(outcomes),
        "warnings": [one.sentence() for one in warned],
        "data_docs": partition.aside(PAGE),
    }
    return StepResult(name, day, inputs_of(partition), facts)


def checkpoint(name: str, frame: "pd.DataFrame", suite: list["Expectation"]) -> tuple[list[Outcome], str]:
    """Run one Great Expectations checkpoint.

    Args:
        name: Name of the table.
        frame: Its rows.
        suite: Expectations on it.

    Returns:
        Outcomes in the order of the suite, and the Data Docs page. An expectation that itself breaks is a
        failed one.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    import great_expectations as gx
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    # It logs hundreds of lines a run, and sets levels of its own when it is imported.
    for logger in [name for name in logging.root.manager.loggerDict if name.startswith("great_expectations")]:
        logging.getLogger(logger).setLevel(logging.WARNING)
    gx_context = gx.get_context(mode="ephemeral")
    gx_context.variables.progress_bars = {"globally": False}
    batch = (
        gx_context.data_sources.add_pandas("lake").add_dataframe_asset(name).add_batch_definition_whole_dataframe("day")
    )
    gx_suite = gx_context.suites.add(gx.ExpectationSuite(name=name, expectations=suite))
    definition = gx_context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=gx_suite))
    point = gx_context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition]))
    (result,) = point.run(batch_parameters={"dataframe": frame}).run_results.values()
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=False).render(result))
    return [_outcome(name, one) for one in result.to_json_dict()["results"]], page


def _outcome(table: str, result: dict[str, Any]) -> Outcome:
    config, numbers = result["expectation_config"], result["result"]
    kwargs = {k: v for k, v in config["kwargs"].items() if k not in ("batch_id", "column")}
    column = config["kwargs"].get("column", "")
    exception = result["exception_info"].get("exception_message") if result["exception_info"] else None
    observed = numbers.get("observed_value", numbers.get("partial_unexpected_list", [])[:5])
    return Outcome(
        table=table,
        expectation=config["type"],
        column=column,
        limits=", ".join(f"{k}={v}" for k, v in sorted(kwargs.items())) or "a value",
        observed=f"an error: {exception}" if exception else str(observed),
        unexpected=int(numbers.get("unexpected_count", 0)),
        severity=config.get("severity", "critical"),
        success=bool(result["success"]),
    )
