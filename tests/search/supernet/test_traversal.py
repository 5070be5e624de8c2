"""What is found in a supernet: everything, and once."""

import copy

import pytest
import torch
from tests.search.supernet.networks import Net, choice, mixed
from torch import nn

from throughline.search.supernet import Choice, Node, arch_parameters, choices, discretise, nodes, weight_parameters


def test_shared_choices_are_found_once_under_their_first_name() -> None:
    net = Net()
    found = choices(net)
    assert list(found) == ["edges.0", "edges.1", "edges.2"]
    assert all(found[f"edges.{i}"] is net.edges[str(i)] for i in range(3))
    assert list(choices(net.cells[1])) == ["first.edges.0.choice", "second.edges.0.choice", "second.edges.1.choice"]
    assert choices(nn.Linear(1, 1)) == {}
    alone = Choice(["a"])
    assert choices(alone) == {"": alone}


def test_nodes_of_the_same_choices_are_one() -> None:
    net = Net(keep=1)
    a, b, c = net.edges.values()
    assert nodes(net) == {"cells.0.first": ((a,), None), "cells.0.second": ((b, c), 1)}
    other = nn.ModuleList([Node([mixed(a), mixed(b)], keep=1), Node([mixed(b), mixed(a)], keep=2)])  # type: ignore[arg-type]
    assert nodes(other) == {"0": ((a, b), 1), "1": ((b, a), 2)}
    net.cells[1].second.keep = 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"got 1 in 'cells.0.second' and 2 in 'cells.1.second'"):
        nodes(net)


def test_wrappers_leave_no_mark() -> None:
    net = Net()
    for wrapped in (torch.compile(net, backend="eager"), nn.DataParallel(net)):
        assert list(choices(wrapped)) == list(choices(net))
        assert list(nodes(wrapped)) == list(nodes(net))
        assert len(weight_parameters(wrapped)) == len(weight_parameters(net))
        assert type(discretise(wrapped)) is Net


def test_parameters_are_split_in_two() -> None:
    net = Net()
    arch, weights = arch_parameters(net), weight_parameters(net)
    assert [p is c.alpha for p, c in zip(arch, net.edges.values(), strict=True)] == [True] * 3
    assert len(weights) == 2 * 9 + 2
    assert {id(p) for p in arch + weights} == {id(p) for p in net.parameters()}
    choices(net)["edges.0"].select("a")
    assert len(arch_parameters(net)) == 3


def test_ties_survive_deepcopy_and_loading() -> None:
    net = Net()
    choices(net)["edges.1"].select("b")
    twin = copy.deepcopy(net)
    assert list(choices(twin)) == list(choices(net))
    assert twin.cells[1].first.edges[0].choice is twin.edges["0"]  # type: ignore[union-attr,index]
    fresh = Net()
    with torch.no_grad():
        for alpha in arch_parameters(net):
            alpha.add_(1)
    state = net.state_dict()
    assert sum(key.endswith("alpha") for key in state) == 9  # under every name
    fresh.load_state_dict(state)
    for (name, made), other in zip(choices(net).items(), choices(fresh).values(), strict=True):
        assert torch.equal(made.alpha, other.alpha), name
        assert made.decision == other.decision
    assert fresh.cells[1].first.edges[0].choice is fresh.edges["0"]  # type: ignore[union-attr,index]
    assert choice().decision is None
