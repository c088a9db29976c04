"""Single-task models: one network per behaviour, side by side, with nothing in common."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.network import Grid, Node, Towers, by_cell, embedding
from components.models.settings import ModelRecipe
from components.models.switchers import Layers


class SingleTask(nn.Module):
    """m networks of the widths of level 0, level 1 and a tower, each reading an encoder and a group input of its own.

    They are trained in one go: their losses add up and share no parameter, and AdamW moves every parameter by its own
    gradients alone, so each ends where it would end alone (but for the clipping of the common gradient norm).

    Args:
        behaviours: m.
        recipe: Widths; experts, deeper levels and small towers do not exist here.
        inputs: D, width of one copy of x.
        group_input: Number of groups and the width of their embedding.
    """

    def __init__(self, behaviours: int, recipe: ModelRecipe, inputs: int, group_input: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.routes = Grid(behaviours), False
        groups, width = group_input
        self.group = embedding(groups, behaviours * width)
        widths = (*((recipe.level0_width,) if recipe.level0_width else ()), *recipe.level1.widths)
        self.inputs = inputs + width
        pairs = pairwise((self.inputs, *widths))
        self.layers = nn.ModuleList([Layers(behaviours, i, (o,), 1) for i, o in pairs])
        self.towers = Towers(behaviours, widths[-1], recipe.tower_widths)

    def heads(self, x: Tensor, cell: Tensor, at: int) -> Tensor:
        """Logits.

        Args:
            x: float32 [B, m, D], one copy per behaviour.
            cell: Integer [B], the rows' groups.
            at: Not used: rows of any groups may be mixed.

        Returns:
            float32 [m, B].
        """
        del at
        group = functional.embedding(cell, self.group).view(len(cell), self.grid.behaviours, -1)
        hidden = torch.cat([x, group], dim=2).transpose(0, 1)
        for layer in self.layers:
            hidden = layer(hidden).squeeze(2)
        return self.towers.forward(hidden)

    def forward(self, x: Tensor, cell: Tensor) -> Tensor:
        """Logits: x float32 [B, m, D], cell integer [B], to float32 [B, m]."""
        return by_cell(self, x, cell)

    def nodes(self) -> list[Node]:
        """One network per behaviour."""
        each = sum(parameter.numel() for parameter in self.parameters()) // self.grid.behaviours
        return [Node(f"single/{a}", "single", 1, 1, self.inputs, 1, each) for a in range(self.grid.behaviours)]
