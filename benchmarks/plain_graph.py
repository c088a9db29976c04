"""The full graph as one would write it: an ``nn.Linear`` per expert, gate and tower layer, every leaf for all rows.

It is what the stacked and routed graph of ``components.models.mfh`` is held to: tests compare outputs and all
gradients, ``mfh bench train`` compares speed. Each linear layer remembers which part of the stacks it mirrors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.mfh import BEHAVIOURS, FacetForest, FacetTree
from components.models.network import Towers
from components.models.switchers import CGC, LEAK, PLE, CrossStitch, Gate, Layers, MMoE, SharedBottom, Switcher

Read = Callable[[nn.Parameter], Tensor]


@dataclass(frozen=True, eq=False)
class Link:
    """A plain layer and the stacked parameters that it mirrors.

    Attributes:
        layer: The plain layer.
        weight: Stack of weights, and where in it the layer's lie, as [in, out].
        bias: The same of the bias, as [out].
    """

    layer: nn.Linear
    weight: tuple[nn.Parameter, Callable[[Tensor], Tensor]]
    bias: tuple[nn.Parameter, Callable[[Tensor], Tensor]]

    def read(self, of: Read) -> tuple[Tensor, Tensor]:
        """The layer's part of what ``of`` gives for the stacks: [out, in] and [out]."""
        (weight, of_weight), (bias, of_bias) = self.weight, self.bias
        return of_weight(of(weight)).T, of_bias(of(bias))


class Plain(nn.Module):
    """A module that knows the links of its own linear layers.

    Attributes:
        links: Of the linear layers made by ``linear``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: list[Link] = []

    def linear(
        self,
        weight: nn.Parameter,
        of_weight: Callable[[Tensor], Tensor],
        bias: nn.Parameter,
        of_bias: Callable[[Tensor], Tensor],
    ) -> nn.Linear:
        """A linear layer with a copy of its part of the stacks; see :class:`Link` for the arguments."""
        layer = nn.Linear(*of_weight(weight).shape)
        link = Link(layer, (weight, of_weight), (bias, of_bias))
        with torch.no_grad():
            for mine, theirs in zip((layer.weight, layer.bias), link.read(lambda stack: stack.detach()), strict=True):
                mine.copy_(theirs)
        self.links.append(link)
        return layer

    def expert(self, layers: Layers, instance: int, number: int) -> nn.Sequential:
        """One of the networks of a stack."""
        width = layers.weight.shape[2] // layers.count
        part = slice(number * width, (number + 1) * width)
        found: list[nn.Module] = [
            self.linear(layers.weight, lambda w: w[instance][:, part], layers.bias, lambda b: b[instance][part]),
            nn.LeakyReLU(LEAK),
        ]
        for weight, bias in zip(layers.weights, layers.biases, strict=True):
            found += [self.linear(weight, lambda w: w[instance, number], bias, lambda b: b[instance, number, 0])]
            found += [nn.LeakyReLU(LEAK)]
        return nn.Sequential(*found)

    def gate(self, stack: Gate, instance: int, branch: int) -> nn.Linear:
        """The gate of one branch of a stack."""
        part = slice(branch * stack.experts, (branch + 1) * stack.experts)
        return self.linear(
            stack.weight,
            lambda w: w[instance][:, part],
            stack.bias,
            lambda b: b[instance][part],
        )


def weighted(gate: nn.Linear, u: Tensor, hidden: list[Tensor], kind: str) -> Tensor:
    """A gate's mixture of hidden outputs [B, d]."""
    logits = gate(u)
    weights = logits.softmax(-1) if kind == "softmax" else logits.sigmoid() / len(hidden)
    return torch.stack([weights[:, i : i + 1] * one for i, one in enumerate(hidden)]).sum(0)


class PlainSwitcher(Plain):
    """One instance of a bank, with all branches of all routes.

    Args:
        bank: The bank.
        instance: Which of its switchers.
    """

    def __init__(self, bank: Switcher, instance: int) -> None:
        super().__init__()
        self.kind, self.gating, self.routes, self.branches = (
            bank.settings.kind,
            bank.settings.gate,
            bank.routes,
            bank.branches,
        )
        n, n_s, branches = bank.settings.experts, bank.settings.shared, bank.branches
        places = list(product(range(bank.routes), range(branches)))
        self.own, self.shared, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.own_2, self.shared_2, self.gates_2 = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        if isinstance(bank, SharedBottom):
            self.shared.append(self.expert(bank.layers, instance, 0))
        if isinstance(bank, MMoE):
            self.shared.extend(self.expert(bank.experts, instance, e) for e in range(bank.experts.count))
            self.gates.extend(self.gate(cast(Gate, bank.gates[r]), instance, b) for r, b in places)
        if isinstance(bank, CGC):
            for r, b in places:
                own = cast(Layers, bank.own[r])
                self.own.append(nn.ModuleList([self.expert(own, instance, b * n + i) for i in range(n)]))
            self.shared.extend(self.expert(bank.shared, instance, j) for j in range(n_s))
            self.gates.extend(self.gate(cast(Gate, bank.gates[r]), instance, b) for r, b in places)
        if isinstance(bank, PLE):
            for r, b in places:
                first = (r * branches + b) * n
                self.own.append(nn.ModuleList([self.expert(bank.experts_1, instance, first + i) for i in range(n)]))
                own = cast(Layers, bank.own_2[r])
                of_branch = instance * branches + b
                self.own_2.append(nn.ModuleList([self.expert(own, of_branch, i) for i in range(n)]))
                self.gates_2.append(self.gate(cast(Gate, bank.gates_2[r]), of_branch, 0))
            last = bank.experts_1.count - n_s
            self.shared.extend(self.expert(bank.experts_1, instance, last + j) for j in range(n_s))
            self.shared_2.extend(self.expert(bank.shared_2, instance, j) for j in range(n_s))
            self.gates.extend(self.gate(cast(Gate, bank.gates_1[r]), instance, b) for r, b in places)
            self.gates.append(self.gate(bank.shared_gate, instance, 0))
        self.stitches = nn.ParameterList()
        if isinstance(bank, CrossStitch):
            count = len(places)
            self.own.extend(self.expert(bank.first, instance, t) for t in range(count))
            for layers in bank.rest:
                of_layer = [self.expert(cast(Layers, layers), instance * count + t, 0) for t in range(count)]
                self.own_2.append(nn.ModuleList(of_layer))
            self.stitches.extend(nn.Parameter(one[instance, 0].detach().clone()) for one in bank.stitches)

    def forward(self, u: Tensor) -> list[Tensor]:
        """Hidden outputs of every branch of every route, [B, d] each."""
        if self.kind == "shared_bottom":
            return [self.shared[0](u)] * (self.routes * self.branches)
        if self.kind == "cross_stitch":
            return self._stitched(u)
        own, shared = self._layer([u] * (len(self.gates) + 1), self.own, self.shared)
        if self.kind == "mmoe":
            return [weighted(gate, u, shared, self.gating) for gate in self._linears(self.gates)]
        gates = self._linears(self.gates)
        outputs = [weighted(gate, u, [*mine, *shared], self.gating) for gate, mine in zip(gates, own, strict=False)]
        if self.kind == "cgc":
            return outputs
        everything = [*(hidden for mine in own for hidden in mine), *shared]
        outputs.append(weighted(gates[-1], u, everything, self.gating))
        own, shared = self._layer(outputs, self.own_2, self.shared_2)
        pairs = zip(self._linears(self.gates_2), outputs, own, strict=False)
        return [weighted(gate, o, [*mine, *shared], self.gating) for gate, o, mine in pairs]

    def _layer(
        self, inputs: list[Tensor], own: nn.ModuleList, shared: nn.ModuleList
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Experts of each branch on its own input, and the shared ones on the last input."""
        mine = [[expert(u) for expert in cast(nn.ModuleList, of)] for of, u in zip(own, inputs, strict=False)]
        return mine, [expert(inputs[-1]) for expert in shared]

    def _stitched(self, u: Tensor) -> list[Tensor]:
        hidden = [network(u) for network in self.own]
        for at, stitch in enumerate(self.stitches):
            if at:
                hidden = [
                    network(h) for network, h in zip(cast(nn.ModuleList, self.own_2[at - 1]), hidden, strict=True)
                ]
            hidden = [torch.stack([a * h for a, h in zip(row, hidden, strict=True)]).sum(0) for row in stitch]
        return hidden

    @staticmethod
    def _linears(gates: nn.ModuleList) -> list[nn.Linear]:
        return [cast(nn.Linear, gate) for gate in gates]


class PlainTree(nn.Module):
    """One tree with a switcher per node."""

    def __init__(self, tree: FacetTree) -> None:
        super().__init__()
        self.grid, self.facets = tree.grid, tree.tree
        self.levels = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(PlainSwitcher(cast(Switcher, bank), p) for p in range(cast(Switcher, bank).instances))
                for bank in cast(nn.ModuleList, banks)
            )
            for banks in tree.levels
        )

    def forward(self, z: Tensor) -> dict[tuple[int, ...], Tensor]:
        """Leaf [B, d] of every task: its behaviour, then the values of the other facets."""
        sizes = (self.grid.behaviours, *self.grid.facets)
        # Value of each facet so far (0 where it has not branched), bank, instance and input of every node of a level.
        places = [((0,) * len(sizes), 0, 0, z)]
        for facets, banks in zip(self.facets, self.levels, strict=True):
            below = []
            for values, bank, instance, u in places:
                switcher = cast(PlainSwitcher, cast(nn.ModuleList, cast(nn.ModuleList, banks)[bank])[instance])
                outputs = switcher(u)
                for number, chosen in enumerate(product(*(range(sizes[f]) for f in self._routed_last(facets)))):
                    found = list(values)
                    for facet, value in zip(self._routed_last(facets), chosen, strict=True):
                        found[facet] = value
                    route = number // sizes[BEHAVIOURS] if BEHAVIOURS in facets else number
                    behaviour = found[BEHAVIOURS] if BEHAVIOURS in facets else instance
                    below.append((tuple(found), bank * switcher.routes + route, behaviour, outputs[number]))
            places = below
        return {values: leaf for values, _, _, leaf in places}

    @staticmethod
    def _routed_last(facets: tuple[int, ...]) -> tuple[int, ...]:
        """Facets in the order of a switcher's branches: those of routes first, behaviours vary fastest."""
        return (*(f for f in facets if f != BEHAVIOURS), *(f for f in facets if f == BEHAVIOURS))


class PlainForest(Plain):
    """Every tree, leaf and tower of a forest for every row.

    Args:
        forest: The stacked graph; weights are copied. Merged by sum, mean or concatenation, without a bias tower.
    """

    def __init__(self, forest: FacetForest) -> None:
        super().__init__()
        self.grid, self.merge = forest.grid, forest.merger.merge
        self.group = None if forest.group is None else nn.Parameter(forest.group.detach().clone())
        self.level0 = None
        if forest.level0 is not None:
            weight, bias = forest.level0
            self.level0 = self.linear(weight, lambda w: w[0], bias, lambda b: b[0])
        self.trees = nn.ModuleList(PlainTree(cast(FacetTree, tree)) for tree in forest.trees)
        cells = range(forest.grid.cells)
        self.towers = nn.ModuleList(
            nn.ModuleList(self._tower(cast(Towers, forest.towers[cell]), a) for a in range(forest.grid.behaviours))
            for cell in cells
        )

    def forward(self, x: Tensor, cell: Tensor) -> Tensor:
        """Logits of every task: x [B, D], cell [B] (read where the group is an input) to [B, cells, m]."""
        if self.group is not None:
            x = torch.cat([x, self.group[cell.long()]], dim=1)
        z = x if self.level0 is None else functional.leaky_relu(self.level0(x), LEAK)
        leaves = [tree(z) for tree in self.trees]
        grid = self.grid
        found = []
        for cell_number, towers in enumerate(self.towers):
            for a, tower in enumerate(cast(nn.ModuleList, towers)):
                own = [one[(a, *grid.values(cell_number))] for one in leaves]
                found.append(tower(self._merged(own)).squeeze(1))
        return torch.stack(found, dim=1).view(len(x), grid.cells, grid.behaviours)

    def all_links(self) -> Iterator[Link]:
        """Links of every linear layer of the graph."""
        for module in self.modules():
            if isinstance(module, Plain):
                yield from module.links

    def _merged(self, leaves: list[Tensor]) -> Tensor:
        if len(leaves) == 1 or self.merge == "concat":
            return torch.cat(leaves, dim=1)
        total = torch.stack(leaves)
        return total.mean(0) if self.merge == "mean" else total.sum(0)

    def _tower(self, towers: Towers, behaviour: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for weight, bias in zip(towers.weights, towers.biases, strict=True):
            layers += [self.linear(weight, lambda w: w[behaviour], bias, lambda b: b[behaviour, 0]), nn.LeakyReLU(LEAK)]
        return nn.Sequential(*layers[:-1])
