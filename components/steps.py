"""The day's steps in order: what Airflow wires, what ``mfh step`` runs, what a pod runs.

Importing this module imports no step; a step's module is imported when it runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError, MfhError, ValidationFailedError

if TYPE_CHECKING:
    from components.config import Pipeline
    from components.context import Context, StepResult


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
    Step("check_skew", "check_skew:check_skew", "Hold online values against the offline join, field by field."),
    Step("dataset", "dataset:dataset", "Join features to impressions, point in time, for the training window."),
    Step("validate_training_set", "validate:validate_training_set", "Check the training set: balance, drift, leaks."),
    Step("train_treatment", "train:train", "Train the treatment arm.", (("role", "treatment"),)),
    Step("train_baseline", "train:train", "Train the baseline arm.", (("role", "baseline"),)),
    Step("evaluate", "evaluate:evaluate", "Measure both arms on the held-out day, per task and user group."),
    Step("validate_models", "validate:validate_models", "Check what both arms predict: calibration and drift."),
    Step(
        "feature_report", "feature_report:feature_report", "Show coverage, drift and importance of the models' inputs."
    ),
    Step("respond", "respond:respond", "Fit the model of how users respond to what they are shown."),
    Step(
        "tune",
        "tune:tune",
        "Find each arm's fusion weights on the window's last day (where simulator.fusion_trials is set).",
        setting="tunes_fusion",
    ),
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
    Step(
        "champion",
        "second_comparison:compare_champion",
        "Hold the treatment against the deployed champion (where promotion.champion asks for it).",
        setting="second_comparison",
    ),
    Step("promote", "promote:promote", "Decide on promotion and record it in the model registry."),
)

BY_NAME = {step.name: step for step in STEPS}

# What waits for what, for whoever runs steps as tasks of their own; a step that a pipeline leaves out is passed over.
AFTER: dict[str, tuple[str, ...]] = {
    "ingest": (),
    "validate_log": ("ingest",),
    "features": ("validate_log",),
    "validate_features": ("features",),
    "materialize": ("validate_features",),
    "check_skew": ("materialize",),
    "dataset": ("validate_features",),
    "validate_training_set": ("dataset",),
    "train_treatment": ("validate_training_set",),
    "train_baseline": ("train_treatment",),
    "evaluate": ("train_baseline",),
    "validate_models": ("evaluate",),
    "respond": ("validate_training_set",),
    "tune": ("train_baseline", "respond"),
    "simulate": ("train_baseline", "respond", "tune"),
    "replay": ("train_baseline", "respond", "tune"),
    "diagnose": ("train_baseline",),
    "analyse": ("validate_models", "simulate", "replay"),
    "feature_report": ("train_baseline",),
    # Not behind check_skew, so that the page of a day whose online values are wrong is there to show it.
    "report": ("analyse", "diagnose", "feature_report"),
    "champion": ("evaluate", "simulate"),
    "promote": ("report", "check_skew", "champion"),
}


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
    from components.observe import observed

    step = BY_NAME[name]
    require_day(context.pipeline.feed, day)
    shards = context.pipeline.simulator.shards
    if shard is not None and not 0 <= shard < shards:
        raise ConfigError(f"shard {shard} does not exist: simulator.shards is {shards}")
    function = step.load()
    if not step.per_shard:
        return [observed(function, context, step.name, day, dict(step.arguments))]
    wanted = range(shards) if shard is None else [shard]
    return [observed(function, context, step.name, day, {"shard": one}) for one in wanted]


def run_step_past_gates(
    context: "Context", name: str, day: date, shard: int | None = None, *, because: str = "", who: str = ""
) -> list["StepResult"]:
    """Run one step; where a person has given a reason, a gate that fails on the day is let pass and asked again.

    Args:
        context: Pipeline, settings, run.
        name: A name of ``STEPS``.
        day: Interval day, inside the feed.
        shard: As for ``run_step``.
        because: The reason; empty lets no gate pass.
        who: The person.

    Returns:
        As ``run_step``.

    Raises:
        ValidationFailedError: When a gate fails and no reason was given, or it is another day's gate.
        ConfigError: When the reason is no sentence, or the gate failed on what could not be computed.
    """
    from components.validation.passes import pass_day

    try:
        return run_step(context, name, day, shard)
    except ValidationFailedError:
        if not because or not pass_day(context, day, because, who=who):
            raise
        return run_step(context, name, day, shard)


def run_day(context: "Context", day: date) -> list["StepResult"]:
    """Run every step of a day in one process, in order; behind a step that fails, all that does not wait for it.

    Args:
        context: Pipeline, settings, run.
        day: Interval day.

    Returns:
        The results of all steps.

    Raises:
        MfhError: The first failure, once nothing is left that could still run.
    """
    results: list[StepResult] = []
    failure: MfhError | None = None
    missing: set[str] = set()
    for step in STEPS:
        if not step.is_part_of(context.pipeline):
            continue
        if missing.intersection(AFTER[step.name]):
            missing.add(step.name)
            continue
        try:
            results += run_step(context, step.name, day)
        except MfhError as error:
            failure = failure or error
            missing.add(step.name)
    if failure is not None:
        raise failure
    return results
