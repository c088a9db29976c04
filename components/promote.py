"""Promote step: record both bundles and the decision in the MLflow registry, and move its aliases.

``champion`` is what serves, ``challenger`` what was tried last without winning. A backfilled old day records
its versions and decision but moves no alias once the registry knows a newer day.
"""

import os
from datetime import date
from typing import TYPE_CHECKING

from components.context import Context, StepResult, inputs_of
from components.lake import Partition
from components.locks import exclusive
from components.report import read_experiment
from components.train import ROLES, Role
from simulator.experiment import Experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def promote(context: Context, day: date) -> StepResult:
    """Register both arms of ``day`` and decide which aliases they get.

    Args:
        context: Pipeline (``promote`` false records without moving aliases), settings, run.
        day: Interval day; its experiment must be in the lake.

    Returns:
        The decision, the versions, and what was done to the aliases or why nothing was.

    Raises:
        MissingPartitionError: When the experiment or a bundle is not in the lake.
    """
    experiment = read_experiment(context, day)
    bundles = {role: context.runs.get(f"model_{role}", day) for role in ROLES}
    with exclusive(context.settings.home / "mlflow" / "registry.lock"):
        versions, done, name = _record(context, day, bundles, experiment)
    wanted = _alias(experiment)
    experiment_partition = context.runs.get("experiment", day)
    with context.runs.write(
        "promotion", day, context.pipeline.config_hash, inputs_of(experiment_partition, *bundles.values())
    ) as writer:
        # What the registry looked like is not content: the same day decides the same, whenever it runs.
        writer.json(
            "decision.json",
            {
                "decision": experiment.verdict.decision,
                "alias": wanted,
                "bundle": bundles["treatment"].content_hash,
                "model": name,
            },
        )
        writer.run |= {"versions": versions, "aliases": done}
    facts = {"decision": experiment.verdict.decision, "registry": name, "versions": versions, "aliases": done}
    return StepResult("promote", day, inputs_of(context.runs.get("promotion", day)), facts)


def _alias(experiment: Experiment) -> str:
    return "champion" if experiment.verdict.decision == "ship" else "challenger"


def _record(
    context: Context, day: date, bundles: dict[Role, Partition], experiment: Experiment
) -> tuple[dict[Role, str], str, str]:
    """Register both bundles and move the aliases; nobody else may write meanwhile."""
    client, name = _registry(context)
    newest = max((version.tags["day"] for version in _versions(client, name)), default="")
    versions = {role: _register(context, client, name, day, role, bundle) for role, bundle in bundles.items()}
    _log_run(context, client, day, experiment)
    if not context.pipeline.promote:
        done = "aliases left alone: promote is false"
    elif newest > day.isoformat():
        done = f"aliases left alone: the registry already knows {newest}"
    else:
        done = _move_aliases(client, name, versions, _alias(experiment))
    return versions, done, name


def _registry(context: Context) -> tuple["MlflowClient", str]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    (context.settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    client = MlflowClient(context.settings.mlflow_tracking_uri, context.settings.mlflow_tracking_uri)
    name = f"mfh_{context.pipeline.name}"
    try:
        client.create_registered_model(name, description=context.pipeline.description or None)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client, name


def _versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    return list(client.search_model_versions(f"name='{name}'", max_results=10_000))


def _register(context: Context, client: "MlflowClient", name: str, day: date, role: Role, bundle: Partition) -> str:
    tags = {
        "day": day.isoformat(),
        "role": role,
        "bundle": bundle.content_hash,
        "config_hash": context.pipeline.config_hash,
    }
    for version in _versions(client, name):
        if all(version.tags.get(key) == value for key, value in tags.items()):
            return str(version.version)
    created = client.create_model_version(name, source=bundle.folder, tags=tags)
    return str(created.version)


def _move_aliases(client: "MlflowClient", name: str, versions: dict[Role, str], wanted: str) -> str:
    aliases = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    moves = {wanted: versions["treatment"]}
    if wanted == "challenger" and "champion" not in aliases:
        # Something must serve: before any treatment has won, that is the baseline.
        moves["champion"] = versions["baseline"]
    for alias, version in moves.items():
        client.set_registered_model_alias(name, alias, version)
    if aliases.get("challenger") == versions["treatment"] and wanted == "champion":
        client.delete_registered_model_alias(name, "challenger")
    return ", ".join(f"{alias} -> version {version}" for alias, version in sorted(moves.items()))


def _log_run(context: Context, client: "MlflowClient", day: date, experiment: Experiment) -> None:
    name = f"mfh_{context.pipeline.name}"
    found = client.get_experiment_by_name(name)
    folder = context.settings.home / "mlflow" / "artifacts"
    experiment_id = found.experiment_id if found else client.create_experiment(name, artifact_location=folder.as_uri())
    tags = {
        "day": day.isoformat(),
        "config_hash": context.pipeline.config_hash,
        "experiment": context.runs.get("experiment", day).content_hash,
    }
    # A retried or repeated day is one run.
    if client.search_runs([experiment_id], " and ".join(f"tags.{k} = '{v}'" for k, v in tags.items()), max_results=1):
        return
    run = client.create_run(experiment_id, tags=tags, run_name=day.isoformat())
    for one in experiment.metrics:
        if one.relative.value is not None:
            client.log_metric(run.info.run_id, f"lift_{one.name}_{one.segment}_percent", one.relative.value)
    client.log_param(run.info.run_id, "decision", experiment.verdict.decision)
    client.set_terminated(run.info.run_id)
