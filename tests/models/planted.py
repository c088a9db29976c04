"""A small window with a planted signal: users and videos have hidden tastes, and a numeric column leaks half of it."""

import numpy as np
import pyarrow as pa

from components.models.fields import InputSpec
from components.models.settings import ModelRecipe, SwitcherSettings, Task, TrainSettings

TASKS = (Task("completion"), Task("finish"), Task("like"))
GROUPS = ("new", "low", "high")
SPEC = InputSpec(
    ids=("user_id", "video_id"),
    categories=("topic", "surface", "hour"),
    numeric=("user_rate", "video_rate", "constant"),
    history="user_last_videos",
    user_columns=("user_id", "user_rate", "user_last_videos", "constant"),
    video_columns=("video_id", "topic", "video_rate"),
    context_columns=("surface", "hour"),
)
RECIPE = ModelRecipe(
    kind="mfh",
    level0_width=32,
    level1=SwitcherSettings("ple", (16, 16), experts=2, shared=2),
    deeper=SwitcherSettings("cgc", (16,), experts=1, shared=1),
    tower_widths=(16,),
    small_tower_widths=(8,),
)
TRAIN = TrainSettings(epochs=3, batch_size=256, learning_rate=5e-3, id_embedding=8, device="cpu")


def users(rng: np.random.Generator, count: int) -> pa.Table:
    lengths = rng.integers(0, 6, count)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int32)
    taste = rng.normal(size=count)
    rate = pa.array(taste, pa.float32(), mask=rng.random(count) < 0.1)
    history = pa.ListArray.from_arrays(pa.array(offsets), pa.array(rng.integers(0, 60, offsets[-1])))
    return pa.table(
        {
            "user_id": pa.array(np.arange(count) * 1_000),
            "user_rate": rate,
            "user_last_videos": history,
            "constant": pa.array(np.full(count, 0.1), pa.float32()),
            "group": pa.array(np.arange(count) % 3, pa.int8()),
            "taste": taste,
        }
    )


def videos(rng: np.random.Generator, count: int) -> pa.Table:
    quality = rng.normal(size=count)
    return pa.table(
        {
            "video_id": pa.array(np.arange(count)),
            "topic": pa.array(np.array(["", "cats", "news", None])[rng.integers(0, 4, count)], pa.string()),
            "video_rate": pa.array(quality + 0.3 * rng.normal(size=count), pa.float32()),
            "quality": quality,
        }
    )


def context(rng: np.random.Generator, rows: int) -> pa.Table:
    surface = np.array(["feed", "search"])[rng.integers(0, 2, rows)]
    return pa.table({"surface": surface, "hour": pa.array(rng.integers(0, 24, rows), pa.int8())})


def joined(user_table: pa.Table, video_table: pa.Table, pairs: tuple[np.ndarray, np.ndarray], request: pa.Table):
    parts = [user_table.take(pa.array(pairs[0])), video_table.take(pa.array(pairs[1])), request]
    return pa.table({name: part[name] for part in parts for name in part.column_names})


def window(rows: int = 4_000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    people, clips = users(rng, 90), videos(rng, 60)
    pairs = (rng.integers(0, 90, rows), rng.integers(0, 60, rows))
    table = joined(people, clips, pairs, context(rng, rows))
    pull = 1.5 * (table["taste"].to_numpy() + table["quality"].to_numpy())
    chance = 1 / (1 + np.exp(-pull))
    table = table.append_column("completion", pa.array(np.clip(chance + 0.1 * rng.normal(size=rows), 0, None)))
    for name in ("finish", "like"):
        table = table.append_column(name, pa.array((rng.random(rows) < chance).astype(np.int8)))
    return table.drop_columns(["taste", "quality"])
