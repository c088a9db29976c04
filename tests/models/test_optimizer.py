import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from components.models.encoder import Encoder
from components.models.fields import Vocabularies, encode
from components.models.losses import MultiTaskLoss
from components.models.optimizer import ROWWISE_FACTOR, AdamW, Optimizer
from components.models.settings import TrainSettings
from components.models.trainer import fit
from tests.models.planted import GROUPS, RECIPE, SPEC, TASKS, TRAIN, window

TABLE = window(400)
VOCAB = Vocabularies.fit(TABLE, SPEC, 3)


def parts(**changes):
    train = TrainSettings(**{"learning_rate": 0.05, "clip_norm": 1e9} | changes)
    torch.manual_seed(1)
    encoder = Encoder(SPEC, VOCAB, train).train()
    network = nn.Linear(encoder.width, 1)
    return encoder, network, Optimizer(network.parameters(), encoder, MultiTaskLoss(TASKS, train), train)


def backward(encoder, network, rows):
    encoded = encode(TABLE.slice(*rows), SPEC, VOCAB)
    x = encoder(*(torch.from_numpy(one) for one in (encoded.index, encoded.numeric, encoded.history)))
    # Large enough that epsilon, which implementations add in different places, does not show.
    (1e4 * network(x) ** 2).sum().backward()


def test_training_does_not_load_the_compiler(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it now raises
    fit(RECIPE, replace(TRAIN, epochs=1), TASKS, GROUPS, SPEC, window(300))


def test_steps_equal_torchs_adamw():
    torch.manual_seed(0)
    mine = [nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(7))]
    theirs = [nn.Parameter(p.detach().clone()) for p in mine]
    reference = torch.optim.AdamW(theirs, lr=0.05, weight_decay=0.1)
    ours = AdamW(mine, 0.1, 0.05)
    for step in range(20):
        for move, (a, b) in ((ours.step, mine), (reference.step, theirs)):
            a.grad = b.grad = None
            loss = ((a - 1.0) ** 3).sum()
            if step % 3:  # the second parameter goes without a gradient now and then
                loss = loss + (b**4).sum()
            loss.backward()
            move()
    for p, q in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)


def test_lazy_rows_equal_torchs_sparse_adam():
    encoder, network, optimizer = parts(table_optimizer="lazy")
    theirs = {name: nn.Parameter(table.detach().clone()) for name, table in encoder.tables.items()}
    reference = torch.optim.SparseAdam(list(theirs.values()), lr=0.05)
    for start in (0, 40, 80, 20):
        optimizer.zero_grad()
        backward(encoder, network, (start, 40))
        optimizer.clip()
        for (name, table), one in zip(theirs.items(), optimizer.touched, strict=True):
            assert one.table is encoder.tables[name]
            table.grad = torch.sparse_coo_tensor(one.rows.unsqueeze(0), one.gradient.clone(), table.shape)
        optimizer.step()
        reference.step()
    for name, table in theirs.items():
        torch.testing.assert_close(encoder.tables[name], table, atol=1e-5, rtol=1e-5)


def test_rowwise_adagrad_equals_the_formula():
    encoder, network, optimizer = parts(table_optimizer="rowwise")
    before = {name: table.detach().clone() for name, table in encoder.tables.items()}
    seen = {name: torch.zeros(len(table)) for name, table in before.items()}
    for start in (0, 40, 20):
        optimizer.zero_grad()
        backward(encoder, network, (start, 40))
        optimizer.clip()
        for name, one in zip(before, optimizer.touched, strict=True):
            for row, gradient in zip(one.rows.tolist(), one.gradient, strict=True):
                seen[name][row] += gradient.square().mean()
                before[name][row] -= ROWWISE_FACTOR * 0.05 * gradient / (seen[name][row].sqrt() + 1e-8)
        optimizer.step()
    for name, table in before.items():
        torch.testing.assert_close(encoder.tables[name].detach(), table, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", ["lazy", "rowwise"])
def test_sparse_rules_move_only_rows_of_the_batch_and_never_padding(rule):
    encoder, network, optimizer = parts(table_optimizer=rule)
    before = {name: table.detach().clone() for name, table in encoder.tables.items()}
    backward(encoder, network, (0, 5))
    optimizer.clip()
    rows = {name: set(one.rows.tolist()) for name, one in zip(before, optimizer.touched, strict=True)}
    optimizer.step()
    for name, table in encoder.tables.items():
        moved = (table != before[name]).any(1).nonzero().flatten().tolist()
        assert moved
        assert 0 not in moved
        assert set(moved) <= rows[name]
        assert len(moved) < len(table) / 2


def test_sparse_gradients_equal_dense_ones():
    dense, network, _ = parts()
    backward(dense, network, (0, 60))
    sparse, network, _ = parts(table_optimizer="lazy")
    backward(sparse, network, (0, 60))
    for one, table in zip(sparse.touched(), dense.tables.values(), strict=True):
        torch.testing.assert_close(one.gradient, table.grad[one.rows])
        rest = torch.ones(len(table), dtype=torch.bool)
        rest[one.rows] = False
        assert not table.grad[rest].any()


@pytest.mark.parametrize("rule", ["dense", "lazy"])
def test_clipping_bounds_the_norm_of_everything(rule):
    encoder, network, optimizer = parts(table_optimizer=rule, clip_norm=1e-3)
    backward(encoder, network, (0, 60))
    norm = optimizer.clip()
    assert norm > 1e-3
    gradients = [p.grad for p in (*network.parameters(), *encoder.parameters()) if p.grad is not None]
    gradients += [one.gradient for one in optimizer.touched]
    assert torch.cat([g.flatten() for g in gradients]).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("rule", ["dense", "lazy"])
def test_embedding_decay_pulls_the_rows_of_the_batch_alone(rule):
    changes = {"table_optimizer": rule}
    (plain, network, one), (decayed, _, other) = parts(**changes), parts(**changes, embedding_decay=0.5)
    for encoder, optimizer in ((plain, one), (decayed, other)):
        backward(encoder, network, (0, 60))
        optimizer.clip()
    if rule == "lazy":
        pairs = [(a.gradient, b.gradient, a.table[a.rows]) for a, b in zip(one.touched, other.touched, strict=True)]
    else:
        read = [(table.grad != 0).any(1) for table in plain.tables.values()]
        tables = zip(plain.tables.values(), decayed.tables.values(), read, strict=True)
        assert all(
            not b.grad[~rows].any() for _, b, rows in zip(plain.tables, decayed.tables.values(), read, strict=True)
        )
        pairs = [(a.grad[rows], b.grad[rows], a[rows]) for a, b, rows in tables]
    for without, with_decay, values in pairs:
        torch.testing.assert_close(with_decay, without + 0.5 * values.detach())


@pytest.mark.parametrize("rule", ["dense", "lazy", "rowwise"])
def test_a_restored_state_goes_on_exactly(rule):
    def train(encoder, network, optimizer, starts):
        for start in starts:
            optimizer.zero_grad()
            backward(encoder, network, (start, 40))
            optimizer.clip()
            optimizer.step()

    first = parts(table_optimizer=rule)
    train(*first, (0, 40))
    state, weights = first[2].state(), [{k: v.clone() for k, v in m.state_dict().items()} for m in first[:2]]
    train(*first, (80, 20))
    second = parts(table_optimizer=rule)
    for module, values in zip(second[:2], weights, strict=True):
        module.load_state_dict(values)
    second[2].load(state)
    train(*second, (80, 20))
    for a, b in zip(first[:2], second[:2], strict=True):
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor, b.state_dict()[name])
