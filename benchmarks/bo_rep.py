"""Hypergradients beside torchopt, higher and betty: the same problem, the same iterations; a step of BO-REP beside its
arithmetic written out.
"""

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import higher
import torch
import torchopt
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.core.bilevel import hypergradient
from throughline.search.bilevel import BOREP

Calls = dict[str, Callable[[], Any]]


class Problem:
    """A classifier 784-300-300-10 whose weights pay a penalty, one learned coefficient a tensor, on 256 samples."""

    def __init__(self, batch: int = 256) -> None:
        torch.manual_seed(0)
        widths = (784, 300, 300, 10)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
        self.model = nn.Sequential(*layers[:-1])
        self.x = {name: torch.tensor(1.0, requires_grad=True) for name, _ in self.model.named_parameters()}
        self.y = dict(self.model.named_parameters())
        self.train, self.valid = (
            (torch.rand(batch, 784), torch.randint(10, (batch,))),
            (
                torch.rand(batch, 784),
                torch.randint(10, (batch,)),
            ),
        )

    def outer(self, x: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
        return cross_entropy(functional_call(self.model, y, (self.valid[0],)), self.valid[1])

    def inner(self, x: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
        penalty = sum(x[name].exp() * p.square().sum() for name, p in y.items()) / 2
        return cross_entropy(functional_call(self.model, y, (self.train[0],)), self.train[1]) + penalty

    def agree(self, ours: Callable[[], Any], peer: Callable[[], Any], rtol: float = 1e-3) -> Callable[[], None]:
        def check() -> None:
            theirs = peer()
            theirs = theirs if isinstance(theirs, dict) else dict(zip(self.x, theirs, strict=True))
            torch.testing.assert_close(ours(), theirs, rtol=rtol, atol=1e-6)

        return check


def conjugate(steps: int = 10) -> Calls:
    p = Problem()
    ours = partial(hypergradient, p.outer, p.inner, p.x, p.y, method="cg", steps=steps, tol=1e-12)
    solve = torchopt.linear_solve.solve_cg(maxiter=steps, rtol=1e-12, atol=0.0)
    names, coefficients, weights = tuple(p.x), tuple(p.x.values()), tuple(p.y.values())

    def named(values: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(names, values, strict=True))

    def optimality(y: tuple[Tensor, ...], x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(grad(p.inner, argnums=1)(named(x), named(y)).values())

    optimum = torchopt.diff.implicit.custom_root(optimality, argnums=1, solve=solve)(lambda y, x: y)

    def peer() -> tuple[Tensor, ...]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.autograd.grad(p.outer(p.x, named(optimum(weights, coefficients))), coefficients)

    return {"ours": ours, "peer": peer, "agree": p.agree(ours, peer)}


def betty(method: str, **options: Any) -> Calls:

    p = Problem()
    names = {"neumann": "neumann", "finite_difference": "darts"}
    config = SimpleNamespace(cg_iterations=10, cg_alpha=1.0, neumann_iterations=20, neumann_alpha=0.1, darts_alpha=1e-2)
    weights, coefficients = list(p.y.values()), list(p.x.values())
    current = SimpleNamespace(
        paths=[],
        config=config,
        cur_batch=None,
        training_step_exec=lambda batch: p.inner(p.x, p.y),
        trainable_parameters=lambda: weights,
        parameters=lambda: weights,
    )
    outer = SimpleNamespace(trainable_parameters=lambda: coefficients)

    def peer() -> list[Tensor]:
        function = getattr(importlib.import_module(f"betty.hypergradient.{names[method]}"), names[method])
        if method == "finite_difference":  # the virtual step y' = y − lr ∇_y g, as DARTS takes it
            lr = options["lr"]
            step = torch.autograd.grad(p.inner(p.x, p.y), weights)
            moved = {
                name: (w - lr * s).detach().requires_grad_() for (name, w), s in zip(p.y.items(), step, strict=True)
            }
            vector = torch.autograd.grad(p.outer(p.x, moved), list(moved.values()))
            before = [w.detach().clone() for w in weights]
            difference = function(vector, current, outer)
            with torch.no_grad():
                for w, b in zip(weights, before, strict=True):  # betty leaves the weights displaced
                    w.copy_(b)
            return [lr * d for d in difference]
        vector = torch.autograd.grad(p.outer(p.x, p.y), weights)
        return list(function(vector, current, outer))

    ours = partial(hypergradient, p.outer, p.inner, p.x, p.y, method=method, **options)  # type: ignore[arg-type]
    return {"ours": ours, "peer": peer, "agree": p.agree(ours, peer, 1e-2)}


def unrolled(steps: int, checkpoint: bool) -> Calls:
    p = Problem()
    ours = partial(
        hypergradient, p.outer, p.inner, p.x, p.y, method="unrolled", steps=steps, lr=0.1, checkpoint=checkpoint
    )
    optimizer = torch.optim.SGD(p.model.parameters(), lr=0.1)

    def peer() -> tuple[Tensor, ...]:
        with higher.innerloop_ctx(p.model, optimizer, copy_initial_weights=True) as (model, descent):
            for _ in range(steps):
                penalty = sum(p.x[n].exp() * w.square().sum() for n, w in model.named_parameters()) / 2
                descent.step(cross_entropy(model(p.train[0]), p.train[1]) + penalty)
            return torch.autograd.grad(cross_entropy(model(p.valid[0]), p.valid[1]), list(p.x.values()))

    return {"ours": ours, "peer": peer, "agree": p.agree(ours, peer)}


class Recurrent:
    """Next characters: a recurrent encoder is x, a linear head is y."""

    def __init__(self, hidden: int = 96, length: int = 48, batch: int = 16) -> None:
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(65, 32), nn.Linear(hidden, 65)
        self.encoder = nn.RNN(32, hidden, batch_first=True)
        self.modules = nn.ModuleDict({"embedding": self.embedding, "rnn": self.encoder})
        self.train, self.valid = torch.randint(65, (2, batch, length + 1))

    def outer(self, x: dict[str, Tensor], y: dict[str, Tensor], tokens: Tensor) -> Tensor:
        states = functional_call(self.encoder, _under("rnn.", x), (x["embedding.weight"][tokens[:, :-1]],))[0]
        return cross_entropy(functional_call(self.head, y, (states,)).flatten(0, 1), tokens[:, 1:].flatten())

    def inner(self, x: dict[str, Tensor], y: dict[str, Tensor], tokens: Tensor) -> Tensor:
        return self.outer(x, y, tokens) + 5e-5 * sum(p.square().sum() for p in y.values())

    def start(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        x, y = ({n: p.detach().clone() for n, p in m.named_parameters()} for m in (self.modules, self.head))
        return x, y


def _under(prefix: str, tree: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): p for name, p in tree.items() if name.startswith(prefix)}


RATES = {"lr": 0.4, "lower_lr": 0.1, "adjoint_lr": 0.1}


def single_loop() -> Calls:
    """`BOREP.step` beside the same arithmetic with a graph for each product, and one through x for each lower step."""
    p = Recurrent()

    def ours(steps: int = 2) -> list[Tensor]:
        x, y = p.start()
        optimizer = BOREP(p.outer, p.inner, x, y, lower_steps=2, **RATES)
        for _ in range(steps):
            optimizer.step(itertools.repeat(p.valid), itertools.repeat(p.train))
        return [*x.values(), *y.values()]

    def written_out(steps: int = 2) -> list[Tensor]:
        x, y = ({n: q.requires_grad_() for n, q in tree.items()} for tree in p.start())
        xs, ys = list(x.values()), list(y.values())
        z, m = [torch.zeros_like(q) for q in ys], [torch.zeros_like(q) for q in xs]

        def products(inputs: list[Tensor], vector: list[Tensor]) -> tuple[Tensor, ...]:
            slope = torch.autograd.grad(p.inner(x, y, p.train), ys, create_graph=True)
            return torch.autograd.grad(slope, inputs, vector)

        for k in range(steps):
            for _ in range(2 if k % 2 == 0 else 0):
                for q, g in zip(ys, torch.autograd.grad(p.inner(x, y, p.train), ys), strict=True):
                    q.data.sub_(g, alpha=0.1)
            upper_y = torch.autograd.grad(p.outer(x, y, p.valid), ys)
            upper_x = torch.autograd.grad(p.outer(x, y, p.valid), xs)
            z = [a - 0.1 * (h - v) for a, h, v in zip(z, products(ys, z), upper_y, strict=True)]
            m = [0.9 * a + 0.1 * (g - h) for a, g, h in zip(m, upper_x, products(xs, z), strict=True)]
            norm = torch.stack([a.norm() for a in m]).norm()
            for q, a in zip(xs, m, strict=True):
                q.data.sub_(0.4 * a / (norm + 1e-10))
        return [q.detach() for q in (*xs, *ys)]

    def agree() -> None:
        torch.testing.assert_close(ours(5), written_out(5), rtol=1e-4, atol=1e-5)

    return {"ours": ours, "peer": written_out, "agree": agree}


def least_work() -> Calls:
    """`BOREP.step` beside the forward and backward passes that it cannot do without, and nothing else."""
    p = Recurrent()
    x, y = p.start()
    optimizer = BOREP(p.outer, p.inner, x, y, lower_steps=2, **RATES)

    def ours() -> None:
        for _ in range(2):
            optimizer.step(itertools.repeat(p.valid), itertools.repeat(p.train))

    fixed, free = zip(*((q.detach(), q.detach().requires_grad_()) for q in p.start()[0].values()), strict=True)
    names = list(x)
    head = {name: q.requires_grad_() for name, q in p.start()[1].items()}
    ones = [torch.ones_like(q) for q in head.values()]

    def peer() -> None:
        still, moving = dict(zip(names, fixed, strict=True)), dict(zip(names, free, strict=True))
        leaves = list(head.values())
        for _ in range(2):
            torch.autograd.grad(p.inner(still, head, p.train), leaves)  # a lower step in each, on average
            torch.autograd.grad(p.outer(moving, head, p.valid), [*free, *leaves])
            slope = torch.autograd.grad(p.inner(moving, head, p.train), leaves, create_graph=True)
            torch.autograd.grad(slope, leaves, ones, retain_graph=True)
            torch.autograd.grad(slope, free, ones)

    return {"ours": ours, "peer": peer, "agree": single_loop()["agree"]}


def first_order() -> Calls:
    p = Problem()
    ours = partial(hypergradient, p.outer, p.inner, p.x, p.y, method="finite_difference", lr=0.1)
    leaves = [*p.x.values(), *p.y.values()]
    exact = partial(hypergradient, p.outer, p.inner, p.x, p.y, method="unrolled", lr=0.1)
    return {
        "ours": ours,
        "peer": lambda: torch.autograd.grad(p.inner(p.x, p.y), leaves),
        "agree": p.agree(ours, exact, 5e-2),  # what float32 leaves of a difference
    }


HIGHER, BETTY = "higher 0.2.1", "betty-ml 0.1.1"
CASES = [
    Case(
        "two steps of BOREP, tanh RNN 32-96-65 on 16 × 48 characters",
        single_loop,
        bar=1.0,
        peer="written out, a graph for each product",
    ),
    Case(
        "the same, with all that an optimiser does",
        least_work,
        bar=1.25,
        peer="its derivatives alone, one graph",
        work="less",
    ),
    Case("hypergradient by 10 steps of cg, MLP 784-300-300-10, batch 256", conjugate, 1.0, "torchopt 0.7.3"),
    Case("hypergradient through 20 unrolled steps", partial(unrolled, 20, False), 0.8, HIGHER),
    Case("the same, each step recomputed", partial(unrolled, 20, True), 1.5, HIGHER, bar_memory=0.3),
    Case(
        "hypergradient by finite differences",
        first_order,
        None,
        "first-order gradient of g",
        bar_memory=1.1,
        work="less",
    ),
]
if importlib.util.find_spec("betty") is not None:  # its metadata are refused by today's installers: by hand, if at all
    CASES += [  # its conjugate gradients mix an old residual into the direction: no agreement, hence no case
        Case("hypergradient by a Neumann series of 20", partial(betty, "neumann", steps=20, lr=0.1), 1.0, BETTY),
        Case(
            "hypergradient by finite differences, and betty's", partial(betty, "finite_difference", lr=0.1), 1.0, BETTY
        ),
    ]


def problem(width: int = 64, rows: int = 256) -> tuple[Any, ...]:
    """Ridge regression of a two-layer network, its weight decay being the outer parameter."""
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(rows, width, generator=draw), torch.randn(rows, 1, generator=draw)
    inner = [torch.randn(width, width, generator=draw) / width, torch.randn(width, 1, generator=draw) / width]
    outer = torch.zeros((), requires_grad=True)

    def loss(decay: Tensor, weights: Any) -> Tensor:
        fitted = (x @ weights[0]).tanh() @ weights[1]
        return (fitted - y).square().mean() + decay.exp() * sum(w.square().sum() for w in weights)

    return loss, outer, [w.requires_grad_() for w in inner]


def unrolling(checkpoint: bool, steps: int) -> Callable[[], Any]:
    loss, outer, inner = problem()
    return lambda: hypergradient(
        loss, loss, outer, inner, method="unrolled", lr=0.01, steps=steps, checkpoint=checkpoint
    )


def solving(method: str, steps: int) -> Callable[[], Any]:
    loss, outer, inner = problem()
    options: dict[str, Any] = {"lr": 0.01} if method == "neumann" else {}
    return lambda: hypergradient(loss, loss, outer, inner, method=method, steps=steps, **options)  # type: ignore[arg-type]


GROWTH = [
    Growth("hypergradient through unrolled steps", "steps", 16, partial(unrolling, False), time=1, memory=1),
    Growth("hypergradient through recomputed steps", "steps", 16, partial(unrolling, True), time=1, memory=0.5),
    Growth("hypergradient by a Neumann series", "steps", 16, partial(solving, "neumann"), time=1, memory=0),
]
