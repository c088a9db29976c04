"""Loss curves: per evaluation, task and group, on the rows that trained and on those held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from components.models.settings import Task


@dataclass(frozen=True)
class EpochLoss:
    """Mean unweighted loss of one task at one evaluation, over all rows or one group's; None where no label is present.

    The training loss is the mean over the steps since the evaluation before, each with the weights of its own time; the
    validation loss is of the weights at the evaluation.

    Attributes:
        epoch: Passes over the window so far; a part of one counts as its share of the steps.
        step: Steps so far.
        task: Name of the task.
        group: Name of the group, None for all rows.
        train_loss: Mean over the entries below.
        train_entries: Labels present.
        valid_loss: Mean over the entries below.
        valid_entries: Labels present.
    """

    epoch: float
    step: int
    task: str
    group: str | None
    train_loss: float | None
    train_entries: int
    valid_loss: float | None
    valid_entries: int


@dataclass
class LossSums:
    """Running sums of unweighted losses and of present labels.

    Attributes:
        loss: float64 [k, m].
        entries: float64 [k, m].
    """

    loss: Tensor
    entries: Tensor

    @classmethod
    def zeros(cls, groups: int, tasks: int, device: torch.device) -> Self:
        """Nothing yet."""
        return cls(*(torch.zeros(groups, tasks, dtype=torch.float64, device=device) for _ in range(2)))

    def add(self, entries: Tensor, labels: Tensor, group: Tensor) -> None:
        """Add a batch.

        Args:
            entries: float32 [B, m], unweighted losses, 0 where the label is missing.
            labels: float32 [B, m], NaN = missing.
            group: int64 [B].
        """
        member = (group == torch.arange(len(self.loss), device=group.device).unsqueeze(1)).float()
        # Products of one batch in float32, sums over batches in float64.
        self.loss += member @ entries
        self.entries += member @ (~torch.isnan(labels)).float()

    def with_all(self) -> tuple[list[list[float]], list[list[int]]]:
        """Sums and counts of all rows, then of each group: [1 + k][m]."""
        loss, entries = (torch.cat([part.sum(0, keepdim=True), part]).tolist() for part in (self.loss, self.entries))
        return loss, [[int(count) for count in row] for row in entries]


def records(
    epoch: float, step: int, tasks: Sequence[Task], group_names: Sequence[str], train: LossSums, valid: LossSums
) -> list[EpochLoss]:
    """The curves' points of one evaluation.

    Args:
        epoch: Passes so far.
        step: Steps so far.
        tasks: m tasks.
        group_names: k groups.
        train: Sums over the steps since the last evaluation.
        valid: Sums over the validation rows.

    Returns:
        One record per task over all rows, then one per group and task.
    """
    (train_loss, train_entries), (valid_loss, valid_entries) = train.with_all(), valid.with_all()
    found = []
    for g, group in enumerate((None, *group_names)):
        for t, task in enumerate(tasks):
            given, held = train_entries[g][t], valid_entries[g][t]
            found.append(
                EpochLoss(
                    epoch,
                    step,
                    task.name,
                    group,
                    train_loss[g][t] / given if given else None,
                    given,
                    valid_loss[g][t] / held if held else None,
                    held,
                )
            )
    return found
