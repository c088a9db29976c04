"""Champion step: hold the day's treatment against the champion that it would replace.

The experiment compares with the baseline *recipe* trained on the treatment's own window, else freshness and
architecture would be confounded. What would really be replaced is the deployed champion, trained earlier: this second
comparison says what replacing it would do, freshness included. Only the champion is rolled out; the treatment's
rollouts are those of the experiment, which met the same draws (``simulator.session``), so the comparison is paired.

The champion counts for a day only if it was trained on days up to *d*-2, so that a backfilled day never looks ahead.
Groups of users are as of the day's own window, also for the champion.
"""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from components.arms import configured_fusion
from components.compute import use_threads
from components.context import Context, StepResult, inputs_of
from components.covariates import covariates
from components.dataset import read_examples
from components.errors import MissingPartitionError, ModelRegistryError
from components.evaluate import quality_of
from components.feature_list import service_name
from components.feed.source import features_of
from components.heldout import load_heldout, session_arrays, video_arrays
from components.inputs import GROUPS, input_spec
from components.lake import Partition
from components.model_registry import CHAMPION, Registry, Version, bundle_facts
from components.respond import load_response
from components.simulate import ranking, shard_dataset
from simulator.analysis import corrected, metric_results, sample_ratio
from simulator.comparison import assign
from simulator.concentration import concentration_results
from simulator.decision import decide
from simulator.experiment import MetricResult, Quality, Verdict
from simulator.policy import Ranker
from simulator.session import Rollouts, RolloutSettings, bucket_of, merge, rollout

DATASET, RECORD = "champion", "champion.json"
# The place that the champion takes, so that everything that compares two arms compares these.
ARM = "baseline"


class Comparison(BaseModel):
    """The second comparison of a day.

    ``reason`` says why there is none, and is empty where there is one. ``verdict`` and ``metrics`` are of the
    rollouts, with the champion in the place of the baseline; None and empty where only quality was compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = ""
    day: str = ""
    bundle: str = ""
    reason: str = ""
    last_day: str = ""
    quality: tuple[Quality, ...] = ()
    verdict: Verdict | None = None
    metrics: tuple[MetricResult, ...] = ()


def compare_champion(context: Context, day: date) -> StepResult:
    """Compare the treatment of ``day`` with the deployed champion, as far as ``promotion.champion`` says.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; rollouts of every shard and the treatment's bundle must be in the lake.

    Returns:
        Hash of the comparison; its sentence, or why there is none.

    Raises:
        MissingPartitionError: When something that it reads is not in the lake.
        ModelRegistryError: When the champion's alias points to a deleted version, or its bundle is gone or changed.
    """
    use_threads(context.pipeline)
    training_set, treatment = context.runs.get("training_set", day), context.runs.get("model_treatment", day)
    inputs: list[Partition] = [training_set, treatment]
    found = _champion(context, day, treatment)
    if isinstance(found, str):
        record = Comparison(reason=found)
    else:
        version, files = found
        record, read = _compare(context, day, training_set, version, files)
        inputs += read
    with context.runs.write(DATASET, day, context.pipeline.config_hash, inputs_of(*inputs)) as writer:
        writer.text(RECORD, record.model_dump_json(indent=1))
    facts = {"version": record.version, "reason": record.reason}
    if record.verdict is not None:
        facts |= {"decision": record.verdict.decision, "verdict": record.verdict.sentence}
    return StepResult("champion", day, inputs_of(context.runs.get(DATASET, day)), facts)


def read_comparison(context: Context, day: date) -> Comparison | None:
    """The second comparison of a day that the pipeline asks for.

    Args:
        context: Pipeline and settings.
        day: Interval day.

    Returns:
        The record; None where the pipeline asks for none, or no champion fitted.

    Raises:
        MissingPartitionError: When it is asked for and not there, or was made of another treatment.
    """
    if not context.pipeline.second_comparison:
        return None
    partition = context.runs.get(DATASET, day)
    treatment = inputs_of(context.runs.get("model_treatment", day))
    if not treatment.items() <= partition.manifest.inputs.items():
        raise MissingPartitionError(
            f"{DATASET!r} of {day} was made of another treatment; run 'mfh step champion --date {day}' again"
        )
    record = Comparison.model_validate_json(partition.bytes(RECORD))
    return None if record.reason else record


def _champion(context: Context, day: date, treatment: Partition) -> tuple[Version, dict[str, bytes]] | str:
    """The champion and its files, or why it can not be compared."""
    try:
        registry = Registry(context, create=True)
        version = registry.behind(CHAMPION)
    except ModelRegistryError as error:
        raise ModelRegistryError(f"the champion can not be compared with: {error}") from error
    if version is None:
        return "no version is the champion yet"
    if version.bundle == treatment.content_hash:
        return f"the champion, version {version.number}, is this treatment"
    if version.bundle == context.runs.get("model_baseline", day).content_hash:
        return f"the champion, version {version.number}, is the day's baseline: the experiment is that comparison"
    files = registry.files(version)
    reason = misfit(context, day, bundle_facts(files))
    return f"champion, version {version.number}: {reason}" if reason else (version, files)


def misfit(context: Context, day: date, facts: dict[str, object]) -> str:
    """Why a champion can not stand in a day's comparison.

    Args:
        context: Pipeline and settings.
        day: Interval day.
        facts: What training recorded with its bundle.

    Returns:
        The reason, empty when it fits.
    """
    days, tasks = facts.get("train_days"), facts.get("tasks")
    last = (day - timedelta(days=2)).isoformat()
    served = service_name(features_of(context.pipeline.feed))
    if facts.get("feature_service") != served:
        return f"it reads the feature service {facts.get('feature_service')!r}, this code serves {served!r}"
    if not isinstance(days, list) or not days or max(days) > last:
        return f"it has learned from days after {last}, which {day} must not know"
    wanted = [task.name for task in context.pipeline.tasks]
    if tasks != wanted:
        return f"its tasks are {tasks}, the pipeline's are {wanted}"
    return ""


def _compare(
    context: Context, day: date, training_set: Partition, version: Version, files: dict[str, bytes]
) -> tuple[Comparison, list[Partition]]:
    from components.models import bundle
    from components.models.scoring import PairScorer

    fitted, facts = bundle.load(files), bundle_facts(files)
    found = {"version": version.number, "day": version.day, "bundle": version.bundle}
    if fitted.spec.columns != input_spec(features_of(context.pipeline.feed)).columns or fitted.group_names != GROUPS:
        reason = f"champion, version {version.number}: it reads other features or groups than the day has"
        return Comparison(reason=reason), []
    pipeline, record = context.pipeline, training_set.json("training_set.json")
    held_day = date.fromisoformat(record["holdout_day"])
    table = read_examples(context, [held_day], record["activity_threshold"])
    predicted = fitted.predict(table)
    quality = [
        row
        for index, task in enumerate(pipeline.tasks)
        for row in quality_of(ARM, task.name, task.loss, table, predicted[:, index])
    ]
    base = Comparison(**found, last_day=max(facts["train_days"]), quality=tuple(quality))
    if pipeline.promotion.champion == "offline":
        return base, []

    shards = [
        context.runs.get(shard_dataset(shard, pipeline.simulator.shards), day)
        for shard in range(pipeline.simulator.shards)
    ]
    response = context.runs.get("response", day)
    held = load_heldout(context, held_day, record["activity_threshold"])
    # Under the weights of the pipeline's file: what was tuned for another day's models is not the champion's.
    champion = Ranker(PairScorer(fitted, held.sessions, held.videos), configured_fusion(context))
    arms = {ARM: ranking(champion, held)}
    videos = video_arrays(context, held, [date.fromisoformat(one) for one in record["train_days"]])
    chosen = pipeline.simulator
    settings = RolloutSettings(chosen.seed, chosen.rollouts, chosen.max_slots, chosen.design)
    bucket, model = bucket_of(held.sessions["user_id"].to_numpy()), load_response(response)
    parts = []
    for done, one in enumerate(np.unique(bucket)):
        context.notify(done, len(np.unique(bucket)), "roll out the champion")
        rows = np.flatnonzero(bucket == one)
        parts.append(rollout(session_arrays(context, held, rows), videos, arms, model, settings))
    treated = [Rollouts(*(_treatment(p.table(name)) for name in ("outcomes", "depths", "creators"))) for p in shards]
    both = merge([Rollouts.none(), *treated, *parts])
    metrics, verdict = _verdict(context, held_day, both)
    return base.model_copy(update={"metrics": metrics, "verdict": verdict}), [response, *shards]


def _verdict(context: Context, held: date, both: Rollouts) -> tuple[tuple[MetricResult, ...], Verdict]:
    """The experiment's own analysis, with the champion as the baseline."""
    rule, design = context.pipeline.decision, context.pipeline.simulator.design
    outcomes = both.outcomes if design == "paired" else assign(both.outcomes, context.pipeline.simulator.seed)
    metrics = metric_results(outcomes, rule, design, covariates(context, held))
    users = {m.segment: m.users for m in metrics if m.name == "app_time"}
    metrics = corrected([*metrics, *concentration_results(both.creators, users, rule)], rule)
    return tuple(metrics), decide(metrics, rule, (), sample_ratio(outcomes, design))


def _treatment(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["arm"], "treatment"))
