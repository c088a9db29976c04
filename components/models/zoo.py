"""The models that a recipe can name, all with one interface: ``(x [B, D], group [B]) -> logits [B, m]``."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.config import ModelRecipe
from components.models.encoder import EMBEDDING_STD
from components.models.mfh import MFH, Towers
from components.models.switchers import PLE, SharedBottom


class PLEBaseline(nn.Module):
    """PLE over the behaviours alone: the group is one more embedded input, not a facet.

    Source: Tang et al., *Progressive Layered Extraction*, RecSys 2020. Level 0 and the layer sizes are the recipe's, so
    that a comparison with MFH changes nothing but the architecture; every behaviour has one tower, of the large size.

    Args:
        recipe: Layer sizes; level 2 and the small towers do not exist here.
        inputs: D, width of x.
        behaviours: m.
        groups: k.
        group_width: Embedding width of the group.
    """

    def __init__(self, recipe: ModelRecipe, inputs: int, behaviours: int, groups: int, group_width: int) -> None:
        super().__init__()
        self.group = nn.Parameter(torch.empty(groups, group_width).normal_(std=EMBEDDING_STD))
        inputs += group_width
        self.level0 = SharedBottom(inputs, recipe.level0_width) if recipe.level0_width else None
        self.by_behaviour = PLE(
            recipe.level0_width or inputs,
            recipe.level1_widths,
            behaviours,
            recipe.level1_experts,
            recipe.level1_shared,
        )
        self.towers = Towers(behaviours, recipe.level1_widths[1], recipe.tower_widths)

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        """Logits of every behaviour.

        Args:
            x: float32 [B, D].
            group: Integer [B], 0 to k - 1.

        Returns:
            float32 [B, m].
        """
        z = torch.cat([x, functional.embedding(group.long(), self.group)], dim=1)
        if self.level0 is not None:
            z = self.level0.forward_branch(z)
        return self.towers.forward(self.by_behaviour.forward(z).transpose(0, 1)).T


@dataclass(frozen=True)
class ParameterCount:
    """How many trained numbers a block holds."""

    block: str
    parameters: int


def build(recipe: ModelRecipe, inputs: int, behaviours: int, groups: int, group_width: int = 4) -> nn.Module:
    """Build the network that a recipe names, with fresh weights from torch's global generator.

    Args:
        recipe: Kind and layer sizes.
        inputs: D, width of the encoder's output.
        behaviours: m.
        groups: k.
        group_width: Embedding width of the group where it is an input.

    Returns:
        A module ``(x [B, D], group [B]) -> logits [B, m]``.
    """
    if recipe.kind == "mfh":
        return MFH(recipe, inputs, behaviours, groups)
    return PLEBaseline(recipe, inputs, behaviours, groups, group_width)


def parameter_table(model: nn.Module) -> tuple[ParameterCount, ...]:
    """Parameters by block.

    Args:
        model: Any module.

    Returns:
        One entry per direct child or direct parameter, in order of definition, then the total.
    """
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        block = name.split(".")[0]
        counts[block] = counts.get(block, 0) + parameter.numel()
    return (
        *(ParameterCount(block, count) for block, count in counts.items()),
        ParameterCount("total", sum(counts.values())),
    )
