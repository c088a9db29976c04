"""Inputs of pairs: known answers, and the same numbers for training rows and for scored candidates."""

import numpy as np
import pyarrow as pa
import pytest

from components.errors import ConfigError, SourceError
from components.models import bundle, trainer
from components.models.crosses import Cross, CrossTable, cross_columns
from components.models.fields import InputSpec
from components.models.scoring import PairScorer
from components.models.settings import ModelRecipe, Task, TrainSettings

TOPIC = Cross("pair_topic_lift", "topics", "lifts", "topic")
MAKER = Cross("pair_maker_share", "makers", "shares", "maker")

USERS = pa.table(
    {
        "user_id": pa.array([1, 2, 3], pa.int64()),
        "topics": pa.array([["cats", "dogs"], [], ["dogs"]], pa.list_(pa.string())),
        "lifts": pa.array([[0.5, -0.25], [], [0.125]], pa.list_(pa.float32())),
        "makers": pa.array([[7], [9, 7], []], pa.list_(pa.int64())),
        "shares": pa.array([[1.0], [0.75, 0.25], []], pa.list_(pa.float32())),
    }
)
VIDEOS = pa.table(
    {
        "video_id": pa.array([11, 12, 13, 14], pa.int64()),
        "topic": pa.array(["cats", "dogs", "news", None]),
        "maker": pa.array([7, 9, None, 8], pa.int64()),
    }
)


def every_pair() -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)


def test_a_pairs_value_is_the_users_at_the_candidates_key_and_else_zero() -> None:
    found = CrossTable(USERS, VIDEOS, (TOPIC, MAKER)).columns(*every_pair())
    assert found["pair_topic_lift"].to_pylist() == [0.5, -0.25, 0, 0] + [0] * 4 + [0, 0.125, 0, 0]
    assert found["pair_maker_share"].to_pylist() == [1.0, 0, 0, 0] + [0.25, 0.75, 0, 0] + [0] * 4


def test_rows_that_hold_both_sides_give_the_same_values() -> None:
    user, video = every_pair()
    rows = USERS.take(pa.array(user))
    for name in VIDEOS.column_names:
        rows = rows.append_column(name, VIDEOS[name].take(pa.array(video)))
    assert cross_columns(rows, (TOPIC, MAKER)) == CrossTable(USERS, VIDEOS, (TOPIC, MAKER)).columns(user, video)


def test_nobody_who_knows_anything_gives_zeros() -> None:
    found = CrossTable(USERS.slice(1, 1), VIDEOS, (TOPIC,)).columns(np.zeros(4, int), np.arange(4))
    assert found["pair_topic_lift"].to_pylist() == [0.0] * 4


def test_lists_of_other_lengths_and_missing_columns_are_named() -> None:
    short = USERS.set_column(2, "lifts", pa.array([[0.5], [], [0.125]], pa.list_(pa.float32())))
    with pytest.raises(SourceError, match="'lifts' are not as long as those of 'topics'"):
        CrossTable(short, VIDEOS, (TOPIC,))
    with pytest.raises(SourceError, match="'topics', which is missing"):
        CrossTable(USERS.drop_columns("topics"), VIDEOS, (TOPIC,))


def test_a_cross_that_the_encoder_does_not_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be numeric and context columns"):
        InputSpec(ids=("video_id",), video_columns=("video_id",), crosses=(TOPIC,))


SPEC = InputSpec(
    ids=("user_id", "video_id"),
    numeric=("pair_topic_lift", "pair_maker_share"),
    user_columns=("user_id",),
    video_columns=("video_id",),
    context_columns=("pair_topic_lift", "pair_maker_share"),
    crosses=(TOPIC, MAKER),
)


def training_rows() -> pa.Table:
    """The likes follow the lift alone."""
    user, video = (np.tile(one, 20) for one in every_pair())
    table = pa.table(
        {"user_id": USERS["user_id"].take(pa.array(user)), "video_id": VIDEOS["video_id"].take(pa.array(video))}
    )
    for name, column in CrossTable(USERS, VIDEOS, (TOPIC, MAKER)).columns(user, video).items():
        table = table.append_column(name, column)
    lift = table["pair_topic_lift"].to_numpy()
    group = pa.array(np.zeros(len(user), np.int8))
    return table.append_column("like", pa.array((lift > 0).astype(np.int8))).append_column("group", group)


def test_an_arm_scores_candidates_by_the_numbers_that_it_was_trained_on_also_from_a_bundle() -> None:
    rows = training_rows()
    settings = TrainSettings(epochs=2, batch_size=64, min_id_count=1)
    fitted = trainer.fit(ModelRecipe("mmoe"), settings, (Task("like"),), ("new",), SPEC, rows)
    joined = fitted.predict(rows.slice(0, 12))
    user, video = every_pair()
    request = pa.table({"at": np.zeros(12)})
    for one in (fitted, bundle.load(bundle.save(fitted, {}))):
        scored = PairScorer(one, USERS, VIDEOS).score(user, video, request, np.zeros(12, np.int8))
        np.testing.assert_array_equal(scored, joined)
    # A user whose lists are emptied is scored otherwise: the lists do reach the network.
    bare = USERS.set_column(2, "lifts", pa.array([[0.0, 0.0], [], [0.0]], pa.list_(pa.float32())))
    other = PairScorer(fitted, bare, VIDEOS).score(user, video, request, np.zeros(12, np.int8))
    assert not np.array_equal(other, joined)
