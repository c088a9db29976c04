"""MFH: two trees of switchers over the grid behaviours × groups, merged at the leaves, computed by group.

Source: Liu et al., *Multi-Faceted Hierarchical Multi-Task Learning for Recommender Systems*, CIKM 2022, section 3 and
the released graph. Two decisions where public sources are silent: activations are ReLU, and every group but the most
active one (the last) gets the recipe's smaller towers.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from components.config import ModelRecipe
from components.models.switchers import CGC, PLE, CGCBank, SharedBottom, glorot, zeros


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
                hidden = torch.relu(hidden)
        return hidden.squeeze(-1)


class MFH(nn.Module):
    """Two-facet MFH. Each row is computed for the heads of its own group only.

    The behaviour-first tree runs a PLE over behaviours on all rows, then per behaviour the own group's branch of a
    CGC over groups. The group-first tree runs the own group's branch of a PLE over groups, then that group's CGC over
    behaviours. Outputs and gradients equal those of the full graph, in which every row visits all m·k leaves and a
    mask picks its own.

    Args:
        recipe: Layer sizes; ``level0_width`` 0 leaves level 0 out.
        inputs: D, width of x.
        behaviours: m.
        groups: k; the last one is the most active.
    """

    def __init__(self, recipe: ModelRecipe, inputs: int, behaviours: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.level0 = SharedBottom(inputs, recipe.level0_width) if recipe.level0_width else None
        width0, width1 = recipe.level0_width or inputs, recipe.level1_widths[1]
        level1 = (recipe.level1_experts, recipe.level1_shared)
        level2 = (recipe.level2_experts, recipe.level2_shared)
        self.by_behaviour = PLE(width0, recipe.level1_widths, behaviours, *level1)
        self.by_group = PLE(width0, recipe.level1_widths, groups, *level1)
        self.group_leaves = CGCBank(
            behaviours,
            width1,
            recipe.level2_width,
            groups,
            experts=recipe.level2_experts,
            shared=recipe.level2_shared,
        )
        self.behaviour_leaves = nn.ModuleList(
            [CGC(width1, recipe.level2_width, behaviours, *level2) for _ in range(groups)]
        )
        widths = [recipe.small_tower_widths] * (groups - 1) + [recipe.tower_widths]
        self.towers = nn.ModuleList([Towers(behaviours, recipe.level2_width, w) for w in widths])

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        """Logits of the own group's heads.

        Args:
            x: float32 [B, D].
            group: Integer [B], 0 to k - 1.

        Returns:
            float32 [B, m].
        """
        group = group.long()
        # Rows of a group lie side by side from here on; the last line puts them back.
        order = torch.argsort(group, stable=True)
        z = x[order]
        if self.level0 is not None:
            z = self.level0.forward_branch(z)
        u = self.by_behaviour.forward(z)
        counts = torch.bincount(group, minlength=self.groups).tolist()
        logits = [
            self._heads(z_g, u_g, g)
            for g, (z_g, u_g) in enumerate(zip(torch.split(z, counts), torch.split(u, counts), strict=True))
            if counts[g]
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(logits, dim=1).T[back]

    def _heads(self, z: Tensor, u: Tensor, g: int) -> Tensor:
        """Logits [m, B_g] of one group's rows: z [B_g, in], u [B_g, m, d]."""
        p = self.group_leaves.forward_branch(u.transpose(0, 1), g)
        q: Tensor = self.behaviour_leaves[g](self.by_group.forward_branch(z, g))
        logits: Tensor = self.towers[g](p + q.transpose(0, 1))
        return logits
