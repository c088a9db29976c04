import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from components.errors import ConfigError
from components.models.mtnas import Choice, Route, RoutedNetwork
from components.models.settings import ModelRecipe, SearchSettings, SwitcherSettings
from components.models.switchers import LEAK
from components.models.zoo import build, nodes

INPUTS, GROUPS, BEHAVIOURS = 9, 3, 3
# Every kind of query, single sources, a block that two readers share.
ROUTE = Route(
    (
        (Choice((0,)),) * 3,
        (Choice((0, 2), "mean"), Choice((1,)), Choice((0, 1, 2), "constant")),
    ),
    (Choice((0, 1), "input"), Choice((2,)), Choice((1, 2), "mean")),
)


def recipe_of(route=None, *, blocks=3, widths=(8, 6), layers=2, **changes):
    search = SearchSettings(layers=layers, blocks=blocks, route="" if route is None else route.text())
    level1 = SwitcherSettings("mmoe", widths, experts=1, shared=1)
    sizes = {"level0_width": 12, "tower_widths": (7, 5), **changes}
    return ModelRecipe(kind="mtnas", level1=level1, search=search, **sizes)


def network_of(recipe):
    """A network whose biases are not 0, which would hide mistakes."""
    torch.manual_seed(0)
    network = build(recipe, INPUTS, BEHAVIOURS, (GROUPS,))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def rows(count=40):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, INPUTS, generator=generator)
    return x, torch.randint(0, GROUPS, (count,), generator=generator)


def copy_ends(network, forest):
    """Give a routed network what it has in common with a forest: the group, level 0, the towers."""
    own, other = network.state_dict(), forest.state_dict()
    state = {name: other[name.replace("towers.", "towers.0.")] for name in own if name.startswith("towers")}
    state |= {name: other[name] for name in own if name.startswith(("group", "level0"))}
    assert len(state) >= 7
    network.load_state_dict(state, strict=False)


def copy_experts(network, layers):
    """Give a routed network the experts of a switcher: the first dense layers, then the deeper ones."""
    with torch.no_grad():
        network.first.weight.copy_(layers.weight)
        network.first.bias.copy_(layers.bias)
        for blocks, weight, bias in zip(network.blocks, layers.weights, layers.biases, strict=True):
            blocks.weight.copy_(weight[0])
            blocks.bias.copy_(bias[0, :, 0])


@pytest.mark.parametrize("level0", [12, 0])
@pytest.mark.parametrize("widths", [(8,), (8, 6)])
def test_shared_bottom_is_a_point_of_the_space(widths, level0):
    one = Choice((0,))
    recipe = recipe_of(
        Route(((one,),) * len(widths), (one,) * BEHAVIOURS), widths=widths, layers=len(widths), level0_width=level0
    )
    forest, network = network_of(replace(recipe, kind="shared_bottom")), network_of(recipe)
    copy_ends(network, forest)
    copy_experts(network, forest.trees[0].levels[0][0].layers)
    torch.testing.assert_close(network(*rows()), forest(*rows()), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in forest.parameters())


@pytest.mark.parametrize("level0", [12, 0])
@pytest.mark.parametrize("widths", [(8,), (8, 6)])
def test_mmoe_is_a_point_of_the_space(widths, level0):
    experts = BEHAVIOURS * 1 + 1
    # Experts of several layers are chains of blocks.
    chains = tuple(tuple(Choice((at,)) for at in range(experts)) for _ in widths[1:])
    towers = (Choice(tuple(range(experts)), "input"),) * BEHAVIOURS
    route = Route(((Choice((0,)),) * experts, *chains), towers)
    recipe = recipe_of(route, blocks=experts, widths=widths, layers=len(widths), level0_width=level0)
    forest, network = network_of(replace(recipe, kind="mmoe")), network_of(recipe)
    copy_ends(network, forest)
    mmoe = forest.trees[0].levels[0][0]
    copy_experts(network, mmoe.experts)
    with torch.no_grad():
        network.mixtures[-1].logits["input"].weight.copy_(mmoe.gates[0].weight[0])
        network.mixtures[-1].logits["input"].bias.copy_(mmoe.gates[0].bias[0])
    torch.testing.assert_close(network(*rows()), forest(*rows()), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in forest.parameters())


def act(hidden):
    return functional.leaky_relu(hidden, LEAK)


def plain(network, x, cell):
    """The network reader by reader, block by block: float32 [B, m]."""
    z = torch.cat([x, network.group[cell]], dim=1)
    if network.level0 is not None:
        z = act(z @ network.level0[0][0] + network.level0[1][0])
    count = network.first.count
    weights, biases = network.first.weight[0].chunk(count, dim=1), network.first.bias[0].chunk(count)
    below = [act(z @ weight + bias) for weight, bias in zip(weights, biases, strict=True)]
    for level, mixture in enumerate(network.mixtures):
        taken = dict.fromkeys(mixture.logits, 0)
        mixed = []
        for choice in mixture.choices:
            chosen = [below[source] for source in choice.sources]
            if choice.query is None:
                mixed.append(chosen[0])
                continue
            logits, start = mixture.logits[choice.query], taken[choice.query]
            columns = slice(start, start + len(chosen))
            taken[choice.query] = columns.stop
            found = logits.bias[columns].expand(len(x), -1)
            if choice.query != "constant":
                query = z if choice.query == "input" else torch.stack(chosen).mean(0)
                found = found + query @ logits.weight[:, columns]
            gate = torch.softmax(found, dim=1)
            mixed.append(sum(gate[:, [at]] * one for at, one in enumerate(chosen)))
        if level < len(network.blocks):
            blocks = network.blocks[level]
            below = [act(one @ blocks.weight[at] + blocks.bias[at]) for at, one in enumerate(mixed)]
    outputs = []
    for at, one in enumerate(mixed):
        hidden = one
        for number, (weight, bias) in enumerate(zip(network.towers.weights, network.towers.biases, strict=True)):
            hidden = (act(hidden) if number else hidden) @ weight[at] + bias[at]
        outputs.append(hidden[:, 0])
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("level0", [12, 0])
@pytest.mark.parametrize("route", [ROUTE, None], ids=["mixed", "dense"])
def test_stacked_blocks_equal_blocks_one_by_one(route, level0):
    network = network_of(recipe_of(route, level0_width=level0))
    torch.testing.assert_close(network(*rows()), plain(network, *rows()), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_of_a_route():
    network = network_of(recipe_of(ROUTE))
    (network(*rows(200)) ** 2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # Logits of a softmax have no say together, so that a reader's gradients cancel, some of them to 0.
        assert (parameter.grad != 0).float().mean() > 0.5, name


def test_every_number_is_printed_once_and_nothing_idle_is_built():
    for route in (ROUTE, None, Route.parse('{"layers":[["0"],["0"]],"towers":["0","0","0"]}')):
        network = network_of(recipe_of(route))
        printed = nodes(network)
        assert sum(node.parameters for node in printed) == sum(p.numel() for p in network.parameters())
        assert len({node.name for node in printed}) == len(printed)
    assert sum(node.kind == "block" for node in printed) == 2
    gates = {node.name: (node.kind, node.inputs, node.parameters) for node in nodes(network_of(recipe_of(ROUTE)))}
    assert gates["layer2/0/0+2@mean"] == ("gate", 8, 18)
    assert gates["layer2/1/1"] == ("copy", 0, 0)
    assert gates["layer2/2/0+1+2@constant"] == ("gate", 0, 3)
    assert gates["tower/0/0+1@input"] == ("gate", 12, 26)


def test_without_a_route_everything_reads_everything():
    printed = [node.name for node in nodes(network_of(recipe_of(blocks=2)))]
    assert printed == [
        *("group", "level0", "layer1/0", "layer1/1"),
        *("layer2/0/0+1@input", "layer2/1/0+1@input", "layer2/0", "layer2/1"),
        *("tower/0/0+1@input", "tower/1/0+1@input", "tower/2/0+1@input", "tower/0", "tower/1", "tower/2"),
    ]


def test_a_row_has_the_same_bits_in_any_place():
    # 9 logits of either kind: a number of columns whose plain product rounds by the place of a row.
    every = tuple(range(3))
    route = Route(((Choice((0,)),) * 3, (Choice(every, "mean"),) * 3), (Choice(every, "input"),) * 3)
    network = network_of(recipe_of(route, widths=(16, 16), level0_width=32, tower_widths=(16,)))
    x, cell = rows(512)
    order = torch.from_numpy(np.random.default_rng(0).permutation(512))
    assert torch.equal(network(x, cell)[order], network(x[order], cell[order]))


def test_the_group_is_an_input():
    x, cell = rows()
    network = network_of(recipe_of(ROUTE))
    assert (network(x, cell) != network(x, (cell + 1) % GROUPS)).any(1).all()


def test_routes_are_text_and_back():
    text = ROUTE.text()
    assert text == (
        '{"layers":[["0","0","0"],["0+2@mean","1","0+1+2@constant"]],"towers":["0+1@input","2","1+2@mean"]}'
    )
    assert Route.parse(text) == ROUTE
    dense = Route.dense(3, 2, 4)
    assert Route.parse(json.dumps(json.loads(dense.text()), indent=1)) == dense


def test_pruning_leaves_out_what_nothing_reads():
    first = [Choice((0,))] * 3
    second = [Choice((0, 1), "input"), Choice((2,)), Choice((0, 2), "mean")]
    found = Route.pruned([first, second], [Choice((1, 2), "constant"), Choice((2,))])
    assert found.text() == '{"layers":[["0","0"],["1","0+1@mean"]],"towers":["0+1@constant","1"]}'
    assert Route.pruned(ROUTE.layers, ROUTE.towers) == ROUTE


def test_layers_beyond_the_last_width_have_that_one():
    network = network_of(recipe_of(widths=(8,), layers=3, blocks=2))
    assert [tuple(blocks.weight.shape) for blocks in network.blocks] == [(2, 8, 8)] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "search.route is not JSON"),
        ("[]", "must be an object of 'layers' and 'towers'"),
        ('{"layers":[["0"]]}', "must be an object of 'layers' and 'towers'"),
        ('{"layers":[["0"]],"towers":["0"],"depth":1}', "must be an object of 'layers' and 'towers' and nothing else"),
        ('{"layers":{"0":1},"towers":["0"]}', "needs a list of choices per layer"),
        ('{"layers":["0"],"towers":["0"]}', "needs a list of choices per layer"),
        ('{"layers":[["0"]],"towers":"0"}', "needs a list of choices per layer"),
        ('{"layers":[],"towers":["0"]}', "at least one block in every layer"),
        ('{"layers":[[]],"towers":["0"]}', "at least one block in every layer"),
        ('{"layers":[["0"]],"towers":[]}', "at least one tower"),
        ('{"layers":[["0"]],"towers":[0]}', "must be blocks joined by +.*found 0"),
        ('{"layers":[["0"]],"towers":["-1"]}', "must be blocks joined by +"),
        ('{"layers":[["0"]],"towers":["00"]}', "must be blocks joined by +"),
        ('{"layers":[["0"]],"towers":[""]}', "must be blocks joined by +"),
        ('{"layers":[["0","0"]],"towers":["0+1@output"]}', r"must be blocks joined by +.*found '0\+1@output'"),
        ('{"layers":[["0","0"]],"towers":["1+0@mean"]}', "once and in rising order"),
        ('{"layers":[["0","0"]],"towers":["0+0@mean"]}', "once and in rising order"),
        ('{"layers":[["0","0"]],"towers":["0+1"]}', "has a query where it has several blocks and only there"),
        ('{"layers":[["0"]],"towers":["0@mean"]}', "has a query where it has several blocks and only there"),
        ('{"layers":[["0"]],"towers":["0","1"]}', "choice '1' in the towers of the route reads one of 1 blocks"),
        ('{"layers":[["1"]],"towers":["0"]}', "choice '1' in layer 1 of the route reads one of 1 blocks"),
        ('{"layers":[["0"],["0","1"]],"towers":["0+1@mean"]}', "choice '1' in layer 2"),
        ('{"layers":[["0","0"]],"towers":["0","0"]}', "nothing reads block 1 of layer 1"),
    ],
)
def test_a_wrong_route_is_refused(text, message):
    with pytest.raises(ConfigError, match=message.replace("by +", r"by \+")):
        Route.parse(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "search.route has 2 layers, search.layers asks for 3"),
        ({"blocks": 2}, "search.route has 3 blocks in a layer, search.blocks allows 2"),
        ({"layers": 2, "route": '{"layers":[["0"],["0"]],"towers":["0","0"]}'}, "has 2 towers, the model has 3"),
        ({"layers": 1, "route": ""}, "level1.widths has 2 widths, search.layers asks for 1"),
        ({"route": "shared bottom"}, "search.route is not JSON"),
    ],
)
def test_a_route_outside_the_recipes_space_is_refused(change, message):
    recipe = recipe_of(ROUTE)
    with pytest.raises(ConfigError, match=message):
        RoutedNetwork(BEHAVIOURS, replace(recipe, search=replace(recipe.search, **change)), INPUTS, (GROUPS, 4))
