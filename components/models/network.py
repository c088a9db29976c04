"""What every model of the zoo shares: the grid of tasks, the interface of a network, towers, printed nodes."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from components.models.switchers import activate, glorot, zeros

EMBEDDING_STD = 0.05


@dataclass(frozen=True)
class Grid:
    """The task grid.

    Attributes:
        behaviours: m.
        facets: Sizes of the facets of which a sample has one value; the first is the user groups.
    """

    behaviours: int
    facets: tuple[int, ...] = ()

    @property
    def cells(self) -> int:
        """Combinations of the values of ``facets``."""
        return prod(self.facets)

    def values(self, cell: int) -> tuple[int, ...]:
        """Value of each facet in a cell; the last facet varies fastest."""
        found = []
        for size in reversed(self.facets):
            cell, value = divmod(cell, size)
            found.append(value)
        return tuple(reversed(found))


@dataclass(frozen=True)
class Node:
    """A block of the graph, as ``mfh model describe`` prints it."""

    name: str
    kind: str
    level: int
    branches: int
    inputs: int
    outputs: int
    parameters: int


class Network(Protocol):
    """What every model of the zoo is, beside an ``nn.Module``.

    Attributes:
        routes: Whether a call of ``heads`` must hold rows of one cell only.
        grid: The grid over which it has cells; one cell where it does not route.
    """

    routes: bool
    grid: Grid

    def heads(self, x: Tensor, cell: Tensor, at: int) -> Tensor:
        """Logits of rows that are all of the cell ``at``: x [B, D], cell [B] to [m, B]."""

    def nodes(self) -> list[Node]:
        """Every block of the graph."""


class Towers(nn.Module):
    """One tower per behaviour, all of the same sizes: dense layers, then one linear logit.

    Args:
        behaviours: m.
        inputs: Width of the towers' input.
        widths: Hidden layers.
    """

    def __init__(self, behaviours: int, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = list(pairwise((inputs, *widths, 1)))
        self.weights = nn.ParameterList([glorot(behaviours, i, o) for i, o in sizes])
        self.biases = nn.ParameterList([zeros(behaviours, 1, o) for _, o in sizes])

    def forward(self, r: Tensor) -> Tensor:
        """Logits of every behaviour: float32 [m, B, d] to [m, B]."""
        hidden, last = r, len(self.weights) - 1
        for at, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if at < last:
                hidden = activate(hidden)
        return hidden.squeeze(-1)


def by_cell(network: Network, x: Tensor, cell: Tensor) -> Tensor:
    """Run a network on rows of any cells.

    Args:
        network: Any model of the zoo.
        x: float32 [B, D].
        cell: Integer [B].

    Returns:
        float32 [B, m].
    """
    cell = cell.long()
    if not network.routes:
        return network.heads(x, cell, 0).T
    order = torch.argsort(cell, stable=True)
    counts = torch.bincount(cell, minlength=network.grid.cells).tolist()
    pieces = zip(torch.split(x[order], counts), torch.split(cell[order], counts), strict=True)
    logits = [network.heads(part, own, at) for at, (part, own) in enumerate(pieces) if counts[at]]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(logits, dim=1).T[back]


def embedding(rows: int, width: int) -> nn.Parameter:
    """A table of small random rows, so that a rarely seen one starts out as "no opinion"."""
    return nn.Parameter(torch.empty(rows, width).normal_(std=EMBEDDING_STD))
