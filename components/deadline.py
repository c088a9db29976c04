"""Airflow's callback when a run has missed its deadline. Light: the DAG processor imports it to see it is there."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any


async def on_deadline(pipeline: str, context: Mapping[str, Any]) -> str:
    """Alert unless the report is there; runs in the triggerer.

    Args:
        pipeline: The pipeline's name.
        context: Airflow's: ``dag_run`` tells the run's kind and interval.

    Returns:
        What was done. Backfills are in nobody's way, so they are never late.
    """
    run = context["dag_run"]
    if run["run_type"] == "backfill":
        return "a backfill is never late"
    return await asyncio.to_thread(_check, pipeline, str(run["data_interval_start"]))


def _check(name: str, start: str) -> str:
    from components.config import Settings, load_pipeline
    from components.context import Context
    from components.freshness import alert, missing

    settings = Settings()
    pipeline = load_pipeline(settings.pipelines_dir / f"{name}.yaml")
    moment = datetime.fromisoformat(start)
    late = missing(Context(pipeline, settings), moment.astimezone(pipeline.feed.zone).date())
    return "the report is there" if late is None else alert(settings, late)
