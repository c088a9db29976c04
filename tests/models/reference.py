"""A plain full graph to hold the stacked, routed one against: one nn.Linear per expert and gate, every leaf for all."""

import torch
from torch import Tensor, nn

from components.models.mfh import MFH, Towers
from components.models.switchers import CGC, PLE, BranchCGC


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.data, layer.bias.data = weight.detach().T.clone(), bias.detach().flatten().clone()
    return layer


class PlainLayer(nn.Module):
    """One CGC layer; ``shared_gate`` None for none."""

    def __init__(self, weight, bias, gate_weight, gate_bias, *, experts, shared_gate=None):
        super().__init__()
        self.branches, self.per = len(gate_weight), experts
        self.experts = nn.ModuleList(linear(w, b) for w, b in zip(weight, bias, strict=True))
        self.gates = nn.ModuleList(linear(w, b) for w, b in zip(gate_weight, gate_bias, strict=True))
        self.shared_gate = shared_gate and linear(*shared_gate)

    def forward(self, inputs):
        """``inputs``: one per branch, then the shared one."""
        own = self.branches * self.per
        shared = [torch.relu(e(inputs[-1])) for e in self.experts[own:]]
        outputs, everything = [], []
        for t in range(self.branches):
            mine = [torch.relu(e(inputs[t])) for e in self.experts[t * self.per : (t + 1) * self.per]]
            everything += mine
            w = self.gates[t](inputs[t]).softmax(-1)
            outputs.append(sum(w[:, i : i + 1] * h for i, h in enumerate([*mine, *shared])))
        if self.shared_gate is not None:
            w = self.shared_gate(inputs[-1]).softmax(-1)
            outputs.append(sum(w[:, i : i + 1] * h for i, h in enumerate([*everything, *shared])))
        return outputs


def plain_layer(block: CGC | BranchCGC) -> PlainLayer:
    shared = (block.shared_gate_weight, block.shared_gate_bias) if getattr(block, "shared_gate", False) else None
    return PlainLayer(
        block.weight, block.bias, block.gate_weight, block.gate_bias, experts=block.experts, shared_gate=shared
    )


class PlainPLE(nn.Module):
    def __init__(self, block: PLE):
        super().__init__()
        self.first, self.second = plain_layer(block.first), plain_layer(block.second)

    def forward(self, z):
        return self.second(self.first([z] * (self.first.branches + 1)))


class PlainMFH(nn.Module):
    """All m·k leaves for every row; the caller masks."""

    def __init__(self, model: MFH):
        super().__init__()
        self.level0 = linear(model.level0.weight, model.level0.bias) if model.level0 is not None else None
        self.by_behaviour, self.by_group = PlainPLE(model.by_behaviour), PlainPLE(model.by_group)
        bank = model.group_leaves
        self.m, self.k = bank.weight.shape[1], model.groups
        self.group_leaves = nn.ModuleList(
            PlainLayer(
                *(bank.weight[:, a], bank.bias[:, a], bank.gate_weight[:, a], bank.gate_bias[:, a]),
                experts=bank.experts,
            )
            for a in range(self.m)
        )
        self.behaviour_leaves = nn.ModuleList(plain_layer(block) for block in model.behaviour_leaves)
        self.towers = nn.ModuleList(plain_tower(t, a) for t in model.towers for a in range(self.m))

    def forward(self, x):
        z = x if self.level0 is None else torch.relu(self.level0(x))
        p = [leaf([u] * (self.k + 1)) for leaf, u in zip(self.group_leaves, self.by_behaviour(z), strict=True)]
        q = [leaf([v] * (self.m + 1)) for leaf, v in zip(self.behaviour_leaves, self.by_group(z), strict=True)]
        heads = [
            torch.cat([self.towers[g * self.m + a](p[a][g] + q[g][a]) for a in range(self.m)], 1) for g in range(self.k)
        ]
        return torch.stack(heads, 1)


def plain_tower(towers: Towers, a: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for weight, bias in zip(towers.weights, towers.biases, strict=True):
        layers += [linear(weight[a], bias[a]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
