"""Speed bars of supernets and of reading architectures out of them.

The authors' repository (github.com/ruocwang/darts-pt) is no package. Its search cell of NAS-Bench-201 is written anew
here over our candidates, so that both sides run the same convolutions on the same weights.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.selection import perturbation_selection
from throughline.search.spaces import nas_bench_201
from throughline.search.supernet import MixedOp, arch_parameters, batch_statistics, choices, weight_parameters

EDGES = {(i, j): sum(range(i)) + j for i in range(4) for j in range(i)}  # rows of the authors' table of alphas


def their_cell(cell: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    """As the authors' search cell has it: a Python sum over candidates, and one over the edges of a node."""
    states = [x]
    for i in range(1, 4):
        edges = cell.nodes[i - 1].edges  # type: ignore[union-attr,index]
        mixed = [
            sum(op(states[j]) * w for op, w in zip(edges[j].ops.values(), weights[EDGES[i, j]], strict=True))
            for j in range(i)
        ]
        states.append(sum(mixed))  # type: ignore[arg-type]
    return states[-1]


def theirs(net: Any, x: Tensor, weights: Tensor) -> Tensor:
    x = net.stem(x)
    for cell in net.cells:
        x = their_cell(cell, x, weights) if hasattr(cell, "nodes") else cell(x)
    logits: Tensor = net.classifier(net.relu(net.norm(x)).flatten(2).mean(2))
    return logits


def images(batch: int, side: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, side, side, generator=draw), torch.randint(10, (batch,), generator=draw)


def training_step(batch: int, cells: int) -> dict[str, Callable[[], Any]]:
    """Loss and gradients by weights and alphas."""
    net = nas_bench_201(cells=cells, generator=torch.Generator().manual_seed(0))
    x, y = images(batch, 32)

    def ours(net: nn.Module = net, x: Tensor = x, y: Tensor = y) -> tuple[Tensor, ...]:
        by = [*weight_parameters(net), *arch_parameters(net)]
        return torch.autograd.grad(F.cross_entropy(net(x), y), by)

    def peer(net: nn.Module = net, x: Tensor = x, y: Tensor = y) -> tuple[Tensor, ...]:
        alphas = torch.stack(list(arch_parameters(net))).detach().requires_grad_()  # the authors have one table
        by = [*weight_parameters(net), alphas]
        return torch.autograd.grad(F.cross_entropy(theirs(net, x, alphas.softmax(-1)), y), by)

    def agree() -> None:
        twin, (few, labels) = copy.deepcopy(net).double(), images(8, 8)
        slopes, wanted = ours(twin, few.double(), labels), peer(twin, few.double(), labels)
        table = torch.stack(slopes[len(wanted) - 1 :])
        for one, other in zip((*slopes[: len(wanted) - 1], table), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)

    return {"ours": ours, "peer": peer, "agree": agree}


def selection(batch: int, cells: int) -> dict[str, Callable[[], Any]]:
    """All six choices by the loss, and as many passes of the whole mixture as there are options to remove."""
    net = nas_bench_201(cells=cells, generator=torch.Generator().manual_seed(0))
    x, y = images(batch, 32)

    def loss(model: nn.Module) -> float:
        return -float(F.cross_entropy(model(x), y))

    def reset() -> None:
        for choice in choices(net).values():
            choice.reset()

    def ours() -> Any:
        reset()
        return perturbation_selection(net, loss, generator=torch.Generator().manual_seed(0))

    def peer() -> list[float]:
        reset()
        with torch.no_grad(), batch_statistics(net):
            return [loss(net) for choice in choices(net).values() for _ in choice.names]

    def agree() -> None:
        """A removal gives what a weight of 0 gives, in the table and in the scores."""
        reset()
        few, labels = images(8, 8)
        name = list(choices(net))[3]
        picked = perturbation_selection(net, lambda m: -float(F.cross_entropy(m(few), labels)), order=[name])
        reset()
        for k, score in enumerate(picked.scores[name].values()):
            with torch.no_grad(), batch_statistics(net):
                weights = torch.stack(list(arch_parameters(net))).softmax(-1)
                weights[3, k] = 0
                wanted = -float(F.cross_entropy(theirs(net, few, weights), labels))
            torch.testing.assert_close(score, wanted, atol=1e-4, rtol=1e-4)

    return {"ours": ours, "peer": peer, "agree": agree}


CASES = [
    Case(
        "nas_bench_201, a training step, batch 64, 32 × 32",
        partial(training_step, 64, 5),
        1.05,
        "the authors' search cell",
    ),
    Case(
        "perturbation_selection, nas_bench_201 of three cells a stage, batch 16, 32 × 32",
        partial(selection, 16, 3),
        0.65,
        "as many passes of the whole mixture",
        bar_memory=1.05,
        work="other",
    ),
]


def mixing(candidates: int) -> Callable[[], Any]:
    op = MixedOp({f"c{k}": nn.Tanh() for k in range(candidates)})
    x = torch.randn(64, 4096, requires_grad=True)
    return lambda: torch.autograd.grad(op(x).sum(), [x, op.choice.alpha])


def selecting(candidates: int) -> Callable[[], Any]:
    op = MixedOp({f"c{k}": nn.Tanh() for k in range(candidates)})
    x = torch.randn(64, 4096)

    def call() -> Any:
        op.choice.reset()
        return perturbation_selection(op, lambda model: float(model(x).sum()))

    return call


GROWTH = [
    Growth("MixedOp of K candidates, forward and backward", "candidates K", 8, mixing, time=1, memory=1, step=2),
    Growth("perturbation_selection of K candidates", "candidates K", 8, selecting, time=2, memory=0, step=2),
]
