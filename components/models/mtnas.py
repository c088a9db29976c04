"""MTNAS: layers of sub-networks and the routes between them (Chen, Gu, Fu, *Boosting Share Routing for Multi-task
Learning*, arXiv 2009.00387).

The shared part is layers of blocks, one dense layer each. Every block of the first layer reads level 0. Every
deeper block, and every tower, *chooses* some outputs of the layer below and mixes them with a softmax gate, whose query
is chosen too. A shared bottom is the route in which every layer has one block; MMoE is the route in which all towers
read all blocks with the query ``input``; tests hold both together with :mod:`components.models.mfh`.

Open in public sources and decided here:

- A sub-network is one dense layer; layer l has the l-th width of ``recipe.level1.widths``, and layers beyond the last
  width have that one. Deeper experts are chains of blocks. ``level1``'s other settings have no say.
- Queries: ``input``, the output of level 0 (MMoE's gate); ``mean``, the mean of the chosen outputs; ``constant``, a
  learned vector that is the same for all rows, so that the logits are biases alone.
- One chosen output is taken as it is: its gate would always be 1, so it has none and no query.
- The group is one more input, as in the other models without a group facet, and all towers have the large sizes.

``components.models.search`` finds routes; this module builds the network of one.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.errors import ConfigError
from components.models.mfh import count, sizes
from components.models.network import Grid, Node, Towers, by_cell, embedding
from components.models.settings import ModelRecipe
from components.models.switchers import Layers, dense, glorot, mix, zeros

Query = Literal["input", "mean", "constant"]
QUERIES: tuple[Query, ...] = get_args(Query)

NUMBER = r"(?:0|[1-9][0-9]{0,3})"
CHOICE = re.compile(rf"({NUMBER}(?:\+{NUMBER})*)(?:@({'|'.join(QUERIES)}))?")


@dataclass(frozen=True)
class Choice:
    """What a block or a tower reads.

    Attributes:
        sources: Blocks of the layer below, in rising order.
        query: What its gate reads; None where there is one source and so no gate.
    """

    sources: tuple[int, ...]
    query: Query | None = None

    def __str__(self) -> str:
        """``0+2@mean``; ``1`` for a single source."""
        return "+".join(map(str, self.sources)) + (f"@{self.query}" if self.query else "")

    @classmethod
    def parse(cls, text: object) -> "Choice":
        """Read what ``str`` wrote; a ConfigError says what is wrong with anything else."""
        found = CHOICE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ConfigError(
                f"a route's choice must be blocks joined by + and a query ({', '.join(QUERIES)}) behind @, such as "
                f"'0+2@mean' or '1', found {text!r}"
            )
        sources = tuple(int(one) for one in found[1].split("+"))
        if list(sources) != sorted(set(sources)):
            raise ConfigError(f"a route's choice must name each block once and in rising order, found {text!r}")
        if (len(sources) > 1) != (found[2] is not None):
            raise ConfigError(
                f"a route's choice has a query where it has several blocks and only there, found {text!r}"
            )
        return cls(sources, cast(Query | None, found[2]))


@dataclass(frozen=True)
class Route:
    """A point of the search space.

    Attributes:
        layers: The choice of every block, layer by layer from below; those of the first layer read level 0 as block 0.
        towers: The choice of every behaviour's tower.
    """

    layers: tuple[tuple[Choice, ...], ...]
    towers: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not (self.layers and all(self.layers) and self.towers):
            raise ConfigError("a route needs at least one block in every layer and at least one tower")
        below = 1
        for number, (choices, above) in enumerate(pairwise((*self.layers, self.towers)), start=1):
            self._require_within(choices, below, f"layer {number}")
            below = len(choices)
            read = {source for choice in above for source in choice.sources}
            if idle := sorted(set(range(below)) - read):
                raise ConfigError(f"nothing reads block {idle[0]} of layer {number} of the route; leave it out")
        self._require_within(self.towers, below, "the towers")

    def _require_within(self, choices: tuple[Choice, ...], below: int, where: str) -> None:
        for choice in choices:
            if choice.sources[-1] >= below:
                raise ConfigError(
                    f"choice '{choice}' in {where} of the route reads one of {below} blocks: 0 to {below - 1}"
                )

    @classmethod
    def dense(cls, layers: int, blocks: int, behaviours: int) -> "Route":
        """Every block and every tower reads all outputs of the layer below with the query ``input``."""
        first, everything = Choice((0,)), choice_of(range(blocks), "input")
        deeper = ((everything,) * blocks,) * (layers - 1)
        return cls(((first,) * blocks, *deeper), (everything,) * behaviours)

    @classmethod
    def pruned(cls, layers: Sequence[Sequence[Choice]], towers: Sequence[Choice]) -> "Route":
        """The route without the blocks that nothing reads, the others numbered anew; it computes the same."""
        above, kept = list(towers), []
        for choices in reversed(layers):
            read = sorted({source for choice in above for source in choice.sources})
            number = {block: at for at, block in enumerate(read)}
            kept.append(tuple(Choice(tuple(number[s] for s in one.sources), one.query) for one in above))
            above = [choices[block] for block in read]
        found = [tuple(above), *reversed(kept)]
        return cls(tuple(found[:-1]), found[-1])

    def text(self) -> str:
        """The route as ``SearchSettings.route`` keeps it: compact JSON, equal for equal routes."""
        parts = {"layers": [[str(one) for one in row] for row in self.layers], "towers": [str(t) for t in self.towers]}
        return json.dumps(parts, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> "Route":
        """Read what :meth:`text` wrote, or a person did; a ConfigError says what is wrong with anything else."""
        try:
            parts = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"search.route is not JSON: {error}") from error
        if not isinstance(parts, dict) or parts.keys() != {"layers", "towers"}:
            raise ConfigError(f"search.route must be an object of 'layers' and 'towers' and nothing else, found {text}")
        layers, towers = parts["layers"], parts["towers"]
        if not isinstance(layers, list) or not all(isinstance(row, list) for row in (*layers, towers)):
            raise ConfigError("search.route needs a list of choices per layer, and a list of choices of the towers")
        return cls(tuple(tuple(map(Choice.parse, row)) for row in layers), tuple(map(Choice.parse, towers)))


def choice_of(sources: Sequence[int], query: Query) -> Choice:
    """The choice of these sources, without a query where there is one source only."""
    return Choice(tuple(sources), query if len(sources) > 1 else None)


def route_of(recipe: ModelRecipe, behaviours: int) -> Route:
    """The route that a recipe names.

    Args:
        recipe: ``search.route``, or without one its dense route; layers and blocks bound it.
        behaviours: m.

    Returns:
        The route.

    Raises:
        ConfigError: When its text is wrong, or it is not a point of the recipe's search space.
    """
    search = recipe.search
    if not search.route:
        return Route.dense(search.layers, search.blocks, behaviours)
    route = Route.parse(search.route)
    if len(route.layers) != search.layers:
        raise ConfigError(f"search.route has {len(route.layers)} layers, search.layers asks for {search.layers}")
    if (most := max(map(len, route.layers))) > search.blocks:
        raise ConfigError(f"search.route has {most} blocks in a layer, search.blocks allows {search.blocks}")
    if len(route.towers) != behaviours:
        raise ConfigError(f"search.route has {len(route.towers)} towers, the model has {behaviours} behaviours")
    return route


def layer_widths(recipe: ModelRecipe) -> tuple[int, ...]:
    """Width of every layer of blocks.

    Args:
        recipe: ``level1.widths`` and ``search.layers``.

    Returns:
        One width per layer.

    Raises:
        ConfigError: When there are more widths than layers.
    """
    widths, layers = recipe.level1.widths, recipe.search.layers
    if len(widths) > layers:
        raise ConfigError(f"level1.widths has {len(widths)} widths, search.layers asks for {layers} layers of blocks")
    return (*widths, *(widths[-1:] * (layers - len(widths))))


class Logits(nn.Module):
    """Gate logits of pairs (reader, source) whose gates have one kind of query.

    Args:
        query: What the gates read.
        readers: The reader of each of n pairs.
        sources: S, blocks of the layer below; sets the scale of fresh weights.
        inputs: Width of the query; 0 for ``constant``.
    """

    def __init__(self, query: Query, readers: Sequence[int], sources: int, inputs: int) -> None:
        super().__init__()
        self.query, self.pairs = query, len(readers)
        self.weight = glorot(inputs, self.pairs, fan_out=sources) if inputs else None
        self.bias = zeros(self.pairs)
        self.readers: Tensor
        self.register_buffer("readers", torch.tensor(readers), persistent=False)

    def forward(self, z: Tensor, hidden: Tensor, share: Tensor) -> Tensor:
        """Logits.

        Args:
            z: float32 [B, in], the output of level 0.
            hidden: float32 [B, S, d], the outputs of the layer below.
            share: float32 [R, S], the part of every source in the mean that a reader's query may be.

        Returns:
            float32 [B, n].
        """
        if self.weight is None:
            return self.bias.expand(len(z), -1)
        # As in switchers.Gate: a row's product must not round by its place among the rows.
        weight = functional.pad(self.weight, (0, -self.pairs % 4))
        if self.query == "input":
            return torch.matmul(z, weight)[:, : self.pairs] + self.bias
        # The product of a mean is the mean of the products, and those are one product for all readers.
        products = torch.matmul(hidden.flatten(0, 1), weight)[:, : self.pairs].view(*hidden.shape[:2], -1)
        return (products * share[self.readers].T).sum(1) + self.bias


class Mixture(nn.Module):
    """What R readers mix of the layer below: a gate has weights for its reader's own sources and no others.

    Args:
        choices: Of the readers.
        sources: S, blocks of the layer below.
        inputs: Width of z.
        width: d, width of the layer below.
    """

    def __init__(self, choices: Sequence[Choice], sources: int, inputs: int, width: int) -> None:
        super().__init__()
        self.choices, self.widths = tuple(choices), {"input": inputs, "mean": width, "constant": 0}
        share = torch.zeros(len(choices), sources)
        # What is not chosen has the logit -inf, and what is chosen alone 0: a weight of 0, a weight of 1.
        logits = torch.full((len(choices) * sources,), -torch.inf)
        self.logits, places = nn.ModuleDict(), []
        for reader, choice in enumerate(choices):
            share[reader, list(choice.sources)] = 1.0 / len(choice.sources)
            if choice.query is None:
                logits[reader * sources + choice.sources[0]] = 0.0
        for query in QUERIES:
            pairs = [(at, one) for at, choice in enumerate(choices) if choice.query == query for one in choice.sources]
            if pairs:
                self.logits[query] = Logits(query, [reader for reader, _ in pairs], sources, self.widths[query])
                places += [reader * sources + source for reader, source in pairs]
        self.share: Tensor
        self.fixed: Tensor
        self.places: Tensor
        self.single: Tensor
        for name, buffer in (("share", share), ("fixed", logits), ("places", torch.tensor(places, dtype=torch.int64))):
            self.register_buffer(name, buffer, persistent=False)
        self.register_buffer("single", torch.tensor([one.sources[0] for one in choices]), persistent=False)

    def forward(self, z: Tensor, hidden: Tensor) -> Tensor:
        """Mix.

        Args:
            z: float32 [B, in], the output of level 0.
            hidden: float32 [B, S, d], the outputs of the layer below.

        Returns:
            float32 [R, B, d].
        """
        if not self.logits:
            return hidden.transpose(0, 1).index_select(0, self.single)
        found = torch.cat([one(z, hidden, self.share) for one in self.logits.values()], dim=1)
        logits = self.fixed.expand(len(z), -1).index_copy(1, self.places, found)
        gates = torch.softmax(logits.view(len(z), len(self.choices), -1), dim=-1)
        return mix(gates.unsqueeze(0), hidden.unsqueeze(0)).squeeze(0).transpose(0, 1)

    def each(self) -> list[int]:
        """Trained numbers of every reader's gate."""
        return [(self.widths[one.query] + 1) * len(one.sources) if one.query else 0 for one in self.choices]


class RoutedNetwork(nn.Module):
    """The network of one route; of a recipe without a route the dense network, in which everything reads everything.

    Blocks that nothing reads are not part of a route, so that neither are they built.

    Args:
        behaviours: m.
        recipe: Route, layers of blocks, widths of level 0 and of the towers.
        inputs: D, width of x.
        group_input: Number of groups and the width of their embedding, one more input; (0, 0) for none.

    Attributes:
        grid: The behaviours.
        routes: False: rows of any groups may be mixed.
        route: What reads what.

    Raises:
        ConfigError: When the route is wrong or not one of the recipe's search space.
    """

    def __init__(self, behaviours: int, recipe: ModelRecipe, inputs: int, group_input: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.routes = Grid(behaviours), False
        self.route, widths = route_of(recipe, behaviours), layer_widths(recipe)
        groups, group_width = group_input
        self.group = embedding(groups, group_width) if groups else None
        self.inputs, width = inputs + group_width, recipe.level0_width
        self.level0 = nn.ParameterList([glorot(1, self.inputs, width), zeros(1, width)]) if width else None
        self.width = width or self.inputs
        below = len(self.route.layers[0])
        self.first = Layers(1, self.width, widths[:1], below)
        self.mixtures, self.blocks = nn.ModuleList(), nn.ModuleList()
        for choices, (inner, outer) in zip(self.route.layers[1:], pairwise(widths), strict=True):
            self.mixtures.append(self.mixture(choices, below, inner))
            self.blocks.append(Layers(len(choices), inner, (outer,), 1))
            below = len(choices)
        self.mixtures.append(self.mixture(self.route.towers, below, widths[-1]))
        self.towers = Towers(behaviours, widths[-1], recipe.tower_widths)

    def mixture(self, choices: tuple[Choice, ...], sources: int, width: int) -> nn.Module:
        """How readers mix ``sources`` outputs of this width: a module ``(z, hidden) -> [R, B, d]``."""
        return Mixture(choices, sources, self.width, width)

    def heads(self, x: Tensor, cell: Tensor, at: int) -> Tensor:
        """Logits.

        Args:
            x: float32 [B, D].
            cell: Integer [B], the rows' groups.
            at: Not used: rows of any groups may be mixed.

        Returns:
            float32 [m, B].
        """
        del at
        return self.above(*self.below(x, cell))

    def below(self, x: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """What all routes have in common: x [B, D], cell [B] to level 0 [B, in] and the first layer [B, E, d]."""
        if self.group is not None:
            x = torch.cat([x, functional.embedding(cell, self.group)], dim=1)
        z = x.unsqueeze(0)
        if self.level0 is not None:
            z = dense(z, *self.level0)
        return z.squeeze(0), self.first.forward(z).squeeze(0)

    def above(self, z: Tensor, hidden: Tensor) -> Tensor:
        """The rest: z float32 [B, in], the first layer [B, E, d], to logits [m, B]."""
        for mixture, blocks in zip(self.mixtures, self.blocks, strict=False):
            hidden = blocks(mixture(z, hidden)).squeeze(2).transpose(0, 1)
        return self.towers.forward(self.mixtures[-1](z, hidden))

    def forward(self, x: Tensor, cell: Tensor) -> Tensor:
        """Logits: x float32 [B, D], cell integer [B], to float32 [B, m]."""
        return by_cell(self, x, cell)

    def nodes(self) -> list[Node]:
        """Every block of the graph, with a node for what each deeper block and each tower reads."""
        found = []
        if self.group is not None:
            found.append(Node("group", "embedding", 0, 1, *sizes(self.group), count(self.group)))
        if self.level0 is not None:
            found.append(Node("level0", "dense", 0, 1, self.inputs, self.width, count(*self.level0)))
        readers = [f"layer1/{at}" for at in range(self.first.count)]
        width = self.first.weight.shape[-1] // self.first.count
        found += self._alike(readers, "block", 1, (self.width, width), self.first)
        for level, mixture in enumerate(self.mixtures, start=2):
            last = level - 2 == len(self.blocks)
            above = self.towers if last else self.blocks[level - 2]
            choices = self.route.towers if last else self.route.layers[level - 1]
            readers = [f"tower/{at}" if last else f"layer{level}/{at}" for at in range(len(choices))]
            for name, choice, size in zip(readers, choices, cast(Mixture, mixture).each(), strict=True):
                query = {"input": self.width, "mean": width}.get(choice.query or "", 0)
                kind = "gate" if choice.query else "copy"
                found.append(Node(f"{name}/{choice}", kind, level, len(choice.sources), query, width, size))
            outputs = 1 if last else cast(Layers, above).weight.shape[-1]
            found += self._alike(readers, "tower" if last else "block", level, (width, outputs), above)
            width = outputs
        return found

    def _alike(self, names: list[str], kind: str, level: int, sizes: tuple[int, int], module: nn.Module) -> list[Node]:
        return [Node(name, kind, level, 1, *sizes, count(*module.parameters()) // len(names)) for name in names]
