"""One training step's gradients, computed cell by cell in pieces that stay in the processor's cache.

A batch's rows are sorted by cell, and each piece holds rows of one cell, so that the network computes nothing that only
other cells need. On a CPU a piece has at most ``PIECE_ROWS`` rows: activations of a whole batch of thousands do not fit
into any cache, and moving them costs more than the products. The encoder runs once over the whole batch, since its
gradient is as large as its tables. The sum over pieces is the batch's gradient.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor

from components.models.losses import MultiTaskLoss
from components.models.network import Network

# Rows of one piece on a CPU.
PIECE_ROWS = 1_024


@dataclass(frozen=True)
class Piece:
    """Rows ``start`` to ``stop`` of a batch in the plan's order, all of cell ``at`` where the network routes."""

    at: int
    start: int
    stop: int


def plan(network: Network, cell: Tensor, rows_at_most: int) -> tuple[Tensor | None, list[Piece]]:
    """Cut a batch into pieces.

    Args:
        network: Says whether it routes, and over how many cells.
        cell: Integer [B].
        rows_at_most: Longest piece.

    Returns:
        The order that puts rows of a cell side by side (int64 [B]; None where any order will do), and the pieces.
    """
    order, counts = None, [len(cell)]
    if network.routes:
        order = torch.argsort(cell, stable=True)
        counts = torch.bincount(cell, minlength=network.grid.cells).tolist()
    pieces, start = [], 0
    for at, count in enumerate(counts):
        # Pieces of a cell are equally long, instead of a short last one.
        number = -(-count // rows_at_most)
        edges = [start + count * i // number for i in range(number + 1)] if number else []
        pieces += [Piece(at, a, b) for a, b in pairwise(edges)]
        start += count
    return order, pieces


def accumulate(
    network: torch.nn.Module,
    loss: MultiTaskLoss,
    x: Tensor,
    cell: Tensor,
    labels: Tensor,
    *,
    present: float,
    batch: str,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[Tensor, Tensor]:
    """Add a batch's gradients to the network's, and send x its own.

    Args:
        network: A :class:`Network`.
        loss: The loss over tasks.
        x: float32 [B, D] (or [B, m, D]), with its graph back to the encoder.
        cell: int64 [B].
        labels: float32 [B, m], NaN = missing.
        present: What the sum of losses is divided by: labels present in the global batch, at least 1.
        batch: What to call this batch in an error.
        precision: Of the network's products.

    Returns:
        The loss summed over pieces, a scalar, and the unweighted loss of every entry, float32 [B, m], both detached.

    Raises:
        TrainingError: When a task's loss is not finite.
    """
    graph = cast(Network, network)
    limit = PIECE_ROWS if x.device.type == "cpu" else max(len(x), 1)
    order, pieces = plan(graph, cell, limit)
    given = x.detach()
    if order is not None:
        given, cell, labels = given[order], cell[order], labels[order]
    gradient, entries = torch.empty_like(given), torch.empty_like(labels)
    total = torch.zeros((), device=x.device)
    for piece in pieces:
        rows = slice(piece.start, piece.stop)
        part = given[rows].requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = graph.heads(part, cell[rows], piece.at).T
        found = loss.forward(logits.float(), labels[rows], present, batch)
        found.total.backward()  # type: ignore[no-untyped-call]
        gradient[rows], entries[rows] = cast(Tensor, part.grad), found.entries
        total += found.total.detach()
    if order is not None:
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        gradient, entries = gradient[back], entries[back]
    if x.requires_grad:
        # With a gradient of its own, backward would import the compiler stack to check its shape.
        (x * gradient).sum().backward()  # type: ignore[no-untyped-call]
    return total, entries
