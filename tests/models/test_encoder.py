import pyarrow as pa
import pytest
import torch

from components.models.encoder import Encoder
from components.models.fields import InputSpec, Vocabularies, encode
from components.models.settings import TrainSettings
from tests.models import planted

SPEC = InputSpec(
    ids=("video_id", "creator_id"),
    categories=("topic",),
    numeric=("x",),
    history="seen",
    user_columns=("seen", "x"),
    video_columns=("video_id", "creator_id", "topic"),
)
TABLE = pa.table(
    {
        "video_id": [7, 9, 7, 9],
        "creator_id": [1, 1, 2, 2],
        "topic": ["a", "b", "a", "b"],
        "x": [1.0, 3.0, 1.0, 3.0],
        "seen": pa.array([[7, 9], [], [9], [8]], pa.list_(pa.int64())),
    }
)
VOCAB = Vocabularies.fit(TABLE, SPEC, 1)


def arrays(table=TABLE, columns=None, spec=SPEC, vocab=VOCAB):
    encoded = encode(table, spec, vocab, columns)
    return tuple(torch.from_numpy(one) for one in (encoded.index, encoded.numeric, encoded.history))


def build(copies=1, **changes):
    torch.manual_seed(3)
    return Encoder(SPEC, VOCAB, TrainSettings(id_embedding=3, field_embedding=2, **changes), copies)


def test_x_is_rows_of_the_tables_side_by_side():
    encoder = build().eval()
    x = encoder(*arrays())
    ids, categories = encoder.tables["3"], encoder.tables["2"]
    # Rows of the id table: padding, unknown video, 7, 9, unknown creator, 1, 2; of the other: padding, unknown, a, b.
    wanted = torch.cat([ids[3], ids[5], torch.zeros(3), categories[3], torch.tensor([1.0])])
    assert encoder.width == 3 + 3 + 3 + 2 + 1
    assert torch.equal(x[1], wanted)
    assert torch.equal(x[0, 6:9], (ids[2] + ids[3]) / 2)  # the history's mean


def test_unseen_values_read_a_row_of_zeros():
    encoder = build().eval()
    other = pa.table({"video_id": [55], "creator_id": [55], "topic": ["z"], "x": [2.0], "seen": [[55]]})
    assert not encoder(*arrays(other)).any()


def test_fields_of_one_width_share_a_table_and_may_have_widths_of_their_own():
    encoder = build(embedding_widths={"creator_id": 2, "topic": 5})
    assert {name: tuple(table.shape) for name, table in encoder.tables.items()} == {
        "5": (4, 5),
        "3": (4, 3),
        "2": (4, 2),
    }
    assert encoder(*arrays()).shape == (4, encoder.width)
    assert encoder.width == 3 + 3 + 2 + 5 + 1


def test_parts_encoded_apart_add_up_to_the_whole_bit_for_bit():
    encoder = build().eval()
    sides = (SPEC.user_columns, SPEC.video_columns)
    assert torch.equal(sum(encoder(*arrays(columns=columns)) for columns in sides), encoder(*arrays()))


def test_copies_have_tables_of_their_own_and_share_numbers():
    encoder = build(copies=2).eval()
    x = encoder(*arrays())
    assert x.shape == (4, 2, encoder.width)
    ids = encoder.tables["3"]
    assert torch.equal(x[1, 0, :3], ids[3, :3])
    assert torch.equal(x[1, 1, :3], ids[3, 3:])
    assert torch.equal(x[:, 0, -1], x[:, 1, -1])
    loss = x[:, 0].square().sum()
    loss.backward()
    assert not ids.grad[:, 3:].any()


@pytest.mark.parametrize("rule", ["dense", "lazy"])
def test_a_sparse_pass_computes_the_same(rule):
    sparse, dense = build(table_optimizer=rule).train(), build().eval()
    assert torch.equal(sparse(*arrays()), dense(*arrays()))


def test_dropout_of_ids_is_by_field_and_by_generator_and_off_in_serving():
    encoder = build(embedding_dropouts={"creator_id": 1.0}).train()
    encoder.generator = torch.Generator().manual_seed(1)
    x = encoder(*arrays())
    assert not x[:, 3:6].any()  # the creator is unknown, whose row is zero
    assert x[:, :3].all()
    assert encoder.eval()(*arrays())[:, 3:6].all()

    spec, table = planted.SPEC, planted.window(1_000)
    vocab = Vocabularies.fit(table, spec, 1)
    inputs = arrays(table, spec=spec, vocab=vocab)
    half = Encoder(spec, vocab, TrainSettings(embedding_dropout=0.5)).train()
    outputs = []
    for seed in (1, 1, 2):
        half.generator = torch.Generator().manual_seed(seed)
        outputs.append(half(*inputs))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    dropped = (outputs[0][:, :16] == 0).all(1).float().mean()
    assert 0.45 < dropped < 0.55


NUMBERS = InputSpec(ids=("video_id",), numeric=("x", "y"), user_columns=("x", "y"), video_columns=("video_id",))


def numbers(values):
    columns = {"video_id": [7] * len(values), "x": [one[0] for one in values], "y": [one[1] for one in values]}
    return pa.table(columns, schema=pa.schema([("video_id", pa.int64()), ("x", pa.float64()), ("y", pa.float64())]))


def binned(bins, copies=1, **changes):
    torch.manual_seed(3)
    # Mean 0 and standard deviation 1 in both columns: numbers reach the encoder as they are.
    fitted = numbers([(-1.0, -1.0), (1.0, 1.0)])
    vocab = Vocabularies.fit(fitted, NUMBERS, 1)
    settings = TrainSettings(id_embedding=1, field_embedding=2, number_bins=bins, **changes)
    return Encoder(NUMBERS, vocab, settings, copies), vocab


def test_a_number_has_the_embedding_of_its_bin_beside_it():
    encoder, vocab = binned(4)
    encoder.eval()
    table = encoder.tables["bins"]
    assert tuple(table.shape) == (1 + 2 * 4, 2)
    # Quartiles of the normal distribution: -0.674, 0, 0.674.
    x = encoder(*arrays(numbers([(-0.7, 0.7), (-0.6, 0.6), (0.5, None), (9.0, -9.0)]), spec=NUMBERS, vocab=vocab))
    assert x.shape == (4, encoder.width) == (4, 1 + 4 + 2)
    wanted = [(1, 8), (2, 7), (3, 0), (4, 5)]
    for row, (first, second) in zip(x, wanted, strict=True):
        assert torch.equal(row[1:5], torch.cat([table[first], table[second]]))
    assert not table[0].any()


def test_bins_of_parts_add_up_to_the_whole():
    encoder, vocab = binned(5)
    encoder.eval()
    table = numbers([(0.3, -1.2), (1.4, None)])
    parts = [encoder(*arrays(table, columns, NUMBERS, vocab)) for columns in (("x",), ("y",), ("video_id",))]
    assert torch.equal(sum(parts), encoder(*arrays(table, spec=NUMBERS, vocab=vocab)))


@pytest.mark.parametrize("copies", [1, 3])
def test_bins_get_the_same_gradient_however_tables_are_updated(copies):
    table = numbers([(0.3, -1.2), (1.4, None), (0.2, 0.4)])
    found = []
    for rule in ("dense", "lazy"):
        encoder, vocab = binned(4, copies, table_optimizer=rule)
        (encoder(*arrays(table, spec=NUMBERS, vocab=vocab)) ** 2).sum().backward()
        whole = encoder.tables["bins"].grad
        if rule == "lazy":
            (touched,) = [one for one in encoder.touched() if one.table is encoder.tables["bins"]]
            whole = torch.zeros_like(encoder.tables["bins"]).index_copy(0, touched.rows, touched.gradient)
        found.append(whole)
    torch.testing.assert_close(*found)
    assert found[0].any()
