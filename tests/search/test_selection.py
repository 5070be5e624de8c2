"""Selections against the algorithm written out on plain numbers, and what must not happen on the way."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.supernet.networks import Net, Scale, choice, randn, seeded
from torch import Tensor, nn

from throughline.search.selection import Selection, magnitude_selection, perturbation_selection
from throughline.search.spaces import cells_1d, darts, nas_bench_201
from throughline.search.supernet import Choice, MixedOp, Node, choices, nodes

X = randn(6, 4)


class Fan(nn.Module):
    """One node of several edges, each of which multiplies by one of several numbers."""

    def __init__(self, factors: list[list[float]], alphas: list[list[float]], keep: int | None = None) -> None:
        super().__init__()
        made = [choice([f"o{k}" for k in range(len(a))], a) for a in alphas]
        ops = (
            {name: Scale(f) for name, f in zip(c.names, fs, strict=True)} for c, fs in zip(made, factors, strict=True)
        )
        self.node = Node((MixedOp(o, c) for o, c in zip(ops, made, strict=True)), keep=keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.node([x] * len(self.node.edges))


def softmax(alpha: list[float]) -> np.ndarray:
    e = np.exp(np.array(alpha))
    return e / e.sum()


# ---- magnitude ----


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=3, max_size=5), st.integers(1, 3))
def test_magnitude_takes_the_largest_weights(alphas: list[list[float]], keep: int) -> None:
    net = Fan([[1.0] * 3 for _ in alphas], alphas, keep)
    state = copy.deepcopy(net.state_dict())
    got = list(magnitude_selection(net, exclude=("o0", "unheard of")).values())
    p = net.node.edges  # the weights as the network has them: ties and rounding are not the question here
    weights = [edge.choice.weights().tolist() for edge in p]
    np.testing.assert_allclose(weights, [softmax(a) for a in alphas], rtol=1e-9)
    strongest = sorted(range(len(alphas)), key=lambda e: (-max(weights[e][1:]), e))[:keep]
    wanted = [f"o{1 + int(np.argmax(w[1:]))}" if e in strongest else None for e, w in enumerate(weights)]
    assert got == wanted
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items() if isinstance(v, Tensor))
    assert all(edge.choice.decision is None for edge in net.node.edges)
    with_none = magnitude_selection(net, exclude=())
    assert [o for o in with_none.values() if o] == [
        f"o{int(np.argmax(w))}" for w, o in zip(weights, with_none.values(), strict=True) if o
    ]


def test_magnitude_keeps_what_is_decided() -> None:
    alphas = [[0.0, 1.0], [0.0, 3.0], [0.0, 2.0], [0.0, 4.0]]
    net = Fan([[1.0, 1.0]] * 4, alphas, keep=2)
    names = list(choices(net))
    net.node.edges[0].choice.select("o0")
    net.node.edges[3].choice.drop()
    assert magnitude_selection(net, exclude=("o0",)) == dict(zip(names, ["o0", "o1", None, None], strict=True))


def test_magnitude_of_the_spaces_builds_a_network() -> None:
    net = darts(2, 3, primitives=("none", "skip_connect", "sep_conv_3x3"))
    with torch.no_grad():
        for c in choices(net).values():
            c.alpha.copy_(torch.tensor([5.0, 0.0, 0.1]))
    decisions = magnitude_selection(net)
    kept = [f"{kind}.{i}_{j}" for kind in ("normal", "reduce") for i in range(2, 6) for j in (0, 1)]  # ties: the first
    assert [name for name, option in decisions.items() if option] == kept
    assert set(decisions.values()) == {"sep_conv_3x3", None}
    darts(2, 3, primitives=("none", "skip_connect", "sep_conv_3x3"), decisions=decisions)
    bench = nas_bench_201(2, 1)
    with torch.no_grad():
        choices(bench)["edge.1_0"].alpha[0] = 1.0
    assert magnitude_selection(bench, exclude=())["edge.1_0"] == "none"
    assert magnitude_selection(bench)["edge.1_0"] != "none"


# ---- perturbation ----


def algorithm(
    factors: list[list[float]], alphas: list[list[float]], keep: int, order: list[Any], target: float, growth: float
) -> tuple[list[str | None], dict[Any, dict[str, float]], list[str]]:
    """Algorithm 1 on plain numbers: the fan is Σ_e Σ_k p_ek f_ek, its score -|fan - target|, and tuning lets f grow."""
    p = [softmax(a) for a in alphas]
    f = [np.array(row) for row in factors]
    decided: list[str | None] = [None] * len(p)
    scores: dict[Any, dict[str, float]] = {}
    events: list[str] = []

    def score() -> float:
        return -abs(sum(float(p[e] @ f[e]) for e in range(len(p))) - target)

    for step, item in enumerate(order):
        if step:
            f = [growth * row for row in f]
            events.append("tune")
        for e in [item] if isinstance(item, int) else [] if item == "node" else item:
            found = {}
            for k in range(len(p[e])):
                kept, p[e][k] = p[e][k], 0.0
                found[f"o{k}"] = score()
                p[e][k] = kept
            best = min(found, key=found.__getitem__)
            p[e] = np.array([float(name == best) for name in found])
            decided[e], scores[e] = best, found
            events.append(f"edge {e}")
        if item == "node":
            found = {}
            for e in range(len(p)):
                kept, p[e] = p[e], 0 * p[e]
                found[str(e)] = score()
                p[e] = kept
            for e in sorted(range(len(p)), key=lambda e: found[str(e)])[keep:]:
                p[e], decided[e] = 0 * p[e], None
            scores["node"] = found
            events.append("node")
    return decided, scores, events


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("grouped", [False, True])
def test_perturbation_is_algorithm_1(seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    edges, options = 4, 3
    factors, alphas = rng.normal(size=(edges, options)).tolist(), rng.normal(size=(edges, options)).tolist()
    order: list[Any] = rng.permutation(edges).tolist()
    if grouped:
        order = [order[:2], order[2:]]
    target, growth = float(rng.normal(3)), 1.1
    wanted, scores, events = algorithm(factors, alphas, 2, [*order, "node"], target, growth)
    net = Fan(factors, alphas, keep=2)
    names = list(choices(net))
    seen: list[str] = []
    one = torch.ones((), dtype=torch.float64)

    def evaluate(model: nn.Module) -> float:
        assert model is net  # no copy
        assert not torch.is_grad_enabled()
        return -abs(float(model(one)) - target)

    def tune(model: nn.Module) -> None:
        assert model is net
        seen.append("tune")
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Scale):
                    module.factor.mul_(growth)

    def on_step(name: str, found: dict[str, float]) -> None:
        seen.append("node" if name == "node" else f"edge {names.index(name)}")
        found.clear()  # it is the caller's

    call = [[names[e] for e in item] if grouped else names[item] for item in order]
    picked = perturbation_selection(net, evaluate, tune, order=[*call, "node"], on_step=on_step)
    assert picked.decisions == dict(zip(names, wanted, strict=True))
    assert seen == events
    for e, name in enumerate(names):
        assert picked.scores[name] == pytest.approx(scores[e], rel=1e-9)
    assert list(picked.scores["node"]) == names
    assert list(picked.scores["node"].values()) == pytest.approx(list(scores["node"].values()), rel=1e-9)
    state = [(c.decision, c.dropped) for c in choices(net).values()]
    assert state == [(option, option is None) for option in wanted]


def test_a_removed_option_is_not_made_up_for() -> None:
    net = Fan([[2.0, 3.0, 5.0]], [[0.1, 0.5, -0.2]])
    p = softmax([0.1, 0.5, -0.2])
    picked = perturbation_selection(net, lambda m: float(m(torch.ones(1).double())))
    (scores,) = picked.scores.values()
    assert list(scores.values()) == pytest.approx([3 * p[1] + 5 * p[2], 2 * p[0] + 5 * p[2], 2 * p[0] + 3 * p[1]])
    assert isinstance(picked, Selection)


def test_evaluation_sees_the_batch_and_leaves_nothing() -> None:
    net = Net(keep=None)
    net.dropout = nn.Dropout(0.5).eval()
    net.norm.running_mean.fill_(7.0)  # type: ignore[operator,union-attr]
    buffers = copy.deepcopy(dict(net.named_buffers()))
    held = dict(net.named_buffers())

    def evaluate(model: nn.Module) -> float:
        assert not any(m.training for m in model.modules())
        out = model.norm(X)  # type: ignore[operator]
        torch.testing.assert_close(out.mean(0), torch.zeros(4).double())  # of the batch
        model.train()  # the next call is in evaluation mode again
        return float(model(X).square().sum())

    modes: list[list[bool]] = []
    perturbation_selection(net, evaluate, lambda m: modes.append([x.training for x in m.modules()]))
    wanted = [m is not net.dropout for m in net.modules()]
    assert modes == [wanted] * 2
    assert [m.training for m in net.modules()] == wanted
    assert all(value is held[name] and torch.equal(value, buffers[name]) for name, value in net.named_buffers())


@pytest.mark.parametrize("own", [True, False])
def test_every_option_is_judged_with_the_same_noise(own: bool) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.op = MixedOp({f"o{k}": Scale(1.0) for k in range(4)}, Choice([f"o{k}" for k in range(4)], scale=0.0))
            self.generator = seeded() if own else None

        def forward(self, x: Tensor) -> Tensor:
            return self.op(x) + torch.randn(x.shape, generator=self.generator)

    net = Noisy()
    picked = perturbation_selection(net, lambda m: float(m(X).sum()))
    (scores,) = picked.scores.values()
    assert len(set(scores.values())) == 1
    assert picked.decisions == {"op.choice": "o0"}  # of equals the first
    choices(net)["op.choice"].reset()
    again = perturbation_selection(net, lambda m: float(m(X).sum()))
    assert again.scores["op.choice"]["o0"] != scores["o0"]  # but the next decision sees other noise


def test_the_default_order_is_random_with_choices_first() -> None:
    def order(generator: torch.Generator | None) -> list[str]:
        net, seen = Net(keep=1), []
        perturbation_selection(net, lambda m: 0.0, generator=generator, on_step=lambda n, s: seen.append(n))
        return seen

    orders = [order(seeded(s)) for s in range(30)]
    assert order(seeded(0)) == orders[0]
    assert len({tuple(o) for o in orders}) == 6  # all permutations of three choices
    assert all(o[3:] == ["cells.0.second"] for o in orders)  # the only node with more edges than it keeps
    before = torch.get_rng_state()
    order(seeded(0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    assert {tuple(order(None)) for _ in range(10)} != {tuple(order(None))}


def test_an_interrupted_selection_goes_on() -> None:
    factors, alphas = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.1, 0.2], [0.0, 0.4], [0.3, 0.1]]
    one = torch.ones((), dtype=torch.float64)

    def score(model: nn.Module) -> float:
        return float(model(one))

    whole = Fan(factors, alphas)
    names = list(choices(whole))
    wanted = perturbation_selection(whole, score, order=names)
    net = Fan(factors, alphas)
    first = perturbation_selection(net, score, order=names[:1])
    assert first.decisions == {names[0]: wanted.decisions[names[0]]}
    tuned: list[int] = []
    rest = perturbation_selection(net, score, lambda m: tuned.append(1), order=[[], names[1:2], names[2:]])
    assert rest.decisions == wanted.decisions
    assert {**first.scores, **rest.scores} == wanted.scores
    assert len(tuned) == 1
    nothing = perturbation_selection(net, score, lambda m: tuned.append(1))
    assert nothing == Selection(wanted.decisions, {})
    assert len(tuned) == 1


def test_nodes_with_nothing_to_cut_cost_nothing() -> None:
    net = Fan([[1.0, 2.0]] * 3, [[0.0, 0.0]] * 3, keep=2)
    names = list(choices(net))
    net.node.edges[1].choice.drop()
    calls: list[str] = []
    picked = perturbation_selection(
        net,
        lambda m: calls.append("evaluate") or 0.0,
        lambda m: calls.append("tune"),
        order=[names[0], names[2], "node"],
    )
    assert calls == ["evaluate"] * 2 + ["tune"] + ["evaluate"] * 2
    assert picked.decisions == {names[0]: "o0", names[1]: None, names[2]: "o0"}


def test_costs_no_more_than_what_is_alive() -> None:
    edges, options = 6, 5
    net = Fan([[1.0] * options] * edges, [[0.0] * options] * edges)
    one = torch.ones((), dtype=torch.float64)
    perturbation_selection(net, lambda m: float(m(one)))
    calls = sum(m.calls for m in net.modules() if isinstance(m, Scale))
    # at edge t: t edges of one candidate, one of all but one, the rest of all
    assert calls == sum(options * (t + options - 1 + (edges - 1 - t) * options) for t in range(edges))


def test_scores_may_be_any_numbers() -> None:
    for value in (torch.tensor([2.0]), np.float32(2), 2, float("-inf")):
        net = Fan([[1.0, 1.0]], [[0.0, 0.0]])
        picked = perturbation_selection(net, lambda m, value=value: value)  # type: ignore[misc]
        assert all(isinstance(s, float) for s in picked.scores["node.edges.0.choice"].values())


def test_spaces_end_in_networks_that_can_be_built() -> None:
    options = ("none", "skip_connect", "sep_conv_3x3")
    for net, build in (
        (darts(2, 1, primitives=options), lambda d: darts(2, 1, primitives=options, decisions=d)),
        (cells_1d(2), lambda d: cells_1d(2, decisions=d)),
    ):
        x = torch.randn(2, 3, 8, 8) if isinstance(net.get_submodule("stem.0"), nn.Conv2d) else torch.randn(2, 1, 20)
        picked = perturbation_selection(net, lambda m, x=x: float(m(x).sum()), generator=seeded())  # type: ignore[misc]
        assert list(picked.decisions) == list(choices(net))
        for edges, keep in nodes(net).values():
            assert sum(not c.dropped for c in edges) == (len(edges) if keep is None else keep)
        build(picked.decisions)(x)


def test_bad_input() -> None:
    net = Fan([[1.0, 1.0]] * 2, [[0.0, 0.0]] * 2, keep=1)
    first, second = choices(net)

    def good(model: nn.Module) -> float:
        return 0.0

    with pytest.raises(ValueError, match=r"order must name choices and nodes \(.*, node\), got 'nodes'"):
        perturbation_selection(net, good, order=[first, "nodes"])
    with pytest.raises(ValueError, match=rf"order must name everything once, got '{second}' twice"):
        perturbation_selection(net, good, order=[second, [first, second]])
    with pytest.raises(TypeError, match=rf"order must be a sequence of names, got '{first}'"):
        perturbation_selection(net, good, order=first)
    for select in (lambda m: perturbation_selection(m, good), magnitude_selection):
        with pytest.raises(ValueError, match=r"model must have choices to decide, got a Linear without any"):
            select(nn.Linear(1, 1))
    for bad in (float("nan"), torch.tensor(float("nan")), "0.5", None, torch.ones(2)):
        with pytest.raises(ValueError, match=r"evaluate must return a number that is not NaN, got "):
            perturbation_selection(net, lambda m, bad=bad: bad)  # type: ignore[misc]
    assert all(c.decision is None and c.alive == c.names for c in choices(net).values())
    choices(net)[first].select("o0")
    with pytest.raises(ValueError, match=rf"order must name choices that are open, got '{first}', which is decided"):
        perturbation_selection(net, good, order=[first])
    with pytest.raises(TypeError, match=r"exclude must be a collection of names, got 'none'"):
        magnitude_selection(net, exclude="none")
    with pytest.raises(ValueError, match=rf"exclude must leave an option of {second} \(o0, o1\), got \('o0', 'o1'\)"):
        magnitude_selection(net, exclude=("o0", "o1"))
