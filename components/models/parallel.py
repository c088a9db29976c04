"""Data parallel training: every process takes its slice of each global batch, and gradients are summed.

The processes of a run are torch's default process group, which whoever starts them has opened (``components.compute``).
Every process holds the whole window and draws the same order, so a global batch of n processes is the batch of one
process, and its loss is divided by the labels of the whole batch. Gradients, the batch's loss and whether a process has
been asked to end travel in one flat buffer: all processes stop after the same step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from components.models.curves import LossSums
from components.models.encoder import Encoder, Touched


@dataclass(frozen=True)
class Team:
    """The processes that train together.

    Attributes:
        rank: Which one this is; 0 alone writes.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a global batch: contiguous, the shares differ by one row at most."""
        if self.size == 1:
            return rows
        return rows[len(rows) * self.rank // self.size : len(rows) * (self.rank + 1) // self.size]

    def sum_gradients(self, modules: Sequence[nn.Module], loss: Tensor, asked: bool) -> tuple[Tensor, bool]:
        """Sum gradients over the processes, in place.

        A parameter that no process has a gradient for keeps none, so that it stays where it is as in one process.

        Args:
            modules: Those whose parameters' ``grad`` is summed; the same ones everywhere.
            loss: float32 scalar, this process's part of the batch's loss.
            asked: Whether this process has been asked to end.

        Returns:
            The batch's loss, and whether any process has been asked to end.
        """
        if self.size == 1:
            return loss, asked
        parameters = [parameter for module in modules for parameter in module.parameters()]
        flags = torch.tensor([float(asked), *(float(p.grad is not None) for p in parameters)], device=loss.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([*(part.flatten() for part in parts), loss.reshape(1), flags])
        distributed.all_reduce(flat)
        *sums, total, counts = torch.split(flat, [*(part.numel() for part in parts), 1, len(flags)])
        anyone, *used = counts.tolist()
        for parameter, gradient, processes in zip(parameters, sums, used, strict=True):
            parameter.grad = gradient.view_as(parameter) if processes else None
        return total.squeeze(0), anyone > 0

    def sum_rows(self, rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Sum the gradients of single rows of a table over the processes.

        Args:
            rows: int64 [U], this process's rows, each once.
            gradient: float32 [U, w].

        Returns:
            The rows of all processes, each once and sorted, and the sums of their gradients.
        """
        if self.size == 1:
            return rows, gradient
        counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(self.size)]
        distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
        lengths = [int(count) for count in counts]
        # Gathering needs equal shapes.
        longest = max(lengths)
        padded = (rows.new_zeros(longest), gradient.new_zeros(longest, gradient.shape[1]))
        padded[0][: len(rows)], padded[1][: len(rows)] = rows, gradient
        gathered = []
        for part in padded:
            into = [torch.empty_like(part) for _ in range(self.size)]
            distributed.all_gather(into, part)
            gathered.append(torch.cat([one[:length] for one, length in zip(into, lengths, strict=True)]))
        unique, place = torch.unique(gathered[0], return_inverse=True)
        return unique, gradient.new_zeros(len(unique), gradient.shape[1]).index_add_(0, place, gathered[1])

    @contextmanager
    def shared_rows(self, encoder: Encoder) -> Iterator[None]:
        """Make an encoder hand out the rows that all processes read, with the sums of their gradients.

        Args:
            encoder: With ``table_optimizer: dense`` it hands out none.

        Yields:
            Nothing; inside, ``encoder.touched`` exchanges.
        """
        if self.size == 1 or not encoder.sparse:
            yield
            return
        own = encoder.touched

        def touched() -> list[Touched]:
            mine = {one.table: (one.rows, one.gradient) for one in own()}
            found = []
            # Every process takes part for every table, whether or not its share of the batch has read it.
            for table in encoder.parameters():
                none = (torch.zeros(0, dtype=torch.int64, device=table.device), table.new_zeros(0, table.shape[1]))
                rows, gradient = self.sum_rows(*mine.get(table, none))
                if len(rows):
                    found.append(Touched(table, rows, gradient))
            return found

        # An attribute of the instance hides the method.
        object.__setattr__(encoder, "touched", touched)
        try:
            yield
        finally:
            object.__delattr__(encoder, "touched")

    def share_losses(self, sums: LossSums) -> None:
        """Give every process the sums of all."""
        if self.size > 1:
            distributed.all_reduce(sums.loss)
            distributed.all_reduce(sums.entries)

    def keep_on_first(self, sums: LossSums) -> None:
        """Forget sums that all processes have, but on the first, so that they are added up once."""
        if self.rank > 0:
            sums.loss.zero_()
            sums.entries.zero_()

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            distributed.barrier()


def team() -> Team:
    """The processes of torch's default process group; this one alone where there is none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Team()
    return Team(distributed.get_rank(), distributed.get_world_size())
