"""The multi-task loss with missing labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from components.config import Task
from components.errors import TrainingError


@dataclass(frozen=True)
class TaskLosses:
    """A batch's loss and the sums it is made of.

    Attributes:
        total: float32 scalar, carries the gradient; 0 when every label is missing.
        entries: float32 [B, m], unweighted loss of every entry, 0 where the label is missing; detached.
        mask: bool [B, m], True where the label is present.
    """

    total: Tensor
    entries: Tensor
    mask: Tensor


def masked_loss(logits: Tensor, labels: Tensor, tasks: Sequence[Task], batch: str) -> TaskLosses:
    """Weighted loss over the entries whose label is present: ``L = Σ w_t mask loss / number of unmasked entries``.

    Binary cross-entropy on logits for behaviours; squared error for ratios, whose head is linear: its "logit" is the
    prediction itself, no sigmoid, since a video watched twice has the ratio 2. Weights are used as given, never
    normalised; a task of weight 0 adds 0 to the sum while its entries stay counted.

    Args:
        logits: float32 [B, m], of the heads of each row's own group.
        labels: float32 [B, m], NaN = missing.
        tasks: m tasks: name, loss and weight.
        batch: What to call this batch in an error.

    Returns:
        The loss and its entries.

    Raises:
        TrainingError: When a task's loss is not finite.
    """
    mask = ~torch.isnan(labels)
    target = torch.where(mask, labels, 0.0)
    squared = torch.tensor([task.loss == "mse" for task in tasks], device=logits.device)
    weights = torch.tensor([task.weight for task in tasks], device=logits.device)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    entries = torch.where(squared, (logits - target).square(), cross_entropy) * mask
    # A weight of 0 must give 0 and no gradient even where the loss itself is not finite, so it selects, too.
    weighted = torch.where(weights > 0, entries * weights, 0.0)
    total = weighted.sum() / mask.sum().clamp(min=1)
    if not torch.isfinite(total):
        sums = entries.detach().sum(0).tolist()
        broken = [f"{task.name} ({value})" for task, value in zip(tasks, sums, strict=True) if value - value != 0.0]
        raise TrainingError(
            f"the loss is not finite in {batch}: {', '.join(broken) or 'the sum over tasks'}; look for labels or "
            "features out of range, or lower train.learning_rate"
        )
    return TaskLosses(total, entries.detach(), mask)
