"""Switchers: modules with one input and one hidden output per branch (shared bottom, CGC, PLE).

Experts of a block are one stack of weights ``[E, in, out]`` and run as one matrix product; gates are laid out over all
experts of the block, with weight exactly 0 for another branch's experts, so that mixing is one batched product too.

Sources: Tang et al., *Progressive Layered Extraction*, RecSys 2020, eq. 1 to 7; Liu et al., *Multi-Faceted Hierarchical
Multi-Task Learning*, CIKM 2022, section 3.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def glorot(*shape: int) -> nn.Parameter:
    """A stack of weights ``[..., in, out]``, Glorot-uniform by each matrix's own fan in and fan out."""
    bound = math.sqrt(6.0 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def zeros(*shape: int) -> nn.Parameter:
    """A stack of biases."""
    return nn.Parameter(torch.zeros(*shape))


def dense(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layers that all read the same input: ``relu(z W_e + b_e)`` for every e in one product.

    Args:
        z: float32 [B, in].
        weight: float32 [E, in, out].
        bias: float32 [E, out].

    Returns:
        float32 [B, E, out].
    """
    count, inputs, width = weight.shape
    flat = weight.permute(1, 0, 2).reshape(inputs, count * width)
    return torch.relu(torch.addmm(bias.flatten(), z, flat)).view(-1, count, width)


def dense_each(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layers in n groups of E, each group with an input of its own.

    Args:
        z: float32 [n, B, in].
        weight: float32 [n, E, in, out].
        bias: float32 [n, E, out].

    Returns:
        float32 [n, B, E, out].
    """
    groups, count, inputs, width = weight.shape
    flat = weight.permute(0, 2, 1, 3).reshape(groups, inputs, count * width)
    hidden = torch.relu(torch.baddbmm(bias.reshape(groups, 1, -1), z, flat))
    return hidden.view(groups, -1, count, width)


def mix(weights: Tensor, hidden: Tensor) -> Tensor:
    """Gated sum of experts (eq. 4 of PLE), one output per batch row.

    Args:
        weights: float32 [..., E].
        hidden: float32 [..., E, d].

    Returns:
        float32 [..., d].
    """
    return (weights.unsqueeze(-1) * hidden).sum(-2)


class SharedBottom(nn.Module):
    """One dense layer that all branches read.

    Args:
        inputs: Width of the input.
        width: Width of the output.
        branches: T; the outputs are the same tensor, seen T times.
    """

    def __init__(self, inputs: int, width: int, branches: int = 1) -> None:
        super().__init__()
        self.branches = branches
        self.weight, self.bias = glorot(inputs, width), zeros(width)

    def forward_branch(self, z: Tensor, branch: int = 0) -> Tensor:
        """The one hidden output, whatever the branch: float32 [B, in] to [B, d]."""
        del branch
        return torch.relu(torch.addmm(self.bias, z, self.weight))

    def forward(self, z: Tensor) -> Tensor:
        """The hidden output for every branch: float32 [B, in] to [B, T, d], without copies."""
        return self.forward_branch(z).unsqueeze(1).expand(-1, self.branches, -1)


class CGC(nn.Module):
    """Customized gate control: experts of each branch and shared ones, mixed by a gate per branch.

    ``o_t = Σ_i w_t,i E_t,i(z) + Σ_j w_t,(n_t+j) E_s,j(z)`` with ``w_t = softmax(z W_t + c_t)``.

    Args:
        inputs: Width of z.
        width: d, width of every expert.
        branches: T.
        experts: n_t, experts of each branch.
        shared: n_s, shared experts.
        shared_gate: Also mix *all* experts into a shared output o_s, as in the first layer of PLE.
    """

    def __init__(
        self, inputs: int, width: int, branches: int, experts: int, shared: int, *, shared_gate: bool = False
    ) -> None:
        super().__init__()
        self.branches, self.experts, self.shared, self.shared_gate = branches, experts, shared, shared_gate
        total = branches * experts + shared
        # Experts of branch 0, of branch 1, ..., then the shared ones.
        self.weight, self.bias = glorot(total, inputs, width), zeros(total, width)
        self.gate_weight, self.gate_bias = glorot(branches, inputs, experts + shared), zeros(branches, experts + shared)
        if shared_gate:
            self.shared_gate_weight, self.shared_gate_bias = glorot(inputs, total), zeros(total)
        self.register_buffer("layout", gate_layout(branches, experts, shared), persistent=False)
        self.layout: Tensor

    def forward(self, z: Tensor) -> Tensor:
        """Hidden outputs of all branches.

        Args:
            z: float32 [B, in].

        Returns:
            float32 [B, T, d]; with a shared gate [B, T + 1, d], o_s last.
        """
        weight, bias = full_gates(self.gate_weight, self.gate_bias, self.layout)
        return self._mixed(z, weight, bias)

    def forward_branch(self, z: Tensor, branch: int) -> Tensor:
        """Hidden output of one branch, without the work that only others need.

        Args:
            z: float32 [B, in].
            branch: t.

        Returns:
            float32 [B, d]; with a shared gate [B, 2, d], o_s last (all experts run, since the shared gate reads them).
        """
        if self.shared_gate:
            own = slice(branch, branch + 1)
            weight, bias = full_gates(self.gate_weight[own], self.gate_bias[own], self.layout[own])
            return self._mixed(z, weight, bias)
        weight, bias = branch_experts(self.weight, self.bias, branch, self.branches, self.experts)
        gate = torch.softmax(torch.addmm(self.gate_bias[branch], z, self.gate_weight[branch]), dim=-1)
        return mix(gate, dense(z, weight, bias))

    def _mixed(self, z: Tensor, gate_weight: Tensor, gate_bias: Tensor) -> Tensor:
        """Mix all experts by gates laid out over all experts: weight [G, in, E], bias [G, E], to [B, G (+ 1), d]."""
        if self.shared_gate:
            gate_weight = torch.cat([gate_weight, self.shared_gate_weight.unsqueeze(0)])
            gate_bias = torch.cat([gate_bias, self.shared_gate_bias.unsqueeze(0)])
        gates, inputs, total = gate_weight.shape
        flat = gate_weight.permute(1, 0, 2).reshape(inputs, gates * total)
        logits = torch.addmm(gate_bias.flatten(), z, flat).view(-1, gates, total)
        return torch.bmm(torch.softmax(logits, dim=-1), dense(z, self.weight, self.bias))


class BranchCGC(nn.Module):
    """Second layer of PLE: experts and gate of branch t read o_t, shared experts read o_s; no shared gate.

    Args:
        inputs: Width of the o_t and of o_s.
        width: d, width of every expert.
        branches: T.
        experts: n_t, experts of each branch.
        shared: n_s, shared experts.
    """

    def __init__(self, inputs: int, width: int, branches: int, experts: int, shared: int) -> None:
        super().__init__()
        self.branches, self.experts, self.shared = branches, experts, shared
        total = branches * experts + shared
        self.weight, self.bias = glorot(total, inputs, width), zeros(total, width)
        self.gate_weight, self.gate_bias = glorot(branches, inputs, experts + shared), zeros(branches, experts + shared)
        self.register_buffer("layout", gate_layout(branches, experts, shared), persistent=False)
        self.layout: Tensor

    def forward(self, o: Tensor) -> Tensor:
        """Hidden outputs of all branches.

        Args:
            o: float32 [B, T + 1, in], o_s last.

        Returns:
            float32 [B, T, d].
        """
        own, width = self.branches * self.experts, self.weight.shape[-1]
        branch = o[:, :-1].transpose(0, 1)
        weight, bias = full_gates(self.gate_weight, self.gate_bias, self.layout)
        gates = torch.softmax(torch.baddbmm(bias.unsqueeze(1), branch, weight), dim=-1)
        hidden = dense_each(
            branch,
            self.weight[:own].view(self.branches, self.experts, -1, width),
            self.bias[:own].view(self.branches, self.experts, width),
        )
        shared = dense(o[:, -1], self.weight[own:], self.bias[own:])
        experts = torch.cat([hidden.permute(1, 0, 2, 3).reshape(-1, own, width), shared], dim=1)
        return torch.bmm(gates.transpose(0, 1), experts)

    def forward_branch(self, o: Tensor, branch: int) -> Tensor:
        """Hidden output of one branch.

        Args:
            o: float32 [B, 2, in]: o_t of the branch, then o_s.
            branch: t.

        Returns:
            float32 [B, d].
        """
        own, first = self.branches * self.experts, branch * self.experts
        mine = slice(first, first + self.experts)
        hidden = torch.cat(
            [
                dense(o[:, 0], self.weight[mine], self.bias[mine]),
                dense(o[:, 1], self.weight[own:], self.bias[own:]),
            ],
            dim=1,
        )
        gate = torch.softmax(torch.addmm(self.gate_bias[branch], o[:, 0], self.gate_weight[branch]), dim=-1)
        return mix(gate, hidden)


class PLE(nn.Module):
    """Progressive layered extraction of two CGC layers.

    Args:
        inputs: Width of z.
        widths: Expert widths of the first and of the second layer.
        branches: T.
        experts: n_t, experts of each branch in each layer.
        shared: n_s, shared experts in each layer.
    """

    def __init__(self, inputs: int, widths: tuple[int, int], branches: int, experts: int, shared: int) -> None:
        super().__init__()
        self.first = CGC(inputs, widths[0], branches, experts, shared, shared_gate=True)
        self.second = BranchCGC(widths[0], widths[1], branches, experts, shared)

    def forward(self, z: Tensor) -> Tensor:
        """Hidden outputs of all branches: float32 [B, in] to [B, T, d]."""
        return self.second.forward(self.first.forward(z))

    def forward_branch(self, z: Tensor, branch: int) -> Tensor:
        """Hidden output of one branch: float32 [B, in] to [B, d]; the first layer's experts all run (they feed o_s)."""
        return self.second.forward_branch(self.first.forward_branch(z, branch), branch)


class CGCBank(nn.Module):
    """n CGC blocks of the same sizes, block i reading an input of its own, evaluated for one branch.

    This is level 2 of a behaviour-first tree: one block per behaviour, the branch is the rows' group.

    Args:
        blocks: n.
        inputs: Width of every input.
        width: d, width of every expert.
        branches: T of each block.
        experts: n_t, experts of each branch.
        shared: n_s, shared experts of each block.
    """

    def __init__(self, blocks: int, inputs: int, width: int, branches: int, *, experts: int, shared: int) -> None:
        super().__init__()
        self.branches, self.experts = branches, experts
        total = branches * experts + shared
        # [branch, ...] leads, so that one branch of all blocks is one contiguous piece.
        self.weight, self.bias = glorot(total, blocks, inputs, width), zeros(total, blocks, width)
        gates = experts + shared
        self.gate_weight, self.gate_bias = glorot(branches, blocks, inputs, gates), zeros(branches, blocks, gates)

    def forward_branch(self, u: Tensor, branch: int) -> Tensor:
        """Hidden outputs of one branch of every block.

        Args:
            u: float32 [n, B, in].
            branch: t.

        Returns:
            float32 [n, B, d].
        """
        weight, bias = branch_experts(self.weight, self.bias, branch, self.branches, self.experts)
        hidden = dense_each(u, weight.transpose(0, 1), bias.transpose(0, 1))
        gate = torch.baddbmm(self.gate_bias[branch].unsqueeze(1), u, self.gate_weight[branch])
        return mix(torch.softmax(gate, dim=-1), hidden)


def branch_experts(weight: Tensor, bias: Tensor, branch: int, branches: int, experts: int) -> tuple[Tensor, Tensor]:
    """The experts that a branch's gate mixes: its own, then the shared ones, along the first axis of both stacks."""
    own = slice(branch * experts, (branch + 1) * experts)
    shared = slice(branches * experts, None)
    return torch.cat([weight[own], weight[shared]]), torch.cat([bias[own], bias[shared]])


def gate_layout(branches: int, experts: int, shared: int) -> Tensor:
    """Where each gate's weights lie over all experts of a block.

    Args:
        branches: T.
        experts: n_t.
        shared: n_s.

    Returns:
        int64 [T, E]: the place within the gate (0 to n_t + n_s - 1), or n_t + n_s for experts it does not mix.
    """
    layout = torch.full((branches, branches * experts + shared), experts + shared)
    own = torch.arange(branches * experts).view(branches, experts)
    layout.scatter_(1, own, torch.arange(experts).expand(branches, -1))
    layout[:, branches * experts :] = torch.arange(experts, experts + shared)
    return layout


def full_gates(weight: Tensor, bias: Tensor, layout: Tensor) -> tuple[Tensor, Tensor]:
    """Gates laid out over all experts: experts that a gate does not mix get the logit minus infinity.

    Args:
        weight: float32 [T, in, n_t + n_s].
        bias: float32 [T, n_t + n_s].
        layout: int64 [T, E], see :func:`gate_layout`.

    Returns:
        Weight [T, in, E] and bias [T, E].
    """
    wide = functional.pad(weight, (0, 1))
    place = layout.unsqueeze(1).expand(-1, weight.shape[1], -1)
    return wide.gather(2, place), functional.pad(bias, (0, 1), value=-math.inf).gather(1, layout)
