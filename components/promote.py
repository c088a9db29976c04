"""Promote step: record both bundles and the decision in the MLflow registry, and move its aliases.

``champion`` is what serves, ``candidate`` what waits for a person's approval, ``challenger`` what was tried last
without winning. A backfilled old day records its versions and decision but moves no alias once the registry knows a
newer day. Every move is in the audit record (``components/audit.py``) before it is done.
"""

from dataclasses import asdict
from datetime import date

from components.aliases import by_rule
from components.context import Context, StepResult, inputs_of
from components.lake import Partition
from components.model_registry import Registry
from components.promotion_rule import AgainstChampion, Ruling, rule
from components.report import read_experiment
from components.second_comparison import read_comparison
from components.train import ROLES, Role
from simulator.experiment import Experiment


def promote(context: Context, day: date) -> StepResult:
    """Register both arms of ``day`` and decide which aliases they get.

    Args:
        context: Pipeline (``promote`` false records without moving aliases), settings, run.
        day: Interval day; its experiment must be in the lake.

    Returns:
        The decision, the versions, and what was done to the aliases or why nothing was.

    Raises:
        MissingPartitionError: When the experiment, a bundle, or the second comparison that the pipeline asks for is
            not in the lake.
        ModelRegistryError: When MLflow can not be used.
    """
    experiment = read_experiment(context, day)
    bundles = {role: context.runs.get(f"model_{role}", day) for role in ROLES}
    compared = read_comparison(context, day)
    against = AgainstChampion(compared.version, compared.quality, compared.verdict) if compared else None
    ruling = rule(experiment, context.pipeline.promotion, against)
    registry = Registry(context, create=True)
    with registry.lock():
        versions, done = _record(registry, day, bundles, experiment, ruling)
    extra = [context.runs.get("champion", day)] if context.pipeline.second_comparison else []
    inputs = inputs_of(context.runs.get("experiment", day), *bundles.values(), *extra)
    with context.runs.write("promotion", day, context.pipeline.config_hash, inputs) as writer:
        # What the registry looked like is not content: the same day decides the same, whenever it runs.
        writer.json(
            "decision.json",
            {
                "decision": experiment.verdict.decision,
                "alias": ruling.alias,
                "reason": ruling.reason,
                "guardrails": [asdict(one) for one in ruling.guardrails],
                "bundle": bundles["treatment"].content_hash,
                "model": registry.name,
            },
        )
        writer.run |= {"versions": versions, "aliases": done}
    facts = {
        "decision": experiment.verdict.decision,
        "alias": ruling.alias,
        "registry": registry.name,
        "versions": versions,
        "aliases": done,
    }
    return StepResult("promote", day, inputs_of(context.runs.get("promotion", day)), facts)


def _record(
    registry: Registry, day: date, bundles: dict[Role, Partition], experiment: Experiment, ruling: Ruling
) -> tuple[dict[Role, str], str]:
    """Register both bundles and move the aliases; nobody else may write meanwhile."""
    newest = max((version.day for version in registry.versions()), default="")
    versions = {role: registry.register(day, role, bundle) for role, bundle in bundles.items()}
    _log_run(registry, day, experiment)
    if not registry.context.pipeline.promote:
        done = "aliases left alone: promote is false"
    elif newest > day.isoformat():
        done = f"aliases left alone: the registry already knows {newest}"
    else:
        done = by_rule(registry, day, versions["treatment"], versions["baseline"], ruling)
    return {role: version.number for role, version in versions.items()}, done


def _log_run(registry: Registry, day: date, experiment: Experiment) -> None:
    context, client = registry.context, registry.client
    with registry.errors():
        found = client.get_experiment_by_name(registry.name)
        folder = context.settings.home / "mlflow" / "artifacts"
        experiment_id = (
            found.experiment_id if found else client.create_experiment(registry.name, artifact_location=folder.as_uri())
        )
        tags = {
            "day": day.isoformat(),
            "config_hash": context.pipeline.config_hash,
            "experiment": context.runs.get("experiment", day).content_hash,
        }
        # A retried or repeated day is one run.
        wanted = " and ".join(f"tags.{key} = '{value}'" for key, value in tags.items())
        if client.search_runs([experiment_id], wanted, max_results=1):
            return
        run = client.create_run(experiment_id, tags=tags, run_name=day.isoformat())
        for one in experiment.metrics:
            if one.relative.value is not None:
                client.log_metric(run.info.run_id, f"lift_{one.name}_{one.segment}_percent", one.relative.value)
        client.log_param(run.info.run_id, "decision", experiment.verdict.decision)
        client.set_terminated(run.info.run_id)
