"""Analyse step: outcomes of all shards become lifts with intervals, a verdict, and ``experiment.json``."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import __version__
from components.certified import certificate_figures
from components.checks.certificate import cited
from components.config import Pipeline
from components.context import Context, StepResult, inputs_of
from components.covariates import covariates
from components.errors import MissingPartitionError
from components.heldout import load_heldout, video_arrays
from components.lake import Partition
from components.respond import response_data
from components.simulate import rollout_inputs, shard_dataset
from components.train import ROLES, recipe_of
from components.validation.passes import decisions, is_broken
from simulator.agreement import Agreement
from simulator.analysis import (
    absent_guardrails,
    calibration,
    corrected,
    interactions,
    logged_outcomes,
    metric_results,
    power_notes,
    sample_ratio,
    session_depths,
)
from simulator.comparison import assign
from simulator.concentration import concentration_results
from simulator.decision import decide, trust_ladder
from simulator.distributions import app_time
from simulator.experiment import Arm, DayData, Experiment, Lineage, Quality, Rung
from simulator.offpolicy.record import OffPolicy
from simulator.response_data import ResponseData
from simulator.scores import place
from simulator.serving import DAY_US
from simulator.session import Rollouts, merge

_SECRET = re.compile(r"password|passwd|secret|token|credential|api_?key", re.IGNORECASE)


def analyse(context: Context, day: date) -> StepResult:
    """Analyse the experiment of an interval day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; rollouts of every shard and the evaluation must be in the lake.

    Returns:
        Hash of the experiment and its verdict.

    Raises:
        MissingPartitionError: When a shard or the replay is missing, or was made from other models than the day's.
    """
    pipeline = context.pipeline
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    held = date.fromisoformat(record["holdout_day"])
    shards = _shards(context, day)
    rollouts = merge([Rollouts(*(p.table(name) for name in ("outcomes", "depths", "creators"))) for p in shards])
    design, rule = pipeline.simulator.design, pipeline.decision
    outcomes = rollouts.outcomes if design == "paired" else assign(rollouts.outcomes, pipeline.simulator.seed)
    ratio = sample_ratio(outcomes, design)
    metrics = metric_results(outcomes, rule, design, covariates(context, held))
    users = {m.segment: m.users for m in metrics if m.name == "app_time"}
    metrics = corrected([*metrics, *concentration_results(rollouts.creators, users, rule)], rule)
    off_policy = _replay(context, day)
    replay = OffPolicy.model_validate(off_policy.json("replay.json"))
    agreement = Agreement.model_validate(off_policy.json("agreement.json"))
    trust = trust_ladder(cited(pipeline.simulator), agreement)
    data = response_data(context, [held], record["activity_threshold"], until=day)
    flags = logged_flags(context, held, data, record)
    logged = logged_outcomes(data, pipeline.feed.skip_below_ms / 1000, data.topic, **flags)
    evaluation, sessions = context.runs.get("evaluation", day), context.data.get("sessions", held)
    experiment = Experiment(
        day=day.isoformat(),
        holdout_day=held.isoformat(),
        return_day=record["return_day"],
        design=design,
        confidence=rule.confidence,
        multiplicity=rule.multiplicity,
        users=len(np.unique(data.user_id)),
        sessions=sessions.rows,
        rollouts=pipeline.simulator.rollouts,
        verdict=decide(metrics, rule, trust, ratio),
        caveats=(
            *pipeline.caveats,
            *_caveats(context, held, trust, replay),
            *decisions(context, [*map(date.fromisoformat, record["train_days"]), held, day]),
            *absent_guardrails(outcomes),
            *power_notes(outcomes, rule, design),
        ),
        trust=trust,
        sample_ratio=ratio.sentence,
        metrics=metrics,
        interactions=interactions(outcomes, rule, design),
        replay=replay,
        agreement=agreement,
        calibration=calibration(rollouts.outcomes, logged),
        session_depth=session_depths(rollouts.depths, data),
        app_time=app_time(outcomes, logged),
        certificate=certificate_figures(pipeline.simulator),
        quality=tuple(Quality(**one) for one in evaluation.json("quality.json")),
        arms=_arms(context, day, record),
        data=_days(context, [*map(date.fromisoformat, record["train_days"]), held, day]),
        lineage=_lineage(pipeline, day, [training_set, evaluation, *rollout_inputs(context, day)]),
    )
    inputs = inputs_of(evaluation, sessions, off_policy, *shards)
    with context.runs.write("experiment", day, pipeline.config_hash, inputs) as writer:
        writer.text("experiment.json", experiment.model_dump_json(indent=1))
        writer.table(rollouts.outcomes, "outcomes")
    verdict = experiment.verdict
    facts = {"decision": verdict.decision, "verdict": verdict.sentence, "users": experiment.users}
    return StepResult("analyse", day, inputs_of(context.runs.get("experiment", day)), facts)


def _shards(context: Context, day: date) -> list[Partition]:
    """The rollouts of every shard, all made from the models that the lake holds now."""
    count = context.pipeline.simulator.shards
    wanted = inputs_of(*rollout_inputs(context, day))
    found = [context.runs.get(shard_dataset(shard, count), day) for shard in range(count)]
    for partition in found:
        if partition.manifest.inputs != wanted:
            raise MissingPartitionError(
                f"{partition.manifest.dataset!r} of {day} was made from other models than the day's; "
                f"run 'mfh step simulate --date {day}' again"
            )
    return found


def _replay(context: Context, day: date) -> Partition:
    """The replay of the models that the lake holds now."""
    partition = context.runs.get("replay", day)
    inputs = partition.manifest.inputs
    wanted = inputs_of(*rollout_inputs(context, day))
    if any(inputs.get(name) != content for name, content in wanted.items()):
        raise MissingPartitionError(
            f"'replay' of {day} was made from other models than the day's; run 'mfh step replay --date {day}' again"
        )
    return partition


def logged_flags(
    context: Context, held: date, data: ResponseData, record: Mapping[str, Any]
) -> dict[str, NDArray[np.int8]]:
    """Which logged impressions were of fresh, trending and tail creators' videos, as rollouts count them.

    Args:
        context: Pipeline and settings.
        held: The held-out day.
        data: Its N impressions.
        record: ``training_set.json`` of the day.

    Returns:
        ``fresh``, ``trending`` and ``tail_creator``, int8 [N], -1 where unknown.
    """
    loaded = load_heldout(context, held, record["activity_threshold"])
    videos = video_arrays(context, loaded, [date.fromisoformat(one) for one in record["train_days"]])
    ids = loaded.sessions["session_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    session, video = place(ids[order], data.session_id), place(loaded.ids, data.video_id)
    session, known = order[session], (session >= 0) & (video >= 0)
    version = loaded.sessions["version"].to_numpy().astype(np.int64)[session]
    started = pc.cast(loaded.sessions["started_at"], pa.int64()).to_numpy()[session]
    row = np.where(known, video + version * len(loaded.ids), 0)
    uploaded = videos.uploaded_us[row]
    fresh = (started - uploaded) // DAY_US <= videos.new_age_days
    flags = {
        "fresh": np.where(uploaded < 0, -1, fresh),
        "trending": videos.trending[row],
        "tail_creator": videos.tail_creator[row],
    }
    return {name: np.where(known, flag, -1).astype(np.int8) for name, flag in flags.items()}


def _caveats(context: Context, held: date, trust: Sequence[Rung], replay: OffPolicy) -> list[str]:
    """What every reader must know of this day's numbers."""
    found = []
    shown = {rung.name[:2] for rung in trust if rung.state != "missing"}
    if not {"V1", "V3"} & shown:
        found.append(
            "Neither A/A runs nor worlds of known truth have tested this version of the simulator: intervals may be "
            "too narrow, and the verdict is provisional."
        )
    if context.data.find("requests", held) is None:
        found.append(
            "The feed logs no candidate sets: both arms ranked what each session was shown, filled up with videos "
            "drawn from the day's exposures."
        )
    log = context.data.get("log", held).table(columns=["propensity"])
    if log["propensity"].null_count == log.num_rows:
        assumed = (
            "The feed logs no propensities: the response model assumes that what was shown depends on nothing but the "
            "features, and "
        )
        rewards = sorted({cell.reward for cell in replay.cells if cell.difference.value is not None})
        if rewards:
            words = " and ".join(rewards)
            found.append(f"{assumed}the log itself says of both arms only what replay says of {words}.")
        else:
            found.append(f"{assumed}no off-policy estimate can check it.")
    elif not any(cell.difference.value is not None for cell in replay.cells):
        why = replay.reason or "every estimate was refused"
        found.append(f"The log itself could not be asked about the arms' difference: {why}.")
    return found


def _arms(context: Context, day: date, record: dict[str, object]) -> tuple[Arm, ...]:
    from components.models import bundle
    from components.train import bundle_files

    arms = []
    days = record["train_days"]
    assert isinstance(days, list)
    for role in ROLES:
        partition = context.runs.get(f"model_{role}", day)
        name, recipe = recipe_of(context, role)
        fitted = bundle.load(bundle_files(partition))
        arms.append(
            Arm(
                role=role,
                model=name,
                kind=recipe.kind,
                parameters=fitted.parameters,
                bundle=partition.content_hash,
                first_day=days[0],
                last_day=days[-1],
                rows=fitted.rows,
                warnings=fitted.warnings,
            )
        )
    return tuple(arms)


def _days(context: Context, days: list[date]) -> tuple[DayData, ...]:
    found = []
    for one in days:
        log = context.data.get("log", one)
        checked = context.runs.get("validation_log", one).json("result.json")
        found.append(
            DayData(
                day=one.isoformat(),
                rows=log.rows,
                refused=log.manifest.facts["refused"],
                expectations=len(checked["outcomes"]),
                failed_expectations=sum(is_broken(outcome) for outcome in checked["outcomes"]),
            )
        )
    return tuple(found)


def without_secrets(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as a report may show them: a feed's own options can hold a password.

    Args:
        settings: Plain data.

    Returns:
        A copy in which values whose name sounds like a secret are ``(hidden)``; the configuration's hash still tells
        two of them apart.
    """
    return {
        name: "(hidden)" if _SECRET.search(name) else without_secrets(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _lineage(pipeline: Pipeline, day: date, inputs: list[Partition]) -> Lineage:
    return Lineage(
        pipeline=pipeline.name,
        source=pipeline.source_id,
        config_hash=pipeline.config_hash,
        code_version=__version__,
        inputs=inputs_of(*inputs),
        reproduce=f"mfh run --pipeline {pipeline.name} --from {day} --to {day}",
        config=without_secrets(pipeline.identity),
    )
