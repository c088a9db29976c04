"""The examples that a comparison of models reads: any days of any source, exactly as the daily pipeline makes them.

The pipeline's own steps run in a lake of their own: ingest, feature snapshots, point-in-time joins. Groups follow the
activity threshold of the training days, for the validation and the test days, too.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from components.config import Pipeline, Settings, load_pipeline
from components.context import Context
from components.dataset import examples, read_examples
from components.days import day_range, parse_range
from components.errors import ConfigError, WindowError
from components.feature_list import fingerprint
from components.features import features
from components.feed.source import features_of
from components.ingest import ensure_days
from components.init import write_pipeline
from components.inputs import activity_threshold, input_spec
from components.models.fields import InputSpec

Notify = Callable[[int, int, str], None]

WORLD = "world"


@dataclass(frozen=True)
class Days:
    """Inclusive ranges of days, each after the one before: nothing is learned from days after those it is tested on."""

    train: tuple[date, date]
    valid: tuple[date, date]
    test: tuple[date, date] | None

    @classmethod
    def parse(cls, train: str, valid: str, test: str | None) -> "Days":
        """Read ranges of the form ``A:B``.

        Args:
            train: Training days.
            valid: Validation days: early stopping and tuning.
            test: Test days, None for a comparison on the validation days.

        Returns:
            The ranges.

        Raises:
            ConfigError: When one is no range, or begins before the one before it ends.
        """
        try:
            found = [parse_range(text) for text in (train, valid, test) if text is not None]
        except ValueError as error:
            raise ConfigError(f"date ranges are A:B with ISO dates, both included: {error}") from error
        for (_, end), (start, _) in pairwise(found):
            if start <= end:
                raise ConfigError(
                    f"{start} is not after {end}: the validation days must follow the training days, and the test "
                    "days the validation days, or the figures would look ahead"
                )
        return cls(found[0], found[1], found[2] if test is not None else None)

    @property
    def span(self) -> tuple[date, date]:
        """First and last day of all."""
        return self.train[0], (self.test or self.valid)[1]

    @property
    def ranges(self) -> dict[str, tuple[date, date]]:
        """The ranges by name."""
        named = {"train": self.train, "valid": self.valid}
        return named if self.test is None else named | {"test": self.test}


@dataclass(frozen=True, eq=False)
class Examples:
    """What models are compared on.

    Attributes:
        pipeline: The source's pipeline: tasks, sizes, training settings.
        spec: What the models read.
        days: The ranges.
        threshold: Activity threshold of the groups, from the training days.
        train: Rows of the training days: the spec's columns, labels, ``user_id``, ``group``.
        valid: The same of the validation days.
        test: The same of the test days, None without them.
    """

    pipeline: Pipeline
    spec: InputSpec
    days: Days
    threshold: float
    train: pa.Table
    valid: pa.Table
    test: pa.Table | None

    @property
    def judged(self) -> pa.Table:
        """The rows that the figures are of: the test days, without them the validation days."""
        return self.valid if self.test is None else self.test


def load(data: str, days: Days, cache: Path | None, notify: Notify) -> Examples:
    """Build the examples.

    Args:
        data: ``world``, the folder of a KuaiRand edition, or a pipeline file of any other source.
        days: Which days.
        cache: Folder of a lake to keep, so that the next comparison on these days reads it; a lake of another list of
            features lies beside it. None for a lake that is thrown away.
        notify: Called with (done, total, what).

    Returns:
        The examples.

    Raises:
        WindowError: When the source has no row of one of the days.
        SourceError: When the source can not be read.
    """
    with ExitStack() as stack:
        root = cache or Path(stack.enter_context(TemporaryDirectory(prefix="mfh-bench-")))
        pipeline = _pipeline(root, data, days)
        listed = features_of(pipeline.feed)
        context = Context(_wide(pipeline, days), _settings(root / f"features-{fingerprint(listed)}"), notify=notify)
        _ensure_examples(context, days)
        spec = input_spec(listed)
        activity = f"user_impressions_{pipeline.groups.activity_days}d"
        wanted = list(day_range(*days.train))
        rows = read_examples(context, wanted, 0.0, [])
        threshold = activity_threshold(rows["tenure_days"], rows[activity], pipeline.groups)
        columns = list(dict.fromkeys([*spec.columns, *(task.name for task in pipeline.tasks), "user_id"]))
        tables = {
            name: read_examples(context, list(day_range(*one)), threshold, columns).combine_chunks()
            for name, one in days.ranges.items()
        }
    return Examples(pipeline, spec, days, threshold, tables["train"], tables["valid"], tables.get("test"))


def _settings(home: Path) -> Settings:
    """Everything below one folder, whatever the environment says: a benchmark never touches the user's lake."""
    return Settings(home=home, lake="", lake_endpoint="", pipelines="", mlflow_uri="", feast_registry="")


def _pipeline(root: Path, data: str, days: Days) -> Pipeline:
    if data.endswith((".yaml", ".yml")):
        pipeline = load_pipeline(Path(data))
    else:
        pipeline = load_pipeline(write_pipeline(_settings(root), None if data == WORLD else data, force=True))
    (first, last), feed = days.span, pipeline.feed
    if data == WORLD and feed.last_day is not None and feed.last_day < last:
        feed = feed.model_copy(update={"last_day": last})
    if first < feed.first_day or (feed.last_day is not None and feed.last_day < last):
        raise WindowError(
            f"{data} has days {feed.first_day} to {feed.last_day or 'open'}, which do not hold {first} to {last}"
        )
    return pipeline.model_copy(update={"feed": feed})


def _wide(pipeline: Pipeline, days: Days) -> Pipeline:
    """The pipeline with a window so long that the features step builds every snapshot that a request may see."""
    first, last = days.span
    return pipeline.override({"window_days": max(1, (last - first).days - 1)})


def _ensure_examples(context: Context, days: Days) -> None:
    wanted = [day for one in days.ranges.values() for day in day_range(*one)]
    found = {partition.manifest.day for partition in ensure_days(context, wanted)}
    if missing := [str(day) for day in wanted if day.isoformat() not in found]:
        raise WindowError(f"the source has no usable row of {', '.join(missing)}; choose ranges without them")
    if all(context.data.find("examples", day) for day in wanted):
        return
    features(context, wanted[-1])
    for done, day in enumerate(wanted):
        context.notify(done, len(wanted), f"point-in-time join {day}")
        if context.data.find("examples", day) is None:
            with context.data.write("examples", day) as writer:
                writer.table(examples(context, day))
    context.notify(len(wanted), len(wanted), "point-in-time joins")
