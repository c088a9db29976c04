"""A batch's gradients by pieces equal those of the whole batch at once."""

from dataclasses import replace

import pytest
import torch

from components.errors import TrainingError
from components.models import step
from components.models.losses import MultiTaskLoss
from components.models.settings import Task, TrainSettings
from components.models.step import accumulate, plan
from components.models.zoo import build
from tests.models.test_mfh import SMALL

TASKS = (Task("completion"), Task("finish", 2.0), Task("like"))


def batch(rows=90, copies=None):
    torch.manual_seed(0)
    shape = (rows, 9) if copies is None else (rows, copies, 9)
    labels = torch.randint(0, 2, (rows, 3)).float()
    labels[torch.rand(rows, 3) < 0.3] = torch.nan
    return torch.randn(shape, requires_grad=True), torch.randint(0, 3, (rows,)), labels


@pytest.mark.parametrize("kind", ["mfh", "flat", "ple", "biasnet", "single"])
@pytest.mark.parametrize("longest", [7, 1_000])
def test_pieces_add_up_to_the_batch(monkeypatch, kind, longest):
    monkeypatch.setattr(step, "PIECE_ROWS", longest)
    torch.manual_seed(0)
    network = build(replace(SMALL, kind=kind), 9, 3, (3,))
    loss = MultiTaskLoss(TASKS, TrainSettings())
    x, cell, labels = batch(copies=3 if kind == "single" else None)
    present = float((~torch.isnan(labels)).sum())
    wanted = loss(network(x, cell), labels, present, "the batch")
    wanted.total.backward()
    whole, of_x = [p.grad for p in network.parameters()], x.grad
    network.zero_grad(set_to_none=True)
    x.grad = None
    total, entries = accumulate(network, loss, x, cell, labels, present=present, batch="the batch")
    torch.testing.assert_close(total, wanted.total.detach())
    torch.testing.assert_close(entries, wanted.entries)
    torch.testing.assert_close(x.grad, of_x)
    for p, other in zip(network.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad, other)


def test_pieces_are_of_one_cell_equally_long_and_cover_every_row():
    network = build(SMALL, 9, 2, (3,))
    cell = torch.tensor([2, 0, 2, 2, 0, 2, 2])
    order, pieces = plan(network, cell, 2)
    assert [(p.at, p.start, p.stop) for p in pieces] == [(0, 0, 2), (2, 2, 3), (2, 3, 5), (2, 5, 7)]
    assert cell[order].tolist() == [0, 0, 2, 2, 2, 2, 2]


def test_bf16_products_give_float32_gradients_close_to_float32_ones():
    torch.manual_seed(0)
    network, loss = build(SMALL, 9, 3, (3,)), MultiTaskLoss(TASKS, TrainSettings())
    x, cell, labels = batch()
    found = []
    for precision in ("fp32", "bf16"):
        network.zero_grad(set_to_none=True)
        accumulate(network, loss, x, cell, labels, present=200.0, batch="b", precision=precision)
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert found[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.99
    assert not torch.equal(*found)


def test_a_loss_that_is_not_finite_names_task_and_batch():
    network, loss = build(SMALL, 9, 3, (3,)), MultiTaskLoss(TASKS, TrainSettings())
    x, cell, labels = batch()
    labels[3, 1] = torch.inf
    with pytest.raises(TrainingError, match=r"not finite in epoch 2, batch 7: finish"):
        accumulate(network, loss, x, cell, labels, present=200.0, batch="epoch 2, batch 7")
