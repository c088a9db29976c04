import pytest
import torch

from components.models.switchers import CGC, PLE, CGCBank, SharedBottom, gate_layout
from tests.models.reference import PlainPLE, plain_layer


def randomised(block):
    for p in block.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return block


@pytest.mark.parametrize(("branches", "experts", "shared"), [(3, 2, 2), (1, 1, 1), (4, 3, 1)])
def test_stacked_blocks_equal_a_module_per_expert(branches, experts, shared):
    torch.manual_seed(1)
    z = torch.randn(17, 6)
    cgc = randomised(CGC(6, 5, branches, experts, shared))
    plain = torch.stack(plain_layer(cgc)([z] * (branches + 1)), 1)
    torch.testing.assert_close(cgc(z), plain)
    ple = randomised(PLE(6, (5, 4), branches, experts, shared))
    torch.testing.assert_close(ple(z), torch.stack(PlainPLE(ple)(z), 1))


@pytest.mark.parametrize(
    "block",
    [SharedBottom(6, 5, 3), CGC(6, 5, 3, 2, 2), CGC(6, 5, 3, 2, 2, shared_gate=True), PLE(6, (5, 4), 3, 2, 2)],
    ids=["shared bottom", "cgc", "cgc with shared gate", "ple"],
)
def test_one_branch_equals_that_branch_of_all(block):
    torch.manual_seed(2)
    z = torch.randn(17, 6)
    for p in block.parameters():
        p.data += 0.2 * torch.randn_like(p)
    full = block(z)
    for t in range(3):
        one = block.forward_branch(z, t)
        wanted = torch.stack([full[:, t], full[:, 3]], 1) if one.dim() == 3 else full[:, t]
        torch.testing.assert_close(one, wanted)


def test_a_bank_equals_its_blocks_one_by_one():
    torch.manual_seed(3)
    bank = randomised(CGCBank(4, 6, 5, 3, experts=2, shared=1))
    u = torch.randn(4, 17, 6)
    for t in range(3):
        out = bank.forward_branch(u, t)
        for i in range(4):
            block = CGC(6, 5, 3, 2, 1)
            block.weight.data, block.bias.data = bank.weight.data[:, i], bank.bias.data[:, i]
            block.gate_weight.data, block.gate_bias.data = bank.gate_weight.data[:, i], bank.gate_bias.data[:, i]
            torch.testing.assert_close(out[i], block(u[i])[:, t])


def test_gates_give_no_weight_to_another_branchs_experts():
    torch.manual_seed(4)
    block = CGC(6, 5, 2, 1, 1)
    z = torch.randn(9, 6)
    before = block(z)
    block.weight.data[1] += 1.0  # the expert of branch 1
    after = block(z)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])
    assert gate_layout(2, 2, 1).tolist() == [[0, 1, 3, 3, 2], [3, 3, 0, 1, 2]]


def test_gates_and_experts_all_train():
    torch.manual_seed(5)
    block = PLE(6, (5, 4), 3, 2, 2)
    (block(torch.randn(64, 6)) ** 2).sum().backward()
    for name, p in block.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name
