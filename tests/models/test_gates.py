"""Mean gate weights: against a second computation by hand, and what every kind of the zoo gives."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.errors import TrainingError
from components.models.fields import encode
from components.models.fitted import Fitted
from components.models.gates import GateWeight, gate_weights
from components.models.settings import ModelKind, ModelRecipe, SwitcherSettings
from components.models.switchers import dense
from components.models.trainer import fit
from tests.models import planted

TASKS = tuple(task.name for task in planted.TASKS)
ONCE = replace(planted.TRAIN, epochs=1)


def trained(recipe: ModelRecipe) -> Fitted:
    return fit(recipe, ONCE, planted.TASKS, planted.GROUPS, planted.SPEC, planted.window(600))


def of_kind(kind: ModelKind) -> Fitted:
    return trained(replace(planted.RECIPE, kind=kind))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return planted.window(300, seed=5)


@pytest.fixture(scope="module")
def mfh(one_thread: None) -> Fitted:
    return of_kind("mfh")


def by_gate(found: tuple[GateWeight, ...]) -> dict[tuple[object, ...], dict[str, float]]:
    gates: dict[tuple[object, ...], dict[str, float]] = defaultdict(dict)
    for one in found:
        experts = gates[one.block, one.layer, one.branch, one.task, one.group]
        assert one.expert not in experts
        experts[one.expert] = one.weight
    return gates


def inputs(fitted: Fitted, table: pa.Table, code: int) -> torch.Tensor:
    """What level 0 gives for the rows of one group, float32 [B, d]."""
    rows = table.filter(pa.compute.equal(table["group"], code))
    encoded = encode(rows, fitted.spec, fitted.vocab)
    x = fitted.model.encoder(*(torch.from_numpy(a) for a in (encoded.index, encoded.numeric, encoded.history)))
    network = fitted.model.network
    if network.group is not None:
        x = torch.cat([x, network.group[code].expand(len(x), -1)], dim=1)
    return dense(x.unsqueeze(0), *network.level0)[0]


def weights_by_hand(gate: torch.nn.Module, u: torch.Tensor, instance: int = 0) -> np.ndarray:
    """Mean over rows of a softmax gate, [Q, n]: one branch at a time, from its own columns of the weights."""
    found = []
    for branch in range(gate.branches):
        own = slice(branch * gate.experts, (branch + 1) * gate.experts)
        logits = u @ gate.weight[instance][:, own] + gate.bias[instance][own]
        powers = torch.exp(logits - logits.max(1, keepdim=True).values)
        found.append((powers / powers.sum(1, keepdim=True)).mean(0))
    return torch.stack(found).detach().numpy()


def test_first_gates_of_both_trees_equal_a_computation_by_hand(mfh: Fitted, table: pa.Table) -> None:
    found = by_gate(gate_weights(mfh, table))
    by_behaviour, by_group = (tree.levels[0][0] for tree in mfh.model.network.trees)
    for code, group in enumerate(planted.GROUPS):
        z = inputs(mfh, table, code)
        expected = weights_by_hand(by_behaviour.gates_1[0], z)
        for at, task in enumerate(TASKS):
            experts = found["A", 1, task, task, group]
            assert list(experts) == ["own 1", "own 2", "shared 1", "shared 2"]
            assert list(experts.values()) == pytest.approx(expected[at].tolist(), abs=1e-6)
        (expected_group,) = weights_by_hand(by_group.gates_1[code], z)
        assert list(found["G", 1, group, None, group].values()) == pytest.approx(expected_group.tolist(), abs=1e-6)
        (shared,) = weights_by_hand(by_behaviour.shared_gate, z)
        assert list(found["A", 1, "shared", None, group].values()) == pytest.approx(shared.tolist(), abs=1e-6)


def test_a_shared_gate_names_whose_experts_it_mixes(mfh: Fitted, table: pa.Table) -> None:
    found = by_gate(gate_weights(mfh, table))
    own = [f"{task} {one}" for task in TASKS for one in (1, 2)]
    assert list(found["A", 1, "shared", None, "new"]) == [*own, "shared 1", "shared 2"]
    assert list(found["G", 1, "shared", None, "low"])[:3] == ["new 1", "new 2", "low 1"]


def test_deeper_gates_read_their_own_branch(mfh: Fitted, table: pa.Table) -> None:
    """The leaves of task 1 for group 2 in both trees, computed from the level above."""
    found = by_gate(gate_weights(mfh, table))
    trees = mfh.model.network.trees
    z = inputs(mfh, table, 2).unsqueeze(0)
    u = trees[0].levels[0][0](z, 0)[0, 1]
    (expected,) = weights_by_hand(trees[0].levels[1][0].gates[2], u, instance=1)
    assert list(found["A/1/G", 1, "high", TASKS[1], "high"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
    v = trees[1].levels[0][0](z, 2)[0, 0]
    leaves = weights_by_hand(trees[1].levels[1][2].gates[0], v)
    assert list(found["G/2/A", 1, TASKS[1], TASKS[1], "high"].values()) == pytest.approx(leaves[1].tolist(), abs=1e-6)


def test_a_group_meets_only_its_own_branches(mfh: Fitted, table: pa.Table) -> None:
    found = gate_weights(mfh, table)
    assert {one.block for one in found if one.group == "low"} == {"A", "A/0/G", "A/1/G", "A/2/G", "G", "G/1/A"}
    assert {one.branch for one in found if one.group == "low" and one.block == "G"} == {"low", "shared"}
    assert {(one.tree, one.level) for one in found} == {(0, 1), (0, 2), (1, 1), (1, 2)}
    assert {one.layer for one in found if one.level == 1} == {1, 2}


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("mfh_equal", {"A", "A/0/G", "G", "G/0/A"}),
        ("hmtl_behaviour", {"A", "A/0/G"}),
        ("hmtl_group", {"G", "G/0/A"}),
        ("flat", {"AG"}),
        ("ple", {"A"}),
        ("biasnet", {"A"}),
        ("cgc", {"A"}),
        ("mmoe", {"A"}),
    ],
)
def test_weights_of_every_softmax_gate_sum_to_one(kind: ModelKind, blocks: set[str], table: pa.Table) -> None:
    level1 = planted.RECIPE.level1 if kind != "cgc" else SwitcherSettings("cgc", (16,))
    found = gate_weights(trained(replace(planted.RECIPE, kind=kind, level1=level1)), table)
    rows = np.bincount(table["group"].to_numpy())
    assert blocks <= {one.block for one in found}
    assert {(one.group, one.rows) for one in found} == set(zip(planted.GROUPS, rows.tolist(), strict=True))
    assert {one.task for one in found} >= set(TASKS)
    for gate, experts in by_gate(found).items():
        assert sum(experts.values()) == pytest.approx(1.0, abs=1e-6), gate
        assert min(experts.values()) > 0, gate


def test_branches_of_the_grid_are_named_by_task_and_group(table: pa.Table) -> None:
    found = by_gate(gate_weights(of_kind("flat"), table))
    assert "own 2" in found["AG", 2, "like/high", "like", "high"]
    assert list(found["AG", 1, "shared", None, "new"])[6:8] == ["completion/low 1", "completion/low 2"]


def test_groups_differ_where_the_group_is_an_input(table: pa.Table) -> None:
    found = by_gate(gate_weights(of_kind("mmoe"), table))
    assert list(found["A", 1, "like", "like", "new"]) == [f"expert {one + 1}" for one in range(3 * 2 + 2)]
    assert found["A", 1, "like", "like", "new"] != found["A", 1, "like", "like", "low"]


def test_sigmoid_gates_are_scaled_by_their_experts(table: pa.Table) -> None:
    level1 = replace(planted.RECIPE.level1, gate="sigmoid")
    found = gate_weights(trained(replace(planted.RECIPE, kind="ple", level1=level1)), table)
    assert {one.kind for one in found} == {"sigmoid"}
    for gate, experts in by_gate(found).items():
        assert max(experts.values()) < 1 / len(experts), gate


def test_the_gate_over_trees_is_heard(table: pa.Table) -> None:
    found = by_gate(gate_weights(trained(replace(planted.RECIPE, merge="gate")), table))
    for group in planted.GROUPS:
        assert list(found["merge", 1, "like", "like", group]) == ["tree 1", "tree 2"]
        assert sum(found["merge", 1, "like", "like", group].values()) == pytest.approx(1.0, abs=1e-6)


def test_trees_without_gates_may_have_one_between_them(table: pa.Table) -> None:
    bottom = SwitcherSettings("shared_bottom", (16,))
    found = gate_weights(trained(replace(planted.RECIPE, merge="gate", level1=bottom, deeper=bottom)), table)
    assert {(one.block, one.tree, one.level) for one in found} == {("merge", None, 3)}


@pytest.mark.parametrize("kind", ["single", "shared_bottom", "cross_stitch"])
def test_a_model_without_gates_gives_nothing(kind: ModelKind, table: pa.Table) -> None:
    assert gate_weights(of_kind(kind), table) == ()


def test_a_group_without_rows_has_no_record(mfh: Fitted, table: pa.Table) -> None:
    old = table.filter(pa.compute.greater(table["group"], 0))
    assert {one.group for one in gate_weights(mfh, old)} == {"low", "high"}


def test_the_order_of_rows_and_earlier_calls_change_nothing(mfh: Fitted, table: pa.Table) -> None:
    before = mfh.predict(table)
    found = gate_weights(mfh, table)
    again = gate_weights(mfh, table.take(pa.array(np.arange(300)[::-1])))
    assert [replace(one, weight=0) for one in found] == [replace(one, weight=0) for one in again]
    assert [one.weight for one in found] == pytest.approx([one.weight for one in again], abs=1e-9)
    assert gate_weights(mfh, table) == found
    assert np.array_equal(mfh.predict(table), before), "nothing listens any more"


def test_a_group_that_is_none_is_refused(mfh: Fitted, table: pa.Table) -> None:
    wrong = table.set_column(table.column_names.index("group"), "group", pa.array([3] * 300, pa.int8()))
    with pytest.raises(TrainingError, match="outside 0 to 2"):
        gate_weights(mfh, wrong)
