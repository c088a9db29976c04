"""MFH: trees of switchers over the grid behaviours × groups, merged at the leaves and computed by group.

Facet 0 is the behaviours: every sample needs all of them. The other facets (user groups, item groups) are those of
which a sample has one value; their combination is the sample's *cell*. Per sample only its own cell's leaves are
computed; outputs and gradients equal those of the full graph, in which every sample visits all leaves and a mask picks
its own.

Source: Liu et al., *Multi-Faceted Hierarchical Multi-Task Learning for Recommender Systems*, CIKM 2022, section 3 and
the released graph. Decisions where public sources are silent: activations are ReLU with a small slope below 0
(``switchers.LEAK``); every user group but the most active one (the last) gets the recipe's smaller towers; with three
facets there is one tree per facet, in which that facet comes first and the others nest below it in declared order.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.network import Grid, Node, Towers, by_cell, embedding
from components.models.settings import Merge, ModelRecipe
from components.models.switchers import Gate, Switcher, dense, glorot, switcher, zeros

# Facets of a grid by number; letters name them in the printed graph.
LETTERS = "AGIJKL"
BEHAVIOURS = 0

# Width of the group's embedding and of the one hidden layer of Biasnet's bias tower (open in public sources).
BIAS_WIDTH = 8

# Facets that branch together at one level of a tree, from the root: ``((0,), (1,))`` is behaviours, then groups.
Tree = tuple[tuple[int, ...], ...]


class FacetTree(nn.Module):
    """One tree of switchers.

    Args:
        grid: The task grid.
        tree: Facets that branch at each level; behaviours must be among them.
        inputs: Width of the root's input.
        recipe: Switchers of the first and of the deeper levels.
    """

    def __init__(self, grid: Grid, tree: Tree, inputs: int, recipe: ModelRecipe) -> None:
        super().__init__()
        self.grid, self.tree, self.width = grid, tree, inputs
        self.levels = nn.ModuleList()
        instances, above = 1, 1
        for level, facets in enumerate(tree):
            settings = recipe.deeper if level else recipe.level1
            routes = prod(grid.facets[f - 1] for f in facets if f != BEHAVIOURS)
            branches = grid.behaviours if BEHAVIOURS in facets else 1
            # One bank per combination of the cell's values above; a sample meets exactly one of them.
            banks = [switcher(instances, self.width, routes, branches, settings) for _ in range(above)]
            self.levels.append(nn.ModuleList(banks))
            instances, above, self.width = instances * branches, above * routes, settings.widths[-1]

    def forward(self, z: Tensor, cell: int) -> Tensor:
        """Leaves of one cell.

        Args:
            z: float32 [1, B, in], rows of one cell.
            cell: The cell.

        Returns:
            float32 [m, B, d].
        """
        values, hidden, above = (0, *self.grid.values(cell)), z, 0
        for facets, banks in zip(self.tree, self.levels, strict=True):
            route = self._route(0, facets, [values[facet] for facet in facets])
            hidden = banks[above](hidden, route).flatten(0, 1)  # type: ignore[index]
            above = self._route(above, facets, [values[facet] for facet in facets])
        return hidden

    def nodes(self) -> list[Node]:
        """Every switcher of the tree, named by its path: ``A``, then ``A/0/G`` below behaviour 0."""
        found: list[Node] = []
        places = [("", 0)]
        for level, (facets, banks) in enumerate(zip(self.tree, self.levels, strict=True), start=1):
            letters = "".join(LETTERS[facet] for facet in facets)
            for path, at in places:
                bank: Switcher = banks[at]  # type: ignore[index]
                branches, kind = bank.routes * bank.branches, bank.settings.kind
                found.append(
                    Node(f"{path}{letters}", kind, level, branches, bank.inputs, bank.width, bank.parameters_each)
                )
            values = list(product(*(range((self.grid.behaviours, *self.grid.facets)[facet]) for facet in facets)))
            places = [
                (f"{path}{letters}/{'.'.join(map(str, one))}/", self._route(at, facets, one))
                for path, at in places
                for one in values
            ]
        return found

    def _route(self, above: int, facets: Sequence[int], values: Sequence[int]) -> int:
        """Mixed-radix number of the values of all facets but the behaviours, continuing from ``above``."""
        for facet, value in zip(facets, values, strict=True):
            if facet != BEHAVIOURS:
                above = above * self.grid.facets[facet - 1] + value
        return above


class Merger(nn.Module):
    """One tower input per task from the leaves of several trees.

    Args:
        merge: ``sum`` (the paper's), ``mean``, ``concat``, or ``gate`` (a softmax over the trees, read from z).
        trees: Number of trees.
        inputs: Width of z.
        behaviours: m.
        cells: Each has gates of its own.
    """

    def __init__(self, merge: Merge, trees: int, inputs: int, behaviours: int, cells: int) -> None:
        super().__init__()
        self.merge, self.trees = merge, trees
        gates = cells if merge == "gate" and trees > 1 else 0
        self.gates = nn.ModuleList([Gate(1, inputs, behaviours, trees, "softmax") for _ in range(gates)])

    @property
    def widening(self) -> int:
        """How many times wider the output is than one leaf."""
        return self.trees if self.merge == "concat" else 1

    def forward(self, leaves: list[Tensor], z: Tensor, cell: int) -> Tensor:
        """Merge: leaves float32 [m, B, d] each, z [1, B, in], to [m, B, d] (``concat``: [m, B, trees * d])."""
        if len(leaves) == 1:
            return leaves[0]
        if self.merge == "concat":
            return torch.cat(leaves, dim=-1)
        if self.merge == "gate":
            weights = self.gates[cell](z)[0].permute(2, 1, 0).unsqueeze(-1)
            leaves = [weight * leaf for weight, leaf in zip(weights, leaves, strict=True)]
        merged = leaves[0]
        for leaf in leaves[1:]:
            merged = merged + leaf
        return merged / len(leaves) if self.merge == "mean" else merged


class FacetForest(nn.Module):
    """Trees over one grid, merged at the leaves, with a tower per task: MFH and all of the zoo that is built of trees.

    Args:
        grid: The task grid; without further facets every sample is in the one cell 0, and the user group can only be
            an input.
        trees: The trees; one gives a flat model, PLE, H-MTL and so on.
        recipe: Sizes, switchers, merge.
        inputs: D, width of x.
        group_input: Number of groups and the width of their embedding where the group is one more input; (0, 0) none.
        bias_groups: Number of groups whose embedding feeds a bias tower (Biasnet); 0 for none.
        equal_towers: Give every group the large towers.

    Attributes:
        routes: Whether a call must hold rows of one cell only.
    """

    def __init__(
        self,
        grid: Grid,
        trees: tuple[Tree, ...],
        recipe: ModelRecipe,
        inputs: int,
        *,
        group_input: tuple[int, int] = (0, 0),
        bias_groups: int = 0,
        equal_towers: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.routes = grid, grid.cells > 1
        groups, group_width = group_input
        self.group = embedding(groups, group_width) if groups else None
        inputs += group_width
        self.inputs, width = inputs, recipe.level0_width
        self.level0 = nn.ParameterList([glorot(1, inputs, width), zeros(1, width)]) if width else None
        grown = [FacetTree(grid, tree, width or inputs, recipe) for tree in trees]
        self.trees = nn.ModuleList(grown)
        self.merger = Merger(recipe.merge, len(trees), width or inputs, grid.behaviours, grid.cells)
        leaf = grown[0].width * self.merger.widening
        self.towers = nn.ModuleList()
        for cell in range(grid.cells):
            active = equal_towers or not self.routes or grid.values(cell)[0] == grid.facets[0] - 1
            widths = recipe.tower_widths if active else recipe.small_tower_widths
            self.towers.append(Towers(grid.behaviours, leaf, widths))
        self.bias_group = embedding(bias_groups, BIAS_WIDTH) if bias_groups else None
        self.bias_tower = Towers(1, BIAS_WIDTH, (BIAS_WIDTH,)) if bias_groups else None

    def heads(self, x: Tensor, cell: Tensor, at: int) -> Tensor:
        """Logits of rows that are all of one cell.

        Args:
            x: float32 [B, D].
            cell: Integer [B], the rows' cells; read only where the group is an input.
            at: The cell of all rows; 0 for a network that does not route.

        Returns:
            float32 [m, B].
        """
        if self.group is not None:
            x = torch.cat([x, functional.embedding(cell, self.group)], dim=1)
        z = x.unsqueeze(0)
        if self.level0 is not None:
            z = dense(z, *self.level0)
        merged = self.merger.forward([tree(z, at) for tree in self.trees], z, at)
        logits: Tensor = self.towers[at](merged)
        if self.bias_group is not None and self.bias_tower is not None:
            logits = logits + self.bias_tower.forward(functional.embedding(cell, self.bias_group).unsqueeze(0))
        return logits

    def forward(self, x: Tensor, cell: Tensor) -> Tensor:
        """Logits of every row's own cell's heads: x float32 [B, D], cell integer [B], to float32 [B, m]."""
        return by_cell(self, x, cell)

    def nodes(self) -> list[Node]:
        """Every block of the graph."""
        found = []
        if self.group is not None:
            found.append(Node("group", "embedding", 0, 1, *sizes(self.group), count(self.group)))
        if self.level0 is not None:
            found.append(Node("level0", "dense", 0, 1, *sizes(self.level0[0]), count(*self.level0)))
        for tree in self.trees:
            found += cast(FacetTree, tree).nodes()
        above = max(node.level for node in found)
        for cell, gate in enumerate(self.merger.gates):
            name = "/".join(map(str, ("merge", *self.grid.values(cell))))
            weight = cast(Gate, gate).weight
            found.append(Node(name, "gate", above + 1, self.grid.behaviours, *sizes(weight), count(*gate.parameters())))
        for cell, towers in enumerate(self.towers):
            inputs, each = sizes(*towers.parameters())[0], count(*towers.parameters()) // self.grid.behaviours
            for behaviour in range(self.grid.behaviours):
                name = "/".join(map(str, ("tower", behaviour, *self.grid.values(cell))))
                found.append(Node(name, "tower", above + 2, 1, inputs, 1, each))
        if self.bias_group is not None and self.bias_tower is not None:
            found.append(Node("bias_group", "embedding", 0, 1, *sizes(self.bias_group), count(self.bias_group)))
            found.append(Node("bias_tower", "tower", above + 2, 1, BIAS_WIDTH, 1, count(*self.bias_tower.parameters())))
        return found


def sizes(weight: Tensor, *_: Tensor) -> tuple[int, int]:
    """Fan in and fan out of the first of the weights given."""
    return weight.shape[-2], weight.shape[-1]


def count(*parameters: Tensor) -> int:
    """How many numbers the parameters hold."""
    return sum(parameter.numel() for parameter in parameters)
