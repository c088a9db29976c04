import math

import pytest
import torch
from torch.nn import functional

from components.config import Task
from components.errors import TrainingError
from components.models.losses import masked_loss

TASKS = (Task(name="completion"), Task(name="finish", weight=2.0))
NAN = math.nan


def test_loss_is_the_weighted_sum_over_the_number_of_present_labels():
    logits = torch.tensor([[0.5, 0.0], [1.0, 2.0], [3.0, -1.0]])
    labels = torch.tensor([[1.5, 1.0], [NAN, 0.0], [NAN, NAN]])
    found = masked_loss(logits, labels, TASKS, "batch 1")
    wanted = ((0.5 - 1.5) ** 2 + 2 * math.log(2) + 2 * math.log(1 + math.exp(2))) / 3
    assert found.total.item() == pytest.approx(wanted, rel=1e-6)
    assert found.mask.tolist() == [[True, True], [False, True], [False, False]]
    assert found.entries[0, 1].item() == pytest.approx(math.log(2))  # unweighted
    assert not found.entries[~found.mask].any()


def test_the_completion_head_is_linear_and_behaviours_are_on_logits():
    logits = torch.tensor([[-2.0, -2.0]])
    found = masked_loss(logits, torch.tensor([[0.0, 0.0]]), TASKS, "batch 1")
    assert found.entries[0, 0].item() == 4.0
    assert found.entries[0, 1].item() == pytest.approx(functional.softplus(torch.tensor(-2.0)).item())


def test_missing_labels_and_weight_zero_send_no_gradient():
    logits = torch.ones(2, 2, requires_grad=True)
    labels = torch.tensor([[NAN, 1.0], [1.5, NAN]])
    masked_loss(logits, labels, (Task(name="completion", weight=0), TASKS[1]), "batch 1").total.backward()
    assert logits.grad[0, 1] != 0
    assert logits.grad.count_nonzero() == 1


def test_a_batch_without_labels_has_loss_zero():
    logits = torch.ones(2, 2, requires_grad=True)
    found = masked_loss(logits, torch.full((2, 2), NAN), TASKS, "batch 1")
    found.total.backward()
    assert found.total.item() == 0.0
    assert not logits.grad.any()


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_loss_that_is_not_finite_names_task_and_batch(bad):
    logits = torch.tensor([[1.0, bad]])
    with pytest.raises(TrainingError, match=r"epoch 2, batch 7: finish"):
        masked_loss(logits, torch.tensor([[1.0, 0.0]]), TASKS, "epoch 2, batch 7")


def test_a_task_of_weight_zero_can_not_stop_training():
    tasks = (TASKS[0], Task(name="finish", weight=0))
    found = masked_loss(torch.tensor([[1.0, math.inf]]), torch.tensor([[0.0, 0.0]]), tasks, "batch 1")
    assert found.total.item() == 0.5
