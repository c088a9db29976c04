"""Validate steps: the gates of a day, each a checkpoint that keeps its page and stops the day where it must.

A gate learns from days that every run of its day has at hand, and makes what it needs of them: so its verdict is the
same in whatever order days are run, and however often.
"""

from collections.abc import Container, Sequence
from datetime import date
from functools import partial

from components.context import Context, StepResult, inputs_of
from components.days import day_range
from components.features import ENTITIES
from components.feed.source import features_of
from components.ingest import ensure_days
from components.lake import Partition
from components.locks import exclusive
from components.validation.feature_gate import check_features
from components.validation.gate import RESULT, days_behind, earlier_summaries, ensure_summary, run_gate
from components.validation.log_gate import Day, Verdict, check_log
from components.validation.model_gate import check_models, compare_models
from components.validation.model_profile import Profile
from components.validation.summary import Summary
from components.validation.training_gate import TrainingSet, check_training_set
from components.window import holdout_day, snapshot_days, train_days


def validate_log(context: Context, day: date) -> StepResult:
    """Check the log, the users and the videos of a day, and of those days of its window that were not checked yet.

    Args:
        context: Pipeline, settings, run.
        day: A day whose log is in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When the day, or a day of its window, does not pass.
        MissingPartitionError: When the log is not in the lake.
    """
    context.data.get("log", day)
    judged = [*train_days(context.pipeline, day), holdout_day(day), day]
    # The features of the window read as far back.
    logs = {
        date.fromisoformat(log.manifest.day)
        for log in ensure_days(context, [*days_behind(judged[0]), *day_range(judged[0], day)])
    }
    taught = _Taught(context, logs)
    for one in judged[:-1]:
        if one in logs:
            with exclusive(context.lock(f"validation-{context.pipeline.config_hash}", one)):
                past = taught.before(one)
                if not _passed_as_it_is(context, one, past):
                    _validate_one_log(context, one, past)
    with exclusive(context.lock(f"validation-{context.pipeline.config_hash}", day)):
        return _validate_one_log(context, day, taught.before(day))


def _passed_as_it_is(context: Context, day: date, past: Sequence[Partition]) -> bool:
    """Whether the day's gate let these very tables pass, by what these very days teach."""
    done = context.runs.find("validation_log", day)
    if done is None or not done.json(RESULT)["success"]:
        return False
    return inputs_of(*_tables(context, day), *past).items() <= done.manifest.inputs.items()


def _tables(context: Context, day: date) -> list[Partition]:
    return [context.data.get(name, day) for name in ("log", "users", "videos")]


class _Taught:
    """What the days behind one teach: never more than the feed has, and never less, whatever has run before."""

    def __init__(self, context: Context, logs: Container[date]) -> None:
        self.context, self.logs = context, logs
        self.known: dict[date, Partition | None] = {}

    def before(self, day: date) -> list[Partition]:
        behind = [one for one in days_behind(day) if one in self.logs]
        for one in behind:
            if one not in self.known:
                suite, tables = partial(_check, self.context, one, []), _tables(self.context, one)
                self.known[one] = ensure_summary(self.context, one, "validation_log", suite, tables)
        return [found for one in behind if (found := self.known[one]) is not None]


def _check(context: Context, day: date, past: Sequence[Summary]) -> Verdict:
    log, users, videos = _tables(context, day)
    delivered = Day(
        day,
        # Read batch by batch, so that a day's size does not matter.
        context.data.dataset("log", [day]),
        users.table(),
        videos.table(),
        refused=log.manifest.facts.get("refused", {}),
        requests=None if context.data.find("requests", day) is None else context.data.dataset("requests", [day]),
    )
    return check_log(delivered, context.pipeline, past)


def _validate_one_log(context: Context, day: date, past: Sequence[Partition]) -> StepResult:
    return run_gate(context, day, "validation_log", partial(_check, context, day), _tables(context, day), past)


def validate_features(context: Context, day: date) -> StepResult:
    """Check the user and video snapshots of a day.

    Args:
        context: Pipeline, settings, run.
        day: A day whose snapshots are in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When the snapshots do not pass.
        MissingPartitionError: When a snapshot is not in the lake.
    """
    past = [
        ensure_summary(
            context, one, "validation_features", partial(_check_snapshots, context, one, []), _snapshots(context, one)
        )
        for one in days_behind(day)
        if one in snapshot_days(context.pipeline, day) and context.data.find("log", one) is not None
    ]
    return run_gate(
        context,
        day,
        "validation_features",
        partial(_check_snapshots, context, day),
        _snapshots(context, day),
        [one for one in past if one is not None],
    )


def _snapshots(context: Context, day: date) -> list[Partition]:
    return [context.data.get(f"{entity}_features", day) for entity in ENTITIES]


def _check_snapshots(context: Context, day: date, past: Sequence[Summary]) -> Verdict:
    tables = {entity: context.data.dataset(f"{entity}_features", [day]) for entity in ENTITIES}
    age = (day - context.pipeline.feed.first_day).days + 1
    return check_features(day, tables, features_of(context.pipeline.feed), age, past)


def validate_training_set(context: Context, day: date) -> StepResult:
    """Check the training set of a day: its newest examples against the window's, balance, and leaks.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its training set must be in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When the training set does not pass.
        MissingPartitionError: When it is not in the lake.
    """
    training_set = context.runs.get("training_set", day)
    record = training_set.json("training_set.json")
    days = [date.fromisoformat(one) for one in (*record["train_days"], record["holdout_day"])]
    given = TrainingSet(
        days={one: context.data.dataset("examples", [one]) for one in days},
        impressions={one: context.data.get("log", one).rows for one in days},
        features=features_of(context.pipeline.feed),
        threshold=record["activity_threshold"],
        feed_age_days=(days[-1] - context.pipeline.feed.first_day).days + 1,
    )
    return run_gate(
        context,
        day,
        "validation_training_set",
        lambda _: check_training_set(given, context.pipeline),
        [training_set],
    )


def validate_models(context: Context, day: date) -> StepResult:
    """Check what both arms predict for the held-out day.

    Args:
        context: Pipeline, settings, run.
        day: Interval day; its evaluation must be in the lake.

    Returns:
        Hash of the result, counts of expectations and of failures.

    Raises:
        ValidationFailedError: When the predictions do not pass; nothing is simulated, promoted or served from them.
        MissingPartitionError: When the evaluation is not in the lake.
    """
    evaluation = context.runs.get("evaluation", day)
    profiles = [Profile(**one) for one in evaluation.json("profiles.json")]
    return run_gate(
        context,
        day,
        "validation_models",
        lambda _: check_models(day, profiles),
        [evaluation],
        beside=lambda today: compare_models(today, earlier_summaries(context, "validation_models", day)),
    )
