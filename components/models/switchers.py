"""Switchers: modules with one input and one hidden output per branch (shared bottom, cross-stitch, MMoE, CGC, PLE).

A switcher here is a bank of ``instances`` equal ones, each reading an input of its own: the level below a behaviour
level has one per behaviour, and all of them run as one batched matrix product. Its branches fall into ``routes``: a
sample needs the branches of its own route only (one user group's), so a call names the route and computes nothing that
only other routes need. Weights of a bank are stacked ``[instances, in, experts * out]``.

Sources: Tang et al., *Progressive Layered Extraction*, RecSys 2020, eq. 1 to 7; Ma et al., *Modeling Task Relationships
in Multi-task Learning with Multi-gate Mixture-of-Experts*, KDD 2018, eq. 6 and 7; Misra et al., *Cross-stitch Networks
for Multi-task Learning*, CVPR 2016, eq. 1; Liu et al., *Multi-Faceted Hierarchical Multi-Task Learning*, CIKM 2022,
section 3.
"""

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.models.settings import Gate as GateKind
from components.models.settings import SwitcherSettings

# Slope of the activation below 0. With none, every unit of a narrow tower can die in one step and its task stays a
# constant for good.
LEAK = 0.1

# Share of a branch's own hidden layer in a fresh cross-stitch unit; the rest is spread over the others.
STITCH_OWN = 0.9


def glorot(*shape: int, fan_out: int = 0) -> nn.Parameter:
    """A stack of weights ``[..., in, out]``, Glorot-uniform by each matrix's own fan in and fan out.

    Args:
        *shape: The stack's shape.
        fan_out: Width of one matrix where several lie side by side in the last axis; 0 means the whole axis.

    Returns:
        The parameter, drawn from torch's global generator.
    """
    bound = math.sqrt(6.0 / (shape[-2] + (fan_out or shape[-1])))
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def activate(hidden: Tensor) -> Tensor:
    """Leaky ReLU in place, the activation of every layer: ``max(h, LEAK h)``; no view, or it costs a copy."""
    return functional.leaky_relu_(hidden, LEAK)


def zeros(*shape: int) -> nn.Parameter:
    """A stack of biases."""
    return nn.Parameter(torch.zeros(*shape))


class Layers(nn.Module):
    """Stacks of ``count`` networks of dense layers that read one input, for every instance.

    Args:
        instances: P.
        inputs: Width of the input.
        widths: Layer widths.
        count: E, networks side by side.
    """

    def __init__(self, instances: int, inputs: int, widths: tuple[int, ...], count: int) -> None:
        super().__init__()
        first, *rest = widths
        pairs = list(pairwise((first, *rest)))
        self.weight = glorot(instances, inputs, count * first, fan_out=first)
        self.bias = zeros(instances, count * first)
        self.weights = nn.ParameterList([glorot(instances, count, i, o) for i, o in pairs])
        self.biases = nn.ParameterList([zeros(instances, count, 1, o) for _, o in pairs])
        self.count = count

    def forward(self, u: Tensor, others: "Layers | None" = None) -> Tensor:
        """``act(... act(u W_1 + b_1) ...)`` of every network.

        Args:
            u: float32 [P, B, in].
            others: More networks of the same widths that read the same input; theirs come behind, in one product.

        Returns:
            float32 [P, B, E, d].
        """
        count = self.count + (others.count if others else 0)
        (weight, bias), *rest = self._stacks() if others is None else self._joined(others)
        hidden = dense(u, weight, bias)
        instances, rows = hidden.shape[:2]
        hidden = hidden.view(instances, rows, count, -1)
        if not rest:
            return hidden
        hidden = hidden.permute(0, 2, 1, 3).reshape(instances * count, rows, -1)
        for weight, bias in rest:
            hidden = activate(torch.baddbmm(bias.flatten(0, 1), hidden, weight.flatten(0, 1)))
        return hidden.view(instances, count, rows, -1).transpose(1, 2)

    def _stacks(self) -> list[tuple[Tensor, Tensor]]:
        return [(self.weight, self.bias), *zip(self.weights, self.biases, strict=True)]

    def _joined(self, others: "Layers") -> list[tuple[Tensor, Tensor]]:
        # Weights are small beside the activations of a batch: to join them costs less than to join those.
        pairs = zip(self._stacks(), others._stacks(), strict=True)
        return [
            (torch.cat([w, v], dim=1 if at else 2), torch.cat([b, c], dim=1))
            for at, ((w, b), (v, c)) in enumerate(pairs)
        ]


def linear(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``u W + b`` per instance: [P, B, in], [P, in, out], [P, out] to [P, B, out]."""
    if len(weight) == 1:
        # Not weight[0]: the gradient of an index is a tensor of zeros to be filled in.
        return torch.addmm(bias.squeeze(0), u.squeeze(0), weight.squeeze(0)).unsqueeze(0)
    return torch.baddbmm(bias.unsqueeze(1), u, weight)


def dense(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``act(u W + b)`` per instance: [P, B, in], [P, in, out], [P, out] to [P, B, out]."""
    if len(weight) == 1:
        # In place before any view is taken: in place on a view costs a copy of the whole.
        return activate(torch.addmm(bias.squeeze(0), u.squeeze(0), weight.squeeze(0))).unsqueeze(0)
    return activate(linear(u, weight, bias))


class Gate(nn.Module):
    """Weights with which branches mix experts: a module of its own, so that diagnostics can listen to it.

    Args:
        instances: P.
        inputs: Width of the input.
        branches: Q.
        experts: n, experts that each branch mixes.
        kind: ``softmax``, or ``sigmoid`` scaled by 1 / n.
    """

    def __init__(self, instances: int, inputs: int, branches: int, experts: int, kind: GateKind) -> None:
        super().__init__()
        self.branches, self.experts, self.kind = branches, experts, kind
        self.weight = glorot(instances, inputs, branches * experts, fan_out=experts)
        self.bias = zeros(instances, branches * experts)

    def forward(self, u: Tensor) -> Tensor:
        """Mixing weights: float32 [P, B, in] to [P, B, Q, n]."""
        width = self.branches * self.experts
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if spare := -width % 4:
            # Products with 5 to 11 columns round by the place of a row among the rows, unless it is 8 of them; a score
            # must not depend on what else was asked in the same call.
            weight, bias = functional.pad(weight, (0, spare)), functional.pad(bias, (0, spare))
        logits = linear(u, weight, bias)[..., :width]
        logits = logits.reshape(*logits.shape[:2], self.branches, self.experts)
        if self.kind == "sigmoid":
            return torch.sigmoid(logits) / self.experts
        return torch.softmax(logits, dim=-1)


def mix(gates: Tensor, hidden: Tensor) -> Tensor:
    """Every branch mixes every expert: gates [P, B, Q, E], hidden [P, B, E, d] to [P, B, Q, d]."""
    mixed = torch.bmm(gates.flatten(0, 1), hidden.flatten(0, 1))
    return mixed.view(*gates.shape[:3], -1)


class Spread(nn.Module):
    """Gates laid out over all experts of a block, with weight 0 for those that a branch does not mix.

    One product over all experts then mixes for all branches; it beats a product per branch by a factor of two, up to a
    dozen branches and more, because it neither splits nor copies what the experts gave.

    Args:
        experts: For each branch the experts that its gate weighs, in the order of the weights.
        total: E.
    """

    def __init__(self, experts: list[list[int]], total: int) -> None:
        super().__init__()
        self.branches, self.total = len(experts), total
        places = [branch * total + expert for branch, mixed in enumerate(experts) for expert in mixed]
        self.complete = places == list(range(len(experts) * total))
        self.places: Tensor
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, *gates: Tensor) -> Tensor:
        """Lay out.

        Args:
            *gates: float32 [P, B, ...], together one weight per pair of branch and expert, branch by branch.

        Returns:
            float32 [P, B, Q, E].
        """
        flat = torch.cat([gate.flatten(2) for gate in gates], dim=2) if len(gates) > 1 else gates[0].flatten(2)
        if not self.complete:
            flat = flat.new_zeros(*flat.shape[:2], self.branches * self.total).index_copy(2, self.places, flat)
        return flat.view(*flat.shape[:2], self.branches, self.total)


def own_and_shared(
    branches: int, own: int, shared: int, first: int = 0, shared_from: int | None = None
) -> list[list[int]]:
    """The experts of each branch of a CGC block: its own, then the shared ones.

    Args:
        branches: Q.
        own: n_t.
        shared: n_s.
        first: Number of the first branch's first expert.
        shared_from: Number of the first shared expert; None means right behind the branches'.

    Returns:
        For each branch n_t + n_s numbers.
    """
    start = first + branches * own if shared_from is None else shared_from
    return [
        [*range(first + branch * own, first + (branch + 1) * own), *range(start, start + shared)]
        for branch in range(branches)
    ]


class Switcher(nn.Module, ABC):
    """What all switchers have in common.

    Args:
        instances: P, equal switchers side by side, each with an input of its own.
        inputs: Width of each input.
        routes: R; a call names one.
        branches: Q, branches of each route; the switcher has R * Q in all.
        settings: Kind, widths, numbers of experts.
    """

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__()
        self.instances, self.inputs, self.routes, self.branches = instances, inputs, routes, branches
        self.settings = settings
        self.width = settings.widths[-1]

    @abstractmethod
    def forward(self, u: Tensor, route: int) -> Tensor:
        """Hidden outputs of the branches of one route.

        Args:
            u: float32 [P, B, in].
            route: 0 to R - 1.

        Returns:
            float32 [P, Q, B, d].
        """

    @property
    def parameters_each(self) -> int:
        """Trained numbers of one instance."""
        return sum(parameter.numel() for parameter in self.parameters()) // self.instances


class SharedBottom(Switcher):
    """Dense layers that all branches read: the outputs are one tensor, seen once per branch."""

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__(instances, inputs, routes, branches, settings)
        self.layers = Layers(instances, inputs, settings.widths, 1)

    def forward(self, u: Tensor, route: int) -> Tensor:
        """See :meth:`Switcher.forward`."""
        del route
        return self.layers.forward(u).transpose(1, 2).expand(-1, self.branches, -1, -1)


class MMoE(Switcher):
    """Multi-gate mixture of experts: all experts are shared, each branch has a gate over all of them."""

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__(instances, inputs, routes, branches, settings)
        count = routes * branches * settings.experts + settings.shared
        self.experts = Layers(instances, inputs, settings.widths, count)
        self.gates = nn.ModuleList([Gate(instances, inputs, branches, count, settings.gate) for _ in range(routes)])

    def forward(self, u: Tensor, route: int) -> Tensor:
        """See :meth:`Switcher.forward`."""
        return mix(self.gates[route](u), self.experts.forward(u)).transpose(1, 2)


class CGC(Switcher):
    """Customized gate control: experts of each branch and shared ones, mixed by a gate per branch.

    ``o_t = Σ_i w_t,i E_t,i(z) + Σ_j w_t,(n_t+j) E_s,j(z)`` with ``w_t = softmax(z W_t + c_t)``.
    """

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__(instances, inputs, routes, branches, settings)
        n, n_s, widths = settings.experts, settings.shared, settings.widths
        self.own = nn.ModuleList([Layers(instances, inputs, widths, branches * n) for _ in range(routes)])
        self.shared = Layers(instances, inputs, widths, n_s)
        self.gates = nn.ModuleList([Gate(instances, inputs, branches, n + n_s, settings.gate) for _ in range(routes)])
        self.spread = Spread(own_and_shared(branches, n, n_s), branches * n + n_s)

    def forward(self, u: Tensor, route: int) -> Tensor:
        """See :meth:`Switcher.forward`."""
        return mix(self.spread(self.gates[route](u)), self.own[route](u, self.shared)).transpose(1, 2)


class PLE(Switcher):
    """Progressive layered extraction: two CGC layers.

    The first also has a shared gate over *all* its experts, giving o_s, which is why all of them run whatever the
    route; in the second, experts and gate of branch t read o_t, shared experts read o_s, and there is no shared gate.
    """

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__(instances, inputs, routes, branches, settings)
        n, n_s, (first, second) = settings.experts, settings.shared, settings.widths
        own = branches * n
        total = routes * own + n_s
        # Experts of route 0, branch 0, then of its branch 1, ..., the shared ones last.
        self.experts_1 = Layers(instances, inputs, (first,), total)
        self.gates_1 = nn.ModuleList([Gate(instances, inputs, branches, n + n_s, settings.gate) for _ in range(routes)])
        self.shared_gate = Gate(instances, inputs, 1, total, settings.gate)
        each = [own_and_shared(branches, n, n_s, route * own, total - n_s) for route in range(routes)]
        self.spread_1 = nn.ModuleList([Spread([*experts, list(range(total))], total) for experts in each])
        self.own_2 = nn.ModuleList([Layers(instances * branches, first, (second,), n) for _ in range(routes)])
        self.shared_2 = Layers(instances, first, (second,), n_s)
        gates = [Gate(instances * branches, first, 1, n + n_s, settings.gate) for _ in range(routes)]
        self.gates_2 = nn.ModuleList(gates)
        self.spread_2 = Spread(own_and_shared(branches, n, n_s), own + n_s)

    def forward(self, u: Tensor, route: int) -> Tensor:
        """See :meth:`Switcher.forward`."""
        gates = self.spread_1[route](self.gates_1[route](u), self.shared_gate.forward(u))
        o = mix(gates, self.experts_1.forward(u))
        # [P * Q, B, ...]: the branches are instances of the second layer.
        branches, o_s = o[:, :, :-1].transpose(1, 2).flatten(0, 1), o[:, :, -1]
        own = self._by_row(self.own_2[route](branches))
        gates = self.spread_2.forward(self._by_row(self.gates_2[route](branches)))
        return mix(gates, torch.cat([own, self.shared_2.forward(o_s)], dim=2)).transpose(1, 2)

    def _by_row(self, found: Tensor) -> Tensor:
        """[P * Q, B, n, d] to [P, B, Q * n, d]."""
        rows, last = found.shape[1], found.shape[3]
        return found.view(self.instances, self.branches, rows, -1, last).transpose(1, 2).flatten(2, 3)


class CrossStitch(Switcher):
    """A network of dense layers per branch; after each layer every branch reads a learned mixture of all branches.

    ``h'_t = Σ_s α_ts h_s`` with one α per layer and pair of branches (one per layer instead of one per channel).
    """

    def __init__(self, instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> None:
        super().__init__(instances, inputs, routes, branches, settings)
        count = routes * branches
        first, *rest = settings.widths
        self.first = Layers(instances, inputs, (first,), count)
        self.rest = nn.ModuleList([Layers(instances * count, i, (o,), 1) for i, o in pairwise((first, *rest))])
        spread = (1.0 - STITCH_OWN) / max(count - 1, 1)
        start = torch.full((count, count), spread).fill_diagonal_(STITCH_OWN if count > 1 else 1.0)
        self.stitches = nn.ParameterList([nn.Parameter(start.repeat(instances, 1, 1, 1)) for _ in settings.widths])

    def forward(self, u: Tensor, route: int) -> Tensor:
        """See :meth:`Switcher.forward`."""
        hidden = self.first.forward(u)
        for layer, stitch in zip(self.rest, self.stitches, strict=False):
            # [P, 1, T, T] x [P, B, T, d]: one mixture for all rows.
            stitched = torch.matmul(stitch, hidden).transpose(1, 2).flatten(0, 1)
            hidden = layer(stitched).view(self.instances, len(stitch[0, 0]), len(u[0]), -1).transpose(1, 2)
        mine = slice(route * self.branches, (route + 1) * self.branches)
        return torch.matmul(self.stitches[-1][:, :, mine], hidden).transpose(1, 2)


KINDS: dict[str, type[Switcher]] = {
    "shared_bottom": SharedBottom,
    "cross_stitch": CrossStitch,
    "mmoe": MMoE,
    "cgc": CGC,
    "ple": PLE,
}


def switcher(instances: int, inputs: int, routes: int, branches: int, settings: SwitcherSettings) -> Switcher:
    """Build the switcher that the settings name: see :class:`Switcher` for the arguments."""
    return KINDS[settings.kind](instances, inputs, routes, branches, settings)
