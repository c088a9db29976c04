"""Where a trained model's gates look: the mean weight of every expert, per gate and user group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from components.models.fields import encode
from components.models.fitted import CHUNK_ROWS, Fitted, group_codes
from components.models.mfh import BEHAVIOURS, LETTERS, FacetForest, FacetTree
from components.models.switchers import CGC, PLE, Gate, MMoE, Switcher


@dataclass(frozen=True)
class GateWeight:
    """Mean weight that one branch's gate gives one expert, over the rows of one user group.

    Attributes:
        block: The switcher, named as ``mfh model describe`` names it: ``A``, ``A/0/G``; ``merge`` for the gate over
            trees.
        tree: Number of the tree from 0; None for a gate that is in none.
        level: Level of the block in its tree, from 1; the gate over trees is one level above the deepest.
        layer: Layer of gates inside the switcher, from 1; PLE has two.
        branch: The branch that the gate mixes for: a task, a group, ``task/group``, or ``shared``.
        task: The task whose prediction the gate serves; None where it serves those of every task.
        group: Name of the rows' user group.
        expert: What is mixed: ``own i``, ``shared j``, ``<branch> i`` (an expert of that branch, seen by a shared
            gate), ``expert i`` (MMoE), ``tree i``.
        kind: ``softmax``: weights of a gate sum to 1; ``sigmoid``: to at most 1.
        weight: The mean.
        rows: Rows of the group.
    """

    block: str
    tree: int | None
    level: int
    layer: int
    branch: str
    task: str | None
    group: str
    expert: str
    kind: Literal["softmax", "sigmoid"]
    weight: float
    rows: int


def gate_weights(fitted: Fitted, table: pa.Table) -> tuple[GateWeight, ...]:
    """Run a model over a table and average what its gates say.

    Shared bottoms, cross-stitch units and single-task models have no gate, and the mixtures of MTNAS are no modules of
    their own to listen to: such a model gives nothing.

    Args:
        fitted: The model.
        table: N rows with the spec's columns and ``group`` (0 to k - 1).

    Returns:
        One record per group that has rows, gate that its rows meet, branch and expert, in that order.

    Raises:
        SourceError: When a column is missing.
        TrainingError: When a row's group is null or not one of the k.
    """
    codes = group_codes(table, len(fitted.group_names))
    encoded = encode(table, fitted.spec, fitted.vocab)
    arrays = [torch.from_numpy(one).to(fitted.device) for one in (encoded.index, encoded.numeric, encoded.history)]
    model, found = fitted.model.eval(), []
    for code, group in enumerate(fitted.group_names):
        rows = torch.from_numpy(np.flatnonzero(codes == code)).to(fitted.device)
        places = _places(model.network, [task.name for task in fitted.tasks], fitted.group_names, code)
        if not len(rows) or not places:
            continue
        with _listening(model.network, places) as sums, torch.no_grad():
            for part in torch.split(rows, CHUNK_ROWS):
                cell = torch.full_like(part, code)
                x = model.encoder(*(array[part] for array in arrays))
                model.graph.heads(x, cell, code if model.graph.routes else 0)
        for gate, at in places.items():
            means = (sums[gate] / len(rows)).flatten(0, 1).tolist()
            for place, weights in zip(at, means, strict=True):
                found += [
                    GateWeight(
                        place.block,
                        place.tree,
                        place.level,
                        place.layer,
                        place.branch,
                        place.task,
                        group,
                        expert,
                        gate.kind,
                        weight,
                        len(rows),
                    )
                    for expert, weight in zip(place.experts, weights, strict=True)
                ]
    return tuple(found)


@dataclass(frozen=True)
class _Place:
    """What one row of a gate's weights is about: see :class:`GateWeight`."""

    block: str
    tree: int | None
    level: int
    layer: int
    branch: str
    task: str | None
    experts: tuple[str, ...]


@contextmanager
def _listening(network: nn.Module, places: dict[Gate, list[_Place]]) -> Iterator[dict[Gate, Tensor]]:
    """Sums over rows of what the gates say inside the block, float64 [P, Q, n]."""
    sums: dict[Gate, Tensor] = {}

    def hear(gate: nn.Module, _: object, weights: Tensor) -> None:
        total = weights.double().sum(1)
        heard = cast(Gate, gate)
        sums[heard] = sums[heard] + total if heard in sums else total

    def hear_shared(switcher: nn.Module, arguments: tuple[Tensor, int]) -> None:
        # PLE calls its shared gate past the hooks; the gate reads what the switcher reads.
        gate = cast(PLE, switcher).shared_gate
        hear(gate, None, gate.forward(arguments[0]))

    shared = {module.shared_gate: module for module in network.modules() if isinstance(module, PLE)}
    handles = [gate.register_forward_hook(hear) for gate in places if gate not in shared]
    handles += [shared[gate].register_forward_pre_hook(hear_shared) for gate in places if gate in shared]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def _places(network: nn.Module, tasks: Sequence[str], groups: Sequence[str], code: int) -> dict[Gate, list[_Place]]:
    """The gates that rows of one group meet, each with a place per instance and branch, in the order of its weights."""
    found: dict[Gate, list[_Place]] = {}
    if not isinstance(network, FacetForest):
        return found
    for number, tree in enumerate(network.trees):
        found |= _tree_places(cast(FacetTree, tree), number, tasks, groups, code)
    if len(network.merger.gates):
        gate = cast(Gate, network.merger.gates[code if network.routes else 0])
        trees = tuple(f"tree {one + 1}" for one in range(len(network.trees)))
        level = 1 + max(len(cast(FacetTree, tree).tree) for tree in network.trees)
        found[gate] = [_Place("merge", None, level, 1, task, task, trees) for task in tasks]
    return found


def _tree_places(
    tree: FacetTree, number: int, tasks: Sequence[str], groups: Sequence[str], code: int
) -> dict[Gate, list[_Place]]:
    """The gates of one tree, from the root down the path of one group's rows."""
    found: dict[Gate, list[_Place]] = {}
    # Of every instance of the level: the path of its block, and its task where behaviours branched above.
    above: list[tuple[str, str | None]] = [("", None)]
    bank_at = 0
    for level, (facets, banks) in enumerate(zip(tree.tree, tree.levels, strict=True), start=1):
        bank = cast(Switcher, cast(nn.ModuleList, banks)[bank_at])
        grouped = any(facet != BEHAVIOURS for facet in facets)
        letters = "".join(LETTERS[facet] for facet in facets)
        routes = groups if grouped else [""]
        branches = tasks if BEHAVIOURS in facets else [""]
        names = [
            "/".join(task if facet == BEHAVIOURS else group for facet in facets)
            for group in routes
            for task in branches
        ]
        route = code if grouped else 0
        mine = names[route * len(branches) : (route + 1) * len(branches)]
        for gate, layer, branch_names, experts in _gates(bank, route, mine, names):
            found[gate] = [
                _Place(f"{path}{letters}", number, level, layer, name, task or own or None, experts)
                for path, task in above
                for name, own in zip(branch_names, [None] if branch_names == ["shared"] else branches, strict=True)
            ]
        above = [
            (f"{path}{letters}/{'.'.join(str(at if facet == BEHAVIOURS else code) for facet in facets)}/", task or one)
            for path, task in above
            for at, one in enumerate(branches)
        ]
        bank_at = bank_at * len(routes) + route
    return found


def _gates(
    bank: Switcher, route: int, mine: list[str], names: list[str]
) -> Iterator[tuple[Gate, int, list[str], tuple[str, ...]]]:
    """Every gate of a switcher on one route: the gate, its layer, its branches, what each of them mixes."""
    settings = bank.settings
    shared = tuple(f"shared {one + 1}" for one in range(settings.shared))
    mixed = (*(f"own {one + 1}" for one in range(settings.experts)), *shared)
    if isinstance(bank, MMoE):
        gate = cast(Gate, bank.gates[route])
        yield gate, 1, mine, tuple(f"expert {one + 1}" for one in range(gate.experts))
    elif isinstance(bank, CGC):
        yield cast(Gate, bank.gates[route]), 1, mine, mixed
    elif isinstance(bank, PLE):
        yield cast(Gate, bank.gates_1[route]), 1, mine, mixed
        every = (f"{name} {one + 1}" for name in names for one in range(settings.experts))
        yield bank.shared_gate, 1, ["shared"], (*every, *shared)
        yield cast(Gate, bank.gates_2[route]), 2, mine, mixed
