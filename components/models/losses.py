"""The multi-task loss: masked where a label is missing, weighted by task, never normalised."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.errors import TrainingError
from components.models.settings import Task, TrainSettings

# Largest weight that the rule for unbalanced classes gives to a positive label.
LARGEST_POSITIVE_WEIGHT = 10.0


@dataclass(frozen=True)
class TaskLosses:
    """A batch's loss and what it is made of.

    Attributes:
        total: float32 scalar, carries the gradient; 0 when every label is missing.
        entries: float32 [B, m], unweighted loss of every entry, 0 where the label is missing; detached.
        mask: bool [B, m], True where the label is present.
    """

    total: Tensor
    entries: Tensor
    mask: Tensor


class MultiTaskLoss(nn.Module):
    """``L = Σ w_t p_e loss_e / present`` over the entries e whose label is present (mfh.md, "Loss and serving").

    Behaviours have binary cross-entropy on logits; ratios squared error with a linear head: the "logit" is the
    prediction itself, no sigmoid, since a video watched twice has the ratio 2. ``w_t`` is the task's weight, used as
    given: a task of weight 0 adds nothing and gets no gradient, while its entries stay counted in ``present``. ``p_e``
    is the task's positive weight where the label is positive, else 1.

    With ``loss_weights: uncertainty`` every entry's loss becomes ``c exp(-s_t) loss + s_t / 2`` with a learned
    ``s_t = log σ_t²``, c = 1 for cross-entropy and 1/2 for squared error (Kendall, Gal and Cipolla, *Multi-Task
    Learning Using Uncertainty to Weigh Losses*, CVPR 2018, eq. 5 and 10), times the task's weight.

    Args:
        tasks: m tasks.
        train: How weights are found.
        positive_weights: float32 [m] from :func:`positive_weights`; None means 1 for all.
    """

    def __init__(self, tasks: Sequence[Task], train: TrainSettings, positive_weights: Tensor | None = None) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.weights: Tensor
        self.squared: Tensor
        self.positive: Tensor
        self.scale: Tensor
        self.register_buffer("weights", torch.tensor([task.weight for task in tasks]), persistent=False)
        squared = torch.tensor([task.loss == "mse" for task in tasks])
        self.register_buffer("squared", squared, persistent=False)
        positive = torch.ones(len(self.tasks)) if positive_weights is None else positive_weights.float()
        self.register_buffer("positive", positive, persistent=False)
        self.register_buffer("scale", torch.where(squared, 0.5, 1.0), persistent=False)
        # Python constants spare the usual case its products.
        self.any_positive = bool((positive != 1).any())
        self.any_zero = not all(task.weight > 0 for task in tasks)
        self.log_variance = nn.Parameter(torch.zeros(len(tasks))) if train.loss_weights == "uncertainty" else None

    def forward(self, logits: Tensor, labels: Tensor, present: float, batch: str) -> TaskLosses:
        """The loss of a batch, or of a part of one.

        Args:
            logits: float32 [B, m], of the heads of each row's own cell.
            labels: float32 [B, m], NaN = missing.
            present: What the sum is divided by: labels present in the whole batch, at least 1.
            batch: What to call this batch in an error.

        Returns:
            The loss and its entries.

        Raises:
            TrainingError: When a task's loss is not finite.
        """
        mask = ~torch.isnan(labels)
        target = torch.where(mask, labels, 0.0)
        cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        entries = torch.where(self.squared, (logits - target).square(), cross_entropy) * mask
        weighted = entries
        if self.any_positive:
            weighted = weighted * torch.where(target > 0, self.positive, 1.0)
        if self.log_variance is not None:
            spread = self.log_variance
            weighted = (self.scale * torch.exp(-spread) * weighted + spread / 2) * mask
        weighted = weighted * self.weights
        if self.any_zero:
            # Selects, too: a loss that is not finite times 0 is not 0.
            weighted = torch.where(self.weights > 0, weighted, 0.0)
        total = weighted.sum() / present
        if not torch.isfinite(total):
            raise TrainingError(self._what_broke(entries.detach(), batch))
        return TaskLosses(total, entries.detach(), mask)

    def _what_broke(self, entries: Tensor, batch: str) -> str:
        sums = entries.sum(0).tolist()
        pairs = zip(self.tasks, sums, strict=True)
        # What is not a number minus itself is not 0, nor is infinity.
        broken = [f"{task.name} ({value})" for task, value in pairs if task.weight > 0 and value - value != 0.0]
        return (
            f"the loss is not finite in {batch}: {', '.join(broken) or 'the sum over tasks'}; look for labels or "
            "features out of range, or lower train.learning_rate"
        )


def positive_weights(tasks: Sequence[Task], positive: Tensor, present: Tensor) -> Tensor:
    """How much the positive labels of each task count.

    A number is taken as given. ``balanced`` is ``min(sqrt(negatives / positives), 10)`` and at least 1: rare positives
    count more, but less than in proportion, so that a handful of them does not drive the shared layers. Predictions of
    such a task are no longer probabilities: their odds are too high by about the weight.

    Args:
        tasks: m tasks.
        positive: Integer [m], positive labels of the window.
        present: Integer [m], labels of the window.

    Returns:
        float32 [m]; 1 for a ``balanced`` task without a label or without a positive one.
    """
    found = []
    for task, hits, labels in zip(tasks, positive.tolist(), present.tolist(), strict=True):
        weight = task.positive_weight
        if weight == "balanced":
            odds = (labels - hits) / hits if hits else 1.0
            weight = min(max(odds, 1.0) ** 0.5, LARGEST_POSITIVE_WEIGHT)
        found.append(float(weight))
    return torch.tensor(found)
