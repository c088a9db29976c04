import numpy as np
import pyarrow as pa
import pytest

from components.errors import BundleError, ConfigError, SourceError
from components.models.fields import NUMERIC_LIMIT, InputSpec, Vocabularies, encode
from tests.models import planted

SPEC = InputSpec(
    ids=("video_id",),
    categories=("topic",),
    numeric=("x", "same"),
    history="seen",
    user_columns=("seen", "x", "same"),
    video_columns=("video_id", "topic"),
)
TABLE = pa.table(
    {
        "video_id": [7, 7, 9, 5, None],
        "topic": ["b", None, "a", "b", "b"],
        "x": pa.array([1.0, 3.0, None, 1.0, 3.0], pa.float32()),
        "same": pa.array([0.1] * 5, pa.float32()),
        "seen": pa.array([[7, 9], [], None, [7, 8, 9], [9]], pa.list_(pa.int64())),
    }
)


def test_codes_of_a_known_table():
    vocab = Vocabularies.fit(TABLE, SPEC, min_count=2)
    # Row 0 padding; video_id: 1 unknown, 2 = 7; topic: 3 unknown, 4 = a, 5 = b.
    assert (vocab.offsets, vocab.id_rows, vocab.rows, vocab.history_length) == ((1, 3, 6), 3, 6, 3)
    encoded = encode(TABLE, SPEC, vocab)
    assert encoded.index.tolist() == [[2, 5], [2, 3], [1, 4], [1, 5], [1, 5]]
    assert encoded.index.dtype == np.int32
    assert encoded.numeric.tolist() == [[-1, 0], [1, 0], [0, 0], [-1, 0], [1, 0]]
    assert encoded.history.tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0], [2, 1, 1], [1, 0, 0]]


def test_unseen_values_outliers_and_longer_histories():
    vocab = Vocabularies.fit(TABLE, SPEC, min_count=1)
    other = pa.table(
        {
            "video_id": pa.array([1_000_000_000_000, 9]),
            "topic": pa.array(["c", "a"]).dictionary_encode(),
            "x": [1e30, float("inf")],
            "same": [0.1, 0.2],
            "seen": [[7, 7, 7, 9, 9], [5]],
        }
    ).slice(0, 2)
    encoded = encode(other, SPEC, vocab)
    assert encoded.index[0].tolist() == [1, 5]
    assert encoded.numeric[0, 0] == NUMERIC_LIMIT
    assert encoded.numeric[1, 0] == 0.0
    assert encoded.history[0].tolist() == [3, 3, 3]  # the newest three


def test_a_slice_encodes_like_its_rows():
    table = planted.window(500)
    vocab = Vocabularies.fit(table, planted.SPEC, 3)
    whole, part = encode(table, planted.SPEC, vocab), encode(table.slice(100, 77), planted.SPEC, vocab)
    for name in ("index", "numeric", "history"):
        np.testing.assert_array_equal(getattr(whole, name)[100:177], getattr(part, name))


def test_vocabularies_do_not_depend_on_row_order_and_survive_json():
    table = planted.window(500)
    text = Vocabularies.fit(table, planted.SPEC, 3).to_json(planted.SPEC)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(500)))
    assert Vocabularies.fit(shuffled, planted.SPEC, 3).to_json(planted.SPEC) == text
    assert Vocabularies.from_json(text, planted.SPEC).to_json(planted.SPEC) == text
    with pytest.raises(BundleError, match="other columns"):
        Vocabularies.from_json(text, SPEC)


def test_parts_give_what_the_whole_gives():
    table = planted.window(500)
    whole = Vocabularies.fit(table, planted.SPEC, 3)
    parts = Vocabularies.fit([table.slice(0, 130), table.slice(130, 0), table.slice(130)], planted.SPEC, 3)
    assert [one.to_pylist() for one in parts.values] == [one.to_pylist() for one in whole.values]
    np.testing.assert_allclose(parts.means, whole.means, rtol=1e-12)
    np.testing.assert_allclose(parts.stds, whole.stds, rtol=1e-12)
    assert parts.history_length == whole.history_length


def test_a_column_that_never_varied_is_read_as_zero_whatever_comes():
    vocab = Vocabularies.fit(TABLE, SPEC, 1)
    assert vocab.constant(SPEC) == ("same",)
    moved = TABLE.set_column(3, "same", pa.array([7.0] * 5, pa.float32()))
    assert encode(moved, SPEC, vocab).numeric[:, 1].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_columns": ("video_id",)}, "topic"),
        ({"context_columns": ("hour",)}, "hour"),
        ({"context_columns": ("x",)}, "two sides"),
        ({"numeric": ("x", "same", "topic")}, "read twice"),
        ({"ids": (), "video_columns": ("topic",)}, "needs 'video_id'"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes, message):
    fields = {name: getattr(SPEC, name) for name in SPEC.__dataclass_fields__}
    with pytest.raises(ConfigError, match=message):
        InputSpec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE.drop_columns(["topic"]), "'topic', which is missing"),
        (TABLE.set_column(1, "topic", pa.array([0.5] * 5)), "integers or strings"),
        (TABLE.set_column(0, "video_id", pa.array(["x"] * 5)), "'video_id' can not be read as int64"),
        (TABLE.set_column(2, "x", pa.array(["x"] * 5)), "'x' can not be read as numbers"),
    ],
)
def test_columns_that_can_not_be_read_are_named(table, message):
    vocab = Vocabularies.fit(TABLE, SPEC, 1)
    with pytest.raises(SourceError, match=message):
        encode(table, SPEC, vocab)
