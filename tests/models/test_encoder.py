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
