from itertools import product

import pytest
import torch

from components.models.settings import SwitcherSettings
from components.models.switchers import KINDS, Gate, Spread, own_and_shared, switcher

WIDTHS = {"ple": (5, 4), "shared_bottom": (5, 4), "mmoe": (5, 4), "cgc": (5, 4), "cross_stitch": (5, 4)}


def bank(kind, instances=2, routes=3, branches=2, **settings):
    torch.manual_seed(1)
    block = switcher(instances, 6, routes, branches, SwitcherSettings(kind, WIDTHS[kind], **settings))
    for p in block.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return block


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_equals_its_switchers_one_by_one(kind):
    block = bank(kind, instances=3)
    u = torch.randn(3, 17, 6)
    for route in range(3):
        together = block(u, route)
        assert together.shape == (3, 2, 17, 4)
        for p in range(3):
            one = bank(kind, instances=1)
            for mine, stack in zip(one.parameters(), block.parameters(), strict=True):
                size = len(stack) // 3
                mine.data = stack.data[p * size : (p + 1) * size].clone()
            torch.testing.assert_close(one(u[p : p + 1], route)[0], together[p])


@pytest.mark.parametrize("kind", KINDS)
def test_all_experts_and_gates_train_when_every_route_is_visited(kind):
    block = bank(kind)
    u = torch.randn(2, 64, 6)
    sum(block(u, route).square().sum() for route in range(3)).backward()
    for name, p in block.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_gates_give_no_weight_to_another_branchs_experts():
    block = bank("cgc", instances=1, routes=1, experts=1, shared=1)
    z = torch.randn(1, 9, 6)
    before = block(z, 0)
    block.own[0].weights[0].data[:, 1] += 1.0  # the expert of branch 1
    after = block(z, 0)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_a_gate_weighs_its_own_experts_then_the_shared_ones():
    assert own_and_shared(2, 2, 1) == [[0, 1, 4], [2, 3, 4]]
    # Branches 2 and 3 of four, shared experts at the end.
    assert own_and_shared(2, 1, 2, first=2, shared_from=4) == [[2, 4, 5], [3, 4, 5]]


def test_weights_are_spread_over_all_experts():
    spread = Spread([[0, 2], [1, 2]], 3)
    gates = torch.tensor([0.1, 0.9, 0.4, 0.6]).view(1, 1, 2, 2)
    assert spread(gates).tolist() == torch.tensor([[[[0.1, 0.0, 0.9], [0.0, 0.4, 0.6]]]]).tolist()


@pytest.mark.parametrize(("kind", "branches", "experts"), product(("softmax", "sigmoid"), (1, 3), (2, 5)))
def test_gates_are_a_softmax_or_a_scaled_sigmoid(kind, branches, experts):
    torch.manual_seed(0)
    gate, u = Gate(2, 6, branches, experts, kind), torch.randn(2, 4, 6)
    gate.bias.data.normal_()
    logits = (torch.einsum("pbi,pio->pbo", u, gate.weight) + gate.bias.unsqueeze(1)).view(2, 4, branches, experts)
    wanted = logits.softmax(-1) if kind == "softmax" else logits.sigmoid() / experts
    torch.testing.assert_close(gate(u), wanted)


@pytest.mark.parametrize("experts", range(2, 13))
def test_a_gates_weights_do_not_depend_on_the_place_of_a_row(experts):
    torch.manual_seed(0)
    gate, u = Gate(1, 512, 1, experts, "softmax"), torch.randn(1, 1, 512)
    found = gate(u.expand(1, 1_024, 512))
    assert torch.equal(found, found[:, :1].expand_as(found))


def test_mmoe_has_one_gate_over_all_experts_of_every_branch():
    block = bank("mmoe", instances=1, routes=1, branches=3, experts=2, shared=1)
    assert block.experts.count == 7
    u = torch.randn(1, 5, 6)
    hidden = block.experts(u)[0]
    weights = block.gates[0](u)[0]
    wanted = torch.einsum("bqe,bed->qbd", weights, hidden)
    torch.testing.assert_close(block(u, 0)[0], wanted)


def test_shared_bottom_gives_every_branch_the_same():
    block = bank("shared_bottom")
    found = block(torch.randn(2, 5, 6), 1)
    assert torch.equal(found[:, 0], found[:, 1])
