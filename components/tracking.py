"""Training runs in MLflow: settings and curves, beside the bundle that holds the same.

The bundle is what counts. MLflow being down is a warning and never fails a training whose bundle is written.
"""

import json
import logging
import os
import time
from datetime import date
from typing import TYPE_CHECKING, Any

from components.context import Context
from components.lake import Partition

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("mfh")

# What one request to MLflow may hold.
METRICS_AT_ONCE, PARAMETERS_AT_ONCE = 1_000, 100


def log_training(context: Context, day: date, role: str, bundle: Partition) -> str:
    """Record a training in the pipeline's MLflow experiment: once for each bundle.

    Args:
        context: Pipeline and settings.
        day: Interval day.
        role: ``treatment`` or ``baseline``.
        bundle: The partition of the bundle.

    Returns:
        The run's id, or why there is none.
    """
    # A server that is down is noticed in seconds instead of the minutes that MLflow would go on trying.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(context.settings.mlflow_tracking_uri, context.settings.mlflow_tracking_uri)
        experiment = _experiment(client, context)
        tags = {"bundle": bundle.content_hash, "role": role, "day": day.isoformat()}
        wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        if found := client.search_runs([experiment], wanted, max_results=1):
            return str(found[0].info.run_id)
        run = client.create_run(experiment, tags=tags, run_name=f"{day} {role}").info.run_id
        _log(client, run, bundle.json("bundle.json"))
        client.set_terminated(run)
        return str(run)
    except (MlflowException, OSError) as error:
        log.warning("training of %s for %s is not in MLflow: %s", role, day, error)
        return f"not logged: {type(error).__name__}"


def _experiment(client: "MlflowClient", context: Context) -> str:
    from mlflow.exceptions import MlflowException

    name = f"mfh_{context.pipeline.name}"
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    folder = context.settings.home / "mlflow" / "artifacts"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        return str(client.create_experiment(name, artifact_location=folder.as_uri()))
    except MlflowException:
        # The other arm's training was faster.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _log(client: "MlflowClient", run: str, content: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    settings = {"recipe": content["recipe"], "train": content["train"]}
    parameters = [
        Param(f"{part}.{name}", value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for part, values in settings.items()
        for name, value in values.items()
    ]
    now = int(time.time() * 1_000)
    metrics = [
        Metric(f"{one['task']}/{one['group'] or 'all'}/{name}", one[name], now, one["step"])
        for one in content["history"]
        for name in ("train_loss", "valid_loss")
        if one[name] is not None
    ]
    metrics += [Metric("early_stopping_score", score, now, step) for step, score in content["scores"]]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(run, params=parameters[start : start + PARAMETERS_AT_ONCE])
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + METRICS_AT_ONCE])
