"""The models that a recipe can name: settings of one forest of switchers, and the two that are something else.

=================  ===================================================================================
kind               graph
=================  ===================================================================================
``single``         a network of its own per behaviour, embeddings included; the group is an input
``shared_bottom``  one switcher over the behaviours, the group is an input; so are the next four
``cross_stitch``   Misra et al., CVPR 2016
``mmoe``           Ma et al., KDD 2018
``cgc``            Tang et al., RecSys 2020, one layer
``ple``            Tang et al., RecSys 2020, two layers
``flat``           one switcher over the whole grid behaviours × groups
``hmtl_behaviour`` one tree: behaviours first, the groups below
``hmtl_group``     one tree: user groups first, the behaviours below
``mfh``            one tree per facet, leaves merged (Liu et al., CIKM 2022)
``mfh_equal``      the same with the large towers for every group
``biasnet``        PLE over the behaviours; a tower over the group alone adds one logit to every task's
``mtnas``          searched routes (Chen, Gu, Fu, arXiv 2009.00387)
=================  ===================================================================================
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from components.models.mfh import FacetForest, Tree
from components.models.network import Grid, Network, Node
from components.models.settings import ModelRecipe, SwitcherKind
from components.models.single import SingleTask

# Kinds that are one switcher over the behaviours, and that switcher.
BY_BEHAVIOUR: dict[str, SwitcherKind] = {
    "shared_bottom": "shared_bottom",
    "cross_stitch": "cross_stitch",
    "mmoe": "mmoe",
    "cgc": "cgc",
    "ple": "ple",
    "biasnet": "ple",
}


def copies(recipe: ModelRecipe, behaviours: int) -> int:
    """How many encoders a model reads: one, or one per behaviour where nothing is shared."""
    return behaviours if recipe.kind == "single" else 1


def build(
    recipe: ModelRecipe, inputs: int, behaviours: int, facets: Sequence[int] = (3,), group_width: int = 4
) -> nn.Module:
    """Build the network that a recipe names, with fresh weights from torch's global generator.

    Args:
        recipe: Kind and layer sizes.
        inputs: D, width of the encoder's output (of one copy).
        behaviours: m.
        facets: Sizes of the facets of which a sample has one value, the user groups first.
        group_width: Embedding width of the cell where it is an input.

    Returns:
        A :class:`Network` that is also a module ``(x [B, D], cell [B]) -> logits [B, m]``.
    """
    grid = Grid(behaviours, tuple(facets))
    kind, no_cells = recipe.kind, Grid(behaviours)
    group_input = (grid.cells, group_width)
    if kind == "single":
        return SingleTask(behaviours, recipe, inputs, group_input)
    if kind == "mtnas":
        from components.models.mtnas import RoutedNetwork

        routed: nn.Module = RoutedNetwork(behaviours, recipe, inputs, group_input)
        return routed
    if kind in BY_BEHAVIOUR:
        recipe = replace(recipe, level1=replace(recipe.level1, kind=BY_BEHAVIOUR[kind]))
        if kind == "biasnet":
            return FacetForest(no_cells, (((0,),),), recipe, inputs, bias_groups=grid.cells)
        return FacetForest(no_cells, (((0,),),), recipe, inputs, group_input=group_input)
    return FacetForest(grid, trees(kind, len(grid.facets)), recipe, inputs, equal_towers=kind == "mfh_equal")


def trees(kind: str, facets: int) -> tuple[Tree, ...]:
    """The trees of a kind that branches over the whole grid.

    Args:
        kind: ``flat``, ``hmtl_behaviour``, ``hmtl_group``, ``mfh`` or ``mfh_equal``.
        facets: Facets beside the behaviours.

    Returns:
        Its trees; facet 0 is the behaviours.
    """
    every = tuple(range(facets + 1))

    def nested(first: int) -> Tree:
        return ((first,), *((facet,) for facet in every if facet != first))

    found: dict[str, tuple[Tree, ...]] = {
        "flat": ((every,),),
        "hmtl_behaviour": (nested(0),),
        "hmtl_group": (nested(1),),
    }
    return found.get(kind, tuple(nested(first) for first in every))


def nodes(network: nn.Module) -> list[Node]:
    """Every block of a network's graph: see :class:`Node`."""
    return cast(Network, network).nodes()
