"""Plain networks give what their decided supernets give, with nothing of the supernet left."""

import copy
import pickle

import pytest
import torch
from tests.search.supernet.networks import Net, Scale, choice, mixed, randn
from torch import nn

from throughline.search.supernet import Choice, MixedOp, Node, choices, discretise
from throughline.search.supernet.discrete import Gone

X = randn(6, 4)


def plain(model: nn.Module) -> bool:
    return not any(isinstance(m, Choice | MixedOp | Node | Gone) for m in model.modules())


def decide(net: nn.Module, decisions: dict[str, str | None]) -> None:
    for name, made in choices(net).items():
        option = decisions[name]
        if option is None:
            made.drop()
        else:
            made.select(option)


@pytest.mark.parametrize(
    "decisions",
    [
        {"edges.0": "a", "edges.1": "b", "edges.2": "c"},
        {"edges.0": "c", "edges.1": None, "edges.2": "a"},
        {"edges.0": None, "edges.1": "a", "edges.2": "a"},
        {"edges.0": "a", "edges.1": None, "edges.2": None},
    ],
)
def test_gives_what_the_decided_supernet_gives(decisions: dict[str, str | None]) -> None:
    net = Net()
    from_decisions = discretise(net, decisions)
    assert all(made.decision is None for made in choices(net).values())  # the supernet stays as it is
    decide(net, decisions)
    wanted = net(X)
    for made in (from_decisions, discretise(net)):
        assert plain(made)
        assert not hasattr(made, "edges")  # it held choices alone
        again = pickle.loads(pickle.dumps(made))
        torch.testing.assert_close(made(X), wanted)
        torch.testing.assert_close(again(X), wanted)
    kept = 2 * sum(option is not None for option in decisions.values())
    if decisions["edges.0"] is not None and kept > 2:
        assert sum(isinstance(m, Scale) for m in made.modules()) == kept  # discarded candidates are gone
    with pytest.raises(ValueError, match=r"states must be 2, got 1"):
        made.cells[0].second([X])  # type: ignore[union-attr,index]


def test_undecided_edges_take_their_largest_alpha() -> None:
    net = Net()
    choices(net)["edges.1"].select("c")
    with torch.no_grad():
        choices(net)["edges.2"].alpha.copy_(torch.tensor([0.1, 0.2, 0.3]))
    wanted = discretise(net, {"edges.0": "b", "edges.1": "c", "edges.2": "c"})
    torch.testing.assert_close(discretise(net)(X), wanted(X))


def test_is_a_deep_copy_that_keeps_ties_and_modes() -> None:
    shared = Scale(2.0)
    net = nn.ModuleDict({"op": MixedOp({"a": shared, "b": Scale(1.0)}), "same": shared}).eval()
    made = discretise(net, {"op.choice": "a"})
    assert made["op"] is made["same"]  # type: ignore[index]
    assert made["op"] is not shared  # type: ignore[index]
    assert not any(m.training for m in made.modules())
    before = copy.deepcopy(list(net.parameters()))
    with torch.no_grad():
        for p in made.parameters():
            p.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_supernets_inside_of_candidates() -> None:
    inner = mixed(choice(("x", "y")), (2.0, 3.0))
    net = nn.Sequential(MixedOp({"deep": nn.Sequential(inner, mixed()), "skip": nn.Identity()}))
    names = list(choices(net))
    made = discretise(net, dict(zip(names, ("y", "c", "deep"), strict=True)))
    assert plain(made)
    torch.testing.assert_close(made(X), 15 * X)
    assert discretise(net, dict(zip(names, ("y", "c", "skip"), strict=True)))[0].__class__ is nn.Identity  # type: ignore[index]


def test_a_lone_edge_and_an_edge_that_is_cut() -> None:
    op = MixedOp({"wide": nn.Linear(4, 3), "narrow": nn.Linear(4, 3, bias=False)})
    assert type(discretise(op, {"choice": "wide"})) is nn.Linear
    cut = discretise(nn.Sequential(op), {"0.choice": None})
    assert plain(cut)
    assert torch.equal(cut(X.float()), torch.zeros(6, 3))
    assert sum(p.numel() for p in cut.parameters()) == 12
    for other in (nn.Linear(2, 2), nn.Sequential(nn.ModuleDict(), nn.ModuleList([nn.Tanh()]))):
        assert repr(discretise(other)) == repr(other)


def test_bad_decisions() -> None:
    net = Net()
    full: dict[str, str | None] = {"edges.0": "a", "edges.1": "a", "edges.2": "a"}
    with pytest.raises(ValueError, match=r"\(edges.0, edges.1, edges.2\), got none for \['edges.1', 'edges.2'\]"):
        discretise(net, {"edges.0": "a"})
    with pytest.raises(ValueError, match=r"got the unknown \['edges.3'\]"):
        discretise(net, {**full, "edges.3": "a"})
    with pytest.raises(ValueError, match=r"decisions must be options, a, b, c for edges.1, got 'd'"):
        discretise(net, {**full, "edges.1": "d"})
