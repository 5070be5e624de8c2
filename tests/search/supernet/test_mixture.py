"""Mixtures against sums written out, what runs and what does not, and outputs that do not fit each other."""

import copy
import pickle
from typing import Any

import pytest
import torch
from tests.search.supernet.networks import Cell, Net, Scale, choice, mixed, randn
from torch import Tensor, nn

from throughline.search.supernet import Choice, MixedOp, Node, choices

X = randn(5, 4)


def calls(op: MixedOp) -> list[int]:
    return [candidate.calls for candidate in op.ops.values()]  # type: ignore[misc]


# ---- mixed operations ----


def test_mixture_is_the_weighted_sum() -> None:
    op = mixed(choice(alpha=(0.1, 0.4, -0.3)))
    p = torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64).softmax(0)
    wanted = (p * torch.tensor([2.0, 3.0, 5.0])).sum() * X
    torch.testing.assert_close(op(X), wanted)
    with torch.no_grad():
        torch.testing.assert_close(op(X), wanted)  # accumulated in place
    with op.choice.without("b"):
        torch.testing.assert_close(op(X), (2 * p[0] + 5 * p[2]) * X)
    with torch.no_grad(), op.choice.without("a"):
        torch.testing.assert_close(op(X), (3 * p[1] + 5 * p[2]) * X)
    assert calls(op) == [3, 3, 4]  # what is removed does not run


def test_derivatives_to_second_order() -> None:
    op = MixedOp({"tanh": nn.Tanh(), "linear": nn.Linear(4, 4).double(), "skip": nn.Identity()}).double()
    leaves = tuple(op.parameters())
    x = X[:2].clone().requires_grad_()
    torch.autograd.gradcheck(lambda x, *_: op(x), (x, *leaves))
    torch.autograd.gradgradcheck(lambda x, *_: op(x), (x, *leaves))


def test_a_decided_one_runs_its_candidate_alone_and_returns_it_as_it_is() -> None:
    op = mixed()
    op.choice.select("b")
    out = op(X)
    assert torch.equal(out, 3 * X)
    assert calls(op) == [0, 1, 0]
    out.sum().backward()
    assert op.choice.alpha.grad is None  # a decided edge's alpha takes no part
    skip = MixedOp({"skip": nn.Identity(), "scale": Scale(1.0)})
    skip.choice.select("skip")
    assert skip(X) is X


@pytest.mark.parametrize("do", ["drop", "remove all", "remove the decision"])
def test_nothing_alive_gives_zeros_and_leaves_no_trace(do: str) -> None:
    norm = nn.BatchNorm1d(4, affine=False).double()
    op = MixedOp({"wide": nn.Linear(4, 4).double(), "norm": norm}).double()
    before = copy.deepcopy(norm.state_dict())
    if do == "remove the decision":
        op.choice.select("wide")
    if do == "drop":
        op.choice.drop()
        out = op(X)
    else:
        with op.choice.without(*{"remove all": (), "remove the decision": ("wide",)}[do]):
            out = op(X)
    assert torch.equal(out, torch.zeros_like(X))
    assert not out.requires_grad
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())


def test_zeros_are_asked_of_the_cheapest_candidate() -> None:
    class Fails(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError

    op = MixedOp({"fails": Fails(4, 3), "skip": nn.Linear(4, 3, bias=False)})
    op.choice.drop()
    assert op(X.float()).shape == (5, 3)


def test_arguments_pass_through() -> None:
    class Attends(nn.Module):
        def forward(self, x: Tensor, other: tuple[Tensor, Tensor], *, sign: int) -> Tensor:
            return x + sign * (other[0] + other[1])

    op = MixedOp({"a": Attends(), "b": Attends()})
    torch.testing.assert_close(op(X.float(), (X.float(), X.float()), sign=-1), -X.float())
    op.choice.drop()
    assert torch.equal(op(X.float(), (X.float(), X.float()), sign=-1), torch.zeros(5, 4))


def test_another_mixture_may_take_its_place() -> None:
    op = mixed()

    def last(op: MixedOp, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return op.run(op.choice.names[-1], args, kwargs)

    op.mixture = last
    assert torch.equal(op(X), 5 * X)
    op.choice.select("a")
    assert torch.equal(op(X), 2 * X)  # what is decided is not mixed
    op.choice.drop()
    assert torch.equal(op(X), torch.zeros_like(X))


def test_candidates_in_the_order_of_the_choice() -> None:
    op = MixedOp({"b": Scale(3.0), "a": Scale(2.0)}, choice(("a", "b")))
    assert list(op.ops) == ["a", "b"]
    assert MixedOp({"x": Scale(1.0), "y": Scale(1.0)}).choice.names == ("x", "y")


def test_copies_mix_as_the_original() -> None:
    op = mixed()
    for twin in (copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert torch.equal(twin(X), op(X))
        assert twin.choice is not op.choice


@pytest.mark.parametrize("grad", [True, False])
def test_mixed_precisions_give_the_widest(grad: bool) -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.bfloat16()

    op = MixedOp({"short": Half(), "skip": nn.Identity()}, Choice(["short", "skip"], scale=0.0))
    with torch.set_grad_enabled(grad):
        out = op(X.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, X.float(), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("grad", [True, False])
def test_candidates_run_under_vmap_with_parameters_of_their_own(grad: bool) -> None:
    op = mixed(factors=(1.0, 2.0, 4.0))
    stacked = {"ops.c.factor": torch.tensor([4.0, 6.0], dtype=torch.float64)}  # the first candidate is not mapped
    with torch.set_grad_enabled(grad):
        out = torch.func.vmap(lambda p: torch.func.functional_call(op, p, (X,)))(stacked)
        loop = [torch.func.functional_call(op, {"ops.c.factor": f}, (X,)) for f in stacked["ops.c.factor"]]
    torch.testing.assert_close(out, torch.stack(loop))


def test_bad_candidates() -> None:
    with pytest.raises(ValueError, match=r"ops must be at least one candidate, got none"):
        MixedOp({})
    with pytest.raises(ValueError, match=r"ops must have the names of the choice, got \('a',\) and \('a', 'b'\)"):
        MixedOp({"a": nn.Identity()}, Choice(["a", "b"]))
    with pytest.raises(ValueError, match=r"ops must have the names of the choice, got \('a', 'c'\) and \('a', 'b'\)"):
        MixedOp({"a": nn.Identity(), "c": nn.Identity()}, Choice(["a", "b"]))
    with pytest.raises(TypeError, match=r"ops must be modules, got function for 'f'"):
        MixedOp({"f": lambda x: x})  # type: ignore[dict-item]
    for name in ("conv.3", "pop"):
        with pytest.raises(ValueError, match=r"ops must have names that modules can have"):
            MixedOp({name: nn.Identity()})


@pytest.mark.parametrize("grad", [True, False])
def test_outputs_of_other_shapes_are_no_mixture(grad: bool) -> None:
    ops = {"skip": nn.Identity(), "column": nn.Linear(4, 1)}
    with torch.set_grad_enabled(grad):
        with pytest.raises(ValueError, match=r"^a MixedOp: .* one shape, got skip \(5, 4\), column \(5, 1\)$"):
            MixedOp(ops)(X.float())
        with pytest.raises(ValueError, match=r"^edge 1 of a Node: .* got skip \(5, 4\), column \(5, 1\)$"):
            Node([MixedOp({"skip": nn.Identity()}), MixedOp(ops)])([X.float(), X.float()])
    with pytest.raises(TypeError, match=r"edge 0 of a Node: candidate 'lstm' must give a tensor, got tuple"):
        Node([MixedOp({"lstm": nn.LSTM(4, 4)})])([X.float()])


# ---- nodes ----


def test_a_node_adds_up_its_edges() -> None:
    node = Node([mixed(factors=(f, f, f)) for f in (2.0, 3.0, 5.0)])
    states = [randn(4, seed=s) for s in range(3)]
    before = copy.deepcopy(states)
    wanted = 2 * states[0] + 3 * states[1] + 5 * states[2]
    torch.testing.assert_close(node(states), wanted)
    with torch.no_grad():
        torch.testing.assert_close(node(states), wanted)
        for edge in node.edges:
            edge.choice.select("a")
        torch.testing.assert_close(node(states), wanted)
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))


def test_states_are_never_written_to() -> None:
    node = Node([MixedOp({"skip": nn.Identity()}) for _ in range(3)])
    for edge in node.edges:
        edge.choice.select("skip")
    x, y, z = (torch.full((2,), float(v)) for v in (1, 2, 4))
    with torch.no_grad():
        assert node([x, y, z]).tolist() == [7, 7]
    assert (x.tolist(), y.tolist(), z.tolist()) == ([1, 1], [2, 2], [4, 4])


def test_a_node_skips_what_is_dropped() -> None:
    node = Node([mixed(factors=(f, f, f)) for f in (2.0, 3.0, 5.0)], keep=2)
    node.edges[0].choice.drop()
    torch.testing.assert_close(node([X, X, X]), 8 * X)
    assert calls(node.edges[0]) == [0, 0, 0]
    with node.edges[2].choice.without():
        torch.testing.assert_close(node([X, X, X]), 3 * X)
        node.edges[1].choice.drop()
        assert torch.equal(node([X, X, X]), torch.zeros_like(X))
    alone = Node([mixed()], keep=1)
    alone.edges[0].choice.drop()
    assert torch.equal(alone([X]), torch.zeros_like(X))
    assert repr(node).startswith("Node(\n  keep=2")


def test_a_cell_is_the_polynomial_that_it_spells() -> None:
    made = [choice(alpha=(0.1, 0.2, 0.3)), choice(alpha=(-0.1, 0.0, 0.5)), choice()]
    cell = Cell(made)
    p, q, r = (c.alpha.detach().softmax(0) for c in made)
    first, skip, last = (torch.tensor([f], dtype=torch.float64) for f in ((2, 3, 5), (7, 11, 13), (17, 19, 23)))
    wanted = skip @ q + (last @ r) * (first @ p)
    torch.testing.assert_close(cell(X), wanted * X)


def test_a_compiled_network_follows_its_decisions() -> None:
    net = Net().train()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        twin = copy.deepcopy(net)
        out, wanted = compiled(X), twin(X)
        torch.testing.assert_close(out, wanted)
        options = {"allow_unused": True, "materialize_grads": True}
        got = torch.autograd.grad(out.square().sum(), list(net.parameters()), **options)
        torch.testing.assert_close(got, torch.autograd.grad(wanted.square().sum(), list(twin.parameters()), **options))
        choices(net)["edges.0"].select("b")
        choices(net)["edges.2"].drop()


def test_bad_nodes() -> None:
    edge = MixedOp({"skip": nn.Identity()})
    with pytest.raises(ValueError, match=r"edges must be at least one, got none"):
        Node([])
    with pytest.raises(TypeError, match=r"edges must be MixedOps, got Identity"):
        Node([nn.Identity()])  # type: ignore[list-item]
    assert [Node([edge, mixed()], keep=k).keep for k in (1, 2, None)] == [1, 2, None]
    for keep in (0, 2):
        with pytest.raises(ValueError, match=rf"keep must be between 1 and the number of edges, 1, got {keep}"):
            Node([edge], keep=keep)
    with pytest.raises(ValueError, match=r"states must be one for each of the 1 edges, got 2"):
        Node([edge])([X, X])
    node = Node([edge, MixedOp({"skip": nn.Identity()})])
    with pytest.raises(ValueError, match=r"edges must give outputs of one shape, got \(5, 4\), \(5, 1\)"):
        node([X, X[:, :1]])
