"""Small worlds for checks: a day's features, sessions and response model by the pipeline's own steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.config import ModelRecipe, Settings, load_pipeline
from components.context import Context
from components.dataset import read_examples
from components.feed.source import features_of
from components.heldout import Heldout, load_heldout, video_arrays
from components.init import write_pipeline
from components.inputs import input_spec
from components.models.fields import InputSpec
from components.steps import run_step
from simulator.serving import Videos
from simulator.world import World

# Seeds of worlds. Design worlds may be looked at while the simulator is written; those of the other two kinds not.
DESIGN, CALIBRATION, TEST = 7_000, 8_000, 9_000


@dataclass(frozen=True)
class Size:
    """How large a small world is.

    Attributes:
        users: Registered before the first day.
        new_users_per_day: Registering every day.
        videos: Uploaded before the first day.
        new_videos_per_day: Uploaded every day.
        window_days: Days of the training window; the held-out day and the day after it follow.
    """

    users: int = 900
    new_users_per_day: int = 45
    videos: int = 800
    new_videos_per_day: int = 40
    window_days: int = 6


@dataclass(frozen=True, eq=False)
class WorldDay:
    """A world as far as its held-out day.

    Attributes:
        context: Its pipeline, in a lake of its own.
        world: The truth.
        day: The interval day.
        held_day: The held-out day.
        held: Its sessions.
        videos: Its videos as the simulator reads them.
        spec: What the arms read.
        table: Examples of the training days, in order of time.
        threshold: Activity threshold of the groups.
    """

    context: Context
    world: World
    day: date
    held_day: date
    held: Heldout
    videos: Videos
    spec: InputSpec
    table: pa.Table
    threshold: float

    @property
    def train_days(self) -> list[date]:
        """Days of the training window."""
        return [self.held_day - timedelta(days=back) for back in range(self.context.pipeline.train.window_days, 0, -1)]

    def session_rows(self, user_id: NDArray[np.int64], session: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of ``held.sessions``.

        Args:
            user_id: int64 [N].
            session: int64 [N], number of the session within the day.

        Returns:
            int64 [N].
        """
        from simulator.world_tables import session_id

        number = (self.held_day - self.context.pipeline.feed.first_day).days
        ids = self.held.sessions["session_id"].to_numpy()
        order = np.argsort(ids, kind="stable")
        return order[np.searchsorted(ids[order], session_id(user_id, number, session))]


@contextmanager
def world_day(seed: int, size: Size, settings: dict[str, object] | None = None) -> Iterator[WorldDay]:
    """Make a world and its first complete day, in a folder that is thrown away.

    Args:
        seed: The world's.
        size: How large.
        settings: Changes of the pipeline's simulator settings.

    Yields:
        The day; its lake holds log, features, training set and held-out sessions.
    """
    with TemporaryDirectory(prefix="mfh-check-") as folder:
        context = world_context(seed, size, Path(folder), size.window_days + 2, settings)
        day = context.pipeline.feed.first_day + timedelta(days=size.window_days + 1)
        for step in ("ingest", "features", "dataset"):
            run_step(context, step, day)
        yield _loaded(context, day)


def home_in(folder: Path) -> Settings:
    """Everything below one folder, whatever the environment says: a check never touches the user's lake."""
    return Settings(home=folder, lake="", lake_endpoint="", pipelines="", mlflow_uri="", feast_registry="")


def world_context(seed: int, size: Size, folder: Path, days: int, settings: dict[str, object] | None = None) -> Context:
    """The pipeline of a small world, with a home of its own.

    Args:
        seed: The world's.
        size: How large.
        folder: Its home.
        days: Days of the feed.
        settings: Changes of the pipeline's simulator settings.

    Returns:
        The context.
    """
    home = home_in(folder)
    pipeline = load_pipeline(write_pipeline(home, None, force=True))
    feed = pipeline.feed.model_copy(
        update={
            "seed": seed,
            "users": size.users,
            "new_users_per_day": size.new_users_per_day,
            "videos": size.videos,
            "new_videos_per_day": size.new_videos_per_day,
            "last_day": pipeline.feed.first_day + timedelta(days=days - 1),
        }
    )
    simulator = pipeline.simulator.model_copy(update=settings or {})
    pipeline = pipeline.model_copy(update={"feed": feed, "simulator": simulator, "sizes": _small(pipeline.sizes)})
    return Context(pipeline.override({"window_days": size.window_days}), home)


def _small(sizes: ModelRecipe) -> ModelRecipe:
    """Networks of a quarter of the widths: a small world has a fifth of a day's rows, and a check trains five arms."""
    return replace(
        sizes,
        level0_width=sizes.level0_width // 4,
        level1=replace(sizes.level1, widths=tuple(width // 2 for width in sizes.level1.widths)),
        deeper=replace(sizes.deeper, widths=tuple(width // 2 for width in sizes.deeper.widths)),
    )


def _loaded(context: Context, day: date) -> WorldDay:
    record = context.runs.get("training_set", day).json("training_set.json")
    held_day, threshold = date.fromisoformat(record["holdout_day"]), record["activity_threshold"]
    days = [date.fromisoformat(one) for one in record["train_days"]]
    held = load_heldout(context, held_day, threshold)
    spec = input_spec(features_of(context.pipeline.feed))
    tasks = [task.name for task in context.pipeline.tasks]
    columns = list(dict.fromkeys([*spec.columns, *tasks, "user_id", "video_id"]))
    feed = context.pipeline.feed
    assert feed.kind == "world"
    return WorldDay(
        context=context,
        world=World(feed),
        day=day,
        held_day=held_day,
        held=held,
        videos=video_arrays(context, held, days),
        spec=spec,
        table=read_examples(context, days, threshold, columns).combine_chunks(),
        threshold=threshold,
    )
