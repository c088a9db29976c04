import numpy as np
import pytest
import torch

from components.errors import TrainingError
from components.models import batches as module
from components.models.batches import BLOCK_ROWS, Batch, Layout, Resident, Streamed, batches, keyed, make_shelf

CPU = torch.device("cpu")
LAYOUT = Layout(fields=2, history=3, numbers=1, labels=2)


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    """Three blocks a pool, so that a window of some thousand rows has several."""
    monkeypatch.setattr(module, "POOL_BLOCKS", 3)


def some_rows(rows):
    """Rows that can be told apart: the number of the row stands in every part."""
    at = torch.arange(rows)
    labels = torch.stack([at.float(), torch.where(at % 3 == 0, torch.nan, 1.0)], dim=1)
    index = torch.stack([at, at + 1], dim=1).int()
    history = torch.stack([at, at, at], dim=1).int()
    return Batch(index, history, at % 5, -at.float().unsqueeze(1), labels)


def filled(kind, rows, piece=700):
    shelf = kind(LAYOUT, rows, CPU)
    for words in torch.split(LAYOUT.pack(some_rows(rows)), piece):
        shelf.append(words)
    return shelf


def taken(shelf, size, **options):
    options = {"seed": 7, "epoch": 0} | options
    return [(words.clone(), present) for words, present in batches(shelf, size, **options)]


def numbers(found):
    return torch.cat([words[:, 0] for words, _ in found]).tolist()


def test_packing_keeps_every_bit():
    given = some_rows(40)
    given.numeric[0] = torch.nan
    found = LAYOUT.unpack(LAYOUT.pack(given))
    for name in ("index", "history", "cell", "numeric", "labels"):
        left, right = getattr(given, name), getattr(found, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left.numpy(), right.numpy())
    assert LAYOUT.pack(given).shape == (40, LAYOUT.width)


@pytest.mark.parametrize("rows", [1, 256, BLOCK_ROWS, BLOCK_ROWS + 1, 3 * BLOCK_ROWS, 7 * BLOCK_ROWS + 300])
@pytest.mark.parametrize("size", [256, 1_000, 5_000])
def test_an_epoch_reads_every_row_once_in_batches_of_the_size(rows, size):
    found = taken(filled(Resident, rows), size)
    assert sorted(numbers(found)) == list(range(rows))
    assert [len(words) for words, _ in found[:-1]] == [size] * (len(found) - 1)
    assert 0 < len(found[-1][0]) <= size
    for words, present in found:
        assert present == int((~torch.isnan(LAYOUT.unpack(words).labels)).sum())


@pytest.mark.parametrize("rows", [300, 7 * BLOCK_ROWS + 300])
def test_streamed_rows_come_in_the_order_of_resident_ones(rows):
    resident, streamed = filled(Resident, rows), filled(Streamed, rows, piece=1_111)
    for epoch in (0, 1):
        for (one, present), (other, others) in zip(
            taken(resident, 500, epoch=epoch), taken(streamed, 500, epoch=epoch), strict=True
        ):
            assert torch.equal(one, other)
            assert present == others
    whole = [torch.cat(list(shelf.in_order(640))) for shelf in (resident, streamed)]
    assert torch.equal(whole[0], whole[1])
    assert whole[0][:, 0].tolist() == list(range(rows))


def test_epochs_and_seeds_have_orders_of_their_own():
    shelf = filled(Resident, 5 * BLOCK_ROWS)
    orders = [numbers(taken(shelf, 512, seed=seed, epoch=epoch)) for seed, epoch in ((7, 0), (7, 1), (8, 0))]
    assert orders[0] == numbers(taken(shelf, 512))
    assert len({tuple(order) for order in orders}) == 3
    # Rows of a pool are mixed, not only its blocks: neighbours are seldom neighbours any more.
    steps = np.abs(np.diff(orders[0]))
    assert (steps == 1).mean() < 0.01


@pytest.mark.parametrize("kind", [Resident, Streamed])
@pytest.mark.parametrize("skip", [1, 6, 7, 14])
def test_skipping_batches_leaves_the_others_as_they_are(kind, skip):
    shelf = filled(kind, 7 * BLOCK_ROWS + 300)
    whole = taken(shelf, 512)
    assert len(whole) == 15
    for (one, present), (other, others) in zip(whole[skip:], taken(shelf, 512, skip=skip), strict=True):
        assert torch.equal(one, other)
        assert present == others


def test_pools_that_were_read_are_not_read_again(monkeypatch):
    shelf = filled(Streamed, 9 * BLOCK_ROWS)
    read = []
    plain = shelf._read
    monkeypatch.setattr(shelf, "_read", lambda words, row: (read.append(row), plain(words, row)))
    found = taken(shelf, BLOCK_ROWS, skip=7)
    assert len(found) == 2
    assert len(read) == 3


def test_shares_of_the_rows_in_order_are_all_of_them():
    shelf = filled(Streamed, 2_500)
    shares = [torch.cat(list(shelf.in_order(400, first, 2)))[:, 0] for first in (0, 1)]
    assert len(shares[0]) == 1_300
    assert sorted(torch.cat(shares).tolist()) == list(range(2_500))


def test_the_size_decides_where_a_window_lies():
    rows = (1 << 20) // (LAYOUT.width * 4)
    assert isinstance(make_shelf(LAYOUT, rows, 1, CPU), Resident)
    assert isinstance(make_shelf(LAYOUT, rows + 1, 1, CPU), Streamed)


def test_a_file_that_was_cut_off_is_named():
    shelf = filled(Streamed, 2_000)
    taken(shelf, 500)
    shelf._file.truncate(5_000)
    with pytest.raises(TrainingError, match="was cut off"):
        taken(shelf, 500)


def test_a_full_disk_is_named(monkeypatch):
    shelf = Streamed(LAYOUT, 100, CPU)

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf, "_file", Full())
    with pytest.raises(TrainingError, match=r"No space left.*TMPDIR.*train\.resident_mb"):
        shelf.append(LAYOUT.pack(some_rows(100)))


def test_generators_depend_on_their_key_alone():
    draws = [torch.rand(3, generator=keyed("cpu", *key)) for key in ((1, "a"), (1, "a"), (1, "b"), (11, "a"))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
