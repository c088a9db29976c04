"""The day's steps in order: what Airflow wires, what ``mfh step`` runs, what a pod runs.

Importing this module imports no step; a step's module is imported when it runs.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError

if TYPE_CHECKING:
    from components.config import Pipeline
    from components.context import Context, StepResult

log = logging.getLogger("mfh")


@dataclass(frozen=True)
class Step:
    """One step: its name, where its function is, fixed arguments, and a sentence for people.

    ``setting`` names the pipeline's switch of a step that is no part of every day.
    """

    name: str
    function: str
    meaning: str
    arguments: tuple[tuple[str, Any], ...] = ()
    per_shard: bool = False
    setting: str = ""

    def is_part_of(self, pipeline: "Pipeline") -> bool:
        """Whether a day of the pipeline has this step."""
        return not self.setting or bool(getattr(pipeline, self.setting))

    def load(self) -> Callable[..., "StepResult"]:
        """Import the step's module and return its function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., StepResult] = getattr(import_module(f"components.{module}"), name)
        return function


STEPS: tuple[Step, ...] = (
    Step("ingest", "ingest:ingest", "Bring the feed's log of the day into the lake; refused rows go to quarantine."),
    Step("validate_log", "validate:validate_log", "Check the day's log; a broken day stops here."),
    Step("features", "features:features", "Build user and video features as of the end of the day."),
    Step("validate_features", "validate:validate_features", "Check the feature snapshots."),
    Step("materialize", "materialize:materialize", "Put the day's features into the online store."),
    Step("dataset", "dataset:dataset", "Join features to impressions, point in time, for the training window."),
    Step("train_treatment", "train:train", "Train the treatment arm.", (("role", "treatment"),)),
    Step("train_baseline", "train:train", "Train the baseline arm.", (("role", "baseline"),)),
    Step("evaluate", "evaluate:evaluate", "Measure both arms on the held-out day, per task and user group."),
    Step("respond", "respond:respond", "Fit the model of how users respond to what they are shown."),
    Step("simulate", "simulate:simulate", "Roll out both arms on the held-out sessions of a shard.", per_shard=True),
    Step("replay", "replay:replay", "Ask the held-out day's own log about both arms, and whether the rollouts agree."),
    Step(
        "diagnose",
        "diagnose:diagnose",
        "Look inside the treatment: gates, gains over single tasks, overfitting (where diagnostics is true).",
        setting="diagnostics",
    ),
    Step("analyse", "analyse:analyse", "Turn outcomes into lifts with intervals and a verdict."),
    Step("report", "report:report", "Write the report page."),
    Step("promote", "promote:promote", "Decide on promotion and record it in the model registry."),
)

BY_NAME = {step.name: step for step in STEPS}


def run_step(context: "Context", name: str, day: date, shard: int | None = None) -> list["StepResult"]:
    """Run one step for a day.

    Args:
        context: Pipeline, settings, run.
        name: A name of ``STEPS``.
        day: Interval day, inside the feed.
        shard: Which shard of a step that is mapped over shards; None runs them all, one after the other.

    Returns:
        One result, or one per shard.

    Raises:
        ConfigError: When there is no such step or shard.
    """
    if name not in BY_NAME:
        raise ConfigError(f"no step {name!r}; the steps are {', '.join(BY_NAME)}")
    from components.feed.source import require_day

    step = BY_NAME[name]
    require_day(context.pipeline.feed, day)
    shards = context.pipeline.simulator.shards
    if shard is not None and not 0 <= shard < shards:
        raise ConfigError(f"shard {shard} does not exist: simulator.shards is {shards}")
    function = step.load()
    if not step.per_shard:
        return [_timed(function, context, step.name, day, dict(step.arguments))]
    wanted = range(shards) if shard is None else [shard]
    return [_timed(function, context, step.name, day, {"shard": one}) for one in wanted]


def run_day(context: "Context", day: date) -> list["StepResult"]:
    """Run every step of a day in one process, in order."""
    steps = [step for step in STEPS if step.is_part_of(context.pipeline)]
    return [result for step in steps for result in run_step(context, step.name, day)]


def _timed(
    function: Callable[..., "StepResult"], context: "Context", name: str, day: date, arguments: dict[str, Any]
) -> "StepResult":
    started = time.monotonic()
    result = function(context, day, **arguments)
    facts = " ".join(f"{key}={value}" for key, value in result.facts.items())
    log.info("step=%s day=%s seconds=%.1f %s", name, day, time.monotonic() - started, facts)
    return result
