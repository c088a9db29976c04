import math

import pytest
import torch
from torch.nn import functional

from components.errors import TrainingError
from components.models.losses import MultiTaskLoss, positive_weights
from components.models.settings import Task, TrainSettings

TASKS = (Task("completion"), Task("finish", weight=2.0))
NAN = math.nan


def masked_loss(logits, labels, tasks, batch, positive=None):
    present = max(int((~torch.isnan(labels)).sum()), 1)
    return MultiTaskLoss(tasks, TrainSettings(), positive).forward(logits, labels, present, batch)


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
    masked_loss(logits, labels, (Task("completion", weight=0), TASKS[1]), "batch 1").total.backward()
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
    tasks = (TASKS[0], Task("finish", weight=0))
    found = masked_loss(torch.tensor([[1.0, math.inf]]), torch.tensor([[0.0, 0.0]]), tasks, "batch 1")
    assert found.total.item() == 0.5


def test_parts_of_a_batch_add_up_to_it():
    logits, labels = torch.randn(7, 2), torch.tensor([[0.5, 1.0], [NAN, 0.0], [1.0, NAN]] * 2 + [[NAN, NAN]])
    loss = MultiTaskLoss(TASKS, TrainSettings(loss_weights="uncertainty"))
    with torch.no_grad():
        loss.log_variance.copy_(torch.tensor([0.3, -0.7]))
    whole = loss.forward(logits, labels, 8, "batch 1").total
    parts = [loss.forward(logits[rows], labels[rows], 8, "batch 1").total for rows in (slice(3), slice(3, 7))]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)


def test_learned_weights_settle_where_the_formula_says():
    # d/ds (c exp(-s) L + s / 2) = 0 at s = log(2 c L).
    loss = MultiTaskLoss(TASKS, TrainSettings(loss_weights="uncertainty"))
    logits, labels = torch.zeros(4, 2), torch.tensor([[2.0, 1.0]] * 4)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        loss.forward(logits, labels, 8, "batch 1").total.backward()
        optimizer.step()
    assert loss.log_variance.tolist() == pytest.approx([math.log(4.0), math.log(2 * math.log(2))], abs=1e-3)


def test_learned_weights_leave_a_task_of_weight_zero_alone():
    loss = MultiTaskLoss((Task("completion"), Task("finish", weight=0)), TrainSettings(loss_weights="uncertainty"))
    loss.forward(torch.full((2, 2), 2.0), torch.zeros(2, 2), 4, "batch 1").total.backward()
    assert loss.log_variance.grad[0] != 0
    assert loss.log_variance.grad[1] == 0


def test_positive_weights_follow_the_stated_rule():
    tasks = (
        *(Task("like", positive_weight="balanced"), Task("follow", positive_weight="balanced")),
        *(
            Task("finish", positive_weight="balanced"),
            Task("share", positive_weight="balanced"),
            Task("skip", 1.0, 2.5),
        ),
    )
    found = positive_weights(tasks, torch.tensor([10, 1, 60, 0, 3]), torch.tensor([50, 1_000_001, 100, 9, 9]))
    assert found.tolist() == [2.0, 10.0, 1.0, 1.0, 2.5]


def test_positive_weights_multiply_positive_labels_only_and_not_the_recorded_loss():
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    tasks = (Task("like"), Task("share"))
    found = masked_loss(logits, labels, tasks, "batch 1", positive=torch.tensor([3.0, 3.0]))
    assert found.total.item() == pytest.approx((3 + 1) * math.log(2) / 2)
    assert found.entries.tolist() == [pytest.approx([math.log(2)] * 2)]
