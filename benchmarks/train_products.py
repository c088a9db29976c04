"""How much of the machine's matrix-product speed the switchers of MFH reach, on the products that they really need."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from components.models.mfh import FacetForest, FacetTree
from components.models.step import PIECE_ROWS, Piece, plan
from components.models.switchers import CGC, PLE, Layers, MMoE, SharedBottom, Switcher
from components.models.zoo import build

# A weight of w numbers costs 2 w operations a row forward, and 4 w backward: gradients of the input and of itself.
FORWARD_AND_BACKWARD = 6


def needed_flops(network: FacetForest, rows: int, cell: int) -> int:
    """Operations of the switchers' matrix products, forward and backward, for rows of one cell.

    Experts, gates and mixtures of the branches that the cell needs are counted; products with the zeros that pad a
    mixture or a gate are not, though they are computed.

    Args:
        network: MFH.
        rows: B.
        cell: Of all rows.

    Returns:
        Floating-point operations.
    """
    total = 0
    for tree in network.trees:
        found = cast(FacetTree, tree)
        values, above = (0, *network.grid.values(cell)), 0
        for facets, banks in zip(found.tree, found.levels, strict=True):
            total += _of_switcher(cast(Switcher, cast(nn.ModuleList, banks)[above]))
            for facet in facets:
                if facet:
                    above = above * network.grid.facets[facet - 1] + values[facet]
    return FORWARD_AND_BACKWARD * rows * total


def _of_switcher(bank: Switcher) -> int:
    """Multiplications a row of one route."""
    n, n_s, width = bank.settings.experts, bank.settings.shared, bank.width
    if isinstance(bank, SharedBottom):
        return _of_layers(bank.layers)
    if isinstance(bank, MMoE):
        mixed = bank.instances * bank.branches * bank.experts.count * width
        return _of_layers(bank.experts) + _of_gate(bank.gates[0]) + mixed
    if isinstance(bank, CGC):
        mixed = bank.instances * bank.branches * (n + n_s) * width
        return _of_layers(cast(Layers, bank.own[0])) + _of_layers(bank.shared) + _of_gate(bank.gates[0]) + mixed
    if isinstance(bank, PLE):
        first = bank.settings.widths[0]
        mixed = bank.instances * first * (bank.branches * (n + n_s) + bank.experts_1.count)
        mixed += bank.instances * bank.branches * (n + n_s) * width
        layers = _of_layers(bank.experts_1) + _of_layers(cast(Layers, bank.own_2[0])) + _of_layers(bank.shared_2)
        gates = _of_gate(bank.gates_1[0]) + _of_gate(bank.shared_gate) + _of_gate(bank.gates_2[0])
        return layers + gates + mixed
    raise ValueError(f"operations of {bank.settings.kind} are not counted")


def _of_layers(layers: Layers) -> int:
    return sum(weight.numel() for weight in (layers.weight, *layers.weights))


def _of_gate(gate: nn.Module) -> int:
    return cast(Tensor, gate.weight).numel()


def switcher_pass(rows: int, behaviours: int, groups: int) -> tuple[Callable[[], None], int]:
    """Forward and backward of all switchers of MFH in the paper's sizes, cell by cell as a training step does.

    Args:
        rows: B.
        behaviours: m.
        groups: k.

    Returns:
        Does it once, and the operations that it needs.
    """
    from benchmarks.train_sides import recipe

    torch.manual_seed(0)
    network = cast(FacetForest, build(recipe("mfh"), 100, behaviours, (groups,)))
    z = torch.randn(rows, recipe("mfh").level0_width)
    cell = torch.arange(rows) % groups
    order, pieces = plan(network, cell, PIECE_ROWS)
    sorted_z = z if order is None else z[order]
    seeds = [torch.randn(behaviours, piece.stop - piece.start, 128) for piece in pieces]

    def work() -> None:
        for piece, seed in zip(pieces, seeds, strict=True):
            given = sorted_z[piece.start : piece.stop].unsqueeze(0).requires_grad_()
            leaves = [tree(given, piece.at) for tree in network.trees]
            torch.autograd.backward(leaves, [seed] * len(leaves))
        for parameter in network.parameters():
            parameter.grad = None

    return work, sum(needed_flops(network, _length(piece), piece.at) for piece in pieces)


def _length(piece: Piece) -> int:
    return piece.stop - piece.start


# Shapes of a product whose speed counts as the machine's: large and square, and those of a wide layer.
PEAK_SHAPES = ((2_048, 2_048, 2_048), (4_096, 512, 2_048), (1_024, 1_024, 1_024))


def peak_products() -> dict[str, tuple[Callable[[], None], int]]:
    """Plain single-precision products, and the operations of each."""
    found: dict[str, tuple[Callable[[], None], int]] = {}
    for m, k, n in PEAK_SHAPES:
        left, right, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)

        def work(left: Tensor = left, right: Tensor = right, out: Tensor = out) -> None:
            torch.mm(left, right, out=out)

        found[f"{m}x{k}x{n}"] = (work, 2 * m * k * n)
    return found
